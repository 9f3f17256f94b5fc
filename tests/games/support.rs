//! What the tests of this binary share: the shipped games, their options, and threads that scripts may run on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gift_host::game::{GameDef, ScriptHost, Seat};
use gift_host::reload::read_source;
use gift_host::script::{Language, Limits, STACK_BYTES, State, Value};
use gift_host::seed::Stream;

/// Runs `work` in a pool whose threads have the stack that scripts need.
pub(crate) fn deep<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).stack_size(STACK_BYTES).build().expect("a pool");
    pool.install(work)
}

/// The scripts of a folder of the repository, sorted. Tests run in its root.
pub(crate) fn scripts_in(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.is_file() && Language::of(path).is_some());
    files.sort();
    files
}

/// The file's name without folder and extension.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().expect("a name").to_string_lossy().into_owned()
}

/// Options as a script gets them.
pub(crate) fn options(fields: &[(&str, Value)]) -> Value {
    Value::Map(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<BTreeMap<_, _>>())
}

/// The default limits but for the time of a call: on a busy machine a thread may wait longer than it works.
pub(crate) fn patient() -> Limits {
    Limits { call: Duration::from_secs(20), ..Limits::default() }
}

/// A game under patient limits.
pub(crate) fn load(path: impl AsRef<Path>, options: Value) -> Arc<GameDef> {
    load_under(path, options, &ScriptHost::new(patient(), Vec::new()))
}

/// A game under these limits.
pub(crate) fn load_under(path: impl AsRef<Path>, options: Value, host: &ScriptHost) -> Arc<GameDef> {
    let source = read_source(path.as_ref()).unwrap_or_else(|problem| panic!("{problem}"));
    Arc::new(GameDef::compile(&source, options, host).unwrap_or_else(|problem| panic!("{problem}")))
}

/// Every shipped game with every set of options that changes how it is played, and a name for messages.
pub(crate) fn variants() -> Vec<(String, Arc<GameDef>)> {
    let mut list = Vec::new();
    for path in scripts_in("games") {
        let name = stem(&path);
        let sets = match name.as_str() {
            "math" => vec![
                options(&[]),
                options(&[("level", 1_i64.into()), ("choices", 10_i64.into())]),
                options(&[("level", 3_i64.into())]),
            ],
            "matrix" => vec![options(&[]), options(&[("success", "paper".into())])],
            "spy" => vec![options(&[]), options(&[("describe", "attributes".into())])],
            _ => vec![options(&[])],
        };
        for set in sets {
            list.push((format!("{name} with {}", set.to_json()), load(&path, set)));
        }
    }
    list
}

/// A random legal action; where answers are free text, the scripted player's.
pub(crate) fn any_action(game: &GameDef, state: &State, seat: Seat, stream: &mut Stream) -> String {
    match game.actions(state, seat).expect("actions") {
        Some(actions) => actions[stream.index(actions.len())].clone(),
        None => game.bot(state, seat, stream).expect("a bot where answers are free text"),
    }
}

/// The resident memory of the process in bytes; 0 where the system does not tell.
pub(crate) fn resident() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "where there is no such file, nothing is told")]
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).map_or(0, |pages| pages * 4096)
}
