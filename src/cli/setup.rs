//! From flags and files to a checked configuration, and from patterns to compiled scripts: what train, eval, play and check
//! share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::checkpoint::read_text;
use crate::config::{Constrain, GameList, LANGUAGE_MODEL, RunConfig, from_toml, from_toml_over};
use crate::diag::{Diagnostic, SourceSpan};
use crate::game::ScriptHost;
use crate::opponent::Opponents;
use crate::reload::Catalog;
use crate::script::{Language, Limits, Value};

use super::output::log;

/// Options that games get where answers are sampled among the legal ones, unless the user sets them: they make answers
/// that are free text otherwise a list.
const CONSTRAINED_OPTIONS: [(&str, &str, OptionValue); 3] = [
    ("math", "level", OptionValue::Number(1)),
    ("math", "choices", OptionValue::Number(10)),
    ("spy", "describe", OptionValue::Text("attributes")),
];

/// Lines of `gift.log` that are printed.
const MAX_SCRIPT_LOGS: usize = 1000;

#[derive(Clone, Copy)]
enum OptionValue {
    Number(i64),
    Text(&'static str),
}

impl From<OptionValue> for toml::Value {
    fn from(value: OptionValue) -> Self {
        match value {
            OptionValue::Number(number) => Self::Integer(number),
            OptionValue::Text(text) => Self::String(text.to_owned()),
        }
    }
}

/// Flags that several subcommands share; each is also a key of the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct SharedArgs {
    /// Game scripts, folders of them, or patterns; `games/*` if left out
    #[arg(long, num_args = 1.., value_name = "GLOB")]
    pub(crate) games: Vec<String>,
    /// A file of settings (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, such as `optimizer.learning_rate=1e-4`; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) pairs: Vec<String>,
    /// `tiny` (built in, trained from scratch), a folder with a model (Hugging Face's layout, or a run), a GGUF file, or
    /// `ORG/NAME[@REVISION]` on the Hugging Face Hub
    #[arg(long, value_name = "tiny|DIR|FILE.gguf|HUB_ID")]
    pub(crate) model: Option<String>,
    /// `auto`, `cpu`, `cuda[:N]`, or several as `cuda:0,1`
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// `auto`, `f32` or `bf16`
    #[arg(long)]
    pub(crate) dtype: Option<String>,
    /// Who plays the other seats: `random`, `bot`, `search[:BUDGET]`, `self`, `checkpoint:DIR`, `gguf:FILE`, `league`,
    /// `openai:URL#MODEL`; by game or seat with `bot,tictactoe=search,spy.2=random`, mixed with `random*0.2+search*0.8`
    #[arg(long, value_name = "SPEC")]
    pub(crate) opponent: Option<String>,
    /// Seed of every random stream
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// The learner's seat; drawn for each group if left out
    #[arg(long)]
    pub(crate) seat: Option<u32>,
}

/// Reads the configuration: defaults < file < `--set` < flags.
///
/// # Errors
/// A [`Diagnostic`] that names the key, or the file.
pub(crate) fn configuration(shared: &SharedArgs, base: Option<&Path>) -> Result<RunConfig, Box<Diagnostic>> {
    let file = shared.config.as_deref().or(base);
    let text = file
        .map(|path| {
            read_text(path).map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                Box::new(
                    Diagnostic::error("config::file", "the configuration cannot be read")
                        .at(SourceSpan::file(path))
                        .found(cause)
                        .help("complete configurations stand in `configs/`"),
                )
            })
        })
        .transpose()?;
    let file = file.zip(text.as_deref());
    let mut config = from_toml(file, &shared.pairs)?;
    if super::model::is_language_model(shared.model.as_ref().unwrap_or(&config.model)) {
        // Adapters take about ten times the learning rate.
        let adapted = |pair| if pair == "optimizer.learning_rate=1e-6" { "optimizer.learning_rate=1e-5" } else { pair };
        let defaults = if config.lora.rank > 0 { LANGUAGE_MODEL.map(adapted) } else { LANGUAGE_MODEL };
        config = from_toml_over(&defaults, file, &shared.pairs)?;
    }
    if !shared.games.is_empty() {
        config.games.files.clone_from(&shared.games);
    }
    let replace = |field: &mut String, flag: &Option<String>| {
        if let Some(value) = flag {
            field.clone_from(value);
        }
    };
    replace(&mut config.model, &shared.model);
    replace(&mut config.device, &shared.device);
    replace(&mut config.dtype, &shared.dtype);
    replace(&mut config.opponent, &shared.opponent);
    config.seed = shared.seed.unwrap_or(config.seed);
    config.seat = shared.seat.unwrap_or(config.seat);
    if config.games.files.is_empty() {
        config.games.files = vec!["games/*".to_owned()];
    }
    if config.decode.constrain == Constrain::Legal {
        add_constrained_options(&mut config.games);
    }
    config.validate()?;
    Ok(config)
}

