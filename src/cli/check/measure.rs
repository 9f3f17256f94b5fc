//! What a game is like to train on: how often each seat succeeds, by whom it is played, and whether groups of episodes
//! have rewards that differ.

use std::sync::Arc;

use crate::diag::Diagnostic;
use crate::eval::{Match, SuccessRate};
use crate::game::{Episode, GameDef, Seat, Status};
use crate::opponent::Opponents;
use crate::seed::Seed;

use super::signal::{Signal, signal};

/// Positions within which a game must be solved for its search to be called perfect.
const EXACT_POSITIONS: usize = 20_000;
/// Positions of a move where the game is larger, and has no bot.
const SHALLOW_POSITIONS: usize = 200;
/// Episodes of search play of each seat.
const SEARCHED_EPISODES: usize = 4;
/// Episodes that a fault may end before no further one is begun: each may take as long as a call may.
const MAX_LOST: usize = 2;
/// Seats that are measured; in games for more, the first ones.
const MAX_SEATS: u32 = 8;

/// The success of each seat under one player.
#[derive(Debug, serde::Serialize)]
pub(super) struct Success {
    /// `random`, `bot` or `search`.
    pub(super) player: &'static str,
    /// Episodes of each seat.
    pub(super) episodes: usize,
    /// Success rate by seat.
    pub(super) rates: Vec<f64>,
    /// Wilson's 95 % interval of each.
    pub(super) intervals: Vec<[f64; 2]>,
}

/// What was measured.
#[derive(Debug, serde::Serialize)]
pub(super) struct Measures {
    /// Who played the other seats.
    pub(super) opponent: String,
    pub(super) success: Vec<Success>,
    /// `perfect`, `limited`, or why there was no search.
    pub(super) search: &'static str,
    pub(super) signal: Option<Signal>,
    /// Why there is none.
    #[serde(skip)]
    pub(super) no_signal: &'static str,
}

/// Plays the game with everyone that can play it; problems of the play, and what the figures mean for training. `tell` is
/// told what is played.
pub(super) fn measure(
    game: &Arc<GameDef>,
    opponents: &Opponents,
    episodes: usize,
    tell: &dyn Fn(&str),
) -> Result<(Measures, Vec<Diagnostic>), Box<Diagnostic>> {
    let opponent = if game.seats < 2 { "none".to_owned() } else { opponents.describe(&game.name) };
    let lists = lists_actions(game)?;
    let mut success = Vec::new();
    // Twice the episodes over all seats, so that many seats do not take long.
    let each = (2 * episodes).div_ceil(game.seats as usize).min(episodes);
    if lists {
        success.push(rates(game, opponents, tell, "random", &Opponents::parse("random")?, each)?);
    }
    if game.has("bot") {
        success.push(rates(game, opponents, tell, "bot", &Opponents::parse("bot")?, each)?);
    }
    let searched = SEARCHED_EPISODES.min(episodes);
    let search = if lists && game.seats > 2 && game.has("bot") {
        "not searched: there are more than two seats; `bot` stands for a good player"
    } else if lists {
        let perfect = Opponents::parse(&format!("search:{EXACT_POSITIONS}:sees=all"))?;
        tell("whether search solves it");
        let is_solved = solves(&perfect, game, searched)?;
        if is_solved {
            success.push(rates(game, opponents, tell, "search", &perfect, searched)?);
            "perfect"
        } else if game.has("bot") {
            "not searched: the game is too large to be solved here; `bot` stands for a good player"
        } else {
            let limited = Opponents::parse(&format!("search:{SHALLOW_POSITIONS}:sees=all"))?;
            success.push(rates(game, opponents, tell, "search", &limited, searched)?);
            "limited"
        }
    } else {
        "not searched: the first turn has no list of legal answers"
    };
    tell("the spread of rewards within groups");
    let (signal, no_signal) = match signal(game, opponents, lists)? {
        Ok(signal) => (Some(signal), ""),
        Err(reason) => (None, reason),
    };
    let measures = Measures { opponent, success, search, signal, no_signal };
    let warnings = warnings(game, &measures);
    Ok((measures, warnings))
}

/// A match of one game; the same episodes for each seat, so that what search has solved serves all.
fn episodes_of(game: &Arc<GameDef>, episodes: usize, seat: Option<Seat>) -> Match {
    let by_game = std::collections::BTreeMap::new();
    Match { games: vec![Arc::clone(game)], episodes, by_game, seat, seed: Seed::new(0).child("measure", 0) }
}

