//! Calls without detours: arguments go in and results come out through Luau's C interface, in one protected call, and
//! states stay in the virtual machine. [`super::border`] does the same for every value and every error; whatever is out
//! of the ordinary here (an error, a value that may not cross) gives [`Way::Around`], and the caller takes that way.
//!
//! A state that came from this machine is found again as a table, the *master*. Functions that only look get the master
//! itself, frozen; a script that writes into it fails and is then given copies, as everybody who may write is. A master
//! has the layout that [`super::border::to_lua`] would give it, so that `pairs` walks in the same order whether a state
//! was at hand or had to be brought in.

use std::cell::{Cell as Flag, RefCell};
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use mlua::Lua;
use mlua::ffi::{self, lua_State};

use super::border;
use crate::script::state::{Cell, Shape, State};
use crate::script::{Argument, Limits, Value};

/// Stack slots that one level of nesting needs.
const SLOTS: c_int = 8;
/// Most states that are kept as tables.
const MAX_MASTERS: usize = 128;
/// Most shapes that are remembered.
const MAX_SHAPES: usize = 16;
/// Most cells of states that are kept as tables.
const MAX_CELLS: usize = 20_000;

/// What a function does with a state that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It looks at it; a change is lost.
    Look,
    /// It may change it and return it.
    Change,
}

/// What the caller wants from a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// The result as a value.
    Value,
    /// The result as a state; the state that was handed in is needed no more if `replaces`.
    State { replaces: bool },
}

/// What a call gave.
pub(super) enum Way {
    /// The result.
    Value(Value),
    /// The result, a list or map for all that [`State::is_table`] says.
    State(State),
    /// Something out of the ordinary happened; nothing is known.
    Around,
    /// The time was over; the error has the author's stack.
    Expired(Option<mlua::Error>),
}

/// A state that the machine holds as a table.
struct Master {
    state: State,
    shape: Arc<Shape>,
    /// The table, and all tables in it after it, by their references.
    tables: Arc<[c_int]>,
    /// How many cells it counts for.
    cells: usize,
}

/// The direct way into one virtual machine.
pub(super) struct Direct {
    lua: *mut lua_State,
    limits: Limits,
    enter: c_int,
    handler: c_int,
    functions: RefCell<Vec<(Box<str>, c_int)>>,
    masters: RefCell<Masters>,
    /// The shapes that were seen last, so that states share them.
    shapes: RefCell<Vec<Arc<Shape>>>,
    /// Whether the script has to get copies even where it should only look.
    copies: Flag<bool>,
}

#[derive(Default)]
struct Masters {
    kept: Vec<Master>,
    cells: usize,
    last: usize,
}

/// One call on its way through the machine.
struct Frame<'a, 'b> {
    direct: &'a Direct,
    limits: &'a Limits,
    function: c_int,
    arguments: &'a [Argument<'b>],
    /// Where the `rng` lies on the stack, if the call has one.
    rng: Option<c_int>,
    usage: Use,
    want: Want,
    result: Option<Value>,
    state: Option<State>,
}

/// A value that may not cross, or that does so only with help.
struct Unusual;

