//! `evaluations.jsonl`: what a run measured of its policy against fixed opponents, one object a game and measurement.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, access, read_start};

/// Most bytes that are read of the file.
const MAX_BYTES: u64 = 64 << 20;

/// A game's success at some point of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Iterations done when it was measured.
    pub step: u64,
    /// The game.
    pub game: String,
    /// Who took the other seats.
    pub opponent: String,
    /// Episodes that count.
    pub episodes: usize,
    /// Share of the episodes in which the policy succeeded.
    pub success: f64,
    /// 95 % interval of `success`.
    pub interval: [f64; 2],
    /// Mean score.
    pub score: f64,
    /// Share of the turns whose answer the rules refused.
    pub illegal: f64,
    /// Share of the turns whose answer was not in the answer format.
    pub format_error: f64,
    /// Mean number of turns.
    pub turns: f64,
}

/// Adds measurements made after iteration `step`. Those of `step` and later iterations, which a resumed run measures again,
/// are replaced.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn add_evaluations(run: &Path, step: u64, new: &[Evaluation]) -> Result<(), Error> {
    let path = run.join("evaluations.jsonl");
    let mut all = read_evaluations(run);
    all.retain(|evaluation| evaluation.step < step);
    all.extend_from_slice(new);
    // Numbers and strings always serialize.
    let lines = all.iter().map(|evaluation| serde_json::to_string(evaluation).unwrap_or_default() + "\n");
    let beside = run.join(".evaluations.jsonl.partial");
    fs::write(&beside, lines.collect::<String>()).map_err(access(&beside))?;
    fs::rename(&beside, &path).map_err(access(&path))
}

/// All measurements of a run; none if it has no such file. Lines that are something else are left out.
pub fn read_evaluations(run: &Path) -> Vec<Evaluation> {
    let bytes = read_start(&run.join("evaluations.jsonl"), MAX_BYTES).unwrap_or_default();
    bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(step: u64, success: f64) -> Evaluation {
        let (game, opponent) = ("nim".to_owned(), "random".to_owned());
        let interval = [success / 2.0, success];
        let (score, illegal, format_error, turns) = (success, 0.0, 0.0, 2.5);
        Evaluation { step, game, opponent, episodes: 9, success, interval, score, illegal, format_error, turns }
    }

    #[test]
    fn a_resumed_run_replaces_what_it_measures_again() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_evaluations(folder.path()).is_empty());
        for (step, success) in [(0, 0.25), (9, 0.5), (4, 0.375)] {
            add_evaluations(folder.path(), step, &[evaluation(step, success)]).unwrap();
        }
        assert_eq!(read_evaluations(folder.path()), [evaluation(0, 0.25), evaluation(4, 0.375)]);
        fs::write(folder.path().join("evaluations.jsonl"), "{}\n{\"step\":").unwrap();
        assert!(read_evaluations(folder.path()).is_empty());
    }
}
