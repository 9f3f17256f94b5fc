//! Values on their way through Luau's C interface: written into the machine, and read out of it.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};

use mlua::ffi::{self, lua_State};

use super::{SLOTS, Unusual};
use crate::script::lua::border;
use crate::script::state::{Cell, Plain, Shape};
use crate::script::{Limits, Texts, Value};

/// Items that a list has room for from the start, so that most need not grow.
const USUAL_LENGTH: usize = 16;

/// Pushes what a reference stands for.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn reference(lua: *mut lua_State, reference: c_int) {
    // SAFETY: the caller's.
    unsafe { ffi::lua_rawgeti_(lua, ffi::LUA_REGISTRYINDEX, reference) };
}

/// Pushes the value of a cell.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn push_cell(lua: *mut lua_State, cell: &Cell) {
    // SAFETY: the caller's.
    unsafe {
        match cell {
            Cell::Plain(Plain::Nil) => ffi::lua_pushnil(lua),
            Cell::Plain(Plain::Truth(truth)) => ffi::lua_pushboolean(lua, c_int::from(*truth)),
            Cell::Plain(Plain::Int(number)) => ffi::lua_pushnumber(lua, *number as f64),
            Cell::Plain(Plain::Float(number)) => ffi::lua_pushnumber(lua, *number),
            text => push_text(lua, text.as_text().unwrap_or_default()),
        }
    }
}

/// Pushes a string.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn push_text(lua: *mut lua_State, text: &str) {
    // SAFETY: the caller's; Luau copies the bytes.
    unsafe { ffi::lua_pushlstring_(lua, text.as_ptr().cast::<c_char>(), text.len()) }
}

/// Pushes a copy of the data, laid out as [`border::to_lua`] does.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn push(lua: *mut lua_State, value: &Value) {
    // SAFETY: the caller's; each level makes room for itself.
    unsafe {
        ffi::lua_rawcheckstack(lua, SLOTS);
        match value {
            Value::Nil => ffi::lua_pushnil(lua),
            Value::Bool(truth) => ffi::lua_pushboolean(lua, c_int::from(*truth)),
            Value::Int(number) => ffi::lua_pushnumber(lua, *number as f64),
            Value::Float(number) => ffi::lua_pushnumber(lua, *number),
            Value::Text(text) => push_text(lua, text),
            Value::List(items) => {
                ffi::lua_createtable(lua, items.len() as c_int, 0);
                for (at, item) in items.iter().enumerate() {
                    push(lua, item);
                    ffi::lua_rawseti_(lua, -2, at as c_int + 1);
                }
            }
            Value::Map(fields) => {
                ffi::lua_createtable(lua, 0, fields.len() as c_int);
                for (name, field) in fields {
                    push_text(lua, name);
                    push(lua, field);
                    ffi::lua_rawset(lua, -3);
                }
            }
        }
    }
}

/// Counts what crosses, as [`crate::script::border::Meter`] does.
pub(super) struct Room<'a> {
    limits: &'a Limits,
    values: usize,
    depth: usize,
    text_bytes: usize,
}

impl<'a> Room<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, values: 0, depth: 0, text_bytes: 0 }
    }

    fn value(&mut self) -> Result<(), Unusual> {
        self.values += 1;
        if self.values > self.limits.max_values { Err(Unusual) } else { Ok(()) }
    }

    fn text(&mut self, bytes: usize) -> Result<(), Unusual> {
        self.text_bytes += bytes;
        if self.text_bytes > self.limits.max_total_text_bytes { Err(Unusual) } else { Ok(()) }
    }

    fn enter(&mut self) -> Result<(), Unusual> {
        self.depth += 1;
        if self.depth > self.limits.max_depth { Err(Unusual) } else { Ok(()) }
    }
}

