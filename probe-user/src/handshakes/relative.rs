//! Listings that count sequence numbers from the beginning of each connection, as Wireshark does unless told otherwise.
//!
//! In such a listing all handshakes have the same number. Here each direction of a connection gets a base of its own, so
//! that they are told apart; it is taken off again before anything is shown.

use std::net::SocketAddr;

use super::{PacketKind, Seen};

/// The same for the same direction of a connection, and hardly for any other (FNV-1a).
fn base(from: SocketAddr, to: SocketAddr) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    for byte in format!("{from}>{to}").bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash
}

fn shifted(seen: Seen, by: impl Fn(u32, u32) -> u32) -> Seen {
    let Seen { source, destination, .. } = seen;
    let acknowledges = !matches!(seen.kind, PacketKind::Syn | PacketKind::Reset);
    Seen {
        sequence: by(seen.sequence, base(source, destination)),
        acknowledgement: if acknowledges {
            by(seen.acknowledgement, base(destination, source))
        } else {
            seen.acknowledgement
        },
        ..seen
    }
}

/// With numbers that no other connection has.
pub(super) fn told_apart(seen: Seen) -> Seen {
    Seen { relative: true, ..shifted(seen, u32::wrapping_add) }
}

/// With the numbers of the listing.
pub(super) fn as_listed(seen: Seen) -> Seen {
    if seen.relative { shifted(seen, u32::wrapping_sub) } else { seen }
}
