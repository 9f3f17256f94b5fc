//! Random scripts in both languages: half are games written by a grammar that knows every function of the library and
//! what has been taken out of it, half are shipped games with random changes. None may end in a panic, hold the host up,
//! or reach anything outside; whatever else it does is a diagnostic or a finished episode.
//!
//! A few hundred scripts a language run with the tests. `GIFT_FUZZ_SCRIPTS` sets the number, `GIFT_FUZZ_SEED` where to
//! begin; a script depends on its number and the seed alone, and the failure names both.

mod lua; // random Luau
mod rhai; // random Rhai
mod words; // pieces of text, mutations

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gift_host::diag::Diagnostic;
use gift_host::game::{Action, Episode, GameDef, ScriptHost, Status, for_each_abandonable};
use gift_host::script::{Language, Limits, STACK_BYTES, Source, Value};
use gift_host::seed::{Seed, Stream};

use super::support::{resident, scripts_in};

/// What no script may read: it stands in a file beside the scripts' folder and in an environment-like setting.
const SECRET: &str = "canary-7c1f";
/// Far longer than any script may take under [`limits`], on a machine that does other work as well.
const HANG: Duration = Duration::from_secs(60);

/// Longer than the calls of one script should take together; such scripts are named, and kept in `GIFT_FUZZ_KEEP`.
const SLOW: Duration = Duration::from_millis(700);

/// Short, so that the many scripts that run into them are quick.
fn limits() -> Limits {
    Limits { call: Duration::from_millis(8), memory_bytes: 24 << 20, ..Limits::default() }
}

/// A folder with a data file that scripts may read and one that they may not.
struct Yard {
    folder: tempfile::TempDir,
}

impl Yard {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(folder.path().join("games/data")).expect("a folder");
        let rows = "{\"a\":1}\n{\"a\":2}\n";
        std::fs::write(folder.path().join("games/data/rows.jsonl"), rows).expect("a file");
        std::fs::write(folder.path().join("secret.jsonl"), format!("{{\"a\":\"{SECRET}\"}}\n")).expect("a file");
        Self { folder }
    }

    fn games(&self) -> PathBuf {
        self.folder.path().join("games")
    }

    /// What lies in the folder, with lengths: scripts add and change nothing.
    fn contents(&self) -> Vec<(PathBuf, u64)> {
        let list = |folder: PathBuf| {
            std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path())
        };
        let files =
            list(self.folder.path().to_owned()).chain(list(self.games())).chain(list(self.games().join("data")));
        let mut files: Vec<_> = files
            .map(|path| {
                let length = path.metadata().map_or(0, |data| data.len());
                (path, length)
            })
            .collect();
        files.sort();
        files
    }
}

/// The texts that are mutated.
fn shipped(language: Language) -> Vec<String> {
    let mut files: Vec<PathBuf> = scripts_in("games");
    files.extend(scripts_in("tests/games").into_iter().filter(|path| path.ends_with("tictactoe.rhai")));
    files.retain(|path| Language::of(path) == Some(language));
    // A data set of a shipped game is no part of the yard; the mutants read the yard's.
    let read = |path: &PathBuf| {
        gift_host::reload::read_source(path).expect("a game").text.replace("data/spy_words.jsonl", "data/rows.jsonl")
    };
    files.iter().map(read).collect()
}

/// The script of a number.
fn script(language: Language, shipped: &[String], stream: &mut Stream) -> String {
    let game: fn(&mut Stream) -> String = if language == Language::Lua { lua::game } else { rhai::game };
    if words::once_in(stream, 2) {
        return game(stream);
    }
    let text = shipped[stream.index(shipped.len())].clone();
    match language {
        Language::Lua => words::mutate(stream, &text, shipped, lua::WORDS, &mut |stream| lua::statement(stream, 3)),
        Language::Rhai => {
            words::mutate(stream, &text, shipped, rhai::WORDS, &mut |stream| rhai::statement(stream, 3) + ";")
        }
    }
}

/// Plays an episode as a run does; the verdict is a diagnostic's code or `played`.
fn play(source: &Source, host: &ScriptHost, stream: &mut Stream) -> Result<&'static str, Box<Diagnostic>> {
    let game = Arc::new(GameDef::compile(source, Value::Map(BTreeMap::new()), host)?);
    let mut episode = Episode::start(&game, Seed::new(5))?;
    for _ in 0..6 {
        let Status::Turn(seat) = *episode.status() else { return Ok("played") };
        let text = episode.observation(seat, stream.index(2) == 0)?;
        assert!(!text.contains(SECRET), "a script has read what it may not");
        game.score(episode.state(), seat)?;
        let legal = game.actions(episode.state(), seat)?;
        let text = match legal {
            Some(legal) if stream.index(3) > 0 => legal[stream.index(legal.len())].clone(),
            _ if game.has("bot") => game.bot(episode.state(), seat, stream)?,
            _ => "1".to_owned(),
        };
        episode.act(seat, &Action { text, well_formed: true })?;
        assert!(!episode.state().to_json().to_string().contains(SECRET), "a script has read what it may not");
    }
    Ok("played on")
}

/// A harmless game that must play the same before and after every batch.
const WITNESS: [(Language, &str); 2] = [
    (
        Language::Lua,
        "return { name = 'w', seats = 1, max_turns = 3, init = function(rng) return { n = rng:int(1, 1000), x = string.format('%d', 7), y = math.floor(2.5), z = table.concat({ 1, 2 }) } end, to_act = function(s) if s.over then return nil end return 1 end, observe = function(s) return tostring(s.n) end, apply = function(s) s.over = true return s end, outcome = function(s) return { scores = { s.n }, success = { memo == nil and global_a == nil } } end }",
    ),
    (
        Language::Rhai,
        "fn init(rng, o) { #{ n: rng.int(1, 1000) } } fn to_act(s) { if \"over\" in s { () } else { 1 } } fn observe(s, seat) { `${s.n}` } fn apply(s, seat, a) { s.over = true; s } fn outcome(s) { #{ scores: [s.n], success: [!is_def_var(\"memo\")] } } #{ name: \"w\", seats: 1, max_turns: 3 }",
    ),
];

