//! The tables that stand for states in the machine, and how they follow the states.

use std::ffi::{c_int, c_void};
use std::rc::Rc;
use std::sync::Arc;

use mlua::Lua;
use mlua::ffi::{self, lua_State};

use super::native::{MASK_CELLS, Native};
use super::transfer::{Room, bytes_at, cell, is_all, is_cell, push, push_cell, push_text, reference, take_apart};
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

/// A table that the machine keeps for the host.
#[derive(Clone, Copy)]
struct Held {
    reference: c_int,
    /// Where it lies, to be compared only; Luau moves nothing.
    address: *const c_void,
}

/// How the tables of a shape lie in the machine, in the order of [`Master::tables`].
pub(super) struct Layout(Vec<Node>);

/// The parts of one table.
enum Node {
    List(Vec<Place>),
    /// In the order in which the map is walked.
    Map(Vec<(Box<str>, Place)>),
}

/// A part of a table.
#[derive(Clone, Copy)]
enum Place {
    /// The cell of this number.
    Cell(u32),
    /// The table of this number.
    Table(usize),
}

/// A shape that was seen, with what is known of its tables once that was of use.
pub(super) struct KnownShape {
    shape: Arc<Shape>,
    layout: Option<Rc<Layout>>,
    /// How often a state of this shape was changed.
    changes: u32,
    native: Option<Rc<Native>>,
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
                match self.native(shape).filter(|native| native.cells == cells.len() && !cells.contains(&Cell::Nil)) {
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
            self.ripe.set(Some(Arc::clone(shape)));
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
        Ok(State::from_cells(self.shared(shape), cells.into()))
    }

