//! Where a call was when its memory was used up. Luau asks nobody for the calls then, and mlua does not look; so the call
//! is made once more with a look at them. Only calls that failed are, so that others cost nothing.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int};

use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua, MultiValue, Value as LuaValue};

/// Calls that are looked at.
const MAX_LEVELS: c_int = 200;

/// A call that was running.
#[derive(Clone, Debug)]
pub(super) struct Level {
    /// The text that its function stands in, as the machine knows it.
    pub(super) text: String,
    pub(super) line: u32,
    pub(super) function: Option<String>,
}

thread_local! {
    /// The calls at the last error on this thread, the innermost first.
    static LEVELS: RefCell<Vec<Level>> = const { RefCell::new(Vec::new()) };
}

/// Calls the function and returns the calls that were running when it failed, the innermost first; none if it did not fail.
#[expect(unsafe_code, reason = "mlua has no call with an error handler of one's own")]
pub(super) fn calls_at_error(lua: &Lua, function: &Function, arguments: Vec<LuaValue>) -> Vec<Level> {
    LEVELS.with_borrow_mut(Vec::clear);
    let mut stack = MultiValue::from_vec(arguments);
    stack.push_front(LuaValue::Function(function.clone()));
    // SAFETY: mlua hands over a stack with the function and its arguments alone on it, and room for more, in a protected
    // call. `note` is put below them; `lua_pcall` takes function and arguments away and leaves one result or one error.
    let called = unsafe {
        lua.exec_raw::<()>(stack, |state| {
            ffi::lua_rawcheckstack(state, 2);
            ffi::lua_pushcfunction(state, note);
            ffi::lua_insert(state, 1);
            let arguments = ffi::lua_gettop(state) - 2;
            ffi::lua_pcall(state, arguments, 1, 1);
            ffi::lua_settop(state, 0);
        })
    };
    // What cannot even be called has no calls to show.
    drop(called);
    LEVELS.with_borrow_mut(std::mem::take)
}

/// Notes the calls that are running. Allocates nothing in the machine, whose memory may be used up.
#[expect(unsafe_code, reason = "a callback of Luau's C interface")]
unsafe extern "C-unwind" fn note(state: *mut lua_State) -> c_int {
    let mut levels = Vec::new();
    for level in 0..MAX_LEVELS {
        // SAFETY: all fields of `lua_Debug` are numbers, pointers and arrays of bytes, for which zeros are valid.
        let mut about: ffi::lua_Debug = unsafe { std::mem::zeroed() };
        // SAFETY: called by Luau while the calls are still there; `lua_getinfo` fills the fields that the letters name, and
        // gives 0 past the last call.
        if unsafe { ffi::lua_getinfo(state, level, c"sln".as_ptr(), &raw mut about) } == 0 {
            break;
        }
        let Ok(line) = u32::try_from(about.currentline) else { continue };
        // SAFETY: `lua_getinfo` sets both to null or to texts that live as long as the function that they speak of.
        let (text, function) = unsafe { (text(about.short_src), text(about.name)) };
        levels.extend(text.map(|text| Level { text, line, function }));
    }
    LEVELS.with_borrow_mut(|noted| *noted = levels);
    // The error itself is what stays on the stack.
    1
}

/// The text that a pointer of `lua_Debug` leads to.
///
/// # Safety
/// The pointer has to be null, or lead to bytes that end with a zero.
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn text(pointer: *const c_char) -> Option<String> {
    // SAFETY: the caller's.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}
