//! A frozen policy, or a scripted player, against fixed opponents: success rates with confidence intervals.

mod interval; // Wilson's interval

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diag::Diagnostic;
use crate::game::{Action, Episode, GameDef, Seat, Status, for_each_abandonable};
use crate::opponent::{Fault, Opponents, View};
use crate::rollout::{Group, GroupPlan, RolloutSettings, StagePlan, Table, play};
use crate::seed::Seed;

pub use interval::wilson;

/// How often a player succeeded in one game.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SuccessRate {
    /// The game.
    pub game: String,
    /// Who played the other seats; `none` in games for one seat.
    pub opponent: String,
    /// Episodes that were played to an end.
    pub episodes: usize,
    /// Share of them that the player won, by the game's own `success`.
    pub success: f64,
    /// Wilson's 95 % interval of `success`.
    pub interval: [f64; 2],
    /// Mean score.
    pub score: f64,
    /// Share of the player's answers that the rules refused.
    pub illegal: f64,
    /// Share of the player's answers that were not in the answer format.
    pub format_error: f64,
    /// Share of the episodes that a limit ended.
    pub truncated: f64,
    /// Mean number of the player's turns.
    pub turns: f64,
    /// Episodes that a fault of a script ended; they are in no other figure.
    pub voided: usize,
    /// The first of those faults.
    #[serde(skip)]
    pub problem: Option<Diagnostic>,
}

/// A match: games, seats and seeds that any player can be put through.
#[derive(Clone, Debug)]
pub struct Match {
    /// The games.
    pub games: Vec<Arc<GameDef>>,
    /// Episodes of each game; trajectories of a nest.
    pub episodes: usize,
    /// The player's seat; `None` draws one for each episode.
    pub seat: Option<Seat>,
    /// Seed of everything.
    pub seed: Seed,
}

/// What one episode came to.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    success: bool,
    truncated: bool,
    score: f64,
    turns: usize,
    illegal: usize,
    format_error: usize,
}

impl Match {
    /// The seed of the game's episode of this number.
    pub fn episode_seed(&self, game: &GameDef, episode: usize) -> Seed {
        self.seed.child(&game.name, episode as u64).child("episode", 0)
    }

    fn stage(&self, game: &Arc<GameDef>, episode: usize) -> StagePlan {
        let seed = self.seed.child(&game.name, episode as u64);
        let drawn = || Seat(seed.child("seat", 0).stream().int(1, i64::from(game.seats)) as u32);
        // A fixed seat that a smaller game lacks is drawn as well.
        let seat = self.seat.filter(|seat| seat.0 <= game.seats).unwrap_or_else(drawn);
        StagePlan { game: Arc::clone(game), seed: self.episode_seed(game, episode), seat }
    }

    /// What the players draw from.
    fn members(&self, game: &str, episode: usize) -> Seed {
        self.seed.child(game, episode as u64).child("members", 0)
    }

    /// Puts a policy through the match, every game by itself.
    ///
    /// # Errors
    /// The rollout's.
    pub fn play_policy(
        &self,
        table: &Table<'_>,
        settings: &RolloutSettings,
    ) -> Result<Vec<SuccessRate>, crate::rollout::Error> {
        self.games.iter().map(|game| self.play_alone(game, table, settings)).collect()
    }

    /// Puts a policy through the match as nested training does: each trajectory plays the stages of the table's nest one
    /// after the other, with the seeds and seats that each game has by itself. A nest that looks at success rates is given
    /// none; a game that it leaves out is played by itself.
    ///
    /// # Errors
    /// The rollout's; [`crate::rollout::Error::Nest`] if the nest gives no order.
    pub fn play_nested(
        &self,
        table: &Table<'_>,
        settings: &RolloutSettings,
    ) -> Result<Vec<SuccessRate>, crate::rollout::Error> {
        let names: Vec<String> = self.games.iter().map(|game| game.name.clone()).collect();
        let mut plans = Vec::with_capacity(self.episodes);
        for episode in 0..self.episodes {
            let mut stream = self.seed.child("nest", episode as u64).stream();
            let order =
                table.nest.stages(&names, &BTreeMap::new(), &mut stream).map_err(crate::rollout::Error::Nest)?;
            let mut times = BTreeMap::new();
            let stages = order.iter().filter_map(|name| {
                let game = self.games.iter().find(|game| game.name == *name)?;
                // A game that comes twice in a trajectory gets another episode each time.
                let time = times.entry(name).or_insert(0);
                *time += 1;
                Some(self.stage(game, (*time - 1) * self.episodes + episode))
            });
            let stages: Vec<StagePlan> = stages.collect();
            plans.push(GroupPlan {
                // The first stage is played just as the game by itself.
                seed: self.members(stages.first().map_or("", |stage| &stage.game.name), episode),
                stages,
                members: 1,
                id: format!("eval-{episode}"),
            });
        }
        let (groups, _) = play(table, &plans, settings)?;
        let is_planned =
            |game: &GameDef| plans.iter().flat_map(|plan| &plan.stages).any(|stage| stage.game.name == game.name);
        self.games
            .iter()
            .map(
                |game| {
                    if is_planned(game) {
                        Ok(rate(game, table, &groups))
                    } else {
                        self.play_alone(game, table, settings)
                    }
                },
            )
            .collect()
    }

