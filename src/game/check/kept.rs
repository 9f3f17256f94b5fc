//! What a script writes where it is lost: outside its functions, and into states that it should only look at.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Trial;
use crate::diag::{Diagnostic, SourceSpan};
use crate::game::{Episode, GameDef, Seat};
use crate::script::{Kept, State};
use crate::seed::{Seed, Stream};

/// Functions that only look at a state, beside `outcome`. `hide` returns one, so it may change what it is given.
const LOOKING: [&str; 7] = ["to_act", "observe", "brief", "actions", "score", "key", "bot"];
/// Variables and lines that a warning names.
const SHOWN: usize = 4;
/// Calls whose time is taken.
const TIMED: usize = 5;

/// What a script changes outside its functions, and what it costs.
pub(super) struct Keeping {
    kept: Vec<Kept>,
    /// A call of `to_act`, where it could be made.
    call: Option<Duration>,
}

impl Keeping {
    /// Asked on the thread that played, which knows what was refused there.
    pub(super) fn of(game: &GameDef, seed: Seed) -> Option<Self> {
        game.is_fresh_each_call().then(|| Self { kept: game.kept(), call: time_of_call(game, seed) })
    }

    pub(super) fn warning(&self, game: &GameDef) -> Diagnostic {
        let variables: BTreeSet<&str> = self.kept.iter().filter_map(|kept| kept.variable.as_deref()).collect();
        let names: Vec<String> = variables.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
        let (what, found, label) = if let Some(first) = self.kept.first().and_then(|kept| kept.variable.as_deref()) {
            let lines: Vec<String> = self.kept.iter().take(SHOWN).map(|kept| kept.place.line.to_string()).collect();
            let plural = if lines.len() == 1 { "line" } else { "lines" };
            let found = format!("{} assigned by functions, in {plural} {}", names.join(", "), lines.join(", "));
            (names.join(", "), found, format!("`{first}` is assigned here"))
        } else if self.kept.is_empty() {
            let found = "a coroutine, an iterator or a buffer of the top level, a write whose error was caught, or a top level \
                         too large to be kept as it is";
            ("something of the top level".to_owned(), found.to_owned(), String::new())
        } else {
            let table = table_in(game, &self.kept[0].place);
            let name = table.map_or_else(|| "a table of the top level".to_owned(), |name| format!("`{name}`"));
            let found = "a write into a table that was made at the top level".to_owned();
            (name, found, "this writes into a table outside the function".to_owned())
        };
        let place = match self.kept.first() {
            Some(Kept { place, variable }) => with_column(game, place.clone(), variable.as_deref()),
            None => SourceSpan::file(&game.source.path),
        };
        let warning =
            Diagnostic::warning("game::kept", format!("functions change what stands outside them: {what}")).at(place);
        let warning = game.source.illustrate(warning).label(label);
        let warning = warning
            .expected("all that lasts is in the state, and tables are built while the script loads")
            .found(found)
            .help("keep it in the state, or build it whole at the top level")
            .note("what is written is gone after the call, so nothing can be remembered or computed once this way");
        match self.call {
            Some(time) => warning.note(format!(
                "and it is slow: the top level runs again for each call. A call of `to_act` takes {} µs here; where nothing is \
                 kept, a microsecond or less is usual, and rollouts and search are slower by as much",
                time.as_micros().max(1)
            )),
            None => warning.note("and it is slow: the top level runs again for each call, in rollouts and search too"),
        }
    }
}

/// The median time of a call that does little but what every call does.
fn time_of_call(game: &GameDef, seed: Seed) -> Option<Duration> {
    let state = game.init(seed).ok()?;
    let mut times = Vec::with_capacity(TIMED);
    for _ in 0..TIMED {
        let start = Instant::now();
        game.to_act(&state).ok()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Some(times[TIMED / 2])
}

/// The place with the column of the variable, if its line is in the game's own text.
fn with_column(game: &GameDef, mut place: SourceSpan, variable: Option<&str>) -> SourceSpan {
    let line =
        (place.file == game.source.path).then(|| game.source.text.lines().nth(place.line as usize - 1)).flatten();
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let found = line.zip(variable).and_then(|(line, name)| {
        let mut all = line.match_indices(name);
        let at =
            all.find(|(at, _)| !line[..*at].ends_with(in_word) && !line[at + name.len()..].starts_with(in_word))?.0;
        Some(line[..at].chars().count() as u32 + 1)
    });
    place.column = found.unwrap_or(0);
    place
}

/// The variable of the top level that the line names, if it names one alone: a table that is written into.
fn table_in<'a>(game: &'a GameDef, place: &SourceSpan) -> Option<&'a str> {
    if place.file != game.source.path {
        return None;
    }
    let line = game.source.text.lines().nth((place.line as usize).checked_sub(1)?)?;
    let not_in_word = |c: char| !c.is_alphanumeric() && c != '_';
    let is_top_level = |word: &str| {
        let declares = |line: &str| line.strip_prefix("local ")?.split(not_in_word).next().map(|name| name == word);
        game.source.text.lines().any(|line| declares(line) == Some(true))
    };
    // A game's own table holds its functions and is named where each begins.
    let named = |word: &&str| !word.is_empty() && is_top_level(word) && !line.contains(&format!("function {word}."));
    let names: BTreeSet<&str> = line.split(not_in_word).filter(named).collect();
    if names.len() == 1 { names.into_iter().next() } else { None }
}

/// Warns of functions that write into a state that they should only look at. The seat is the one whose turn it is.
pub(super) fn try_state_writes(game: &GameDef, episode: &Episode, seat: Seat, stream: &Stream, trial: &mut Trial) {
    for function in LOOKING {
        if matches!(function, "to_act" | "observe") || game.has(function) {
            try_function(game, function, (episode.state(), seat), &mut stream.clone(), trial);
        }
    }
}

/// As [`try_state_writes`], of the function that looks at the last state.
pub(super) fn try_outcome_writes(game: &GameDef, episode: &Episode, stream: &Stream, trial: &mut Trial) {
    try_function(game, "outcome", (episode.state(), Seat(1)), &mut stream.clone(), trial);
}

fn try_function(
    game: &GameDef,
    function: &'static str,
    (state, seat): (&State, Seat),
    stream: &mut Stream,
    trial: &mut Trial,
) {
    if trial.writing.contains(function) {
        return;
    }
    let Some(problem) = game.state_write(function, state, seat, stream) else { return };
    trial.writing.insert(function);
    let message = format!("`{function}` writes into the state, and what it writes is lost");
    let mut warning = Diagnostic::warning("game::state_written", message)
        .expected("only `init` and `apply` make and change states, and return them")
        .found(format!("a write into the copy of the state that `{function}` is given to look at"))
        .help("do it in `apply`; where a text needs a sorted or marked copy, take `gift.clone` of that part")
        .note(
            "no later call sees what is written, and a run is slower: the script gets a copy of each state to look at",
        );
    (warning.place, warning.stack) = (problem.place, problem.stack);
    warning.snippet = problem.snippet;
    trial.warnings.push(warning.label("this writes into the state"));
}
