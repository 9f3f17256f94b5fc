//! Functions of the machine that are written for one shape of states, as Luau source that the machine compiles: they read,
//! build and compare the tables of a state much faster than one call of the C interface a value.
//!
//! None of them calls anything but the script's own function, and what they return is checked outside: a script may have
//! changed the tables in any way.

use std::ffi::{c_int, c_void};
use std::fmt::Write as _;

use mlua::ffi;
use mlua::{Function, Lua};

use super::transfer::push_text;
use crate::script::state::Shape;

/// Most cells and tables of a shape: the functions hold them in registers, of which there are 255.
const MAX_CELLS: usize = 70;
const MAX_TABLES: usize = 12;
/// Longest name of a field; names stand several times in the functions' source.
const MAX_NAME_BYTES: usize = 64;
/// Cells that one mask tells of; a number holds 53 bits.
pub(super) const MASK_CELLS: usize = 50;

/// The functions for one shape, by their numbers.
pub(super) struct Native {
    /// `(f, t1, a, b)`: calls `f(t1, a, b)`; returns its result, the masks of the cells that differ from what they were,
    /// the tables in `t1` and the values of all cells.
    pub(super) watch: c_int,
    /// `(cells…)`: returns the tables that hold them.
    pub(super) build: c_int,
    /// `(t1)`: returns the tables in it and the values of all cells, or nothing.
    pub(super) read: c_int,
    pub(super) cells: usize,
    pub(super) tables: usize,
    /// The names in each table in the order in which it is walked, as addresses to be compared. The functions keep the
    /// strings alive, and a machine has each string once.
    pub(super) names: Vec<Vec<*const c_void>>,
}

impl Native {
    /// How many masks `watch` returns.
    pub(super) fn masks(&self) -> usize {
        self.cells.div_ceil(MASK_CELLS)
    }

    /// Writes the functions; `None` for a shape that is too large, or if the machine does not take them. `names` are those in
    /// each table in the order in which it is walked.
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) fn new<'a>(lua: &Lua, shape: &Shape, names: impl Iterator<Item = Vec<&'a str>>) -> Option<Self> {
        let mut text = Text::default();
        text.add(shape, None)?;
        let (cells, tables) = (text.places.len(), text.tables.len());
        if cells > MAX_CELLS || tables > MAX_TABLES || text.places.iter().any(Option::is_none) {
            return None;
        }
        let functions = [text.watch(), text.build(), text.read()].map(|source| {
            let function: Function = lua.load(source).set_name("=state").eval().ok()?;
            let mut number = 0;
            // SAFETY: a protected call with the function as its only value on the stack.
            unsafe {
                lua.exec_raw::<()>(function, |lua| {
                    number = ffi::lua_ref(lua, -1);
                    ffi::lua_pop(lua, 1);
                })
            }
            .ok()?;
            Some(number)
        });
        let [Some(watch), Some(build), Some(read)] = functions else { return None };
        let mut addresses = Vec::with_capacity(tables);
        for names in names {
            let mut of_table = Vec::with_capacity(names.len());
            for name in names {
                // SAFETY: a protected call that leaves nothing on the stack.
                unsafe {
                    lua.exec_raw::<()>((), |lua| {
                        push_text(lua, name);
                        of_table.push(ffi::lua_topointer(lua, -1));
                        ffi::lua_pop(lua, 1);
                    })
                }
                .ok()?;
            }
            addresses.push(of_table);
        }
        Some(Self { watch, build, read, cells, tables, names: addresses })
    }
}

/// The tables and cells of a shape as expressions: tables `t1`, `t2`, …, each before those in it, and where each cell lies.
#[derive(Default)]
struct Text {
    /// Where each table lies (the first: nowhere), and how it is written down.
    tables: Vec<(String, String)>,
    places: Vec<Option<String>>,
}

impl Text {
    /// Adds a table and those in it.
    fn add(&mut self, shape: &Shape, place: Option<String>) -> Option<()> {
        let number = self.tables.len() + 1;
        if number > MAX_TABLES {
            return None;
        }
        self.tables.push((place.unwrap_or_default(), String::new()));
        let mut constructor = String::from("{ ");
        let mut part = |constructor: &mut String, key: String, part: &Shape| {
            let place = format!("t{number}{key}");
            match part {
                Shape::Cell(cell) => {
                    let cell = *cell as usize;
                    if cell >= MAX_CELLS {
                        return None;
                    }
                    if self.places.len() <= cell {
                        self.places.resize(cell + 1, None);
                    }
                    self.places[cell] = Some(place);
                    write!(constructor, "c{cell}, ").ok()
                }
                table => {
                    write!(constructor, "t{}, ", self.tables.len() + 1).ok()?;
                    self.add(table, Some(place))
                }
            }
        };
        match shape {
            Shape::Cell(_) => return None,
            Shape::List(items) => {
                for (item, index) in items.iter().zip(1..) {
                    part(&mut constructor, format!("[{index}]"), item)?;
                }
            }
            Shape::Map(fields) => {
                for (name, field) in fields {
                    if name.len() > MAX_NAME_BYTES {
                        return None;
                    }
                    let key = format!("[\"{}\"]", escaped(name));
                    write!(constructor, "{key} = ").ok()?;
                    part(&mut constructor, key, field)?;
                }
            }
        }
        constructor.push('}');
        self.tables.get_mut(number - 1)?.1 = constructor;
        Some(())
    }

