//! The virtual machine of a script: which globals it has, and what bounds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlua::chunk::{Chunk, ChunkMode, Compiler};
use mlua::state::{GcIncParams, GcMode};
use mlua::{Function, Lua, LuaOptions, MultiValue, StdLib, Table, Value as LuaValue};

use super::border;
use super::bytecode::assigns_top_level as assigns_top_level_of;
use super::errors::{Illegal, NO_MODULE, module_name};
use super::interrupt::LuaInterrupt;
use super::isolation::is_refused_write;
use super::objects::Rows;
use crate::script::border::reason as cut;
use crate::script::library::JSON;
use crate::script::watchdog::Timer;
use crate::script::{HostFunction, Library, Limits, Source};

/// Where the machine keeps the results of modules, and the modules as functions.
const MODULES: &str = "gift.modules";
const MODULE_FUNCTIONS: &str = "gift.module_functions";

/// Functions of the library that Luau does faster than the host, for the usual arguments. Each text is called with the
/// host's function, which does the rest, and returns the function.
const FASTER: [(&str, &str); 4] = [
    ("free", include_str!("free.luau")),
    ("grid", include_str!("grid.luau")),
    ("line", include_str!("line.luau")),
    ("template", include_str!("template.luau")),
];

/// Globals that reach out of the script, or that tell it about the process.
const REMOVED: [&str; 8] =
    ["loadstring", "require", "getfenv", "setfenv", "collectgarbage", "gcinfo", "newproxy", "print"];

/// How large the memory in use may be when a collection ends, in per cent of what the one before left. Luau's own 200 looks
/// through all that a script has loaded twice as often; what does not fit the limit is collected before a call is given up.
const GARBAGE_GOAL: std::ffi::c_int = 400;

/// Set when a call has tried to write to a table that is read-only, also where it caught the error.
pub(super) type RefusedWrite = Arc<AtomicBool>;

/// A virtual machine with the standard globals, its timer, and the sign of a refused write.
pub(super) fn machine(limits: &Limits) -> mlua::Result<(Lua, Arc<Timer>, RefusedWrite)> {
    let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::UTF8 | StdLib::BIT | StdLib::COROUTINE;
    let lua = Lua::new_with(libraries, LuaOptions::new().catch_rust_panics(false))?;
    lua.set_compiler(compiler());
    lua.enable_jit(true);
    lua.set_memory_limit(limits.memory_bytes)?;
    lua.gc_set_mode(GcMode::Incremental(GcIncParams::default().goal(GARBAGE_GOAL)));
    let globals = lua.globals();
    for name in REMOVED {
        globals.raw_remove(name)?;
    }
    let refused = RefusedWrite::default();
    let sign = Arc::clone(&refused);
    let note = lua.create_function(move |_, error: LuaValue| {
        let is_write = match &error {
            LuaValue::Nil => true,
            LuaValue::Error(error) => is_refused_write(&error.to_string()),
            _ => false,
        };
        sign.fetch_or(is_write, Ordering::Relaxed);
        Ok(())
    })?;
    lua.load(include_str!("prelude.luau")).set_name("=prelude").set_mode(ChunkMode::Text).call::<()>(note)?;
    let timer = Timer::new(Some(Box::new(LuaInterrupt::new(&lua)?)))?;
    Ok((lua, timer, refused))
}

fn compiler() -> Compiler {
    // Level 2 would inline functions, and an author's stack would lack them; in games no difference could be measured.
    Compiler::new().set_optimization_level(1).set_debug_level(1)
}

/// Whether a function of the script or of a module may assign a variable of its top level.
pub(super) fn assigns_top_level(source: &Source) -> bool {
    // A text that does not parse is told of when it is loaded.
    let assigns = |text: &str| {
        compiler().compile(text.trim_start_matches('\u{feff}')).is_ok_and(|code| assigns_top_level_of(&code))
    };
    std::iter::once(&source.text).chain(source.modules.values()).any(|text| assigns(text))
}

/// The results of the modules that were loaded.
pub(super) fn modules(lua: &Lua) -> mlua::Result<Table> {
    lua.named_registry_value(MODULES)
}

/// Runs the top level again, as if the script had just been loaded.
pub(super) fn run_again(lua: &Lua, main: &Function) -> mlua::Result<LuaValue> {
    let globals = lua.globals();
    globals.set_readonly(false);
    let result = globals
        .clear()
        .and_then(|()| lua.set_named_registry_value(MODULES, lua.create_table()?))
        .and_then(|()| main.call(()));
    globals.set_readonly(true);
    globals.set_safeenv(true);
    result
}

