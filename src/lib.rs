//! Calamary: a forward proxy that filters by what a connection really is.
#![deny(unsafe_code)]

pub mod accept;
pub mod auth;
pub mod cli;
pub mod config;
pub mod connect;
pub mod daemon;
pub mod decide;
pub mod devices;
pub mod engine;
pub mod identify;
#[cfg(feature = "intercept")]
pub mod intercept;
pub mod logging;
pub mod metrics;
pub mod program;
pub mod quota;
pub mod relay;
pub mod session;
pub mod sys;
pub mod wire;
