//! What the targets share: ways to cut an input that depend on nothing but the input, so that a file that fails once
//! fails again.

use std::ops::RangeInclusive;

/// xorshift64*: small, and the same numbers for the same input.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Seeded by `data` (FNV-1a).
    pub fn of(data: &[u8]) -> Self {
        let seed = data.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Random(seed | 1)
    }

    /// A number in the range.
    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        let span = (range.end() - range.start()) as u64 + 1;
        range.start() + (random % span) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.within(1..=n) == 1
    }
}

/// `data` in pieces that are not empty: byte by byte, a few large ones, or something between.
pub fn pieces<'a>(data: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let largest = [1, 7, data.len() / 4 + 1, data.len().max(1)][random.within(0..=3)];
    let (mut rest, mut pieces) = (data, Vec::new());
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(random.within(1..=largest).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// Lengths from 0 to `len`, growing, both ends among them: the prefixes that are looked at. Every one of a short input,
/// about `most` of a long one.
pub fn prefixes(len: usize, most: usize, random: &mut Random) -> Vec<usize> {
    let stride = len / most.max(1) + 1;
    let mut lengths: Vec<usize> =
        (0..len).step_by(stride).map(|at| at + random.within(0..=stride - 1)).collect();
    lengths.insert(0, 0);
    lengths.retain(|&at| at < len);
    lengths.push(len);
    lengths.dedup();
    lengths
}
