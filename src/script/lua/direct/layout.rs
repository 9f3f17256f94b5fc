//! How the tables of a state lie in the machine, and reading what a script has written into them.

use std::ffi::{c_int, c_void};

use mlua::ffi::{self, lua_State};

use super::native::{MASK_CELLS, Native};
use super::transfer::{bytes_at, cell, cell_at, is_all, is_cell, is_negative, reference};
use super::{SLOTS, Unusual};
use crate::script::Limits;
use crate::script::state::{Cell, Shape};

/// What a step of [`super::native`] has left on the stack.
#[derive(Clone, Copy)]
pub(super) struct Watched<'a> {
    pub(super) native: &'a Native,
    /// Where the master's tables lie, each before those in it.
    pub(super) tables: c_int,
    /// Where the results begin.
    pub(super) results: c_int,
    /// Whether the tables are read-only already.
    pub(super) is_sealed: bool,
}

/// A table that the machine keeps for the host.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) reference: c_int,
    /// Where it lies, to be compared only; Luau moves nothing.
    pub(super) address: *const c_void,
}

/// How the tables of a shape lie in the machine, in the order of [`Master::tables`].
pub(super) struct Layout(pub(super) Vec<Node>);

/// The parts of one table.
pub(super) enum Node {
    List(Vec<Place>),
    /// In the order in which the map is walked.
    Map(Vec<(Box<str>, Place)>),
}

/// A part of a table.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// The cell of this number.
    Cell(u32),
    /// The table of this number.
    Table(usize),
}

/// Reads what a script has written into a master.
pub(super) struct Reader<'a> {
    pub(super) limits: &'a Limits,
    pub(super) layout: &'a Layout,
    pub(super) tables: &'a [Held],
    /// The cells of the state as it was, to be those of the new one.
    pub(super) cells: &'a mut [Cell],
    /// Text in all cells, in bytes.
    pub(super) text_bytes: usize,
}

impl Reader<'_> {
    /// Reads the table of this number, which is on the stack, and makes it read-only; false if more than values differ.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn table(&mut self, lua: *mut lua_State, number: usize) -> Result<bool, Unusual> {
        let layout = self.layout;
        let Some(node) = layout.0.get(number) else { return Ok(false) };
        // SAFETY: the caller's; each level makes room for itself.
        unsafe {
            ffi::lua_rawcheckstack(lua, SLOTS);
            if ffi::lua_getmetatable(lua, -1) != 0 {
                return Err(Unusual);
            }
            let table = ffi::lua_gettop(lua);
            match node {
                Node::List(items) => {
                    for (place, index) in items.iter().zip(1..) {
                        ffi::lua_rawgeti_(lua, table, index);
                        if !self.part(lua, *place)? {
                            return Ok(false);
                        }
                        ffi::lua_settop(lua, table);
                    }
                    if !is_all(lua, table, items.len() as c_int) {
                        return Ok(false);
                    }
                }
                Node::Map(fields) => {
                    let mut at = 0;
                    for (name, place) in fields {
                        at = ffi::lua_rawiter(lua, table, at);
                        let is_it = at >= 0
                            && ffi::lua_type(lua, table + 1) == ffi::LUA_TSTRING
                            && bytes_at(lua, table + 1) == name.as_bytes();
                        if !(is_it && self.part(lua, *place)?) {
                            return Ok(false);
                        }
                        ffi::lua_settop(lua, table);
                    }
                    if ffi::lua_rawiter(lua, table, at) >= 0 {
                        return Ok(false);
                    }
                }
            }
            ffi::lua_setreadonly(lua, table, 1);
            Ok(true)
        }
    }

    /// As [`Reader::table`] for the outermost table and those in it, from what a step has returned; true if only values have
    /// changed.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn watched(&mut self, lua: *mut lua_State, watched: &Watched<'_>) -> Result<bool, Unusual> {
        let Watched { native, tables, results, .. } = *watched;
        let first_mask = results + 1;
        let first_cell = first_mask + native.masks() as c_int;
        if native.tables != self.tables.len() || native.cells != self.cells.len() {
            return Ok(false);
        }
        // SAFETY: the caller's.
        unsafe {
            let nodes = self.layout.0.iter().zip(&native.names);
            for ((node, names), place) in nodes.zip(tables..) {
                if !is_whole(lua, place, node, names)? {
                    return Ok(false);
                }
                if !watched.is_sealed {
                    ffi::lua_setreadonly(lua, place, 1);
                }
            }
            for mask in 0..native.masks() {
                let mut changed = ffi::lua_tonumberx(lua, first_mask + mask as c_int, std::ptr::null_mut()) as u64;
                while changed != 0 {
                    let number = mask * MASK_CELLS + changed.trailing_zeros() as usize;
                    changed &= changed - 1;
                    let Some(known) = self.cells.get_mut(number) else { return Ok(false) };
                    let new = cell_at(lua, first_cell + number as c_int, self.limits)?;
                    if new == Cell::NIL || (new == Cell::ZERO && is_negative(lua, first_cell + number as c_int)) {
                        return Ok(false);
                    }
                    // Many cells may hold one long text of the machine, and each gets its own.
                    self.text_bytes = self.text_bytes - known.text_bytes() + new.text_bytes();
                    if self.text_bytes > self.limits.max_total_text_bytes {
                        return Err(Unusual);
                    }
                    *known = new;
                }
            }
            Ok(true)
        }
    }

    /// As [`Reader::table`] for the value on the stack, which lies at this place.
    ///
    /// # Safety
    /// As [`Reader::table`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn part(&mut self, lua: *mut lua_State, place: Place) -> Result<bool, Unusual> {
        // SAFETY: the caller's.
        unsafe {
            let number = match place {
                Place::Cell(number) => number as usize,
                Place::Table(number) => {
                    let is_it = ffi::lua_type(lua, -1) == ffi::LUA_TTABLE
                        && self.tables.get(number).is_some_and(|held| held.address == ffi::lua_topointer(lua, -1));
                    return if is_it { self.table(lua, number) } else { Ok(false) };
                }
            };
            let Some(known) = self.cells.get_mut(number) else { return Ok(false) };
            if is_cell(lua, known) {
                return Ok(true);
            }
            if matches!(ffi::lua_type(lua, -1), ffi::LUA_TNIL | ffi::LUA_TTABLE) {
                return Ok(false);
            }
            let new = cell(lua, self.limits)?;
            // Many cells may hold one long text of the machine, and each gets its own.
            self.text_bytes = self.text_bytes - known.text_bytes() + new.text_bytes();
            *known = new;
            if self.text_bytes > self.limits.max_total_text_bytes {
                return Err(Unusual);
            }
            // Minus zero, which a state does not know, would stay in the table.
            Ok(*known != Cell::ZERO || is_cell(lua, known))
        }
    }
}

