//! The connection's state machine: the only place that knows the order of the stages.

pub mod reason;

pub use reason::CloseReason;
