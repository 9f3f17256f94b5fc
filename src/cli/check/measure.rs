//! What a game is like to train on: how often each seat succeeds, by whom it is played, and whether groups of episodes
//! have rewards that differ.

use std::sync::Arc;

use rayon::prelude::*;

use crate::advantage::{MIN_STD, standard_deviation};
use crate::diag::Diagnostic;
use crate::eval::{Match, SuccessRate};
use crate::game::{Action, Episode, GameDef, Seat, Status};
use crate::opponent::Opponents;
use crate::seed::Seed;

/// Groups, and episodes of each, that the spread of rewards is measured on; 16 is the paper's group size.
const GROUPS: u64 = 16;
const MEMBERS: u64 = 16;
/// Positions within which a game must be solved for its search to be called perfect.
const EXACT_POSITIONS: usize = 20_000;
/// Positions of a move where the game is larger, and has no bot.
const SHALLOW_POSITIONS: usize = 200;
/// Episodes of search play of each seat.
const SEARCHED_EPISODES: usize = 4;
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
    let lists = lists_actions(game)?;
    let mut success = Vec::new();
    // Twice the episodes over all seats, so that many seats do not take long.
    let each = (2 * episodes).div_ceil(game.seats as usize).min(episodes);
    if lists {
        success.push(rates(game, opponents, "random", &Opponents::parse("random")?, each)?);
    }
    if game.has("bot") {
        success.push(rates(game, opponents, "bot", &Opponents::parse("bot")?, each)?);
    }
    let searched = SEARCHED_EPISODES.min(episodes);
    let search = if lists && game.seats > 2 && game.has("bot") {
        "not searched: there are more than two seats; `bot` stands for a good player"
    } else if lists {
        let perfect = Opponents::parse(&format!("search:{EXACT_POSITIONS}"))?;
        let is_solved = solves(&perfect, game, searched)?;
        if is_solved {
            success.push(rates(game, opponents, "search", &perfect, searched)?);
            "perfect"
        } else if game.has("bot") {
            "not searched: the game is too large to be solved here; `bot` stands for a good player"
        } else {
            let limited = Opponents::parse(&format!("search:{SHALLOW_POSITIONS}"))?;
            success.push(rates(game, opponents, "search", &limited, searched)?);
            "limited"
        }
    } else {
        "not searched: the first turn has no list of legal answers"
    };
    // Where answers are free text only the bot can be played, and its episodes say nothing of a model's.
    let signal = if lists { Some(signal(game, opponents)?) } else { None };
    let measures = Measures { opponent, success, search, signal };
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
    let episode = Episode::start(game, Seed::new(0).child("start", 0))?;
    match *episode.status() {
        Status::Turn(seat) => Ok(game.actions(episode.state(), seat)?.is_some()),
        _ => Ok(false),
    }
}

/// Whether the searcher plays all these episodes perfectly from their start.
fn solves(searcher: &Opponents, game: &Arc<GameDef>, episodes: usize) -> Result<bool, Box<Diagnostic>> {
    let matches = episodes_of(game, episodes, None);
    for number in 0..episodes {
        let episode = Episode::start(game, matches.episode_seed(game, number))?;
        if let Status::Turn(seat) = *episode.status()
            && !searcher.solves(game, episode.state(), seat)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn rates(
    game: &Arc<GameDef>,
    opponents: &Opponents,
    player: &'static str,
    chosen: &Opponents,
    episodes: usize,
) -> Result<Success, Box<Diagnostic>> {
    let mut success = Success { player, episodes, rates: Vec::new(), intervals: Vec::new() };
    for seat in 1..=game.seats.min(MAX_SEATS) {
        let played = episodes_of(game, episodes, Some(Seat(seat))).play_scripted(chosen, opponents);
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
