//! All `unsafe` and all libc of the crate, behind safe functions.
#![allow(unsafe_code)]

pub mod addresses;
pub mod limits;
pub mod memory;
pub mod output;
pub mod privileges;
pub mod socket;
pub mod splice;
#[cfg(test)]
pub(crate) mod testing;
pub mod time;
