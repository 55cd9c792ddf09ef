//! Workers: each has its own listeners, poll, sessions, timers and pipes, and shares nothing with the others but the
//! plan, counters, and the channels of the resolver and the waker.
//!
//! This is the only place that polls. A worker turns readiness into calls of the session, and the session's steps into
//! system calls; what is decided and in which order is the session's business.

mod admission;
mod connection;
mod datagrams;
mod dialled;
mod gather;
mod handle;
mod listening;
#[cfg(feature = "tls")]
pub mod prober;
mod reporter;
pub mod resolver;
mod seldom;
mod slab;
#[cfg(test)]
mod tests;
mod timers;
mod tools;
pub mod verifier;
mod worker;

pub use admission::{Admission, Effective};
pub use dialled::Dialled;
pub use gather::{Gather, Row};
pub use handle::{Command, Handle, Shared, prepare};
pub use listening::{Binding, Socket, bind, bind_one, diff};
pub use worker::{share_out, spawn};