    fn play_alone(
        &self,
        game: &Arc<GameDef>,
        table: &Table<'_>,
        settings: &RolloutSettings,
    ) -> Result<SuccessRate, crate::rollout::Error> {
        let plans: Vec<GroupPlan> = (0..self.episodes)
            .map(|episode| GroupPlan {
                stages: vec![self.stage(game, episode)],
                seed: self.members(&game.name, episode),
                members: 1,
                id: format!("eval-{episode}"),
            })
            .collect();
        let (groups, _) = play(table, &plans, settings)?;
        Ok(rate(game, table, &groups))
    }

    /// Puts a scripted player through the match, on the same seeds and seats as a policy.
    pub fn play_scripted(&self, player: &Opponents, opponents: &Opponents) -> Vec<SuccessRate> {
        let rate_of = |game: &Arc<GameDef>| {
            let mut episodes: Vec<_> = (0..self.episodes).map(|episode| (episode, None)).collect();
            for (_, result) in for_each_abandonable(episodes.iter_mut().collect(), |(episode, result)| {
                *result = Some(self.scripted_episode(game, *episode, player, opponents));
            }) {
                *result = Some(Err(game.stuck()));
            }
            let results: Vec<_> = episodes.into_iter().filter_map(|(_, result)| result).collect();
            let voided: Vec<&Diagnostic> =
                results.iter().filter_map(|result| result.as_ref().err().map(AsRef::as_ref)).collect();
            let tallies: Vec<Tally> = results.iter().filter_map(|result| result.as_ref().ok()).copied().collect();
            summarize(game, opponents, &tallies, &voided)
        };
        self.games.iter().map(rate_of).collect()
    }

    fn scripted_episode(
        &self,
        game: &Arc<GameDef>,
        episode: usize,
        player: &Opponents,
        opponents: &Opponents,
    ) -> Result<Tally, Box<Diagnostic>> {
        let stage = self.stage(game, episode);
        let members = self.members(&game.name, episode);
        let mut own_stream = members.child("player", 0).stream();
        // The same stream as in a rollout, so that opponents draw alike.
        let mut opponent_stream = members.child("opponent", 0).stream();
        let mut play = Episode::start(game, stage.seed)?;
        let mut own = player.sit(game, members.child("player lineup", 0));
        let mut others = opponents.sit(game, members.child("lineup", 0).child("stage", 0));
        let mut tally = Tally::default();
        while let Status::Turn(seat) = *play.status() {
            let refusal = play.turns().last().filter(|turn| turn.seat == seat).and_then(|turn| turn.refusal.as_deref());
            let view = View { game, state: play.state(), seat, refusal };
            let answer = if seat == stage.seat {
                own.wait_for(&view, &mut own_stream)
            } else {
                others.wait_for(&view, &mut opponent_stream)
            };
            let text = answer.map_err(Fault::into_problem)?.action;
            play.act(seat, &Action { text, well_formed: true })?;
            if seat == stage.seat {
                tally.turns += 1;
                tally.illegal += usize::from(play.turns().last().is_some_and(|turn| !turn.legal));
            }
        }
        tally.truncated = *play.status() == Status::Truncated;
        (tally.score, tally.success) = play.result(stage.seat);
        Ok(tally)
    }
}

/// What a policy's trajectories came to in one game.
fn rate(game: &GameDef, table: &Table<'_>, groups: &[Group]) -> SuccessRate {
    let voided: Vec<&Diagnostic> = groups
        .iter()
        .flat_map(|group| &group.voided)
        .filter(|voided| voided.game == game.name)
        .map(|voided| voided.problem.as_ref())
        .collect();
    let tallies: Vec<Tally> = groups
        .iter()
        .flat_map(|group| &group.trajectories)
        .flat_map(|trajectory| trajectory.stages.iter().map(move |stage| (trajectory, stage)))
        .filter(|(_, stage)| stage.game == game.name)
        .map(|(trajectory, stage)| {
            let own = || stage.turns.iter().filter(|turn| turn.seat == stage.seat);
            Tally {
                success: stage.success,
                // An answer that was too long is known of the trajectory only.
                truncated: stage.truncated || trajectory.stages.len() == 1 && trajectory.truncated,
                score: stage.scores.get(stage.seat as usize - 1).copied().unwrap_or(0.0),
                turns: own().count(),
                illegal: own().filter(|turn| turn.well_formed && !turn.legal).count(),
                format_error: own().filter(|turn| !turn.well_formed).count(),
            }
        })
        .collect();
    summarize(game, table.opponents, &tallies, &voided)
}

fn summarize(game: &GameDef, opponents: &Opponents, tallies: &[Tally], voided: &[&Diagnostic]) -> SuccessRate {
    let episodes = tallies.len();
    let count = episodes.max(1) as f64;
    let answers = tallies.iter().map(|tally| tally.turns).sum::<usize>().max(1) as f64;
    let successes = tallies.iter().filter(|tally| tally.success).count();
    let opponent = if game.seats < 2 { "none".to_owned() } else { opponents.describe(&game.name) };
    SuccessRate {
        game: game.name.clone(),
        opponent,
        episodes,
        success: successes as f64 / count,
        interval: wilson(successes, episodes),
        // An empty sum is -0, which would be printed with its sign.
        score: tallies.iter().map(|tally| tally.score).sum::<f64>() / count + 0.0,
        illegal: tallies.iter().map(|tally| tally.illegal).sum::<usize>() as f64 / answers,
        format_error: tallies.iter().map(|tally| tally.format_error).sum::<usize>() as f64 / answers,
        truncated: tallies.iter().filter(|tally| tally.truncated).count() as f64 / count,
        turns: tallies.iter().map(|tally| tally.turns).sum::<usize>() as f64 / count,
        voided: voided.len(),
        problem: voided.first().map(|&problem| problem.clone()),
    }
}
