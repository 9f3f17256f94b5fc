//! Lists of texts that a script made while it loaded and hands out again and again, such as those of legal answers. Each is
//! read once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use mlua::ffi::{self, lua_State};

use super::transfer::texts_at;
use crate::script::{Limits, Texts};

/// Most lists that are kept, and the longest.
const MAX_LISTS: usize = 1024;
const MAX_LENGTH: usize = 64;

/// The lists that were read, by the addresses of their tables.
#[derive(Default)]
pub(super) struct Lists(RefCell<HashMap<usize, Arc<Texts>, BuildHasherDefault<AddressHasher>>>);

/// Spreads addresses, which differ in their middle bits. Nobody can choose them.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Lists {
    /// The list of texts at this index; `None` if it is anything else, or empty. `own` are the places of tables that the
    /// host changes though they are read-only.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn at(
        &self,
        lua: *mut lua_State,
        index: c_int,
        limits: &Limits,
        mut own: std::ops::Range<c_int>,
    ) -> Option<Arc<Texts>> {
        // SAFETY: the caller's; nothing is borrowed while Luau may raise an error.
        unsafe {
            if ffi::lua_type(lua, index) != ffi::LUA_TTABLE {
                return None;
            }
            // What is read-only stays as it is. The reference keeps its address from being given to another table.
            if ffi::lua_getreadonly(lua, index) == 0 {
                return texts_at(lua, index, limits).map(Arc::new);
            }
            let address = ffi::lua_topointer(lua, index).addr();
            if let Some(known) = self.0.borrow().get(&address) {
                return Some(Arc::clone(known));
            }
            let texts = texts_at(lua, index, limits).map(Arc::new)?;
            let is_own = own.any(|place| ffi::lua_topointer(lua, place).addr() == address);
            if !is_own && texts.len() <= MAX_LENGTH && self.0.borrow().len() < MAX_LISTS {
                ffi::lua_ref(lua, index);
                self.0.borrow_mut().insert(address, Arc::clone(&texts));
            }
            Some(texts)
        }
    }
}
