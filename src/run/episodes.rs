//! The episodes file of a step: one JSON object a trajectory, with all that an update needs, compressed with zstd.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::rollout::Trajectory;

/// A trajectory and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct ScoredTrajectory<'a> {
    /// The trajectory.
    pub trajectory: &'a Trajectory,
    /// Its advantage.
    pub advantage: f32,
    /// Whether its group was trained on.
    pub kept: bool,
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
    json!({
        "id": trajectory.id,
        "step": step,
        "group": trajectory.group,
        "member": trajectory.member,
        "game": first(|stage| stage.game.clone().into()),
        "seed": first(|stage| stage.seed.value().into()),
        "seat": first(|stage| stage.seat.into()),
        "scripts": stages.iter().map(|stage| stage.version.clone()).collect::<Vec<_>>(),
        "tokens": trajectory.tokens,
        "policy_mask": trajectory.policy_mask(),
        "logprobs": trajectory.log_probs,
        "allowed": allowed,
        "reward": trajectory.reward,
        "stage_rewards": stages.iter().map(|stage| stage.reward).collect::<Vec<_>>(),
        "stage_success": stages.iter().map(|stage| stage.success).collect::<Vec<_>>(),
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
