//! A frozen policy, or a scripted player, against fixed opponents: success rates with confidence intervals, and two players
//! compared on the same episodes.

mod interval; // Wilson's interval
mod paired; // McNemar's test
mod rates; // from episodes to figures
mod scripted; // players that are not the policy of a rollout

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diag::Diagnostic;
use crate::game::{GameDef, IllegalRule, Seat};
use crate::opponent::Opponents;
use crate::rollout::{Group, GroupPlan, RolloutSettings, StagePlan, Table, play};
use crate::seed::Seed;

pub use interval::wilson;
pub use paired::{Comparison, compare, mcnemar};
pub use rates::{EpisodeResult, Rates, SeatRates, SuccessRate};

use rates::{is_draw, summarize};
use scripted::play_scripted;

/// A match: games, seats and seeds that any player can be put through.
#[derive(Clone, Debug)]
pub struct Match {
    /// The games.
    pub games: Vec<Arc<GameDef>>,
    /// Episodes of each game, at most as many as the game has different ones; trajectories of a nest.
    pub episodes: usize,
    /// Other numbers for single games that are played by themselves.
    pub by_game: BTreeMap<String, usize>,
    /// The player's seat; `None` draws one for each episode.
    pub seat: Option<Seat>,
    /// Seed of everything.
    pub seed: Seed,
}

impl Match {
    /// The seed of the game's episode of this number.
    pub fn episode_seed(&self, game: &GameDef, episode: usize) -> Seed {
        self.seed.child(&game.name, episode as u64).child("episode", 0)
    }

    /// Episodes of this game: those asked for, or all that it has if they are fewer ([`GameDef::episode_count`]).
    fn episodes_of(&self, game: &GameDef) -> usize {
        let wanted = self.by_game.get(&game.name).copied().unwrap_or(self.episodes);
        // A script that fails here fails in its first episode too, or was told before the match.
        let count = game.episode_count().ok().flatten();
        count.map_or(wanted, |count| wanted.min(usize::try_from(count).unwrap_or(usize::MAX)))
    }

    fn stage(&self, game: &Arc<GameDef>, episode: usize) -> StagePlan {
        let seed = self.seed.child(&game.name, episode as u64);
        let drawn = || Seat(seed.child("seat", 0).stream().int(1, i64::from(game.seats)) as u32);
        // A fixed seat that a smaller game lacks is drawn as well.
        let seat = self.seat.filter(|seat| seat.0 <= game.seats).unwrap_or_else(drawn);
        let number = Some(episode as u64 + 1);
        StagePlan { game: Arc::clone(game), seed: self.episode_seed(game, episode), seat, number }
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
        let (mut groups, _) = play(table, &plans, settings)?;
        // The player has one seat, also where it is its own opponent.
        groups.truncate(plans.len());
        let is_planned =
            |game: &GameDef| plans.iter().flat_map(|plan| &plan.stages).any(|stage| stage.game.name == game.name);
        self.games
            .iter()
            .map(|game| {
                if is_planned(game) {
                    Ok(rate(game, table, &groups, self.episodes))
                } else {
                    self.play_alone(game, table, settings)
                }
            })
            .collect()
    }

    fn play_alone(
        &self,
        game: &Arc<GameDef>,
        table: &Table<'_>,
        settings: &RolloutSettings,
    ) -> Result<SuccessRate, crate::rollout::Error> {
        let plans: Vec<GroupPlan> = (0..self.episodes_of(game))
            .map(|episode| GroupPlan {
                stages: vec![self.stage(game, episode)],
                seed: self.members(&game.name, episode),
                members: 1,
                id: format!("eval-{episode}"),
            })
            .collect();
        let (mut groups, _) = play(table, &plans, settings)?;
        groups.truncate(plans.len());
        Ok(rate(game, table, &groups, self.episodes))
    }

    /// Puts another player than a policy through the match, on the same seeds and seats.
    pub fn play_scripted(&self, player: &Opponents, opponents: &Opponents) -> Vec<SuccessRate> {
        self.play_scripted_until(player, opponents, usize::MAX)
    }

    /// As [`Match::play_scripted`]; of a game that has lost `max_lost` episodes no further one is begun.
    pub fn play_scripted_until(&self, player: &Opponents, opponents: &Opponents, max_lost: usize) -> Vec<SuccessRate> {
        let rate_of = |game: &Arc<GameDef>| {
            let results = play_scripted(self, game, (self.episodes_of(game), max_lost), (player, opponents));
            let voided: Vec<&Diagnostic> =
                results.iter().filter_map(|result| result.as_ref().err().map(AsRef::as_ref)).collect();
            let played = results.iter().filter_map(|result| result.as_ref().ok()).copied().collect();
            summarize(game, opponent_of(game, opponents), played, &voided)
        };
        self.games.iter().map(rate_of).collect()
    }
}

/// Who plays the other seats, as it is told.
fn opponent_of(game: &GameDef, opponents: &Opponents) -> String {
    if game.seats < 2 { "none".to_owned() } else { opponents.describe(&game.name) }
}

/// What a policy's trajectories came to in one game. `groups` are in the order of the episodes; `round` is the number of
/// episodes by which a game that comes again in a trajectory is further on.
fn rate(game: &GameDef, table: &Table<'_>, groups: &[Group], round: usize) -> SuccessRate {
    let voided: Vec<&Diagnostic> = groups
        .iter()
        .flat_map(|group| &group.voided)
        .filter(|voided| voided.game == game.name)
        .map(|voided| voided.problem.as_ref())
        .collect();
    let mut results = Vec::new();
    for (index, trajectory) in groups.iter().enumerate().flat_map(|(index, group)| {
        let trajectories = &group.trajectories;
        trajectories.iter().map(move |trajectory| (index, trajectory))
    }) {
        for (time, stage) in trajectory.stages.iter().filter(|stage| stage.game == game.name).enumerate() {
            let own = || stage.turns.iter().filter(|turn| turn.seat == stage.seat);
            // An answer that was too long is known of the trajectory only.
            let truncated = stage.truncated || trajectory.stages.len() == 1 && trajectory.truncated;
            let forfeited = game.illegal == IllegalRule::End && stage.turns.last().is_some_and(|turn| !turn.legal);
            results.push(EpisodeResult {
                episode: time * round + index,
                seat: stage.seat,
                success: stage.success,
                draw: !truncated && !forfeited && is_draw(&stage.scores, stage.seat, stage.success),
                truncated,
                score: stage.scores.get(stage.seat as usize - 1).copied().unwrap_or(0.0),
                turns: own().count(),
                illegal: own().filter(|turn| turn.well_formed && !turn.legal).count(),
                format_error: own().filter(|turn| !turn.well_formed).count(),
                tokens: stage.sampled_count,
            });
        }
    }
    summarize(game, opponent_of(game, table.opponents), results, &voided)
}
