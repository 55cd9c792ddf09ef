//! Facts and rules in, a verdict or the one fact that is still needed out.
//!
//! Pure: std and `ipnet` only, no clock, no log, no sockets. The same code decides for a socket, for `--why` and for
//! whatever comes later.
//!
//! `rules` is what the configuration builds and everybody calls. Behind it, `compile` turns each rule into a mask of
//! `worlds` (what the first bytes can be) and one `predicate` for each address, port, name and user; `walk` goes through
//! them with three-valued logic; `always` is the built-in rule before them. `list`, `name`, `fingerprint` and `addr_set` are
//! what values are looked up in. What must always hold, and is tested against a naive oracle: a verdict never changes by
//! what is learnt later, and no fact is asked for that cannot change it.

pub mod addr_set;
mod always;
mod compile;
pub mod device;
pub mod ech;
pub mod facts;
pub mod fingerprint;
pub mod list;
pub mod name;
mod predicate;
mod punycode;
pub mod request;
pub mod rules;
mod walk;
pub mod week;
pub mod why;
mod worlds;

pub use facts::{Cert, Ech, Facts, Known, L4, L5, L7};

/// What happens to a connection or request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Let it through.
    Accept,
    /// Refuse it.
    Deny,
    /// Plain HTTP is sent to https, everything else is refused.
    Redirect,
    /// TLS is decrypted and each request inside decided by itself; QUIC is refused, as its clients go on with TLS;
    /// everything else, and a request inside, is let through.
    Intercept,
    /// Say that the rule matches, and go on: never a verdict's.
    Observe,
}

impl Action {
    /// Whether the traffic gets where it wants to go.
    pub fn lets_through(self) -> bool {
        matches!(self, Action::Accept | Action::Intercept)
    }

    /// As written in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Accept => "accept",
            Action::Deny => "deny",
            Action::Redirect => "redirect",
            Action::Intercept => "intercept",
            Action::Observe => "observe",
        }
    }
}

/// Which rule gave the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleId {
    /// The built-in rule before the others: destinations that a proxy must not reach.
    Always,
    /// A rule's place in the file, from 0.
    Index(u16),
    /// An exception for a while, which the configuration knows nothing of.
    Pass,
    /// No rule matched.
    Default,
    /// What began as a known protocol was not whole in time or size.
    Incomplete,
}

impl std::fmt::Display for RuleId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RuleId::Always => f.write_str("always"),
            RuleId::Index(i) => write!(f, "{i}"),
            RuleId::Pass => f.write_str("pass"),
            RuleId::Default => f.write_str("default"),
            RuleId::Incomplete => f.write_str("incomplete"),
        }
    }
}

/// The end of a walk through the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What to do.
    pub action: Action,
    /// Which rule says so.
    pub rule: RuleId,
}

/// The facts that are obtained together, in the order of what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// `src`, `sport`, `l4` or `user`: known before the rules are asked, unknown only to `--why`.
    Given,
    /// `time`: what the clock shows.
    Time,
    /// `mac` and `device`: what is known of the client on the local network.
    Device,
    /// `l5`, `name`, `ech`, `esni`, the request (`l7`, `host`, `path`), and `port` where the original destination was lost:
    /// the client's first bytes.
    FirstBytes,
    /// `dest`: a name to resolve.
    Dest,
    /// `cert`: a handshake of our own with `dest`, which must be obtained first.
    Cert,
}

/// What the observing rules before the end of a walk say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// These match; by their places.
    Rules(Vec<u16>),
    /// One of them hangs on this.
    Need(Need),
}

/// A verdict, or what it hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The walk ended.
    Verdict(Verdict),
    /// Obtain this and ask again.
    Need(Need),
}

#[cfg(test)]
mod tests;
