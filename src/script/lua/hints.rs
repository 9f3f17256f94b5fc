//! How to mend what often goes wrong in Lua, judged by Luau's message and the author's line.

use mlua::{Lua, Table, Value as LuaValue};

use crate::diag::closest;

/// What the message contains, what the line contains, and the help.
const HELPS: [(&str, &str, &str); 27] = [
    ("invalid argument", "%s", "`%s` refuses nil; write `%*`, or `tostring(value)`"),
    ("", "goto ", "Luau has no `goto`; use `continue`, `break` or a function"),
    ("", "<const>", "Luau has no `<const>`; write `local name = value`"),
    ("", "<close>", "Luau has no `<close>`; write `local name = value`"),
    ("", "<<", "Luau has no `<<`; use `bit32.lshift`"),
    ("", ">>", "Luau has no `>>`; use `bit32.rshift`"),
    ("", "&", "Luau has no `&`; use `bit32.band`, or `and`"),
    ("called with a dot", "", "write a colon: `rng:int(1, 6)`, `rng:float()`, `rng:pick(list)`, `rng:shuffle(list)`"),
    ("`gift.", "gift:", "write a dot: the functions of `gift` are called as `gift.grid(cells, 3)`"),
    ("`gift.", "", "see `The library` in `games/README.md`"),
    ("`rng:", "", "see `Randomness` in `games/README.md`"),
    ("stack overflow", "", "look for a recursion that does not end"),
    (
        "size out of range",
        "",
        "a table or a string of this size does not fit the memory of a script: make a smaller one",
    ),
    ("string too large", "", "a string of this length does not fit the memory of a script: make a shorter one"),
    ("string length overflow", "", "a string of this length does not fit the memory of a script: make a shorter one"),
    (
        "attempt to index nil",
        "",
        "what stands before the `.` or `[` is nil here: is the field misspelt, or not set in `init`?",
    ),
    (
        "attempt to index number",
        "",
        "what stands before the `.` or `[` is a number here: are the parameters in the order that the host gives them?",
    ),
    (
        "attempt to call a nil value",
        "",
        "nothing of that name is a function here: is it misspelt, or defined further down?",
    ),
    ("attempt to call missing method", "", "the value before the `:` has no function of that name"),
    ("with nil", "", NIL_VALUE),
    ("on nil", "", NIL_VALUE),
    ("nil with ", "", NIL_VALUE),
    ("nil and ", "", NIL_VALUE),
    ("and nil", "", NIL_VALUE),
    (
        "attempt to compare",
        "",
        "both sides must be numbers, or both strings: `tonumber(action)` makes a number of an answer",
    ),
    ("attempt to concatenate", "", "only strings and numbers can be joined: write `tostring(value)`"),
    ("attempt to call", "", "only functions can be called: is a name used twice?"),
];

const NIL_VALUE: &str =
    "one of the values is nil: is a field misspelt, or not set in `init`? `tonumber` gives nil for what is no number";

/// Libraries that scripts do not have, and what to use.
const NO_LIBRARIES: [(&str, &str); 7] = [
    (
        "os",
        "scripts have no clock and no `os`; chance comes from `rng`, and a turn's number is in the state if you count it",
    ),
    (
        "io",
        "scripts have no files; read data with `gift.dataset(\"data/rows.jsonl\")`, and write with `gift.log(text)`",
    ),
    ("debug", "scripts have no `debug`; `gift.log(text)` shows values, and an error shows the calls that led to it"),
    ("package", "scripts have no `package`; `require(\"name\")` gives what `scripts/lib/name.lua` returns"),
    ("task", "scripts have no `task`: nothing waits, and each function returns at once"),
    ("ffi", "scripts have no `ffi`: they are Luau, see `Lua here is Luau` in `games/README.md`"),
    ("jit", "scripts have no `jit`: they are Luau, see `Lua here is Luau` in `games/README.md`"),
];

