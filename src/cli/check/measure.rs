//! What a game is like to train on: how often each seat succeeds, by whom it is played, and whether groups of episodes
//! have rewards that differ.

use std::sync::Arc;

use rayon::prelude::*;

use crate::advantage::{MIN_STD, standard_deviation};
use crate::diag::Diagnostic;
use crate::eval::{Match, SuccessRate};
use crate::game::{Action, Episode, GameDef, Seat, Status};
use crate::opponent::{Opponents, reaches_the_end};
use crate::seed::Seed;

/// Groups, and episodes of each, that the spread of rewards is measured on; 16 is the paper's group size.
const GROUPS: u64 = 16;
const MEMBERS: u64 = 16;
/// Positions within which a game must be solved for its search to be called perfect.
const EXACT_POSITIONS: usize = 8_000;
/// Positions of a move where the game is larger, and has no bot.
const SHALLOW_POSITIONS: usize = 200;
/// Episodes of search play of each seat: of perfect play, and where each move costs its whole budget.
const SEARCHED_EPISODES: (usize, usize) = (8, 4);
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

/// The spread of rewards within groups of random play.
#[derive(Debug, serde::Serialize)]
pub(super) struct Signal {
    pub(super) groups: u64,
    pub(super) members: u64,
    /// Groups whose rewards are all equal.
    pub(super) without: u64,
    /// Mean standard deviation of the rewards of a group.
    pub(super) spread: f64,
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
}

/// Plays the game with everyone that can play it; problems of the play, and what the figures mean for training.
pub(super) fn measure(
    game: &Arc<GameDef>,
    opponents: &Opponents,
    episodes: usize,
) -> Result<(Measures, Vec<Diagnostic>), Box<Diagnostic>> {
    let opponent = if game.seats < 2 { "none".to_owned() } else { opponents.spec(&game.name).to_string() };
    let start = start(game)?;
    let lists = match start {
        Some((ref state, seat)) => game.actions(state, seat)?.is_some(),
        None => false,
    };
    let mut success = Vec::new();
    if lists {
        success.push(rates(game, opponents, "random", "random", episodes)?);
    }
    if game.has("bot") {
        success.push(rates(game, opponents, "bot", "bot", episodes)?);
    }
    let search = match &start {
        Some((state, seat)) if lists => {
            let exact = reaches_the_end(game, state, *seat, EXACT_POSITIONS)?;
            let (spec, count) = if exact {
                (format!("search:{EXACT_POSITIONS}"), SEARCHED_EPISODES.0)
            } else {
                (format!("search:{SHALLOW_POSITIONS}"), SEARCHED_EPISODES.1)
            };
            if exact || !game.has("bot") {
                success.push(rates(game, opponents, "search", &spec, count.min(episodes))?);
            }
            match (exact, game.has("bot")) {
                (true, _) => "perfect",
                (false, false) => "limited",
                (false, true) => "not searched: the game is too large to be solved; `bot` stands for a good player",
            }
        }
        _ => "not searched: the first turn has no list of legal answers",
    };
    let signal = if lists || game.has("bot") { Some(signal(game, opponents)?) } else { None };
    let measures = Measures { opponent, success, search, signal };
    let warnings = warnings(game, &measures);
    Ok((measures, warnings))
}

/// The first turn of an episode.
fn start(game: &Arc<GameDef>) -> Result<Option<(crate::script::Value, Seat)>, Box<Diagnostic>> {
    let episode = Episode::start(game, Seed::new(0).child("start", 0))?;
    Ok(match episode.status() {
        Status::Turn(seat) => Some((episode.state().clone(), *seat)),
        _ => None,
    })
}