    fn cells(&self) -> impl Iterator<Item = (usize, &str)> {
        self.places.iter().map(|place| place.as_deref().unwrap_or_default()).enumerate()
    }

    /// The tables in the first, with their numbers.
    fn inner(&self) -> impl Iterator<Item = (usize, &str)> {
        self.tables.iter().map(|(place, _)| place.as_str()).enumerate().skip(1).map(|(at, place)| (at + 1, place))
    }

    fn watch(&self) -> String {
        let mut text = String::from("return function(f, t1, a, b)\n");
        for (number, place) in self.inner() {
            _ = writeln!(text, "local t{number} = {place}");
        }
        for (cell, place) in self.cells() {
            _ = writeln!(text, "local o{cell} = {place}");
        }
        text.push_str("local r = f(t1, a, b)\n");
        for mask in 0..self.places.len().div_ceil(MASK_CELLS) {
            _ = writeln!(text, "local m{mask} = 0");
        }
        for (cell, place) in self.cells() {
            let (mask, bit) = (cell / MASK_CELLS, 1_u64 << (cell % MASK_CELLS));
            // Minus zero equals zero, and does not look like it.
            _ = writeln!(text, "local c{cell} = {place}");
            _ = writeln!(text, "if c{cell} ~= o{cell} or (c{cell} == 0 and 1 / c{cell} < 0) then m{mask} += {bit} end");
        }
        text.push_str("return r");
        for mask in 0..self.places.len().div_ceil(MASK_CELLS) {
            _ = write!(text, ", m{mask}");
        }
        for (_, place) in self.inner() {
            _ = write!(text, ", {place}");
        }
        for (cell, _) in self.cells() {
            _ = write!(text, ", c{cell}");
        }
        text.push_str("\nend\n");
        text
    }

    fn build(&self) -> String {
        let parameters: Vec<String> = self.cells().map(|(cell, _)| format!("c{cell}")).collect();
        let mut text = format!("return function({})\n", parameters.join(", "));
        // Those within others first.
        for (at, (_, constructor)) in self.tables.iter().enumerate().rev() {
            _ = writeln!(text, "local t{} = {constructor}", at + 1);
        }
        let tables: Vec<String> = (1..=self.tables.len()).map(|number| format!("t{number}")).collect();
        _ = writeln!(text, "return {}\nend", tables.join(", "));
        text
    }

    fn read(&self) -> String {
        let mut text = String::from("local type = type\nreturn function(t1)\n");
        for (number, place) in self.inner() {
            _ = writeln!(text, "local t{number} = {place}\nif type(t{number}) ~= \"table\" then return end");
        }
        let inner = self.inner().map(|(number, _)| format!("t{number}"));
        let values: Vec<String> = inner.chain(self.cells().map(|(_, place)| place.to_owned())).collect();
        _ = writeln!(text, "return {}\nend", values.join(", "));
        text
    }
}

/// The text as it stands between quotes in Luau.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            escaped.push(char::from(byte));
        } else {
            _ = write!(escaped, "\\{byte:03}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_would_take_too_much_source_get_no_functions() {
        let lua = Lua::new();
        let shape_of = |name: &str, cells: u32| {
            let list = Shape::List((0..cells).map(Shape::Cell).collect());
            Shape::Map(vec![(name.into(), list)])
        };
        let names = || std::iter::empty();
        assert!(Native::new(&lua, &shape_of("board", 64), names()).is_some_and(|native| native.masks() == 2));
        assert!(Native::new(&lua, &shape_of("board", 71), names()).is_none());
        assert!(Native::new(&lua, &shape_of(&"b".repeat(65), 9), names()).is_none());
    }

    #[test]
    fn names_of_any_bytes_can_be_keys() {
        assert_eq!(escaped("a_1"), "a_1");
        assert_eq!(escaped("a\"]é\n"), "a\\034\\093\\195\\169\\010");
    }
}