    /// As [`Direct::take_in`], faster if the state is of the shape for which functions were written last.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn take_in_new(&self, lua: *mut lua_State, room: &mut Room<'_>) -> Result<State, Unusual> {
        let guess = {
            let shapes = self.shapes.borrow();
            let known = shapes.iter().rev().find(|known| known.native.is_some() && known.layout.is_some());
            known.and_then(|known| {
                Some((Arc::clone(&known.shape), Rc::clone(known.layout.as_ref()?), Rc::clone(known.native.as_ref()?)))
            })
        };
        if let Some((shape, layout, native)) = guess
            && self.misses.get() < MAX_MISSES
        {
            // SAFETY: the caller's.
            let cells = unsafe { read_by(lua, &native, &layout, &self.limits) };
            if let Some(cells) = cells {
                self.misses.set(0);
                return Ok(State::from_cells(shape, cells));
            }
            self.misses.set(self.misses.get() + 1);
        }
        // SAFETY: the caller's.
        unsafe { self.take_in(lua, room) }
    }

    /// Pushes the master of the state as a table that may be written to, and hands it over. It has to be given to
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
            for table in master.tables.iter().rev() {
                reference(lua, table.reference);
                ffi::lua_setreadonly(lua, -1, 0);
                ffi::lua_pop(lua, 1);
            }
            if let Some(table) = master.tables.first() {
                reference(lua, table.reference);
            }
            Ok(master)
        }
    }

    /// The state that is the master on the stack after the script may have written to it. `None` if more than values has
    /// changed; the table is then no master any more. `watched` are the functions that watched the change, whose results
    /// lie above the table.
    ///
    /// # Safety
    /// As [`super::Frame::run`], with the table that [`Direct::open`] pushed at the index `at`.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn settle(
        &self,
        lua: *mut lua_State,
        mut master: Master,
        at: c_int,
        watched: Option<&Native>,
    ) -> Result<Option<State>, Unusual> {
        self.count(&master.shape);
        // SAFETY: the caller's; nothing is borrowed while Luau may raise an error, which only a lack of memory could be.
        unsafe {
            let parts = master.state.parts().map(|(_, cells)| Box::<[Cell]>::from(cells));
            let (Some(layout), Some(mut cells)) = (master.layout.clone(), parts) else {
                Self::give_up(lua, &master);
                return Ok(None);
            };
            let top = ffi::lua_gettop(lua);
            let mut reader =
                Reader { limits: &self.limits, layout: &layout, tables: &master.tables, cells: &mut cells };
            let is_same = if let Some(native) = watched {
                reader.watched(lua, native, at)
            } else {
                ffi::lua_pushvalue(lua, at);
                reader.table(lua, 0)
            };
            ffi::lua_settop(lua, top);
            if !matches!(is_same, Ok(true)) {
                Self::give_up(lua, &master);
                return is_same.map(|_| None);
            }
            let state = State::from_cells(Arc::clone(&master.shape), cells);
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

/// Reads what a script has written into a master.
struct Reader<'a> {
    limits: &'a Limits,
    layout: &'a Layout,
    tables: &'a [Held],
    /// The cells of the state as it was, to be those of the new one.
    cells: &'a mut [Cell],
}

impl Reader<'_> {
    /// Reads the table of this number, which is on the stack, and makes it read-only; false if more than values differ.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn table(&mut self, lua: *mut lua_State, number: usize) -> Result<bool, Unusual> {
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

    /// As [`Reader::table`] for the outermost table at the index `at` and those in it, from what a function that watched
    /// the change has returned above it: a result, masks, tables, values.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn watched(&mut self, lua: *mut lua_State, native: &Native, at: c_int) -> Result<bool, Unusual> {
        let masks = native.masks();
        let first_mask = at + 2;
        let first_table = first_mask + masks as c_int;
        let first_cell = first_table + native.tables as c_int - 1;
        // SAFETY: the caller's.
        unsafe {
            let is_known = native.tables == self.tables.len()
                && native.cells == self.cells.len()
                && ffi::lua_gettop(lua) == first_cell + native.cells as c_int - 1;
            if !is_known {
                return Ok(false);
            }
            ffi::lua_rawcheckstack(lua, SLOTS);
            let places = std::iter::once(at).chain(first_table..first_cell);
            let nodes = self.layout.0.iter().zip(&native.names);
            for ((held, (node, names)), place) in self.tables.iter().zip(nodes).zip(places) {
                if ffi::lua_topointer(lua, place) != held.address || !is_whole(lua, place, node, names)? {
                    return Ok(false);
                }
            }
            for mask in 0..masks {
                let mut changed = ffi::lua_tonumberx(lua, first_mask + mask as c_int, std::ptr::null_mut()) as u64;
                while changed != 0 {
                    let number = mask * MASK_CELLS + changed.trailing_zeros() as usize;
                    changed &= changed - 1;
                    ffi::lua_pushvalue(lua, first_cell + number as c_int);
                    let is_value = self.part(lua, Place::Cell(number as u32))?;
                    ffi::lua_pop(lua, 1);
                    if !is_value {
                        return Ok(false);
                    }
                }
            }
            for place in std::iter::once(at).chain(first_table..first_cell) {
                ffi::lua_setreadonly(lua, place, 1);
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
            *known = cell(lua, self.limits)?;
            // Minus zero, which a state does not know, would stay in the table.
            Ok(!matches!(known, Cell::Int(0)) || is_cell(lua, known))
        }
    }
}

impl Master {
    pub(super) fn shape(&self) -> &Arc<Shape> {
        &self.shape
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

/// Adds how the next of the tables, which is of this shape, and those in it lie. `None` if they are not of that shape.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn lay_out(lua: *mut lua_State, shape: &Shape, tables: &[Held], nodes: &mut Vec<Node>) -> Option<()> {
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
/// As [`super::Frame::run`], with three free slots.
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
        let mut place = 0;
        for name in names {
            place = ffi::lua_rawiter(lua, at, place);
            let is_it = place >= 0 && ffi::lua_topointer(lua, top + 1) == *name;
            ffi::lua_settop(lua, top);
            if !is_it {
                return Ok(false);
            }
        }
        let is_end = ffi::lua_rawiter(lua, at, place) < 0;
        ffi::lua_settop(lua, top);
        Ok(is_end)
    }
}

