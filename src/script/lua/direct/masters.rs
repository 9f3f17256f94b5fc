//! The tables that stand for states in the machine, and how they follow the states.

use std::ffi::c_int;
use std::sync::Arc;

use mlua::ffi::{self, lua_State};

use super::transfer::{Room, bytes_at, cell, push, push_cell, push_text, reference, take_apart};
use super::{Direct, SLOTS, Unusual};
use crate::script::Limits;
use crate::script::state::{Cell, Identity, Shape, State};

/// Most states that are kept as tables.
const MAX_MASTERS: usize = 128;
/// Most shapes that are remembered.
const MAX_SHAPES: usize = 16;
/// Most cells of states that are kept as tables.
const MAX_CELLS: usize = 20_000;

/// A state that the machine holds as a table.
struct Master {
    state: State,
    shape: Arc<Shape>,
    /// The table, and all tables in it after it, by their references.
    tables: Arc<[c_int]>,
    /// How many cells it counts for.
    cells: usize,
}

#[derive(Default)]
pub(super) struct Masters {
    kept: Vec<Master>,
    cells: usize,
    last: usize,
}

/// The masters.
impl Direct {
    /// The reference of the table that stands for the state; brought in if it is not there.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn master(&self, lua: *mut lua_State, state: &State) -> Result<c_int, Unusual> {
        if let Some(table) = self.masters.borrow_mut().find(state) {
            return Ok(table);
        }
        // SAFETY: the caller's; nothing is borrowed while Luau may raise an error.
        unsafe {
            let mut tables = Vec::new();
            let (shape, cells) = if let Some((shape, cells)) = state.parts() {
                build(lua, shape, cells, &mut tables);
                (Arc::clone(shape), cells.len())
            } else {
                push(lua, state.value());
                let limits = Limits::default();
                let mut room = Room::new(&limits);
                let (shape, cells) = take_apart(lua, &mut room)?;
                ffi::lua_pop(lua, 1);
                build(lua, &shape, &cells, &mut tables);
                (self.shared(shape), cells.len())
            };
            ffi::lua_pop(lua, 1);
            let Some(&table) = tables.last() else { return Err(Unusual) };
            let cells = cells + tables.len();
            // The outermost table was finished last.
            tables.reverse();
            self.keep(lua, Master { state: state.clone(), shape, tables: tables.into(), cells });
            Ok(table)
        }
    }

    /// Keeps a master, and gives up those that have no room beside it.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn keep(&self, lua: *mut lua_State, master: Master) {
        let gone = self.masters.borrow_mut().keep(master);
        for master in &gone {
            // SAFETY: the caller's; the references are used by nobody else.
            unsafe { master.give_up(lua) };
        }
    }

    /// The shape that states of this shape share.
    fn shared(&self, shape: Shape) -> Arc<Shape> {
        let mut shapes = self.shapes.borrow_mut();
        if let Some(known) = shapes.iter().rev().find(|known| ***known == shape) {
            return Arc::clone(known);
        }
        if shapes.len() >= MAX_SHAPES {
            shapes.remove(0);
        }
        let shape = Arc::new(shape);
        shapes.push(Arc::clone(&shape));
        shape
    }

    /// The state that is the list or map on the stack.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn take_in(&self, lua: *mut lua_State, room: &mut Room<'_>) -> Result<State, Unusual> {
        // SAFETY: the caller's.
        let (shape, cells) = unsafe { take_apart(lua, room) }?;
        Ok(State::from_cells(self.shared(shape), cells.into()))
    }

    /// The state that is the changed copy on the stack of the one with the identity `old`, whose master becomes that of
    /// the new one. `None` if the change goes deeper than values; the master is then given up.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn follow(
        &self,
        lua: *mut lua_State,
        old: Identity,
        limits: &Limits,
    ) -> Result<Option<State>, Unusual> {
        let Some(mut master) = self.masters.borrow_mut().take(old) else { return Ok(None) };
        let parts = master.state.parts().map(|(shape, cells)| (Arc::clone(shape), Box::<[Cell]>::from(cells)));
        let Some((shape, mut cells)) = parts else {
            // SAFETY: the caller's.
            unsafe { master.give_up(lua) };
            return Ok(None);
        };
        // SAFETY: the caller's; nothing is borrowed while Luau may raise an error, which only a lack of memory could be.
        unsafe {
            let top = ffi::lua_gettop(lua);
            // The copy, with its master below it.
            if let Some(&table) = master.tables.first() {
                reference(lua, table);
            }
            ffi::lua_pushvalue(lua, top);
            let followed = Follower { limits, cells: &mut cells }.follow(lua, &shape);
            ffi::lua_settop(lua, top);
            match followed {
                Ok(true) => {}
                refused => {
                    master.give_up(lua);
                    return refused.map(|_| None);
                }
            }
            let state = State::from_cells(shape, cells);
            master.state = state.clone();
            self.keep(lua, master);
            Ok(Some(state))
        }
    }

    /// Pushes a copy of the state's table that shares no tables with it.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn copy(&self, lua: *mut lua_State, state: &State) -> Result<(), Unusual> {
        // SAFETY: the caller's; nothing is borrowed while Luau may raise an error.
        unsafe {
            self.master(lua, state)?;
            let masters = self.masters.borrow();
            let found = masters.position(state.identity()).and_then(|at| masters.kept.get(at));
            let Some((shape, tables)) = found.map(|master| (Arc::clone(&master.shape), Arc::clone(&master.tables)))
            else {
                return Err(Unusual);
            };
            drop(masters);
            copy(lua, &shape, &mut tables.iter());
            Ok(())
        }
    }
}

