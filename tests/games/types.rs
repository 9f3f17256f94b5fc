//! The type files for editors against what the host really offers: every function, method and field is in both, and
//! nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gift_host::game::{
    EpisodeSummary, GAME_FIELDS, GameStats, NEST_FIELDS, Nest, RewardScript, ScriptHost, Seat, StageResult, Turn,
};
use gift_host::script::{Language, Source, Value, with_script};
use gift_host::seed::Seed;

use super::support::deep;

const LUAU: &str = include_str!("../../scripts/types/gift.d.luau");
const LUA: &str = include_str!("../../scripts/types/gift.lua");
const OBJECTS: &str = include_str!("../../src/script/lua/objects.rs");

type Names = BTreeSet<String>;

fn names<'a>(list: impl IntoIterator<Item = &'a str>) -> Names {
    list.into_iter().map(str::to_owned).collect()
}

/// The word at the start of a text.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The members of a table type in the Luau file: the lines that are indented once below `head`.
fn luau_members(head: &str) -> Names {
    let body = LUAU.split_once(head).unwrap_or_else(|| panic!("`{head}` is in the Luau file")).1;
    let body = body.split("\n}").next().expect("a body");
    let members =
        body.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with([' ', '-', '}']));
    names(members.map(word))
}

/// The fields of a class in the Lua file.
fn lua_fields(class: &str) -> Names {
    let head = format!("---@class {class}\n");
    let body = LUA.split_once(&head).unwrap_or_else(|| panic!("`{class}` is in the Lua file")).1;
    let fields = body.lines().map_while(|line| line.strip_prefix("---@field "));
    names(fields.map(word))
}

/// The functions of the Lua file whose names begin with `prefix`.
fn lua_functions(prefix: &str) -> Names {
    let heads = LUA.lines().filter_map(|line| line.strip_prefix("function ")?.strip_prefix(prefix));
    names(heads.filter(|rest| rest[word(rest).len()..].starts_with('(')).map(word))
}

fn source(text: &str) -> Source {
    Source::new(Path::new("games/types.lua"), Language::Lua, text, BTreeMap::new())
}

fn run(source: &Source) -> Value {
    let host = ScriptHost::default();
    let result = with_script(source, &host.limits, &host.library, |script| script.call("run", &mut []));
    result.expect("a script").expect("a value")
}

fn texts(value: &Value) -> Names {
    names(value.as_list().expect("a list").iter().map(|item| item.as_text().expect("a name")))
}

/// What the script can see below a name.
fn offered(table: &str) -> Names {
    let text = format!(
        "return {{ run = function() local names = {{}} for name in pairs({table}) do names[#names + 1] = name end \
         return names end }}"
    );
    texts(&run(&source(&text)))
}

/// The keys of a table that a function is given: it fails with them, so that they come back in the message.
const TELL: &str = "local function tell(t) local names = {} for name in pairs(t) do names[#names + 1] = name end \
                    error(gift.json.encode(names), 0) end\n";

fn told(message: &str) -> Names {
    texts(&Value::from_json(&serde_json::from_str(message).unwrap_or_else(|error| panic!("{error}: {message}"))))
}

#[test]
fn the_library_is_declared_as_it_is() {
    let library = offered("gift");
    assert_eq!(luau_members("declare gift: {"), library);
    let mut declared = lua_functions("gift.");
    declared.insert("json".to_owned());
    assert_eq!(declared, library);
    let json = offered("gift.json");
    assert_eq!(lua_functions("gift.json."), json);
    for name in &json {
        assert!(LUAU.contains(&format!("\n    {name}: (")), "`gift.json.{name}` is in the Luau file");
    }
    for text in [LUAU, LUA] {
        assert!(text.contains("function require(name"), "`require` is declared");
    }
}

/// Rhai's library cannot be listed, but it can be called: what is missing is not found.
#[test]
fn rhai_has_the_same_library() {
    let host = ScriptHost::default();
    let calls = offered("gift").into_iter().filter(|name| name != "json").map(|name| format!("gift.{name}"));
    let json = offered("gift.json").into_iter().map(|name| format!("gift.json.{name}"));
    for call in calls.chain(json) {
        let text = format!("fn run() {{ {call}(\"\") }}\n#{{}}");
        let source = Source::new(Path::new("games/types.rhai"), Language::Rhai, &text, BTreeMap::new());
        let result = with_script(&source, &host.limits, &host.library, |script| script.call("run", &mut []));
        if let Err(gift_host::script::CallError::Fault(problem)) = result.expect("a script") {
            assert!(!problem.message.contains("not found"), "{call}: {problem}");
        }
    }
}

