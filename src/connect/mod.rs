//! From a name and a port to a connected socket: resolving, then dialling.
//!
//! Both are state machines without sockets and clock: they say what to send or open, and are told what happened.

pub mod dial;
pub mod resolve;
#[cfg(feature = "tls")]
pub mod trust;
