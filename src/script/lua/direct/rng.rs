//! The `rng` of a direct call: what [`crate::script::lua::objects::Rng`] is, without its detours. For scripts that catch no
//! errors, so that only their texts have to be the same.

use std::ffi::c_int;

use mlua::ffi::{self, lua_State};

use super::transfer::{push_text, read_number};
use crate::script::loan::OVER;
use crate::script::lua::objects::MAX_SHUFFLED;
use crate::seed::Stream;

/// The tag of these objects; mlua gives its own none.
const TAG: c_int = 71;

/// Makes the machine know the methods.
///
/// # Safety
/// As [`super::Frame::run`]; once a machine.
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn install(lua: *mut lua_State) {
    /// A method and its name, for the script and for messages.
    type Method = (&'static str, ffi::lua_CFunction);
    const METHODS: [Method; 4] = [("int", int), ("float", float), ("pick", pick), ("shuffle", shuffle)];
    // SAFETY: the caller's.
    unsafe {
        ffi::lua_createtable(lua, 0, 2);
        ffi::lua_createtable(lua, 0, METHODS.len() as c_int);
        for (name, method) in METHODS {
            push_text(lua, name);
            ffi::lua_pushcclosurek(lua, method, c"rng".as_ptr(), 0, None);
            ffi::lua_rawset(lua, -3);
        }
        ffi::lua_setreadonly(lua, -1, 1);
        ffi::lua_rawsetfield(lua, -2, c"__index".as_ptr());
        ffi::lua_pushboolean(lua, 0);
        ffi::lua_rawsetfield(lua, -2, c"__metatable".as_ptr());
        ffi::lua_setreadonly(lua, -1, 1);
        ffi::lua_setuserdatametatable(lua, TAG);
    }
}

/// Pushes an `rng` that draws from the stream, and returns its slot, which has to be set to null before the stream goes.
///
/// # Safety
/// As [`super::Frame::run`], after [`install`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn lend(lua: *mut lua_State, stream: *mut Stream) -> *mut *mut Stream {
    // SAFETY: the caller's; Luau aligns the memory of objects to 16 bytes, and this one has no destructor.
    unsafe {
        let slot = ffi::lua_newuserdatataggedwithmetatable(lua, size_of::<*mut Stream>(), TAG).cast::<*mut Stream>();
        slot.write(stream);
        slot
    }
}

/// The stream that is lent; an error of Luau if there is none.
///
/// # Safety
/// Inside a call from Luau, where nothing waits to be dropped.
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn stream<'a>(lua: *mut lua_State) -> &'a mut Stream {
    // SAFETY: the tag is given to objects of `lend` only; the stream is there while the slot is not null, and calls of the
    // methods follow one another.
    unsafe {
        let slot = ffi::lua_touserdatatagged(lua, 1, TAG).cast::<*mut Stream>();
        match slot.as_mut().and_then(|stream| stream.as_mut()) {
            Some(stream) => stream,
            None => fail(lua, OVER),
        }
    }
}

/// Raises an error.
///
/// # Safety
/// As [`stream`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn fail(lua: *mut lua_State, message: &str) -> ! {
    // SAFETY: the caller's.
    unsafe {
        push_text(lua, message);
        ffi::lua_error(lua)
    }
}

/// The whole number at this place.
///
/// # Safety
/// As [`stream`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn whole(lua: *mut lua_State, index: c_int) -> i64 {
    // SAFETY: the caller's.
    unsafe {
        let number = (ffi::lua_type(lua, index) == ffi::LUA_TNUMBER).then(|| read_number(lua, index).as_int());
        match number.flatten() {
            Some(number) => number,
            // The call is made again by the way that words this.
            None => fail(lua, "`rng:int`: expected a whole number"),
        }
    }
}

/// The length of the list that is the argument.
///
/// # Safety
/// As [`stream`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn length(lua: *mut lua_State) -> usize {
    // SAFETY: the caller's.
    unsafe {
        if ffi::lua_type(lua, 2) != ffi::LUA_TTABLE {
            fail(lua, "expected a list");
        }
        ffi::lua_objlen(lua, 2) as usize
    }
}

#[expect(unsafe_code, reason = "a callback of Luau's C interface")]
unsafe extern "C-unwind" fn int(lua: *mut lua_State) -> c_int {
    // SAFETY: called by Luau; no error is raised while anything waits to be dropped.
    unsafe {
        let stream = stream(lua);
        let (low, high) = (whole(lua, 2), whole(lua, 3));
        if low > high {
            fail(lua, "`rng:int`: the range is empty");
        }
        ffi::lua_pushnumber(lua, stream.int(low, high) as f64);
    }
    1
}

#[expect(unsafe_code, reason = "a callback of Luau's C interface")]
unsafe extern "C-unwind" fn float(lua: *mut lua_State) -> c_int {
    // SAFETY: as for `int`.
    unsafe { ffi::lua_pushnumber(lua, stream(lua).float()) };
    1
}

#[expect(unsafe_code, reason = "a callback of Luau's C interface")]
unsafe extern "C-unwind" fn pick(lua: *mut lua_State) -> c_int {
    // SAFETY: as for `int`.
    unsafe {
        let stream = stream(lua);
        let length = length(lua);
        if length == 0 {
            fail(lua, "`rng:pick`: the list is empty");
        }
        ffi::lua_rawgeti_(lua, 2, stream.index(length) as c_int + 1);
    }
    1
}

#[expect(unsafe_code, reason = "a callback of Luau's C interface")]
unsafe extern "C-unwind" fn shuffle(lua: *mut lua_State) -> c_int {
    // SAFETY: as for `int`; a list that is frozen raises an error in `lua_rawseti`.
    unsafe {
        let stream = stream(lua);
        let length = length(lua);
        if length > MAX_SHUFFLED {
            fail(lua, "`rng:shuffle`: the list is too long");
        }
        // The draws of `Stream::shuffle`.
        for last in (1..length).rev() {
            let other = stream.index(last + 1);
            ffi::lua_rawgeti_(lua, 2, last as c_int + 1);
            ffi::lua_rawgeti_(lua, 2, other as c_int + 1);
            ffi::lua_rawseti_(lua, 2, last as c_int + 1);
            ffi::lua_rawseti_(lua, 2, other as c_int + 1);
        }
        ffi::lua_settop(lua, 2);
    }
    1
}