fn witness(host: &ScriptHost) -> Vec<(f64, bool)> {
    let result = |(language, text): &(Language, &str)| {
        let source = Source::new(Path::new("games/w.lua"), *language, text, BTreeMap::new());
        let game =
            GameDef::compile(&source, Value::Map(BTreeMap::new()), host).unwrap_or_else(|problem| panic!("{problem}"));
        let mut episode = Episode::start(&Arc::new(game), Seed::new(9)).unwrap_or_else(|problem| panic!("{problem}"));
        let Status::Turn(seat) = *episode.status() else { panic!("a turn") };
        episode
            .act(seat, &Action { text: "x".to_owned(), well_formed: true })
            .unwrap_or_else(|problem| panic!("{problem}"));
        episode.result(seat)
    };
    WITNESS.iter().map(result).collect()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[expect(clippy::print_stderr, reason = "the figures of a long run are what it is for")]
fn fuzz(language: Language) {
    let (count, first) = (setting("GIFT_FUZZ_SCRIPTS", 300), setting("GIFT_FUZZ_SEED", 0));
    let (yard, shipped) = (Yard::new(), shipped(language));
    let logged = Arc::new(Mutex::new(false));
    let sink = Arc::clone(&logged);
    let mut host = ScriptHost::new(limits(), Vec::new());
    host.library = host.library.with_log(move |text| *sink.lock().expect("the sink") |= text.contains(SECRET));
    let path = yard.games().join(format!("fuzz.{}", language.extension()));
    let before = yard.contents();
    let (verdicts, slowest, done) = (Mutex::new(BTreeMap::<&str, u64>::new()), AtomicU64::new(0), AtomicU64::new(0));
    let cards: Arc<str> = match language {
        Language::Lua => "local n = 0 return { next = function() n += 1 return n end }".into(),
        Language::Rhai => "fn next(n) { n + 1 }".into(),
    };
    let start = Instant::now();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).stack_size(STACK_BYTES).build().expect("a pool");
    let patient = ScriptHost::new(super::support::patient(), Vec::new());
    let expected = pool.install(|| witness(&patient));
    let mut settled = 0;
    pool.install(|| {
        for batch in (0..count).collect::<Vec<_>>().chunks(2000) {
            let mut numbers = batch.to_vec();
            let lost = for_each_abandonable(numbers.iter_mut().collect(), |number| {
                let number = *number;
                let mut stream = Seed::new(first).child(language.extension(), number).stream();
                let text = script(language, &shipped, &mut stream);
                let modules = BTreeMap::from([("cards".to_owned(), Arc::clone(&cards))]);
                let source = Source::new(&path, language, &text, modules);
                let begun = Instant::now();
                let verdict = catch_unwind(AssertUnwindSafe(|| play(&source, &host, &mut stream)));
                let took = begun.elapsed();
                slowest.fetch_max(took.as_millis() as u64, Ordering::Relaxed);
                let verdict = verdict.unwrap_or_else(|_| panic!("script {number} of seed {first} panicked:\n{text}"));
                assert!(took < HANG, "script {number} of seed {first} took {took:?}:\n{text}");
                if took > SLOW {
                    eprintln!("{language:?}: script {number} of seed {first} took {took:?}");
                    if let Ok(folder) = std::env::var("GIFT_FUZZ_KEEP") {
                        let kept = Path::new(&folder).join(format!("{number}.{}", language.extension()));
                        std::fs::write(kept, &text).expect("a file");
                    }
                }
                let code = match &verdict {
                    Ok(code) => code,
                    Err(problem) => {
                        assert!(!problem.to_string().contains(SECRET), "script {number} of seed {first}:\n{text}");
                        problem.code
                    }
                };
                *verdicts.lock().expect("the counts").entry(code).or_default() += 1;
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert!(lost.is_empty(), "scripts {lost:?} of seed {first} could not be stopped");
            assert_eq!(witness(&patient), expected, "another script's game has changed");
            if settled == 0 {
                settled = resident();
            }
            if count > 2000 {
                let (done, slowest, resident) =
                    (done.load(Ordering::Relaxed), slowest.load(Ordering::Relaxed), resident() >> 20);
                eprintln!(
                    "{language:?}: {done} scripts in {:.0?}, slowest {slowest} ms, {resident} MiB held",
                    start.elapsed()
                );
            }
        }
    });
    assert_eq!(yard.contents(), before, "a script has changed files");
    assert!(!*logged.lock().expect("the sink"), "a script has read what it may not");
    let verdicts = verdicts.into_inner().expect("the counts");
    eprintln!(
        "{language:?}: {count} scripts from seed {first} in {:.0?}, slowest {} ms",
        start.elapsed(),
        slowest.into_inner()
    );
    eprintln!("  resident memory {} MiB after the first batch, {} MiB at the end", settled >> 20, resident() >> 20);
    for (code, number) in &verdicts {
        eprintln!("  {code}: {number}");
    }
    assert!(verdicts.contains_key("played"), "some scripts are harmless: {verdicts:?}");
}

#[test]
fn random_lua_scripts_do_no_harm() {
    fuzz(Language::Lua);
}

#[test]
fn random_rhai_scripts_do_no_harm() {
    fuzz(Language::Rhai);
}
