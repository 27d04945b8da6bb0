//! pcap: a header, then records of a time, two lengths and the bytes (pcap-savefile(5)).

use super::link::LinkType;
use super::window::{MAX_PIECE, Pieces, Window};
use super::{Account, Frame, Interface};
use crate::observation::Nanos;

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// No record begins so: it would be of 1970, and of a packet without a byte.
const ZEROS: [u8; RECORD_HEADER] = [0; RECORD_HEADER];

/// What a record says of its packet.
struct Header {
    seconds: u32,
    fraction: u32,
    captured: u32,
    original: u32,
}

/// Byte order and time unit, as the magic number tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    big_endian: bool,
    /// Nanoseconds per unit of the second time field.
    unit: i64,
}

impl Order {
    /// Of the first four bytes of a file; `None` if they are no pcap magic number.
    pub(super) fn of(magic: [u8; 4]) -> Option<Self> {
        let (big_endian, unit) = match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, 1000),
            [0xa1, 0xb2, 0xc3, 0xd4] => (true, 1000),
            [0x4d, 0x3c, 0xb2, 0xa1] => (false, 1),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, 1),
            _ => return None,
        };
        Some(Self { big_endian, unit })
    }

    fn header(self, bytes: &[u8; RECORD_HEADER]) -> Header {
        let [s0, s1, s2, s3, f0, f1, f2, f3, c0, c1, c2, c3, o0, o1, o2, o3] = *bytes;
        let word = |bytes| {
            let word = u32::from_le_bytes(bytes);
            if self.big_endian { word.swap_bytes() } else { word }
        };
        Header {
            seconds: word([s0, s1, s2, s3]),
            fraction: word([f0, f1, f2, f3]),
            captured: word([c0, c1, c2, c3]),
            original: word([o0, o1, o2, o3]),
        }
    }

    fn word(self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

/// Reads every record. Errors after the header end the reading with a note: what came before is good.
pub(super) fn read<S: Pieces, F: FnMut(Frame<'_>) + ?Sized>(
    window: &mut Window<S>,
    account: &mut Account,
    sink: &mut F,
) {
    let header = match window.want(FILE_HEADER) {
        Ok(bytes) if bytes.len() >= FILE_HEADER => bytes,
        Ok(_) => return account.cut("the file ends within its header".to_owned()),
        Err(error) => return account.cut(format!("reading failed within the header: {error}")),
    };
    let Some(order) = header.first_chunk::<4>().and_then(|magic| Order::of(*magic)) else { return };
    // The upper bits say whether frames end with a checksum, and are no part of the type.
    let link = LinkType(order.word(header, 20) & 0x03ff_ffff);
    account.interfaces.push(Interface { link, name: None, dropped: None });
    window.advance(FILE_HEADER);
    let mut records = Records { account, order, link, sink };
    loop {
        let read = records.whole(window);
        if !read && !records.next(window) {
            return;
        }
    }
}

/// What is known while records are read.
struct Records<'a, F: ?Sized> {
    account: &'a mut Account,
    order: Order,
    link: LinkType,
    sink: &'a mut F,
}

impl<F: FnMut(Frame<'_>) + ?Sized> Records<'_, F> {
    /// Reads the records that lie whole and undamaged in what is at hand; whether there was any.
    fn whole<S: Pieces>(&mut self, window: &mut Window<S>) -> bool {
        let all = window.at_hand();
        let mut rest = all;
        while let Some((header, after)) = rest.split_first_chunk::<RECORD_HEADER>() {
            let Header { seconds, fraction, captured, original } = self.order.header(header);
            let length = captured as usize;
            if length > MAX_PIECE || captured > original || header == &ZEROS {
                break;
            }
            let Some((bytes, next)) = after.split_at_checked(length) else { break };
            let at = Some(time(seconds, fraction, self.order.unit));
            (self.sink)(Frame { at, interface: 0, link: self.link, bytes, original });
            self.account.frames += 1;
            rest = next;
        }
        let read = all.len() - rest.len();
        window.advance(read);
        read > 0
    }

    /// Reads one record, wherever it ends and whatever is wrong with it; false at the end.
    fn next<S: Pieces>(&mut self, window: &mut Window<S>) -> bool {
        let offset = window.offset();
        let account = &mut *self.account;
        let header = match window.want(RECORD_HEADER) {
            Ok([]) => return false,
            Ok(bytes) => match bytes.first_chunk() {
                Some(&ZEROS) => {
                    account.damaged += 1;
                    return stop(
                        account,
                        format!("nothing but zeros from byte {offset} on, as after a crash"),
                    );
                }
                Some(header) => self.order.header(header),
                None => return stop(account, format!("the file ends within the record at byte {offset}")),
            },
            Err(error) => return stop(account, format!("reading failed at byte {offset}: {error}")),
        };
        let Header { seconds, fraction, captured, original } = header;
        let length = captured as usize;
        if length > MAX_PIECE {
            let text = format!(
                "the record at byte {offset} claims {captured} bytes: the file is damaged from there on"
            );
            account.damaged += 1;
            return stop(account, text);
        }
        let bytes = match window.want(RECORD_HEADER + length) {
            Ok(bytes) => bytes.get(RECORD_HEADER..RECORD_HEADER + length),
            Err(error) => return stop(account, format!("reading failed at byte {offset}: {error}")),
        };
        let Some(bytes) = bytes else {
            return stop(account, format!("the file ends within the record at byte {offset}"));
        };
        if captured > original {
            account.damage(format!(
                "the record at byte {offset} has {captured} bytes of a packet of {original}: taken as it is"
            ));
        }
        let at = Some(time(seconds, fraction, self.order.unit));
        account.frames += 1;
        (self.sink)(Frame { at, interface: 0, link: self.link, bytes, original });
        window.advance(RECORD_HEADER + length);
        true
    }
}

fn stop(account: &mut Account, text: String) -> bool {
    account.cut(text);
    false
}

fn time(seconds: u32, fraction: u32, unit: i64) -> Nanos {
    i64::from(seconds) * 1_000_000_000 + i64::from(fraction) * unit
}
