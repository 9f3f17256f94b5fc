//! What a run reports at each step: every metric's name with unit and formula, and the sinks that keep the figures
//! (`metrics.jsonl`, TensorBoard). The other rooms return figures; `cli` hands them here. Computes nothing, prints
//! nothing and reads no clock.

mod evaluations; // evaluations.jsonl, written and read
mod jsonl; // metrics.jsonl, written and read
mod launches; // launches.jsonl: the commands and machines of a run
pub mod names; // every metric, in one table
mod record; // the figures of one step
mod tensorboard; // event files

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use evaluations::{Evaluation, add_evaluations, read_evaluations};
pub use jsonl::{JsonlSink, read_jsonl};
pub use launches::{Launch, add_launch, read_launches};
pub use names::is_timing;
pub use record::{MetricValue, Record};
pub use tensorboard::{Clock, Details, Hyperparameter, TensorBoardSink};

/// Keeps the figures of a run.
pub trait MetricSink {
    /// Keeps one step; it is in the file when this returns.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    fn write(&mut self, record: &Record) -> Result<(), Error>;
}

/// The room's failures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line of a metrics file is not what this room writes.
    #[error("`{}`, line {line}: expected an object with a `step`, found {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
}

fn access(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::Io { path: path.to_owned(), source }
}

/// The first bytes of a file that another process may be writing; none if it is no regular file or cannot be read. A pipe of
/// that name, which would block, is not opened.
fn read_start(path: &Path, max: u64) -> Option<Vec<u8>> {
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
