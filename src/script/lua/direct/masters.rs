//! The tables that stand for states in the machine, and how they follow the states.

use std::ffi::c_int;
use std::rc::Rc;
use std::sync::Arc;

use mlua::Lua;
use mlua::ffi::{self, lua_State};

use super::layout::{Held, Layout, Node, Reader, Watched, lay_out};
use super::native::Native;
use super::tables::{build, build_by, copy, hold, read_made};
use super::transfer::{Room, push, reference, take_apart};
use super::{Direct, SLOTS, Unusual};
use crate::script::Limits;
use crate::script::state::{Cell, Identity, Shape, State};

/// Most states that are kept as tables.
const MAX_MASTERS: usize = 128;
/// Most shapes that are remembered.
const MAX_SHAPES: usize = 16;
/// Most cells of states that are kept as tables.
const MAX_CELLS: usize = 20_000;
/// Changes of states of one shape after which functions are written for it, and for how many shapes they are.
const RIPE: u32 = 32;
const MAX_NATIVES: usize = 8;
/// New states in a row that were not of the shape that was guessed, after which no guess is made any more.
const MAX_MISSES: u32 = 16;

/// A state that the machine holds as a table.
pub(super) struct Master {
    state: State,
    shape: Arc<Shape>,
    /// The table, then all tables in it, each before those that lie in it.
    tables: Box<[Held]>,
    /// How many cells it counts for.
    cells: usize,
    /// How the tables lie, known from before the script may write to them.
    layout: Option<Rc<Layout>>,
}

/// A shape that was seen, with what is known of its tables once that was of use.
pub(super) struct KnownShape {
    shape: Arc<Shape>,
    layout: Option<Rc<Layout>>,
    /// How often a state of this shape was changed.
    changes: u32,
    native: Option<Rc<Native>>,
}

