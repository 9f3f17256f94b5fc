//! Stops a virtual machine from another thread. The only unsafe code of the room: Luau offers this as a C interface.

use std::ffi::c_int;
use std::sync::atomic::{AtomicPtr, Ordering};

use mlua::Lua;
use mlua::ffi::{self, lua_Callbacks, lua_State};

use crate::script::watchdog::Interrupt;

/// The callbacks of one virtual machine.
pub(super) struct LuaInterrupt {
    callbacks: AtomicPtr<lua_Callbacks>,
}

impl LuaInterrupt {
    /// The interrupt of `lua`. [`Interrupt::arm`] may be called only while a call into `lua` runs, which the watchdog's
    /// timer sees to.
    #[expect(unsafe_code, reason = "mlua's `set_interrupt` cannot be set from another thread and costs time when set")]
    pub(super) fn new(lua: &Lua) -> mlua::Result<Self> {
        let callbacks = AtomicPtr::default();
        // SAFETY: `lua_callbacks` reads a pointer from the state that `exec_raw` hands over, and raises no error.
        unsafe { lua.exec_raw::<()>((), |state| callbacks.store(ffi::lua_callbacks(state), Ordering::Release)) }?;
        Ok(Self { callbacks })
    }

    /// Writes the interrupt of the virtual machine; null for none.
    #[expect(
        unsafe_code,
        reason = "Luau documents the field as one that any thread may write; mlua offers no such way"
    )]
    fn store(&self, interrupt: *mut ()) {
        let callbacks = self.callbacks.load(Ordering::Acquire);
        // SAFETY: the pointer was taken from a live virtual machine, and both callers run while a call into it is under
        // way, so it lives still. The field is a pointer-sized `Option<fn>`, aligned as such, whose `None` is null; Luau
        // reads it at safepoints and allows other threads to write it (lua.h, `lua_Callbacks::interrupt`).
        unsafe { AtomicPtr::from_ptr((&raw mut (*callbacks).interrupt).cast::<*mut ()>()) }
            .store(interrupt, Ordering::Release);
    }
}

impl Interrupt for LuaInterrupt {
    fn arm(&self) {
        self.store((raise as *const ()).cast_mut());
    }

    fn disarm(&self) {
        self.store(std::ptr::null_mut());
    }
}

/// Raises an error at every safepoint. It stays set until the host's call ends, so a `pcall` that catches one error meets
/// the next at once.
#[expect(unsafe_code, reason = "a callback of Luau's C interface")]
unsafe extern "C-unwind" fn raise(state: *mut lua_State, collecting: c_int) {
    // No error may be raised while the garbage collector runs.
    if collecting >= 0 {
        return;
    }
    // SAFETY: called by Luau at a safepoint of `state`, where errors are allowed; the stack has room for one more value
    // after the check, and nothing on this Rust frame needs dropping when `lua_error` unwinds it.
    unsafe {
        ffi::lua_rawcheckstack(state, 1);
        ffi::lua_pushstring(state, c"time budget used up".as_ptr());
        ffi::lua_error(state);
    }
}
