//! Functions of the machine that are written for one shape of states, as Luau source that the machine compiles: they read,
//! build and compare the tables of a state much faster than one call of the C interface a value.
//!
//! They call the script's own functions, several in one go where the host is going to ask anyhow, and what they return is
//! checked outside: a script may have changed the tables in any way.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::fmt::Write as _;

use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua};

use super::transfer::{push_text, reference};
use super::{SLOTS, Then};
use crate::script::state::Shape;

/// Most cells and tables of a shape: the functions hold them in registers, of which there are 255.
const MAX_CELLS: usize = 70;
const MAX_TABLES: usize = 12;
/// Longest name of a field; names stand several times in the functions' source.
const MAX_NAME_BYTES: usize = 64;
/// Cells that one mask tells of; a number holds 53 bits.
pub(super) const MASK_CELLS: usize = 50;

/// Most functions of the script that [`Native`] holds callers for, with the questions that follow; then all are made anew.
const MAX_CALLERS: usize = 16;
/// What a caller returns beside the state: the first answer, the one after a nil, and those after a number.
pub(super) const ANSWERS: usize = 5;

/// The functions for one shape, by their numbers.
pub(super) struct Native {
    /// Make the callers of [`Native::caller`].
    makers: [c_int; 2],
    callers: RefCell<Vec<Known>>,
    /// `(cells…)`: returns the tables that hold them.
    pub(super) build: c_int,
    pub(super) cells: usize,
    pub(super) tables: usize,
    /// The names in each table in the order in which it is walked, as addresses to be compared. The functions keep the
    /// strings alive, and a machine has each string once.
    pub(super) names: Vec<Vec<*const c_void>>,
}

/// How a caller calls a function of the script.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    /// `(t1, a, b)`: calls `f(t1, a, b)`, which changes `t1`. Returns its result and no more if it is another table, or if a
    /// table in `t1` is; else also the masks of the cells that differ from what they were, the values of all cells, and the
    /// [`ANSWERS`].
    Step = 0,
    /// `(a, b)`: calls `f(a, b)`, which makes a state. Returns it and no more if it is not of this shape; else also the
    /// tables in it, tables of our own with the same cells, the cells, and the [`ANSWERS`].
    Begin = 1,
}

/// A caller that was made, by what it calls and asks.
struct Known {
    calls: Calls,
    function: c_int,
    then: Option<Then>,
    number: c_int,
}

/// What callers need of the host.
#[derive(Clone, Copy)]
pub(super) struct Tools {
    /// A function that makes its arguments read-only.
    pub(super) seal: c_int,
    /// A table whose first item says whether the script's own function has returned: what fails then is a question.
    pub(super) progress: c_int,
}

impl Native {
    /// How many masks `watch` returns.
    pub(super) fn masks(&self) -> usize {
        self.cells.div_ceil(MASK_CELLS)
    }

