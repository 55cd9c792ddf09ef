//! The ClientHello message itself.

use super::{Version, is_grease, ja4};
use crate::wire::cursor::{Cursor, Short};

/// server_name (RFC 6066 §3).
const EXT_SERVER_NAME: u16 = 0;
/// signature_algorithms (RFC 8446 §4.2.3).
const EXT_SIGNATURE_ALGORITHMS: u16 = 13;
/// application_layer_protocol_negotiation (RFC 7301 §3.1).
const EXT_ALPN: u16 = 16;
/// supported_versions (RFC 8446 §4.2.1).
const EXT_SUPPORTED_VERSIONS: u16 = 43;
/// encrypted_client_hello (RFC 9849 §5).
const EXT_ECH: u16 = 0xfe0d;
/// encrypted_server_name, the draft that came before ECH.
const EXT_ESNI: u16 = 0xffce;

/// NameType host_name (RFC 6066 §3).
const NAME_TYPE_HOST: u8 = 0;

/// Bytes of a host_name that are kept: more than a name can have, and than a line of the log shows.
pub const MAX_SNI: usize = 1024;
/// ALPN offers that are kept. Browsers make two, the most talkative of clients a dozen.
pub const MAX_OFFERS: usize = 64;
/// Bytes of ALPN offers that are kept: no line of the log shows more.
const MAX_OFFERED: usize = 1024;

/// What a ClientHello says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The highest version offered that is not GREASE: supported_versions, else legacy_version.
    pub version: Version,
    /// The host_name as sent, cut off behind [`MAX_SNI`] bytes; not checked to be a name.
    pub sni: Option<Box<[u8]>>,
    /// The ALPN offers in order, GREASE included, as sent: the first [`MAX_OFFERS`], if they are short.
    pub alpn: Vec<Box<[u8]>>,
    /// encrypted_client_hello (0xfe0d) is present.
    pub ech: bool,
    /// encrypted_server_name (0xffce) is present.
    pub esni: bool,
    /// JA4 fingerprint, as FoxIO's reference implementations compute it.
    pub ja4: Box<str>,
}

/// What carried the hello; JA4 begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// TLS records over TCP.
    Tcp,
    /// CRYPTO frames of QUIC.
    Quic,
}

impl ClientHello {
    /// Reads the body of a whole ClientHello, which is the handshake message without its type and length.
    ///
    /// `None` is malformed: lengths that don't add up, bytes behind the extensions, an extension twice, two host
    /// names. A hello without the extensions' length is whole (RFC 5246 §7.4.1.2).
    pub fn parse(body: &[u8], carrier: Carrier) -> Option<ClientHello> {
        let view = View::read(body)?;
        let version = view.version();
        let ja4 = ja4::fingerprint(&ja4::Input {
            carrier,
            version,
            cipher_suites: view.cipher_suites.0,
            extensions: &view.extensions,
            first_alpn: view.alpn.first().copied(),
            signature_algorithms: view.signature_algorithms.0,
        });
        Some(ClientHello {
            version,
            sni: view.sni.map(|name| name.get(..MAX_SNI).unwrap_or(name).into()),
            alpn: view.alpn.into_iter().map(Box::from).collect(),
            ech: view.extensions.binary_search(&EXT_ECH).is_ok(),
            esni: view.extensions.binary_search(&EXT_ESNI).is_ok(),
            ja4,
        })
    }
}

/// A hello that has been checked, still in the sender's bytes.
struct View<'a> {
    legacy_version: u16,
    cipher_suites: CodePoints<'a>,
    /// The types of all extensions, sorted, each once.
    extensions: Vec<u16>,
    sni: Option<&'a [u8]>,
    alpn: Vec<&'a [u8]>,
    supported_versions: CodePoints<'a>,
    signature_algorithms: CodePoints<'a>,
}

impl<'a> View<'a> {
    fn read(body: &'a [u8]) -> Option<View<'a>> {
        let mut hello = Cursor::new(body);
        let legacy_version = hello.u16().ok()?;
        let _random = hello.array::<32>().ok()?;
        let _session_id = hello.vec8().ok()?;
        let cipher_suites = CodePoints::read(hello.vec16())?;
        let _compression_methods = hello.vec8().ok()?;
        let mut view = View {
            legacy_version,
            cipher_suites,
            extensions: Vec::new(),
            sni: None,
            alpn: Vec::new(),
            supported_versions: CodePoints(&[]),
            signature_algorithms: CodePoints(&[]),
        };
        if !hello.is_empty() {
            view.read_extensions(hello.vec16().ok()?)?;
        }
        hello.is_empty().then_some(view)
    }

    fn read_extensions(&mut self, mut extensions: Cursor<'a>) -> Option<()> {
        while !extensions.is_empty() {
            let kind = extensions.u16().ok()?;
            let mut data = extensions.vec16().ok()?;
            self.extensions.push(kind);
            match kind {
                EXT_SERVER_NAME => self.sni = read_server_name(data.vec16().ok()?)?,
                EXT_ALPN => self.alpn = read_protocol_names(data.vec16().ok()?)?,
                EXT_SUPPORTED_VERSIONS => self.supported_versions = CodePoints::read(data.vec8())?,
                EXT_SIGNATURE_ALGORITHMS => self.signature_algorithms = CodePoints::read(data.vec16())?,
                // What is not read cannot be wrong.
                _ => continue,
            }
            if !data.is_empty() {
                return None;
            }
        }
        self.extensions.sort_unstable();
        // RFC 8446 §4.2: not more than one of a type, GREASE included.
        let repeated = self.extensions.windows(2).any(|pair| matches!(pair, [a, b] if a == b));
        (!repeated).then_some(())
    }

    fn version(&self) -> Version {
        let offered = self.supported_versions.iter().filter(|&version| !is_grease(version)).max();
        Version(offered.unwrap_or(self.legacy_version))
    }
}

/// The host_name of a server_name_list. Other types of names are passed over by their length, which RFC 6066 §3
/// promises for all that may come.
fn read_server_name(mut list: Cursor<'_>) -> Option<Option<&[u8]>> {
    let mut host = None;
    while !list.is_empty() {
        let kind = list.u8().ok()?;
        let name = list.vec16().ok()?.rest();
        if kind == NAME_TYPE_HOST && host.replace(name).is_some() {
            return None;
        }
    }
    Some(host)
}

/// All of them are read, some are kept.
fn read_protocol_names(mut list: Cursor<'_>) -> Option<Vec<&[u8]>> {
    let (mut names, mut bytes) = (Vec::new(), 0);
    while !list.is_empty() {
        let name = list.vec8().ok()?.rest();
        bytes += name.len();
        if names.len() < MAX_OFFERS && bytes <= MAX_OFFERED {
            names.push(name);
        }
    }
    Some(names)
}

/// A vector of two-byte code points.
#[derive(Clone, Copy)]
struct CodePoints<'a>(&'a [[u8; 2]]);

impl<'a> CodePoints<'a> {
    /// `None` for a vector that is cut off, or has half a code point at its end.
    fn read(vector: Result<Cursor<'a>, Short>) -> Option<CodePoints<'a>> {
        let (pairs, rest) = vector.ok()?.rest().as_chunks::<2>();
        rest.is_empty().then_some(CodePoints(pairs))
    }

    fn iter(self) -> impl Iterator<Item = u16> + 'a {
        self.0.iter().copied().map(u16::from_be_bytes)
    }
}