/// Functions that scripts do not have, and what to use.
const NO_FUNCTIONS: [(&str, &str); 13] = [
    ("print", "write `gift.log(text)`"),
    ("warn", "write `gift.log(text)`"),
    ("load", NO_LOADING),
    ("loadstring", NO_LOADING),
    ("loadfile", NO_LOADING),
    ("dofile", NO_LOADING),
    ("module", "scripts have no `module`; `require(\"name\")` gives what `scripts/lib/name.lua` returns"),
    ("getfenv", NO_ENVIRONMENTS),
    ("setfenv", NO_ENVIRONMENTS),
    ("collectgarbage", "the host frees memory; leave the call out"),
    ("gcinfo", "the host frees memory; leave the call out"),
    ("newproxy", "scripts have no `newproxy`; use a table"),
    ("wait", "nothing waits in a script, and each function returns at once; leave the call out"),
];

const NO_LOADING: &str = "scripts cannot load code from text or files; share code with `require(\"name\")`";
const NO_ENVIRONMENTS: &str =
    "functions have no environments here; keep values in a table of your own and look them up by name";

/// Libraries of Lua's, whose tables are the host's.
const LIBRARIES: [&str; 8] = ["string", "table", "math", "utf8", "bit32", "coroutine", "buffer", "vector"];
/// What an `rng` can do.
const RNG: [&str; 4] = ["int", "float", "pick", "shuffle"];
/// Functions that other Luas or hosts have, and what to write here.
const ELSEWHERE: [(&str, &str); 9] = [
    ("string.trim", "write `string.match(text, \"^%s*(.-)%s*$\")`"),
    ("string.startswith", "write `string.sub(text, 1, #start) == start`"),
    ("string.endswith", "write `string.sub(text, -#ending) == ending`"),
    ("string.contains", "write `string.find(text, part, 1, true) ~= nil`"),
    ("table.contains", "write `table.find(list, value) ~= nil`"),
    ("table.copy", "write `table.clone(list)`, or `gift.clone(value)` for all that is inside"),
    ("table.getn", "write `#list`"),
    ("math.pow", "write `a ^ b`"),
    ("math.mod", "write `a % b`"),
];

/// What mends the problem that the message tells of, which arose in the author's line; `is_syntax` where Luau refused the line.
pub(super) fn help(lua: &Lua, is_syntax: bool, message: &str, line: &str) -> Option<String> {
    if message.contains("readonly table") || message.contains("is already frozen") {
        return Some(read_only(line));
    }
    if message.contains("nil") || message.contains("missing method") {
        let found = absent(message, line).map(str::to_owned).or_else(|| missing(lua, message, line));
        if found.is_some() {
            return found;
        }
    }
    // A help about the line alone is about code that Luau refused: texts hold all of these.
    let fits = |(said, written, _): &&(&str, &str, &str)| {
        (is_syntax || !said.is_empty()) && message.contains(said) && line.contains(written)
    };
    HELPS.iter().find(fits).map(|(_, _, help)| (*help).to_owned())
}

/// What is used in place of a library or a function that scripts do not have.
fn absent(message: &str, line: &str) -> Option<&'static str> {
    let field = message.strip_prefix("attempt to index nil with '").and_then(|rest| rest.strip_suffix('\''));
    if let Some(field) = field {
        return NO_LIBRARIES
            .iter()
            .find(|(name, _)| paths(line).any(|path| path == [*name, field]))
            .map(|(_, help)| *help);
    }
    let is_call = message.starts_with("attempt to call a nil value");
    let called = |name: &str| {
        spans(line).any(|(start, end, path)| {
            path == [name] && line[end..].trim_start().starts_with(['(', '"', '\'', '{']) && !is_in_text(&line[..start])
        })
    };
    NO_FUNCTIONS.iter().find(|(name, _)| is_call && called(name)).map(|(_, help)| *help)
}

/// Whether what follows this beginning of a line is inside a text.
fn is_in_text(before: &str) -> bool {
    let (mut quote, mut is_escaped) = (None, false);
    for sign in before.chars() {
        match quote {
            Some(_) if is_escaped => is_escaped = false,
            Some(_) if sign == '\\' => is_escaped = true,
            Some(open) if sign == open => quote = None,
            None if matches!(sign, '"' | '\'' | '`') => quote = Some(sign),
            _ => {}
        }
    }
    quote.is_some()
}

