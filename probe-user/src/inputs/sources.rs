//! What was given, before any of it is looked into.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::stored::Kept;
use super::walk::{Found, Limits, Named, Walk, Walked};

/// Why something that was given cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It does not exist, or may not be read.
    #[error("open {path}: {source}")]
    Open {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is neither a file nor a directory.
    #[error("{path} is {what}: give a file or a directory, or write into `portclash analyze -`")]
    Special {
        /// As given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Standard input, or a pipe, could not be kept.
    #[error("read {name}: {source}")]
    Keep {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

enum Input {
    Path(PathBuf),
    Stream(String, Kept),
}

/// What was given, in the order given. It can be walked several times.
pub struct Sources {
    inputs: Vec<Input>,
    limits: Limits,
}

impl Sources {
    /// Looks at what is given: files, directories, `-` for standard input, or a pipe of the shell (`<(…)`). Standard
    /// input and pipes are read to their end here, so that they can be walked more than once.
    pub fn open(paths: &[PathBuf], limits: Limits) -> Result<Self, InputError> {
        let inputs = paths.iter().map(|path| Self::input(path)).collect::<Result<_, _>>()?;
        Ok(Self { inputs, limits })
    }

    /// One file that is already in memory.
    pub fn of_bytes(name: &str, bytes: &[u8], limits: Limits) -> Self {
        Self { inputs: vec![Input::Stream(name.to_owned(), Kept::Memory(bytes.into()))], limits }
    }

    fn input(path: &Path) -> Result<Input, InputError> {
        let keep = |name: String, stream: &mut dyn Read| {
            let kept = Kept::new(stream).map_err(|source| InputError::Keep { name: name.clone(), source })?;
            Ok(Input::Stream(name, kept))
        };
        if path == Path::new("-") {
            return keep("standard input".to_owned(), &mut io::stdin().lock());
        }
        let failed = |source| InputError::Open { path: path.to_owned(), source };
        let metadata = fs::metadata(path).map_err(failed)?;
        let kind = metadata.file_type();
        if kind.is_file() {
            // What may not be read is said before the work begins.
            File::open(path).map_err(failed)?;
            return Ok(Input::Path(path.to_owned()));
        }
        if kind.is_dir() {
            fs::read_dir(path).map_err(failed)?;
            return Ok(Input::Path(path.to_owned()));
        }
        if kind.is_fifo() && (path.starts_with("/dev/fd") || path.starts_with("/proc")) {
            return keep(path.display().to_string(), &mut File::open(path).map_err(failed)?);
        }
        Err(InputError::Special { path: path.to_owned(), what: special(&metadata) })
    }

    /// Shows every file to `visitor`, directories in the order of their names, archives in their own order.
    pub fn visit(&self, visitor: &mut dyn FnMut(Found<'_>)) -> Walked {
        let mut walk = Walk::new(self.limits, visitor);
        for input in &self.inputs {
            match input {
                Input::Path(path) => walk.path(path),
                Input::Stream(name, kept) => {
                    let mut reader = kept.open();
                    walk.stream(Named { name, size: None, modified: None }, &mut reader);
                }
            }
        }
        walk.walked
    }
}

/// What it is that is neither a file nor a directory.
pub(super) fn special(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        "of a special kind"
    }
}
