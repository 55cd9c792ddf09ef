//! Makes ClientHellos, good and bad, for the tests of the parser and of the identification.

/// The body of a hello, part by part. Every vector gets its true length; tests break lengths by changing the bytes.
#[derive(Clone)]
pub(crate) struct HelloBody {
    pub(crate) legacy_version: u16,
    pub(crate) cipher_suites: Vec<u16>,
    /// `None`: not even the length of the extensions.
    pub(crate) extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl HelloBody {
    pub(crate) fn new(extensions: Vec<(u16, Vec<u8>)>) -> Self {
        HelloBody {
            legacy_version: 0x0303,
            cipher_suites: vec![0x1301, 0xc02f],
            extensions: Some(extensions),
        }
    }

    /// Without the handshake header.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.extend([0]);
        body.extend(vec16(&code_points(&self.cipher_suites)));
        body.extend([1, 0]);
        if let Some(extensions) = &self.extensions {
            let list: Vec<u8> = extensions
                .iter()
                .flat_map(|(kind, data)| [&kind.to_be_bytes()[..], &vec16(data)].concat())
                .collect();
            body.extend(vec16(&list));
        }
        body
    }

    /// With the handshake header.
    pub(crate) fn message(&self) -> Vec<u8> {
        handshake(&self.body())
    }
}

/// A whole hello of an ordinary client.
pub(crate) fn ordinary() -> HelloBody {
    HelloBody::new(vec![
        server_name("www.example.com"),
        alpn(&[b"h2", b"http/1.1"]),
        supported_versions(&[0x0304]),
    ])
}

/// A ClientHello message with this body.
pub(crate) fn handshake(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1], &length[1..], body].concat()
}

/// A handshake record with this fragment.
pub(crate) fn record(fragment: &[u8]) -> Vec<u8> {
    [&[0x16, 3, 1], &vec16(fragment)[..]].concat()
}

/// The message in records with fragments of at most `size` bytes.
pub(crate) fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(record).collect()
}

pub(crate) fn server_name(name: &str) -> (u16, Vec<u8>) {
    (0, vec16(&[&[0], &vec16(name.as_bytes())[..]].concat()))
}

pub(crate) fn alpn(names: &[&[u8]]) -> (u16, Vec<u8>) {
    (16, vec16(&names.iter().flat_map(|name| vec8(name)).collect::<Vec<u8>>()))
}

pub(crate) fn supported_versions(versions: &[u16]) -> (u16, Vec<u8>) {
    (43, vec8(&code_points(versions)))
}

pub(crate) fn signature_algorithms(algorithms: &[u16]) -> (u16, Vec<u8>) {
    (13, vec16(&code_points(algorithms)))
}

pub(crate) fn code_points(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

pub(crate) fn vec8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

pub(crate) fn vec16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}
