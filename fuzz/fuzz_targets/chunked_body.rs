//! Bodies: where one ends does not depend on how it arrives, nor on whether payload is looked at.
#![no_main]

use calamary::wire::http1::{Body, Framing, Malformed};
use calamary_fuzz::{Random, pieces};
use libfuzzer_sys::fuzz_target;

/// Bytes taken and how it stands, or what is wrong.
type End = Result<(usize, bool, Result<(), Malformed>), Malformed>;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    // Mostly chunked.
    let framing = match choice {
        b'n' => Framing::None,
        b'e' => Framing::ToEof,
        b'l' => Framing::Length(data.len() as u64 / 2),
        b'L' => Framing::Length(data.len() as u64 * 2),
        _ => Framing::Chunked,
    };
    let whole = at_once(framing, data);
    let random = &mut Random::of(data);
    assert_eq!(in_pieces(framing, data, random), whole, "in pieces and at once");
    assert_eq!(skipping(framing, data, random), whole, "with payload skipped");
    match (framing, whole) {
        (Framing::Chunked, Ok((taken, true, _))) => assert_eq!(end_of_chunks(data), Some(taken)),
        (Framing::Chunked, Ok((taken, false, finish))) => {
            assert_eq!(taken, data.len());
            assert!(finish.is_err());
        }
        (Framing::Chunked, Err(_)) => {}
        (framing, Err(malformed)) => panic!("{malformed:?} in {framing:?}"),
        (Framing::Length(n), Ok((taken, _, _))) => assert_eq!(taken as u64, n.min(data.len() as u64)),
        (Framing::None, Ok((taken, done, _))) => assert!(taken == 0 && done),
        (Framing::ToEof, Ok((taken, done, finish))) => {
            assert!(taken == data.len() && !done && finish.is_ok());
        }
    }
});

fn at_once(framing: Framing, data: &[u8]) -> End {
    let mut body = Body::new(framing);
    let taken = body.take(data)?;
    Ok((taken, body.is_done(), body.finish()))
}

fn in_pieces(framing: Framing, data: &[u8], random: &mut Random) -> End {
    let mut body = Body::new(framing);
    let mut total = 0;
    for piece in pieces(data, random) {
        match body.take(piece) {
            Ok(taken) => {
                assert!(taken == piece.len() || body.is_done(), "some was left of a body that goes on");
                total += taken;
            }
            Err(malformed) => {
                assert_eq!(body.take(b"0\r\n\r\n"), Err(malformed), "broken is broken");
                return Err(malformed);
            }
        }
    }
    Ok((total, body.is_done(), body.finish()))
}

/// As a splice does it: payload is moved unseen, the rest is taken byte by byte.
fn skipping(framing: Framing, data: &[u8], random: &mut Random) -> End {
    let mut body = Body::new(framing);
    let mut rest = data;
    while let (Some((_, behind)), false) = (rest.split_first(), body.is_done()) {
        let opaque = body.opaque().min(rest.len() as u64) as usize;
        if opaque > 0 {
            let moved = random.within(1..=opaque);
            body.skip(moved as u64);
            rest = &rest[moved..];
        } else {
            assert_eq!(body.take(&rest[..1])?, 1);
            rest = behind;
        }
    }
    Ok((data.len() - rest.len(), body.is_done(), body.finish()))
}

/// The same told naively (RFC 9112 §7.1): the length of the chunked body at the front of `data`.
fn end_of_chunks(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    let line = |at: usize| -> Option<(&str, usize)> {
        let end = at + data.get(at..)?.windows(2).position(|pair| pair == b"\r\n")?;
        let size = data[at..end].split(|&byte| byte == b';').next()?;
        Some((std::str::from_utf8(size).ok()?, end + 2))
    };
    loop {
        let (size, behind) = line(at)?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            let trailers = data.get(behind - 2..)?.windows(4).position(|four| four == b"\r\n\r\n")?;
            return Some(behind + trailers + 2);
        }
        at = behind + size + 2;
    }
}
