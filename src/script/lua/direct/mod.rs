//! Calls without detours: arguments go in and results come out through Luau's C interface, in one protected call, and
//! states stay in the virtual machine. [`super::border`] does the same for every value and every error; whatever is out
//! of the ordinary here (an error, a value that may not cross) gives [`Way::Around`], and the caller takes that way.
//!
//! A state that came from this machine is found again as a table, the *master*. Functions that only look get the master
//! itself, frozen; a script that writes into it fails and is then given copies, as everybody who may write is. A master
//! has the layout that [`super::border::to_lua`] would give it, so that `pairs` walks in the same order whether a state
//! was at hand or had to be brought in.
//!
//! A state that is needed no more is changed in place: the script writes to the master itself, and what it wrote is read
//! back. If it did more than change values, or failed, the master is forgotten and the state is built again when it is
//! needed. Of a shape that is changed often, [`native`] does the reading and building in the machine.

mod constants; // tables that never change
mod frame; // one call on its way through the machine
mod layout; // how the tables of a state lie, and what was written into them
mod masters; // states as tables in the machine
mod native; // functions that are written for one shape of states
mod rng; // what a script draws from
mod tables; // tables made of states, and back
mod transfer; // values into the machine and out of it

use std::cell::{Cell as Flag, RefCell};
use std::ffi::{c_int, c_void};
use std::sync::Arc;

use mlua::Lua;
use mlua::ffi::{self, lua_State};

use crate::script::state::{Shape, State};
use crate::script::watchdog::Running;
use crate::script::{Answers, Argument, Limits, Value};
use crate::seed::Stream;
use constants::Constants;
use frame::{Frame, enter_frame};
use masters::{KnownShape, Masters};
use native::Tools;
use transfer::bytes_at;

/// Calls that failed in a question, after which a script is asked by calls of their own.
const MAX_UNANSWERED: u32 = 8;

/// Stack slots that one level of nesting needs.
const SLOTS: c_int = 8;

/// What a function does with a state that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It looks at it; a change is lost.
    Look,
    /// It may change it and return it.
    Change,
}

/// What the caller wants from a call.
#[derive(Clone, Copy)]
pub(super) enum Want {
    /// The result as a value.
    Value,
    /// The result as a state; the state that was handed in is needed no more if `replaces`.
    State { replaces: bool, then: Option<Then> },
}

/// [`crate::script::Questions`] with the numbers of the functions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Then {
    pub(super) first: c_int,
    pub(super) at_nil: Option<c_int>,
    /// Each with the first answers after which it is asked.
    pub(super) asks: [Option<(c_int, u64)>; 3],
}

/// What a call gave.
pub(super) enum Way {
    /// The result.
    Value(Value),
    /// The result, a list or map for all that [`State::is_table`] says.
    State(State),
    /// Something out of the ordinary happened; nothing is known.
    Around,
    /// The same, in a question that was asked in the same go as the call was made: without questions the call may do well.
    Unanswered,
    /// The time was over; the error has the author's stack.
    Expired(Option<mlua::Error>),
}

