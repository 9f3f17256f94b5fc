//! Nests and reward scripts, tried on seeded examples before a run depends on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::diag::Diagnostic;
use crate::seed::Seed;

use super::check::choose;
use super::{Action, Episode, EpisodeSummary, GameDef, GameStats, Nest, RewardScript, Seat, StageResult, Status};

/// Time after which nothing further is tried: slow calls within their budgets must not keep a reload waiting for ever.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Draws of an order for each kind of statistics: a nest may draw its order.
const DRAWS: u64 = 8;
/// Episodes of each game that a reward script is tried on.
const EPISODES: u64 = 2;

/// Asks a nest for orders at low, high, mixed and missing success rates, and for the joint reward of stages that were all
/// lost, all won or mixed. `games` are the names of the run's games.
///
/// # Errors
/// The nest's first [`Diagnostic`].
pub fn try_nest(nest: &Nest, games: &[String], seed: Seed) -> Result<(), Box<Diagnostic>> {
    let (start, mut stream) = (Instant::now(), seed.child("nest trial", 0).stream());
    let all_games =
        |rate: f64| games.iter().map(|game| (game.clone(), GameStats { success: rate, reward: rate })).collect();
    let mut statistics: Vec<BTreeMap<String, GameStats>> = vec![BTreeMap::new(), all_games(0.0), all_games(1.0)];
    for _ in 0..DRAWS {
        let drawn = games.iter().map(|game| {
            let rate = stream.float();
            (game.clone(), GameStats { success: rate, reward: rate - 0.1 })
        });
        statistics.push(drawn.collect());
    }
    for stats in &statistics {
        for _ in 0..DRAWS {
            if start.elapsed() > MAX_TIME {
                return Ok(());
            }
            let stages = nest.stages(games, stats, &mut stream)?;
            let results = |result: &mut dyn FnMut() -> (f64, bool)| {
                let results: Vec<StageResult> = stages
                    .iter()
                    .map(|game| {
                        let (reward, success) = result();
                        StageResult { game: game.clone(), reward, success }
                    })
                    .collect();
                nest.reward(&results).map(|_| ())
            };
            results(&mut || (0.0, false))?;
            results(&mut || (1.0, true))?;
            results(&mut || (stream.float() - 0.1, stream.index(2) == 0))?;
        }
    }
    Ok(())
}

/// Rewards seeded random episodes of every game, whole ones and cut ones, with and without penalties.
///
/// # Errors
/// The reward script's first [`Diagnostic`]; a fault of a game is not reported here.
pub fn try_reward(reward: &RewardScript, games: &[Arc<GameDef>], seed: Seed) -> Result<(), Box<Diagnostic>> {
    let start = Instant::now();
    for game in games {
        for number in 0..EPISODES {
            if start.elapsed() > MAX_TIME {
                return Ok(());
            }
            let seed = seed.child("reward trial", number);
            for cut in [false, true] {
                // The games were checked before: what fails here is the reward script, or shows in the run.
                let played = game.host().guarded(&game.source, || play(game, seed, cut));
                let Ok(Ok((episode, texts))) = played else { continue };
                let seat = Seat(1 + (number % u64::from(game.seats)) as u32);
                let results: Vec<(f64, bool)> = (1..=game.seats).map(|seat| episode.result(Seat(seat))).collect();
                let (scores, success): (Vec<f64>, Vec<bool>) = results.into_iter().unzip();
                let summary = EpisodeSummary {
                    game: &game.name,
                    seat: seat.0,
                    scores: &scores,
                    success: &success,
                    turns: episode.turns(),
                    texts: &texts,
                    prompt_tokens: texts.iter().map(|(observation, _)| observation.len()).sum(),
                    response_tokens: texts.iter().map(|(_, answer)| answer.len()).sum(),
                    penalty: if cut { -0.1 } else { 0.0 },
                    truncated: cut,
                };
                reward.reward(&summary)?;
            }
        }
    }
    Ok(())
}

/// Observation and answer of each turn.
type Texts = Vec<(String, String)>;

/// Plays one episode at random, or its first turn with an unreadable answer; returns the texts of each turn as well.
fn play(game: &Arc<GameDef>, seed: Seed, cut: bool) -> Result<(Episode, Texts), Box<Diagnostic>> {
    let start = Instant::now();
    let mut stream = seed.child("random play", 0).stream();
    let mut episode = Episode::start(game, seed)?;
    let mut texts = Vec::new();
    while let Status::Turn(seat) = *episode.status() {
        let observation = episode.observation(seat, false)?;
        let action = choose(game, &episode, seat, &mut stream)?;
        texts.push((observation, format!("<think></think><answer>{action}</answer>")));
        episode.act(seat, &Action { text: action, well_formed: !cut })?;
        if cut || start.elapsed() > MAX_TIME {
            episode.truncate();
        }
    }
    Ok((episode, texts))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::game::ScriptHost;
    use crate::script::{Language, Source, Value};

    fn source(text: &str) -> Source {
        Source::new(Path::new("script.lua"), Language::Lua, text, BTreeMap::new())
    }

    #[test]
    fn a_nest_that_fails_only_when_called_is_found() {
        let try_text = |text: &str| {
            let games = ["a".to_owned(), "b".to_owned()];
            let nest = Nest::compile(&source(text), &games, &ScriptHost::default()).unwrap();
            try_nest(&nest, &games, Seed::new(0)).map_err(|problem| problem.to_string())
        };
        assert_eq!(try_text("return { stages = function(rng, stats) return { 'a', 'b' } end }"), Ok(()));
        let failing = "return { stages = function(rng, stats) if stats.a.success > 0.5 then return { 'a' } end \
                       return { 'b' } end }";
        assert!(try_text(failing).unwrap_err().contains("index nil"));
        let late = "return { stages = { 'a', 'b' }, reward = function(results) if results[1].success then return 'won' end \
                    return 0 end }";
        assert!(try_text(late).unwrap_err().contains("a finite number"));
    }

    #[test]
    fn a_reward_script_that_fails_only_when_called_is_found() {
        let game = source(
            "return { name = 'g', seats = 1, max_turns = 1, init = function() return { over = false } end, \
             to_act = function(s) if not s.over then return 1 end end, observe = function() return 'say it' end, \
             actions = function() return { 'yes', 'no' } end, \
             apply = function(s) s.over = true return s end, \
             outcome = function() return { scores = { 1 }, success = { true } } end }",
        );
        let host = ScriptHost::default();
        let game = Arc::new(GameDef::compile(&game, Value::Map(BTreeMap::new()), &host).unwrap());
        let try_text = |text: &str| {
            let reward = RewardScript::compile(source(text), &host).unwrap();
            try_reward(&reward, &[Arc::clone(&game)], Seed::new(0)).map_err(|problem| problem.to_string())
        };
        assert_eq!(try_text("return function(e) return e.outcome.scores[e.seat] + e.penalty end"), Ok(()));
        assert!(try_text("return function(e) return e.outcom.scores[1] end").unwrap_err().contains("index nil"));
        // Fails for episodes that a limit ended only.
        assert!(try_text("return function(e) if e.truncated then return end return 1 end").is_err());
    }
}
