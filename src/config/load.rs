//! From TOML text and `KEY=VALUE` to a checked [`RunConfig`]. No files are read here: the caller has the text.

use std::path::Path;

use serde::Deserialize as _;
use toml::{Table, Value};

use super::RunConfig;
use crate::diag::{Diagnostic, SourceSpan, closest};

/// What differs from the defaults for a model that knows language: the paper's settings, with the learning rate of RAGEN,
/// whose method it builds on. `configs/paper-f-i3-nested.toml` says which value is whose.
pub const LANGUAGE_MODEL: [&str; 9] = [
    "rollout.groups=4",
    "rollout.max_new_tokens=600",
    "decode.constrain=off",
    "decode.observation=full",
    "decode.format=think",
    "optimizer.learning_rate=1e-6",
    "optimizer.warmup_updates=0",
    "optimizer.minibatch=16",
    "evaluation.episodes=100",
];

/// The settings that a TOML text and the `--set KEY=VALUE` pairs give, over the defaults.
///
/// # Errors
/// A [`Diagnostic`] that names the unknown or ill-typed key and the nearest known one.
pub fn from_toml(file: Option<(&Path, &str)>, pairs: &[String]) -> Result<RunConfig, Box<Diagnostic>> {
    from_toml_over(&[], file, pairs)
}

/// As [`from_toml`], over defaults of which some are others.
///
/// # Errors
/// As [`from_toml`].
pub fn from_toml_over(
    defaults: &[&str],
    file: Option<(&Path, &str)>,
    pairs: &[String],
) -> Result<RunConfig, Box<Diagnostic>> {
    let mut table = Table::new();
    if let Some((path, text)) = file {
        table = text.parse::<Table>().map_err(|error| Box::new(file_problem(path, text, &error)))?;
        // The file alone is checked first, so that its errors have a line.
        toml::from_str::<RunConfig>(text).map_err(|error| Box::new(file_problem(path, text, &error)))?;
    }
    for pair in pairs {
        set_key(&mut table, pair)?;
    }
    // Who asks for answers among the legal ones gets them bare.
    let constrain = table.get("decode").and_then(|decode| decode.get("constrain"));
    let is_constrained = constrain.and_then(Value::as_str) == Some("legal");
    for pair in defaults.iter().filter(|pair| !(is_constrained && pair.starts_with("decode.format="))) {
        set_if_missing(&mut table, pair)?;
    }
    let config: RunConfig = table.clone().try_into().map_err(|error: toml::de::Error| {
        let problem = Diagnostic::error("config::key", first_line(error.message()));
        Box::new(explain(problem, error.message(), &table))
    })?;
    config.validate()?;
    Ok(config)
}

/// Writes `SECTION.KEY=VALUE` unless the key is there.
fn set_if_missing(table: &mut Table, pair: &str) -> Result<(), Box<Diagnostic>> {
    let key = pair.split_once('=').map_or(pair, |(key, _)| key);
    let known = key.split_once('.').and_then(|(section, key)| table.get(section)?.as_table()?.get(key));
    if known.is_some() { Ok(()) } else { set_key(table, pair) }
}

