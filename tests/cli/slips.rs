//! What authors often get wrong, and whether the message names the line, what is wrong with it, and what to write instead.

use super::support::{ECHO, Place, assert_output};

const RHAI: &str = include_str!("../echo.rhai");

/// A folder with this game.
fn place(file: &str, text: &str) -> Place {
    let place = Place::new();
    place.write(file, text);
    place
}

/// The game with a statement at the start of `init`, on the second line in both languages.
fn lua(statement: &str) -> String {
    ECHO.replace("options) return { digit", &format!("options)\n  {statement}\n  return {{ digit"))
}

fn rhai(statement: &str) -> String {
    RHAI.replace("options) {\n", &format!("options) {{\n    {statement}\n"))
}

fn said(place: &Place, file: &str) -> String {
    place.shown(&["check", file, "--episodes", "2", "--set", "scripts.call_ms=300"])
}

/// Each statement in `init`, and what has to be said of it.
fn assert_each(file: &str, game: fn(&str) -> String, cases: &[(&str, &str)]) {
    for (statement, expected) in cases {
        let said = said(&place(file, &game(statement)), file);
        assert!(said.starts_with("status: 1"), "{statement}: {said}");
        assert!(said.contains(expected), "{statement}: expected {expected:?} in {said}");
    }
}

fn assert_lua(cases: &[(&str, &str)]) {
    assert_each("games/echo.lua", lua, cases);
}

fn assert_rhai(cases: &[(&str, &str)]) {
    assert_each("games/echo.rhai", rhai, cases);
}

#[test]
fn numbers_among_the_answers_are_told_beside_what_comes_of_them() {
    let text = ECHO
        .replace("return { \"1\", \"2\", \"3\", \"4\" } end", "return { 1, 2, 3, 4 } end")
        .replace("table.find({ \"1\", \"2\", \"3\", \"4\" }, action)", "table.find({ 1, 2, 3, 4 }, action)");
    let place = place("games/echo.lua", &text);
    let shown = place.shown(&["check", "games/echo.lua"]);
    let [warning, error] =
        ["warning[game::number_actions]", "error[game::legal_refused]"].map(|told| shown.find(told).expect(told));
    assert!(warning < error, "{shown}");
    let train = place.shown(&["train", "--games", "games/echo.lua", "--device", "cpu"]);
    assert!(train.contains("error[game::legal_refused]"), "{train}");
    assert!(train.contains("note: warning[game::number_actions]"), "{train}");
    let text = RHAI
        .replace("{ [\"1\", \"2\", \"3\", \"4\"] }", "{ [1, 2, 3, 4] }")
        .replace("(action in [\"1\"", "(action in [1");
    place.write("games/echo.rhai", &text);
    let said = said(&place, "games/echo.rhai");
    assert!(said.contains("`parse_int(action)` in `apply`"), "{said}");
}

#[test]
fn a_refused_write_names_the_table() {
    assert_lua(&[
        ("gift.x = 1", "`gift` is the host's, the same for all scripts, and read-only"),
        ("string.x = 1", "`string` is the host's"),
        (
            "count = 1",
            "`count` is a global, and globals can be set only while the script loads: write `local count = …`",
        ),
        ("_G.count = 1", "globals can be set only while the script loads"),
    ]);
    for statement in ["words[1] = 'b'", "table.insert(words, 'b')", "words.first = 1"] {
        let text = format!("local words = table.freeze({{ 'a' }})\n{}", lua(statement));
        let said = said(&place("games/echo.lua", &text), "games/echo.lua");
        assert!(said.contains("`words`, or a table inside it, was frozen by `table.freeze`"), "{statement}: {said}");
    }
    let text = format!("function string.trim(text) return text end\n{ECHO}");
    let said = said(&place("games/echo.lua", &text), "games/echo.lua");
    assert!(said.contains("games/echo.lua:1\n") && said.contains("`string` is the host's"), "{said}");
    assert_rhai(&[("gift.x = 1;", "`gift` is the host's, the same for all scripts, and read-only")]);
}

