//! What the first bytes can be, as a small finite set: protocol, ECH and ESNI hang together, so they are one mask.
//!
//! A world is one combination of `protoL4`, `protoL5`, `ech` and `esni`. For each transport there are sixteen: TLS and
//! QUIC with three kinds of ECH, each with and without ESNI, and one each for HTTP, DNS, NTP and none. The four fields of
//! a rule become one mask of the worlds in which they match, and a walk carries the mask of the worlds still possible, so
//! that nothing is asked whose answer the other facts or the rules passed already give.

use super::rules::{EchValue, FieldSpec, Term};
use super::{Ech, Facts, Known, L4, L5};

/// A set of worlds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Worlds(u32);

// One transport's half: tls in bits 0 to 5, quic in 6 to 11, each `2 * ech + esni`; the rest below.
const TLS: u16 = 0x003f;
const QUIC: u16 = 0x0fc0;
const HELLO: u16 = TLS | QUIC;
const HTTP: u16 = 1 << 12;
const DNS: u16 = 1 << 13;
const NTP: u16 = 1 << 14;
const NONE: u16 = 1 << 15;
const ESNI: u16 = 0b10_1010_1010_1010;
const ECH_NONE: u16 = 0b0000_1100_0011;

impl Worlds {
    pub(super) const ALL: Worlds = Worlds(u32::MAX);
    pub(super) const EMPTY: Worlds = Worlds(0);
    /// Those in which `redirect` redirects.
    pub(super) const HTTP: Worlds = both(HTTP);
    /// Those in which `intercept` denies.
    pub(super) const QUIC: Worlds = both(QUIC);
    const TCP: Worlds = Worlds(0x0000_ffff);
    const UDP: Worlds = Worlds(0xffff_0000);
    /// Those that can come to be: over TCP tls, http, dns, none; over UDP quic, dns, ntp, none.
    pub(super) const PLAUSIBLE: Worlds =
        Worlds(over_tcp(TLS | HTTP | DNS | NONE).0 | over_udp(QUIC | DNS | NTP | NONE).0);

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn and(self, other: Worlds) -> Worlds {
        Worlds(self.0 & other.0)
    }

