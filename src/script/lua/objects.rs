//! What a script sees as `rng` and as a data set.

use std::sync::Arc;

use mlua::{Lua, MetaMethod, Table, UserData, UserDataMethods, Value as LuaValue};

use super::border::{described, from_number, to_lua};
use crate::script::Value;
use crate::script::library::Dataset;
use crate::script::loan::{Loan, OVER};
use crate::seed::Stream;

/// Longest list that `rng:shuffle` takes: it runs without safepoints.
pub(super) const MAX_SHUFFLED: usize = 100_000;

/// The generator of one call, as the script sees it.
pub(super) struct Rng(pub(super) Loan);

impl Rng {
    fn draw<R>(&self, draw: impl FnOnce(&mut Stream) -> mlua::Result<R>) -> mlua::Result<R> {
        self.0.draw(draw).unwrap_or_else(|| Err(mlua::Error::runtime(OVER)))
    }
}

impl UserData for Rng {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("int", |_, this, (low, high): (LuaValue, LuaValue)| {
            let (low, high) = (whole(&low, "rng:int", 1)?, whole(&high, "rng:int", 2)?);
            if low > high {
                return Err(mlua::Error::runtime(format!("`rng:int({low}, {high})`: the range is empty")));
            }
            this.draw(|stream| Ok(stream.int(low, high) as f64))
        });
        methods.add_method("float", |_, this, ()| this.draw(|stream| Ok(stream.float())));
        methods.add_method("pick", |_, this, list: LuaValue| {
            let list = as_list(&list, "rng:pick")?;
            let length = list.raw_len();
            if length == 0 {
                return Err(mlua::Error::runtime("`rng:pick`: the list is empty"));
            }
            this.draw(|stream| list.raw_get::<LuaValue>(stream.index(length) + 1))
        });
        methods.add_method("shuffle", |_, this, list: LuaValue| {
            let list = as_list(&list, "rng:shuffle")?;
            let length = list.raw_len();
            if length > MAX_SHUFFLED {
                return Err(mlua::Error::runtime(format!("`rng:shuffle`: the list is longer than {MAX_SHUFFLED}")));
            }
            // The draws of `Stream::shuffle`, without holding all items outside the virtual machine.
            this.draw(|stream| {
                for last in (1..length).rev() {
                    let other = stream.index(last + 1);
                    let (a, b): (LuaValue, LuaValue) = (list.raw_get(last + 1)?, list.raw_get(other + 1)?);
                    list.raw_set(last + 1, b)?;
                    list.raw_set(other + 1, a)?;
                }
                Ok(())
            })?;
            Ok(list.clone())
        });
    }
}

/// An argument that must be a whole number.
fn whole(value: &LuaValue, function: &str, position: usize) -> mlua::Result<i64> {
    let number = match value {
        LuaValue::Integer(number) => Some(*number),
        LuaValue::Number(number) => from_number(*number).as_int(),
        _ => None,
    };
    number.ok_or_else(|| {
        let found = described(value);
        mlua::Error::runtime(format!("`{function}`: expected a whole number as argument {position}, found {found}"))
    })
}

/// An argument that must be a list.
fn as_list<'a>(value: &'a LuaValue, function: &str) -> mlua::Result<&'a Table> {
    value
        .as_table()
        .ok_or_else(|| mlua::Error::runtime(format!("`{function}`: expected a list, found {}", described(value))))
}

/// The rows of a data file: `#rows`, `rows[i]` from 1, `for i, row in rows do`.
pub(super) struct Rows(pub(super) Arc<Dataset>);

impl Rows {
    fn row(&self, lua: &Lua, index: i64) -> mlua::Result<LuaValue> {
        let row = usize::try_from(index).ok().and_then(|index| self.0.row(index.checked_sub(1)?));
        to_lua(lua, row.unwrap_or(&Value::Nil))
    }
}

impl UserData for Rows {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::Len, |_, this, ()| Ok(this.0.len()));
        methods
            .add_meta_method(MetaMethod::Index, |lua, this, key: LuaValue| this.row(lua, whole(&key, "rows[…]", 1)?));
        methods.add_meta_function(MetaMethod::Iter, |lua, rows: LuaValue| {
            let next = lua.create_function(|lua, (rows, last): (mlua::UserDataRef<Self>, i64)| {
                let row = rows.row(lua, last + 1)?;
                Ok(if row.is_nil() { (None, row) } else { (Some(last + 1), row) })
            })?;
            Ok((next, rows, 0))
        });
    }
}
