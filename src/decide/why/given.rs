//! The facts of `--why`: `src=192.168.1.20 dest=203.0.113.5 port=443 dns=ads.example.com protoL5=tls`.

use std::net::IpAddr;
use std::str::FromStr;

use crate::decide::device::{Mac, fold_device};
use crate::decide::name::normalise;
use crate::decide::request::normalise_path;
use crate::decide::week::WeekTime;
use crate::decide::{Cert, Ech, Facts, Known, L4, L5, L7};

/// The keys, as the fields of a rule.
const KEYS: [&str; 19] = [
    "src",
    "dest",
    "port",
    "sport",
    "protoL3",
    "protoL4",
    "protoL5",
    "encrypted",
    "dns",
    "ech",
    "esni",
    "cert",
    "user",
    "protoL7",
    "host",
    "path",
    "time",
    "mac",
    "device",
];
const ALIASES: [(&str, &str); 3] =
    [("protocol3", "protoL3"), ("protocol4", "protoL4"), ("protocol5", "protoL5")];
const L4_WORDS: &[(&str, L4)] = &[("tcp", L4::Tcp), ("udp", L4::Udp)];
const L5_WORDS: &[(&str, L5)] = &[
    ("tls", L5::Tls),
    ("http", L5::Http),
    ("quic", L5::Quic),
    ("dns", L5::Dns),
    ("ntp", L5::Ntp),
    ("none", L5::None),
];
const L7_WORDS: &[(&str, L7)] = &[("http", L7::Http), ("h2", L7::H2), ("none", L7::None)];
const ECH_WORDS: &[(&str, Ech)] = &[("none", Ech::None), ("grease", Ech::Grease), ("real", Ech::Real)];
const CERT_WORDS: &[(&str, Cert)] =
    &[("valid", Cert::Valid), ("invalid", Cert::Invalid), ("unknown", Cert::Unknown)];
const FAMILY_WORDS: &[(&str, bool)] = &[("ip4", true), ("ipv4", true), ("ip6", false), ("ipv6", false)];
const BOOL_WORDS: &[(&str, bool)] = &[
    ("yes", true),
    ("no", false),
    ("true", true),
    ("false", false),
    ("y", true),
    ("n", false),
    ("1", true),
    ("0", false),
];

/// Parses facts: `key=value`, separated by blanks, each key once. What is not given stays unknown, except what follows:
/// `protoL4` from `protoL5`, and no ECH or ESNI where there is no ClientHello. `dns=none` is traffic without a trusted
/// name, `user=none` a client that was not asked who it is, `mac=none` one that is no neighbour; `protoL7`, `host` and `path`
/// tell of a request in clear or inside of an intercepted connection. `protoL3` and `encrypted` may be given beside `dest` and
/// `protoL5`, from which they follow.
///
/// # Errors
/// What is wrong, with what is accepted: for people.
pub fn parse_facts(text: &str) -> Result<Facts, String> {
    let mut facts = Facts::default();
    let (mut ip4, mut encrypted) = (None, None);
    let mut seen: Vec<&str> = Vec::new();
    for word in text.split_whitespace() {
        let Some((written, value)) = word.split_once('=') else {
            return Err(format!(
                "'{word}': a fact is written key=value, with one of the keys {}",
                KEYS.join(", ")
            ));
        };
        let key = key_of(written)?;
        if seen.contains(&key) {
            return Err(format!("{key} is given twice"));
        }
        seen.push(key);
        match key {
            "src" => facts.src = Known::Is(addr(key, value)?),
            "dest" => facts.dest = Known::Is(addr(key, value)?),
            "port" => facts.port = Known::Is(port(key, value)?),
            "sport" => facts.sport = Known::Is(port(key, value)?),
            "protoL3" => ip4 = Some(one_of(key, value, FAMILY_WORDS)?),
            "protoL4" => facts.l4 = Known::Is(one_of(key, value, L4_WORDS)?),
            "protoL5" => facts.l5 = Known::Is(one_of(key, value, L5_WORDS)?),
            "encrypted" => encrypted = Some(one_of(key, value, BOOL_WORDS)?),
            "ech" => facts.ech = Known::Is(one_of(key, value, ECH_WORDS)?),
            "user" if value.eq_ignore_ascii_case("none") => facts.user = Known::Absent,
            "user" => facts.user = Known::Is(value.into()),
            "time" => facts.time = Known::Is(time(value)?),
            "mac" if value.eq_ignore_ascii_case("none") => facts.mac = Known::Absent,
            "mac" => facts.mac = Known::Is(mac(value)?),
            "device" => facts.device = Known::Is(fold_device(value)),
            "cert" => facts.cert = Known::Is(one_of(key, value, CERT_WORDS)?),
            "esni" => facts.esni = Known::Is(one_of(key, value, BOOL_WORDS)?),
            "protoL7" => facts.l7 = Known::Is(one_of(key, value, L7_WORDS)?),
            "host" => facts.host = name(key, value)?,
            "path" if value.starts_with('/') => facts.path = Known::Is(normalise_path(value)),
            "path" => return Err(format!("path={value}: a path is needed, which begins with /")),
            _ => facts.name = name(key, value)?,
        }
    }
    family_agrees(&facts, ip4)?;
    encryption_agrees(&facts, encrypted)?;
    conclude_request(&mut facts)?;
    conclude(facts)
}

