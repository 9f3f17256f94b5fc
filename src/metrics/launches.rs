//! `launches.jsonl`: how and where a run was started, and each time resumed, one object a launch. Texts and sizes as `cli` found
//! them; nothing of the run depends on them.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, access, read_start};

/// Most bytes that are read of the file.
const MAX_BYTES: u64 = 4 << 20;

/// One start of the program on a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Launch {
    /// Iterations done before it.
    pub step: u64,
    /// The command line, secrets hidden.
    pub command: String,
    /// Version of the program.
    pub version: String,
    /// Operating system and instruction set.
    pub system: String,
    /// Name of the processor; empty where the system does not tell.
    pub processor: String,
    /// Threads that the machine runs at once.
    pub cores: usize,
    /// Threads that the model's arithmetic uses.
    pub threads: usize,
    /// Main memory in bytes; 0 where the system does not tell.
    pub memory_bytes: u64,
    /// Where the model is: `cpu`, `cuda:0`.
    pub device: String,
}

/// Adds a launch. Where the file ends in half a line, which a killed run may leave, the new one begins on its own.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn add_launch(run: &Path, launch: &Launch) -> Result<(), Error> {
    let path = run.join("launches.jsonl");
    let is_cut = read_start(&path, MAX_BYTES).is_some_and(|bytes| !bytes.is_empty() && !bytes.ends_with(b"\n"));
    // Numbers and strings always serialize.
    let line = serde_json::to_string(launch).unwrap_or_default();
    let text = format!("{}{line}\n", if is_cut { "\n" } else { "" });
    let mut file = OpenOptions::new().append(true).create(true).open(&path).map_err(access(&path))?;
    file.write_all(text.as_bytes()).map_err(access(&path))
}

/// All launches of a run; none if it has no such file. Lines that are something else are left out.
pub fn read_launches(run: &Path) -> Vec<Launch> {
    let bytes = read_start(&run.join("launches.jsonl"), MAX_BYTES).unwrap_or_default();
    bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_are_added_and_half_lines_left_out() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_launches(folder.path()).is_empty());
        let first = Launch { command: "gift-host train".to_owned(), cores: 2, ..Launch::default() };
        add_launch(folder.path(), &first).unwrap();
        let path = folder.path().join("launches.jsonl");
        OpenOptions::new().append(true).open(path).unwrap().write_all(b"{\"step\":3,\"comm").unwrap();
        let second = Launch { step: 3, ..first.clone() };
        add_launch(folder.path(), &second).unwrap();
        assert_eq!(read_launches(folder.path()), [first, second]);
    }
}
