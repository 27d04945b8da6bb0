//! pcapng: blocks of a type, a length, a body and the length again (draft-ietf-opsawg-pcapng).

use super::link::LinkType;
use super::window::{MAX_PIECE, Pieces, Window};
use super::{Account, CUSTOM, ENTERPRISE, Frame, Interface};
use crate::observation::Nanos;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// Type, length, and the length at the end.
const FRAMING: usize = 12;
/// Interfaces in one file; a file with more is not one that anybody captured.
const MAX_INTERFACES: usize = 65_536;

/// Reads numbers in the byte order of a section.
#[derive(Clone, Copy)]
struct Order {
    big_endian: bool,
}

macro_rules! number {
    ($name:ident, $type:ty) => {
        /// The number at `at`, or `None` if the block ends before it.
        fn $name(self, bytes: &[u8], at: usize) -> Option<$type> {
            let bytes = *bytes.get(at..)?.first_chunk()?;
            Some(if self.big_endian { <$type>::from_be_bytes(bytes) } else { <$type>::from_le_bytes(bytes) })
        }
    };
}

impl Order {
    number!(u16, u16);
    number!(u32, u32);
    number!(i64, i64);
    number!(u64, u64);

    /// Options of a block: code and value, up to the end or to `opt_endofopt`.
    fn options(self, mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
        std::iter::from_fn(move || {
            let code = self.u16(bytes, 0).filter(|code| *code != 0)?;
            let length = usize::from(self.u16(bytes, 2)?);
            let value = bytes.get(4..4 + length)?;
            bytes = bytes.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
            Some((code, value))
        })
    }
}

/// How an interface of the current section counts time.
#[derive(Clone, Copy)]
struct Clock {
    number: u32,
    link: LinkType,
    /// Captured bytes per packet at most; 0 = all.
    snap: u32,
    resolution: u8,
    /// Seconds to add.
    offset: i64,
}

impl Clock {
    fn time(self, units: u64) -> Nanos {
        let units = u128::from(units);
        let nanos = match self.resolution {
            power @ 0..=9 => units * 10_u128.pow(u32::from(9 - power)),
            power @ 10..=0x7f => 10_u128.checked_pow(u32::from(power - 9)).map_or(0, |step| units / step),
            power => (units * 1_000_000_000) >> (power & 0x7f).min(127),
        };
        let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
        nanos.saturating_add(self.offset.saturating_mul(1_000_000_000))
    }
}

/// One reading.
struct Section<'a> {
    order: Order,
    /// Interfaces of the current section.
    clocks: Vec<Clock>,
    account: &'a mut Account,
    sink: &'a mut dyn FnMut(Frame<'_>),
}

/// Reads every block. A damaged one is skipped, as long as its length makes sense.
pub(super) fn read<S: Pieces>(
    window: &mut Window<S>,
    account: &mut Account,
    sink: &mut dyn FnMut(Frame<'_>),
) {
    let mut section = Section { order: Order { big_endian: false }, clocks: Vec::new(), account, sink };
    loop {
        match section.next(window) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                let offset = window.offset();
                return section.account.cut(format!("reading failed after byte {offset}: {error}"));
            }
        }
    }
}

/// Most JSON that is kept of one file, bytes.
const MAX_ATTACHED: usize = 64 << 20;

