//! The build without the feature `intercept`: the configuration refuses the action, so nothing here is ever reached.

use std::net::{IpAddr, SocketAddr};

use super::machine::Session;
use super::{CloseReason, Env, Machine as _, Step};
use crate::decide::{Facts, Verdict};
use crate::identify::Identity;
use crate::wire::http1::{Reject, Request};

/// There is none.
#[derive(Debug)]
pub(super) enum Intercepting {}

impl Session {
    pub(super) fn intercept(&mut self, _: Verdict, _: Vec<IpAddr>, env: &mut Env<'_>) -> Step {
        self.deny_always(env)
    }

    pub(super) fn secure_server(&mut self, _: SocketAddr, _: &Env<'_>) -> Step {
        self.close(CloseReason::Denied)
    }

    pub(super) fn secure_client(&mut self, _: Option<&[u8]>, _: &Env<'_>) -> Step {
        self.close(CloseReason::Denied)
    }

    pub(super) fn remember_refusal(&mut self, _: &Env<'_>) {}

    pub(super) fn go_inside(&mut self, _: &mut Env<'_>) -> Step {
        self.close(CloseReason::Denied)
    }

    pub(super) fn identified_inside(&mut self, _: &Identity, _: &mut Env<'_>) -> Step {
        self.close(CloseReason::Denied)
    }

    pub(super) fn outside_facts(&self) -> Option<Facts> {
        None
    }

    pub(super) fn consider_inside(&mut self, _: Request, _: Result<(), Reject>, _: &mut Env<'_>) -> Step {
        self.close(CloseReason::Denied)
    }
}
