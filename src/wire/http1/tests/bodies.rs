//! Exactly the bytes of a body, however it is cut.

use super::*;

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\n";

/// Feeds the pieces; the bytes that belong to the body, or what is wrong.
fn feed(framing: Framing, pieces: &[&[u8]]) -> Result<(usize, Body), Malformed> {
    let mut body = Body::new(framing);
    let mut taken = 0;
    for piece in pieces {
        let n = body.take(piece)?;
        assert!(n == piece.len() || body.is_done());
        taken += n;
    }
    Ok((taken, body))
}

/// The body is exactly `bytes` with any byte behind it, however it is cut.
fn check_whole(framing: Framing, bytes: &[u8]) {
    let stream = [bytes, NEXT].concat();
    let check = |pieces: &[&[u8]]| {
        let (taken, mut body) =
            feed(framing, pieces).unwrap_or_else(|e| panic!("{e:?}: {}", bytes.escape_ascii()));
        assert_eq!(taken, bytes.len(), "{}", bytes.escape_ascii());
        assert!(body.is_done());
        assert_eq!((body.take(NEXT), body.finish(), body.opaque()), (Ok(0), Ok(()), 0));
    };
    for at in 0..=stream.len() {
        let (a, b) = stream.split_at(at);
        check(&[a, b]);
    }
    check(&stream.chunks(1).collect::<Vec<_>>());
    for n in 0..bytes.len() {
        let (taken, body) = feed(framing, &[&bytes[..n]]).unwrap();
        assert_eq!((taken, body.is_done()), (n, false));
        assert!(body.finish().is_err());
    }
}

/// Refused however it is cut, and for good.
fn check_malformed(bytes: &[u8]) {
    for at in 0..=bytes.len() {
        let (a, b) = bytes.split_at(at);
        assert!(feed(Framing::Chunked, &[a, b]).is_err(), "{} at {at}", bytes.escape_ascii());
    }
    let mut body = Body::new(Framing::Chunked);
    let refused = bytes.chunks(1).find_map(|byte| body.take(byte).err());
    assert!(refused.is_some(), "{}", bytes.escape_ascii());
    assert_eq!(
        (body.take(b"0\r\n\r\n").err(), body.finish().err(), body.is_done()),
        (refused, refused, false)
    );
}

#[test]
fn lengths() {
    check_whole(Framing::None, b"");
    check_whole(Framing::Length(0), b"");
    check_whole(Framing::Length(1), b"x");
    check_whole(Framing::Length(7), b"0\r\n\r\n\0\n");
}

#[test]
fn to_the_end_of_the_connection() {
    let (taken, body) = feed(Framing::ToEof, &[b"abc", NEXT]).unwrap();
    assert_eq!((taken, body.is_done(), body.is_to_eof()), (3 + NEXT.len(), false, true));
    assert_eq!((body.opaque(), body.finish()), (u64::MAX, Ok(())));
    assert!(!Body::new(Framing::Length(1)).is_to_eof());
}

#[test]
fn chunked() {
    for body in [
        &b"0\r\n\r\n"[..],
        b"000\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
        b"1\r\na\r\n0a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n",
        b"0000000000000001\r\na\r\n0\r\n\r\n",
        b"5;a\r\nhello\r\n0;b=\"c;\xe4\" ; d\t\r\n\r\n",
        b"0\r\nX-Sum: 1\r\n\r\n",
        b"0\r\nA:\r\nb!: c:d\t\xe4\r\n\r\n",
        b"0\r\nContent-Length-X: 1\r\nX-Host: a\r\nTransfer-Encoding-: 1\r\n\r\n",
    ] {
        check_whole(Framing::Chunked, body);
    }
}

#[test]
fn chunked_bodies_that_are_refused() {
    for bytes in [
        // sizes
        &b"\r\n"[..],
        b";a\r\n",
        b" 5\r\nhello",
        b"\t5\r\n",
        b"5 \r\nhello",
        b"5\t\r\nhello",
        b"5 ;ext\r\nhello",
        b"0x5\r\nhello",
        b"X5\r\n",
        b"+5\r\n",
        b"-5\r\n",
        b"5_0\r\n",
        b"5.\r\n",
        b"5,5\r\n",
        b"\"5\"\r\n",
        b"g\r\n",
        b"FFFFFFFFFFFFFFFFF\r\n",
        b"FFFFFFFFFFFFFFFF\r\n",
        b"8000000000000000\r\n",
        b"20000000000000\r\n",
        b"10000000000000005\r\n",
        b"00000000000000000\r\n",
        b"\x005\r\n",
        b"5\0\r\n",
        b"\x0b5\r\n",
        // line ends
        b"5\nhello",
        b"5\n\r\n",
        b"5\r\r\n",
        b"5\rhello",
        b"5\r hello",
        b"0\n\r\n",
        b"0\r\n\n",
        b"0\r\n\r\r\n",
        b"0\r\n\rX",
        b"5;a\nhello",
        b"5;a\rb\r\n",
        b"5;a\0\r\n",
        b"5;\x7f\r\n",
        b"2\r\nxx45\r\n",
        b"5\r\nhello\n",
        b"5\r\nhello0\r\n",
        b"5\r\nhello\r0\r\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhello\n\r\n",
        b"5\r\nhello\r\n\r\n",
        // trailers
        b"0\r\nGET / HTTP/1.1\r\n",
        b"0\r\n X: y\r\n",
        b"0\r\nX : y\r\n",
        b"0\r\n: y\r\n",
        b"0\r\nX\r\n",
        b"0\r\nX: y\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX: y\rZ",
        b"0\r\nX: y\r\n z\r\n",
        b"0\r\nX: \0\r\n",
        b"0\r\nContent-Length: 5\r\n",
        b"0\r\nTRANSFER-encoding: chunked\r\n",
        b"0\r\nA: b\r\nhost: c\r\n",
    ] {
        check_malformed(bytes);
    }
}