impl Direct {
    /// The direct way into `lua`. `texts` are those of the script: one that can catch errors could notice that a state
    /// is frozen, and always gets copies.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) fn new<'a>(lua: &Lua, limits: &Limits, mut texts: impl Iterator<Item = &'a str>) -> mlua::Result<Self> {
        let catches = |text: &str| ["pcall", "coroutine", "frozen"].iter().any(|word| text.contains(word));
        let copies = texts.any(catches);
        let mut state = std::ptr::null_mut();
        let (mut enter, mut handler) = (0, 0);
        // SAFETY: a protected call; what it pushes is taken off after the references were made. The state is the machine's
        // main one, in which calls of the host run, and lives as long as the machine.
        unsafe {
            lua.exec_raw::<()>((), |lua| {
                state = ffi::lua_mainthread(lua);
                ffi::lua_pushcclosurek(lua, enter_frame, c"call".as_ptr(), 0, None);
                enter = ffi::lua_ref(lua, -1);
                ffi::lua_pushcclosurek(lua, add_traceback, c"traceback".as_ptr(), 0, None);
                handler = ffi::lua_ref(lua, -1);
                ffi::lua_settop(lua, 0);
            })
        }?;
        Ok(Self {
            lua: state,
            limits: limits.clone(),
            enter,
            handler,
            functions: RefCell::default(),
            masters: RefCell::default(),
            shapes: RefCell::default(),
            copies: Flag::new(copies),
        })
    }

    /// The number of a function, found once by `find`.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) fn function(
        &self,
        lua: &Lua,
        name: &str,
        find: impl FnOnce() -> Option<mlua::Function>,
    ) -> Option<c_int> {
        let known = self.functions.borrow().iter().find(|(known, _)| **known == *name).map(|(_, number)| *number);
        if known.is_some() {
            return known;
        }
        let mut number = 0;
        // SAFETY: a protected call with the function as its only value on the stack.
        unsafe {
            lua.exec_raw::<()>(find()?, |lua| {
                number = ffi::lua_ref(lua, -1);
                ffi::lua_pop(lua, 1);
            })
        }
        .ok()?;
        self.functions.borrow_mut().push((name.into(), number));
        Some(number)
    }

    /// Whether a script is trusted only to look at the states that it should not change.
    pub(super) fn shares(&self) -> bool {
        !self.copies.get()
    }

    /// Gives the script copies of all states from now on.
    pub(super) fn stop_sharing(&self) {
        self.copies.set(true);
    }

    /// Calls the function. `rng` is what the script sees for an [`Argument::Rng`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) fn call(
        &self,
        lua: &Lua,
        function: c_int,
        arguments: &[Argument<'_>],
        rng: Option<mlua::AnyUserData>,
        (usage, want): (Use, Want),
        expired: impl Fn() -> bool,
    ) -> Way {
        let usage = if self.copies.get() { Use::Change } else { usage };
        let mut frame = Frame {
            direct: self,
            limits: &self.limits,
            function,
            arguments,
            rng: None,
            usage,
            want,
            result: None,
            state: None,
        };
        if let Some(rng) = rng {
            frame.rng = Some(1);
            // SAFETY: `run` keeps within the stack of the protected call, and leaves nothing on it but the `rng`.
            let done = unsafe {
                lua.exec_raw::<()>(rng, |lua| {
                    // What is out of the ordinary leaves no result.
                    _ = frame.run(lua);
                    ffi::lua_settop(lua, 0);
                })
            };
            return match done {
                Ok(()) if !expired() => frame.into_way(),
                Ok(()) => Way::Expired(None),
                Err(error) if expired() => Way::Expired(Some(error)),
                Err(_) => Way::Around,
            };
        }
        // SAFETY: no call is under way in this machine, so its main state is at rest with at least `LUA_MINSTACK` free
        // slots, of which three are used. Everything that may raise an error runs inside the protected call.
        let failure = unsafe {
            let lua = self.lua;
            let top = ffi::lua_gettop(lua);
            ffi::lua_rawgeti_(lua, ffi::LUA_REGISTRYINDEX, self.handler);
            ffi::lua_rawgeti_(lua, ffi::LUA_REGISTRYINDEX, self.enter);
            ffi::lua_pushlightuserdatatagged(lua, (&raw mut frame).cast::<c_void>(), 0);
            let status = ffi::lua_pcall(lua, 1, 0, top + 1);
            let failure = (status != ffi::LUA_OK).then(|| match ffi::lua_type(lua, -1) {
                ffi::LUA_TSTRING => String::from_utf8_lossy(bytes_at(lua, -1)).into_owned(),
                _ => String::new(),
            });
            ffi::lua_settop(lua, top);
            failure
        };
        match failure {
            failure if expired() => Way::Expired(failure.map(mlua::Error::RuntimeError)),
            None => frame.into_way(),
            Some(_) => Way::Around,
        }
    }
}

