//! `/proc/net/tcp` and `/proc/net/tcp6`: the way that is left where `inet_diag` is refused. It is slow: the kernel
//! walks its tables anew for every page that is read.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::TcpState;
use super::diag::{Row, States};
use crate::ipvs::rows::RowLog;
use crate::ipvs::table::canonical;

/// Longest line that is read; real ones have 150 to 180 bytes.
const MAX_LINE: usize = 4096;
/// Unit of times in this file (USER_HZ), the same on every architecture but Alpha: hundredths of a second.
const TICK_MS: u32 = 10;

/// Gives every row in one of `states` to `take`.
pub(super) fn read(
    file: &Path,
    states: States,
    log: &mut RowLog,
    take: &mut dyn FnMut(Row),
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 * 1024, File::open(file)?);
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        let length = io::Read::take(&mut reader, MAX_LINE as u64).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(());
        }
        number += 1;
        let text = line.trim_ascii();
        if text.is_empty() || text.starts_with(b"sl ") {
            continue;
        }
        match std::str::from_utf8(text).map_err(|_| "it is no text".to_owned()).and_then(row) {
            Ok(row) if states.contains(row.state) => take(row),
            Ok(_) => {}
            Err(reason) => log.push(number, text, reason),
        }
    }
}

/// One row (`get_tcp4_sock`, `get_timewait4_sock`, net/ipv4/tcp_ipv4.c).
fn row(line: &str) -> Result<Row, String> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let mut next = || words.next().ok_or("the row is cut off");
    let (local, remote) = (address(next()?)?, address(next()?)?);
    let state = next()?;
    let _queues = next()?;
    let timer = next()?;
    let (_retransmits, _uid, _timeout) = (next()?, next()?, next()?);
    let inode = next()?.parse().map_err(|_| "its inode is not a number")?;
    let (kind, left) = timer.split_once(':').ok_or("its timer is not readable")?;
    let state = u8::from_str_radix(state, 16).ok().and_then(TcpState::from_kernel);
    let left = || u32::from_str_radix(left, 16).ok().map(|ticks| ticks.saturating_mul(TICK_MS));
    Ok(Row {
        state: state.ok_or("its state is not a TCP state")?,
        local,
        remote,
        inode,
        time_wait_left_ms: if kind == "03" { left() } else { None },
    })
}

/// `0100007F:1F90`: the address as 32-bit words in host byte order, the port plain.
fn address(word: &str) -> Result<SocketAddr, String> {
    let parsed = word.split_once(':').and_then(|(ip, port)| {
        let port = (port.len() == 4).then(|| u16::from_str_radix(port, 16).ok())??;
        let ip: IpAddr = match ip.len() {
            8 => Ipv4Addr::from(word_bytes(ip)?).into(),
            32 => {
                let mut octets = [0; 16];
                for (at, chunk) in octets.chunks_exact_mut(4).enumerate() {
                    chunk.copy_from_slice(&word_bytes(ip.get(at * 8..at * 8 + 8)?)?);
                }
                Ipv6Addr::from(octets).into()
            }
            _ => return None,
        };
        Some(canonical(SocketAddr::new(ip, port)))
    });
    parsed.ok_or_else(|| "an address is not readable".to_owned())
}

fn word_bytes(hex: &str) -> Option<[u8; 4]> {
    u32::from_str_radix(hex, 16).ok().map(u32::to_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_of_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tcp");
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 623 1 0000000000000000 100 0 0 10 0\n\
             1: 814D170A:8F60 8A4D170A:0050 06 00000000:00000000 03:00001068 00000000     0        0 0 3 0000000000000000\n\
             2: 0000000000000000FFFF00000100007F:0050 000080FE00000000FF005450A91A0D00:D431 01 00000000:00000000 02:00000001 00000000  33  0 77 1 0 2 4\n\
             3: 0100007F:1F90 0000000\n";
        fs::write(&file, text).unwrap();
        let (mut rows, mut log) = (Vec::new(), RowLog::default());
        read(&file, States::ALL, &mut log, &mut |row| rows.push(row)).unwrap();
        let [listener, waiting, mapped] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((listener.state, listener.inode), (TcpState::Listen, 623));
        assert_eq!(listener.local, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(waiting.local, "10.23.77.129:36704".parse().unwrap());
        assert_eq!(waiting.remote, "10.23.77.138:80".parse().unwrap());
        assert_eq!((waiting.state, waiting.time_wait_left_ms), (TcpState::TimeWait, Some(42_000)));
        assert_eq!(mapped.local, "127.0.0.1:80".parse().unwrap());
        assert_eq!(mapped.remote.ip().to_string(), "fe80::5054:ff:d:1aa9");
        let unreadable = log.finish();
        assert_eq!((unreadable.len(), unreadable[0].line), (1, 5));

        let mut waiting = 0;
        let only = States::of(&[TcpState::TimeWait]);
        read(&file, only, &mut RowLog::default(), &mut |_| waiting += 1).unwrap();
        assert_eq!(waiting, 1);
    }
}
