//! From a name and a port to a connected socket: resolving, then dialling; between them perhaps a look at the server's
//! certificate.
//!
//! These are state machines without sockets and clock: they say what to send or open, and are told what happened.

pub mod dial;
pub mod distrust;
pub mod probe;
mod recent;
pub mod resolve;
#[cfg(feature = "tls")]
pub mod trust;