impl Frame<'_, '_> {
    fn into_way(self) -> Way {
        match (self.result, self.state) {
            (Some(value), _) => Way::Value(value),
            (None, Some(state)) => Way::State(state),
            (None, None) => Way::Around,
        }
    }

    /// Makes the call and reads the result. What is not read leaves no result.
    ///
    /// # Safety
    /// `lua` must be inside a protected call with [`SLOTS`] free slots; errors of Luau unwind through this function, which
    /// owns nothing at those moments that would be lost but memory.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn run(&mut self, lua: *mut lua_State) -> Result<(), Unusual> {
        // SAFETY: the caller's.
        unsafe {
            let base = ffi::lua_gettop(lua);
            // A copy lies below the call, so that the result can be told from it.
            let mut copied = None;
            if self.usage == Use::Change
                && let Some(Argument::State(state)) = self.arguments.iter().find(|it| matches!(it, Argument::State(_)))
            {
                self.direct.copy(lua, state)?;
                copied = Some((*state, base + 1));
            }
            reference(lua, self.function);
            for argument in self.arguments {
                match argument {
                    Argument::Data(value) => push(lua, value),
                    Argument::State(state) => match copied {
                        Some((own, at)) if own.is(state) => ffi::lua_pushvalue(lua, at),
                        // A second state that may be changed does not occur; it would only be frozen.
                        _ => reference(lua, self.direct.master(lua, state)?),
                    },
                    Argument::Rng(_) => match self.rng {
                        Some(at) => ffi::lua_pushvalue(lua, at),
                        None => ffi::lua_pushnil(lua),
                    },
                }
            }
            ffi::lua_call(lua, self.arguments.len() as c_int, 1);
            let mut room = Room { limits: self.limits, values: 0, depth: 0 };
            match self.want {
                Want::Value => self.result = Some(read(lua, &mut room)?),
                Want::State { replaces } => {
                    let followed = match copied {
                        Some((old, at)) if replaces && ffi::lua_rawequal(lua, at, -1) != 0 => {
                            self.direct.follow(lua, old, self.limits)?
                        }
                        _ => None,
                    };
                    self.state = Some(match followed {
                        Some(state) => state,
                        None => self.direct.take_in(lua, &mut room)?,
                    });
                }
            }
            Ok(())
        }
    }
}