/// Writes one `KEY=VALUE` into the table. `KEY` is dotted; `VALUE` is TOML, or else text.
///
/// # Errors
/// A [`Diagnostic`] if the pair has no `=` or the key goes through something that is no table.
pub fn set_key(table: &mut Table, pair: &str) -> Result<(), Box<Diagnostic>> {
    let problem = |message: String| {
        Box::new(
            Diagnostic::error("config::set", message)
                .expected("`KEY=VALUE`, such as `optimizer.learning_rate=1e-4`")
                .found(format!("`{pair}`")),
        )
    };
    let (key, text) = pair.split_once('=').ok_or_else(|| problem("`--set` needs a key and a value".to_owned()))?;
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut parsed| parsed.remove("value"));
    let value = parsed.unwrap_or_else(|| Value::String(text.to_owned()));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let mut at = table;
    for part in parts {
        // `games = [..]` becomes `games.files`, so that options can stand beside it.
        if part == "games"
            && let Some(Value::Array(files)) = at.get(part)
        {
            let files = Value::Array(files.clone());
            at.insert(part.to_owned(), Value::Table(Table::from_iter([("files".to_owned(), files)])));
        }
        let next = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        at = next.as_table_mut().ok_or_else(|| problem(format!("`{part}` is not a section")))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

fn file_problem(path: &Path, text: &str, error: &toml::de::Error) -> Diagnostic {
    let mut diagnostic = Diagnostic::error("config::file", first_line(error.message()));
    diagnostic = match error.span() {
        Some(span) => {
            let before = &text[..span.start.min(text.len())];
            let line = before.matches('\n').count() as u32 + 1;
            let column = before.chars().rev().take_while(|&c| c != '\n').count() as u32 + 1;
            diagnostic.at(SourceSpan { file: path.to_owned(), line, column })
        }
        None => diagnostic.at(SourceSpan::file(path)),
    };
    let table = text.parse::<Table>().unwrap_or_default();
    explain(diagnostic, error.message(), &table)
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// Adds the nearest known key to serde's "unknown field `x`, expected one of `a`, `b`", and the key to what it says of a
/// value.
fn explain(diagnostic: Diagnostic, message: &str, table: &Table) -> Diagnostic {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if !message.starts_with("unknown field") || quoted.len() < 2 {
        return match bad_value(table) {
            Some((key, value)) => explain_value(diagnostic, &key, &value, message),
            None => diagnostic,
        };
    }
    let mut diagnostic = diagnostic;
    diagnostic.message = match bad_value(table).as_ref().and_then(|(key, _)| key.rsplit_once('.')) {
        Some((section, key)) if key == quoted[0] => format!("unknown key `{key}` in `[{section}]`"),
        _ => format!("unknown key `{}`", quoted[0]),
    };
    match closest(quoted[0], quoted[1..].iter().copied()) {
        Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
        None => diagnostic.help(format!("known keys here: {}", quoted[1..].join(", "))),
    }
}

/// The first key, in full, whose value alone is refused; the parser does not name it.
fn bad_value(table: &Table) -> Option<(String, Value)> {
    let refused = |table: Table| RunConfig::deserialize(Value::Table(table)).is_err();
    for (section, value) in table {
        match value {
            Value::Table(keys) => {
                for (key, value) in keys {
                    let alone = Table::from_iter([(key.clone(), value.clone())]);
                    if refused(Table::from_iter([(section.clone(), Value::Table(alone))])) {
                        return Some((format!("{section}.{key}"), value.clone()));
                    }
                }
            }
            _ if refused(Table::from_iter([(section.clone(), value.clone())])) => {
                return Some((section.clone(), value.clone()));
            }
            _ => {}
        }
    }
    None
}

/// What the key must be, told by its default.
fn explain_value(mut diagnostic: Diagnostic, key: &str, value: &Value, message: &str) -> Diagnostic {
    let defaults = Table::try_from(RunConfig::default()).unwrap_or_default();
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let default = match defaults.get(section) {
        Some(Value::Table(keys)) => keys.get(name),
        _ => defaults.get(name),
    };
    let expected = match default {
        _ if message.contains("unknown variant") => {
            let variants: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
            if let Some(near) = value.as_str().and_then(|value| closest(value, variants.iter().copied())) {
                diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
            }
            format!("one of {}", variants.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
        }
        Some(Value::Integer(_)) if value.is_integer() => "a whole number that is not negative".to_owned(),
        Some(Value::Integer(_)) => "a whole number".to_owned(),
        Some(Value::Float(_)) => "a number".to_owned(),
        Some(Value::Boolean(_)) => "`true` or `false`".to_owned(),
        Some(Value::Table(_)) => "a section of settings".to_owned(),
        Some(Value::Array(_)) => "a list".to_owned(),
        Some(Value::String(_) | Value::Datetime(_)) | None => "a text".to_owned(),
    };
    diagnostic.message = format!("`{key}` has a value of the wrong kind");
    if diagnostic.help.is_none() {
        diagnostic.help = Some(match default {
            Some(Value::Table(_)) => format!("write its settings as `{key}.NAME=VALUE`"),
            Some(default) => format!("such as `{key}={default}`, the default"),
            None => "see `configs/tiny.toml`, which explains every key".to_owned(),
        });
    }
    let kind = match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "a truth value",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
        Value::Datetime(_) => "a date",
    };
    diagnostic.expected(expected).found(format!("{value}, {kind}"))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test may read a file as it likes")]
mod tests {
    use super::*;
    use crate::config::{AnswerFormat, Constrain};

    #[test]
    fn the_defaults_survive_being_written_and_read() {
        let config = RunConfig::default();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(from_toml(Some((Path::new("c.toml"), &text)), &[]).unwrap(), config);
    }

    #[test]
    fn the_commented_configuration_says_what_the_defaults_are() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tiny.toml"));
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(from_toml(Some((path, &text)), &[]).unwrap(), RunConfig::default());
        // Every key stands there, so that none is learned of by reading the source.
        let (written, known) = (text.parse::<Table>().unwrap(), Table::try_from(RunConfig::default()).unwrap());
        for (section, keys) in &known {
            let Value::Table(keys) = keys else { continue };
            for key in keys.keys() {
                assert!(
                    written[section].as_table().unwrap().contains_key(key),
                    "`{section}.{key}` is not in tiny.toml"
                );
            }
        }
    }

    #[test]
    fn other_defaults_give_way_to_all_that_is_said() {
        let text = "[optimizer]\nlearning_rate = 1e-4\n";
        let pairs = ["decode.format=boxed".to_owned()];
        let config = from_toml_over(&LANGUAGE_MODEL, Some((Path::new("c.toml"), text)), &pairs).unwrap();
        assert_eq!((config.optimizer.learning_rate, config.decode.format), (1e-4, AnswerFormat::Boxed));
        assert_eq!((config.decode.constrain, config.rollout.groups), (Constrain::Off, 4));
        let legal = from_toml_over(&LANGUAGE_MODEL, None, &["decode.constrain=legal".to_owned()]).unwrap();
        assert_eq!((legal.decode.constrain, legal.decode.format), (Constrain::Legal, AnswerFormat::Bare));
        let missing = |pair: &&str| from_toml(None, &[(*pair).to_owned()]).unwrap() == RunConfig::default();
        assert!(!LANGUAGE_MODEL.iter().any(missing), "one of them is the default");
    }

    #[test]
    fn a_pair_wins_over_the_file_and_games_take_files_and_options() {
        let text = "games = ['a.lua']\nseed = 3\n[loss]\nclip_low = 0.1\n";
        let pairs = ["loss.clip_low=0.3", "games.math.level=1", "model=some/dir"].map(str::to_owned);
        let config = from_toml(Some((Path::new("c.toml"), text)), &pairs).unwrap();
        assert_eq!((config.seed, config.loss.clip_low, config.model.as_str()), (3, 0.3, "some/dir"));
        assert_eq!(config.games.files, ["a.lua"]);
        assert_eq!(config.games.options["math"]["level"].as_integer(), Some(1));
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named_with_the_fix() {
        let text = "seed = 3\n[loss]\nclip_lwo = 0.1\n";
        let problem = from_toml(Some((Path::new("c.toml"), text)), &[]).unwrap_err().to_string();
        assert!(problem.contains("unknown key `clip_lwo` in `[loss]`") && problem.contains("c.toml:3"), "{problem}");
        assert!(problem.contains("did you mean `clip_low`?"), "{problem}");
        let problem = from_toml(None, &["rollout.group_size=1".to_owned()]).unwrap_err().to_string();
        assert!(problem.contains("`rollout.group_size` is out of its range"), "{problem}");
        for (pair, parts) in [
            ("loss.ratio=word", ["`loss.ratio` has", "one of `", "\"word\""]),
            ("rollout.groups=many", ["`rollout.groups` has", "a whole number", "such as `rollout.groups="]),
            ("rollout.groups=-1", ["`rollout.groups` has", "not negative", "-1"]),
            ("scripts.reload=1", ["`scripts.reload` has", "`true` or `false`", "found:    1"]),
            ("steps=1.5", ["`steps` has", "a whole number", "1.5"]),
            ("rollout=3", ["`rollout` has", "a section of settings", "3"]),
            ("model=3", ["`model` has", "a text", "3"]),
        ] {
            let problem = from_toml(None, &[pair.to_owned()]).unwrap_err().to_string();
            for part in parts {
                assert!(problem.contains(part), "{part} in {problem}");
            }
        }
        let problem = from_toml(Some((Path::new("c.toml"), "[rollout]\ngroups = 'x'\n")), &[]).unwrap_err().to_string();
        assert!(problem.contains("`rollout.groups` has") && problem.contains("c.toml:2"), "{problem}");
        assert!(from_toml(None, &["seed".to_owned()]).unwrap_err().to_string().contains("KEY=VALUE"));
    }
}
