//! Lua values to plain data and back.

use std::collections::BTreeMap;
use std::ffi::c_void;

use mlua::{IntoLua, Lua, Table, Value as LuaValue};

use crate::script::border::{Meter, Refusal};
use crate::script::{Limits, Value};

/// The plain data that a Lua value stands for. Runs no code of the script: metatables are refused, not asked.
pub(super) fn from_lua(value: &LuaValue, limits: &Limits) -> Result<Value, Refusal> {
    Reader { meter: Meter::new(limits), open: Vec::new() }.read(value)
}

struct Reader<'a> {
    meter: Meter<'a>,
    /// The tables around the value that is read, to find a table inside itself.
    open: Vec<*const c_void>,
}

impl Reader<'_> {
    fn read(&mut self, value: &LuaValue) -> Result<Value, Refusal> {
        self.meter.value()?;
        match value {
            LuaValue::Nil => Ok(Value::Nil),
            LuaValue::Boolean(truth) => Ok(Value::Bool(*truth)),
            LuaValue::Integer(number) => Ok(Value::Int(*number)),
            LuaValue::Number(number) => Ok(from_number(*number)),
            LuaValue::String(text) => {
                let bytes = text.as_bytes();
                self.meter.text(bytes.len())?;
                match std::str::from_utf8(&bytes) {
                    Ok(text) => Ok(Value::Text(text.to_owned())),
                    Err(_) => Err(Refusal::new(
                        "is a string that is not UTF-8",
                        "cut strings at characters with `utf8.offset`, not at bytes with `string.sub`",
                    )),
                }
            }
            LuaValue::Table(table) => {
                self.meter.enter()?;
                self.open.push(table.to_pointer());
                let value = self.read_table(table);
                self.open.pop();
                self.meter.leave();
                value
            }
            LuaValue::Function(_) => {
                Err(Refusal::new("is a function", "keep functions in the script and data in the state"))
            }
            other => Err(Refusal::new(
                format!("is {}", kind(other)),
                "keep `rng`, data sets and coroutines out of the state; a row's number is data",
            )),
        }
    }

    fn read_table(&mut self, table: &Table) -> Result<Value, Refusal> {
        let pointer = table.to_pointer();
        if self.open.iter().rev().skip(1).any(|open| *open == pointer) {
            return Err(Refusal::new(
                "is a table that contains itself",
                "refer to the outer table by a name or an index",
            ));
        }
        if table.has_metatable() {
            return Err(Refusal::new(
                "is a table with a metatable",
                "use plain tables in the state: copies lose methods",
            ));
        }
        let length = table.raw_len();
        let mut items = Vec::with_capacity(length.min(1024));
        let mut fields = BTreeMap::new();
        let mut refused = None;
        // An error from the closure ends the walk; the refusal itself is kept beside it.
        let walk = table.for_each(|key: LuaValue, value: LuaValue| {
            self.read_pair(&key, &value, &mut items, &mut fields).map_err(|refusal| {
                refused = Some(refusal);
                mlua::Error::StackError
            })
        });
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        if let Err(error) = walk {
            return Err(Refusal::new(format!("cannot be read: {error}"), "keep less in the value"));
        }
        if !items.is_empty() && !fields.is_empty() {
            let name = fields.keys().next().map_or("", String::as_str);
            return Err(Refusal::new(
                format!("has both numbers and strings as keys (the string {name:?} among them)"),
                "use a list (keys 1 to n) or a map (string keys)",
            ));
        }
        if fields.is_empty() { into_list(items) } else { Ok(Value::Map(fields)) }
    }

    fn read_pair(
        &mut self,
        key: &LuaValue,
        value: &LuaValue,
        items: &mut Vec<(usize, Value)>,
        fields: &mut BTreeMap<String, Value>,
    ) -> Result<(), Refusal> {
        match key {
            LuaValue::Integer(index) => {
                let Some(index) = usize::try_from(*index).ok().filter(|index| *index > 0) else {
                    return Err(Refusal::new(
                        format!("has the key {index}"),
                        "use keys 1 to n, or strings such as `tostring(index)`",
                    ));
                };
                items.push((index, self.read(value).map_err(|refusal| refusal.inside_item(index))?));
            }
            LuaValue::String(name) => {
                let bytes = name.as_bytes();
                self.meter.text(bytes.len())?;
                let Ok(name) = std::str::from_utf8(&bytes) else {
                    return Err(Refusal::new("has a key that is not UTF-8", "use text as keys"));
                };
                fields.insert(name.to_owned(), self.read(value).map_err(|refusal| refusal.inside_field(name))?);
            }
            other => {
                return Err(Refusal::new(
                    format!("has a key that is {}", kind(other)),
                    "use keys 1 to n, or strings such as `tostring(key)`",
                ));
            }
        }
        Ok(())
    }
}