#[test]
fn a_module_that_is_not_there_is_looked_for_by_its_name() {
    let place = place("games/a.lua", &format!("local words = require(\"wrds\")\n{ECHO}"));
    place.write("scripts/lib/words.lua", "return {}\n");
    place.write("scripts/lib/words.rhai", "fn all() { [] }\n");
    let shown = said(&place, "games/a.lua");
    super::support::filtered(&place, || {
        insta::assert_snapshot!(shown, @r#"
    status: 1
    --- output
    error[script::runtime]: there is no module `wrds`
      --> games/a.lua:1
       |
     1 | local words = require("wrds")
       | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
      expected: a file `scripts/lib/wrds.lua` beside the script or in a folder above it
      found:    no folder `games/scripts/lib`; `words` in `scripts/lib`; none further up
      help:     did you mean `require("words")`?
      stack:    games/a.lua:1
    "#);
    });
    for (line, help) in [
        ("require(\"chess\")", "write the module as `scripts/lib/chess.lua`, or correct the name"),
        ("require(\"./words\")", "write `require(\"words\")`: a module has neither folder nor extension in its name"),
        ("require(\"words.lua\")", "write `require(\"words\")`: a module has neither folder nor extension in its name"),
        ("require(\"wo\" .. \"rds\")", "write `require(\"words\")`: the name has to stand in quotes"),
    ] {
        place.write("games/a.lua", &format!("local words = {line}\n{ECHO}"));
        let said = said(&place, "games/a.lua");
        assert!(said.contains(help), "{line}: {said}");
    }
    place.write("games/b.rhai", &format!("import \"wrds\" as words;\n{RHAI}"));
    let said = said(&place, "games/b.rhai");
    assert!(said.contains("--> games/b.rhai:1:8"), "{said}");
    assert!(said.contains("`words` in `scripts/lib`"), "{said}");
    assert!(said.contains("did you mean `import \"words\" as words;`?"), "{said}");
}

#[test]
fn the_line_is_known_where_luas_memory_ends() {
    let text = lua("grow()").replacen(
        "function game.init",
        "local function grow()\n  local text = \"x\"\n  while true do\n    text = text .. text\n  end\nend\nfunction game.init",
        1,
    );
    // Little memory, as filling much of it may take longer than a call on a busy machine.
    let arguments = ["check", "games/echo.lua", "--episodes", "2", "--set", "scripts.memory_mib=16"];
    let shown = place("games/echo.lua", &text).shown(&arguments);
    let shown = shown.split_once("\nnote:").map_or(shown.clone(), |(shown, _)| shown.to_owned());
    insta::assert_snapshot!(shown, @r"
    status: 1
    --- output
    error[script::memory]: the script needs more than 16 MiB of memory
      --> games/echo.lua:5
       |
     5 |     text = text .. text
       |     ^^^^^^^^^^^^^^^^^^^
       |
      help:     look for a list or a string that keeps growing, or that is made too large at once
      stack:    games/echo.lua:5 in `grow`
                games/echo.lua:9 in `init`
    ");
    let top = format!("local text = \"x\"\nwhile true do\n  text = text .. text\nend\n{ECHO}");
    let said = place("games/echo.lua", &top).shown(&arguments);
    assert!(said.contains("script::memory") && said.contains("--> games/echo.lua:3"), "{said}");
}

#[test]
fn the_line_is_known_where_rhai_is_ended() {
    let deep = |body: &str| format!("fn deep(n) {{\n    {body}\n}}\n{}", rhai("let x = deep(1);"));
    for (text, code, place_and_stack) in [
        (deep("while true {\n n += 1; }"), "script::timeout", ["echo.rhai:3:2\n", "echo.rhai:6:13 in `init`"]),
        (deep("deep(n + 1)"), "stack overflow", ["echo.rhai:2:10\n", "echo.rhai:5:13 in `init`"]),
        (
            deep("let t = \"x\"; loop {\n t += t; }"),
            "the strings are longer than 1 MiB",
            ["echo.rhai:3:2\n", "echo.rhai:6:13 in `init`"],
        ),
        (deep("loop { }"), "script::timeout", ["echo.rhai:4:4\n", "`init` begins here"]),
    ] {
        let said = said(&place("games/echo.rhai", &text), "games/echo.rhai");
        assert!(said.contains(code), "{text}: {said}");
        for part in place_and_stack {
            assert!(said.contains(part), "{text}: expected {part:?} in {said}");
        }
    }
    let text = format!("let n = 0;\nwhile true {{\n  n += 1;\n}}\n{RHAI}");
    let said = said(&place("games/echo.rhai", &text), "games/echo.rhai");
    assert!(said.contains("script::timeout") && said.contains("--> games/echo.rhai:3:3"), "{said}");
}

/// Whatever a script does once its time is over, it is ended.
#[test]
fn a_rhai_script_cannot_catch_that_its_time_is_over() {
    assert_rhai(&[
        ("let n = 0; while true { try { while true { n += 1; } } catch { } }", "script::timeout"),
        ("loop { try { loop { } } catch { } }", "script::timeout"),
    ]);
}

#[test]
fn a_value_that_may_not_cross_names_the_function() {
    let text = RHAI.replace("#{ digit", "#{ again: || 1, digit");
    let shown = said(&place("games/echo.rhai", &text), "games/echo.rhai");
    let shown = shown.split_once("\nnote:").map_or(shown.clone(), |(shown, _)| shown.to_owned());
    insta::assert_snapshot!(shown, @r"
    status: 1
    --- output
    error[script::value]: the result of `init`.again is a function
      --> games/echo.rhai:1:4
       |
     1 | fn init(rng, options) {
       |    ^^^^ `init` begins here
       |
      expected: numbers, strings, booleans, lists and maps with string keys
      help:     keep functions in the script and data in the state
    ");
    let text = ECHO.replace("return { digit", "return { again = print, again2 = function() end, digit");
    let said = said(&place("games/echo.lua", &text), "games/echo.lua");
    assert!(said.contains("^^^^ `init` begins here"), "{said}");
}

#[test]
fn a_wrong_value_is_shown() {
    let board = "{ \"X\", \"\", \"\", \"O\" }";
    for (call, expected) in [
        ("gift.grid(BOARD, 0)", "`gift.grid`: expected a whole number of columns, 1 or more, found 0"),
        ("gift.grid(BOARD, 1.5)", "`gift.grid`: expected a whole number of columns, 1 or more, found 1.5"),
        ("gift.grid(BOARD)", "`gift.grid`: expected "),
        ("gift.line(BOARD, 2, 2, 9)", "`gift.line`: expected a cell from 1 to 4, found 9"),
        ("gift.line(BOARD, 2, 2, 0)", "`gift.line`: expected the number of a cell, 1 or more, found 0"),
        ("gift.line(BOARD, 2, -1, 1)", "`gift.line`: expected a whole number of marks, 1 or more, found -1"),
        ("gift.free({ \"X\", 3 })", "`gift.free`: expected a string as cell 2, found 3"),
        ("gift.free(true)", "`gift.free`: expected a list of cells, found true"),
        ("gift.mean({ \"two\" })", "`gift.mean`: expected a number as item 1, found the string \"two\""),
        ("gift.template(\"{x}\", 3)", "`gift.template`: expected a table with a value for `{x}`, found 3"),
        ("rng:int(1.5, 3)", "`rng:int`: expected a whole number as argument 1, found 1.5"),
        ("rng:int(0 / 0, 3)", "`rng:int`: expected a whole number as argument 1, found NaN"),
        ("rng:pick(3)", "`rng:pick`: expected a list, found 3"),
        ("rng:shuffle(\"abc\")", "`rng:shuffle`: expected a list, found the string \"abc\""),
    ] {
        assert_lua(&[(&format!("local x = {}", call.replace("BOARD", board)), expected)]);
    }
    assert_rhai(&[("gift.grid([\"X\"], 0);", "expected a whole number of columns, 1 or more, found 0")]);
    for (score, found) in [("0 / 0", "found:    [NaN]"), ("1 / 0", "found:    [inf]"), ("-1 / 0", "found:    [-inf]")] {
        let text = ECHO.replace("state.right and 1 or 0", score);
        let said = said(&place("games/echo.lua", &text), "games/echo.lua");
        assert!(said.contains(found), "{score}: {said}");
    }
}

#[test]
fn a_misspelt_number_of_the_game_is_found() {
    let text = ECHO.replace("max_turns = 1", "max_turn = 1");
    assert_output!(place("games/echo.lua", &text), ["check", "games/echo.lua"], @r#"
    status: 1
    --- output
    error[game::bad_field]: the game has no `max_turns`
      --> games/echo.lua:1:42
       |
     1 | local game = { name = "echo", seats = 1, max_turn = 1 }
       |                                          ^^^^^^^^
       |
      expected: `max_turns = 2` or another whole number from 1 to 100000
      found:    `max_turn`, which nothing reads
      help:     did you mean `max_turns`?
    "#);
    for (file, text, help) in [
        ("games/echo.lua", ECHO.replace("seats = 1", "seat = 1"), "did you mean `seats`?"),
        ("games/echo.lua", ECHO.replace("seats = 1, ", ""), "write `seats = 2` in the game's table"),
        ("games/echo.rhai", RHAI.replace("seats: 1", "seat: 1"), "did you mean `seats`?"),
        ("games/echo.rhai", RHAI.replace("max_turns: 1", "max_turn: 1"), "did you mean `max_turns`?"),
    ] {
        let said = said(&place(file, &text), file);
        assert!(said.contains(help), "{text}: {said}");
    }
}

#[test]
fn a_name_that_the_host_does_not_have_is_told() {
    assert_lua(&[
        ("gift.cloen({})", "`gift` has no `cloen`; did you mean `gift.clone`?"),
        ("gift.json.encod({})", "`gift.json` has no `encod`; did you mean `gift.json.encode`?"),
        ("gift.shufle({})", "`gift` has no `shufle`; did you mean `rng:shuffle`?"),
        ("gift.winner({})", "`gift` has no `winner`; it has all, clone, dataset, free,"),
        ("rng:shufle({})", "`rng` has no `shufle`; did you mean `rng:shuffle`?"),
        ("rng:choice({ 1 })", "`rng` has no `choice`; it has int, float, pick, shuffle"),
        ("math.flor(1.5)", "`math` has no `flor`; did you mean `math.floor`?"),
        ("local s = (\"x\"):trim()", "`string` has no `trim`; write `string.match("),
        ("table.contains({}, 1)", "`table` has no `contains`; write `table.find(list, value) ~= nil`"),
    ]);
    assert_rhai(&[
        ("gift.cloen([]);", "`gift` has no `cloen`; did you mean `gift.clone`?"),
        ("let x = gift.cloen;", "`gift` has no `cloen`; did you mean `gift.clone`?"),
        ("gift.json.encod([]);", "`gift.json` has no `encod`; did you mean `gift.json.encode`?"),
        ("rng.shufle([]);", "`rng` has no `shufle`; did you mean `rng.shuffle`?"),
        ("rng.int(1.5, 2);", "`rng.int(1, 6)` takes two whole numbers"),
        ("rng:int(1, 2);", "write a dot: `rng.int(1, 6)`"),
    ]);
}

#[test]
fn what_scripts_do_not_have_is_named_with_what_to_use() {
    assert_lua(&[
        ("local t = os.time()", "scripts have no clock and no `os`"),
        ("local t = io.open(\"x\")", "scripts have no files; read data with `gift.dataset("),
        ("debug.sethook(error)", "scripts have no `debug`; `gift.log(text)` shows values"),
        ("local p = package.path", "scripts have no `package`; `require(\"name\")`"),
        ("local e = getfenv(1)", "functions have no environments here"),
        ("collectgarbage()", "the host frees memory; leave the call out"),
        ("dofile(\"x\")", "scripts cannot load code from text or files"),
        ("print(\"x\")", "write `gift.log(text)`"),
        ("local s = table.create(2 ^ 31)", "does not fit the memory of a script"),
        ("local s = (\"x\"):rep(2 ^ 29)", "or that is made too large at once"),
        // Not about `os`, though the letters are there.
        ("local pos; local x = pos.x", "what stands before the `.` or `[` is nil here"),
    ]);
}

#[test]
fn dots_and_colons_that_are_mixed_up_are_told() {
    assert_lua(&[
        ("local n = rng.int(1, 3)", "`rng.int` was called with a dot, so it has no `rng` to draw from"),
        ("local n = rng.float()", "write a colon: `rng:int(1, 6)`, `rng:float()`"),
        ("local n = gift:grid({}, 1)", "write a dot: the functions of `gift` are called as `gift.grid(cells, 3)`"),
    ]);
    for function in ["init", "to_act", "observe", "actions", "apply", "outcome", "bot"] {
        let text = ECHO.replace(&format!("game.{function}("), &format!("game:{function}("));
        let said = said(&place("games/echo.lua", &text), "games/echo.lua");
        assert!(said.contains(&format!("warning[game::colon]: `{function}` is defined with a colon")), "{said}");
        if said.contains("error[script::runtime]") {
            let help = format!("write `function game.{function}(` with a dot: the colon puts a `self` before");
            assert!(said.contains(&help), "{said}");
        }
    }
    // Whoever counts the `self` in is right.
    let text = ECHO.replace(
        "game.observe(state, seat) return \"Name this digit: \" .. state.digit",
        "game:observe(seat) return \"Name this digit: \" .. self.digit",
    );
    let said = said(&place("games/echo.lua", &text), "games/echo.lua");
    assert!(!said.contains("game::colon"), "{said}");
}

/// What looks like another language's code in a text is none.
#[test]
fn words_in_texts_mislead_no_help() {
    for (statement, wrong) in [
        ("local text = \"Rock & paper: \" .. options.pos.x", "Luau has no `&`"),
        ("local text = \"say >> \" .. options.pos", "Luau has no `>>`"),
        ("caption(\"please wait\")", "nothing waits"),
    ] {
        let said = said(&place("games/echo.lua", &lua(statement)), "games/echo.lua");
        assert!(said.contains("script::runtime") && !said.contains(wrong), "{statement}: {said}");
    }
    assert_lua(&[("wait(1)", "nothing waits in a script")]);
}
