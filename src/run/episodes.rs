//! The episodes file of a step: one JSON object a trajectory, with all that an update needs, compressed with zstd.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::{AnswerFormat, ObservationKind, RunConfig};
use crate::reload::Catalog;
use crate::rollout::Trajectory;
use crate::script::Version;

/// What an episode was played and rewarded with beside its games' versions: all that playing it again needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Version of the nest; `None` for the default one.
    pub nest: Option<Version>,
    /// Version of the reward script, if there was one.
    pub reward: Option<Version>,
    /// Which text the learner saw.
    pub observation: ObservationKind,
    /// How its answers were read.
    pub format: AnswerFormat,
    /// The system prompt; empty for what the model has by itself.
    pub system: String,
    /// Added for an answer that is not in the answer format.
    pub format_penalty: f64,
    /// Added for an answer that the rules refuse.
    pub illegal_penalty: f64,
    /// Options by game.
    pub options: std::collections::BTreeMap<String, Value>,
}

impl Conditions {
    pub(super) fn new(config: &RunConfig, catalog: &Catalog) -> Self {
        Self {
            nest: catalog.nest.source.as_ref().map(|source| source.version.clone()),
            reward: catalog.reward.as_ref().map(|reward| reward.source.version.clone()),
            observation: config.decode.observation,
            format: config.decode.format,
            system: config.decode.system.clone(),
            format_penalty: config.penalty.format,
            illegal_penalty: config.penalty.illegal,
            options: catalog.options.iter().map(|(game, options)| (game.clone(), options.to_json())).collect(),
        }
    }

    fn json(&self, nest: Option<&Version>, games: &[&str]) -> Value {
        let options: serde_json::Map<String, Value> = self
            .options
            .iter()
            .filter(|(game, _)| games.contains(&game.as_str()))
            .map(|(game, options)| (game.clone(), options.clone()))
            .collect();
        json!({
            "nest": nest,
            "reward": self.reward,
            "observation": self.observation,
            "format": self.format,
            "system": self.system,
            "format_penalty": self.format_penalty,
            "illegal_penalty": self.illegal_penalty,
            "options": options,
        })
    }
}

/// A trajectory and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct ScoredTrajectory<'a> {
    /// The trajectory.
    pub trajectory: &'a Trajectory,
    /// Its advantage.
    pub advantage: f32,
    /// Whether its group was trained on.
    pub kept: bool,
    /// What else it was played and rewarded with.
    pub conditions: &'a Conditions,
}

/// One line of the file.
pub fn line(step: u64, scored: &ScoredTrajectory<'_>) -> Value {
    let trajectory = scored.trajectory;
    let stages = &trajectory.stages;
    let first = |field: fn(&crate::rollout::StageRecord) -> Value| match stages.as_slice() {
        [only] => field(only),
        _ => stages.iter().map(field).collect(),
    };
    let turns: Vec<Value> = stages
        .iter()
        .enumerate()
        .flat_map(|(stage, record)| record.turns.iter().map(move |turn| (stage, turn)))
        .map(|(stage, turn)| {
            let mut value = serde_json::to_value(turn).unwrap_or_default();
            if let Some(fields) = value.as_object_mut() {
                fields.insert("stage".to_owned(), stage.into());
            }
            value
        })
        .collect();
    let allowed: Vec<Value> = trajectory
        .targets
        .iter()
        .map(|target| target.allowed.as_ref().map_or(Value::Null, |ids| json!(**ids)))
        .collect();
    // A further seat of self-play is no nest, whatever its own seat is a part of.
    let nest = if trajectory.is_further { None } else { scored.conditions.nest.as_ref() };
    let games: Vec<&str> = stages.iter().map(|stage| stage.game.as_str()).collect();
    json!({
        "id": trajectory.id,
        "step": step,
        "group": trajectory.group,
        "member": trajectory.member,
        "game": first(|stage| stage.game.clone().into()),
        "seed": first(|stage| stage.seed.value().into()),
        "seat": first(|stage| stage.seat.into()),
        "players": first(|stage| stage.players.clone().into()),
        "scripts": stages.iter().map(|stage| stage.version.clone()).collect::<Vec<_>>(),
        "conditions": scored.conditions.json(nest, &games),
        "tokens": trajectory.tokens,
        "policy_mask": trajectory.policy_mask(),
        "logprobs": trajectory.log_probs,
        "allowed": allowed,
        "reward": trajectory.reward,
        "stage_rewards": stages.iter().map(|stage| stage.reward).collect::<Vec<_>>(),
        "stage_success": stages.iter().map(|stage| stage.success).collect::<Vec<_>>(),
        "stage_scores": stages.iter().map(|stage| stage.scores.clone()).collect::<Vec<_>>(),
        "stage_tokens": stages.iter().map(|stage| [stage.prompt_count, stage.sampled_count]).collect::<Vec<_>>(),
        "advantage": scored.advantage,
        "kept": scored.kept,
        "success": trajectory.success,
        "truncated": trajectory.truncated,
        "turns": turns,
    })
}

/// Writes the file of a step below the run directory, beside first, then renamed.
///
/// # Errors
/// The cause with the path, for a full or read-only disk.
pub fn write(
    run: &Path,
    step: u64,
    trajectories: &[ScoredTrajectory<'_>],
) -> Result<PathBuf, crate::checkpoint::Error> {
    let folder = run.join("episodes");
    crate::checkpoint::create_folder(&folder)?;
    let path = folder.join(format!("step-{step:06}.jsonl.zst"));
    let beside = folder.join(format!(".step-{step:06}.partial"));
    let write_all = || -> std::io::Result<()> {
        let mut encoder = zstd::Encoder::new(std::fs::File::create(&beside)?, 0)?;
        for scored in trajectories {
            serde_json::to_writer(&mut encoder, &line(step, scored))?;
            encoder.write_all(b"\n")?;
        }
        encoder.finish()?.sync_all()?;
        std::fs::rename(&beside, &path)
    };
    write_all().map_err(|source| crate::checkpoint::Error::Io { action: "write", path: path.clone(), source })?;
    Ok(path)
}
