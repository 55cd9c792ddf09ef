//! Vectors named after the sections of `proxy-protocol.txt`.

use super::*;

fn tcp(src: &str, dest: &str) -> Endpoints {
    Endpoints::Tcp { src: src.parse().unwrap(), dest: dest.parse().unwrap() }
}

/// Each prefix needs more, the whole is `want`, and so is the whole with something behind it.
fn check(header: &[u8], want: Endpoints) {
    for n in 0..header.len() {
        assert_eq!(parse(&header[..n]), Parse::NeedMore, "{n} bytes of {}", header.escape_ascii());
    }
    let want = Parse::Complete(Header { len: header.len(), endpoints: want });
    assert_eq!(parse(header), want, "{}", header.escape_ascii());
    for behind in [&b"\r\n"[..], b"\n", b"PROXY ", b"\0\x16\x03"] {
        assert_eq!(parse(&[header, behind].concat()), want, "{}", header.escape_ascii());
    }
}

/// Refused, and once a prefix is, every longer one is.
fn check_refused(header: &[u8]) {
    assert_eq!(parse(header), Parse::Malformed, "{}", header.escape_ascii());
    let first = (0..header.len()).find(|&n| parse(&header[..n]) != Parse::NeedMore).unwrap_or(header.len());
    for n in first..header.len() {
        assert_eq!(parse(&header[..n]), Parse::Malformed, "{n} bytes of {}", header.escape_ascii());
    }
}

#[test]
fn section_2_1_human_readable_header_format() {
    check(b"PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n", tcp("192.0.2.1:51234", "198.51.100.2:443"));
    let all_ones = tcp("255.255.255.255:65535", "255.255.255.255:65535");
    check(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", all_ones);
    check(b"PROXY TCP6 2001:db8::1 2001:db8::2 0 80\r\n", tcp("[2001:db8::1]:0", "[2001:db8::2]:80"));
    check(b"PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n", tcp("[::ffff:1.2.3.4]:1", "[::1]:2"));
    check(b"PROXY UNKNOWN\r\n", Endpoints::Local);
    check(b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", Endpoints::Local);
    check(b"PROXY UNKNOWN \xff\xfe\r\n", Endpoints::Local);
    check(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", tcp("192.168.0.1:56324", "192.168.0.11:443"));
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 16));
    check(longest.as_bytes(), Endpoints::Local);
    check_refused(format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 15)).as_bytes());
    for line in [
        "TCP4 192.0.2.1 198.51.100.2 51234 443\n",
        "TCP4 192.0.2.1 198.51.100.2 51234 443\r\r\n",
        "TCP4 192.0.2.1 198.51.100.2 51234 443 \r\n",
        "TCP4 192.0.2.1 198.51.100.2 51234\r\n",
        "TCP4 192.0.2.1 198.51.100.2 51234 443 1\r\n",
        "TCP4  192.0.2.1 198.51.100.2 51234 443\r\n",
        "TCP4\t192.0.2.1 198.51.100.2 51234 443\r\n",
        "TCP4 192.0.2.01 198.51.100.2 51234 443\r\n",
        "TCP4 192.0.2 198.51.100.2 51234 443\r\n",
        "TCP4 192.0.2.1 198.51.100.2 051234 443\r\n",
        "TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
        "TCP4 192.0.2.1 198.51.100.2 +1 443\r\n",
        "TCP4 192.0.2.1 198.51.100.2 -1 443\r\n",
        "TCP4 192.0.2.1 198.51.100.2 1 00\r\n",
        "TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        "TCP6 fe80::1%eth0 ::2 1 2\r\n",
        "TCP6 [::1] ::2 1 2\r\n",
        "UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
        "tcp4 192.0.2.1 198.51.100.2 1 2\r\n",
        "TCP4\r\n",
        "UNKNOWNX\r\n",
        "UNKNOWN\n",
        "UNKNOWN \r\r\n",
        "\r\n",
        "TCP4 192.0.2.1\0 198.51.100.2 1 2\r\n",
    ] {
        check_refused(format!("PROXY {line}").as_bytes());
    }
}

#[test]
fn section_2_other_protocols_are_refused_at_the_first_byte_that_differs() {
    let check = |common: &[u8], other: &[u8]| {
        assert_eq!(parse(common), Parse::NeedMore);
        check_refused(&[common, &other[..1]].concat());
        check_refused(&[common, other].concat());
    };
    check(b"", b"GET / HTTP/1.1\r\n");
    check(b"", b"\x16\x03\x01");
    check(b"", b"proxy ");
    check(b"P", b"OST ");
    check(b"PROXY", b"\tTCP4");
    check(b"\r\n\r\n", b"GET / HTTP/1.1\r\n");
    check(b"\r\n\r\n\0\r\nQUIT", b"\r\n");
    check(V2_SIGNATURE, b"\x01");
}

