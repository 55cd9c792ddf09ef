//! Transparent: the firewall redirected the connection, the kernel knows where it was going.

use std::net::SocketAddr;

use super::{Wish, canonical};

/// The original destination of an accepted socket.
///
/// `local` is the socket's own address, `original` what SO_ORIGINAL_DST says, if anything. A TPROXY listener's sockets
/// have the destination as their own address. Elsewhere the own address is the listener's, so a connection whose original
/// destination is just that was not redirected, or by another machine, and its destination is lost; so is one at another
/// of our listeners, for which `is_own_listener` is asked, as dialling it would be a loop.
pub fn original_destination(
    local: SocketAddr,
    original: Option<SocketAddr>,
    tproxy: bool,
    is_own_listener: impl Fn(SocketAddr) -> bool,
) -> Wish {
    let local = canonical(local);
    let original = original.map(canonical).filter(|&original| original != local);
    let is_foreign =
        |addr: &SocketAddr| !addr.ip().is_unspecified() && addr.port() != 0 && !is_own_listener(*addr);
    let candidates = [tproxy.then_some(local), original];
    candidates.into_iter().flatten().find(is_foreign).map_or(Wish::Lost, Wish::Address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENER: &str = "192.168.1.1:4128";
    const FOREIGN: &str = "198.51.100.2:443";

    #[test]
    fn where_a_redirected_connection_was_going() {
        let parse = |addr: &str| addr.parse::<SocketAddr>().unwrap();
        let check = |local: &str, original: Option<&str>, tproxy, want: Option<&str>| {
            let is_own = |addr| [LISTENER, "192.168.1.1:4130"].map(parse).contains(&addr);
            let got = original_destination(parse(local), original.map(parse), tproxy, is_own);
            assert_eq!(
                got,
                want.map_or(Wish::Lost, |addr| Wish::Address(parse(addr))),
                "{local} {original:?} {tproxy}"
            );
        };
        check(LISTENER, Some(FOREIGN), false, Some(FOREIGN));
        check(LISTENER, Some("[2001:db8::1]:443"), false, Some("[2001:db8::1]:443"));
        check("[::ffff:192.168.1.1]:4128", Some("[::ffff:198.51.100.2]:443"), false, Some(FOREIGN));
        check(LISTENER, None, false, None);
        check(LISTENER, Some(LISTENER), false, None);
        check("[::ffff:192.168.1.1]:4128", Some(LISTENER), false, None);
        check(LISTENER, Some("192.168.1.1:4130"), false, None);
        check(LISTENER, Some("0.0.0.0:443"), false, None);
        check(LISTENER, Some("198.51.100.2:0"), false, None);
        // Not known to be ours by the list of listeners, but by the socket itself.
        check("10.0.0.1:4128", Some("10.0.0.1:4128"), false, None);

        check(FOREIGN, None, true, Some(FOREIGN));
        check(FOREIGN, Some(FOREIGN), true, Some(FOREIGN));
        check(LISTENER, None, true, None);
        check(LISTENER, Some(FOREIGN), true, Some(FOREIGN));
        // Without TPROXY the own address is never the destination.
        check(FOREIGN, None, false, None);
    }
}