/// What is said of a field that a table of the host's does not have.
fn missing(lua: &Lua, message: &str, line: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("attempt to call missing method '") {
        let (method, kind) = rest.split_once("' of ")?;
        return match kind {
            // The name of the host's own type.
            "Rng" => Some(suggestion("rng", ":", method, &RNG.map(str::to_owned))),
            "string" => Some(suggestion("string", ".", method, &names(lua, &["string"])?)),
            _ => None,
        };
    }
    paths(line).find_map(|path| {
        let (name, table) = path.split_last().filter(|(_, table)| !table.is_empty())?;
        let is_host = table == ["gift"] || table == ["gift", "json"] || LIBRARIES.iter().any(|it| table == [*it]);
        let names = names(lua, table).filter(|_| is_host)?;
        (!names.iter().any(|known| known == name)).then(|| suggestion(&table.join("."), ".", name, &names))
    })
}

fn suggestion(table: &str, sign: &str, name: &str, names: &[String]) -> String {
    let written = format!("{table}.{}", name.to_lowercase());
    let other = ELSEWHERE.iter().find(|(elsewhere, _)| *elsewhere == written).map(|(_, help)| (*help).to_owned());
    let near =
        || closest(name, names.iter().map(String::as_str)).map(|near| format!("did you mean `{table}{sign}{near}`?"));
    let drawn = || closest(name, RNG).filter(|_| table == "gift").map(|near| format!("did you mean `rng:{near}`?"));
    let rest = other.or_else(near).or_else(drawn).unwrap_or_else(|| format!("it has {}", names.join(", ")));
    format!("`{table}` has no `{name}`; {rest}")
}

/// The names in a table that can be reached by these names from the globals.
fn names(lua: &Lua, path: &[&str]) -> Option<Vec<String>> {
    let mut table: Table = lua.globals();
    for (at, name) in path.iter().enumerate() {
        // The globals of a script read through to the host's.
        let value: LuaValue = if at == 0 { table.get(*name) } else { table.raw_get(*name) }.ok()?;
        table = value.as_table()?.clone();
    }
    let mut names = Vec::new();
    table
        .for_each(|name: String, _: LuaValue| {
            names.push(name);
            Ok(())
        })
        .ok()?;
    names.sort_unstable();
    Some(names)
}

/// What is said of a write to a table that is read-only.
fn read_only(line: &str) -> String {
    match written(line).as_deref() {
        Some([name]) => format!(
            "`{name}` is a global, and globals can be set only while the script loads: write `local {name} = …`, and keep what has to last in the state"
        ),
        Some(["_G", ..]) => {
            "globals can be set only while the script loads: use a `local`, and keep what has to last in the state".to_owned()
        }
        Some([table, ..]) if *table == "gift" || LIBRARIES.contains(table) => format!(
            "`{table}` is the host's, the same for all scripts, and read-only: put your own functions into a `local` table"
        ),
        Some([table, ..]) => format!(
            "`{table}`, or a table inside it, was frozen by `table.freeze`: change a copy (`table.clone`), or do not freeze it"
        ),
        Some([]) | None => {
            "globals, `gift` and Lua's libraries are read-only, and so is what `table.freeze` froze: write to a `local` or to the state"
                .to_owned()
        }
    }
}

