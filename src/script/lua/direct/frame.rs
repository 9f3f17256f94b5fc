//! One call on its way through the machine, inside the protected call: arguments in, the function, results out, and what is
//! asked about a new state along with it.

use std::ffi::c_int;
use std::sync::Arc;

use mlua::ffi::{self, lua_State};

use super::layout::Watched;
use super::masters::{Guess, Master};
use super::native::{ANSWERS, Calls, Native};
use super::rng;
use super::transfer::{Room, push, push_text, read, reference, value_at};
use super::{Direct, SLOTS, Then, Unusual, Use, Want, Way};
use crate::script::state::State;
use crate::script::watchdog::Running;
use crate::script::{Answer, Answers, Argument, Limits, Value};
use crate::seed::Stream;

/// One call on its way through the machine.
pub(super) struct Frame<'a, 'b> {
    pub(super) direct: &'a Direct,
    pub(super) limits: &'a Limits,
    pub(super) function: c_int,
    pub(super) arguments: &'a [Argument<'b>],
    /// Where the `rng` of [`super::objects`] lies on the stack, if the call has one.
    pub(super) rng: Option<c_int>,
    /// What an `rng` of [`rng`] draws from, and what it finds the stream by.
    pub(super) stream: &'a mut Option<Stream>,
    pub(super) lent: Option<*mut *mut Stream>,
    /// Whether questions are asked in the same go.
    pub(super) asks: bool,
    pub(super) usage: Use,
    pub(super) want: Want,
    /// The time budget, which each function has for itself.
    pub(super) running: &'a Running<'a>,
    /// The master that the script writes to. It is here, and so not lost, when the script raises an error.
    pub(super) open: Option<Master>,
    pub(super) result: Option<Value>,
    pub(super) state: Option<State>,
    pub(super) answers: &'a mut Answers,
}

impl Frame<'_, '_> {
    pub(super) fn into_way(self) -> Way {
        match (self.result, self.state) {
            (Some(value), _) => Way::Value(value),
            (None, Some(state)) => Way::State(state),
            (None, None) => Way::Around,
        }
    }

    /// Lets the machine forget a master that a failed call has left open.
    pub(super) fn close(&mut self) {
        if let Some(master) = self.open.take() {
            // SAFETY: no call is under way, and this raises no errors.
            #[expect(unsafe_code, reason = "the C interface of Luau")]
            unsafe {
                Direct::give_up(self.direct.lua, &master);
            }
        }
    }