/// Adds how the next of the tables, which is of this shape, and those in it lie. `None` if they are not of that shape.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn lay_out(lua: *mut lua_State, shape: &Shape, tables: &[Held], nodes: &mut Vec<Node>) -> Option<()> {
    let number = nodes.len();
    nodes.push(Node::List(Vec::new()));
    let mut place = |part: &Shape| match part {
        Shape::Cell(cell) => Some(Place::Cell(*cell)),
        table => {
            let number = nodes.len();
            // SAFETY: the caller's.
            unsafe { lay_out(lua, table, tables, nodes) }?;
            Some(Place::Table(number))
        }
    };
    let node = match shape {
        Shape::Cell(_) => return None,
        Shape::List(items) => Node::List(items.iter().map(place).collect::<Option<_>>()?),
        Shape::Map(fields) => {
            let places: Vec<(&str, Place)> =
                fields.iter().map(|(name, part)| Some((&**name, place(part)?))).collect::<Option<_>>()?;
            let mut walked = Vec::with_capacity(places.len());
            // SAFETY: the caller's; what is pushed is taken off again.
            unsafe {
                let top = ffi::lua_gettop(lua);
                ffi::lua_rawcheckstack(lua, SLOTS);
                reference(lua, tables.get(number)?.reference);
                let mut at = 0;
                loop {
                    at = ffi::lua_rawiter(lua, top + 1, at);
                    if at < 0 {
                        break;
                    }
                    let name = bytes_at(lua, top + 2);
                    walked.extend(places.iter().find(|(known, _)| known.as_bytes() == name));
                    ffi::lua_settop(lua, top + 1);
                }
                ffi::lua_settop(lua, top);
            }
            let fields: Vec<(Box<str>, Place)> = walked.into_iter().map(|(name, place)| (name.into(), place)).collect();
            (fields.len() == places.len()).then_some(Node::Map(fields))?
        }
    };
    *nodes.get_mut(number)? = node;
    Some(())
}

/// Whether the table at this index has no metatable, and nothing but the parts that it should have, a map in the same order
/// as ever: a table that has had more fields for a while may be laid out in another. The items of a list must have been
/// seen to be there.
///
/// # Safety
/// As [`super::Frame::run`], with two free slots for each name and two more.
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn is_whole(lua: *mut lua_State, at: c_int, node: &Node, names: &[*const c_void]) -> Result<bool, Unusual> {
    // SAFETY: the caller's.
    unsafe {
        if ffi::lua_getmetatable(lua, at) != 0 {
            return Err(Unusual);
        }
        if let Node::List(items) = node {
            return Ok(is_all(lua, at, items.len() as c_int));
        }
        let top = ffi::lua_gettop(lua);
        let (mut place, mut is_it) = (0, true);
        for (name, key) in names.iter().zip((top + 1..).step_by(2)) {
            place = ffi::lua_rawiter(lua, at, place);
            is_it = place >= 0 && ffi::lua_topointer(lua, key) == *name;
            if !is_it {
                break;
            }
        }
        let is_end = is_it && ffi::lua_rawiter(lua, at, place) < 0;
        ffi::lua_settop(lua, top);
        Ok(is_end)
    }
}