fn family_agrees(facts: &Facts, ip4: Option<bool>) -> Result<(), String> {
    match (ip4, facts.dest) {
        (None, _) => Ok(()),
        (Some(ip4), Known::Is(dest)) if dest.is_ipv4() == ip4 => Ok(()),
        (Some(_), Known::Is(dest)) => Err(format!("protoL3 contradicts dest={dest}, from which it follows")),
        (Some(_), _) => Err("protoL3 follows from dest: give dest instead".to_owned()),
    }
}

fn encryption_agrees(facts: &Facts, encrypted: Option<bool>) -> Result<(), String> {
    match (encrypted, facts.l5) {
        (None, _) => Ok(()),
        (Some(encrypted), Known::Is(l5)) if l5.is_encrypted() == encrypted => Ok(()),
        (Some(_), Known::Is(l5)) => {
            Err(format!("encrypted contradicts protoL5={}, from which it follows", l5.as_str()))
        }
        (Some(_), _) => Err("encrypted follows from protoL5: give protoL5 instead".to_owned()),
    }
}

/// Adds what follows about the request: who tells its host or path means HTTP/1, as does plain HTTP; what is no HTTP has
/// neither.
fn conclude_request(facts: &mut Facts) -> Result<(), String> {
    let told = facts.host.is().is_some() || facts.path.is().is_some();
    match facts.l7 {
        Known::Is(L7::None) if told => return Err("host and path contradict protoL7=none".to_owned()),
        Known::Is(L7::None) => (facts.host, facts.path) = (Known::Absent, Known::Absent),
        Known::Unknown if told || facts.l5 == Known::Is(L5::Http) => facts.l7 = Known::Is(L7::Http),
        _ => {}
    }
    Ok(())
}

/// Whether a server can be asked for the certificate of this name: over TCP, and not without one.
fn can_be_probed(facts: &Facts) -> bool {
    facts.l5 == Known::Is(L5::Tls) && facts.name != Known::Absent
}

/// Adds what follows from `protoL5`.
fn conclude(mut facts: Facts) -> Result<Facts, String> {
    let hello = facts.ech.is().is_some() || facts.esni.is().is_some() || facts.cert.is().is_some();
    let Known::Is(l5) = facts.l5 else { return Ok(facts) };
    let over = match l5 {
        L5::Tls | L5::Http => Some(L4::Tcp),
        L5::Quic | L5::Ntp => Some(L4::Udp),
        L5::Dns | L5::None => None,
    };
    match (over, facts.l4) {
        (Some(over), Known::Is(l4)) if over != l4 => {
            return Err(format!("protoL4={} contradicts protoL5={}", l4.as_str(), l5.as_str()));
        }
        (Some(over), _) => facts.l4 = Known::Is(over),
        (None, _) => {}
    }
    if !l5.is_encrypted() {
        if hello {
            return Err(format!(
                "ech, esni and cert contradict protoL5={}: only tls and quic have them",
                l5.as_str()
            ));
        }
        (facts.ech, facts.esni, facts.cert) = (Known::Absent, Known::Absent, Known::Absent);
    } else if facts.cert.is_unknown() && !can_be_probed(&facts) {
        facts.cert = Known::Is(Cert::Unknown);
    }
    Ok(facts)
}

fn key_of(written: &str) -> Result<&'static str, String> {
    let alias =
        ALIASES.into_iter().find(|(alias, _)| alias.eq_ignore_ascii_case(written)).map(|(_, key)| key);
    let key = alias.or_else(|| KEYS.into_iter().find(|key| key.eq_ignore_ascii_case(written)));
    key.ok_or_else(|| {
        let accepted = KEYS.join(", ");
        match nearest(written, &KEYS) {
            Some(nearest) => {
                format!("unknown fact '{written}': did you mean {nearest}? Accepted are {accepted}")
            }
            None => format!("unknown fact '{written}': accepted are {accepted}"),
        }
    })
}

fn addr(key: &str, value: &str) -> Result<IpAddr, String> {
    let bare = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
    IpAddr::from_str(bare)
        .map(|addr| addr.to_canonical())
        .map_err(|_| format!("{key}={value}: an address is needed, IPv4 or IPv6"))
}

fn port(key: &str, value: &str) -> Result<u16, String> {
    value.parse().map_err(|_| format!("{key}={value}: a number from 0 to 65535 is needed"))
}

