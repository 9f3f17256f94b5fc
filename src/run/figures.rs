//! The figures of an iteration, from its groups and updates. Names and formulas: [`crate::metrics`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::game::GameStats;
use crate::rollout::{Group, RolloutStats, StageRecord};
use crate::train::UpdateStats;

/// Named numbers of one iteration; those that have no value are left out.
pub type Figures = BTreeMap<String, f64>;

/// Adds up what the rounds of one iteration did.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rewards: Vec<f64>,
    successes: usize,
    truncated: usize,
    sampled: usize,
    answers: usize,
    by_game: BTreeMap<String, GameTally>,
    groups: usize,
    kept: usize,
    zero_std: usize,
    cut: usize,
    rollout: RolloutStats,
    update: Duration,
    updates: Vec<UpdateStats>,
}

/// Episodes and successes of each seat.
type BySeat = BTreeMap<u32, (usize, usize)>;

#[derive(Debug, Default)]
struct GameTally {
    seats: BySeat,
    has_further: bool,
    episodes: usize,
    reward: f64,
    successes: usize,
    turns: usize,
    illegal: usize,
    format_error: usize,
    voided: usize,
}

impl Tally {
    pub(super) fn add_rollout(&mut self, groups: &[Group], stats: RolloutStats) {
        self.rollout.model_tokens += stats.model_tokens;
        self.rollout.sampled_tokens += stats.sampled_tokens;
        self.rollout.opponent_answers += stats.opponent_answers;
        self.rollout.opponent_invalid += stats.opponent_invalid;
        self.rollout.env += stats.env;
        self.rollout.scripts += stats.scripts;
        self.rollout.total += stats.total;
        for group in groups {
            self.groups += 1;
            let rewards: Vec<f64> = group.trajectories.iter().map(|trajectory| trajectory.reward).collect();
            self.cut += usize::from(group.is_cut);
            if !group.is_cut && crate::advantage::standard_deviation(&rewards) < crate::advantage::MIN_STD {
                self.zero_std += 1;
            }
            for voided in &group.voided {
                self.by_game.entry(voided.game.clone()).or_default().voided += 1;
            }
            for trajectory in &group.trajectories {
                self.rewards.push(trajectory.reward);
                self.successes += usize::from(trajectory.success);
                self.truncated += usize::from(trajectory.truncated);
                self.sampled += trajectory.targets.len();
                for stage in &trajectory.stages {
                    let tally = self.by_game.entry(stage.game.clone()).or_default();
                    tally.has_further |= trajectory.is_further;
                    self.answers += tally.add(stage);
                }
            }
        }
    }

    pub(super) fn add_update(&mut self, kept: usize, stats: Option<UpdateStats>, time: Duration) {
        self.kept += kept;
        self.update += time;
        self.updates.extend(stats);
    }

    /// Moves each played game's running rates towards this iteration's.
    pub(super) fn update_stats(&self, stats: &mut BTreeMap<String, GameStats>, weight: f64) {
        for (game, tally) in self.by_game.iter().filter(|(_, tally)| tally.episodes > 0) {
            let count = tally.episodes as f64;
            let now = GameStats { success: tally.successes as f64 / count, reward: tally.reward / count };
            let entry = stats.entry(game.clone()).or_insert(now);
            entry.success += weight * (now.success - entry.success);
            entry.reward += weight * (now.reward - entry.reward);
        }
    }

