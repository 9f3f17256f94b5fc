//! The table that a game's script returns: which fields the host reads, and what is said of one that is missing, of the
//! wrong kind or misspelt. Read once, when [`super::GameDef`] is made; calls nothing.

use crate::diag::{Diagnostic, SourceSpan, closest};
use crate::script::{Field, Language, Script, Source, Value};

use super::IllegalRule;
use super::definition::shown;

/// Functions that every game must have, with what they take and give.
const REQUIRED: [(&str, &str, &str); 5] = [
    ("init", "rng, options", "state"),
    ("to_act", "state", "seat"),
    ("observe", "state, seat", "text"),
    ("apply", "state, seat, action", "state"),
    ("outcome", "state", "{ scores = {…}, success = {…} }"),
];
/// Functions that a game may have, with the number of their arguments.
const OPTIONAL: [(&str, usize); 8] =
    [("actions", 2), ("brief", 2), ("parse", 3), ("bot", 3), ("score", 2), ("key", 1), ("hide", 3), ("episodes", 1)];
/// Everything that the host reads in a game's table.
pub const GAME_FIELDS: [&str; 17] = [
    "name",
    "seats",
    "max_turns",
    "illegal",
    "init",
    "to_act",
    "observe",
    "apply",
    "outcome",
    "actions",
    "brief",
    "parse",
    "bot",
    "score",
    "key",
    "hide",
    "episodes",
];
/// Names that would collide with metrics, versions and settings of the whole run, and what they mean there.
const RESERVED: [(&str, &str); 5] = [
    ("all", "`success/all` is the success in all games together"),
    ("files", "`games.files` lists the scripts in the settings"),
    ("mean", "`reward/mean` is the mean reward of all games"),
    ("nest", "`scripts/nest` is the version of the nesting script"),
    ("reward", "`scripts/reward` is the version of the reward script"),
];
/// The longest name of a game, in bytes.
const MAX_NAME: usize = 64;
/// What a name is, in words.
pub const NAME_FORM: &str =
    "letters, digits, `_` and `-`, at most 64, and not `all`, `files`, `mean`, `nest` or `reward`";

/// The fields of a game's table that the host reads once.
pub(super) struct Fields {
    pub(super) name: String,
    pub(super) seats: u32,
    pub(super) max_turns: u32,
    pub(super) illegal: IllegalRule,
    /// The optional functions that the game has.
    pub(super) optional: Vec<&'static str>,
}

