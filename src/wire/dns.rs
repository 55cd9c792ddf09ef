//! DNS messages (RFC 1035): what a forwarder's resolver and the identification need.
