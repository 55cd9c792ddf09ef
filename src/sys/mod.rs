//! All `unsafe` and all libc of the crate, behind safe functions.
#![allow(unsafe_code)]

pub mod socket;
pub mod splice;
