//! What a finished episode came to for the seats that the policy played: scores, penalties, rewards, trajectories. Plain data
//! in and out, but for the call of a reward script.

use crate::diag::Diagnostic;
use crate::game::{Episode, EpisodeSummary, Seat, Status};
use crate::policy::Dialogue;

use super::{RolloutSettings, StagePlan, StageRecord, Table, Trajectory, TurnRecord};

/// A trajectory of these stages whose reward is the sum of theirs.
pub(super) fn trajectory(
    id: String,
    (group, member): (usize, usize),
    own: Dialogue,
    stages: Vec<StageRecord>,
) -> Trajectory {
    Trajectory {
        id,
        group,
        member,
        is_further: false,
        success: stages.iter().all(|stage| stage.success),
        truncated: own.is_cut || stages.iter().any(|stage| stage.truncated),
        reward: stages.iter().map(|stage| stage.reward).sum(),
        stages,
        tokens: own.tokens,
        targets: own.targets,
        log_probs: own.log_probs,
    }
}

/// A finished episode, to be scored for the seats that the policy played.
pub(super) struct End<'a> {
    pub(super) stage: &'a StagePlan,
    pub(super) episode: &'a Episode,
    pub(super) texts: &'a [(String, String)],
    pub(super) players: &'a [String],
    pub(super) table: &'a Table<'a>,
    pub(super) settings: &'a RolloutSettings,
}

impl End<'_> {
    /// What the episode came to for a seat; `counts` are the tokens that it read and sampled.
    pub(super) fn record(
        &self,
        seat: Seat,
        (prompt_count, sampled_count): (usize, usize),
    ) -> Result<StageRecord, Box<Diagnostic>> {
        let (stage, episode, settings) = (self.stage, self.episode, self.settings);
        let penalty_of = |turn: &crate::game::Turn| match (turn.seat == seat, turn.well_formed, turn.legal) {
            (true, false, _) => settings.format_penalty,
            (true, true, false) => settings.illegal_penalty,
            _ => 0.0,
        };
        let penalty: f64 = episode.turns().iter().map(penalty_of).sum();
        let (score, success) = episode.result(seat);
        let truncated = *episode.status() == Status::Truncated;
        let (scores, successes) = match episode.status() {
            Status::Terminated(outcome) => (outcome.scores.clone(), outcome.success.clone()),
            _ => (vec![0.0; stage.game.seats as usize], vec![false; stage.game.seats as usize]),
        };
        let reward = match self.table.reward {
            None => score + penalty,
            Some(script) => script.reward(&EpisodeSummary {
                game: &stage.game.name,
                seat: seat.0,
                scores: &scores,
                success: &successes,
                turns: episode.turns(),
                texts: self.texts,
                prompt_tokens: prompt_count,
                response_tokens: sampled_count,
                penalty,
                truncated,
            })?,
        };
        let turns = episode.turns().iter().zip(self.texts).map(|(turn, (observation, answer))| TurnRecord {
            seat: turn.seat.0,
            observation: observation.clone(),
            answer: answer.clone(),
            action: turn.action.clone(),
            legal: turn.legal,
            well_formed: turn.well_formed,
            reward: penalty_of(turn),
        });
        Ok(StageRecord {
            game: stage.game.name.clone(),
            version: stage.game.source.version.0.clone(),
            seed: stage.seed,
            seat: seat.0,
            players: self.players.to_vec(),
            turns: turns.collect(),
            scores,
            reward,
            success,
            truncated,
            prompt_count,
            sampled_count,
        })
    }
}