impl Section<'_> {
    /// Reads one block; false at the end.
    fn next<S: Pieces>(&mut self, window: &mut Window<S>) -> std::io::Result<bool> {
        let offset = window.offset();
        let head = window.want(12)?;
        if head.is_empty() {
            return Ok(false);
        }
        // The type of a section header reads the same in both orders, and its order is what the others are read in.
        if self.order.u32(head, 0) == Some(SECTION) {
            self.order = Order { big_endian: head.get(8..12) == Some(&[0x1a, 0x2b, 0x3c, 0x4d]) };
        }
        let (Some(kind), Some(length)) = (self.order.u32(head, 0), self.order.u32(head, 4)) else {
            self.account.cut(format!("the file ends within the block at byte {offset}"));
            return Ok(false);
        };
        let size = length as usize;
        if size < FRAMING || !size.is_multiple_of(4) {
            self.account.damaged += 1;
            self.account
                .cut(format!("the block at byte {offset} has length {length}: damaged from there on"));
            return Ok(false);
        }
        if size > MAX_PIECE {
            // No packet is so long; whatever it is, it is stepped over.
            self.account.damage(format!("the block at byte {offset} of {length} bytes was skipped"));
            return Ok(window.skip(u64::from(length))? == u64::from(length) || self.ends_within(offset));
        }
        let Some(block) = window.want(size)?.get(..size) else {
            return Ok(self.ends_within(offset));
        };
        let body = block.get(8..size - 4).unwrap_or_default();
        let understood =
            self.order.u32(block, size - 4) == Some(length) && self.block(kind, body, offset).is_some();
        if !understood {
            self.account
                .damage(format!("the block of type {kind:#x} at byte {offset} is damaged and was skipped"));
        }
        window.advance(size);
        Ok(true)
    }

    /// JSON of ours; custom blocks of others are none of our business.
    fn attached(&mut self, body: &[u8]) {
        let ours = self.order.u32(body, 0) == Some(ENTERPRISE);
        let Some(json) = body.get(4..).filter(|json| ours && json.starts_with(b"{\"schema\":\"portclash."))
        else {
            return;
        };
        let json = json.trim_ascii_end();
        let size: usize = self.account.attached.iter().map(Vec::len).sum();
        if size + json.len() <= MAX_ATTACHED {
            self.account.attached.push(json.to_vec());
        } else {
            self.account.note(format!("JSON beyond {MAX_ATTACHED} bytes was left out"));
        }
    }

    fn ends_within(&mut self, offset: u64) -> bool {
        self.account.cut(format!("the file ends within the block at byte {offset}"));
        false
    }

    /// Takes one block; `None` if it makes no sense.
    fn block(&mut self, kind: u32, body: &[u8], offset: u64) -> Option<()> {
        match kind {
            SECTION => {
                self.clocks.clear();
                Some(())
            }
            INTERFACE => self.interface(body),
            ENHANCED_PACKET => {
                let interface = self.order.u32(body, 0)?;
                self.packet(interface, body, offset)
            }
            OLD_PACKET => {
                let interface = self.order.u16(body, 0)?;
                self.packet(u32::from(interface), body, offset)
            }
            SIMPLE_PACKET => self.simple_packet(body),
            STATISTICS => self.statistics(body),
            CUSTOM => {
                self.attached(body);
                Some(())
            }
            // Name resolution and unknown blocks.
            _ => Some(()),
        }
    }

    fn interface(&mut self, body: &[u8]) -> Option<()> {
        if self.account.interfaces.len() >= MAX_INTERFACES {
            return None;
        }
        let link = LinkType(u32::from(self.order.u16(body, 0)?));
        let snap = self.order.u32(body, 4)?;
        let number = u32::try_from(self.account.interfaces.len()).ok()?;
        let mut clock = Clock { number, link, snap, resolution: 6, offset: 0 };
        let mut name = None;
        for (code, value) in self.order.options(body.get(8..).unwrap_or_default()) {
            match code {
                2 => name = Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()),
                9 => clock.resolution = *value.first()?,
                14 => clock.offset = self.order.i64(value, 0)?,
                _ => {}
            }
        }
        self.clocks.push(clock);
        self.account.interfaces.push(Interface { link, name, dropped: None });
        Some(())
    }

    /// An enhanced or an old packet block: they differ in the first four bytes only.
    fn packet(&mut self, interface: u32, body: &[u8], offset: u64) -> Option<()> {
        let clock = *self.clocks.get(interface as usize)?;
        let [high, low, captured, original] = [4, 8, 12, 16].map(|at| self.order.u32(body, at));
        let captured = captured? as usize;
        let bytes = body.get(20..captured.checked_add(20)?)?;
        let at = clock.time(u64::from(high?) << 32 | u64::from(low?));
        let original = original?;
        if bytes.len() > original as usize {
            self.account.damage(format!(
                "the block at byte {offset} has {captured} bytes of a packet of {original}: taken as it is"
            ));
        }
        self.hand_out(Frame { at: Some(at), interface: clock.number, link: clock.link, bytes, original });
        Some(())
    }

    fn simple_packet(&mut self, body: &[u8]) -> Option<()> {
        let clock = *self.clocks.first()?;
        let original = self.order.u32(body, 0)?;
        let most = if clock.snap == 0 { u32::MAX } else { clock.snap };
        let bytes = body.get(4..)?;
        let bytes = bytes.get(..original.min(most) as usize).unwrap_or(bytes);
        self.hand_out(Frame { at: None, interface: clock.number, link: clock.link, bytes, original });
        Some(())
    }

    fn hand_out(&mut self, frame: Frame<'_>) {
        self.account.frames += 1;
        (self.sink)(frame);
    }

    fn statistics(&mut self, body: &[u8]) -> Option<()> {
        let clock = self.clocks.get(self.order.u32(body, 0)? as usize)?;
        let options = self.order.options(body.get(12..)?);
        let counts = options
            .filter(|(code, _)| matches!(code, 5 | 7))
            .filter_map(|(_, value)| self.order.u64(value, 0));
        let dropped = counts.reduce(u64::saturating_add);
        let interface = self.account.interfaces.get_mut(clock.number as usize)?;
        interface.dropped = dropped.or(interface.dropped);
        Some(())
    }
}