#[test]
fn the_generator_is_declared_as_it_is() {
    let generator =
        OBJECTS.split("impl UserData for").find(|part| part.trim_start().starts_with("Rng")).expect("its part");
    let methods = generator.split("methods.add_method(\"").skip(1).map(word);
    let methods = names(methods);
    assert_eq!(methods.len(), 4, "{methods:?}");
    assert_eq!(luau_members("export type Rng = {"), methods);
    assert_eq!(lua_functions("Rng:"), methods);
}

#[test]
fn games_and_nests_are_declared_as_they_are_read() {
    for (luau, lua, fields) in [
        ("export type Game = {", "gift.Game", names(GAME_FIELDS)),
        ("export type Nest = {", "gift.Nest", names(NEST_FIELDS)),
        ("export type Outcome = {", "gift.Outcome", names(["scores", "success"])),
    ] {
        assert_eq!(luau_members(luau), fields, "{luau}");
        assert_eq!(lua_fields(lua), fields, "{lua}");
    }
}

#[test]
fn episodes_are_declared_as_they_are_given() {
    let turn = Turn { seat: Seat(1), action: "a".into(), legal: true, well_formed: true, refusal: None };
    let given = |path: &str| {
        let source = source(&format!("{TELL}return function(episode) tell(episode{path}) end"));
        let script = RewardScript::compile(source, &ScriptHost::default()).expect("a script");
        let episode = EpisodeSummary {
            game: "g",
            seat: 1,
            scores: &[1.0],
            success: &[true],
            turns: std::slice::from_ref(&turn),
            texts: &[("o".to_owned(), "a".to_owned())],
            prompt_tokens: 1,
            response_tokens: 1,
            penalty: 0.0,
            truncated: false,
        };
        told(&script.reward(&episode).expect_err("its keys").message)
    };
    for (path, luau, lua) in [
        ("", "export type Episode = {", "gift.Episode"),
        (".turns[1]", "export type Turn = {", "gift.Turn"),
        (".outcome", "export type Outcome = {", "gift.Outcome"),
    ] {
        let fields = given(path);
        assert_eq!(luau_members(luau), fields, "{luau}");
        assert_eq!(lua_fields(lua), fields, "{lua}");
    }
    assert_eq!(lua_fields("gift.Tokens"), given(".tokens"));
    assert!(LUAU.contains("tokens: { prompt: number, response: number }"));
}

#[test]
fn what_nests_are_given_is_declared() {
    deep(|| {
        let host = ScriptHost::default();
        let games = ["g".to_owned()];
        let text = format!(
            "{TELL}return {{ stages = function(rng, stats) tell(stats.g) end, reward = function(results) tell(results[1]) end }}"
        );
        let nest = Nest::compile(&source(&text), &games, &host).expect("a nest");
        let stats = BTreeMap::from([("g".to_owned(), GameStats { success: 0.5, reward: 0.5 })]);
        let stats = told(&nest.stages(&games, &stats, &mut Seed::new(0).stream()).expect_err("its keys").message);
        let result = StageResult { game: "g".to_owned(), reward: 1.0, success: true };
        let result = told(&nest.reward(&[result]).expect_err("its keys").message);
        let equilibrium = "return { run = function() local names = {} for name in pairs(gift.nash({{1}}, {{1}})[1]) do \
                           names[#names + 1] = name end return names end }";
        for (fields, luau, lua) in [
            (stats, "export type Stats = {", "gift.Stats"),
            (result, "export type StageResult = {", "gift.StageResult"),
            (texts(&run(&source(equilibrium))), "export type Equilibrium = {", "gift.Equilibrium"),
        ] {
            assert_eq!(luau_members(luau), fields, "{luau}");
            assert_eq!(lua_fields(lua), fields, "{lua}");
        }
    });
}
