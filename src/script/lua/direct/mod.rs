//! Calls without detours: arguments go in and results come out through Luau's C interface, in one protected call, and
//! states stay in the virtual machine. [`super::border`] does the same for every value and every error; whatever is out
//! of the ordinary here (an error, a value that may not cross) gives [`Way::Around`], and the caller takes that way.
//!
//! A state that came from this machine is found again as a table, the *master*. Functions that only look get the master
//! itself, frozen; a script that writes into it fails and is then given copies, as everybody who may write is. A master
//! has the layout that [`super::border::to_lua`] would give it, so that `pairs` walks in the same order whether a state
//! was at hand or had to be brought in.

mod masters; // states as tables in the machine
mod rng; // what a script draws from
mod transfer; // values into the machine and out of it

use std::cell::{Cell as Flag, RefCell};
use std::ffi::{c_int, c_void};
use std::sync::Arc;

use mlua::Lua;
use mlua::ffi::{self, lua_State};

use crate::script::state::{Shape, State};
use crate::script::{Argument, Limits, Value};
use crate::seed::Stream;
use masters::Masters;
use transfer::{Room, bytes_at, push, read, reference};

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
    /// Whether the script gets the `rng` of [`rng`].
    lends: bool,
}

/// One call on its way through the machine.
struct Frame<'a, 'b> {
    direct: &'a Direct,
    limits: &'a Limits,
    function: c_int,
    arguments: &'a [Argument<'b>],
    /// Where the `rng` of [`super::objects`] lies on the stack, if the call has one.
    rng: Option<c_int>,
    /// What an `rng` of [`rng`] draws from, and what it finds the stream by.
    stream: &'a mut Option<Stream>,
    lent: Option<*mut *mut Stream>,
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
                rng::install(lua);
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
            lends: !copies,
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

    /// Whether an [`Argument::Rng`] is lent to the script without help.
    pub(super) fn lends(&self) -> bool {
        self.lends
    }

    /// Gives the script copies of all states from now on.
    pub(super) fn stop_sharing(&self) {
        self.copies.set(true);
    }

    /// Calls the function. `rng` is what the script sees for an [`Argument::Rng`], if it [is not lent](Self::lends) here;
    /// one that is has been drawn from only if the call gives a result.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) fn call(
        &self,
        lua: &Lua,
        function: c_int,
        arguments: &mut [Argument<'_>],
        rng: Option<mlua::AnyUserData>,
        (usage, want): (Use, Want),
        expired: impl Fn() -> bool,
    ) -> Way {
        let usage = if self.copies.get() { Use::Change } else { usage };
        let mut drawn = None;
        let mut frame = Frame {
            direct: self,
            limits: &self.limits,
            function,
            arguments,
            rng: None,
            stream: &mut drawn,
            lent: None,
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
            // Nothing was collected since the object left the stack.
            if let Some(lent) = frame.lent {
                lent.write(std::ptr::null_mut());
            }
            let failure = (status != ffi::LUA_OK).then(|| match ffi::lua_type(lua, -1) {
                ffi::LUA_TSTRING => String::from_utf8_lossy(bytes_at(lua, -1)).into_owned(),
                _ => String::new(),
            });
            ffi::lua_settop(lua, top);
            failure
        };
        let way = match failure {
            failure if expired() => Way::Expired(failure.map(mlua::Error::RuntimeError)),
            None => frame.into_way(),
            Some(_) => Way::Around,
        };
        if let (Some(drawn), Way::Value(_) | Way::State(_)) = (drawn, &way) {
            let stream = arguments.iter_mut().find_map(|argument| match argument {
                Argument::Rng(stream) => Some(stream),
                _ => None,
            });
            if let Some(stream) = stream {
                **stream = drawn;
            }
        }
        way
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
            if self.rng.is_none()
                && let Some(Argument::Rng(stream)) = self.arguments.iter().find(|it| matches!(it, Argument::Rng(_)))
            {
                // It lies below the call, which keeps it alive as long as that lasts.
                let stream: *mut Stream = self.stream.insert(Stream::clone(stream));
                self.lent = Some(rng::lend(lua, stream));
                self.rng = Some(ffi::lua_gettop(lua));
            }
            let base = ffi::lua_gettop(lua);
            // A copy lies below the call, so that the result can be told from it. After the call the state itself must not
            // be looked at: this thread may have been given up, and what its caller lent may be gone (`script::workers`).
            let mut copied = None;
            if self.usage == Use::Change
                && let Some(Argument::State(state)) = self.arguments.iter().find(|it| matches!(it, Argument::State(_)))
            {
                self.direct.copy(lua, state)?;
                copied = Some((state.identity(), base + 1));
            }
            reference(lua, self.function);
            for argument in self.arguments {
                match argument {
                    Argument::Data(value) => push(lua, value),
                    Argument::State(state) => match copied {
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
            ffi::lua_call(lua, self.arguments.len() as c_int, 1);
            let mut room = Room::new(self.limits);
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
