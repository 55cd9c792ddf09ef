//! Variable-length integers (RFC 9000 §16): the first two bits say how many bytes there are.

use crate::wire::cursor::{Cursor, Short};

/// One integer below 2^62. The shortest form is not asked for: only frame types must have it (§12.4).
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<u64, Short> {
    let first = cursor.u8()?;
    let more = match first >> 6 {
        0 => 0,
        1 => 1,
        2 => 3,
        _ => 7,
    };
    let low = cursor.take(more)?;
    Ok(low.iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte)))
}

/// A length, and the bytes that it counts.
pub(super) fn read_vec<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let length = usize::try_from(read(cursor)?).map_err(|_| Short)?;
    cursor.take(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_rfc_9000_a_1() {
        let check = |bytes: &[u8], expected: Result<u64, Short>| {
            assert_eq!(read(&mut Cursor::new(bytes)), expected, "{bytes:x?}");
        };
        check(b"\xc2\x19\x7c\x5e\xff\x14\xe8\x8c", Ok(151_288_809_941_952_652));
        check(b"\x9d\x7f\x3e\x7d", Ok(494_878_333));
        check(b"\x7b\xbd", Ok(15_293));
        check(b"\x25", Ok(37));
        check(b"\x40\x25", Ok(37));
        check(&[0xff; 8], Ok((1 << 62) - 1));
        check(b"", Err(Short));
        check(b"\x40", Err(Short));
        check(&[0xff; 7], Err(Short));
    }

    #[test]
    fn a_length_beyond_the_end() {
        assert_eq!(read_vec(&mut Cursor::new(b"\x02ab")), Ok(&b"ab"[..]));
        assert_eq!(read_vec(&mut Cursor::new(b"\x03ab")), Err(Short));
        assert_eq!(read_vec(&mut Cursor::new(&[0xff; 9])), Err(Short));
    }
}
