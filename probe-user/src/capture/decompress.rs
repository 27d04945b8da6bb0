//! Compressed files, recognised by their first bytes.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// What the first bytes of a file show; four are enough.
    pub fn recognise(first: &[u8]) -> Option<Self> {
        match first {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The largest window that a zstd file may ask for; `zstd --long=27` is the most that its own tool takes unasked.
const MAX_WINDOW: u64 = 128 << 20;

/// The stream, decompressed if it is compressed. Several gzip members or zstd frames one after the other are one file.
pub fn plain<'a>(mut input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut first = Vec::with_capacity(4);
    input.by_ref().take(4).read_to_end(&mut first)?;
    let compression = Compression::recognise(&first);
    let whole = Cursor::new(first).chain(input);
    Ok(match compression {
        None => Box::new(whole),
        Some(Compression::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(whole))),
        Some(Compression::Zstd) => Box::new(ZstdFrames::Between(BufReader::new(whole))),
    })
}

/// Decodes zstd frames one after the other, as they stand in files that were joined.
enum ZstdFrames<R: Read> {
    Between(BufReader<R>),
    Inside(Box<StreamingDecoder<BufReader<R>, FrameDecoder>>),
    Over,
}

impl<R: Read> Read for ZstdFrames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            *self = match std::mem::replace(self, Self::Over) {
                Self::Over => return Ok(0),
                Self::Between(mut input) => {
                    if input.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    let frame = StreamingDecoder::new_with_max_window_size(input, MAX_WINDOW);
                    Self::Inside(Box::new(frame.map_err(io::Error::other)?))
                }
                Self::Inside(mut frame) => {
                    let count = frame.read(into)?;
                    if count > 0 || into.is_empty() {
                        *self = Self::Inside(frame);
                        return Ok(count);
                    }
                    Self::Between(frame.into_inner())
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read_all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        plain(bytes)?.read_to_end(&mut whole)?;
        Ok(whole)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn joined_files_are_one() {
        let (a, b) = (vec![b'a'; 100_000], b"second".to_vec());
        let whole = [a.clone(), b.clone()].concat();
        assert_eq!(read_all(&[gzip(&a), gzip(&b)].concat()).unwrap(), whole);
        assert_eq!(read_all(&[zstd(&a), zstd(&b)].concat()).unwrap(), whole);
        assert_eq!(read_all(&b).unwrap(), b);
        assert!(read_all(b"").unwrap().is_empty());
    }

    #[test]
    fn a_cut_file_yields_what_comes_before_the_cut_and_an_error() {
        let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        for compressed in [gzip(&bytes), zstd(&bytes)] {
            let half = &compressed[..compressed.len() / 2];
            let mut whole = Vec::new();
            let mut stream = plain(half).unwrap();
            stream.read_to_end(&mut whole).unwrap_err();
            assert!(!whole.is_empty() && bytes.starts_with(&whole));
        }
    }
}