/// What a value is, for messages.
pub(super) fn kind(value: &LuaValue) -> String {
    match value {
        LuaValue::Nil => "nil".to_owned(),
        // Luau itself has one kind of number.
        LuaValue::Integer(_) | LuaValue::Number(_) => "a number".to_owned(),
        LuaValue::Thread(_) => "a coroutine".to_owned(),
        LuaValue::UserData(_) => "an object of the host".to_owned(),
        other => format!("a {}", other.type_name()),
    }
}

/// What was found where something else was expected: a number, a truth value or a short text itself, of all else the kind.
pub(super) fn described(value: &LuaValue) -> String {
    match value {
        LuaValue::Boolean(truth) => Value::Bool(*truth).described(),
        LuaValue::Integer(number) => Value::Int(*number).described(),
        LuaValue::Number(number) => from_number(*number).described(),
        LuaValue::String(text) => Value::Text(text.to_string_lossy()).described(),
        other => kind(other),
    }
}

/// The items in order, if their keys are 1 to n.
fn into_list(mut items: Vec<(usize, Value)>) -> Result<Value, Refusal> {
    if !items.is_sorted_by_key(|(index, _)| *index) {
        items.sort_by_key(|(index, _)| *index);
    }
    match items.iter().enumerate().find(|(at, (index, _))| at + 1 != *index) {
        None => Ok(Value::List(items.into_iter().map(|(_, value)| value).collect())),
        Some((at, (index, _))) => Err(Refusal::new(
            format!("is a list with a hole: it has item {index} but not item {}", at + 1),
            "fill every item from 1 to n; write `false`, `0` or `\"\"` for an empty one",
        )),
    }
}

/// A Lua number without a fraction is an integer, as far as a float holds integers exactly.
pub(super) fn from_number(number: f64) -> Value {
    /// 2^63, the first integer that does not fit.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if number.fract() == 0.0 && (-END..END).contains(&number) {
        Value::Int(number as i64)
    } else {
        Value::Float(number)
    }
}

/// A copy of the data inside the virtual machine. Integers beyond 2^53 lose digits: Lua has floats only.
pub(super) fn to_lua(lua: &Lua, value: &Value) -> mlua::Result<LuaValue> {
    Ok(match value {
        Value::Nil => LuaValue::Nil,
        Value::Bool(truth) => LuaValue::Boolean(*truth),
        Value::Int(number) => LuaValue::Number(*number as f64),
        Value::Float(number) => LuaValue::Number(*number),
        Value::Text(text) => text.as_str().into_lua(lua)?,
        Value::List(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (at, item) in items.iter().enumerate() {
                table.raw_seti(at + 1, to_lua(lua, item)?)?;
            }
            LuaValue::Table(table)
        }
        Value::Map(fields) => {
            let table = lua.create_table_with_capacity(0, fields.len())?;
            for (name, field) in fields {
                table.raw_set(name.as_str(), to_lua(lua, field)?)?;
            }
            LuaValue::Table(table)
        }
    })
}
