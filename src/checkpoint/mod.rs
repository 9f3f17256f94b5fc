//! A run's state on disk: weights and tokenizer in Hugging Face's layout, optimizer moments, counters and script versions.
//! Written beside, then renamed, so that a folder named `step-…` is whole or not there.

mod files; // reading and writing with the path in every error
mod model; // weights or an adapter with the tokenizer, as folders of others' layouts
mod scripts; // the script versions of a run, stored under their hashes

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::diag::{Diagnostic, SourceSpan};
use crate::policy::{Decoder, NamedTensor, TensorKind, Tokenizer, read_safetensors, write_safetensors};

pub use files::{Error, create_folder, read_text, remove_folder, rename, replace_text, write_text};
pub use model::{Origin, load_adapter, load_adapter_config, load_model, save_adapter, save_model, save_weights};
pub use scripts::{LoadedScript, StoredScript, StoredText, find_script, load_script, store_script, stored_text};

/// The counters and everything else of a run that is no tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Layout of this file.
    pub format: u32,
    /// Iterations done.
    pub step: u64,
    /// The learner's counters.
    pub learner: serde_json::Value,
    /// The advantage estimator's state.
    pub estimator: serde_json::Value,
    /// How each game went lately, for adaptive nests.
    pub stats: BTreeMap<String, crate::game::GameStats>,
    /// The league's members and results, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub league: Option<serde_json::Value>,
    /// The games' versions, in the run's order.
    pub games: Vec<StoredScript>,
    /// The nest's version.
    pub nest: Option<StoredScript>,
    /// The reward script's version.
    pub reward: Option<StoredScript>,
}

/// The layout that this version writes.
pub const FORMAT: u32 = 1;
const TRAINER: &str = "trainer.safetensors";
const STATE: &str = "state.json";
/// The folder of a league's snapshots in the run directory.
const SNAPSHOTS: &str = "league";

/// Writes the checkpoint of a step below `run` and returns its folder. `origin` is that of the model that the run began with.
///
/// # Errors
/// [`Error`] with the path, for a full or read-only disk; then no checkpoint of this step exists.
pub fn save(
    run: &Path,
    decoder: &dyn Decoder,
    tokenizer: &Tokenizer,
    origin: &Origin,
    state: &RunState,
) -> Result<PathBuf, Error> {
    let folder = run.join("checkpoints");
    create_folder(&folder)?;
    let target = folder.join(format!("step-{:06}", state.step));
    let beside = folder.join(format!(".step-{:06}.partial", state.step));
    remove_folder(&beside)?;
    create_folder(&beside)?;
    model::save_trained(&beside, decoder, tokenizer, origin)?;
    let mut moments: Vec<NamedTensor> = Vec::new();
    for (prefix, kind) in [("first", TensorKind::FirstMoment), ("second", TensorKind::SecondMoment)] {
        moments.extend(decoder.tensors(kind)?.into_iter().map(|mut tensor| {
            tensor.name = format!("{prefix}/{}", tensor.name);
            tensor
        }));
    }
    write_safetensors(&beside.join(TRAINER), &moments, &[])?;
    // Last, so that a folder with a state is complete even where a rename was not atomic.
    let text = serde_json::to_string_pretty(state).unwrap_or_default();
    write_text(&beside.join(STATE), &(text + "\n"))?;
    remove_folder(&target)?;
    files::rename(&beside, &target)?;
    Ok(target)
}

/// Writes weights and tokenizer of a snapshot below `league` in the run directory and returns its folder. One of this name is
/// replaced.
///
/// # Errors
/// [`Error`] with the path.
pub fn save_snapshot(
    run: &Path,
    name: &str,
    (decoder, tokenizer, origin): (&dyn Decoder, &Tokenizer, &Origin),
) -> Result<PathBuf, Error> {
    let folder = run.join(SNAPSHOTS);
    let (target, beside) = (folder.join(name), folder.join(format!(".{name}.partial")));
    remove_folder(&beside)?;
    create_folder(&beside)?;
    save_model(&beside, decoder, tokenizer, origin)?;
    remove_folder(&target)?;
    files::rename(&beside, &target)?;
    Ok(target)
}

/// Deletes the snapshots of all iterations but these.
///
/// # Errors
/// [`Error`] with the path.
pub fn keep_snapshots(run: &Path, steps: &[u64]) -> Result<(), Error> {
    let folder = run.join(SNAPSHOTS);
    if !folder.is_dir() {
        return Ok(());
    }
    for path in files::list(&folder)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let step = name.strip_prefix("step-").and_then(|digits| digits.parse::<u64>().ok());
        if step.is_some_and(|step| !steps.contains(&step)) {
            remove_folder(&path)?;
        }
    }
    Ok(())
}