/// The masters.
impl Direct {
    /// The reference of the table that stands for the state; brought in if it is not there.
    ///
    /// # Safety
    /// As [`Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn master(&self, lua: *mut lua_State, state: &State) -> Result<c_int, Unusual> {
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
                let mut room = Room { limits: &Limits::default(), values: 0, depth: 0 };
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
    /// As [`Frame::run`].
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
    /// As [`Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn take_in(&self, lua: *mut lua_State, room: &mut Room<'_>) -> Result<State, Unusual> {
        // SAFETY: the caller's.
        let (shape, cells) = unsafe { take_apart(lua, room) }?;
        Ok(State::from_cells(self.shared(shape), cells.into()))
    }

    /// The state that is the changed copy of `old` on the stack, whose master becomes that of the new one. `None` if the
    /// change goes deeper than values; the master is then given up.
    ///
    /// # Safety
    /// As [`Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn follow(&self, lua: *mut lua_State, old: &State, limits: &Limits) -> Result<Option<State>, Unusual> {
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
            let mut tables = master.tables.iter();
            let follower = &mut Follower { limits, cells: &mut cells, tables: &mut tables };
            match follower.follow(lua, &shape) {
                Ok(true) => {}
                refused => {
                    master.give_up(lua);
                    ffi::lua_settop(lua, top);
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
    /// As [`Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn copy(&self, lua: *mut lua_State, state: &State) -> Result<(), Unusual> {
        // SAFETY: the caller's; nothing is borrowed while Luau may raise an error.
        unsafe {
            self.master(lua, state)?;
            let masters = self.masters.borrow();
            let found = masters.position(state).and_then(|at| masters.kept.get(at));
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
struct Follower<'a, 'b> {
    limits: &'a Limits,
    cells: &'a mut [Cell],
    /// The references of the master's tables that were not met yet.
    tables: &'a mut std::slice::Iter<'b, c_int>,
}

impl Follower<'_, '_> {
    /// Compares the table on the stack, of which only values may have changed, with the cells, and writes what differs into
    /// both cells and master; false if more than values differ.
    ///
    /// # Safety
    /// As [`Frame::run`].
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
            let Some(&table) = self.tables.next() else { return Ok(false) };
            match shape {
                Shape::Cell(_) => return Ok(false),
                // In the order in which `build` met the tables, from the last to the first.
                Shape::Map(fields) => {
                    for (name, field) in fields.iter().rev() {
                        push_text(lua, name);
                        ffi::lua_rawget(lua, -2);
                        if !self.part(lua, field, table, |lua| push_text(lua, name))? {
                            return Ok(false);
                        }
                        ffi::lua_pop(lua, 1);
                    }
                }
                Shape::List(items) => {
                    for (at, item) in items.iter().enumerate().rev() {
                        let index = at as c_int + 1;
                        ffi::lua_rawgeti_(lua, -1, index);
                        if !self.part(lua, item, table, |lua| ffi::lua_pushnumber(lua, f64::from(index)))? {
                            return Ok(false);
                        }
                        ffi::lua_pop(lua, 1);
                    }
                }
            }
            // Each part of the shape is there; nothing else may be. In a list whose items are all found, a walk that passes
            // over as many places as it has items meets whatever else there is: what the array part does not hold of the
            // items fills the places of the rest that are passed over.
            let (mut count, mut at) =
                if let Shape::List(items) = shape { (items.len(), items.len() as c_int) } else { (0, 0) };
            loop {
                at = ffi::lua_rawiter(lua, -1, at);
                if at < 0 {
                    break;
                }
                count += 1;
                ffi::lua_pop(lua, 2);
            }
            Ok(count == shape.len())
        }
    }

    /// As [`Follower::follow`] for the value on the stack, which the master's table holds under the key that `push_key`
    /// pushes.
    ///
    /// # Safety
    /// As [`Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn part(
        &mut self,
        lua: *mut lua_State,
        shape: &Shape,
        table: c_int,
        push_key: impl FnOnce(*mut lua_State),
    ) -> Result<bool, Unusual> {
        // SAFETY: the caller's.
        unsafe {
            let Shape::Cell(number) = shape else { return self.follow(lua, shape) };
            let kind = ffi::lua_type(lua, -1);
            if kind == ffi::LUA_TNIL || kind == ffi::LUA_TTABLE {
                return Ok(false);
            }
            let Some(known) = self.cells.get_mut(*number as usize) else { return Ok(false) };
            let same = match known {
                Cell::Int(number) if kind == ffi::LUA_TNUMBER => {
                    ffi::lua_tonumberx(lua, -1, std::ptr::null_mut()) == *number as f64
                }
                Cell::Short(..) | Cell::Long(_) if kind == ffi::LUA_TSTRING => known.is_text(bytes_at(lua, -1)),
                _ => false,
            };
            if !same {
                *known = cell(lua, self.limits)?;
                reference(lua, table);
                ffi::lua_setreadonly(lua, -1, 0);
                push_key(lua);
                push_cell(lua, known);
                ffi::lua_rawset(lua, -3);
                ffi::lua_setreadonly(lua, -1, 1);
                ffi::lua_pop(lua, 1);
            }
            Ok(true)
        }
    }
}

