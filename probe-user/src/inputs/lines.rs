//! The lines of a stream, one at a time: memory does not grow with the file, nor with a line that never ends.

use std::io::{self, BufRead, BufReader, Read};

/// Bytes of a line that are looked at; the rest of a longer one is read and forgotten.
pub(crate) const MAX_LINE: usize = 64 * 1024;
/// How much is read at a time.
const BLOCK: usize = 64 * 1024;

/// Hands every line to `sink`, with its number from 1, without line ends and without a byte order mark. Lines come
/// as they are, up to the place where reading fails. Returns how many there were.
pub(crate) fn for_each(input: impl Read, sink: &mut dyn FnMut(u64, &[u8])) -> (u64, io::Result<()>) {
    for_each_up_to(MAX_LINE, input, sink)
}

/// [`for_each`] for files with lines of up to `most` bytes.
pub(crate) fn for_each_up_to(
    most: usize,
    input: impl Read,
    sink: &mut dyn FnMut(u64, &[u8]),
) -> (u64, io::Result<()>) {
    let mut input = BufReader::with_capacity(BLOCK, input);
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        let read = next(most, &mut input, &mut line);
        if let Ok(false) = read {
            return (number, Ok(()));
        }
        if read.is_ok() || !line.is_empty() {
            number += 1;
            sink(number, content(&line, number));
        }
        if let Err(error) = read {
            return (number, Err(error));
        }
    }
}

fn content(line: &[u8], number: u64) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line }
}

/// Reads one line without its end; false at the end of the stream.
fn next(most: usize, input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    let mut any = false;
    loop {
        let block = match input.fill_buf() {
            Ok(block) => block,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if block.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = memchr::memchr(b'\n', block);
        let (part, used) = match end {
            Some(end) => (block.get(..end), end + 1),
            None => (Some(block), block.len()),
        };
        let part = part.unwrap_or_default();
        let space = most.saturating_sub(line.len());
        line.extend_from_slice(part.get(..space).unwrap_or(part));
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// A number of a line as the tables of unreadable rows keep it.
pub(crate) fn row_number(line: u64) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lines = Vec<(u64, String)>;

    fn read(input: impl Read) -> (Lines, (u64, io::Result<()>)) {
        let mut lines = Vec::new();
        let end = for_each(input, &mut |number, line| {
            lines.push((number, String::from_utf8_lossy(line).into_owned()));
        });
        (lines, end)
    }

    #[test]
    fn line_ends_and_marks_are_taken_off() {
        let (lines, (count, end)) = read(&b"\xef\xbb\xbfa\r\n\n b\nc"[..]);
        assert!(end.is_ok());
        assert_eq!(count, 4);
        assert_eq!(lines, [(1, "a".into()), (2, String::new()), (3, " b".into()), (4, "c".into())]);
        assert_eq!(read(&b""[..]).0, []);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let input = io::repeat(b'x').take(10 << 20).chain(&b"\nnext\n"[..]);
        let (lines, _) = read(input);
        assert_eq!((lines.len(), lines[0].1.len(), lines[1].1.as_str()), (2, MAX_LINE, "next"));
    }

    #[test]
    fn what_comes_before_an_error_is_used() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let (lines, (_, end)) = read((&b"a\nhalf"[..]).chain(Broken));
        assert_eq!(lines, [(1, "a".into()), (2, "half".into())]);
        assert!(end.is_err());
    }
}
