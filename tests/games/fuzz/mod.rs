//! Random scripts in both languages: half are games written by a grammar that knows every function of the library and
//! what has been taken out of it, half are shipped games with random changes. None may end in a panic, hold the host up,
//! or reach anything outside; whatever else it does is a diagnostic or a finished episode.
//!
//! A few hundred scripts a language run with the tests. `GIFT_FUZZ_SCRIPTS` sets the number and `GIFT_FUZZ_SEED` the seed; a
//! script depends on its number and the seed alone, and a failure names both and prints the script. `GIFT_FUZZ_FROM` is the
//! number to begin with. `GIFT_FUZZ_KEEP` names a folder for slow scripts and for those that are being run, which are all that
//! is left when the process itself dies.
//!
//! Long runs also watch for leaks: once the compiled scripts that threads keep have been replaced by harmless ones, the
//! process may hold hardly more memory, and have hardly more threads, than after the first batch.

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

use super::hostile::play_good_games;
use super::support::{resident, scripts_in};

/// What no script may read: it stands in a file beside the scripts' folder and in an environment-like setting.
const SECRET: &str = "canary-7c1f";
/// Far longer than any script may take under [`limits`], on a machine that does other work as well.
const HANG: Duration = Duration::from_secs(60);

/// Longer than the calls of one script should take together; such scripts are named, and kept in `GIFT_FUZZ_KEEP`.
const SLOW: Duration = Duration::from_millis(700);