/// The names that lead to what the line writes: the first that looks like it.
fn written(line: &str) -> Option<Vec<&str>> {
    /// Functions that write to their first argument.
    const WRITERS: [&[&str]; 8] = [
        &["table", "insert"],
        &["table", "remove"],
        &["table", "sort"],
        &["table", "clear"],
        &["table", "move"],
        &["rawset"],
        &["setmetatable"],
        &["rng", "shuffle"],
    ];
    /// Operators that end in `=` and assign.
    const BEFORE: [char; 9] = ['+', '-', '*', '/', '%', '^', '.', ' ', ','];
    let (mut argument_of_writer, mut definition) = (None, None);
    for (start, end, path) in spans(line) {
        let rest = line[end..].trim_start();
        if let Some(argument) = rest.strip_prefix('(').filter(|_| WRITERS.contains(&path.as_slice())) {
            let argument = argument.trim_start();
            let first = || spans(argument).next().filter(|(at, ..)| *at == 0).map(|(_, _, path)| path);
            argument_of_writer = argument_of_writer.or_else(|| Some([first()?, vec!["[…]"]].concat()));
        }
        if line[..start].trim_end().ends_with("function") && rest.starts_with('(') {
            definition.get_or_insert(path);
            continue;
        }
        // Past indices in brackets, which are not read.
        let (mut after, mut is_indexed) = (rest, false);
        while let Some((_, more)) = after.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
            (after, is_indexed) = (more.trim_start(), true);
        }
        let (sign, before) = (after.trim_start_matches(BEFORE), &line[..start]);
        let is_declared = before.rfind("local ").is_some_and(|at| !before[at..].contains('='))
            || before.trim_end().ends_with("for")
            || before.matches('{').count() > before.matches('}').count();
        if sign.starts_with('=') && !sign.starts_with("==") && !is_declared {
            let mut path = path;
            if is_indexed {
                path.push("[…]");
            }
            return Some(path);
        }
    }
    // A function that is defined in the line may hold the rest of it.
    argument_of_writer.or(definition)
}

/// The names in a line that are joined by dots or colons, such as `["gift", "json", "encode"]`.
fn paths(line: &str) -> impl Iterator<Item = Vec<&str>> {
    spans(line).map(|(_, _, path)| path)
}

/// As [`paths`], with where each begins and ends.
fn spans(line: &str) -> impl Iterator<Item = (usize, usize, Vec<&str>)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':');
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + line[at..].find(is_part)?;
            let length = line[start..].find(|c: char| !is_part(c)).unwrap_or(line.len() - start);
            at = start + length;
            let text = line[start..at].trim_end_matches(['.', ':']);
            let path: Vec<&str> = text.split(['.', ':']).collect();
            let is_name = |name: &&str| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            if !text.is_empty() && path.iter().all(is_name) {
                return Some((start, start + text.len(), path));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_writes_is_found() {
        let found = |line| written(line).map(|path| path.join("."));
        assert_eq!(found("  count = 1").as_deref(), Some("count"));
        assert_eq!(found("  count += 1").as_deref(), Some("count"));
        assert_eq!(found("if x == 1 then words[1] = 'b' end").as_deref(), Some("words.[…]"));
        assert_eq!(found("local a = 1 gift.x = a").as_deref(), Some("gift.x"));
        assert_eq!(found("function string.trim(s) return s end").as_deref(), Some("string.trim"));
        assert_eq!(found("function game.init(rng) words[1] = 'b'").as_deref(), Some("words.[…]"));
        assert_eq!(found("function game.init(rng) table.sort(words)").as_deref(), Some("words.[…]"));
        assert_eq!(found("table.insert(words, 'b')").as_deref(), Some("words.[…]"));
        assert_eq!(found("rng:shuffle(game.deck)").as_deref(), Some("game.deck.[…]"));
        assert_eq!(found("_G.x = 1").as_deref(), Some("_G.x"));
        assert_eq!(found("text ..= 'x'").as_deref(), Some("text"));
        assert_eq!(found("table.insert(words, { a = 1 })").as_deref(), Some("words.[…]"));
        assert_eq!(found("for i = 1, 3 do words[i] = 0 end").as_deref(), Some("words.[…]"));
        assert_eq!(found("local a, b = 1, 2"), None);
        assert_eq!(found("return f(a)"), None);
    }

    #[test]
    fn a_library_that_is_missing_is_not_found_in_other_names() {
        assert!(
            absent("attempt to index nil with 'time'", "local t = os.time()")
                .is_some_and(|help| help.contains("clock"))
        );
        assert_eq!(absent("attempt to index nil with 'x'", "local x = pos.x"), None);
        assert_eq!(absent("attempt to index nil with 'x'", "local x = state.os.x"), None);
        assert_eq!(absent("attempt to call a nil value", "blueprint(x)"), None);
    }
}