impl Master {
    /// Lets the machine forget the tables.
    ///
    /// # Safety
    /// As [`Frame::run`]; the master must not be used again.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn give_up(&self, lua: *mut lua_State) {
        for &table in &*self.tables {
            // SAFETY: the caller's.
            unsafe { ffi::lua_unref(lua, table) };
        }
    }
}

impl Masters {
    fn position(&self, state: &State) -> Option<usize> {
        let is_it = |at: &usize| self.kept.get(*at).is_some_and(|master| master.state.is(state));
        Some(self.last).filter(is_it).or_else(|| (0..self.kept.len()).rev().find(is_it))
    }

    fn find(&mut self, state: &State) -> Option<c_int> {
        let at = self.position(state)?;
        self.last = at;
        self.kept.get(at).and_then(|master| master.tables.first().copied())
    }

    fn take(&mut self, state: &State) -> Option<Master> {
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

/// Pushes what a reference stands for.
///
/// # Safety
/// As [`Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn reference(lua: *mut lua_State, reference: c_int) {
    // SAFETY: the caller's.
    unsafe { ffi::lua_rawgeti_(lua, ffi::LUA_REGISTRYINDEX, reference) };
}

/// Pushes the value of a cell.
///
/// # Safety
/// As [`Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn push_cell(lua: *mut lua_State, cell: &Cell) {
    // SAFETY: the caller's.
    unsafe {
        match cell {
            Cell::Nil => ffi::lua_pushnil(lua),
            Cell::Truth(truth) => ffi::lua_pushboolean(lua, c_int::from(*truth)),
            Cell::Int(number) => ffi::lua_pushnumber(lua, *number as f64),
            Cell::Float(number) => ffi::lua_pushnumber(lua, *number),
            text => push_text(lua, text.as_text().unwrap_or_default()),
        }
    }
}

/// Pushes a copy of the table of this shape, found by the references that [`build`] made: this table's first, then, from
/// the last to the first, those of the tables in it.
///
/// # Safety
/// As [`Frame::run`].
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

/// Pushes the frozen table (or the value) of this shape, laid out as [`border::to_lua`] does, and adds the references of
/// all its tables, the outermost last.
///
/// # Safety
/// As [`Frame::run`].
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

/// Pushes a string.
///
/// # Safety
/// As [`Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn push_text(lua: *mut lua_State, text: &str) {
    // SAFETY: the caller's; Luau copies the bytes.
    unsafe { ffi::lua_pushlstring_(lua, text.as_ptr().cast::<c_char>(), text.len()) }
}

/// Pushes a copy of the data, laid out as [`border::to_lua`] does.
///
/// # Safety
/// As [`Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn push(lua: *mut lua_State, value: &Value) {
    // SAFETY: the caller's; each level makes room for itself.
    unsafe {
        ffi::lua_rawcheckstack(lua, SLOTS);
        match value {
            Value::Nil => ffi::lua_pushnil(lua),
            Value::Bool(truth) => ffi::lua_pushboolean(lua, c_int::from(*truth)),
            Value::Int(number) => ffi::lua_pushnumber(lua, *number as f64),
            Value::Float(number) => ffi::lua_pushnumber(lua, *number),
            Value::Text(text) => push_text(lua, text),
            Value::List(items) => {
                ffi::lua_createtable(lua, items.len() as c_int, 0);
                for (at, item) in items.iter().enumerate() {
                    push(lua, item);
                    ffi::lua_rawseti_(lua, -2, at as c_int + 1);
                }
            }
            Value::Map(fields) => {
                ffi::lua_createtable(lua, 0, fields.len() as c_int);
                for (name, field) in fields {
                    push_text(lua, name);
                    push(lua, field);
                    ffi::lua_rawset(lua, -3);
                }
            }
        }
    }
}

/// Counts what crosses, as [`crate::script::border::Meter`] does.
struct Room<'a> {
    limits: &'a Limits,
    values: usize,
    depth: usize,
}

