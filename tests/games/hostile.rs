//! The corpus of hostile scripts, `tests/hostile/`: each is a whole game whose first line says what must come of it, and
//! in which function. They are loaded and played as in a run, on the threads that a run uses, and afterwards the host must
//! be as good as new.
//!
//! `expect: script::timeout in init` is a diagnostic's code and the call that gave it (`load` for the top level); several
//! of either are parted by `|`. `expect: played` is an episode that ends by the rules.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gift_host::diag::Diagnostic;
use gift_host::game::{Action, Episode, GameDef, ScriptHost, Seat, Status, for_each_abandonable};
use gift_host::reload::read_source;
use gift_host::script::{Language, Limits, Source, Value};
use gift_host::seed::Seed;

use super::support::{resident, scripts_in, stem};

/// Fewest scripts of a language.
const MIN_SCRIPTS: usize = 60;
/// Longer than any script may keep a thread, on a machine that does other work as well.
const MAX_TIME: Duration = Duration::from_secs(15);
/// What may stay allocated when all scripts are gone: the good games that threads keep, here and in tests that run beside
/// this one. All that the hostile ones may take is ten times as much.
const MAX_HELD: u64 = 512 << 20;

struct Case {
    path: PathBuf,
    expected: Vec<String>,
    places: Vec<String>,
    found: Option<(String, Duration)>,
}

impl Case {
    fn read(path: PathBuf) -> Self {
        let text = std::fs::read(&path).expect("a script");
        let first = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
        let line = first.split_once("expect: ").unwrap_or_else(|| panic!("{} says what it expects", path.display())).1;
        let (expected, places) = line.split_once(" in ").unwrap_or((line, ""));
        let list = |text: &str| text.split('|').map(|part| part.trim().to_owned()).collect();
        Self { path, expected: list(expected), places: list(places), found: None }
    }

    /// What may end by the clock is given little time; what must not is given enough, however busy the machine.
    fn limits(&self) -> Limits {
        let is_timed = self.expected.iter().any(|code| code == "script::timeout");
        let call = Duration::from_millis(if is_timed { 300 } else { 20_000 });
        Limits { call, memory_bytes: 32 << 20, ..Limits::default() }
    }

    fn run(&mut self) {
        let start = Instant::now();
        let verdict = match play(&self.path, self.limits()) {
            Ok(()) => "played".to_owned(),
            Err((place, problem)) => format!("{} in {place}: {}", problem.code, problem.message),
        };
        self.found = Some((verdict, start.elapsed()));
    }

    /// What is wrong, if anything is.
    fn complaint(&self) -> Option<String> {
        let (found, took) = self.found.as_ref()?;
        let fits = self.expected.iter().any(|code| {
            if code == "played" {
                found == code
            } else {
                self.places.iter().any(|place| found.starts_with(&format!("{code} in {place}:")))
            }
        });
        let name = self.path.display();
        let end = found.char_indices().nth(200).map_or(found.len(), |(at, _)| at);
        match fits {
            false => {
                Some(format!("{name}: expected {:?} in {:?}, found {}", self.expected, self.places, &found[..end]))
            }
            true if *took > MAX_TIME => Some(format!("{name}: took {took:?}")),
            true => None,
        }
    }
}

/// Loads a game and plays an episode of it; an error names the call that it came from.
fn play(path: &std::path::Path, limits: Limits) -> Result<(), (&'static str, Box<Diagnostic>)> {
    let at = |place: &'static str| move |problem: Box<Diagnostic>| (place, problem);
    let host = ScriptHost::new(limits, Vec::new());
    let source = read_source(path).map_err(at("load"))?;
    let game = Arc::new(GameDef::compile(&source, Value::Map(BTreeMap::new()), &host).map_err(at("load"))?);
    let mut episode = Episode::start(&game, Seed::new(1)).map_err(at("init"))?;
    let mut stream = Seed::new(2).stream();
    for _ in 0..4 {
        let Status::Turn(seat) = *episode.status() else { break };
        episode.observation(seat, false).map_err(at("observe"))?;
        let legal = game.actions(episode.state(), seat).map_err(at("actions"))?;
        let mut text = legal.and_then(|legal| legal.first().cloned()).unwrap_or_default();
        if game.has("bot") {
            text = game.bot(episode.state(), seat, &mut stream).map_err(at("bot"))?;
        }
        episode.act(seat, &Action { text, well_formed: true }).map_err(at("apply"))?;
    }
    assert!(matches!(episode.status(), Status::Terminated(_)), "{}: {:?}", path.display(), episode.status());
    Ok(())
}

/// A game that plays well, different from others by a comment.
fn good(number: usize) -> f64 {
    let text = format!(
        "-- {number}\nreturn {{ name = 'good', seats = 1, max_turns = 1, init = function(rng) return {{ n = rng:int(1, 9) }} end, \
         to_act = function(s) if s.n == 0 then return nil end return 1 end, observe = function(s) return 'n' end, \
         apply = function(s) s.n = 0 return s end, outcome = function() return {{ scores = {{ #string.rep('x', 3) }}, success = {{ true }} }} end }}"
    );
    let source = Source::new("games/good.lua".as_ref(), Language::Lua, &text, BTreeMap::new());
    let host = ScriptHost::new(super::support::patient(), Vec::new());
    let game =
        GameDef::compile(&source, Value::Map(BTreeMap::new()), &host).unwrap_or_else(|problem| panic!("{problem}"));
    let mut episode = Episode::start(&Arc::new(game), Seed::new(9)).unwrap_or_else(|problem| panic!("{problem}"));
    let action = Action { text: "x".to_owned(), well_formed: true };
    episode.act(Seat(1), &action).unwrap_or_else(|problem| panic!("{problem}"));
    episode.result(Seat(1)).0
}

/// Enough good games that every thread has forgotten the scripts that it held before.
pub(crate) fn play_good_games() {
    let mut numbers: Vec<(usize, f64)> = (0..60 * rayon::current_num_threads()).map(|number| (number, 0.0)).collect();
    let lost = for_each_abandonable(numbers.iter_mut().collect(), |(number, score)| *score = good(*number));
    assert!(lost.is_empty());
    assert!(numbers.iter().all(|(_, score)| *score == 3.0));
}

fn corpus(language: &str) {
    let mut cases: Vec<Case> = scripts_in(&format!("tests/hostile/{language}")).into_iter().map(Case::read).collect();
    assert!(cases.len() >= MIN_SCRIPTS, "{} scripts", cases.len());
    play_good_games();
    let before = resident();
    let lost: Vec<String> =
        for_each_abandonable(cases.iter_mut().collect(), Case::run).iter().map(|case| stem(&case.path)).collect();
    assert!(lost.is_empty(), "could not be stopped: {lost:?}");
    let complaints: Vec<String> = cases.iter().filter_map(Case::complaint).collect();
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), cases.len(), complaints.join("\n"));
    play_good_games();
    let held = resident().saturating_sub(before);
    assert!(held < MAX_HELD, "{} MiB are still held", held >> 20);
}

#[test]
fn every_hostile_lua_script_gets_its_verdict() {
    corpus("lua");
}

#[test]
fn every_hostile_rhai_script_gets_its_verdict() {
    corpus("rhai");
}
