//! TLS that is decrypted: the handshake with the server, the one with the client, and what is decided inside.

use std::net::IpAddr;

use super::machine::Session;
use super::{Env, Step};
use crate::decide::Verdict;

impl Session {
    /// The rules say that the connection is to be decrypted.
    pub(super) fn intercept(&mut self, _verdict: Verdict, _addrs: &[IpAddr], env: &mut Env<'_>) -> Step {
        self.deny_always(env)
    }
}