/// Adds `gift` and `require`, then seals all globals.
pub(super) fn install(
    lua: &Lua,
    source: &Source,
    limits: &Limits,
    library: &Library,
    timer: &Arc<Timer>,
    is_quiet: &Arc<AtomicBool>,
) -> mlua::Result<()> {
    let limits = Arc::new(limits.clone());
    let gift = lua.create_table()?;
    for function in library.functions() {
        add(lua, &gift, "gift", *function, &limits)?;
    }
    for (name, text) in FASTER {
        let host: Function = gift.raw_get(name)?;
        let faster: Function = lua.load(text).set_name(format!("={name}")).set_mode(ChunkMode::Text).call(host)?;
        gift.raw_set(name, faster)?;
    }
    let json = lua.create_table()?;
    for function in JSON {
        add(lua, &json, "gift.json", function, &limits)?;
    }
    json.set_readonly(true);
    gift.raw_set("json", json)?;
    gift.raw_set(
        "illegal",
        lua.create_function(|_, reason: LuaValue| -> mlua::Result<()> {
            let reason =
                reason.as_string().map_or_else(|| "illegal action".to_owned(), |text| cut(&text.to_string_lossy()));
            Err(mlua::Error::external(Illegal(reason)))
        })?,
    )?;
    let (log, is_quiet) = (library.clone(), Arc::clone(is_quiet));
    gift.raw_set(
        "log",
        lua.create_function(move |lua, text: LuaValue| match lua.coerce_string(text)? {
            Some(_) if is_quiet.load(Ordering::Relaxed) => Ok(()),
            Some(text) => {
                log.log(&text.to_string_lossy());
                Ok(())
            }
            None => Err(mlua::Error::runtime("`gift.log`: expected a string; make one with `gift.json.encode`")),
        })?,
    )?;
    let (files, timer, script) = (library.clone(), Arc::clone(timer), source.clone());
    gift.raw_set("dataset", lua.create_function(move |_, name: String| dataset(&files, &timer, &script, &name))?)?;
    lua.globals().raw_set("gift", gift)?;

    lua.set_named_registry_value(MODULES, lua.create_table()?)?;
    lua.set_named_registry_value(MODULE_FUNCTIONS, lua.create_table()?)?;
    let modules = source.modules.clone();
    lua.globals().raw_set("require", lua.create_function(move |lua, name: String| require(lua, &modules, &name))?)?;
    lua.sandbox(true)
}

/// A text of the script as a chunk. Text only: bytecode is not checked by Luau and could break the machine.
pub(super) fn chunk<'a>(lua: &Lua, text: &'a str, name: &str) -> Chunk<'a> {
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    lua.load(text).set_name(format!("={name}")).set_mode(ChunkMode::Text)
}

/// Adds a function of the library to a table.
fn add(
    lua: &Lua,
    table: &Table,
    prefix: &'static str,
    function: HostFunction,
    limits: &Arc<Limits>,
) -> mlua::Result<()> {
    let limits = Arc::clone(limits);
    let HostFunction { name, call } = function;
    let run = move |lua: &Lua, arguments: MultiValue| {
        let mut values = Vec::with_capacity(arguments.len());
        for (at, argument) in arguments.iter().enumerate() {
            values.push(border::from_lua(argument, &limits).map_err(|refusal| {
                mlua::Error::runtime(refusal.message(&format!("`{prefix}.{name}`: argument {}", at + 1)))
            })?);
        }
        let result = call(&values).map_err(|message| mlua::Error::runtime(format!("`{prefix}.{name}`: {message}")))?;
        border::to_lua(lua, &result)
    };
    table.raw_set(name, lua.create_function(run)?)
}

fn dataset(files: &Library, timer: &Timer, script: &Source, name: &str) -> mlua::Result<Rows> {
    let rows = timer.uncharged(|| files.dataset(script, name));
    rows.map(Rows).map_err(|message| mlua::Error::runtime(format!("`gift.dataset`: {message}")))
}

/// The result of a module, which runs once a machine.
fn require(lua: &Lua, modules: &BTreeMap<String, Arc<str>>, name: &str) -> mlua::Result<LuaValue> {
    let loaded: Table = lua.named_registry_value(MODULES)?;
    match loaded.raw_get(name)? {
        LuaValue::Nil => {}
        LuaValue::Boolean(false) => {
            return Err(mlua::Error::runtime(format!("`require(\"{name}\")`: the module loads itself")));
        }
        value => return Ok(value),
    }
    let Some(text) = modules.get(name) else {
        // Where it was looked for is said by `errors`.
        return Err(mlua::Error::runtime(format!("{NO_MODULE}{name}`")));
    };
    loaded.raw_set(name, false)?;
    let functions: Table = lua.named_registry_value(MODULE_FUNCTIONS)?;
    let main = match functions.raw_get(name)? {
        Some(main) => Ok(main),
        None => chunk(lua, text, &module_name(name)).into_function(),
    };
    let run = |main: Function| functions.raw_set(name, &main).and_then(|()| main.call::<LuaValue>(()));
    let result = main.and_then(run);
    match result {
        Ok(LuaValue::Nil | LuaValue::Boolean(false)) => loaded.raw_set(name, true)?,
        Ok(value) => loaded.raw_set(name, value)?,
        Err(error) => {
            loaded.raw_remove(name)?;
            return Err(error);
        }
    }
    loaded.raw_get(name)
}