/// Whether the first turn of an episode has a list of legal answers.
fn lists_actions(game: &Arc<GameDef>) -> Result<bool, Box<Diagnostic>> {
    game.host().guarded(&game.source, || {
        let episode = Episode::start(game, Seed::new(0).child("start", 0))?;
        match *episode.status() {
            Status::Turn(seat) => Ok(game.actions(episode.state(), seat)?.is_some()),
            _ => Ok(false),
        }
    })?
}

/// Whether the searcher plays all these episodes perfectly from their start.
fn solves(searcher: &Opponents, game: &Arc<GameDef>, episodes: usize) -> Result<bool, Box<Diagnostic>> {
    let matches = episodes_of(game, episodes, None);
    game.host().guarded(&game.source, || {
        for number in 0..episodes {
            let episode = Episode::start(game, matches.episode_seed(game, number))?;
            if let Status::Turn(seat) = *episode.status()
                && !searcher.solves(game, episode.state(), seat)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    })?
}

fn rates(
    game: &Arc<GameDef>,
    opponents: &Opponents,
    tell: &dyn Fn(&str),
    player: &'static str,
    chosen: &Opponents,
    episodes: usize,
) -> Result<Success, Box<Diagnostic>> {
    let mut success = Success { player, episodes, rates: Vec::new(), intervals: Vec::new() };
    for seat in 1..=game.seats.min(MAX_SEATS) {
        tell(&format!("{episodes} episodes of `{player}` in seat {seat}"));
        let matches = episodes_of(game, episodes, Some(Seat(seat)));
        let played = matches.play_scripted_until(chosen, opponents, MAX_LOST);
        let Some(rate) = played.into_iter().next() else { continue };
        let SuccessRate { rates, problem, voided, .. } = rate;
        if let Some(problem) = problem.filter(|_| voided > 0) {
            let note = format!("when `{player}` played seat {seat} against `{}`", rate.opponent);
            return Err(Box::new(problem.note(note)));
        }
        success.rates.push(rates.success);
        success.intervals.push(rates.interval);
    }
    Ok(success)
}

/// What the figures mean for training.
fn warnings(game: &GameDef, measures: &Measures) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    let against = if game.seats > 1 { format!(" against `{}`", measures.opponent) } else { String::new() };
    for seat in 0..game.seats.min(MAX_SEATS) as usize {
        let mut shares = measures.success.iter().filter_map(|success| Some((success.player, success.rates.get(seat)?)));
        let names = || {
            let names: Vec<String> = measures.success.iter().map(|success| format!("`{}`", success.player)).collect();
            names.join(", ")
        };
        let number = seat + 1;
        if measures.success.len() > 1 && shares.clone().all(|(_, &share)| share == 0.0) {
            let warning = Diagnostic::warning("game::never_won", format!("seat {number} never succeeds"));
            warnings.push(
                game.blame("outcome", warning)
                    .expected("a seat that can succeed")
                    .found(format!("no success of seat {number} by {}{against}", names()))
                    .help("make the game winnable for every seat, or fix the learner's with `--seat`; with success always 0 there is nothing to measure"),
            );
        } else if shares.any(|(player, &share)| player == "random" && share == 1.0) {
            let warning = Diagnostic::warning("game::always_won", format!("seat {number} always succeeds"));
            warnings.push(
                game.blame("outcome", warning)
                    .expected("a seat that can fail")
                    .found(format!("success in every episode of random play{against}"))
                    .help(
                        "make the game harder, or its opponents stronger: a model that need not choose learns nothing",
                    ),
            );
        }
    }
    if let Some(signal) = measures.signal.as_ref().filter(|s| s.without * 2 > s.groups) {
        let Signal { groups, members, without, .. } = signal;
        let play = signal.play();
        let text = if without == groups { "GRPO sees no signal" } else { "GRPO sees little signal" };
        warnings.push(
            game.blame("outcome", Diagnostic::warning("game::no_signal", text))
                .expected("episodes of one start that end with different scores")
                .found(format!(
                    "the {members} scores are equal in {without} of {groups} groups of {play}; GRPO learns nothing from \
                     such groups"
                ))
                .help("give parts of the score for parts of the way, or begin with easier episodes (`options`, a nest)"),
        );
    }
    warnings
}
