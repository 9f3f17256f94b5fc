//! Tables that a script made while it loaded and hands out again and again, such as lists of legal answers and outcomes. Each
//! is read once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use mlua::ffi::{self, lua_State};

use super::SLOTS;
use super::transfer::{texts_at, value_at};
use crate::script::{Limits, Texts, Value};

/// Most tables of each kind that are kept.
const MAX_KEPT: usize = 1024;
/// The longest list that is kept, the most tables in a value, and how deep they may lie.
const MAX_LENGTH: usize = 64;
const MAX_TABLES: usize = 16;
const MAX_DEPTH: usize = 4;

/// What was read, by the addresses of the tables.
type Known<T> = RefCell<HashMap<usize, Arc<T>, BuildHasherDefault<AddressHasher>>>;

/// The tables that were read.
#[derive(Default)]
pub(super) struct Constants {
    texts: Known<Texts>,
    values: Known<Value>,
}

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

impl Constants {
    /// The list of texts at this index; `None` if it is anything else, or empty. `own` are the places of tables that the
    /// host changes though they are read-only.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn texts(
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
            if let Some(known) = self.texts.borrow().get(&address) {
                return Some(Arc::clone(known));
            }
            let texts = texts_at(lua, index, limits).map(Arc::new)?;
            let is_own = own.any(|place| ffi::lua_topointer(lua, place).addr() == address);
            if !is_own && texts.len() <= MAX_LENGTH && self.texts.borrow().len() < MAX_KEPT {
                ffi::lua_ref(lua, index);
                self.texts.borrow_mut().insert(address, Arc::clone(&texts));
            }
            Some(texts)
        }
    }

    /// The value at this index; `None` if it may not cross, or only with help. `own` as for [`Constants::texts`].
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn value(
        &self,
        lua: *mut lua_State,
        index: c_int,
        limits: &Limits,
        own: std::ops::Range<c_int>,
    ) -> Option<Arc<Value>> {
        // SAFETY: the caller's; nothing is borrowed while Luau may raise an error.
        unsafe {
            if ffi::lua_type(lua, index) != ffi::LUA_TTABLE || ffi::lua_getreadonly(lua, index) == 0 {
                return value_at(lua, index, limits).map(Arc::new);
            }
            let address = ffi::lua_topointer(lua, index).addr();
            if let Some(known) = self.values.borrow().get(&address) {
                return Some(Arc::clone(known));
            }
            let value = value_at(lua, index, limits).map(Arc::new)?;
            let is_kept = self.values.borrow().len() < MAX_KEPT && {
                ffi::lua_rawcheckstack(lua, (2 * MAX_DEPTH) as c_int + SLOTS);
                let top = ffi::lua_gettop(lua);
                let is_constant = is_constant(lua, index, &own, &mut 0, 0);
                ffi::lua_settop(lua, top);
                is_constant
            };
            if is_kept {
                // The reference keeps its address, and those of the tables in it, from being given to another table.
                ffi::lua_ref(lua, index);
                self.values.borrow_mut().insert(address, Arc::clone(&value));
            }
            Some(value)
        }
    }
}

/// Whether the table at this index and all tables in it are read-only, few, and none of `own`. What is pushed is left on the
/// stack.
///
/// # Safety
/// As [`super::Frame::run`], with two free slots for each level down to [`MAX_DEPTH`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn is_constant(
    lua: *mut lua_State,
    index: c_int,
    own: &std::ops::Range<c_int>,
    tables: &mut usize,
    depth: usize,
) -> bool {
    // SAFETY: the caller's.
    unsafe {
        *tables += 1;
        let address = ffi::lua_topointer(lua, index);
        let is_own = own.clone().any(|place| ffi::lua_topointer(lua, place) == address);
        if is_own || *tables > MAX_TABLES || depth >= MAX_DEPTH || ffi::lua_getreadonly(lua, index) == 0 {
            return false;
        }
        let top = ffi::lua_gettop(lua);
        let mut at = 0;
        loop {
            at = ffi::lua_rawiter(lua, index, at);
            if at < 0 {
                return true;
            }
            if ffi::lua_type(lua, top + 2) == ffi::LUA_TTABLE && !is_constant(lua, top + 2, own, tables, depth + 1) {
                return false;
            }
            ffi::lua_settop(lua, top);
        }
    }
}
