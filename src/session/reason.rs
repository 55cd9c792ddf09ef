//! Why a session ended: one enum for the log and the metric.

use crate::connect::dial::DialError;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Both sides were done.
    Finished,
    /// A rule denied it.
    Denied,
    /// A rule sent it to https.
    Redirected,
    /// Without the right credentials, on a connection that cannot be used again.
    Unauthenticated,
    /// What began as a known protocol was not whole in time or size.
    Incomplete,
    /// The client closed before there was anything to relay.
    ClientGone,
    /// The client reset the connection.
    ClientReset,
    /// The server reset the connection.
    ServerReset,
    /// Nothing was sent for `timeout.idle`.
    Idle,
    /// One side was closed and the other silent for `timeout.halfClosed`.
    HalfClosed,
    /// A request head, PROXY header or handshake was not whole within `timeout.process`.
    ProcessTimeout,
    /// What the client sent breaks its protocol.
    BadRequest,
    /// What the server sent breaks HTTP.
    BadResponse,
    /// The client speaks another protocol than the listener: HTTP or SOCKS 4 to one for SOCKS 5, anything but TLS to one for
    /// `https`.
    WrongProtocol,
    /// The client's TLS handshake failed, or its bytes did not arrive as they were sent.
    TlsFailed,
    /// The server's certificate is not valid, so that its connection is not intercepted and goes nowhere.
    BadCertificate,
    /// The server's TLS handshake failed for another reason.
    ServerTlsFailed,
    /// A PROXY header was missing or malformed.
    BadProxyHeader,
    /// Somebody who is not in `trusted` came to a listener for PROXY headers.
    UntrustedSender,
    /// A PROXY header that speaks for nobody: a health check.
    HealthCheck,
    /// There is no address to dial: the original destination was lost and no name is known.
    NoDestination,
    /// The name does not exist or has no addresses.
    NameNotFound,
    /// No nameserver answered.
    ResolveFailed,
    /// The server refused the connection.
    ConnectRefused,
    /// The server cannot be reached.
    ConnectUnreachable,
    /// There is no way to the server's network.
    ConnectNetworkUnreachable,
    /// `timeout.connect` passed on every round.
    ConnectTimeout,
    /// Connecting failed for another reason.
    ConnectFailed,
    /// `limits.connections` or `limits.perSource` was reached.
    Limit,
    /// The process ran out of descriptors or memory.
    OutOfResources,
    /// The daemon stopped and `timeout.drain` passed.
    Shutdown,
    /// A window of the rules closed or opened, and with `endAtClose` that ends what it had let in.
    WindowClosed,
}

impl CloseReason {
    /// Every reason, in the order of declaration: `ALL[r as usize] == r`.
    pub const ALL: [CloseReason; 32] = [
        CloseReason::Finished,
        CloseReason::Denied,
        CloseReason::Redirected,
        CloseReason::Unauthenticated,
        CloseReason::Incomplete,
        CloseReason::ClientGone,
        CloseReason::ClientReset,
        CloseReason::ServerReset,
        CloseReason::Idle,
        CloseReason::HalfClosed,
        CloseReason::ProcessTimeout,
        CloseReason::BadRequest,
        CloseReason::BadResponse,
        CloseReason::WrongProtocol,
        CloseReason::TlsFailed,
        CloseReason::BadCertificate,
        CloseReason::ServerTlsFailed,
        CloseReason::BadProxyHeader,
        CloseReason::UntrustedSender,
        CloseReason::HealthCheck,
        CloseReason::NoDestination,
        CloseReason::NameNotFound,
        CloseReason::ResolveFailed,
        CloseReason::ConnectRefused,
        CloseReason::ConnectUnreachable,
        CloseReason::ConnectNetworkUnreachable,
        CloseReason::ConnectTimeout,
        CloseReason::ConnectFailed,
        CloseReason::Limit,
        CloseReason::OutOfResources,
        CloseReason::Shutdown,
        CloseReason::WindowClosed,
    ];

    /// Whether the name or the server could not be reached, whatever the rules say.
    pub fn is_unconnected(self) -> bool {
        matches!(
            self,
            CloseReason::NameNotFound
                | CloseReason::ResolveFailed
                | CloseReason::ConnectRefused
                | CloseReason::ConnectUnreachable
                | CloseReason::ConnectNetworkUnreachable
                | CloseReason::ConnectTimeout
                | CloseReason::ConnectFailed
        )
    }

    /// Whether somebody, here or there, has to change a setting.
    pub fn is_misconfiguration(self) -> bool {
        matches!(
            self,
            CloseReason::WrongProtocol | CloseReason::BadProxyHeader | CloseReason::UntrustedSender
        )
    }

    /// The metric label and the log's word.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Finished => "finished",
            CloseReason::Denied => "denied",
            CloseReason::Redirected => "redirected",
            CloseReason::Unauthenticated => "unauthenticated",
            CloseReason::Incomplete => "incomplete",
            CloseReason::ClientGone => "client_gone",
            CloseReason::ClientReset => "client_reset",
            CloseReason::ServerReset => "server_reset",
            CloseReason::Idle => "idle",
            CloseReason::HalfClosed => "half_closed",
            CloseReason::ProcessTimeout => "process_timeout",
            CloseReason::BadRequest => "bad_request",
            CloseReason::BadResponse => "bad_response",
            CloseReason::WrongProtocol => "wrong_protocol",
            CloseReason::TlsFailed => "tls_failed",
            CloseReason::BadCertificate => "bad_certificate",
            CloseReason::ServerTlsFailed => "server_tls_failed",
            CloseReason::BadProxyHeader => "bad_proxy_header",
            CloseReason::UntrustedSender => "untrusted_sender",
            CloseReason::HealthCheck => "health_check",
            CloseReason::NoDestination => "no_destination",
            CloseReason::NameNotFound => "name_not_found",
            CloseReason::ResolveFailed => "resolve_failed",
            CloseReason::ConnectRefused => "connect_refused",
            CloseReason::ConnectUnreachable => "connect_unreachable",
            CloseReason::ConnectNetworkUnreachable => "connect_network_unreachable",
            CloseReason::ConnectTimeout => "connect_timeout",
            CloseReason::ConnectFailed => "connect_failed",
            CloseReason::Limit => "limit",
            CloseReason::OutOfResources => "out_of_resources",
            CloseReason::Shutdown => "shutdown",
            CloseReason::WindowClosed => "window_closed",
        }
    }
}

impl From<DialError> for CloseReason {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Refused => CloseReason::ConnectRefused,
            DialError::Unreachable => CloseReason::ConnectUnreachable,
            DialError::NetworkUnreachable => CloseReason::ConnectNetworkUnreachable,
            DialError::TimedOut => CloseReason::ConnectTimeout,
            DialError::Other => CloseReason::ConnectFailed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_the_order_of_declaration() {
        for (i, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i, "{}", reason.as_str());
        }
    }
}
