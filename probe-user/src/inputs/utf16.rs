//! Text as Windows' shell writes it into files (`kubectl … > file` in PowerShell): UTF-16 with a mark at its beginning.

use std::io::{self, Read};

/// How much is read at a time.
const BLOCK: usize = 8 * 1024;

/// Byte order of the two-byte units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    /// What the mark at the beginning of a file says; `None` if it has none.
    pub(super) fn of(sample: &[u8]) -> Option<Self> {
        match sample {
            [0xff, 0xfe, ..] => Some(Self::Little),
            [0xfe, 0xff, ..] => Some(Self::Big),
            _ => None,
        }
    }
}

/// The same text in UTF-8. What is no text is replaced.
pub(super) struct Utf8<R> {
    reader: R,
    order: Order,
    /// Units that were read and not yet decoded: at most half a character.
    rest: Vec<u16>,
    /// Half a unit.
    odd: Option<u8>,
    ready: Vec<u8>,
    given: usize,
    ended: bool,
}

impl<R: Read> Utf8<R> {
    pub(super) const fn new(reader: R, order: Order) -> Self {
        Self { reader, order, rest: Vec::new(), odd: None, ready: Vec::new(), given: 0, ended: false }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut block = Vec::with_capacity(BLOCK);
        block.extend(self.odd.take());
        let more = BLOCK - block.len();
        self.reader.by_ref().take(more as u64).read_to_end(&mut block)?;
        self.ended = block.len() < BLOCK;
        let (pairs, odd) = block.as_chunks::<2>();
        self.odd = odd.first().copied();
        let order = self.order;
        self.rest.extend(pairs.iter().map(|pair| match order {
            Order::Little => u16::from_le_bytes(*pair),
            Order::Big => u16::from_be_bytes(*pair),
        }));
        // The first half of a character waits for the second.
        let half = self.rest.pop_if(|unit| !self.ended && (0xd800..0xdc00).contains(unit));
        self.ready.clear();
        self.given = 0;
        let mut utf8 = [0; 4];
        for c in char::decode_utf16(self.rest.drain(..)) {
            let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
            self.ready.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
        }
        self.rest.extend(half);
        Ok(())
    }
}

impl<R: Read> Read for Utf8<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.ready.len() && !self.ended {
            self.fill()?;
        }
        let mut left = self.ready.get(self.given..).unwrap_or_default();
        let count = left.read(into)?;
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_out_whole_wherever_blocks_end() {
        // Characters of one and of two units, so that some straddle a block in either alignment.
        for text in ["a😀ä".repeat(5000), format!("x{}", "😀".repeat(9000)), String::new(), "a".to_owned()]
        {
            let units: Vec<u16> = text.encode_utf16().collect();
            for order in [Order::Little, Order::Big] {
                let bytes = |unit: &u16| match order {
                    Order::Little => unit.to_le_bytes(),
                    Order::Big => unit.to_be_bytes(),
                };
                let encoded: Vec<u8> = units.iter().flat_map(bytes).collect();
                let mut decoded = String::new();
                Utf8::new(&encoded[..], order).read_to_string(&mut decoded).unwrap();
                assert_eq!(decoded, text);
            }
        }
        let mut decoded = String::new();
        Utf8::new(&[0x00, 0xd8, b'a', 0, b'b'][..], Order::Little).read_to_string(&mut decoded).unwrap();
        assert_eq!(decoded, "\u{fffd}a");
    }
}