impl Room<'_> {
    fn value(&mut self) -> Result<(), Unusual> {
        self.values += 1;
        if self.values > self.limits.max_values { Err(Unusual) } else { Ok(()) }
    }

    fn enter(&mut self) -> Result<(), Unusual> {
        self.depth += 1;
        if self.depth > self.limits.max_depth { Err(Unusual) } else { Ok(()) }
    }
}

/// The bytes of a string on the stack.
///
/// # Safety
/// The value has to be a string, and the bytes must be used only while it stays on the stack.
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn bytes_at<'a>(lua: *mut lua_State, index: c_int) -> &'a [u8] {
    // SAFETY: a string is not converted, so the call cannot fail; Luau keeps the bytes while the string is alive.
    unsafe {
        let mut length = 0;
        let bytes = ffi::lua_tolstring(lua, index, &raw mut length);
        std::slice::from_raw_parts(bytes.cast::<u8>(), length)
    }
}

/// The text of a string on the stack, if it is text and not too long.
///
/// # Safety
/// As [`bytes_at`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn text_at<'a>(lua: *mut lua_State, index: c_int, limits: &Limits) -> Result<&'a str, Unusual> {
    // SAFETY: the caller's.
    let bytes = unsafe { bytes_at(lua, index) };
    if bytes.len() > limits.max_text_bytes { Err(Unusual) } else { std::str::from_utf8(bytes).map_err(|_| Unusual) }
}

/// What stands in a table.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Empty,
    List,
    Map,
}

/// Walks the table on the stack: `part` is called with each value on top of the stack, its key below it (and the name, if
/// it is one). Refuses what is no list in order and no map.
///
/// # Safety
/// As [`Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn walk(
    lua: *mut lua_State,
    room: &mut Room<'_>,
    mut part: impl FnMut(&mut Room<'_>, Option<&str>) -> Result<(), Unusual>,
) -> Result<(Kind, u32), Unusual> {
    // SAFETY: the caller's.
    unsafe {
        room.enter()?;
        ffi::lua_rawcheckstack(lua, SLOTS);
        if ffi::lua_getmetatable(lua, -1) != 0 {
            return Err(Unusual);
        }
        let (mut kind, mut count, mut at) = (Kind::Empty, 0_u32, 0);
        loop {
            at = ffi::lua_rawiter(lua, -1, at);
            if at < 0 {
                break;
            }
            count += 1;
            let is_name = ffi::lua_type(lua, -2) == ffi::LUA_TSTRING;
            let this = if is_name { Kind::Map } else { Kind::List };
            if count > 1 && kind != this {
                return Err(Unusual);
            }
            kind = this;
            if is_name {
                part(room, Some(text_at(lua, -2, room.limits)?))?;
            } else {
                let is_next = ffi::lua_type(lua, -2) == ffi::LUA_TNUMBER
                    && ffi::lua_tonumberx(lua, -2, std::ptr::null_mut()) == f64::from(count);
                if !is_next {
                    return Err(Unusual);
                }
                part(room, None)?;
            }
            ffi::lua_pop(lua, 2);
        }
        room.depth -= 1;
        Ok((kind, count))
    }
}

/// The value on the stack, which is no table, as a cell.
///
/// # Safety
/// As [`Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn cell(lua: *mut lua_State, limits: &Limits) -> Result<Cell, Unusual> {
    // SAFETY: the caller's.
    unsafe {
        Ok(match ffi::lua_type(lua, -1) {
            ffi::LUA_TNIL => Cell::Nil,
            ffi::LUA_TBOOLEAN => Cell::Truth(ffi::lua_toboolean(lua, -1) != 0),
            ffi::LUA_TNUMBER => Cell::number(&border::from_number(ffi::lua_tonumberx(lua, -1, std::ptr::null_mut()))),
            ffi::LUA_TSTRING => Cell::text(text_at(lua, -1, limits)?),
            _ => return Err(Unusual),
        })
    }
}