/// Checks the fields and functions that a game must have.
///
/// # Errors
/// A [`Diagnostic`] with the place, what is missing or of the wrong kind, and the line to write.
pub(super) fn read_fields(script: &dyn Script, source: &Source) -> Result<Fields, Box<Diagnostic>> {
    let path = source.path.clone();
    let at = |diagnostic: Diagnostic| Box::new(diagnostic.at(SourceSpan::file(&path)));
    let at_field =
        |name: &str, diagnostic: Diagnostic| Box::new(source.illustrate(diagnostic.at(source.place_of_field(name))));
    if script.is_function() {
        return Err(at(Diagnostic::error("game::not_a_table", "the script returns a function")
            .expected("a table with the game's data and functions")
            .found("one function, as in a reward script")
            .help("end the script with `return game`")));
    }
    for (name, takes, gives) in REQUIRED {
        let form = form(source.language, name, takes, gives);
        match script.field(name)? {
            Field::Function => {}
            Field::Missing => {
                let others = script.field_names();
                let others = others.iter().map(String::as_str).filter(|other| !GAME_FIELDS.contains(other));
                let near = closest(name, others);
                let help = match near {
                    Some(near) => format!("rename `{near}` to `{name}`, if that is what it is"),
                    None => format!("add the function `{name}` to the table that the script returns"),
                };
                let place = near.map_or_else(|| SourceSpan::file(&path), |near| function_place(source, near));
                let problem = Diagnostic::error("game::missing_function", format!("the game has no `{name}`"))
                    .at(place)
                    .expected(format!("`{form}`"))
                    .found("nothing of that name in the returned table")
                    .help(help);
                return Err(Box::new(source.illustrate(problem)));
            }
            Field::Data(value) => {
                let message = format!("`{name}` is not a function");
                let problem = Diagnostic::error("game::not_a_function", message)
                    .expected(format!("`{form}`"))
                    .found(value.kind())
                    .help(format!("make `{name}` a function"));
                return Err(at_field(name, problem));
            }
        }
    }
    let count = |name: &str, most: i64, default: Option<i64>| -> Result<u32, Box<Diagnostic>> {
        let value = match script.field(name)? {
            Field::Missing => default.map(Value::Int),
            Field::Data(value) => Some(value),
            Field::Function => None,
        };
        if value.is_none() && !matches!(script.field(name)?, Field::Function) {
            return Err(missing_number(script, source, name, most));
        }
        let number = value.as_ref().and_then(Value::as_int).filter(|number| (1..=most).contains(number));
        number.map(|number| number as u32).ok_or_else(|| {
            let sign = if source.language == Language::Lua { " =" } else { ":" };
            let problem = Diagnostic::error("game::bad_field", format!("`{name}` is missing or out of its range"))
                .expected(format!("a whole number from 1 to {most}"))
                .found(value.map_or_else(|| "a function".to_owned(), |value| shown(&value)))
                .help(format!("write `{name}{sign} 2` in the game's table"));
            at_field(name, problem)
        })
    };
    let seats = count("seats", 64, None)?;
    let max_turns = count("max_turns", 100_000, None)?;
    let name = match script.field("name")? {
        Field::Missing => match check_name(&source.name) {
            Ok(()) => source.name.clone(),
            Err(why) => {
                return Err(at(bad_name(&format!("none, and the file is called `{}`; but {why}", source.name))));
            }
        },
        Field::Data(Value::Text(name)) => match check_name(&name) {
            Ok(()) => name,
            Err(why) => return Err(at_field("name", bad_name(&format!("{}; but {why}", shown(&name.into()))))),
        },
        Field::Data(value) => return Err(at_field("name", bad_name(&shown(&value)))),
        Field::Function => return Err(at_field("name", bad_name("a function"))),
    };
    let illegal = match script.field("illegal")? {
        Field::Missing => IllegalRule::Retry,
        Field::Data(Value::Text(rule)) if rule == "retry" => IllegalRule::Retry,
        Field::Data(Value::Text(rule)) if rule == "end" => IllegalRule::End,
        Field::Data(value) => return Err(at_field("illegal", bad_illegal(&shown(&value)))),
        Field::Function => return Err(at_field("illegal", bad_illegal("a function"))),
    };
    let mut optional = Vec::new();
    for (name, _) in OPTIONAL {
        match script.field(name)? {
            Field::Missing => {}
            Field::Function => optional.push(name),
            Field::Data(value) => {
                let problem = Diagnostic::error("game::not_a_function", format!("`{name}` is not a function"))
                    .expected("a function, or nothing")
                    .found(value.kind())
                    .help(format!("make `{name}` a function or rename the field"));
                return Err(at_field(name, problem));
            }
        }
    }
    Ok(Fields { name, seats, max_turns, illegal, optional })
}

/// A number that the table lacks, with the field that may be meant for it.
fn missing_number(script: &dyn Script, source: &Source, name: &str, most: i64) -> Box<Diagnostic> {
    let sign = if source.language == Language::Lua { " =" } else { ":" };
    let others = script.field_names();
    let near = closest(name, others.iter().map(String::as_str).filter(|other| !GAME_FIELDS.contains(other)));
    let problem = Diagnostic::error("game::bad_field", format!("the game has no `{name}`"))
        .expected(format!("`{name}{sign} 2` or another whole number from 1 to {most}"));
    let problem = match near {
        Some(near) => problem
            .at(source.place_of_field(near))
            .found(format!("`{near}`, which nothing reads"))
            .help(format!("did you mean `{name}`?")),
        None => problem
            .at(SourceSpan::file(&source.path))
            .found("nothing of that name in the returned table")
            .help(format!("write `{name}{sign} 2` in the game's table")),
    };
    Box::new(source.illustrate(problem))
}

