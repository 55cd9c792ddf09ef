//! The message and its records, in tables. Real clients' hellos are tested with the identification.

pub(crate) mod fixture;

use super::hello::{MAX_OFFERS, MAX_SNI};
use super::*;
use fixture::*;

fn parse(hello: &HelloBody) -> Option<ClientHello> {
    ClientHello::parse(&hello.body(), Carrier::Tcp)
}

#[test]
fn says_what_the_client_sent() {
    let hello = parse(&HelloBody::new(vec![
        (0x1a1a, vec![]),
        server_name("WWW.Example.com."),
        alpn(&[b"\xea\xea", b"h2", b"http/1.1"]),
        supported_versions(&[0x7a7a, 0x0303, 0x0304]),
        (0xfe0d, vec![0; 40]),
        (0xffce, vec![]),
    ]))
    .unwrap();
    assert_eq!(hello.version, Version(0x0304));
    assert_eq!(hello.sni.as_deref(), Some(&b"WWW.Example.com."[..]));
    assert_eq!(hello.alpn, [&b"\xea\xea"[..], b"h2", b"http/1.1"].map(Box::from));
    assert!(hello.ech && hello.esni);

    let bare = parse(&HelloBody::new(vec![])).unwrap();
    assert_eq!((bare.sni, bare.alpn.len(), bare.ech, bare.esni), (None, 0, false, false));
}

/// A hello has up to 64 KiB, and what it says is kept as long as its connection.
#[test]
fn what_is_kept_of_a_hello_is_bounded() {
    let long = "a.".repeat(25_000);
    let hello = parse(&HelloBody::new(vec![server_name(&long)])).unwrap();
    assert_eq!(hello.sni.as_deref(), long.as_bytes().get(..MAX_SNI));
    let check = |offer: &[u8], count: usize, kept: usize| {
        let hello = parse(&HelloBody::new(vec![alpn(&vec![offer; count])])).unwrap();
        assert_eq!(hello.alpn, vec![Box::from(offer); kept], "{count} of {}", offer.len());
    };
    check(b"h2", MAX_OFFERS, MAX_OFFERS);
    check(b"x", 30_000, MAX_OFFERS);
    check(b"", 60_000, MAX_OFFERS);
    check(&[b'x'; 255], 4, 4);
    check(&[b'x'; 255], 250, 4);
    let whole = vec![alpn(&vec![&b"x"[..]; 1000])];
    let mut cut = whole.clone();
    cut[0].1.pop();
    assert!(parse(&HelloBody::new(whole)).is_some() && parse(&HelloBody::new(cut)).is_none());
}

#[test]
fn the_version_is_the_highest_offer_that_is_not_grease() {
    let check = |legacy: u16, supported: Option<&[u16]>, expected: &str| {
        let mut hello = HelloBody::new(supported.map(supported_versions).into_iter().collect());
        hello.legacy_version = legacy;
        assert_eq!(parse(&hello).unwrap().version.to_string(), expected, "{legacy:x} {supported:x?}");
    };
    check(0x0300, None, "ssl3");
    check(0x0301, None, "1.0");
    check(0x0302, None, "1.1");
    check(0x0303, None, "1.2");
    check(0x0303, Some(&[0x0304, 0x0303]), "1.3");
    check(0x0303, Some(&[0x0302, 0x0303]), "1.2");
    check(0x0303, Some(&[0xfafa, 0x0303, 0x0304]), "1.3");
    check(0x0303, Some(&[0xfafa]), "1.2");
    check(0x0303, Some(&[0x7f1c, 0x0303]), "0x7f1c");
    check(0x0a0b, None, "0x0a0b");
}

#[test]
fn structure_alone_decides_whether_it_is_a_hello() {
    let check = |what: &str, extensions: Vec<(u16, Vec<u8>)>, whole: bool| {
        assert_eq!(parse(&HelloBody::new(extensions)).is_some(), whole, "{what}");
    };
    check("no extensions in the list", vec![], true);
    check("an empty name", vec![server_name("")], true);
    check("an empty list of names", vec![(0, vec![0, 0])], true);
    check("a name of another type", vec![(0, vec16(&[&[9][..], &vec16(b"x")].concat()))], true);
    check("two host names", vec![(0, vec16(&[&[0][..], &vec16(b"a"), &[0], &vec16(b"b")].concat()))], false);
    check("an empty server_name", vec![(0, vec![])], false);
    check("a list of names that is too long", vec![(0, vec![0, 5, 0, 0, 3, b'a'])], false);
    check("bytes behind the list of names", vec![(0, vec![0, 4, 0, 0, 1, b'a', 0])], false);
    check("half a name", vec![(0, vec16(&[0, 0, 2, b'a']))], false);
    check("an empty list of protocols", vec![(16, vec![0, 0])], true);
    check("an empty protocol", vec![alpn(&[b""])], true);
    check("a protocol that is too long", vec![(16, vec16(&[3, b'h', b'2']))], false);
    check("bytes behind the protocols", vec![(16, vec![0, 0, 0])], false);
    check("half a version", vec![(43, vec8(&[3, 4, 3]))], false);
    check("bytes behind the versions", vec![(43, vec![2, 3, 4, 0])], false);
    check("half a signature algorithm", vec![(13, vec16(&[4, 3, 8]))], false);
    check("an extension twice", vec![(5, vec![]), (10, vec![]), (5, vec![])], false);
    check("GREASE twice", vec![(0x1a1a, vec![]), (0x1a1a, vec![])], false);
    check("two kinds of GREASE", vec![(0x1a1a, vec![]), (0x2a2a, vec![0])], true);
    check("server_name twice", vec![server_name("a.example"), server_name("b.example")], false);
}