/// The shape and the cells of the value on the stack.
///
/// # Safety
/// As [`Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn take_apart(lua: *mut lua_State, room: &mut Room<'_>) -> Result<(Shape, Vec<Cell>), Unusual> {
    let mut cells = Vec::new();
    // SAFETY: the caller's.
    let shape = unsafe { shape_of(lua, room, &mut cells) }?;
    Ok((shape, cells))
}

/// The shape of the value on the stack, whose cells are added to `cells`.
///
/// # Safety
/// As [`Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn shape_of(lua: *mut lua_State, room: &mut Room<'_>, cells: &mut Vec<Cell>) -> Result<Shape, Unusual> {
    room.value()?;
    // SAFETY: the caller's.
    unsafe {
        if ffi::lua_type(lua, -1) != ffi::LUA_TTABLE {
            let number = cells.len() as u32;
            cells.push(cell(lua, room.limits)?);
            return Ok(Shape::Cell(number));
        }
        let (mut items, mut fields) = (Vec::new(), Vec::<(Box<str>, Shape)>::new());
        let (kind, _) = walk(lua, room, |room, name| {
            let part = shape_of(lua, room, cells)?;
            match name {
                None => items.push(part),
                Some(name) => fields.push((name.into(), part)),
            }
            Ok(())
        })?;
        if kind != Kind::Map {
            return Ok(Shape::List(items));
        }
        fields.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Shape::Map(fields))
    }
}

/// The value on the stack.
///
/// # Safety
/// As [`Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn read(lua: *mut lua_State, room: &mut Room<'_>) -> Result<Value, Unusual> {
    room.value()?;
    // SAFETY: the caller's.
    unsafe {
        Ok(match ffi::lua_type(lua, -1) {
            ffi::LUA_TNIL => Value::Nil,
            ffi::LUA_TBOOLEAN => Value::Bool(ffi::lua_toboolean(lua, -1) != 0),
            ffi::LUA_TNUMBER => border::from_number(ffi::lua_tonumberx(lua, -1, std::ptr::null_mut())),
            ffi::LUA_TSTRING => Value::Text(text_at(lua, -1, room.limits)?.to_owned()),
            ffi::LUA_TTABLE => {
                let (mut items, mut fields) = (Vec::new(), BTreeMap::new());
                let (kind, _) = walk(lua, room, |room, name| {
                    let value = read(lua, room)?;
                    match name {
                        None => items.push(value),
                        Some(name) => _ = fields.insert(name.to_owned(), value),
                    }
                    Ok(())
                })?;
                if kind == Kind::Map { Value::Map(fields) } else { Value::List(items) }
            }
            _ => return Err(Unusual),
        })
    }
}

/// Runs the [`Frame`] whose address is the argument.
#[expect(unsafe_code, reason = "a callback of Luau's C interface")]
unsafe extern "C-unwind" fn enter_frame(lua: *mut lua_State) -> c_int {
    // SAFETY: only `Direct::call` calls this function, with a frame that outlives the call.
    unsafe {
        let frame = ffi::lua_tolightuserdata(lua, 1).cast::<Frame<'_, '_>>();
        if let Some(frame) = frame.as_mut() {
            // What is out of the ordinary leaves no result.
            _ = frame.run(lua);
        }
    }
    0
}

/// Adds the author's stack to an error that is a text.
#[expect(unsafe_code, reason = "a callback of Luau's C interface")]
unsafe extern "C-unwind" fn add_traceback(lua: *mut lua_State) -> c_int {
    // SAFETY: called by Luau with the error on the stack, inside the protected call.
    unsafe {
        if ffi::lua_type(lua, -1) == ffi::LUA_TSTRING && ffi::lua_checkstack(lua, ffi::LUA_TRACEBACK_STACK) != 0 {
            let message = ffi::lua_tolstring(lua, -1, std::ptr::null_mut());
            ffi::luaL_traceback(lua, lua, message, 0);
        }
    }
    1
}
