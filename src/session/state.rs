//! The states of a session and the legal ways between them.

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Just accepted.
    New,
    /// Reading the first bytes of what should be TLS.
    Hello,
    /// Waiting for TLS to stand.
    Securing,
    /// Reading a PROXY header.
    ProxyHeader,
    /// Reading an HTTP proxy request's head.
    RequestHead,
    /// Reading what a SOCKS client can do.
    SocksGreeting,
    /// Reading a SOCKS client's name and password.
    SocksPassword,
    /// Reading where a SOCKS client wants to go.
    SocksRequest,
    /// Waiting for the word on the client's credentials.
    Verifying,
    /// Reading the client's first bytes.
    FirstBytes,
    /// Waiting for the addresses of a name.
    Resolving,
    /// Waiting for the word on the server's certificate.
    Probing,
    /// Waiting for a connection.
    Dialling,
    /// Waiting for TLS with the server to stand.
    SecuringServer,
    /// Relaying.
    Open,
    /// Over.
    Closed,
}

use State::*;

/// Every legal step; from any state a session may also close.
const EDGES: &[(State, State)] = &[
    (New, ProxyHeader),
    (New, RequestHead),
    (New, SocksGreeting),
    // TLS first, then a proxy like another.
    (New, Hello),
    (Hello, Securing),
    (Securing, RequestHead),
    // Transparent: the rules may want to see more, or not.
    (New, FirstBytes),
    (New, Resolving),
    (New, Dialling),
    // Behind a PROXY header a connection goes on as a transparent one.
    (ProxyHeader, FirstBytes),
    (ProxyHeader, Resolving),
    (ProxyHeader, Dialling),
    // Who the client is comes before what it wants; without that it may ask again.
    (RequestHead, Verifying),
    (Verifying, RequestHead),
    (Verifying, FirstBytes),
    (Verifying, Resolving),
    (Verifying, Dialling),
    // A CONNECT that is peeked into, one that is not, and a plain request.
    (RequestHead, FirstBytes),
    (RequestHead, Resolving),
    (RequestHead, Dialling),
    // SOCKS, peeked into or not.
    (SocksGreeting, SocksRequest),
    (SocksGreeting, SocksPassword),
    (SocksPassword, Verifying),
    (Verifying, SocksRequest),
    (SocksRequest, FirstBytes),
    (SocksRequest, Resolving),
    (SocksRequest, Dialling),
    // A way for datagrams, of which each flow has a session of its own.
    (SocksRequest, Open),
    // A denied request leaves the connection usable.
    (RequestHead, RequestHead),
    (Resolving, RequestHead),
    // An address may turn out to be this machine's when it is dialled.
    (Dialling, RequestHead),
    // A rule that looks at the destination may come before one that looks at the first bytes, and the other way round.
    (FirstBytes, Resolving),
    (FirstBytes, Dialling),
    (Resolving, FirstBytes),
    (Resolving, Resolving),
    (Resolving, Dialling),
    // Certificates are asked for last: by then both are known.
    (FirstBytes, Probing),
    (Resolving, Probing),
    (Probing, Dialling),
    (Dialling, Open),
    // Decrypted: TLS with the server, then with the client, then requests or what else there is.
    (Dialling, SecuringServer),
    (SecuringServer, Securing),
    (Securing, FirstBytes),
    (FirstBytes, RequestHead),
    (FirstBytes, Open),
    (RequestHead, Open),
    // The next request on a kept-alive connection.
    (Open, RequestHead),
];

impl State {
    /// Whether the client's bytes are read.
    pub(super) fn is_reading(self) -> bool {
        matches!(
            self,
            Hello | ProxyHeader | RequestHead | SocksGreeting | SocksPassword | SocksRequest | FirstBytes
        )
    }

    /// Whether a session may go from here to `to`.
    pub(super) fn may_become(self, to: State) -> bool {
        (to == Closed && self != Closed) || EDGES.contains(&(self, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_the_last_state_and_nothing_enters_the_first() {
        let all = [
            New,
            Hello,
            Securing,
            ProxyHeader,
            RequestHead,
            SocksGreeting,
            SocksPassword,
            SocksRequest,
            Verifying,
            FirstBytes,
            Resolving,
            Probing,
            Dialling,
            SecuringServer,
            Open,
            Closed,
        ];
        for state in all {
            assert!(!Closed.may_become(state), "{state:?}");
            assert!(!state.may_become(New), "{state:?}");
            assert_eq!(state.may_become(Closed), state != Closed);
        }
    }
}
