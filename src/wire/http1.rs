//! HTTP/1.0 and 1.1 heads and message framing (RFC 9110, RFC 9112).
