//! From the file to the plan.

pub mod plan;

pub use plan::{Limits, Listener, Log, Mode, Output, Plan, Target, Timeouts};
