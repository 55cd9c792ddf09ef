//! Transparent: the firewall redirected the connection, the kernel knows where it was going.

use std::net::SocketAddr;

use super::{Wish, canonical};

/// The original destination of an accepted socket.
///
/// `candidates` is where the kernel says that it was going, best first: the socket's own address where that is TPROXY's,
/// and SO_ORIGINAL_DST. One that `is_own` names this machine instead of a foreign destination: nothing was redirected, or
/// by another machine, and what was wanted is lost. Dialling it would be a loop, or a way to the router's own services.
pub fn original_destination(
    candidates: impl IntoIterator<Item = SocketAddr>,
    is_own: impl Fn(SocketAddr) -> bool,
) -> Wish {
    let is_foreign = |addr: &SocketAddr| !addr.ip().is_unspecified() && addr.port() != 0 && !is_own(*addr);
    candidates.into_iter().map(canonical).find(is_foreign).map_or(Wish::Lost, Wish::Address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENER: &str = "192.168.1.1:4128";
    const FOREIGN: &str = "198.51.100.2:443";

    #[test]
    fn where_a_redirected_connection_was_going() {
        let parse = |addr: &str| addr.parse::<SocketAddr>().unwrap();
        let check = |candidates: &[&str], want: Option<&str>| {
            let is_own = |addr| [LISTENER, "192.168.1.1:4130"].map(parse).contains(&addr);
            let got = original_destination(candidates.iter().map(|addr| parse(addr)), is_own);
            assert_eq!(got, want.map_or(Wish::Lost, |addr| Wish::Address(parse(addr))), "{candidates:?}");
        };
        check(&[FOREIGN], Some(FOREIGN));
        check(&["[2001:db8::1]:443"], Some("[2001:db8::1]:443"));
        check(&["[::ffff:198.51.100.2]:443"], Some(FOREIGN));
        check(&[], None);
        check(&[LISTENER], None);
        check(&["[::ffff:192.168.1.1]:4128"], None);
        check(&["192.168.1.1:4130"], None);
        check(&["0.0.0.0:443"], None);
        check(&["198.51.100.2:0"], None);
        // A TPROXY listener to which traffic was redirected instead.
        check(&[LISTENER, FOREIGN], Some(FOREIGN));
    }
}
