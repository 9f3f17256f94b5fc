//! Tables that a script made while it loaded and hands out again and again, such as lists of legal answers and outcomes. Each
//! is read once.

use std::cell::{Cell, RefCell};
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
/// What a table that is kept may hold: tables, itself among them, how deep they may lie, and entries of all of them. A text counts
/// as an entry for each [`TEXT_BYTES`] of it.
const MAX_TABLES: usize = 16;
const MAX_DEPTH: usize = 4;
const MAX_ENTRIES: usize = 256;
const TEXT_BYTES: usize = 32;
/// Tables in a row that were not known, after which all are given up: a script that makes a new one in each call needs the room,
/// and one that hands out the same is read again soon.
const MAX_MISSES: u32 = 64;

/// The tables that were read.
#[derive(Default)]
pub(super) struct Constants {
    texts: Kept<Texts>,
    values: Kept<Value>,
}

/// What was read, by the addresses of the tables, each with the reference that keeps its address, and those of the tables in it,
/// from being given to another.
type Known<T> = HashMap<usize, (c_int, Arc<T>), BuildHasherDefault<AddressHasher>>;

/// Tables of one kind.
struct Kept<T> {
    tables: RefCell<Known<T>>,
    misses: Cell<u32>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { tables: RefCell::default(), misses: Cell::default() }
    }
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

impl<T> Kept<T> {
    /// What `read` finds in the table at this index, read once if it cannot change.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn find(
        &self,
        lua: *mut lua_State,
        index: c_int,
        own: std::ops::Range<c_int>,
        read: impl FnOnce() -> Option<T>,
    ) -> Option<Arc<T>> {
        // SAFETY: the caller's; nothing is borrowed while Luau may raise an error.
        unsafe {
            if ffi::lua_getreadonly(lua, index) == 0 {
                return read().map(Arc::new);
            }
            let address = ffi::lua_topointer(lua, index).addr();
            if let Some((_, known)) = self.tables.borrow().get(&address) {
                self.misses.set(0);
                return Some(Arc::clone(known));
            }
            let found = read().map(Arc::new)?;
            self.misses.set(self.misses.get() + 1);
            if self.misses.get() > MAX_MISSES {
                self.give_up(lua);
            }
            if self.tables.borrow().len() < MAX_KEPT {
                ffi::lua_rawcheckstack(lua, (2 * MAX_DEPTH) as c_int + SLOTS);
                let top = ffi::lua_gettop(lua);
                let is_kept = is_constant(lua, index, &own, (&mut 0, &mut 0), 0);
                ffi::lua_settop(lua, top);
                if is_kept {
                    let reference = ffi::lua_ref(lua, index);
                    self.tables.borrow_mut().insert(address, (reference, Arc::clone(&found)));
                }
            }
            Some(found)
        }
    }

    /// Lets the machine forget all tables.
    ///
    /// # Safety
    /// The machine must be this one's.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn give_up(&self, lua: *mut lua_State) {
        self.misses.set(0);
        for (reference, _) in self.tables.take().into_values() {
            // SAFETY: the caller's; nobody else uses the references. This raises no errors.
            unsafe { ffi::lua_unref(lua, reference) };
        }
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
        own: std::ops::Range<c_int>,
    ) -> Option<Arc<Texts>> {
        // SAFETY: the caller's.
        unsafe {
            if ffi::lua_type(lua, index) != ffi::LUA_TTABLE {
                return None;
            }
            self.texts.find(lua, index, own, || texts_at(lua, index, limits))
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
        // SAFETY: the caller's.
        unsafe {
            if ffi::lua_type(lua, index) != ffi::LUA_TTABLE {
                return value_at(lua, index, limits).map(Arc::new);
            }
            self.values.find(lua, index, own, || value_at(lua, index, limits))
        }
    }

    /// Lets the machine forget all tables.
    ///
    /// # Safety
    /// The machine must be this one's.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn give_up(&self, lua: *mut lua_State) {
        // SAFETY: the caller's.
        unsafe {
            self.texts.give_up(lua);
            self.values.give_up(lua);
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
    (tables, entries): (&mut usize, &mut usize),
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
            *entries += 1;
            let kind = ffi::lua_type(lua, top + 2);
            if kind == ffi::LUA_TSTRING {
                *entries += ffi::lua_objlen(lua, top + 2) / TEXT_BYTES;
            }
            let is_table = kind == ffi::LUA_TTABLE;
            if *entries > MAX_ENTRIES
                || (is_table && !is_constant(lua, top + 2, own, (&mut *tables, &mut *entries), depth + 1))
            {
                return false;
            }
            ffi::lua_settop(lua, top);
        }
    }
}