/// The bytes of a string on the stack.
///
/// # Safety
/// The value has to be a string, and the bytes must be used only while it stays on the stack.
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn bytes_at<'a>(lua: *mut lua_State, index: c_int) -> &'a [u8] {
    // SAFETY: a string is not converted, so the call cannot fail; Luau keeps the bytes while the string is alive.
    unsafe {
        let mut length = 0;
        let bytes = ffi::lua_tolstring(lua, index, &raw mut length);
        std::slice::from_raw_parts(bytes.cast::<u8>(), length)
    }
}

/// The text of a string on the stack, if it is text and not too long.
///
/// # Safety
/// As [`bytes_at`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn text_at<'a>(lua: *mut lua_State, index: c_int, limits: &Limits) -> Result<&'a str, Unusual> {
    // SAFETY: the caller's.
    let bytes = unsafe { bytes_at(lua, index) };
    if bytes.len() > limits.max_text_bytes {
        Err(Unusual)
    } else if bytes.is_ascii() {
        // SAFETY: ASCII is UTF-8. Most prompts are no more, and this is seen several times as fast.
        Ok(unsafe { std::str::from_utf8_unchecked(bytes) })
    } else {
        std::str::from_utf8(bytes).map_err(|_| Unusual)
    }
}

/// What stands in a table.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Empty,
    List,
    Map,
}

/// Walks the table on the stack: `part` is called with each value on top of the stack (and its name, in a map). Refuses what
/// is no list in order and no map.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn walk(
    lua: *mut lua_State,
    room: &mut Room<'_>,
    mut part: impl FnMut(&mut Room<'_>, Option<&str>) -> Result<(), Unusual>,
) -> Result<Kind, Unusual> {
    // SAFETY: the caller's.
    unsafe {
        room.enter()?;
        ffi::lua_rawcheckstack(lua, SLOTS);
        if ffi::lua_getmetatable(lua, -1) != 0 {
            return Err(Unusual);
        }
        if let Some(length) = list_length(lua) {
            for index in 1..=length {
                if ffi::lua_rawgeti_(lua, -1, index) == ffi::LUA_TNIL {
                    return Err(Unusual);
                }
                part(room, None)?;
                ffi::lua_pop(lua, 1);
            }
            room.depth -= 1;
            return Ok(Kind::List);
        }
        let (mut kind, mut count, mut at) = (Kind::Empty, 0_u32, 0);
        loop {
            at = ffi::lua_rawiter(lua, -1, at);
            if at < 0 {
                break;
            }
            count += 1;
            let is_name = ffi::lua_type(lua, -2) == ffi::LUA_TSTRING;
            let this = if is_name { Kind::Map } else { Kind::List };
            if count > 1 && kind != this {
                return Err(Unusual);
            }
            kind = this;
            if is_name {
                let name = text_at(lua, -2, room.limits)?;
                room.text(name.len())?;
                part(room, Some(name))?;
            } else {
                let is_next = ffi::lua_type(lua, -2) == ffi::LUA_TNUMBER
                    && ffi::lua_tonumberx(lua, -2, std::ptr::null_mut()) == f64::from(count);
                if !is_next {
                    return Err(Unusual);
                }
                part(room, None)?;
            }
            ffi::lua_pop(lua, 2);
        }
        room.depth -= 1;
        Ok(kind)
    }
}

/// Whether the table at this index holds nothing but its first `count` items, all of which have to be there.
///
/// A walk that passes over as many places as there are items meets whatever else there is: of the items that do not lie in
/// the table's array, each fills one of the places of the rest, and one that lies beyond those passed over is met itself.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn is_all(lua: *mut lua_State, at: c_int, count: c_int) -> bool {
    // SAFETY: the caller's.
    unsafe {
        let is_more = ffi::lua_rawiter(lua, at, count) >= 0;
        if is_more {
            ffi::lua_pop(lua, 2);
        }
        !is_more
    }
}