/// The cells of the table on the stack, if it is of the shape that the functions were written for. Its maps may lie in the
/// machine in another way.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn read_by(lua: *mut lua_State, native: &Native, layout: &Layout, limits: &Limits) -> Option<Box<[Cell]>> {
    // SAFETY: the caller's.
    unsafe {
        let table = ffi::lua_gettop(lua);
        if ffi::lua_type(lua, table) != ffi::LUA_TTABLE {
            return None;
        }
        ffi::lua_rawcheckstack(lua, (native.tables + native.cells) as c_int + SLOTS);
        reference(lua, native.read);
        ffi::lua_pushvalue(lua, table);
        ffi::lua_call(lua, 1, ffi::LUA_MULTRET);
        let first_cell = table + native.tables as c_int;
        let cells = (ffi::lua_gettop(lua) == first_cell + native.cells as c_int - 1)
            .then(|| {
                for (node, place) in layout.0.iter().zip(table..first_cell) {
                    if ffi::lua_type(lua, place) != ffi::LUA_TTABLE || ffi::lua_getmetatable(lua, place) != 0 {
                        return None;
                    }
                    let is_whole = match node {
                        Node::List(items) => is_all(lua, place, items.len() as c_int),
                        Node::Map(fields) => entries(lua, place, fields.len()) == fields.len(),
                    };
                    if !is_whole {
                        return None;
                    }
                }
                let value = |place| {
                    ffi::lua_pushvalue(lua, place);
                    let cell = cell(lua, limits).ok().filter(|cell| *cell != Cell::Nil);
                    ffi::lua_pop(lua, 1);
                    cell
                };
                (first_cell..first_cell + native.cells as c_int).map(value).collect::<Option<Box<[Cell]>>>()
            })
            .flatten();
        ffi::lua_settop(lua, table);
        cells
    }
}

/// How many entries the table at this index has, counted up to one more than `most`.
///
/// # Safety
/// As [`super::Frame::run`], with two free slots.
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn entries(lua: *mut lua_State, at: c_int, most: usize) -> usize {
    let (mut count, mut place) = (0, 0);
    // SAFETY: the caller's.
    unsafe {
        while count <= most {
            place = ffi::lua_rawiter(lua, at, place);
            if place < 0 {
                break;
            }
            count += 1;
            ffi::lua_pop(lua, 2);
        }
    }
    count
}

/// As [`build`], by the functions for the shape; no cell may be nil.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn build_by(lua: *mut lua_State, native: &Native, cells: &[Cell], tables: &mut Vec<Held>) {
    // SAFETY: the caller's.
    unsafe {
        let top = ffi::lua_gettop(lua);
        ffi::lua_rawcheckstack(lua, (native.tables + native.cells) as c_int + SLOTS);
        reference(lua, native.build);
        for cell in cells {
            push_cell(lua, cell);
        }
        ffi::lua_call(lua, cells.len() as c_int, native.tables as c_int);
        for at in top + 1..=top + native.tables as c_int {
            ffi::lua_setreadonly(lua, at, 1);
            tables.push(Held { reference: ffi::lua_ref(lua, at), address: ffi::lua_topointer(lua, at) });
        }
        ffi::lua_settop(lua, top + 1);
    }
}

/// Pushes a copy of the table of this shape, the next of `tables`, with copies of those in it.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn copy(lua: *mut lua_State, shape: &Shape, tables: &mut std::slice::Iter<'_, Held>) {
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
unsafe fn build(lua: *mut lua_State, shape: &Shape, cells: &[Cell], tables: &mut Vec<Held>) {
    let number = tables.len();
    // SAFETY: the caller's; each level makes room for itself.
    unsafe {
        ffi::lua_rawcheckstack(lua, SLOTS);
        match shape {
            Shape::Cell(number) => return push_cell(lua, cells.get(*number as usize).unwrap_or(&Cell::Nil)),
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