#[test]
fn chunked_limits() {
    let extended = |n: u16| [b"1;", vec![b'x'; n.into()].as_slice(), b"\r\na\r\n0\r\n\r\n"].concat();
    check_whole(Framing::Chunked, &extended(MAX_CHUNK_EXTENSION));
    check_malformed(&extended(MAX_CHUNK_EXTENSION + 1));
    let mut body = Body::new(Framing::Chunked);
    let trailer = b"X: 0123456789\r\n";
    assert_eq!(body.take(b"0\r\n"), Ok(3));
    let lines = usize::from(MAX_TRAILERS) / trailer.len();
    for _ in 0..lines {
        assert_eq!(body.take(trailer), Ok(trailer.len()));
    }
    assert!(body.take(trailer).is_err());
    let mut body = Body::new(Framing::Chunked);
    assert_eq!(body.take(b"1fffffffffffff\r\n"), Ok(16));
    assert_eq!(body.opaque(), MAX_LENGTH);
}

#[test]
fn payload_may_be_moved_unseen() {
    let mut body = Body::new(Framing::Length(10));
    assert_eq!((body.take(b"abc"), body.opaque()), (Ok(3), 7));
    body.skip(6);
    assert_eq!((body.opaque(), body.is_done()), (1, false));
    body.skip(1);
    assert!(body.is_done());

    let mut body = Body::new(Framing::Chunked);
    assert_eq!((body.opaque(), body.take(b"5\r"), body.opaque()), (0, Ok(2), 0));
    assert_eq!((body.take(b"\n"), body.opaque()), (Ok(1), 5));
    body.skip(0);
    body.skip(4);
    assert_eq!((body.take(b"o"), body.opaque()), (Ok(1), 0));
    assert_eq!(body.take(b"\r\n0\r\n\r\nrest"), Ok(7));
    assert!(body.is_done());

    let mut body = Body::new(Framing::ToEof);
    body.skip(u64::MAX);
    assert_eq!(body.opaque(), u64::MAX);
}

/// Garbage that looks like chunks: read whole, in bytes, and with the payload moved unseen, it ends the same way.
#[test]
fn the_way_of_feeding_changes_nothing() {
    const PARTS: [&[u8]; 14] = [
        b"0",
        b"1",
        b"a",
        b"5",
        b"\r\n",
        b"\r\n",
        b"\n",
        b";x",
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"X: y\r\n",
        b" ",
        b"\r",
    ];
    let mut random = Random(0x9e37_79b9);
    let (mut done, mut malformed) = (0, 0);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..1 + random.below(10))
            .flat_map(|_| PARTS[random.below(PARTS.len())].iter().copied())
            .collect();
        let summary =
            |fed: Result<(usize, Body), Malformed>| fed.map(|(taken, body)| (taken, body.is_done()));
        let whole = summary(feed(Framing::Chunked, &[&bytes]));
        let in_bytes = summary(feed(Framing::Chunked, &bytes.chunks(1).collect::<Vec<_>>()));
        assert_eq!(whole, in_bytes, "{}", bytes.escape_ascii());

        let mut body = Body::new(Framing::Chunked);
        let mut taken = 0;
        let unseen = loop {
            let rest = &bytes[taken..];
            let opaque = usize::try_from(body.opaque()).unwrap().min(rest.len());
            body.skip(opaque as u64);
            taken += opaque;
            if body.is_done() || taken == bytes.len() {
                break Ok((taken, body.is_done()));
            }
            if opaque == 0 {
                match body.take(&rest[..1]) {
                    Ok(n) => taken += n,
                    Err(e) => break Err(e),
                }
            }
        };
        assert_eq!(whole, unseen, "{}", bytes.escape_ascii());
        done += usize::from(matches!(whole, Ok((_, true))));
        malformed += usize::from(whole.is_err());
    }
    assert!(done > 500 && malformed > 500, "{done} {malformed}");
}
