//! What a plugin without std needs in place of it: an allocator, a panic handler, and the function
//! with which the host allocates what it hands over. With std on this target the C library brings
//! that function, on top of its own allocator.

use ::alloc::alloc::{Layout, alloc, realloc};

/// The allocator of [`lean!`](crate::lean!).
pub type Allocator = dlmalloc::GlobalDlmalloc;

/// Its one value.
pub const ALLOCATOR: Allocator = dlmalloc::GlobalDlmalloc;

/// What [`lean!`](crate::lean!) does with a panic: logs it and traps.
pub fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::log::write(crate::log::Level::Error, &alloc::format!("{info}"));
    core::arch::wasm32::unreachable()
}

/// `realloc` of the canonical ABI. As `wit-bindgen` brings it for targets without a C library.
///
/// # Safety
/// `old` is what this function returned for `old_len` and `align`, or `old_len` is 0: the host,
/// which alone calls it, keeps to that by the canonical ABI.
#[expect(unsafe_code, reason = "the canonical ABI hands over raw memory")]
pub unsafe fn cabi_realloc(old: *mut u8, old_len: usize, align: usize, new_len: usize) -> *mut u8 {
    if old_len == 0 && new_len == 0 {
        return core::ptr::without_provenance_mut(align);
    }
    let size = if old_len == 0 { new_len } else { old_len };
    let Ok(layout) = Layout::from_size_align(size, align) else {
        core::arch::wasm32::unreachable()
    };
    // SAFETY: the size is not zero, and `old` is as the caller promises.
    let new = unsafe { if old_len == 0 { alloc(layout) } else { realloc(old, layout, new_len) } };
    if new.is_null() {
        core::arch::wasm32::unreachable()
    }
    new
}