/// The direct way into one virtual machine.
pub(super) struct Direct {
    lua: *mut lua_State,
    limits: Limits,
    enter: c_int,
    handler: c_int,
    tools: Tools,
    functions: RefCell<Vec<(&'static str, c_int)>>,
    /// The function that was asked for last.
    last_function: Flag<(&'static str, c_int)>,
    masters: RefCell<Masters>,
    /// The shapes that were seen last, so that states share them.
    shapes: RefCell<Vec<KnownShape>>,
    constants: Constants,
    /// A shape that functions should be written for.
    ripe: RefCell<Option<Arc<Shape>>>,
    /// New states in a row that were of another shape than guessed.
    misses: Flag<u32>,
    /// Calls that failed in a question.
    unanswered: Flag<u32>,
    /// Whether the script has to get copies even where it should only look.
    copies: Flag<bool>,
    /// Whether the script gets the `rng` of [`rng`].
    lends: bool,
    /// Whether the script may log.
    logs: bool,
}

/// A value that may not cross, or that does so only with help.
struct Unusual;

impl Direct {
    /// The direct way into `lua`. `texts` are those of the script: one that can catch errors could notice that a state
    /// is frozen, and always gets copies.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) fn new<'a>(lua: &Lua, limits: &Limits, texts: impl Iterator<Item = &'a str>) -> mlua::Result<Self> {
        let (mut copies, mut logs) = (false, false);
        for text in texts {
            copies |= ["pcall", "coroutine", "frozen"].iter().any(|word| text.contains(word));
            logs |= may_log(text);
        }
        let mut state = std::ptr::null_mut();
        let (mut enter, mut handler, mut tools) = (0, 0, Tools { seal: 0, progress: 0 });
        // SAFETY: a protected call; what it pushes is taken off after the references were made. The state is the machine's
        // main one, in which calls of the host run, and lives as long as the machine.
        unsafe {
            lua.exec_raw::<()>((), |lua| {
                state = ffi::lua_mainthread(lua);
                ffi::lua_pushcclosurek(lua, enter_frame, c"call".as_ptr(), 0, None);
                enter = ffi::lua_ref(lua, -1);
                ffi::lua_pushcclosurek(lua, add_traceback, c"traceback".as_ptr(), 0, None);
                handler = ffi::lua_ref(lua, -1);
                ffi::lua_pushcclosurek(lua, seal, c"seal".as_ptr(), 0, None);
                tools.seal = ffi::lua_ref(lua, -1);
                ffi::lua_createtable(lua, 1, 0);
                tools.progress = ffi::lua_ref(lua, -1);
                rng::install(lua);
                ffi::lua_settop(lua, 0);
            })
        }?;
        Ok(Self {
            lua: state,
            limits: limits.clone(),
            enter,
            handler,
            tools,
            functions: RefCell::default(),
            last_function: Flag::default(),
            masters: RefCell::default(),
            shapes: RefCell::default(),
            constants: Constants::default(),
            ripe: RefCell::default(),
            misses: Flag::default(),
            unanswered: Flag::default(),
            copies: Flag::new(copies),
            lends: !copies,
            logs,
        })
    }

    /// The number of a function, found once by `find`.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) fn function(
        &self,
        lua: &Lua,
        name: &'static str,
        find: impl FnOnce() -> Option<mlua::Function>,
    ) -> Option<c_int> {
        // Mostly the same text, not one that reads the same.
        let (last, number) = self.last_function.get();
        if std::ptr::eq(last, name) {
            return Some(number);
        }
        let known = self.functions.borrow().iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        if let Some(number) = known {
            self.last_function.set((name, number));
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
        self.functions.borrow_mut().push((name, number));
        Some(number)
    }

    /// Whether a script is trusted only to look at the states that it should not change.
    pub(super) fn shares(&self) -> bool {
        !self.copies.get()
    }

    /// Whether an [`Argument::Rng`] is lent to the script without help.
    pub(super) fn lends(&self) -> bool {
        self.lends
    }

    /// Whether questions can be asked with a call: not of a script that sees copies of states, not of one that would log
    /// once more when it is asked again, and not of one that mostly fails or takes too long.
    pub(super) fn answers(&self) -> bool {
        self.shares() && !self.logs && self.unanswered.get() < MAX_UNANSWERED
    }

    /// Gives the script copies of all states from now on.
    pub(super) fn stop_sharing(&self) {
        self.copies.set(true);
    }

    /// Calls the function. `rng` is what the script sees for an [`Argument::Rng`], if it [is not lent](Self::lends) here. Of
    /// one that is, a copy is drawn from and returned; what was asked about a state is put into `answers`. What the arguments
    /// lend is not written to, because this thread may have been given up during the call.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) fn call(
        &self,
        lua: &Lua,
        function: c_int,
        arguments: &[Argument<'_>],
        rng: Option<mlua::AnyUserData>,
        (usage, want): (Use, Want),
        (running, answers): (&Running<'_>, &mut Answers),
    ) -> (Way, Option<Stream>) {
        let expired = || running.expired();
        let usage = if self.copies.get() { Use::Change } else { usage };
        let mut drawn = None;
        let mut frame = Frame {
            direct: self,
            limits: &self.limits,
            function,
            arguments,
            rng: None,
            asks: false,
            stream: &mut drawn,
            lent: None,
            usage,
            want,
            running,
            open: None,
            result: None,
            state: None,
            answers,
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
            frame.close();
            let way = match done {
                Ok(()) if !expired() => frame.into_way(),
                Ok(()) => Way::Expired(None),
                Err(error) if expired() => Way::Expired(Some(error)),
                Err(_) => Way::Around,
            };
            return (way, None);
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
            // Nothing was collected since the object left the stack.
            if let Some(lent) = frame.lent {
                lent.write(std::ptr::null_mut());
            }
            if frame.asks && (status != ffi::LUA_OK || expired()) {
                // The functions share one budget here, which is not what each of them has.
                frame.asks = self.is_asking(lua);
            }
            let failure = (status != ffi::LUA_OK).then(|| match ffi::lua_type(lua, -1) {
                ffi::LUA_TSTRING => String::from_utf8_lossy(bytes_at(lua, -1)).into_owned(),
                _ => String::new(),
            });
            ffi::lua_settop(lua, top);
            frame.close();
            if status == ffi::LUA_ERRMEM {
                // What is kept here is no fault of the script's: it gets all the room there is when the call is made again.
                self.give_up_all(lua);
                self.constants.give_up(lua);
                ffi::lua_gc(lua, ffi::LUA_GCCOLLECT, 0);
            }
            failure
        };
        let way = match failure {
            failure if frame.asks && (failure.is_some() || expired()) => {
                self.unanswered.set(self.unanswered.get() + 1);
                Way::Unanswered
            }
            failure if expired() => Way::Expired(failure.map(mlua::Error::RuntimeError)),
            None => frame.into_way(),
            // A question failed; a call of its own tells how.
            Some(_) if frame.state.is_some() => {
                *frame.answers = Answers::default();
                frame.into_way()
            }
            Some(_) => Way::Around,
        };
        (way, drawn)
    }
}

impl Direct {
    /// Whether the script's own function had returned when the call that has just ended failed, and a question was asked.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    fn is_asking(&self, lua: *mut lua_State) -> bool {
        // SAFETY: no call is under way; this raises no errors, takes two free slots and leaves them free.
        unsafe {
            ffi::lua_rawgeti_(lua, ffi::LUA_REGISTRYINDEX, self.tools.progress);
            ffi::lua_rawgeti_(lua, -1, 1);
            let is_asking = ffi::lua_toboolean(lua, -1) != 0;
            ffi::lua_pop(lua, 2);
            is_asking
        }
    }
}

/// Makes the tables that are its arguments read-only.
#[expect(unsafe_code, reason = "a callback of Luau's C interface")]
unsafe extern "C-unwind" fn seal(lua: *mut lua_State) -> c_int {
    // SAFETY: called by functions of `native`, with tables.
    unsafe {
        for at in 1..=ffi::lua_gettop(lua) {
            ffi::lua_setreadonly(lua, at, 1);
        }
    }
    0
}

/// Whether a script may call `gift.log`: it names it, or has another use for `gift` than to name one of its functions (or
/// the program in a comment).
fn may_log(text: &str) -> bool {
    text.match_indices("gift").any(|(at, name)| {
        let rest = &text[at + name.len()..];
        rest.starts_with(".log") || !rest.starts_with(['.', '-'])
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_may_log_are_known() {
        for text in ["gift.log('x')", "local log = gift.log", "local g = gift\ng.log('x')", "gift['log']('x')"] {
            assert!(may_log(text), "{text}");
        }
        for text in ["state.log = 1", "gift.illegal('no')", "-- for gift-host: log", "---@type gift.Game"] {
            assert!(!may_log(text), "{text}");
        }
    }
}
