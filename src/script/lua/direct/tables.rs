//! Tables made of states, and states read from tables, by their shapes.

use std::ffi::c_int;

use mlua::ffi::{self, lua_State};

use super::SLOTS;
use super::layout::{Held, Layout, Node};
use super::native::{ANSWERS, Native};
use super::transfer::{cell_at, is_all, push_cell, push_text, reference};
use crate::script::Limits;
use crate::script::state::{Cell, Shape};

/// Pushes a copy of the table of this shape, the next of `tables`, with copies of those in it.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn copy(lua: *mut lua_State, shape: &Shape, tables: &mut std::slice::Iter<'_, Held>) {
    let Some(table) = tables.next() else { return };
    // SAFETY: the caller's; each level makes room for itself.
    unsafe {
        ffi::lua_rawcheckstack(lua, SLOTS);
        reference(lua, table.reference);
        ffi::lua_clonetable(lua, -1);
        ffi::lua_replace(lua, -2);
        match shape {
            Shape::Cell(_) => {}
            Shape::List(items) => {
                for (item, index) in items.iter().zip(1..).filter(|(item, _)| !item.is_cell()) {
                    copy(lua, item, tables);
                    ffi::lua_rawseti_(lua, -2, index);
                }
            }
            Shape::Map(fields) => {
                for (name, field) in fields.iter().filter(|(_, field)| !field.is_cell()) {
                    push_text(lua, name);
                    copy(lua, field, tables);
                    ffi::lua_rawset(lua, -3);
                }
            }
        }
    }
}

/// Pushes the frozen table (or the value) of this shape, laid out as [`crate::script::lua::border::to_lua`] does, and adds
/// it and all tables in it, each before those that lie in it.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn build(lua: *mut lua_State, shape: &Shape, cells: &[Cell], tables: &mut Vec<Held>) {
    let number = tables.len();
    // SAFETY: the caller's; each level makes room for itself.
    unsafe {
        ffi::lua_rawcheckstack(lua, SLOTS);
        match shape {
            Shape::Cell(number) => return push_cell(lua, cells.get(*number as usize).unwrap_or(&Cell::NIL)),
            Shape::List(items) => ffi::lua_createtable(lua, items.len() as c_int, 0),
            Shape::Map(fields) => ffi::lua_createtable(lua, 0, fields.len() as c_int),
        }
        tables.push(Held { reference: 0, address: ffi::lua_topointer(lua, -1) });
        match shape {
            Shape::Cell(_) => {}
            Shape::List(items) => {
                for (item, index) in items.iter().zip(1..) {
                    build(lua, item, cells, tables);
                    ffi::lua_rawseti_(lua, -2, index);
                }
            }
            Shape::Map(fields) => {
                for (name, field) in fields {
                    push_text(lua, name);
                    build(lua, field, cells, tables);
                    ffi::lua_rawset(lua, -3);
                }
            }
        }
        ffi::lua_setreadonly(lua, -1, 1);
        let reference = ffi::lua_ref(lua, -1);
        if let Some(held) = tables.get_mut(number) {
            held.reference = reference;
        }
    }
}

/// As [`build`], by the functions for the shape; no cell may be nil.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn build_by(lua: *mut lua_State, native: &Native, cells: &[Cell], tables: &mut Vec<Held>) {
    // SAFETY: the caller's.
    unsafe {
        let top = ffi::lua_gettop(lua);
        ffi::lua_rawcheckstack(lua, (native.tables + native.cells) as c_int + SLOTS);
        reference(lua, native.build);
        for cell in cells {
            push_cell(lua, cell);
        }
        ffi::lua_call(lua, cells.len() as c_int, native.tables as c_int);
        tables.extend(hold(lua, top + 1..top + 1 + native.tables as c_int));
        ffi::lua_settop(lua, top + 1);
    }
}

/// The cells of a state that a function of [`super::native`] has made, if it is of the shape that the function was written
/// for. Its maps may lie in the machine in another way. `results` is where the function's results begin.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn read_made(
    lua: *mut lua_State,
    native: &Native,
    layout: &Layout,
    limits: &Limits,
    results: c_int,
) -> Option<Box<[Cell]>> {
    let first_cell = results + 2 * native.tables as c_int;
    let end = first_cell + native.cells as c_int;
    // SAFETY: the caller's.
    unsafe {
        if ffi::lua_gettop(lua) != end + ANSWERS as c_int - 1 {
            return None;
        }
        for (node, place) in layout.0.iter().zip(results..) {
            if ffi::lua_getmetatable(lua, place) != 0 {
                return None;
            }
            let is_whole = match node {
                Node::List(items) => is_all(lua, place, items.len() as c_int),
                Node::Map(fields) => has_entries(lua, place, fields.len()),
            };
            if !is_whole {
                return None;
            }
        }
        let mut cells = Vec::with_capacity(native.cells);
        for place in first_cell..end {
            cells.push(cell_at(lua, place, limits).ok()?);
        }
        Some(cells.into())
    }
}

/// Keeps the tables in these places, which become read-only.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn hold(lua: *mut lua_State, places: std::ops::Range<c_int>) -> Vec<Held> {
    let keep = |place| {
        // SAFETY: the caller's.
        unsafe {
            ffi::lua_setreadonly(lua, place, 1);
            Held { reference: ffi::lua_ref(lua, place), address: ffi::lua_topointer(lua, place) }
        }
    };
    places.map(keep).collect()
}

/// Whether the table at this index has so many entries.
///
/// # Safety
/// As [`super::Frame::run`], with two free slots for each entry and two more.
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn has_entries(lua: *mut lua_State, at: c_int, count: usize) -> bool {
    // SAFETY: the caller's.
    unsafe {
        let top = ffi::lua_gettop(lua);
        let (mut found, mut place) = (0, 0);
        while found <= count {
            place = ffi::lua_rawiter(lua, at, place);
            if place < 0 {
                break;
            }
            found += 1;
        }
        ffi::lua_settop(lua, top);
        found == count
    }
}
