//! The allocator of a policy: it hands memory out and takes none back.
//!
//! An instance lives for one call, and the host drops its memory as a whole: what a general allocator does to reuse memory
//! would only cost time. It starts in what is left of the module's last page, so that a small policy never asks the host for
//! memory. The block that was handed out last is the exception: it can grow and shrink where it is, and goes back when it is
//! freed, which is what a vector or a text in the making needs.
//!
//! A policy that needs an allocator of its own leaves out the SDK's default feature `heap`.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::{memory_grow, memory_size};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const PAGE: usize = 64 << 10;

/// Hands out memory from the end of the module's own data upwards.
pub(crate) struct Heap {
    /// Where the next block begins; 0 before the first.
    next: AtomicUsize,
    /// The end of the memory that the instance has.
    end: AtomicUsize,
}

#[global_allocator]
static HEAP: Heap = Heap { next: AtomicUsize::new(0), end: AtomicUsize::new(0) };

unsafe extern "C" {
    /// Set by the linker: where the module's data and its stack end. Its address is the value.
    static __heap_base: u8;
}

impl Heap {
    /// Reserves the bytes from `start` on, and asks the host for memory where there is too little. False where it has none.
    fn reserve(&self, start: usize, bytes: usize) -> bool {
        let Some(next) = start.checked_add(bytes) else { return false };
        if next > self.end.load(Relaxed) {
            let missing = (next - self.end.load(Relaxed)).div_ceil(PAGE);
            if memory_grow::<0>(missing) == usize::MAX {
                return false;
            }
            self.end.store(memory_size::<0>() * PAGE, Relaxed);
        }
        self.next.store(next, Relaxed);
        true
    }
}

// SAFETY: a block is never handed out twice, because `next` only moves back over the block that was handed out last when that
// one is freed or shrunk; blocks are aligned as asked and lie within the memory. A module has one thread.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.next.load(Relaxed) == 0 {
            self.next.store(&raw const __heap_base as usize, Relaxed);
            self.end.store(memory_size::<0>() * PAGE, Relaxed);
        }
        let Some(start) = self.next.load(Relaxed).checked_next_multiple_of(layout.align()) else {
            return core::ptr::null_mut();
        };
        if self.reserve(start, layout.size()) { start as *mut u8 } else { core::ptr::null_mut() }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if block as usize + layout.size() == self.next.load(Relaxed) {
            self.next.store(block as usize, Relaxed);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if block as usize + layout.size() == self.next.load(Relaxed) {
            return if self.reserve(block as usize, size) { block } else { core::ptr::null_mut() };
        }
        if size <= layout.size() {
            return block;
        }
        // SAFETY: the caller's contract has a size above zero that fits the alignment.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: the old block has at least `layout.size()` bytes, the new one more, and they do not overlap.
            unsafe { core::ptr::copy_nonoverlapping(block, moved, layout.size()) };
        }
        moved
    }
}