    /// Makes the call and reads the result. What is not read leaves no result.
    ///
    /// # Safety
    /// `lua` must be inside a protected call with [`SLOTS`] free slots; errors of Luau unwind through this function, which
    /// owns nothing at those moments that would be lost but memory.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn run(&mut self, lua: *mut lua_State) -> Result<(), Unusual> {
        // SAFETY: the caller's.
        unsafe {
            if self.rng.is_none()
                && let Some(Argument::Rng(stream)) = self.arguments.iter().find(|it| matches!(it, Argument::Rng(_)))
            {
                // It lies below the call, which keeps it alive as long as that lasts.
                let stream: *mut Stream = self.stream.insert(Stream::clone(stream));
                self.lent = Some(rng::lend(lua, stream));
                self.rng = Some(ffi::lua_gettop(lua));
            }
            if let Want::State { replaces, then } = self.want
                && self.usage == Use::Change
                && self.run_by_native(lua, replaces, then)?
            {
                return Ok(());
            }
            let base = ffi::lua_gettop(lua);
            // What may be changed lies below the call, so that the result can be told from it: the master itself where it
            // is needed no more, else a copy. After the call the state must not be looked at: this thread may have been
            // given up, and what its caller lent may be gone (`script::workers`).
            let mut own = None;
            if self.usage == Use::Change
                && let Some(Argument::State(state)) = self.arguments.iter().find(|it| matches!(it, Argument::State(_)))
            {
                if matches!(self.want, Want::State { replaces: true, .. }) {
                    self.open = Some(self.direct.open(lua, state)?);
                    // The outermost table.
                    ffi::lua_settop(lua, base + 1);
                } else {
                    self.direct.copy(lua, state)?;
                }
                own = Some((state.identity(), base + 1));
            }
            reference(lua, self.function);
            for argument in self.arguments {
                match argument {
                    Argument::Data(value) => push(lua, value),
                    Argument::Text(text) => push_text(lua, text),
                    Argument::State(state) => match own {
                        Some((own, at)) if own == state.identity() => ffi::lua_pushvalue(lua, at),
                        // A second state that may be changed does not occur; it would only be frozen.
                        _ => reference(lua, self.direct.master(lua, state)?),
                    },
                    Argument::Rng(_) => match self.rng {
                        Some(at) => ffi::lua_pushvalue(lua, at),
                        None => ffi::lua_pushnil(lua),
                    },
                }
            }
            let count = self.arguments.len() as c_int;
            ffi::lua_call(lua, count, 1);
            // The result is the first value above.
            let result = base + 1 + c_int::from(own.is_some());
            let mut room = Room::new(self.limits);
            match self.want {
                Want::Value => self.result = Some(read(lua, &mut room)?),
                Want::State { then, .. } => {
                    let settled = match self.open.take() {
                        Some(master) if ffi::lua_rawequal(lua, base + 1, result) != 0 => {
                            self.direct.settle(lua, master, base + 1, None)?
                        }
                        master => {
                            self.open = master;
                            None
                        }
                    };
                    let state = if let Some(state) = settled {
                        state
                    } else {
                        ffi::lua_settop(lua, result);
                        self.direct.take_in(lua, &mut room)?
                    };
                    // It is there whatever becomes of the questions.
                    self.state = Some(state.clone());
                    if let Some(then) = then {
                        self.ask(lua, &state, then);
                    }
                }
            }
            Ok(())
        }
    }

    /// Makes the call by a function of [`super::native`], with the questions, if there is one for it; false if not.
    ///
    /// # Safety
    /// As [`Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn run_by_native(
        &mut self,
        lua: *mut lua_State,
        replaces: bool,
        then: Option<Then>,
    ) -> Result<bool, Unusual> {
        let native = match self.arguments {
            [Argument::State(state), Argument::Data(_), Argument::Data(_) | Argument::Text(_)] if replaces => {
                state.parts().and_then(|(shape, _)| self.direct.native(shape))
            }
            [Argument::Rng(_) | Argument::Data(_), Argument::Data(_)] => None,
            _ => return Ok(false),
        };
        let then = then.filter(|_| self.direct.answers());
        // SAFETY: the caller's.
        unsafe {
            match (native, self.arguments) {
                (Some(native), [Argument::State(state), seat, action]) => {
                    self.step(lua, &native, state, [seat, action], then)
                }
                (None, [_, _]) => match self.direct.guess() {
                    Some(guess) => self.begin(lua, &guess, then),
                    None => return Ok(false),
                },
                _ => return Ok(false),
            }
        }
        .map(|()| true)
    }

    /// Changes a state in place.
    ///
    /// # Safety
    /// As [`Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn step(
        &mut self,
        lua: *mut lua_State,
        native: &Native,
        state: &State,
        arguments: [&Argument<'_>; 2],
        then: Option<Then>,
    ) -> Result<(), Unusual> {
        // SAFETY: the caller's. After the call the state must not be looked at: this thread may have been given up, and
        // what its caller lent may be gone (`script::workers`).
        unsafe {
            let tables = ffi::lua_gettop(lua) + 1;
            ffi::lua_rawcheckstack(lua, native.slots());
            self.open = Some(self.direct.open(lua, state)?);
            let caller = native.caller(lua, self.direct.tools, Calls::Step, self.function, then);
            let results = ffi::lua_gettop(lua) + 1;
            reference(lua, caller);
            ffi::lua_pushvalue(lua, tables);
            for argument in arguments {
                match argument {
                    Argument::Text(text) => push_text(lua, text),
                    Argument::Data(value) => push(lua, value),
                    _ => ffi::lua_pushnil(lua),
                }
            }
            self.asks = then.is_some();
            ffi::lua_call(lua, 3, ffi::LUA_MULTRET);
            let answers = results + (1 + native.masks() + native.cells) as c_int;
            let is_changed = ffi::lua_gettop(lua) == answers + ANSWERS as c_int - 1;
            let watched = Watched { native, tables, results, is_sealed: then.is_some() };
            let settled = match self.open.take() {
                Some(master) if is_changed => self.direct.settle(lua, master, tables, Some(&watched))?,
                master => {
                    self.open = master;
                    None
                }
            };
            if let Some(state) = settled {
                self.state = Some(state);
                self.read_answers(lua, answers, then, tables..results);
            } else {
                ffi::lua_settop(lua, results);
                self.state = Some(self.direct.take_in(lua, &mut Room::new(self.limits))?);
            }
            Ok(())
        }
    }

    /// Makes a state, of a shape that is guessed.
    ///
    /// # Safety
    /// As [`Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn begin(&mut self, lua: *mut lua_State, guess: &Guess, then: Option<Then>) -> Result<(), Unusual> {
        let native = &guess.native;
        // SAFETY: the caller's.
        unsafe {
            let results = ffi::lua_gettop(lua) + 1;
            ffi::lua_rawcheckstack(lua, native.slots());
            let caller = native.caller(lua, self.direct.tools, Calls::Begin, self.function, then);
            reference(lua, caller);
            for argument in self.arguments {
                match (argument, self.rng) {
                    (Argument::Data(value), _) => push(lua, value),
                    (_, Some(at)) => ffi::lua_pushvalue(lua, at),
                    (_, None) => ffi::lua_pushnil(lua),
                }
            }
            self.asks = then.is_some();
            ffi::lua_call(lua, 2, ffi::LUA_MULTRET);
            if let Some(state) = self.direct.take_in_guessed(lua, guess, results) {
                self.state = Some(state);
                let (own, cells) = (results + native.tables as c_int, results + 2 * native.tables as c_int);
                self.read_answers(lua, cells + native.cells as c_int, then, own..cells);
            } else {
                ffi::lua_settop(lua, results);
                self.state = Some(self.direct.take_in(lua, &mut Room::new(self.limits))?);
            }
            Ok(())
        }
    }

    /// Reads the answers that lie from this index on; the state's tables lie in the places `own`.
    ///
    /// # Safety
    /// As [`Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn read_answers(&mut self, lua: *mut lua_State, at: c_int, then: Option<Then>, own: std::ops::Range<c_int>) {
        let Some(then) = then else { return };
        // SAFETY: the caller's.
        unsafe {
            let first = value_at(lua, at, self.limits);
            match first {
                Some(Value::Nil) if then.at_nil.is_some() => {
                    self.answers.at_nil = self.direct.constants.value(lua, at + 1, self.limits, own);
                }
                Some(Value::Int(number @ 0..64)) => {
                    for ((ask, answer), at) in then.asks.iter().zip(&mut self.answers.then).zip(at + 2..) {
                        if ask.is_some_and(|(_, after)| after >> number & 1 == 1) {
                            let list = self.direct.constants.texts(lua, at, self.limits, own.clone());
                            *answer =
                                list.map(Answer::Texts).or_else(|| value_at(lua, at, self.limits).map(Answer::Value));
                        }
                    }
                }
                _ => {}
            }
            self.answers.first = first;
        }
    }

    /// Asks about the new state. What is not answered in an ordinary way is left out.
    ///
    /// # Safety
    /// As [`Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn ask(&mut self, lua: *mut lua_State, state: &State, then: Then) {
        // SAFETY: the caller's.
        unsafe {
            if !state.is_table() {
                return;
            }
            let Ok(table) = self.direct.master(lua, state) else { return };
            let first = self.answer(lua, then.first, table, None);
            match &first {
                Some(Value::Nil) => {
                    if let Some(at_nil) = then.at_nil {
                        self.answers.at_nil = self.answer(lua, at_nil, table, None).map(Arc::new);
                    }
                }
                Some(Value::Int(number @ 0..64)) => {
                    for (at, ask) in then.asks.into_iter().enumerate() {
                        if let Some((function, _)) = ask.filter(|(_, after)| after >> number & 1 == 1) {
                            let answer = self.answer(lua, function, table, Some(*number));
                            self.answers.then[at] = answer.map(Answer::Value);
                        }
                    }
                }
                _ => {}
            }
            self.answers.first = first;
        }
    }

    /// The function's answer about the state with this table, and about the number if there is one.
    ///
    /// # Safety
    /// As [`Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    unsafe fn answer(&self, lua: *mut lua_State, function: c_int, table: c_int, number: Option<i64>) -> Option<Value> {
        self.running.renew();
        // SAFETY: the caller's.
        unsafe {
            let top = ffi::lua_gettop(lua);
            ffi::lua_rawcheckstack(lua, SLOTS);
            reference(lua, function);
            reference(lua, table);
            if let Some(number) = number {
                ffi::lua_pushnumber(lua, number as f64);
            }
            ffi::lua_call(lua, 1 + c_int::from(number.is_some()), 1);
            let answer = read(lua, &mut Room::new(self.limits)).ok();
            ffi::lua_settop(lua, top);
            answer
        }
    }
}

/// Runs the [`Frame`] whose address is the argument.
#[expect(unsafe_code, reason = "a callback of Luau's C interface")]
pub(super) unsafe extern "C-unwind" fn enter_frame(lua: *mut lua_State) -> c_int {
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
