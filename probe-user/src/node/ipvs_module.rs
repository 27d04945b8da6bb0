//! Whether ip_vs is there, and which.

use std::os::unix::fs::MetadataExt;

/// True if ip_vs is there, as a module or built in.
pub fn is_loaded() -> bool {
    current().is_some()
}

/// Names the ip_vs that is there: one that was loaded anew has another number (the inode of its folder in sysfs).
pub fn current() -> Option<u64> {
    std::fs::metadata("/sys/module/ip_vs").ok().map(|metadata| metadata.ino())
}