fn add_constrained_options(games: &mut GameList) {
    for (game, key, value) in CONSTRAINED_OPTIONS {
        let options = games.options.entry(game.to_owned()).or_default();
        // A data set brings its own levels and answers.
        if options.contains_key("data") {
            continue;
        }
        options.entry(key).or_insert_with(|| value.into());
    }
}

/// The script files that names, folders and patterns stand for, in the order given, each once. What lies beside scripts
/// (data, notes) is passed over; a file that is named alone must be a script.
///
/// # Errors
/// A [`Diagnostic`] for a pattern that matches no script.
pub(crate) fn game_files(patterns: &[String]) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
    let mut files: Vec<PathBuf> = Vec::new();
    let add = |path: PathBuf, files: &mut Vec<PathBuf>| {
        if !files.contains(&path) {
            files.push(path);
        }
    };
    for pattern in patterns {
        let path = Path::new(pattern);
        if path.is_file() {
            if Language::of(path).is_some() || patterns.len() == 1 {
                add(path.to_owned(), &mut files);
            }
            continue;
        }
        let pattern_text = if path.is_dir() { format!("{}/*", pattern.trim_end_matches('/')) } else { pattern.clone() };
        let matches = glob::glob(&pattern_text).map_err(|error| {
            Box::new(
                Diagnostic::error("cli::games", format!("`{pattern}` is no pattern of file names"))
                    .found(error.to_string())
                    .help("write `--games games/*.lua`"),
            )
        })?;
        let found: Vec<PathBuf> =
            matches.filter_map(Result::ok).filter(|path| path.is_file() && Language::of(path).is_some()).collect();
        // A folder among the arguments of `games/*` (its data) is not meant as a game.
        if found.is_empty() && !(path.is_dir() && patterns.len() > 1) {
            return Err(Box::new(no_match(pattern)));
        }
        // A folder that a shell pattern brought along beside files is passed over as well.
        if path.is_dir() && patterns.len() > 1 && patterns.iter().any(|other| Path::new(other).is_file()) {
            continue;
        }
        for path in found {
            add(path, &mut files);
        }
    }
    if files.is_empty() {
        return Err(Box::new(no_match(&patterns.join(" "))));
    }
    Ok(files)
}

fn no_match(pattern: &str) -> Diagnostic {
    if !pattern.contains(['*', '?', '[', ' ']) && !Path::new(pattern).is_dir() {
        return no_file(Path::new(pattern));
    }
    Diagnostic::error("cli::games", format!("`{pattern}` matches no game script"))
        .expected("files ending in `.lua`, `.luau` or `.rhai`")
        .found("none")
        .help("run in the folder that holds `games/`, or write a game with `gift-host new NAME`")
}

/// A file that was named and is not there, with the script that may have been meant: one beside it, or in `games/`.
fn no_file(path: &Path) -> Diagnostic {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let scripts: Vec<PathBuf> = [folder, Path::new("games")]
        .iter()
        .filter_map(|folder| folder.read_dir().ok())
        .flat_map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()))
        .filter(|script| script.is_file() && Language::of(script).is_some())
        .collect();
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut names: Vec<String> = scripts.iter().map(|script| name(script)).collect();
    names.sort_unstable();
    let wanted = name(path);
    let near = crate::diag::closest(&wanted, names.iter().map(String::as_str)).map(str::to_owned);
    let same_stem = scripts.iter().map(|script| name(script)).find(|found| stem(Path::new(found)) == wanted);
    let near = same_stem.or(near).and_then(|near| scripts.iter().find(|script| name(script) == near));
    let help = match near {
        Some(near) => format!("did you mean `{}`?", near.strip_prefix(".").unwrap_or(near).display()),
        None => "run in the folder that holds `games/`, or write a game with `gift-host new NAME`".to_owned(),
    };
    Diagnostic::error("cli::games", format!("there is no file `{}`", path.display()))
        .expected("a game script: a file ending in `.lua`, `.luau` or `.rhai`")
        .found("no file or folder of that name")
        .help(help)
}

