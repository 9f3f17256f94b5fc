//! How much memory a thread holds, counted by the process's allocator. Rhai has no memory limit of its own, so its calls
//! ask here; Luau counts for itself.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

thread_local! {
    /// Bytes allocated less bytes freed by this thread; below zero where it frees what others allocated.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

/// An allocator that counts for each thread what the allocator inside hands out. As the global allocator of a program it
/// bounds the memory of Rhai scripts; without it only the sizes of single values are bounded.
///
/// ```
/// # use gift_host::script::CountingAllocator;
/// #[global_allocator]
/// static ALLOCATOR: CountingAllocator<std::alloc::System> = CountingAllocator(std::alloc::System);
/// # fn main() {}
/// ```
pub struct CountingAllocator<A>(pub A);

/// Bytes that this thread allocated and did not free; 0 always without [`CountingAllocator`].
pub(super) fn held() -> isize {
    HELD.with(Cell::get)
}

fn count(bytes: isize) {
    // A thread that ends may free memory when its counter is gone already.
    let _ = HELD.try_with(|held| held.set(held.get().wrapping_add(bytes)));
}

#[expect(unsafe_code, reason = "allocators are unsafe to implement")]
// SAFETY: every call is passed on unchanged; counting neither allocates nor panics.
unsafe impl<A: GlobalAlloc> GlobalAlloc for CountingAllocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { self.0.realloc(pointer, layout, size) }
    }
}
