//! What a script keeps from one call to the next: nothing. Every call finds the script's top level as it was just loaded,
//! so that no episode sees another and nothing depends on which thread plays what.
//!
//! Once the top level has run, every table that the script can reach is made read-only, which costs calls nothing. Where
//! that does not do, because a function assigns a variable of the top level, because a coroutine or an iterator is kept,
//! or because a call tried to write to such a table, the script runs in another way from then on: its top level runs
//! again for each call. A call that tried is run again from its start, so that results never depend on when that was.

use std::collections::HashSet;
use std::ffi::c_void;

use mlua::ffi;
use mlua::{Function, Lua, MultiValue, Table, Value as LuaValue};

/// Most tables and functions that are made read-only; of a script with more, the top level runs for each call.
const MAX_OBJECTS: usize = 500_000;
/// Most entries of tables that are looked at for that.
const MAX_ENTRIES: usize = 5_000_000;

/// The library's tables and functions, which a script reaches and cannot change.
pub(super) struct Library(HashSet<*const c_void>);

impl Library {
    /// All that can be reached from the globals, before the script is loaded.
    pub(super) fn of(lua: &Lua) -> mlua::Result<Self> {
        let mut walk = Walk::new(lua, HashSet::new(), false)?;
        let globals = LuaValue::Table(lua.globals());
        walk.from(std::slice::from_ref(&globals))?;
        // The table of the globals itself is the script's: it reads through to the library's.
        walk.seen.remove(&globals.to_pointer());
        Ok(Self(walk.seen))
    }

    /// Makes every table that can be reached from these values read-only. False if something else can change.
    pub(super) fn seal(&self, lua: &Lua, roots: &[LuaValue]) -> mlua::Result<bool> {
        Walk::new(lua, self.0.clone(), true)?.from(roots)
    }
}

/// Whether the error says that a table is read-only: the script's or the library's.
pub(super) fn is_refused_write(message: &str) -> bool {
    message.contains("readonly table") || message.contains("is already frozen")
}

/// A walk through all that can be reached.
struct Walk<'a> {
    lua: &'a Lua,
    seen: HashSet<*const c_void>,
    /// Found and not yet looked into. Inside the machine, since handles outside are few.
    found: Table,
    entries: usize,
    seals: bool,
    is_sealed: bool,
}

impl<'a> Walk<'a> {
    fn new(lua: &'a Lua, seen: HashSet<*const c_void>, seals: bool) -> mlua::Result<Self> {
        Ok(Self { lua, seen, found: lua.create_table()?, entries: 0, seals, is_sealed: true })
    }

    fn from(&mut self, roots: &[LuaValue]) -> mlua::Result<bool> {
        for root in roots {
            self.meet(root)?;
        }
        let library = self.seen.len();
        while self.found.raw_len() > 0 && (self.is_sealed || !self.seals) {
            match self.found.raw_pop::<LuaValue>()? {
                LuaValue::Table(table) => self.table(&table)?,
                LuaValue::Function(function) => self.function(&function)?,
                _ => {}
            }
            self.is_sealed &= self.seen.len() - library < MAX_OBJECTS && self.entries < MAX_ENTRIES;
        }
        Ok(self.is_sealed)
    }

    /// Remembers a value to look into; what can change and cannot be made read-only ends the walk.
    fn meet(&mut self, value: &LuaValue) -> mlua::Result<()> {
        match value {
            LuaValue::Table(_) | LuaValue::Function(_) if self.seen.insert(value.to_pointer()) => {
                self.found.raw_push(value)?;
            }
            LuaValue::Thread(_) | LuaValue::Buffer(_) => self.is_sealed = false,
            // Data sets do not change, and a generator ends with its call.
            _ => {}
        }
        Ok(())
    }

    fn table(&mut self, table: &Table) -> mlua::Result<()> {
        if self.seals {
            table.set_readonly(true);
        }
        if let Some(metatable) = table.metatable() {
            self.meet(&LuaValue::Table(metatable))?;
        }
        table.for_each(|key: LuaValue, value: LuaValue| {
            self.entries += 1;
            self.meet(&key)?;
            self.meet(&value)
        })
    }

    fn function(&mut self, function: &Function) -> mlua::Result<()> {
        let upvalues = upvalues(self.lua, function)?;
        // Such a function of the library's, an iterator say, may change what it holds.
        if self.seals && !upvalues.is_empty() && function.info().what == "C" {
            self.is_sealed = false;
        }
        upvalues.iter().try_for_each(|value| self.meet(value))
    }
}

/// The values that a function holds.
#[expect(unsafe_code, reason = "mlua has no safe way to the upvalues of a function")]
fn upvalues(lua: &Lua, function: &Function) -> mlua::Result<MultiValue> {
    // SAFETY: mlua hands over a stack with the function alone on it, in a protected call. A function has at most 255
    // upvalues, for which room is made; `lua_getupvalue` pushes one, or nothing and gives null past the last.
    unsafe {
        lua.exec_raw(function, |state| {
            ffi::lua_rawcheckstack(state, 256);
            let mut number = 1;
            while !ffi::lua_getupvalue(state, 1, number).is_null() {
                number += 1;
            }
            ffi::lua_remove(state, 1);
        })
    }
}