#[test]
fn a_hello_may_end_before_the_extensions_and_nowhere_else() {
    let mut hello = ordinary();
    let whole = hello.body();
    hello.extensions = None;
    let without_extensions = hello.body().len();
    for len in 0..whole.len() {
        let parsed = ClientHello::parse(&whole[..len], Carrier::Tcp);
        assert_eq!(parsed.is_some(), len == without_extensions, "{len}");
    }
    assert!(ClientHello::parse(&whole, Carrier::Tcp).is_some());
    assert!(ClientHello::parse(&[&whole[..], &[0]].concat(), Carrier::Tcp).is_none(), "a byte behind");
}

#[test]
fn half_a_cipher_suite_is_malformed() {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 3, 0x13, 0x01, 0x13, 1, 0]);
    assert!(ClientHello::parse(&body, Carrier::Tcp).is_none());
}

/// A hello with these parts, extensions in the sender's order, contents only where JA4 reads them.
fn with_ja4_parts(ciphers: &[u16], kinds: &[u16], signatures: &[u16], first_alpn: &[u8]) -> HelloBody {
    let extensions = kinds.iter().map(|&kind| match kind {
        0 => server_name("example.com"),
        13 => signature_algorithms(signatures),
        16 => alpn(&[first_alpn, b"http/1.1"]),
        43 => supported_versions(&[0x0304, 0x0303]),
        other => (other, vec![]),
    });
    let mut hello = HelloBody::new(extensions.collect());
    hello.cipher_suites = ciphers.to_vec();
    hello
}

const CHROME_CIPHERS: [u16; 15] = [
    0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d,
    0x002f, 0x0035,
];
const CHROME_EXTENSIONS: [u16; 16] = [
    0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01,
    0x000b, 0x000a, 0x0015,
];
const CHROME_SIGNATURES: [u16; 8] = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];

#[test]
fn ja4_is_that_of_the_reference_vectors() {
    let check = |hello: &HelloBody, expected: &str| assert_eq!(&*parse(hello).unwrap().ja4, expected);
    // The example of FoxIO's description, and of rust/ja4/src/tls.rs.
    let chrome = with_ja4_parts(&CHROME_CIPHERS, &CHROME_EXTENSIONS, &CHROME_SIGNATURES, b"h2");
    check(&chrome, "t13d1516h2_8daaf6152771_e5627efa2ab1");
    // tls-non-ascii-alpn.pcapng.
    let grease_alpn = with_ja4_parts(&CHROME_CIPHERS, &CHROME_EXTENSIONS, &CHROME_SIGNATURES, b"\xba\xad");
    check(&grease_alpn, "t13d151699_8daaf6152771_e5627efa2ab1");
    // sigalg-grease.pcapng, with GREASE wherever a client may put it.
    let kinds = [
        0x8a8a, 0xfe0d, 0x0010, 0x0017, 0x0033, 0x44cd, 0xff01, 0x000a, 0x000d, 0x0023, 0x002b, 0x000b,
        0xca34, 0x002d, 0x0000, 0x0005, 0x001b, 0x0012, 0x2a2a,
    ];
    let signatures =
        [0x5a5a, 0x0904, 0x0905, 0x0906, 0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];
    let ciphers = [&[0x3a3a][..], &CHROME_CIPHERS].concat();
    check(&with_ja4_parts(&ciphers, &kinds, &signatures, b"h2"), "t13d1517h2_8daaf6152771_cb7bf5808d99");
    // Without signature algorithms the text has no underscore: the description's 6d807ffa2a79, which leaves the
    // extension itself in the list.
    let unsigned = with_ja4_parts(&CHROME_CIPHERS, &CHROME_EXTENSIONS, &[], b"h2");
    check(&unsigned, "t13d1516h2_8daaf6152771_6d807ffa2a79");
}

#[test]
fn ja4_of_what_is_not_there_and_of_too_much() {
    let mut empty = HelloBody::new(vec![]);
    empty.cipher_suites.clear();
    assert_eq!(&*parse(&empty).unwrap().ja4, "t12i000000_000000000000_000000000000");
    // https3-301-get.pcap ends like this: server_name alone is no extension to hash.
    let named = HelloBody::new(vec![server_name("a.example")]);
    assert!(parse(&named).unwrap().ja4.starts_with("t12d020100_"));
    assert!(parse(&named).unwrap().ja4.ends_with("_000000000000"));

    let mut many = HelloBody::new((0x100..0x200).map(|kind| (kind, vec![])).collect());
    many.cipher_suites = (0x100..0x200).collect();
    assert!(parse(&many).unwrap().ja4.starts_with("t12i999900_"));

    let quic = ClientHello::parse(&ordinary().body(), Carrier::Quic).unwrap();
    assert!(quic.ja4.starts_with("q13d0203h2_"));
}

