//! What the allocator does with large blocks.

/// From this size on a block is memory of its own: long lists, and nothing that a connection needs.
#[cfg(target_env = "gnu")]
const MAPPED_FROM_BYTES: libc::c_int = 1 << 20;

/// Lets a large block go back to the system when it is freed. glibc does so by itself only until the first one is freed:
/// from then on blocks of that size come from its heap, and after some reloads a list that is gone is still resident
/// (mallopt(3), "dynamic mmap threshold"). musl always does so.
pub fn map_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and is called before there are other threads.
    unsafe {
        // A threshold that is not taken costs memory, nothing else.
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
    }
}