fn time(value: &str) -> Result<WeekTime, String> {
    value.parse().map_err(|()| format!("time={value}: a day and a time are needed, as in mon-22:30"))
}

fn mac(value: &str) -> Result<Mac, String> {
    value
        .parse()
        .map_err(|()| format!("mac={value}: a hardware address is needed, as in aa:bb:cc:dd:ee:ff, or none"))
}

fn name(key: &str, value: &str) -> Result<Known<Box<str>>, String> {
    if value.eq_ignore_ascii_case("none") {
        return Ok(Known::Absent);
    }
    let name = normalise(value.as_bytes());
    name.map(Known::Is).ok_or_else(|| format!("{key}={value}: a domain name is needed, or none"))
}

fn one_of<T: Copy>(key: &str, value: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(value));
    found.map(|(_, found)| *found).ok_or_else(|| {
        let accepted: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let nearest =
            nearest(value, &accepted).map_or(String::new(), |word| format!(" did you mean {word}?"));
        format!("{key}={value}:{nearest} Accepted are {}", accepted.join(", "))
    })
}

/// The word that is written most alike, if one is at all.
fn nearest<'a>(written: &str, words: &[&'a str]) -> Option<&'a str> {
    const MAX_WRITTEN: usize = 32;
    if written.len() > MAX_WRITTEN {
        return None;
    }
    let near = words.iter().map(|word| (distance(&written.to_lowercase(), &word.to_lowercase()), *word));
    near.min_by_key(|(distance, _)| *distance)
        .filter(|(distance, word)| *distance <= 1 + word.len() / 3)
        .map(|(_, w)| w)
}

/// Levenshtein's distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for ((diagonal, above), y) in row.iter().zip(row.iter().skip(1)).zip(b.chars()) {
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_and_what_follows() {
        let facts =
            parse_facts("src=192.168.1.20 dest=::ffff:203.0.113.5 port=443 dns=Ads.Example.com. protoL5=tls");
        let want = Facts {
            src: Known::Is("192.168.1.20".parse().unwrap()),
            dest: Known::Is("203.0.113.5".parse().unwrap()),
            port: Known::Is(443),
            name: Known::Is("ads.example.com".into()),
            l4: Known::Is(L4::Tcp),
            l5: Known::Is(L5::Tls),
            ..Facts::default()
        };
        assert_eq!(facts, Ok(want));
        assert_eq!(parse_facts(""), Ok(Facts::default()));
        let of_user = |user| Ok(Facts { user, ..Facts::default() });
        assert_eq!(parse_facts("user=Alice"), of_user(Known::Is("Alice".into())));
        assert_eq!(parse_facts("user=none"), of_user(Known::Absent));
        let udp = parse_facts("protocol5=DNS protoL4=udp sport=5 encrypted=no dns=none").unwrap();
        assert_eq!(
            (udp.l4, udp.name, udp.ech, udp.esni),
            (Known::Is(L4::Udp), Known::Absent, Known::Absent, Known::Absent)
        );
        let quic = parse_facts("protoL5=quic ech=grease esni=no dest=[::2] protoL3=ip6").unwrap();
        assert_eq!(
            (quic.l4, quic.ech, quic.esni),
            (Known::Is(L4::Udp), Known::Is(Ech::Grease), Known::Is(false))
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |text: &str, part: &str| {
            let error = parse_facts(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("src", "key=value");
        check("prot=443", "did you mean port?");
        check("protoL6=tls", "did you mean protoL");
        check("dst=1.2.3.4", "did you mean dest?");
        check("xyzzy=1", "accepted are src, dest");
        check("port=80 port=80", "port is given twice");
        check("port=http", "0 to 65535");
        check("port=65536", "0 to 65535");
        check("src=router", "an address is needed");
        check("dns=1.2.3.4", "a domain name is needed");
        check("protoL5=tsl", "did you mean tls?");
        check("time=22:30", "as in mon-22:30");
        check("mac=tv", "as in aa:bb:cc:dd:ee:ff");
        check("ech=any", "Accepted are none, grease, real");
        check("protoL5=tls protoL4=udp", "protoL4=udp contradicts protoL5=tls");
        check("protoL5=http encrypted=yes", "contradicts protoL5=http");
        check("encrypted=yes", "give protoL5 instead");
        check("protoL3=ip4", "give dest instead");
        check("protoL3=ip4 dest=::2", "contradicts dest=::2");
        check("protoL5=http ech=none", "only tls and quic");
    }

    #[test]
    fn distances() {
        let check = |a: &str, b: &str, want: usize| assert_eq!(distance(a, b), want, "{a} {b}");
        check("", "abc", 3);
        check("abc", "", 3);
        check("kitten", "sitting", 3);
        check("port", "sport", 1);
        check("same", "same", 0);
    }
}