/// Largest message that the reader takes in these tests.
const LIMIT: usize = 1000;

fn read_all(stream: &[u8]) -> Progress {
    HelloReader::new(LIMIT).read(stream)
}

/// Byte by byte: the first answer that is not NeedMore, and after how many bytes.
fn read_bytewise(stream: &[u8]) -> (Progress, usize) {
    let mut reader = HelloReader::new(LIMIT);
    (0..=stream.len())
        .map(|len| (reader.read(&stream[..len]), len))
        .find(|(progress, _)| *progress != Progress::NeedMore)
        .unwrap_or((Progress::NeedMore, stream.len()))
}

#[test]
fn records_of_every_size_give_the_same_hello() {
    let message = ordinary().message();
    let expected = Progress::Complete(parse(&ordinary()).unwrap());
    for size in 1..=message.len() {
        let stream = records(&message, size);
        assert_eq!(read_all(&stream), expected, "records of {size}");
        assert_eq!(read_bytewise(&stream), (expected.clone(), stream.len()), "records of {size}, bytes");
    }
}

#[test]
fn records_in_every_odd_arrangement() {
    let message = ordinary().message();
    let (head, tail) = message.split_at(50);
    let whole = Progress::Complete(parse(&ordinary()).unwrap());
    let check = |what: &str, parts: &[&[u8]], expected: &Progress| {
        let stream = parts.concat();
        assert_eq!(read_all(&stream), *expected, "{what}");
        assert_eq!(read_bytewise(&stream).0, *expected, "{what}, byte by byte");
    };
    let empty = record(b"");
    let empties = |count: usize| empty.repeat(count);
    check("nothing", &[], &Progress::NeedMore);
    check("two records", &[&record(head), &record(tail)], &whole);
    check(
        "the header cut",
        &[&record(&message[..1]), &record(&message[1..3]), &record(&message[3..])],
        &whole,
    );
    check("application data behind", &[&record(&message), &[0x17, 3, 3, 0, 1, 0]], &whole);
    check("another message in the record", &[&record(&[&message[..], &[1, 0, 0, 0]].concat())], &whole);
    check("an empty record first", &[&empty, &record(&message)], &whole);
    check("an empty record inside", &[&record(head), &empty, &record(tail)], &whole);
    check("as many empty records as allowed", &[&empties(MAX_EMPTY_RECORDS), &record(&message)], &whole);
    check("one more", &[&empties(MAX_EMPTY_RECORDS + 1), &record(&message)], &Progress::TooLarge);
    check("the minor version of 1.3", &[&[0x16, 3, 4], &record(&message)[3..]], &whole);
    check("a minor version of the future", &[&[0x16, 3, 0x7f], &record(&message)[3..]], &whole);
    check("a major version of the future", &[&[0x16, 4, 1], &record(&message)[3..]], &Progress::Malformed);
    check("a major version that changes", &[&record(head), &[0x16, 2]], &Progress::Malformed);
    check("an alert inside", &[&record(head), &[0x15, 3, 3, 0, 2, 1, 0]], &Progress::Malformed);
    check("ChangeCipherSpec inside", &[&record(head), &[0x14, 3, 3, 0, 1, 1]], &Progress::Malformed);
    check("an alert alone", &[&[0x15, 3, 3, 0, 2, 1, 0]], &Progress::Malformed);
    check("another handshake message", &[&record(&[2, 0, 0, 1, 0])], &Progress::Malformed);
    check("another message behind an empty record", &[&empty, &record(&[0])], &Progress::Malformed);
    check("a body of nothing", &[&record(&[1, 0, 0, 0])], &Progress::Malformed);
    check("a broken hello", &[&record(&handshake(b"hello"))], &Progress::Malformed);
    check("all but the last byte", &[&record(&message)[..message.len() + 4]], &Progress::NeedMore);
}

#[test]
fn the_limit_counts_the_message_and_its_header() {
    let padded = |len: usize| {
        let mut hello = ordinary();
        let room = len - hello.message().len() - 4;
        hello.extensions.as_mut().unwrap().push((21, vec![0; room]));
        let message = hello.message();
        assert_eq!(message.len(), len);
        message
    };
    for size in [1, 100, LIMIT + 1] {
        let fits = records(&padded(LIMIT), size);
        assert!(matches!(read_all(&fits), Progress::Complete(_)), "{size}");
        let too_large = records(&padded(LIMIT + 1), size);
        assert_eq!(read_all(&too_large), Progress::TooLarge, "{size}");
        // The length says so at once.
        assert_eq!(read_bytewise(&too_large), (Progress::TooLarge, if size == 1 { 4 * 6 } else { 9 }));
    }
    assert_eq!(read_all(&record(&[1, 0xff, 0xff, 0xff])), Progress::TooLarge);
}