/// The shape that a new state is likely to have, and what is known of it.
pub(super) struct Guess {
    shape: Arc<Shape>,
    layout: Rc<Layout>,
    pub(super) native: Rc<Native>,
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
                match self.native(shape).filter(|native| native.cells == cells.len() && !cells.contains(&Cell::NIL)) {
                    Some(native) => build_by(lua, &native, cells, &mut tables),
                    None => build(lua, shape, cells, &mut tables),
                }
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
            let Some(&Held { reference: table, .. }) = tables.first() else { return Err(Unusual) };
            let cells = cells + tables.len();
            self.keep(lua, Master { state: state.clone(), shape, tables: tables.into(), cells, layout: None });
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
            // SAFETY: the caller's.
            unsafe { Self::give_up(lua, master) };
        }
    }

    /// The shape that states of this shape share.
    fn shared(&self, shape: Shape) -> Arc<Shape> {
        let mut shapes = self.shapes.borrow_mut();
        if let Some(known) = shapes.iter().rev().find(|known| *known.shape == shape) {
            return Arc::clone(&known.shape);
        }
        if shapes.len() >= MAX_SHAPES {
            // Those with functions of their own are few and stay.
            let oldest = shapes.iter().position(|known| known.native.is_none()).unwrap_or(0);
            shapes.remove(oldest);
        }
        let shape = Arc::new(shape);
        shapes.push(KnownShape { shape: Arc::clone(&shape), layout: None, changes: 0, native: None });
        shape
    }

    /// How the tables of the master's shape lie; looked at once a shape.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn layout(&self, lua: *mut lua_State, master: &Master) -> Option<Rc<Layout>> {
        let at = {
            let shapes = self.shapes.borrow();
            let at = shapes.iter().rposition(|known| Arc::ptr_eq(&known.shape, &master.shape))?;
            if let Some(layout) = &shapes.get(at)?.layout {
                return Some(Rc::clone(layout));
            }
            at
        };
        let mut nodes = Vec::with_capacity(master.tables.len());
        // SAFETY: the caller's.
        unsafe { lay_out(lua, &master.shape, &master.tables, &mut nodes) }?;
        let layout = Rc::new(Layout(nodes));
        self.shapes.borrow_mut().get_mut(at)?.layout = Some(Rc::clone(&layout));
        Some(layout)
    }

    /// The functions for a shape.
    pub(super) fn native(&self, shape: &Arc<Shape>) -> Option<Rc<Native>> {
        let shapes = self.shapes.borrow();
        shapes.iter().rev().find(|known| Arc::ptr_eq(&known.shape, shape)).and_then(|known| known.native.clone())
    }

    /// Writes the functions for a shape that has turned out to be worth it. Not to be called during a call.
    pub(in crate::script::lua) fn ripen(&self, lua: &Lua) {
        if self.ripe.borrow().is_some() {
            self.write_functions(lua);
        }
    }

    #[cold]
    fn write_functions(&self, lua: &Lua) {
        let Some(shape) = self.ripe.take() else { return };
        let mut shapes = self.shapes.borrow_mut();
        let Some(known) = shapes.iter_mut().find(|known| Arc::ptr_eq(&known.shape, &shape)) else { return };
        let Some(layout) = &known.layout else { return };
        let names = layout.0.iter().map(|node| match node {
            Node::List(_) => Vec::new(),
            Node::Map(fields) => fields.iter().map(|(name, _)| &**name).collect(),
        });
        known.native = Native::new(lua, &shape, names).map(Rc::new);
    }

    /// Counts a change of a state of this shape.
    fn count(&self, shape: &Arc<Shape>) {
        let mut shapes = self.shapes.borrow_mut();
        let natives = shapes.iter().filter(|known| known.native.is_some()).count();
        let Some(known) = shapes.iter_mut().rev().find(|known| Arc::ptr_eq(&known.shape, shape)) else { return };
        known.changes = known.changes.saturating_add(1);
        if known.changes == RIPE && natives < MAX_NATIVES {
            self.ripe.replace(Some(Arc::clone(shape)));
        }
    }

    /// The state that is the list or map on the stack.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn take_in(&self, lua: *mut lua_State, room: &mut Room<'_>) -> Result<State, Unusual> {
        // SAFETY: the caller's.
        let (shape, cells) = unsafe { take_apart(lua, room) }?;
        let text_bytes = text_bytes(&cells);
        Ok(State::from_cells(self.shared(shape), cells.into(), text_bytes))
    }

    /// The shape that a new state is likely to have: that for which functions were written last.
    pub(super) fn guess(&self) -> Option<Guess> {
        if self.misses.get() >= MAX_MISSES {
            return None;
        }
        let shapes = self.shapes.borrow();
        let known = shapes.iter().rev().find(|known| known.native.is_some() && known.layout.is_some())?;
        let (layout, native) = (Rc::clone(known.layout.as_ref()?), Rc::clone(known.native.as_ref()?));
        Some(Guess { shape: Arc::clone(&known.shape), layout, native })
    }

    /// The state that a function of [`super::native`] has made, whose results lie from this index on; `None` if it is not of
    /// the shape that was guessed.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn take_in_guessed(&self, lua: *mut lua_State, guess: &Guess, results: c_int) -> Option<State> {
        // SAFETY: the caller's.
        let cells = unsafe { read_made(lua, &guess.native, &guess.layout, &self.limits, results) };
        let cells = cells.map(|cells| (text_bytes(&cells), cells));
        let Some((text_bytes, cells)) = cells.filter(|(bytes, _)| *bytes <= self.limits.max_total_text_bytes) else {
            self.misses.set(self.misses.get() + 1);
            return None;
        };
        self.misses.set(0);
        let state = State::from_cells(Arc::clone(&guess.shape), cells, text_bytes);
        let own = results + guess.native.tables as c_int;
        // SAFETY: the caller's.
        unsafe {
            let tables = hold(lua, own..own + guess.native.tables as c_int);
            let cells = guess.native.cells + tables.len();
            let (shape, layout) = (Arc::clone(&guess.shape), Some(Rc::clone(&guess.layout)));
            self.keep(lua, Master { state: state.clone(), shape, tables: tables.into(), cells, layout });
        }
        Some(state)
    }

    /// Pushes all tables of the master of the state, which may be written to, and hands it over. It has to be given to
    /// [`Direct::settle`] or [`Direct::give_up`].
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn open(&self, lua: *mut lua_State, state: &State) -> Result<Master, Unusual> {
        // SAFETY: the caller's; nothing here raises an error once the master is taken.
        unsafe {
            self.master(lua, state)?;
            let mut master = self.masters.borrow_mut().take(state.identity()).ok_or(Unusual)?;
            if master.layout.is_none() {
                master.layout = self.layout(lua, &master);
            }
            ffi::lua_rawcheckstack(lua, master.tables.len() as c_int + SLOTS);
            for table in &master.tables {
                reference(lua, table.reference);
                ffi::lua_setreadonly(lua, -1, 0);
            }
            Ok(master)
        }
    }

    /// The state that is the master on the stack after the script may have written to it. `None` if more than values has
    /// changed; the table is then no master any more. `watched` is what a function that watched the change has left.
    ///
    /// # Safety
    /// As [`super::Frame::run`], with the first table that [`Direct::open`] pushed at the index `at`.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn settle(
        &self,
        lua: *mut lua_State,
        mut master: Master,
        at: c_int,
        watched: Option<&Watched<'_>>,
    ) -> Result<Option<State>, Unusual> {
        if watched.is_none() {
            self.count(&master.shape);
        }
        // SAFETY: the caller's; nothing is borrowed while Luau may raise an error, which only a lack of memory could be.
        unsafe {
            let parts = master.state.parts().map(|(_, cells)| Box::<[Cell]>::from(cells));
            let (Some(layout), Some(mut cells)) = (master.layout.clone(), parts) else {
                Self::give_up(lua, &master);
                return Ok(None);
            };
            let top = ffi::lua_gettop(lua);
            let mut reader = Reader {
                limits: &self.limits,
                layout: &layout,
                tables: &master.tables,
                cells: &mut cells,
                text_bytes: master.state.text_bytes(),
            };
            let is_same = if let Some(watched) = watched {
                reader.watched(lua, watched)
            } else {
                ffi::lua_pushvalue(lua, at);
                reader.table(lua, 0)
            };
            let text_bytes = reader.text_bytes;
            ffi::lua_settop(lua, top);
            if !matches!(is_same, Ok(true)) {
                Self::give_up(lua, &master);
                return is_same.map(|_| None);
            }
            let state = State::from_cells(Arc::clone(&master.shape), cells, text_bytes);
            master.state = state.clone();
            self.keep(lua, master);
            Ok(Some(state))
        }
    }

    /// Lets the machine forget a master.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn give_up(lua: *mut lua_State, master: &Master) {
        for table in &master.tables {
            // SAFETY: the caller's; nobody else uses the references. This raises no errors.
            unsafe { ffi::lua_unref(lua, table.reference) };
        }
    }

    /// Lets the machine forget all masters.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn give_up_all(&self, lua: *mut lua_State) {
        let all = std::mem::take(&mut *self.masters.borrow_mut());
        for master in &all.kept {
            // SAFETY: the caller's.
            unsafe { Self::give_up(lua, master) };
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
            let Some((shape, tables)) = found.map(|master| (Arc::clone(&master.shape), master.tables.clone())) else {
                return Err(Unusual);
            };
            drop(masters);
            copy(lua, &shape, &mut tables.iter());
            Ok(())
        }
    }
}

/// The text in the cells, in bytes. (Names are counted when a shape is seen for the first time.)
fn text_bytes(cells: &[Cell]) -> usize {
    cells.iter().map(Cell::text_bytes).sum()
}

impl Masters {
    fn position(&self, state: Identity) -> Option<usize> {
        let is_it = |at: &usize| self.kept.get(*at).is_some_and(|master| master.state.identity() == state);
        Some(self.last).filter(is_it).or_else(|| (0..self.kept.len()).rev().find(is_it))
    }

    fn find(&mut self, state: &State) -> Option<c_int> {
        let at = self.position(state.identity())?;
        self.last = at;
        self.kept.get(at).and_then(|master| master.tables.first()).map(|table| table.reference)
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