/// The length of the table on the stack if it is a list that holds nothing else, though some of its items may be nil.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn list_length(lua: *mut lua_State) -> Option<c_int> {
    // SAFETY: the caller's; the length of a table without metatable is counted by Luau.
    unsafe {
        let length = c_int::try_from(ffi::lua_objlen(lua, -1)).ok().filter(|length| *length > 0)?;
        is_all(lua, -1, length).then_some(length)
    }
}

/// Whether the value on the stack is that of the cell.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn is_cell(lua: *mut lua_State, cell: &Cell) -> bool {
    // SAFETY: the caller's; what is converted is of that type.
    unsafe {
        let is_number = |known: f64| {
            ffi::lua_type(lua, -1) == ffi::LUA_TNUMBER
                && ffi::lua_tonumberx(lua, -1, std::ptr::null_mut()).to_bits() == known.to_bits()
        };
        match cell {
            Cell::Plain(Plain::Nil) => ffi::lua_type(lua, -1) == ffi::LUA_TNIL,
            Cell::Plain(Plain::Truth(truth)) => {
                ffi::lua_type(lua, -1) == ffi::LUA_TBOOLEAN && (ffi::lua_toboolean(lua, -1) != 0) == *truth
            }
            Cell::Plain(Plain::Int(number)) => is_number(*number as f64),
            Cell::Plain(Plain::Float(number)) => is_number(*number),
            text => ffi::lua_type(lua, -1) == ffi::LUA_TSTRING && text.is_text(bytes_at(lua, -1)),
        }
    }
}

/// The value on the stack, which is no table, as a cell.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn cell(lua: *mut lua_State, limits: &Limits) -> Result<Cell, Unusual> {
    // SAFETY: the caller's.
    unsafe { cell_at(lua, -1, limits) }
}

/// As [`cell`], for the value at this index.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn cell_at(lua: *mut lua_State, index: c_int, limits: &Limits) -> Result<Cell, Unusual> {
    // SAFETY: the caller's.
    unsafe {
        Ok(match ffi::lua_type(lua, index) {
            ffi::LUA_TNIL => Cell::NIL,
            ffi::LUA_TBOOLEAN => Cell::Plain(Plain::Truth(ffi::lua_toboolean(lua, index) != 0)),
            ffi::LUA_TNUMBER => Cell::number(&read_number(lua, index)),
            ffi::LUA_TSTRING => Cell::text(text_at(lua, index, limits)?),
            _ => return Err(Unusual),
        })
    }
}

/// Whether the number at this index is less than zero or minus zero.
///
/// # Safety
/// The value has to be a number.
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn is_negative(lua: *mut lua_State, index: c_int) -> bool {
    // SAFETY: the caller's.
    unsafe { ffi::lua_tonumberx(lua, index, std::ptr::null_mut()) }.is_sign_negative()
}

/// The value at this index; `None` if it may not cross, or only with help.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn value_at(lua: *mut lua_State, index: c_int, limits: &Limits) -> Option<Value> {
    // SAFETY: the caller's.
    unsafe {
        match ffi::lua_type(lua, index) {
            ffi::LUA_TNUMBER => return Some(read_number(lua, index)),
            ffi::LUA_TSTRING => return text_at(lua, index, limits).ok().map(|text| Value::Text(text.to_owned())),
            _ => {}
        }
        ffi::lua_rawcheckstack(lua, SLOTS);
        let top = ffi::lua_gettop(lua);
        ffi::lua_pushvalue(lua, index);
        let value = read(lua, &mut Room::new(limits)).ok();
        ffi::lua_settop(lua, top);
        value
    }
}