    pub(super) const fn or(self, other: Worlds) -> Worlds {
        Worlds(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Worlds) -> Worlds {
        Worlds(self.0 & !other.0)
    }

    /// Whether worlds of both transports are among them.
    pub(super) fn spans_l4(self) -> bool {
        !self.and(Worlds::TCP).is_empty() && !self.and(Worlds::UDP).is_empty()
    }

    /// Whether worlds that differ by the first bytes are among them.
    pub(super) fn spans_first_bytes(self) -> bool {
        let either = (self.0 | self.0 >> 16) & 0xffff;
        either & either.wrapping_sub(1) != 0
    }

    /// These and those that differ from one of them by the transport alone.
    pub(super) fn any_l4(self) -> Worlds {
        Worlds(self.0 | self.0.rotate_left(16))
    }

    /// These and those that differ from one of them by the first bytes alone.
    pub(super) fn any_first_bytes(self) -> Worlds {
        let half = |half: Worlds| if self.and(half).is_empty() { Worlds::EMPTY } else { half };
        half(Worlds::TCP).or(half(Worlds::UDP))
    }

    /// The worlds that these facts leave. Facts that contradict each other are taken in the order l5, ech, esni.
    pub(super) fn of_facts(facts: &Facts) -> Worlds {
        let l4 = facts.l4.is().map_or(Worlds::ALL, |l4| Worlds::of_l4(*l4));
        let mut half = facts.l5.is().map_or(u16::MAX, |l5| of_l5(*l5));
        if facts.l5 == Known::Absent {
            half = NONE;
        }
        // `absent` are the worlds of an absent fact: those without a ClientHello, or a ClientHello without the extension.
        let mut narrow = |to: Option<u16>, without: u16| {
            let worlds = match to {
                Some(worlds) => worlds,
                None if half & !HELLO != 0 => !HELLO,
                None => without,
            };
            if half & worlds != 0 {
                half &= worlds;
            }
        };
        match facts.ech {
            Known::Unknown => {}
            Known::Absent => narrow(None, ECH_NONE),
            Known::Is(ech) => narrow(Some(of_ech(ech)), 0),
        }
        match facts.esni {
            Known::Unknown => {}
            Known::Absent => narrow(None, HELLO & !ESNI),
            Known::Is(esni) => narrow(Some(of_esni(esni)), 0),
        }
        let worlds = both(half).and(l4);
        let plausible = worlds.and(Worlds::PLAUSIBLE);
        if plausible.is_empty() { worlds } else { plausible }
    }

    /// Where a field matches; all worlds for the fields that do not hang on them.
    pub(super) fn of_field(field: &FieldSpec) -> Worlds {
        match field {
            FieldSpec::ProtoL4(terms) => of_terms(terms, Worlds::ALL, |l4| Worlds::of_l4(*l4)),
            FieldSpec::ProtoL5(terms) => of_terms(terms, Worlds::ALL, |l5| both(of_l5(*l5))),
            FieldSpec::Encrypted(terms) => {
                of_terms(terms, Worlds::ALL, |yes| both(if *yes { HELLO } else { !HELLO }))
            }
            FieldSpec::Esni(terms) => of_terms(terms, both(HELLO), |yes| both(of_esni(*yes))),
            FieldSpec::Ech(terms) => of_terms(terms, both(HELLO), |ech| {
                both(match ech {
                    EchValue::None => of_ech(Ech::None),
                    EchValue::Grease => of_ech(Ech::Grease),
                    EchValue::Real => of_ech(Ech::Real),
                    EchValue::Any => HELLO & !of_ech(Ech::None),
                })
            }),
            // Beyond that it is asked by a predicate.
            FieldSpec::Cert(_) => both(HELLO),
            FieldSpec::Src(_)
            | FieldSpec::Dest(_)
            | FieldSpec::ProtoL3(_)
            | FieldSpec::Port(_)
            | FieldSpec::Sport(_)
            | FieldSpec::Dns(_)
            | FieldSpec::User(_)
            | FieldSpec::ProtoL7(_)
            | FieldSpec::Host(_)
            | FieldSpec::Path(_)
            | FieldSpec::Time(_)
            | FieldSpec::Mac(_)
            | FieldSpec::Device(_) => Worlds::ALL,
        }
    }

    fn of_l4(l4: L4) -> Worlds {
        match l4 {
            L4::Tcp => Worlds::TCP,
            L4::Udp => Worlds::UDP,
        }
    }
}

const fn over_tcp(half: u16) -> Worlds {
    Worlds(half as u32)
}

const fn over_udp(half: u16) -> Worlds {
    Worlds((half as u32) << 16)
}

const fn both(half: u16) -> Worlds {
    over_tcp(half).or(over_udp(half))
}

fn of_l5(l5: L5) -> u16 {
    match l5 {
        L5::Tls => TLS,
        L5::Quic => QUIC,
        L5::Http => HTTP,
        L5::Dns => DNS,
        L5::Ntp => NTP,
        L5::None => NONE,
    }
}

fn of_ech(ech: Ech) -> u16 {
    match ech {
        Ech::None => ECH_NONE,
        Ech::Grease => ECH_NONE << 2,
        Ech::Real => ECH_NONE << 4,
    }
}

fn of_esni(esni: bool) -> u16 {
    if esni { HELLO & ESNI } else { HELLO & !ESNI }
}

/// The meaning of a field's list over `domain`, where the fact is there at all.
fn of_terms<T>(terms: &[Term<T>], domain: Worlds, of: impl Fn(&T) -> Worlds) -> Worlds {
    let union = |negated: bool| {
        terms.iter().filter(|t| t.negated == negated).fold(Worlds::EMPTY, |sum, t| sum.or(of(&t.value)))
    };
    let positive = if terms.iter().all(|t| t.negated) { domain } else { union(false) };
    positive.and(domain).without(union(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_masks_cut_the_hellos_into_six() {
        for hello in [TLS, QUIC] {
            for ech in [Ech::None, Ech::Grease, Ech::Real] {
                for esni in [false, true] {
                    assert_eq!(
                        (hello & of_ech(ech) & of_esni(esni)).count_ones(),
                        1,
                        "{hello:x} {ech:?} {esni}"
                    );
                }
            }
        }
        assert_eq!(of_ech(Ech::None) | of_ech(Ech::Grease) | of_ech(Ech::Real), HELLO);
    }

    #[test]
    fn facts_leave_what_fits() {
        let check = |facts: Facts, want: Worlds| assert_eq!(Worlds::of_facts(&facts), want, "{facts:?}");
        let tcp = Facts { l4: Known::Is(L4::Tcp), ..Facts::default() };
        check(Facts::default(), Worlds::PLAUSIBLE);
        check(tcp.clone(), over_tcp(TLS | HTTP | DNS | NONE));
        check(Facts { l5: Known::Is(L5::Tls), ..tcp.clone() }, over_tcp(TLS));
        check(Facts { l5: Known::Is(L5::Tls), ..Facts::default() }, over_tcp(TLS));
        check(Facts { l5: Known::Absent, ..tcp.clone() }, over_tcp(NONE));
        check(Facts { ech: Known::Absent, ..tcp.clone() }, over_tcp(HTTP | DNS | NONE));
        check(Facts { esni: Known::Is(true), ..tcp.clone() }, over_tcp(TLS & ESNI));
        let tls = Facts { l5: Known::Is(L5::Tls), ech: Known::Absent, esni: Known::Absent, ..tcp.clone() };
        check(tls, over_tcp(TLS & ECH_NONE & !ESNI));
        let http = Facts { l5: Known::Is(L5::Http), ech: Known::Absent, esni: Known::Absent, ..tcp.clone() };
        check(http, over_tcp(HTTP));
        // Nobody sends this, but it must not become a set without worlds.
        check(Facts { l5: Known::Is(L5::Quic), ..tcp.clone() }, over_tcp(QUIC));
        check(Facts { l5: Known::Is(L5::Http), ech: Known::Is(Ech::Real), ..tcp }, over_tcp(HTTP));
    }

    #[test]
    fn spans() {
        assert!(Worlds::PLAUSIBLE.spans_l4() && Worlds::PLAUSIBLE.spans_first_bytes());
        assert!(both(DNS).spans_l4() && !both(DNS).spans_first_bytes());
        assert!(!over_tcp(TLS).spans_l4() && over_tcp(TLS).spans_first_bytes());
        assert_eq!(over_udp(DNS).any_l4(), both(DNS));
        assert_eq!(over_udp(DNS).any_first_bytes(), Worlds::UDP);
    }
}
