//! All `unsafe` and all libc of the crate, behind safe functions.
#![allow(unsafe_code)]

pub mod addresses;
pub mod datagram;
pub mod error;
pub mod files;
pub mod limits;
pub mod local_socket;
pub mod memory;
pub mod names;
mod netlink;
pub mod output;
pub mod privileges;
pub mod random;
pub mod readiness;
pub mod signals;
pub mod socket;
pub mod splice;
pub mod terminal;
#[cfg(test)]
pub(crate) mod testing;
pub mod threads;
pub mod time;
