//! TODO

pub mod resolver;
