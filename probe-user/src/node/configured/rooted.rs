//! Files below a folder: no symlink leads out of it, nothing blocks, nothing is read without an end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Most bytes of one file that are read.
const MAX_FILE: u64 = 1024 * 1024;
/// Most entries of a folder that are looked at.
const MAX_ENTRIES: usize = 100_000;

pub(super) struct Root {
    path: PathBuf,
    dir: File,
}

impl Root {
    /// O_PATH: files in it can be read where the folder itself must not be listed (Landlock).
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let dir = File::options()
            .read(true)
            .custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits())
            .open(path)?;
        Ok(Self { path: path.to_owned(), dir })
    }

    /// The root of another process, as it sees it.
    pub(super) fn of_process(&self, pid: u32) -> io::Result<Self> {
        Self::open(&self.path.join(format!("proc/{pid}/root")))
    }

    /// The content of a file; nothing for /dev/null. `path` counts from the root.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = match self.open_inside(path, OFlag::empty()) {
            Ok(file) => file,
            // A container that has only part of the node's file system.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_link_to_null(path) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let kind = file.metadata()?.file_type();
        if kind.is_char_device() && self.is_link_to_null(path) {
            return Ok(Vec::new());
        }
        if !kind.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            let text = format!("it has more than {MAX_FILE} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(bytes)
    }

    /// The names in a folder, sorted.
    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let dir = self.open_inside(path, OFlag::O_DIRECTORY)?;
        let entries = fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
        let mut names: Vec<OsString> =
            entries.flatten().take(MAX_ENTRIES).map(|entry| entry.file_name()).collect();
        names.sort();
        Ok(names)
    }

    /// O_NONBLOCK: whoever can name a file here could name a pipe.
    fn open_inside(&self, path: &Path, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        Ok(openat2(&self.dir, path, how).map(File::from)?)
    }

    fn is_link_to_null(&self, path: &Path) -> bool {
        let inside = path.strip_prefix("/").unwrap_or(path);
        fs::read_link(self.path.join(inside)).is_ok_and(|target| target == Path::new("/dev/null"))
    }
}
