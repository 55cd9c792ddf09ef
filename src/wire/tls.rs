//! TLS ClientHello (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2) over any number of records.

/// What a ClientHello says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The highest version offered that is not GREASE: supported_versions, else legacy_version.
    pub version: Version,
    /// The host_name as sent; not checked to be a name.
    pub sni: Option<Box<[u8]>>,
    /// Every ALPN offer in order, GREASE included, as sent.
    pub alpn: Vec<Box<[u8]>>,
    /// encrypted_client_hello (0xfe0d) is present.
    pub ech: bool,
    /// encrypted_server_name (0xffce) is present.
    pub esni: bool,
    /// JA4 fingerprint, as FoxIO's reference implementations compute it.
    pub ja4: Box<str>,
}

/// A protocol version as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub u16);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0x0300 => f.write_str("ssl3"),
            0x0301 => f.write_str("1.0"),
            0x0302 => f.write_str("1.1"),
            0x0303 => f.write_str("1.2"),
            0x0304 => f.write_str("1.3"),
            other => write!(f, "0x{other:04x}"),
        }
    }
}