/// Brings a master up to date with a changed copy of it.
struct Follower<'a> {
    limits: &'a Limits,
    cells: &'a mut [Cell],
}

impl Follower<'_> {
    /// Compares the copy on the stack, of which only values may have changed, with the master below it, and writes what
    /// differs into both cells and master; false if more than values differ.
    ///
    /// # Safety
    /// As [`super::Frame::run`]; the master is of this shape.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn follow(&mut self, lua: *mut lua_State, shape: &Shape) -> Result<bool, Unusual> {
        // SAFETY: the caller's; each level makes room for itself.
        unsafe {
            ffi::lua_rawcheckstack(lua, SLOTS);
            if ffi::lua_type(lua, -1) != ffi::LUA_TTABLE {
                return Ok(false);
            }
            if ffi::lua_getmetatable(lua, -1) != 0 {
                return Err(Unusual);
            }
            let copy = ffi::lua_gettop(lua);
            let master = copy - 1;
            match shape {
                Shape::Cell(_) => Ok(false),
                Shape::List(items) => {
                    for (item, index) in items.iter().zip(1..) {
                        ffi::lua_rawgeti_(lua, master, index);
                        ffi::lua_rawgeti_(lua, copy, index);
                        if ffi::lua_rawequal(lua, -2, -1) == 0
                            && !self.part(lua, item, master, |lua| ffi::lua_pushnumber(lua, f64::from(index)))?
                        {
                            return Ok(false);
                        }
                        ffi::lua_settop(lua, copy);
                    }
                    // Each item is there; nothing else may be. A walk that passes over as many places as there are items
                    // meets whatever else there is: what the array part does not hold of the items fills the places of
                    // the rest that are passed over.
                    let mut at = items.len() as c_int;
                    let mut count = items.len();
                    loop {
                        at = ffi::lua_rawiter(lua, copy, at);
                        if at < 0 {
                            break;
                        }
                        count += 1;
                        ffi::lua_settop(lua, copy);
                    }
                    Ok(count == items.len())
                }
                Shape::Map(fields) => {
                    // A copy has its names in the places of its master's, until one is added.
                    let mut at = 0;
                    loop {
                        let next = ffi::lua_rawiter(lua, master, at);
                        if ffi::lua_rawiter(lua, copy, at) != next {
                            return Ok(false);
                        }
                        if next < 0 {
                            return Ok(true);
                        }
                        let (key, old, new) = (copy + 1, copy + 2, copy + 4);
                        if ffi::lua_rawequal(lua, key, copy + 3) == 0 {
                            return Ok(false);
                        }
                        if ffi::lua_rawequal(lua, old, new) == 0 {
                            let name = bytes_at(lua, key);
                            let found = fields.iter().find(|(known, _)| known.as_bytes() == name);
                            let Some((_, field)) = found else { return Ok(false) };
                            ffi::lua_pushvalue(lua, old);
                            ffi::lua_pushvalue(lua, new);
                            if !self.part(lua, field, master, |lua| ffi::lua_pushvalue(lua, key))? {
                                return Ok(false);
                            }
                        }
                        ffi::lua_settop(lua, copy);
                        at = next;
                    }
                }
            }
        }
    }

    /// As [`Follower::follow`] for the values on the stack, which differ and which the master's table holds under the key
    /// that `push_key` pushes.
    ///
    /// # Safety
    /// As [`Follower::follow`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn part(
        &mut self,
        lua: *mut lua_State,
        shape: &Shape,
        master: c_int,
        push_key: impl FnOnce(*mut lua_State),
    ) -> Result<bool, Unusual> {
        // SAFETY: the caller's.
        unsafe {
            let Shape::Cell(number) = shape else { return self.follow(lua, shape) };
            if matches!(ffi::lua_type(lua, -1), ffi::LUA_TNIL | ffi::LUA_TTABLE) {
                return Ok(false);
            }
            let Some(known) = self.cells.get_mut(*number as usize) else { return Ok(false) };
            *known = cell(lua, self.limits)?;
            ffi::lua_setreadonly(lua, master, 0);
            push_key(lua);
            push_cell(lua, known);
            ffi::lua_rawset(lua, master);
            ffi::lua_setreadonly(lua, master, 1);
            Ok(true)
        }
    }
}

