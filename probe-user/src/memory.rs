//! Keeps resident what is used: loading parses tens of megabytes of type information and tables, once.

/// Largest block that comes from the allocator's heap, bytes. Larger ones return to the system when they are freed.
/// Without this call glibc raises the limit (up to 32 MiB) with every large block that is freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 * 1024;

/// Lets every large buffer go back to the system as soon as it is freed. Call before the first one is made.
pub(crate) fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes a setting of the allocator, under the allocator's own lock; a refusal changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
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