fn v2(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[command, kind], &len, body].concat()
}

const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0xc8, 0x22, 0x01, 0xbb];

fn v6() -> Vec<u8> {
    let ips = ["2001:db8::1", "::ffff:192.0.2.1"].map(|ip| ip.parse::<Ipv6Addr>().unwrap().octets());
    [&ips.concat()[..], &[0, 1, 0, 80]].concat()
}

#[test]
fn section_2_2_binary_header_format() {
    let v4 = || tcp("192.0.2.1:51234", "198.51.100.2:443");
    check(&v2(0x21, 0x11, V4), v4());
    check(&v2(0x21, 0x21, &v6()), tcp("[2001:db8::1]:1", "[::ffff:192.0.2.1]:80"));
    check(&v2(0x20, 0x00, b""), Endpoints::Local);
    check(&v2(0x20, 0x11, V4), Endpoints::Local);
    check(&v2(0x20, 0x11, b"short"), Endpoints::Local);
    check(&v2(0x21, 0x00, b"to be ignored"), Endpoints::Local);
    check(&v2(0x21, 0x10, b""), Endpoints::Local);
    let datagram = |endpoints| match endpoints {
        Endpoints::Tcp { src, dest } => Endpoints::Udp { src, dest },
        other => other,
    };
    check(&v2(0x21, 0x12, V4), datagram(v4()));
    check(&v2(0x21, 0x22, &v6()), datagram(tcp("[2001:db8::1]:1", "[::ffff:192.0.2.1]:80")));
    check(&v2(0x21, 0x31, &[0; 216]), Endpoints::Unsupported);
    check(&v2(0x21, 0x32, &[0; 216]), Endpoints::Unsupported);
    check_refused(&v2(0x11, 0x11, V4));
    check_refused(&v2(0x22, 0x11, V4));
    check_refused(&v2(0x31, 0x11, V4));
    check_refused(&v2(0x21, 0x41, V4));
    check_refused(&v2(0x21, 0x13, V4));
    check_refused(&v2(0x21, 0x11, &V4[..11]));
    check_refused(&v2(0x21, 0x21, V4));
    check_refused(&v2(0x21, 0x31, &[0; 215]));
    check_refused(&v2(0x21, 0x12, &[V4, &[4]].concat()));
}

#[test]
fn section_2_2_type_length_values() {
    let v4 = || tcp("192.0.2.1:51234", "198.51.100.2:443");
    // ALPN, AUTHORITY, NOOP (empty, and twice), UNIQUE_ID, SSL with a subtype, NETNS, a custom and a future type.
    for tlvs in [
        &b"\x01\0\x02h2"[..],
        b"\x02\0\x0fwww.example.com",
        b"\x04\0\0\x04\0\x03\0\0\0",
        b"\x05\0\x01u",
        b"\x20\0\x0f\x01\0\0\0\0\x21\0\x07TLSv1.3",
        b"\x30\0\x02ns",
        b"\xee\0\x02\x07\x07",
        b"\xff\0\0",
    ] {
        check(&v2(0x21, 0x11, &[V4, tlvs].concat()), v4());
        check(&v2(0x21, 0x21, &[&v6()[..], tlvs].concat()), tcp("[2001:db8::1]:1", "[::ffff:192.0.2.1]:80"));
    }
    let padding = vec![0; MAX_V2 - V2_FIXED - V4.len() - 3];
    let length = u16::try_from(padding.len()).unwrap().to_be_bytes();
    check(&v2(0x21, 0x11, &[V4, &[4], &length, &padding].concat()), v4());
    for tlvs in [&[4][..], &[4, 0], &[4, 0, 1], &[4, 0, 0, 4, 0, 3, 1, 2], &[4, 0xff, 0xff, 0]] {
        check_refused(&v2(0x21, 0x11, &[V4, tlvs].concat()));
        check_refused(&v2(0x21, 0x31, &[&[0; 216], tlvs].concat()));
        // To be discarded, whatever it is (section 2.2, LOCAL and UNSPEC).
        check(&v2(0x20, 0x11, &[V4, tlvs].concat()), Endpoints::Local);
        check(&v2(0x21, 0x00, tlvs), Endpoints::Local);
    }
}