impl Master {
    /// Lets the machine forget the tables.
    ///
    /// # Safety
    /// As [`super::Frame::run`]; the master must not be used again.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn give_up(&self, lua: *mut lua_State) {
        for &table in &*self.tables {
            // SAFETY: the caller's.
            unsafe { ffi::lua_unref(lua, table) };
        }
    }
}

impl Masters {
    fn position(&self, state: Identity) -> Option<usize> {
        let is_it = |at: &usize| self.kept.get(*at).is_some_and(|master| master.state.identity() == state);
        Some(self.last).filter(is_it).or_else(|| (0..self.kept.len()).rev().find(is_it))
    }

    fn find(&mut self, state: &State) -> Option<c_int> {
        let at = self.position(state.identity())?;
        self.last = at;
        self.kept.get(at).and_then(|master| master.tables.first().copied())
    }

    fn take(&mut self, state: Identity) -> Option<Master> {
        let at = self.position(state)?;
        let master = self.kept.swap_remove(at);
        self.cells -= master.cells;
        Some(master)
    }

    /// Keeps a master; returns those that had to go for it.
    fn keep(&mut self, master: Master) -> Vec<Master> {
        let mut gone = Vec::new();
        if self.kept.len() >= MAX_MASTERS || self.cells + master.cells > MAX_CELLS {
            gone = std::mem::take(&mut self.kept);
            self.cells = 0;
        }
        self.cells += master.cells;
        self.last = self.kept.len();
        self.kept.push(master);
        gone
    }
}

/// Pushes a copy of the table of this shape, found by the references that [`build`] made: this table's first, then, from
/// the last to the first, those of the tables in it.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn copy(lua: *mut lua_State, shape: &Shape, tables: &mut std::slice::Iter<'_, c_int>) {
    let Some(&table) = tables.next() else { return };
    // SAFETY: the caller's; each level makes room for itself.
    unsafe {
        ffi::lua_rawcheckstack(lua, SLOTS);
        reference(lua, table);
        ffi::lua_clonetable(lua, -1);
        ffi::lua_replace(lua, -2);
        match shape {
            Shape::Cell(_) => {}
            Shape::List(items) => {
                for (at, item) in items.iter().enumerate().rev().filter(|(_, item)| !item.is_cell()) {
                    copy(lua, item, tables);
                    ffi::lua_rawseti_(lua, -2, at as c_int + 1);
                }
            }
            Shape::Map(fields) => {
                for (name, field) in fields.iter().rev().filter(|(_, field)| !field.is_cell()) {
                    push_text(lua, name);
                    copy(lua, field, tables);
                    ffi::lua_rawset(lua, -3);
                }
            }
        }
    }
}

/// Pushes the frozen table (or the value) of this shape, laid out as [`crate::script::lua::border::to_lua`] does, and adds the references of
/// all its tables, the outermost last.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn build(lua: *mut lua_State, shape: &Shape, cells: &[Cell], tables: &mut Vec<c_int>) {
    // SAFETY: the caller's; each level makes room for itself.
    unsafe {
        ffi::lua_rawcheckstack(lua, SLOTS);
        match shape {
            Shape::Cell(number) => push_cell(lua, cells.get(*number as usize).unwrap_or(&Cell::Nil)),
            Shape::List(items) => {
                ffi::lua_createtable(lua, items.len() as c_int, 0);
                for (at, item) in items.iter().enumerate() {
                    build(lua, item, cells, tables);
                    ffi::lua_rawseti_(lua, -2, at as c_int + 1);
                }
            }
            Shape::Map(fields) => {
                ffi::lua_createtable(lua, 0, fields.len() as c_int);
                for (name, field) in fields {
                    push_text(lua, name);
                    build(lua, field, cells, tables);
                    ffi::lua_rawset(lua, -3);
                }
            }
        }
        if !matches!(shape, Shape::Cell(_)) {
            ffi::lua_setreadonly(lua, -1, 1);
            tables.push(ffi::lua_ref(lua, -1));
        }
    }
}