/// The list of texts at this index; `None` if it is anything else, or empty.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn texts_at(lua: *mut lua_State, index: c_int, limits: &Limits) -> Option<Texts> {
    // SAFETY: the caller's.
    unsafe {
        if ffi::lua_type(lua, index) != ffi::LUA_TTABLE || ffi::lua_getmetatable(lua, index) != 0 {
            return None;
        }
        ffi::lua_rawcheckstack(lua, SLOTS);
        let top = ffi::lua_gettop(lua);
        let length = c_int::try_from(ffi::lua_objlen(lua, index)).ok().filter(|length| *length > 0)?;
        if length as usize >= limits.max_values || !is_all(lua, index, length) {
            return None;
        }
        let mut texts = Texts::with_capacity(length as usize);
        let mut bytes = 0;
        for item in 1..=length {
            let text = (ffi::lua_rawgeti_(lua, index, item) == ffi::LUA_TSTRING)
                .then(|| text_at(lua, -1, limits).ok())
                .flatten()
                .filter(|text| bytes + text.len() <= limits.max_total_text_bytes);
            if let Some(text) = text {
                bytes += text.len();
                texts.push(text);
            }
            ffi::lua_settop(lua, top);
            text?;
        }
        Some(texts)
    }
}

/// The number on the stack.
///
/// # Safety
/// The value has to be a number.
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn read_number(lua: *mut lua_State, index: c_int) -> Value {
    // SAFETY: the caller's.
    border::from_number(unsafe { ffi::lua_tonumberx(lua, index, std::ptr::null_mut()) })
}

/// The shape and the cells of the value on the stack.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn take_apart(lua: *mut lua_State, room: &mut Room<'_>) -> Result<(Shape, Vec<Cell>), Unusual> {
    let mut cells = Vec::new();
    // SAFETY: the caller's.
    let shape = unsafe { shape_of(lua, room, &mut cells) }?;
    Ok((shape, cells))
}

/// The shape of the value on the stack, whose cells are added to `cells`.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
unsafe fn shape_of(lua: *mut lua_State, room: &mut Room<'_>, cells: &mut Vec<Cell>) -> Result<Shape, Unusual> {
    room.value()?;
    // SAFETY: the caller's.
    unsafe {
        if ffi::lua_type(lua, -1) != ffi::LUA_TTABLE {
            let number = cells.len() as u32;
            let cell = cell(lua, room.limits)?;
            room.text(cell.text_bytes())?;
            cells.push(cell);
            return Ok(Shape::Cell(number));
        }
        let (mut items, mut fields) = (Vec::new(), Vec::<(Box<str>, Shape)>::new());
        let kind = walk(lua, room, |room, name| {
            let part = shape_of(lua, room, cells)?;
            match name {
                None => items.push(part),
                Some(name) => fields.push((name.into(), part)),
            }
            Ok(())
        })?;
        if kind != Kind::Map {
            return Ok(Shape::List(items));
        }
        fields.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Shape::Map(fields))
    }
}

/// The value on the stack.
///
/// # Safety
/// As [`super::Frame::run`].
#[expect(unsafe_code, reason = "the C interface of Luau")]
pub(super) unsafe fn read(lua: *mut lua_State, room: &mut Room<'_>) -> Result<Value, Unusual> {
    room.value()?;
    // SAFETY: the caller's.
    unsafe {
        Ok(match ffi::lua_type(lua, -1) {
            ffi::LUA_TNIL => Value::Nil,
            ffi::LUA_TBOOLEAN => Value::Bool(ffi::lua_toboolean(lua, -1) != 0),
            ffi::LUA_TNUMBER => read_number(lua, -1),
            ffi::LUA_TSTRING => {
                let text = text_at(lua, -1, room.limits)?;
                room.text(text.len())?;
                Value::Text(text.to_owned())
            }
            ffi::LUA_TTABLE => {
                let (mut items, mut fields) = (Vec::new(), BTreeMap::new());
                let kind = walk(lua, room, |room, name| {
                    let value = read(lua, room)?;
                    match name {
                        None => {
                            if items.is_empty() {
                                items.reserve(USUAL_LENGTH);
                            }
                            items.push(value);
                        }
                        Some(name) => _ = fields.insert(name.to_owned(), value),
                    }
                    Ok(())
                })?;
                if kind == Kind::Map { Value::Map(fields) } else { Value::List(items) }
            }
            _ => return Err(Unusual),
        })
    }
}