fn rates(
    game: &Arc<GameDef>,
    opponents: &Opponents,
    player: &'static str,
    spec: &str,
    episodes: usize,
) -> Result<Success, Box<Diagnostic>> {
    let chosen = Opponents::parse(spec)?;
    let mut success = Success { player, episodes, rates: Vec::new(), intervals: Vec::new() };
    for seat in 1..=game.seats.min(MAX_SEATS) {
        // The same episodes for each seat, so that what search has solved serves all.
        let seed = Seed::new(0).child("measure", 0);
        let game = vec![Arc::clone(game)];
        let played = Match { games: game, episodes, seat: Some(Seat(seat)), seed }.play_scripted(&chosen, opponents);
        let Some(rate) = played.into_iter().next() else { continue };
        let SuccessRate { success: share, interval, problem, voided, .. } = rate;
        if let Some(problem) = problem.filter(|_| voided > 0) {
            let note = format!("when `{player}` played seat {seat} against `{}`", rate.opponent);
            return Err(Box::new(problem.note(note)));
        }
        success.rates.push(share);
        success.intervals.push(interval);
    }
    Ok(success)
}

/// Groups of random play of a random seat, as a rollout makes them before the policy has learned anything.
fn signal(game: &Arc<GameDef>, opponents: &Opponents) -> Result<Signal, Box<Diagnostic>> {
    let player = Opponents::parse("random")?;
    let spread_of = |group: u64| -> Result<f64, Box<Diagnostic>> {
        let seed = Seed::new(0).child("group", group);
        let seat = Seat(seed.child("seat", 0).stream().int(1, i64::from(game.seats)) as u32);
        let reward_of = |member: u64| -> Result<f64, Box<Diagnostic>> {
            let mut own = seed.child("player", member).stream();
            let mut others = seed.child("opponent", member).stream();
            let mut episode = Episode::start(game, seed.child("episode", 0))?;
            while let Status::Turn(turn) = *episode.status() {
                let text = if turn == seat {
                    player.act(game, episode.state(), turn, &mut own)?
                } else {
                    opponents.act(game, episode.state(), turn, &mut others)?
                };
                episode.act(turn, &Action { text, well_formed: true })?;
            }
            Ok(episode.result(seat).0)
        };
        let rewards = (0..MEMBERS).map(reward_of).collect::<Result<Vec<f64>, _>>()?;
        Ok(standard_deviation(&rewards))
    };
    let spreads = (0..GROUPS).into_par_iter().map(spread_of).collect::<Result<Vec<f64>, _>>()?;
    let without = spreads.iter().filter(|&&spread| spread < MIN_STD).count() as u64;
    let spread = spreads.iter().sum::<f64>() / spreads.len() as f64;
    Ok(Signal { groups: GROUPS, members: MEMBERS, without, spread })
}

/// What the figures mean for training.
fn warnings(game: &GameDef, measures: &Measures) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
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
                    .found(format!("no success of seat {number} by {} against `{}`", names(), measures.opponent))
                    .help("make the game winnable for every seat, or fix the learner's with `--seat`; with success always 0 there is nothing to measure"),
            );
        } else if shares.any(|(player, &share)| player == "random" && share == 1.0) {
            let warning = Diagnostic::warning("game::always_won", format!("seat {number} always succeeds"));
            warnings.push(
                game.blame("outcome", warning)
                    .expected("a seat that can fail")
                    .found(format!("success in every episode of random play against `{}`", measures.opponent))
                    .help(
                        "make the game harder, or its opponents stronger: a model that need not choose learns nothing",
                    ),
            );
        }
    }
    if let Some(Signal { groups, members, without, .. }) = measures.signal.as_ref().filter(|s| s.without * 2 > s.groups)
    {
        let text = if without == groups { "GRPO sees no signal" } else { "GRPO sees little signal" };
        warnings.push(
            game.blame("outcome", Diagnostic::warning("game::no_signal", text))
                .expected("episodes of one start that end with different scores")
                .found(format!(
                    "the {members} scores are equal in {without} of {groups} groups of random play; GRPO learns nothing from \
                     such groups"
                ))
                .help("give parts of the score for parts of the way, or begin with easier episodes (`options`, a nest)"),
        );
    }
    warnings
}