/// Warnings for functions of the contract that the text defines with a colon, though they have a name for each argument: the
/// colon puts one more before them.
pub(super) fn colons(source: &Source) -> Vec<Diagnostic> {
    let functions = REQUIRED.iter().map(|(name, takes, _)| (*name, takes.split(',').count())).chain(OPTIONAL);
    let mut warnings = Vec::new();
    for (name, count) in functions.filter(|_| source.language == Language::Lua) {
        let form = format!(":{name}(");
        for (index, line) in source.text.lines().enumerate() {
            let Some((table, rest)) =
                line.trim_start().strip_prefix("function ").and_then(|line| line.split_once(&form))
            else {
                continue;
            };
            let parameters = rest.split_once(')').map_or(0, |(inside, _)| inside.split(',').count());
            if parameters < count || rest.starts_with(')') {
                continue;
            }
            let column = line.find(&form).map_or(0, |at| line[..=at].chars().count() as u32 + 1);
            let place = SourceSpan { file: source.path.clone(), line: index as u32 + 1, column };
            let warning = Diagnostic::warning("game::colon", format!("`{name}` is defined with a colon"))
                .at(place)
                .expected(format!("`function {table}.{name}(`"))
                .found(format!("`function {table}:{name}(`, which puts a `self` before the parameters"))
                .help("write a dot: as it is, each parameter gets what the one before it should get");
            warnings.push(source.illustrate(warning));
        }
    }
    warnings
}

/// How a function of a game is written.
fn form(language: Language, name: &str, takes: &str, gives: &str) -> String {
    match language {
        Language::Lua => format!("function game.{name}({takes}) … return {gives} end"),
        Language::Rhai => {
            let gives = if name == "outcome" { "#{ scores: […], success: […] }" } else { gives };
            format!("fn {name}({takes}) {{ … {gives} }}")
        }
    }
}

/// Warnings for names among `written` that are not `known` but close to a known one that is not written.
pub(super) fn misspelt(source: &Source, what: &str, written: &[String], known: &[&str]) -> Vec<Diagnostic> {
    let has = |name: &str| written.iter().any(|other| other == name);
    let mut warnings = Vec::new();
    for name in written.iter().filter(|name| !known.contains(&name.as_str())) {
        let Some(near) = closest(name, known.iter().copied().filter(|known| !has(known))) else { continue };
        let code = if what == "nest" { "nest::unknown_field" } else { "game::unknown_field" };
        let place = source.place_of_field(name);
        let place = if place.line > 0 { place } else { function_place(source, name) };
        let warning = Diagnostic::warning(code, format!("nothing reads the field `{name}` of the {what}"))
            .at(place)
            .expected(format!("one of the {what}'s fields, or a helper of your own"))
            .found(format!("`{name}`, and no `{near}`"))
            .help(format!("did you mean `{near}`? If `{name}` is your own, another name or `local` ends this warning"));
        warnings.push(source.illustrate(warning));
    }
    warnings
}

/// Where the text defines a function of this name.
fn function_place(source: &Source, name: &str) -> SourceSpan {
    let begin = |line: &str| {
        let mut found = line.match_indices(name).map(|(at, _)| at);
        found.find(|&at| {
            line.trim_start().starts_with('f')
                && line[..at].ends_with(['.', ' '])
                && line[at + name.len()..].starts_with('(')
        })
    };
    let place = source.text.lines().enumerate().find_map(|(index, line)| Some((index, line, begin(line)?)));
    match place {
        Some((index, line, at)) => SourceSpan {
            file: source.path.clone(),
            line: index as u32 + 1,
            column: line[..at].chars().count() as u32 + 1,
        },
        None => SourceSpan::file(&source.path),
    }
}

/// Whether a game may have this name.
///
/// # Errors
/// Why it may not.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a name has at least one character".to_owned());
    }
    if let Some(other) = name.chars().find(|&c| !c.is_ascii_alphanumeric() && c != '_' && c != '-') {
        return Err(format!("a name has no {other:?}"));
    }
    if name.len() > MAX_NAME {
        return Err(format!("a name has at most {MAX_NAME} characters, not {}", name.len()));
    }
    match RESERVED.iter().find(|(reserved, _)| *reserved == name) {
        Some((_, meaning)) => Err(format!("the name is taken: {meaning}")),
        None => Ok(()),
    }
}

fn bad_name(found: &str) -> Diagnostic {
    Diagnostic::error("game::bad_field", "`name` is not a usable name")
        .expected(NAME_FORM)
        .found(found)
        .help("write `name = \"mygame\"`: settings, nests and metrics use it")
}

fn bad_illegal(found: &str) -> Diagnostic {
    Diagnostic::error("game::bad_field", "`illegal` is not a known rule")
        .expected("\"retry\" (ask again) or \"end\" (the episode ends as lost)")
        .found(found)
        .help("write `illegal = \"retry\"` or leave it out")
}
