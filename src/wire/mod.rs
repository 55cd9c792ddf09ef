//! Pure formats: bytes in, a small owned summary out.
//!
//! Nothing here does I/O, reads a clock, logs or imports another module of this crate. Every parser has the same three
//! outcomes, so that a caller that has only the first bytes of a message knows whether to wait for more; none may panic
//! or allocate without a limit, whatever the peer sends.

pub mod basic;
pub mod cursor;
pub mod dns;
pub mod http1;
pub mod ntp;
pub mod proxy_protocol;
pub mod quic;
pub mod socks5;
pub mod tls;
pub mod x509;

/// What a parser says of the bytes it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parse<T> {
    /// The message is whole.
    Complete(T),
    /// Every byte so far fits, but the message goes on.
    NeedMore,
    /// No continuation can make this a message of the format.
    Malformed,
}

impl<T> Parse<T> {
    /// The same outcome with the summary changed by `f`.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Parse<U> {
        match self {
            Parse::Complete(value) => Parse::Complete(f(value)),
            Parse::NeedMore => Parse::NeedMore,
            Parse::Malformed => Parse::Malformed,
        }
    }
}
