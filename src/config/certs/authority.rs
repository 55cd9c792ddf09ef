//! The authority that signs certificates for intercepted connections.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::super::plan::Interception;
use super::super::problem::Report;
use super::super::tree::Node;
use super::Certs;
use super::server::{Date, chain, key};
use crate::connect::trust::Trust;
use crate::intercept::{Authority, Minter, Pinned, Unfit};
use crate::relay::tls::intercepted::Ends;
use crate::sys::time;
use crate::wire::x509;

impl Certs<'_> {
    /// What rules with `action: intercept` need. `root` is where it is said that a key is missing; servers are those whom
    /// `trust` trusts; `fallback`:
    /// `interceptFallback`.
    pub(in crate::config) fn interception(
        &mut self,
        root: &Node,
        trust: Arc<Trust>,
        fallback: bool,
        report: &mut Report,
    ) -> Option<Arc<Interception>> {
        const WHY: &str = "is missing: `action: intercept` needs the certificate of an authority and its key (see --make-ca)";
        let public = self.needed("interceptPublic", root, "certs.interceptPublic", WHY, report);
        let private = self.needed("interceptPrivate", root, "certs.interceptPrivate", WHY, report);
        let (public, private) = (self.load(public?, report), self.load(private?, report));
        let (public, private) = (public?, private?);
        private.file.warn_if_public(&private.path, private.node, report);
        let (chain, key) = (chain(&public, report), key(&private, report));
        let (chain, key) = (chain?, key?);
        let own = chain.clone();
        let authority = match Authority::new(chain, &key, time::now().secs) {
            Ok(authority) => authority,
            Err(unfit) => {
                let (public_path, private_path) = (public.path.display(), private.path.display());
                match unfit {
                    Unfit::OtherKey => report.error(
                        private.node,
                        format!(
                            "`{private_path}`: the key is not that of the certificate in `{public_path}`"
                        ),
                    ),
                    Unfit::Key(error) => {
                        report.error(
                            private.node,
                            format!("`{private_path}`: the key cannot be used: {error}"),
                        );
                    }
                    Unfit::Unreadable => {
                        report.error(public.node, format!("`{public_path}`: the certificate cannot be read"));
                    }
                    Unfit::NoAuthority => report.error(
                        public.node,
                        format!("`{public_path}`: the certificate is not an authority's: it lacks `CA:TRUE`"),
                    ),
                    Unfit::MayNotSign => report.error(
                        public.node,
                        format!(
                            "`{public_path}`: the certificate may not sign others: it lacks `keyCertSign`"
                        ),
                    ),
                    Unfit::Expired(time) => report.error(
                        public.node,
                        format!("`{public_path}`: the certificate has expired on {}", Date(time)),
                    ),
                }
                return None;
            }
        };
        if let Some(read) = own.first().and_then(|der| x509::parse(der))
            && read.not_before.unix_secs > time::now().secs
        {
            let (path, date) = (public.path.display(), Date(read.not_before));
            report.warn(
                public.node,
                format!("`{path}`: the certificate counts from {date} on, if this machine's clock is right"),
            );
        }
        let mut made_of = Sha256::new();
        for file in [&public.file, &private.file] {
            made_of.update(Sha256::digest(&file.bytes));
        }
        made_of.update([u8::from(fallback)]);
        match Minter::new(authority).and_then(|minter| Ok((minter, Ends::new(trust.clone())?))) {
            Ok((minter, ends)) => {
                let (made_of, pinned) = (made_of.finalize().into(), fallback.then(Pinned::default));
                Some(Arc::new(Interception { minter, ends, trust, made_of, pinned }))
            }
            Err(error) => {
                report.error(public.node, format!("nothing can be intercepted: {error}"));
                None
            }
        }
    }
}