/// Scripts between two looks at what the process holds.
const BATCH: u64 = 1000;
/// From this number on a run is long: it tells how far it is, and no other test shares the process, so what that holds says
/// something of the scripts.
const LONG: u64 = 2000;
/// What a long run may hold in the end beyond what it held after the first batch; between 2,000 and 4,000 scripts it does not
/// grow, and of 200,000 scripts a leak of 1.3 KiB each shows.
const MAX_GROWTH: u64 = 256 << 20;
/// Threads that may come after the first batch, here and in the run of the other language beside this one.
const MAX_NEW_THREADS: usize = 4;
/// Shares of scripts that play to the end, at least, and that do not parse, at most.
const MIN_PLAYED: f64 = 0.05;
const MAX_SYNTAX: f64 = 0.6;
/// Different faults that come up, at least.
const MIN_KINDS: usize = 5;
/// Time between two lines of a long run.
const TELL: Duration = Duration::from_secs(10);

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

    /// What lies in the folder: scripts add and change nothing.
    fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let list = |folder: PathBuf| {
            std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path())
        };
        let files =
            list(self.folder.path().to_owned()).chain(list(self.games())).chain(list(self.games().join("data")));
        let mut files: Vec<_> = files
            .map(|path| {
                let bytes = if path.is_file() { std::fs::read(&path).expect("a file") } else { Vec::new() };
                (path, bytes)
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

/// The threads of the process; 0 where the system does not tell.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// What all scripts of a run share.
struct Fuzz {
    language: Language,
    seed: u64,
    shipped: Vec<String>,
    cards: Arc<str>,
    path: PathBuf,
    host: ScriptHost,
    keep: Option<PathBuf>,
    verdicts: Mutex<BTreeMap<&'static str, u64>>,
    slowest: AtomicU64,
}

impl Fuzz {
    fn text(&self, number: u64) -> (String, Stream) {
        let mut stream = Seed::new(self.seed).child(self.language.extension(), number).stream();
        (script(self.language, &self.shipped, &mut stream), stream)
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.keep.as_ref()?.join(format!("{name}.{}", self.language.extension())))
    }

    #[expect(clippy::print_stderr, reason = "slow scripts are what a long run is for")]
    fn try_script(&self, number: u64) {
        let (text, mut stream) = self.text(number);
        let name = format!("script {number} of seed {}", self.seed);
        if let Some(path) = self.file(&format!("running-{:?}", std::thread::current().id())) {
            std::fs::write(path, &text).expect("a file");
        }
        let modules = BTreeMap::from([("cards".to_owned(), Arc::clone(&self.cards))]);
        let source = Source::new(&self.path, self.language, &text, modules);
        let begun = Instant::now();
        let verdict = catch_unwind(AssertUnwindSafe(|| play(&source, &self.host, &mut stream)));
        let took = begun.elapsed();
        self.slowest.fetch_max(took.as_millis() as u64, Ordering::Relaxed);
        let verdict = verdict.unwrap_or_else(|_| panic!("{name} panicked:\n{text}"));
        assert!(took < HANG, "{name} took {took:?}:\n{text}");
        if took > SLOW {
            eprintln!("{:?}: {name} took {took:?}", self.language);
            if let Some(path) = self.file(&number.to_string()) {
                std::fs::write(path, &text).expect("a file");
            }
        }
        let code = verdict.unwrap_or_else(|problem| {
            assert!(!problem.to_string().contains(SECRET), "{name} has read what it may not:\n{text}");
            // Codes of the host's own failures, which no text of a script should lead to.
            assert!(problem.code != "script::engine", "{name}: {problem}\n{text}");
            problem.code
        });
        *self.verdicts.lock().expect("the counts").entry(code).or_default() += 1;
    }

    /// Runs the scripts of these numbers; returns those whose threads were given up.
    fn run(&self, mut numbers: Vec<u64>) -> Vec<u64> {
        let lost = for_each_abandonable(numbers.iter_mut().collect(), |number| self.try_script(*number));
        lost.into_iter().map(|number| *number).collect()
    }

    /// Runs the scripts of these numbers. A thread that gets no processor for seconds is given up as well: what could not be
    /// stopped once is tried again.
    #[expect(clippy::print_stderr, reason = "what a long run is for")]
    fn batch(&self, numbers: std::ops::Range<u64>) {
        let doubtful = self.run(numbers.collect());
        if doubtful.is_empty() {
            return;
        }
        eprintln!("{:?}: {doubtful:?} of seed {} could not be stopped; once more", self.language, self.seed);
        let lost: Vec<String> =
            self.run(doubtful).into_iter().map(|number| format!("script {number}:\n{}", self.text(number).0)).collect();
        assert!(lost.is_empty(), "of seed {} could not be stopped twice: {}", self.seed, lost.join("\n"));
    }
}

#[expect(clippy::print_stderr, reason = "the figures of a long run are what it is for")]
fn fuzz(language: Language) {
    let (count, seed) = (setting("GIFT_FUZZ_SCRIPTS", 300), setting("GIFT_FUZZ_SEED", 0));
    let first = setting("GIFT_FUZZ_FROM", 0);
    let yard = Yard::new();
    let logged = Arc::new(Mutex::new(false));
    let sink = Arc::clone(&logged);
    let mut host = ScriptHost::new(limits(), Vec::new());
    host.library = host.library.with_log(move |text| *sink.lock().expect("the sink") |= text.contains(SECRET));
    let before = yard.contents();
    let fuzz = Fuzz {
        language,
        seed,
        shipped: shipped(language),
        cards: match language {
            Language::Lua => "local n = 0 return { next = function() n += 1 return n end }".into(),
            Language::Rhai => "fn next(n) { n + 1 }".into(),
        },
        path: yard.games().join(format!("fuzz.{}", language.extension())),
        host,
        keep: std::env::var_os("GIFT_FUZZ_KEEP").map(PathBuf::from),
        verdicts: Mutex::default(),
        slowest: AtomicU64::new(0),
    };
    let is_long = count >= LONG;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).stack_size(STACK_BYTES).build().expect("a pool");
    let patient = ScriptHost::new(super::support::patient(), Vec::new());
    let start = Instant::now();
    let mut settled = None;
    let mut told = start;
    eprintln!("{language:?}: {count} scripts of seed {seed}, from number {first}");
    pool.install(|| {
        let expected = witness(&patient);
        for from in (first..first + count).step_by(BATCH as usize) {
            fuzz.batch(from..(from + BATCH).min(first + count));
            assert_eq!(witness(&patient), expected, "another script's game has changed in the batch from {from}");
            assert_eq!(yard.contents(), before, "a script has changed files in the batch from {from}");
            assert!(!*logged.lock().expect("the sink"), "a script of the batch from {from} has read what it may not");
            if is_long && settled.is_none() {
                play_good_games();
                settled = Some((resident(), threads()));
            }
            if is_long && told.elapsed() >= TELL {
                told = Instant::now();
                eprintln!(
                    "{language:?}: {} scripts in {:.0?}, slowest {} ms, {} MiB held, {} threads",
                    from + BATCH - first,
                    start.elapsed(),
                    fuzz.slowest.load(Ordering::Relaxed),
                    resident() >> 20,
                    threads()
                );
            }
        }
        if let Some((memory, running)) = settled {
            play_good_games();
            let (held, now) = (resident(), threads());
            eprintln!(
                "{language:?}: {} MiB and {running} threads after the first batch, {} MiB and {now} threads at the end",
                memory >> 20,
                held >> 20
            );
            assert!(held.saturating_sub(memory) < MAX_GROWTH, "memory grew from {memory} to {held} bytes");
            assert!(now <= running + MAX_NEW_THREADS, "threads grew from {running} to {now}");
        }
    });
    let (slowest, verdicts) = (fuzz.slowest.into_inner(), fuzz.verdicts.into_inner().expect("the counts"));
    eprintln!("{language:?}: {count} scripts of seed {seed} in {:.0?}, slowest {slowest} ms", start.elapsed());
    for (code, number) in &verdicts {
        eprintln!("  {code}: {number}");
    }
    // One that was tried twice may have two.
    assert!(verdicts.values().sum::<u64>() >= count, "every script has its verdict");
    // A grammar that only writes what does not parse would find nothing.
    let share = |code: &str| *verdicts.get(code).unwrap_or(&0) as f64 / count as f64;
    assert!(share("played") > MIN_PLAYED && share("script::syntax") < MAX_SYNTAX, "{verdicts:?}");
    let kinds = verdicts.keys().filter(|code| code.contains("::")).count();
    assert!(kinds >= MIN_KINDS, "scripts go wrong in many ways: {verdicts:?}");
}

#[test]
fn random_lua_scripts_do_no_harm() {
    fuzz(Language::Lua);
}

#[test]
fn random_rhai_scripts_do_no_harm() {
    fuzz(Language::Rhai);
}