    pub(super) fn figures(&self) -> Figures {
        let mut figures = Figures::new();
        let count = self.rewards.len() as f64;
        let mut put = |name: &str, value: f64| _ = figures.insert(name.to_owned(), value);
        if count > 0.0 {
            put("reward/mean", self.rewards.iter().sum::<f64>() / count);
            put("success/all", self.successes as f64 / count);
            put("truncated", self.truncated as f64 / count);
            put("length/response", self.sampled as f64 / self.answers.max(1) as f64);
        }
        if self.rollout.opponent_answers > 0 {
            put("opponent/answers", self.rollout.opponent_answers as f64);
            put("opponent/invalid", self.rollout.opponent_invalid as f64);
        }
        put("groups/kept", self.kept as f64);
        put("groups/zero_std", self.zero_std as f64);
        if self.cut > 0 {
            put("groups/cut", self.cut as f64);
        }
        for (game, tally) in &self.by_game {
            let episodes = tally.episodes as f64;
            if tally.episodes > 0 {
                put(&format!("reward/{game}"), tally.reward / episodes);
                put(&format!("success/{game}"), tally.successes as f64 / episodes);
                put(&format!("turns/{game}"), tally.turns as f64 / episodes);
                let answers = tally.turns.max(1) as f64;
                put(&format!("illegal/{game}"), tally.illegal as f64 / answers);
                put(&format!("format_error/{game}"), tally.format_error as f64 / answers);
            }
            put(&format!("voided/{game}"), tally.voided as f64);
            for (seat, (episodes, successes)) in tally.seats.iter().filter(|_| tally.has_further) {
                put(&format!("success_seat/{game}.{seat}"), *successes as f64 / *episodes as f64);
            }
        }
        self.put_updates(&mut put);
        let per_second = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
        put("time/rollout_s", self.rollout.total.as_secs_f64());
        put("time/env_s", self.rollout.env.as_secs_f64());
        put("time/scripts_s", self.rollout.scripts.as_secs_f64());
        put("time/update_s", self.update.as_secs_f64());
        put("tokens/rollout_per_s", per_second(self.rollout.sampled_tokens, self.rollout.total));
        let trained = self.updates.iter().map(|update| update.tokens).sum();
        put("tokens/update_per_s", per_second(trained, self.update));
        figures
    }

    fn put_updates(&self, put: &mut impl FnMut(&str, f64)) {
        // Weighted by tokens where a figure is a mean over tokens, by updates where over updates.
        let mean = |value: fn(&UpdateStats) -> f64, weight: fn(&UpdateStats) -> f64| {
            let total: f64 = self.updates.iter().map(weight).sum();
            (total > 0.0).then(|| self.updates.iter().map(|u| value(u) * weight(u)).sum::<f64>() / total)
        };
        let largest = |value: fn(&UpdateStats) -> f64| self.updates.iter().map(value).reduce(f64::max);
        let by_updates: fn(&UpdateStats) -> f64 = |update| update.updates as f64;
        let by_tokens: fn(&UpdateStats) -> f64 = |update| update.target_tokens as f64;
        let figures = [
            ("loss", mean(|u| u.loss, by_updates)),
            ("grad_norm", mean(|u| u.grad_norm, by_updates)),
            ("entropy", mean(|u| u.entropy, by_tokens)),
            ("clip_fraction", mean(|u| u.clip_fraction, by_tokens)),
            ("kl/rollout_train", largest(|u| u.kl_rollout_train)),
            ("ratio_max", largest(|u| u.ratio_max)),
            ("ratio_deviation", largest(|u| u.ratio_deviation)),
            ("kl/reference", mean(|u| u.kl_reference.unwrap_or(f64::NAN), by_tokens)),
            ("learning_rate", self.updates.last().map(|u| u.learning_rate)),
            ("updates/taken", Some(self.updates.iter().map(|u| u.updates as f64).sum())),
            ("updates/skipped", Some(self.updates.iter().map(|u| u.skipped as f64).sum())),
        ];
        for (name, value) in figures {
            if let Some(value) = value.filter(|value| !value.is_nan() || matches!(name, "loss" | "grad_norm")) {
                // An empty sum is -0, which would be written with its sign.
                put(name, value + 0.0);
            }
        }
    }
}

impl GameTally {
    /// Adds a stage; returns the learner's answers in it.
    fn add(&mut self, stage: &StageRecord) -> usize {
        let own: Vec<_> = stage.turns.iter().filter(|turn| turn.seat == stage.seat).collect();
        self.episodes += 1;
        self.reward += stage.reward;
        self.successes += usize::from(stage.success);
        let seat = self.seats.entry(stage.seat).or_default();
        *seat = (seat.0 + 1, seat.1 + usize::from(stage.success));
        self.turns += own.len();
        self.illegal += own.iter().filter(|turn| turn.well_formed && !turn.legal).count();
        self.format_error += own.iter().filter(|turn| !turn.well_formed).count();
        own.len()
    }
}