    /// Slots of the stack that a call takes.
    pub(super) fn slots(&self) -> c_int {
        let names: usize = self.names.iter().map(Vec::len).max().unwrap_or(0);
        (3 * self.tables + self.cells + self.masks() + ANSWERS + 2 * names) as c_int + 2 * SLOTS
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
        let functions = [text.step(), text.begin(), text.build()].map(|source| {
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
        let [Some(step), Some(begin), Some(build)] = functions else { return None };
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
        let makers = [step, begin];
        Some(Self { makers, callers: RefCell::default(), build, cells, tables, names: addresses })
    }

    /// The number of a function that calls a function of the script and asks `then` about the state.
    ///
    /// # Safety
    /// As [`super::Frame::run`].
    #[expect(unsafe_code, reason = "the C interface of Luau")]
    pub(super) unsafe fn caller(
        &self,
        lua: *mut lua_State,
        tools: Tools,
        calls: Calls,
        function: c_int,
        then: Option<Then>,
    ) -> c_int {
        let is_it = |known: &&Known| known.function == function && known.calls == calls && known.then == then;
        if let Some(known) = self.callers.borrow().iter().find(is_it) {
            return known.number;
        }
        // SAFETY: the caller's; nothing is borrowed while Luau may raise an error.
        unsafe {
            if self.callers.borrow().len() >= MAX_CALLERS {
                for known in self.callers.take() {
                    ffi::lua_unref(lua, known.number);
                }
            }
            ffi::lua_rawcheckstack(lua, SLOTS + 11);
            let or_nil = |number: Option<c_int>| match number {
                Some(number) => reference(lua, number),
                None => ffi::lua_pushnil(lua),
            };
            for number in [self.makers[calls as usize], tools.seal, tools.progress, function] {
                reference(lua, number);
            }
            or_nil(then.map(|then| then.first));
            or_nil(then.and_then(|then| then.at_nil));
            let asks = then.map_or([None; 3], |then| then.asks);
            for ask in asks {
                or_nil(ask.map(|(function, _)| function));
            }
            for ask in asks {
                // The numbers after which it is asked.
                ffi::lua_createtable(lua, 0, 2);
                for number in (0..64).filter(|number| ask.is_some_and(|(_, after)| after >> number & 1 == 1)) {
                    ffi::lua_pushboolean(lua, 1);
                    ffi::lua_rawseti_(lua, -2, number);
                }
            }
            ffi::lua_call(lua, 11, 1);
            let number = ffi::lua_ref(lua, -1);
            ffi::lua_pop(lua, 1);
            self.callers.borrow_mut().push(Known { calls, function, then, number });
            number
        }
    }
}

/// Around the source of a caller: what [`Native::caller`] hands over, and what callers return last.
const MAKER: &str = "local rawequal = rawequal
local type = type
return function(seal, progress, f, first, at_nil, first_asked, second_asked, third_asked, first_after, second_after, third_after)
";
const END_OF_MAKER: &str = ", who, told, first_told, second_told, third_told\nend\nend\n";

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

    /// Makes [`Calls::Step`].
    fn step(&self) -> String {
        let mut text = format!("{MAKER}return function(t1, a, b)\n");
        for (number, place) in self.inner() {
            _ = writeln!(text, "local t{number} = {place}");
        }
        for (cell, place) in self.cells() {
            _ = writeln!(text, "local o{cell} = {place}");
        }
        text.push_str("progress[1] = false\nlocal r = f(t1, a, b)\nif not rawequal(r, t1) then return r end\n");
        for (number, place) in self.inner() {
            _ = writeln!(text, "if not rawequal({place}, t{number}) then return r end");
        }
        for mask in 0..self.places.len().div_ceil(MASK_CELLS) {
            _ = writeln!(text, "local m{mask} = 0");
        }
        for (cell, place) in self.cells() {
            let (mask, bit) = (cell / MASK_CELLS, 1_u64 << (cell % MASK_CELLS));
            // Minus zero equals zero, and does not look like it.
            _ = writeln!(text, "local c{cell} = {place}");
            _ = writeln!(text, "if c{cell} ~= o{cell} or (c{cell} == 0 and 1 / c{cell} < 0) then m{mask} += {bit} end");
        }
        self.ask(&mut text);
        text.push_str("return r");
        for mask in 0..self.places.len().div_ceil(MASK_CELLS) {
            _ = write!(text, ", m{mask}");
        }
        for (cell, _) in self.cells() {
            _ = write!(text, ", c{cell}");
        }
        text + END_OF_MAKER
    }

    /// Makes [`Calls::Begin`].
    fn begin(&self) -> String {
        let mut text = format!("{MAKER}return function(a, b)\nprogress[1] = false\nlocal s1 = f(a, b)\n");
        text.push_str("if type(s1) ~= \"table\" then return s1 end\n");
        let made = |place: &str| place.replacen('t', "s", 1);
        for (number, place) in self.inner() {
            _ = writeln!(text, "local s{number} = {}", made(place));
            _ = writeln!(text, "if type(s{number}) ~= \"table\" then return s1 end");
        }
        for (cell, place) in self.cells() {
            _ = writeln!(text, "local c{cell} = {}", made(place));
            let odd = format!("c{cell} == nil or type(c{cell}) == \"table\" or (c{cell} == 0 and 1 / c{cell} < 0)");
            _ = writeln!(text, "if {odd} then return s1 end");
        }
        self.construct(&mut text);
        self.ask(&mut text);
        text.push_str("return s1");
        for (number, _) in self.inner() {
            _ = write!(text, ", s{number}");
        }
        for number in 1..=self.tables.len() {
            _ = write!(text, ", t{number}");
        }
        for (cell, _) in self.cells() {
            _ = write!(text, ", c{cell}");
        }
        text + END_OF_MAKER
    }

    /// The questions about `t1`, which they cannot change.
    fn ask(&self, text: &mut String) {
        text.push_str("local who, told, first_told, second_told, third_told\nif first then\nprogress[1] = true\nseal(");
        let tables: Vec<String> = (1..=self.tables.len()).map(|number| format!("t{number}")).collect();
        _ = writeln!(text, "{})", tables.join(", "));
        text.push_str(
            "who = first(t1)
if who == nil then
if at_nil then told = at_nil(t1) end
else
if first_after[who] then first_told = first_asked(t1, who) end
if second_after[who] then second_told = second_asked(t1, who) end
if third_after[who] then third_told = third_asked(t1, who) end
end
end
",
        );
    }

    /// Tables with the cells.
    fn construct(&self, text: &mut String) {
        // Those within others first.
        for (at, (_, constructor)) in self.tables.iter().enumerate().rev() {
            _ = writeln!(text, "local t{} = {constructor}", at + 1);
        }
    }

    fn build(&self) -> String {
        let parameters: Vec<String> = self.cells().map(|(cell, _)| format!("c{cell}")).collect();
        let mut text = format!("return function({})\n", parameters.join(", "));
        self.construct(&mut text);
        let tables: Vec<String> = (1..=self.tables.len()).map(|number| format!("t{number}")).collect();
        _ = writeln!(text, "return {}\nend", tables.join(", "));
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
