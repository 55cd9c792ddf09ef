//! What servers' certificates are worth: asked where a rule hangs on it, of the addresses that may be dialled.
//!
//! Nobody is asked for the certificate of a client that names nobody, and no server over QUIC: both are `unknown`.

use std::net::{IpAddr, SocketAddr};

use super::machine::Session;
use super::state::State;
use super::{CloseReason, Machine, Step};
use crate::connect::probe::{Doubt, Finding, Target};
use crate::decide::name;
use crate::decide::{Cert, Known};
use crate::identify::Identity;

/// Addresses of one family that are asked. The others of a name are not dialled then: mostly they are the same server.
const MAX_PER_FAMILY: usize = 2;

/// The findings of one session.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// For all addresses, where none can be asked.
    everywhere: Option<Finding>,
    /// By address.
    at: Vec<(IpAddr, Finding)>,
    /// Who is being asked, in the order of the step.
    asked: Vec<IpAddr>,
    /// Of the address that the log shows.
    pub(super) shown: Option<Finding>,
}

impl Certificates {
    fn at(&self, addr: IpAddr) -> Option<Finding> {
        let of_addr = || self.at.iter().find(|(known, _)| *known == addr).map(|(_, finding)| *finding);
        self.everywhere.or_else(of_addr)
    }

    /// Takes in the answers to the last step.
    pub(super) fn found(&mut self, findings: Vec<Finding>) {
        let findings = findings.into_iter().chain(std::iter::repeat(Finding::Unknown(Doubt::Busy)));
        self.at.extend(std::mem::take(&mut self.asked).into_iter().zip(findings));
    }
}

/// Leaves of `addrs` so many of each family, in their order.
pub(super) fn keep_few(addrs: &mut Vec<IpAddr>) {
    let (mut ip4, mut ip6) = (0, 0);
    addrs.retain(|addr| {
        let count = if addr.is_ipv4() { &mut ip4 } else { &mut ip6 };
        *count += 1;
        *count <= MAX_PER_FAMILY
    });
}

impl Session {
    /// What the rules see of the certificate at `addr`.
    pub(super) fn cert_at(&self, addr: IpAddr) -> Known<Cert> {
        match (self.facts.cert, self.certificates.at(addr)) {
            (Known::Absent, _) => Known::Absent,
            (_, Some(finding)) => Known::Is(worth(finding)),
            (cert, None) => cert,
        }
    }

    /// From here on `addr` is what is shown to others.
    pub(super) fn show_cert_at(&mut self, addr: IpAddr) {
        self.certificates.shown = self.certificates.at(addr);
        self.facts.cert = self.cert_at(addr);
    }

    /// A rule hangs on the certificates of these. Nothing if it is known without asking what they are worth.
    pub(super) fn ask_for_certificates(&mut self, addrs: Vec<IpAddr>) -> Option<Step> {
        let (Some(Identity::Tls(hello)), Known::Is(port)) = (&self.identity, self.facts.port) else {
            self.certificates.everywhere = Some(Finding::Unknown(Doubt::Quic));
            return None;
        };
        let Some(name) = hello.sni.as_deref().and_then(name::normalise) else {
            self.certificates.everywhere = Some(Finding::Unknown(Doubt::NoName));
            return None;
        };
        if addrs.is_empty() {
            return Some(self.close(CloseReason::NoDestination));
        }
        let target = |addr: &IpAddr| Target::new(&name, SocketAddr::new(*addr, port), &hello.alpn);
        let targets = addrs.iter().map(target).collect();
        self.certificates.asked = addrs;
        self.go(State::Probing);
        Some(Step::Probe(targets))
    }
}

fn worth(finding: Finding) -> Cert {
    match finding {
        Finding::Valid => Cert::Valid,
        Finding::Invalid(_) => Cert::Invalid,
        Finding::Unknown(_) => Cert::Unknown,
    }
}
