//! Intermediate certificates of valid chains, for the servers that forget to send theirs.
//!
//! Browsers know these certificates, so nobody notices what such a server leaves out until a stricter client comes. What is
//! kept here is never trusted for being here: it is only tried, and the whole way to a root is checked as ever.

use std::collections::VecDeque;

use rustls::pki_types::CertificateDer;

use crate::wire::x509;

/// Certificates that are kept. A few dozen sign most of the web.
const MAX_KEPT: usize = 64;
/// The largest one that is kept; most have less than 2 KB.
const MAX_BYTES: usize = 4096;
/// Certificates between a server's own and a root. Two are many.
const MAX_DEPTH: usize = 4;

/// The ones seen last, the latest first.
#[derive(Default)]
pub(super) struct Intermediates(VecDeque<CertificateDer<'static>>);

impl Intermediates {
    /// Keeps what of a valid chain leads from its first certificate upwards, to where `proves` says that it needs no more to
    /// be a chain. What else a server sent is passed over: it may be made by anybody, with the name of an authority.
    pub(super) fn keep<'a>(
        &mut self,
        own: &CertificateDer<'a>,
        others: &[CertificateDer<'a>],
        proves: impl Fn(&[CertificateDer<'a>]) -> bool,
    ) {
        let way = way(own, |issuer| others.iter().find(|other| is_subject(other, issuer)));
        let mut way: Vec<CertificateDer<'a>> = way.into_iter().cloned().collect();
        // Those that are kept have been proven.
        if !way.iter().all(|certificate| self.0.contains(certificate)) {
            let enough = (1..=way.len()).find(|count| way.get(..*count).is_some_and(&proves));
            way.truncate(enough.unwrap_or_default());
        }
        for certificate in way.into_iter().filter(|certificate| certificate.len() <= MAX_BYTES) {
            match self.0.iter().position(|kept| *kept == certificate) {
                Some(0) => continue,
                Some(place) => drop(self.0.remove(place)),
                None => self.0.truncate(MAX_KEPT - 1),
            }
            self.0.push_front(certificate.into_owned());
        }
    }

    /// Those that a server with this chain may have left out.
    pub(super) fn find(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Vec<CertificateDer<'static>> {
        let known = || others.iter().chain(&self.0);
        let way = way(own, |issuer| known().find(|known| is_subject(known, issuer)));
        let missing = way.into_iter().filter(|certificate| !others.contains(certificate));
        missing.map(|certificate| certificate.clone().into_owned()).collect()
    }
}

/// From `own` to whoever signed it, and so on; without `own` and without a root, which signs itself.
fn way<'c, 'd: 'c>(
    own: &'c CertificateDer<'d>,
    find: impl Fn(&[u8]) -> Option<&'c CertificateDer<'d>>,
) -> Vec<&'c CertificateDer<'d>> {
    let mut way = Vec::new();
    let mut last = own;
    for _ in 0..MAX_DEPTH {
        let Some(parsed) = x509::parse(last) else { break };
        let Some(next) = find(parsed.issuer).filter(|next| !is_subject(next, issuer_of(next))) else { break };
        way.push(next);
        last = next;
    }
    way
}

fn is_subject(certificate: &CertificateDer<'_>, name: &[u8]) -> bool {
    x509::parse(certificate).is_some_and(|certificate| certificate.subject == name)
}

fn issuer_of<'c>(certificate: &'c CertificateDer<'_>) -> &'c [u8] {
    x509::parse(certificate).map_or(&[], |certificate| certificate.issuer)
}

#[cfg(test)]
impl Intermediates {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
