//! A temporary folder to run the binary in, and the form in which its output is compared.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A one-turn game that even a random policy sometimes wins: name the digit that is shown.
pub(crate) const ECHO: &str = include_str!("../echo.lua");

/// Settings of a run that takes a second.
pub(crate) const QUICK: [&str; 14] = [
    "--device",
    "cpu",
    "--set",
    "rollout.groups=4",
    "--set",
    "rollout.group_size=4",
    "--set",
    "evaluation.episodes=0",
    "--set",
    "filter.ratio=1.0",
    "--set",
    "threads=1",
    "--seed",
    "5",
];

/// A temporary folder.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A folder with `games/echo.lua`.
    pub(crate) fn with_echo() -> Self {
        let place = Self::new();
        place.write("games/echo.lua", ECHO);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(path, text).expect("a file");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        gift_host::checkpoint::read_text(&self.path(name)).expect("a text file")
    }

    /// Copies a folder of the repository.
    pub(crate) fn copy(&self, folder: &str) {
        copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &self.path(folder));
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.run_with_input(arguments, "")
    }

    /// Runs the binary in the folder with `input` piped in.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gift-host"));
        command.args(arguments).current_dir(self.folder.path()).env_remove("RUST_BACKTRACE");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary");
        // A program that has seen enough may have closed its input already.
        let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
        child.wait_with_output().expect("its output")
    }

    /// The output of a run as snapshots show it.
    pub(crate) fn shown(&self, arguments: &[&str]) -> String {
        show(&self.run(arguments))
    }

    /// A quick training run into `run`; its output.
    pub(crate) fn train(&self, more: &[&str]) -> Output {
        let mut arguments = vec!["train", "--games", "games/echo.lua", "--out", "run"];
        arguments.extend(QUICK);
        arguments.extend(more);
        self.run(&arguments)
    }

    /// Every file below the folder with its bytes.
    pub(crate) fn files(&self, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![self.path(name)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = std::fs::read(&path).expect("a file");
                    files.push((path, bytes));
                }
            }
        }
        files.sort();
        files
    }
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a copy");
        }
    }
}

/// Exit status, standard output and standard error in one text.
pub(crate) fn show(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let status = output.status.code().map_or("killed".to_owned(), |code| code.to_string());
    let mut shown = format!("status: {status}");
    for (name, bytes) in [("output", &output.stdout), ("errors", &output.stderr)] {
        if !bytes.is_empty() {
            for part in ["\n--- ", name, "\n", &text(bytes)] {
                shown.push_str(part);
            }
        }
    }
    shown
}

/// Runs `compare` with what differs from run to run filtered out of snapshots.
pub(crate) fn filtered(place: &Place, compare: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    // The system may give a folder two names (`/var` and `/private/var`).
    let folder = place.path("");
    for folder in [folder.canonicalize().expect("the folder"), folder] {
        let name = folder.to_string_lossy().trim_end_matches('/').to_owned();
        settings.add_filter(&name.replace('.', "\\."), "[folder]");
    }
    settings.add_filter(r"\d+ tokens/s", "[speed] tokens/s");
    // What an untrained model is worth depends on its shape and first weights.
    settings.add_filter(r"echo -?\d\.\d\d \d+%", "echo [reward] [success]");
    settings.add_filter(r"from 1 than \S+", "from 1 than [rounding]");
    settings.add_filter(r"(\d+h)?(\d+m)?\d+s left", "[time] left");
    settings.add_filter(r"version [0-9a-f]{7,16}", "version [hash]");
    settings.add_filter(r"\d+\.\d M parameters", "[size] M parameters");
    settings.add_filter(r"takes \d+ µs", "takes [time] µs");
    settings.bind(compare);
}

/// Compares the whole output of a command with an inline snapshot.
macro_rules! assert_output {
    ($place:expr, $arguments:expr, @$snapshot:literal) => {{
        let shown = $place.shown(&$arguments);
        $crate::support::filtered(&$place, || insta::assert_snapshot!(shown, @$snapshot));
    }};
}
pub(crate) use assert_output;