/// As HAProxy 2.6.12 sent them with `send-proxy-v2-ssl-cn` and `proxy-v2-options crc32c,unique-id,authority,ssl`, recorded
/// on loopback: a client's connection, and a health check.
#[test]
fn headers_of_haproxy() {
    let of_a_client = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x47\
        \x7f\0\0\x01\x7f\0\0\x01\x8d\x8a\x7b\x0d\
        \x03\0\x04\xee\xe3\x08\xb9\
        \x02\0\x0fwww.example.com\
        \x05\0\x0d7F000001:8D8A\
        \x20\0\x0f\x01\0\0\0\0\x21\0\x07TLSv1.3";
    check(of_a_client, tcp("127.0.0.1:36234", "127.0.0.1:31501"));
    let mut broken = of_a_client.to_vec();
    // The checksum, and what it is taken of.
    for at in [16, 31, 40, 86] {
        broken[at] ^= 0x10;
        check_refused(&broken);
        broken[at] ^= 0x10;
    }
    let of_a_check = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x0f\x03\0\x04\x88\x9d\xa1\xdf\x20\0\x05\0\0\0\0\0";
    check(of_a_check, Endpoints::Local);
}

#[test]
fn section_2_2_3_pp2_type_crc32c() {
    // The check value of the CRC catalogue.
    assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
    let sum_at = V2_FIXED + V4.len() + 3;
    let mut header = v2(0x21, 0x11, &[V4, &[3, 0, 4, 0, 0, 0, 0], &[0xee, 0, 1, 5]].concat());
    let sum = crc32c(header.iter()).to_be_bytes();
    header[sum_at..sum_at + 4].copy_from_slice(&sum);
    check(&header, tcp("192.0.2.1:51234", "198.51.100.2:443"));
    for at in [V2_FIXED, sum_at, header.len() - 1] {
        let mut broken = header.clone();
        broken[at] ^= 1;
        check_refused(&broken);
    }
    // Empty, too short, too long, and twice.
    check_refused(&v2(0x21, 0x11, &[V4, &[3, 0, 0]].concat()));
    check_refused(&v2(0x21, 0x11, &[V4, &[3, 0, 3, 0, 0, 0]].concat()));
    check_refused(&v2(0x21, 0x11, &[V4, &[3, 0, 5, 0, 0, 0, 0, 0]].concat()));
    // Twice, though the first sum is right: the document does not say which one counts.
    let mut twice = v2(0x21, 0x11, &[V4, &[3, 0, 4, 0, 0, 0, 0], &[3, 0, 4, 0, 0, 0, 0]].concat());
    let sum = crc32c(twice.iter()).to_be_bytes();
    twice[sum_at..sum_at + 4].copy_from_slice(&sum);
    check_refused(&twice);
    // A sum behind everything else, and of IPv6.
    let mut header = v2(0x21, 0x21, &[&v6()[..], &[4, 0, 0], &[3, 0, 4, 0, 0, 0, 0]].concat());
    let (sum, at) = (crc32c(header.iter()).to_be_bytes(), header.len() - 4);
    header[at..].copy_from_slice(&sum);
    check(&header, tcp("[2001:db8::1]:1", "[::ffff:192.0.2.1]:80"));
}

#[test]
fn an_answer_once_given_is_stable() {
    let mut random = 0x2545_f491_u32;
    let mut below = |n: usize| {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        random as usize % n
    };
    let headers = [
        b"PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\nGET".to_vec(),
        b"PROXY TCP6 2001:db8::1 2001:db8::2 1 80\r\n\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        v2(0x21, 0x11, &[V4, &[3, 0, 4, 0, 0, 0, 0, 4, 0, 2, 1, 1]].concat()),
        v2(0x21, 0x21, &[&v6()[..], &[4, 0, 0]].concat()),
        v2(0x20, 0x00, b"abc"),
    ];
    let mut complete = 0;
    for _ in 0..20_000 {
        let mut bytes = headers[below(headers.len())].clone();
        for _ in 0..below(3) {
            let at = below(bytes.len());
            bytes[at] = below(256) as u8;
        }
        let mut answer = Parse::NeedMore;
        for n in 0..=bytes.len() {
            let now = parse(&bytes[..n]);
            assert!(answer == Parse::NeedMore || now == answer, "{n} bytes of {}", bytes.escape_ascii());
            answer = now;
        }
        complete += usize::from(matches!(answer, Parse::Complete(_)));
    }
    assert!((1_000..19_000).contains(&complete), "{complete}");
}