/// Compiles and checks the scripts of a configuration.
///
/// # Errors
/// The first [`Diagnostic`].
pub(crate) fn catalog(config: &RunConfig) -> Result<Catalog, Box<Diagnostic>> {
    let files = game_files(&config.games.files)?;
    let (options, host) = script_settings(config);
    let catalog = Catalog::load(&files, config.nest.as_deref(), config.reward.as_deref(), options, host)?;
    warn_of_unknown_games(config, &catalog);
    let most = catalog.games.iter().map(|game| game.seats).max().unwrap_or(0);
    if config.seat > most {
        return Err(Box::new(
            Diagnostic::error("cli::seat", format!("none of the games has a seat {}", config.seat))
                .expected(format!("`--seat` from 1 to {most}, or 0 to draw one for each group"))
                .found(format!("`{}`", config.seat)),
        ));
    }
    Ok(catalog)
}

/// What scripts are given and allowed: options by game, limits, and the data files that the options name.
pub(crate) fn script_settings(config: &RunConfig) -> (BTreeMap<String, Value>, ScriptHost) {
    let limits = Limits {
        call: Duration::from_millis(config.scripts.call_ms),
        memory_bytes: config.scripts.memory_mib.saturating_mul(1 << 20),
        ..Limits::default()
    };
    let mut files = Vec::new();
    let mut options = BTreeMap::new();
    for (game, table) in &config.games.options {
        // A user who names a file in the options allows the game to read it.
        let texts = table.values().filter_map(toml::Value::as_str).map(PathBuf::from);
        files.extend(texts.filter(|path| path.is_file()));
        let json = serde_json::to_value(table).unwrap_or_default();
        options.insert(game.clone(), Value::from_json(&json));
    }
    let mut host = ScriptHost::new(limits, files);
    host.library = host.library.with_log(script_log());
    (options, host)
}

/// Where `gift.log` goes: standard error, until a script that logs on every call would drown everything else.
fn script_log() -> impl Fn(&str) + Send + Sync + 'static {
    let count = AtomicUsize::new(0);
    move |text| match count.fetch_add(1, Ordering::Relaxed) {
        0..MAX_SCRIPT_LOGS => log(&format!("script: {text}")),
        MAX_SCRIPT_LOGS => log("script: further lines of `gift.log` are dropped"),
        _ => {}
    }
}

/// Options and opponents for games that are not there are probably misspelt, but a shared configuration may hold them.
fn warn_of_unknown_games(config: &RunConfig, catalog: &Catalog) {
    let names = catalog.names();
    let built_in = |game: &str| CONSTRAINED_OPTIONS.iter().any(|(name, ..)| *name == game);
    for game in config.games.options.keys().filter(|game| !names.contains(game) && !built_in(game)) {
        let near = crate::diag::closest(game, names.iter().map(String::as_str));
        let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        log(&format!("warning: the options of `games.{game}` are not used: no game has that name{hint}"));
    }
    // What is wrong with the specification itself is told where it is used.
    let named = Opponents::parse(&config.opponent).map_or_else(|_| Vec::new(), |all| all.unknown_games(&names));
    for game in named {
        let near = crate::diag::closest(&game, names.iter().map(String::as_str));
        let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        log(&format!("warning: the opponent of `{game}` is not used: no game has that name{hint}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_once_and_what_is_no_script_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.lua", "b.rhai", "README.md"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let names = |patterns: &[String]| -> Vec<String> {
            let files = game_files(patterns).unwrap();
            files.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(&[path("*")]), ["a.lua", "b.rhai"]);
        assert_eq!(names(&[path("")]), ["a.lua", "b.rhai"]);
        // As a shell expands `games/*`.
        assert_eq!(names(&["README.md", "a.lua", "b.rhai", "data"].map(path)), ["a.lua", "b.rhai"]);
        assert_eq!(names(&[path("b.rhai"), path("*.lua"), path("b.rhai")]), ["b.rhai", "a.lua"]);
        let problem = game_files(&[path("*.luau")]).unwrap_err().to_string();
        assert!(problem.contains("matches no game script"), "{problem}");
    }
}