/// Reads counters and moments of a checkpoint.
///
/// # Errors
/// A [`Diagnostic`] that names the file and what is wrong with it.
pub fn load_trainer(folder: &Path) -> Result<(RunState, Vec<NamedTensor>, Vec<NamedTensor>), Box<Diagnostic>> {
    let damaged = |path: &Path, message: String| {
        Box::new(
            Diagnostic::error("checkpoint::damaged", format!("the checkpoint cannot be resumed: {message}"))
                .at(SourceSpan::file(path))
                .expected("a whole folder `step-…` as a run writes it")
                .help(match earlier(folder) {
                    Some(earlier) => format!("give an earlier one: `--resume {}`", earlier.display()),
                    None => "start a new run: there is no earlier checkpoint".to_owned(),
                }),
        )
    };
    let path = folder.join(STATE);
    let text = read_text(&path).map_err(|error| damaged(&path, describe(&error)))?;
    let state: RunState = serde_json::from_str(&text).map_err(|error| damaged(&path, error.to_string()))?;
    if state.format != FORMAT {
        return Err(damaged(&path, format!("its format is {}, this version reads {FORMAT}", state.format)));
    }
    let path = folder.join(TRAINER);
    let tensors = read_safetensors(&path).map_err(|error| damaged(&path, describe(&error)))?;
    let part = |prefix: &str| {
        let rename = |tensor: &NamedTensor| {
            let name = tensor.name.strip_prefix(prefix)?.strip_prefix('/')?.to_owned();
            Some(NamedTensor { name, ..tensor.clone() })
        };
        tensors.iter().filter_map(rename).collect::<Vec<_>>()
    };
    Ok((state, part("first"), part("second")))
}

/// An error with its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// The newest whole checkpoint of a run, or the folder itself if it is one.
pub fn find(folder: &Path) -> Option<PathBuf> {
    if folder.join(STATE).is_file() {
        return Some(folder.to_owned());
    }
    let entries = files::list(&folder.join("checkpoints")).ok()?;
    entries
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")))
        .filter(|path| path.join(STATE).is_file())
        .max()
}

/// The newest whole checkpoint of the same run before this one.
fn earlier(checkpoint: &Path) -> Option<PathBuf> {
    let entries = files::list(checkpoint.parent()?).ok()?;
    let is_checkpoint =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"));
    entries
        .into_iter()
        .filter(|path| is_checkpoint(path) && path.join(STATE).is_file())
        .filter(|path| **path < *checkpoint)
        .max()
}

/// Sets aside the checkpoints, episodes files and snapshots of steps after `step`, which a run that goes on from there plays again:
/// they get names that no one takes for the run's own. Returns how many there were.
///
/// # Errors
/// [`Error`] with the path.
pub fn set_later_aside(run: &Path, step: u64) -> Result<usize, Error> {
    let mut count = 0;
    for folder in
        ["checkpoints", "episodes", SNAPSHOTS].map(|name| run.join(name)).into_iter().filter(|folder| folder.is_dir())
    {
        for path in files::list(&folder)? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let digits: String =
                name.strip_prefix("step-").unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
            if digits.parse::<u64>().is_ok_and(|later| later > step) {
                let aside = folder.join(format!("abandoned-{name}"));
                if aside.is_dir() {
                    remove_folder(&aside)?;
                }
                files::rename(&path, &aside)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// The run directory that a checkpoint belongs to.
pub fn run_of(checkpoint: &Path) -> Option<PathBuf> {
    let checkpoint = checkpoint.canonicalize().ok()?;
    checkpoint.parent()?.parent().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_steps_are_set_aside_and_the_newest_checkpoint_is_the_one_resumed_from() {
        let folder = tempfile::tempdir().unwrap();
        for step in ["000002", "000004", "000006"] {
            let checkpoint = folder.path().join(format!("checkpoints/step-{step}"));
            create_folder(&checkpoint).unwrap();
            write_text(&checkpoint.join(STATE), "{}").unwrap();
        }
        create_folder(&folder.path().join("episodes")).unwrap();
        write_text(&folder.path().join("episodes/step-000005.jsonl.zst"), "").unwrap();
        assert_eq!(set_later_aside(folder.path(), 4).unwrap(), 2);
        assert!(find(folder.path()).unwrap().ends_with("step-000004"));
        assert!(folder.path().join("checkpoints/abandoned-step-000006").is_dir());
        assert!(folder.path().join("episodes/abandoned-step-000005.jsonl.zst").is_file());
    }
}
