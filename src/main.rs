//! The binary: hands the command line to [`gift_host::cli`] and its status to the system.

use std::alloc::{GlobalAlloc, Layout};

use gift_host::script::CountingAllocator;
use libmimalloc_sys as mimalloc;

// A training step frees and takes many buffers of some megabytes; mimalloc keeps them instead of returning each to the
// system, which halves the page faults of a step. Counting them is what enforces the memory limit of Rhai scripts.
#[global_allocator]
static ALLOCATOR: CountingAllocator<Mimalloc> = CountingAllocator(Mimalloc);

/// mimalloc without its detour for aligned memory where none is needed, which takes three times as long for the small
/// pieces that scripts are made of.
struct Mimalloc;

/// What every piece of memory of mimalloc is aligned to if it is as large.
const ALIGNED: usize = 16;

fn is_aligned_anyhow(layout: Layout, size: usize) -> bool {
    layout.align() <= ALIGNED && layout.align() <= size
}

#[expect(unsafe_code, reason = "allocators are unsafe to implement")]
// SAFETY: mimalloc keeps the contract; memory of `mi_malloc` is aligned to the smaller of its size and 16 bytes.
unsafe impl GlobalAlloc for Mimalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: mimalloc takes any size and any power of two.
        unsafe {
            if is_aligned_anyhow(layout, layout.size()) {
                mimalloc::mi_malloc(layout.size()).cast()
            } else {
                mimalloc::mi_malloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe {
            if is_aligned_anyhow(layout, layout.size()) {
                mimalloc::mi_zalloc(layout.size()).cast()
            } else {
                mimalloc::mi_zalloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, _layout: Layout) {
        // SAFETY: the pointer is of this allocator.
        unsafe { mimalloc::mi_free(pointer.cast()) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as for `alloc` and `dealloc`.
        unsafe {
            if is_aligned_anyhow(layout, size) {
                mimalloc::mi_realloc(pointer.cast(), size).cast()
            } else {
                mimalloc::mi_realloc_aligned(pointer.cast(), size, layout.align()).cast()
            }
        }
    }
}

fn main() -> std::process::ExitCode {
    gift_host::cli::main()
}
