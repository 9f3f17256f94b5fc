//! What a script's top level returned: a table of data and functions, or one function.

use mlua::{Function, Table, Value as LuaValue};

use super::border;
use crate::diag::{Diagnostic, SourceSpan};
use crate::script::Source;

/// What the script's top level returned.
pub(super) enum Root {
    Table(Table),
    Function(Function),
}

impl Root {
    pub(super) fn of(value: LuaValue) -> Option<Self> {
        match value {
            LuaValue::Table(table) => Some(Self::Table(table)),
            LuaValue::Function(function) => Some(Self::Function(function)),
            _ => None,
        }
    }

    /// The function of this name, or another value that the field has.
    pub(super) fn function(&self, name: &str) -> mlua::Result<Result<Function, LuaValue>> {
        let found = match self {
            Self::Function(function) if name.is_empty() => return Ok(Ok(function.clone())),
            _ => self.lookup(name)?,
        };
        Ok(if let LuaValue::Function(function) = found { Ok(function) } else { Err(found) })
    }

    /// The field's value, looked up without running code of the script.
    pub(super) fn lookup(&self, name: &str) -> mlua::Result<LuaValue> {
        let Self::Table(table) = self else { return Ok(LuaValue::Nil) };
        let mut table = table.clone();
        // A script may inherit fields from another table; a longer chain is a loop.
        for _ in 0..8 {
            let value: LuaValue = table.raw_get(name)?;
            if !value.is_nil() {
                return Ok(value);
            }
            let Some(metatable) = table.metatable() else { break };
            let LuaValue::Table(parent) = metatable.raw_get("__index")? else { break };
            table = parent;
        }
        Ok(LuaValue::Nil)
    }
}

pub(super) fn not_a_root(found: &LuaValue, source: &Source) -> Box<Diagnostic> {
    let found = if found.is_nil() { "nothing".to_owned() } else { border::kind(found) };
    let message = "the script returns neither a table nor a function";
    let diagnostic = Diagnostic::error("script::result", message)
        .at(SourceSpan::file(&source.path))
        .expected("`return game` (a table), or `return function(episode) … end` in a reward script")
        .found(found)
        .help("end the script with `return` and the table");
    Box::new(diagnostic)
}
