//! A checked reader over bytes: every read says whether there was enough, none can panic.

/// The bytes ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short;

/// Reads big-endian fields from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Short> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Short)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Short)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Short> {
        self.array::<1>().map(|[b]| b)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_be_bytes)
    }

    /// Three bytes.
    pub fn u24(&mut self) -> Result<u32, Short> {
        self.array::<3>().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_be_bytes)
    }

    /// A vector with a one-byte length before it.
    pub fn vec8(&mut self) -> Result<Cursor<'a>, Short> {
        let n = self.u8()?;
        self.take(usize::from(n)).map(Cursor::new)
    }

    /// A vector with a two-byte length before it.
    pub fn vec16(&mut self) -> Result<Cursor<'a>, Short> {
        let n = self.u16()?;
        self.take(usize::from(n)).map(Cursor::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_in_order_and_stops_at_the_end() {
        let mut c = Cursor::new(&[1, 0, 2, 0, 0, 3, 0, 0, 0, 4, 2, 7, 8, 0, 1, 9]);
        assert_eq!(c.u8(), Ok(1));
        assert_eq!(c.u16(), Ok(2));
        assert_eq!(c.u24(), Ok(3));
        assert_eq!(c.u32(), Ok(4));
        assert_eq!(c.vec8().map(|v| v.rest()), Ok(&[7, 8][..]));
        assert_eq!(c.vec16().map(|v| v.rest()), Ok(&[9][..]));
        assert!(c.is_empty());
        assert_eq!(c.u8(), Err(Short));
    }

    #[test]
    fn a_length_beyond_the_end_reads_nothing_behind_it() {
        let mut c = Cursor::new(&[5, 1, 2]);
        assert_eq!(c.vec8().map(|v| v.rest()), Err(Short));
        assert_eq!(c.rest(), &[1, 2]);
    }
}
