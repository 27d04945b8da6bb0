//! Keeps resident what is used: loading parses tens of megabytes of type information and tables, once.

/// Largest block that comes from the allocator's heap, bytes. Larger ones return to the system when they are freed.
/// Without this call glibc raises the limit (up to 32 MiB) with every large block that is freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 * 1024;

/// Lets every large buffer go back to the system as soon as it is freed. Call before the first one is made, and before
/// there are threads.
pub(crate) fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes a setting of the allocator, under the allocator's own lock; a refusal changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        // One heap for all threads: there are few, and none of them allocates much.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns all free memory to the system. For the end of a phase that used much of it: it visits the whole heap.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only returns free pages to the system; it has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of this program's code that were used until now: those that are needed again are mapped again, from
/// the page cache. For the end of a start that ran through much more code than what follows it.
pub(crate) fn forget_code() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in code_of_this_program(&maps) {
        // SAFETY: the range is a private mapping of the program's file that cannot be written to, so its pages are equal
        // to the file's, from which the kernel fills them again on the next access. Nothing that Rust owns lies there.
        unsafe {
            libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
        }
    }
}

/// Start and length, bytes, of the mappings of this program's file that are executable and have never been writable
/// (`r-xp`; data that was relocated is `r--p` and must stay).
fn code_of_this_program(maps: &str) -> Vec<(usize, usize)> {
    let is_code = |line: &&str| line.contains(" r-xp ");
    let range = |line: &str| {
        let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        Some((start, end.checked_sub(start)?))
    };
    let is_file =
        |line: &&str| line.split_ascii_whitespace().nth(5).is_some_and(|path| path.starts_with('/'));
    maps.lines().filter(is_code).filter(is_file).filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of these mappings is resident, KiB.
    fn resident(code: &[(usize, usize)]) -> u64 {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_code = false;
        let mut sum = 0;
        for line in smaps.lines() {
            if let Some(rss) = line.strip_prefix("Rss:") {
                sum += if is_code { rss.trim().trim_end_matches(" kB").parse().unwrap() } else { 0 };
            } else if line.contains('-') {
                is_code = code.iter().any(|(start, _)| line.starts_with(&format!("{start:x}-")));
            }
        }
        sum
    }

    #[test]
    fn only_code_is_forgotten() {
        let maps = "55d0-55d8 r-xp 00001000 fd:00 7 /usr/bin/portclash\n55d8-55e0 r--p 00009000 fd:00 7 /usr/bin/portclash\n\
                    7ff0-7ff8 r-xp 00000000 00:00 0 [vdso]\n7ff8-7fff rw-p 00000000 00:00 0\n";
        assert_eq!(code_of_this_program(maps), [(0x55d0, 8)]);
    }

    #[test]
    fn code_is_forgotten_and_comes_back() {
        let code = code_of_this_program(&std::fs::read_to_string("/proc/self/maps").unwrap());
        // All of it is used: what other tests use meanwhile is a part.
        for page in code.iter().flat_map(|&(start, length)| (start..start + length).step_by(4096)) {
            // SAFETY: code that is mapped for as long as this program runs, and may be read.
            unsafe { std::ptr::read_volatile(page as *const u8) };
        }
        let before = resident(&code);
        forget_code();
        let after = resident(&code);
        assert!(after < before, "{before} KiB before, {after} KiB after");
    }
}
