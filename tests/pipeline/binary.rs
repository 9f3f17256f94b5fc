//! The program itself, run in a temporary folder with the shipped games in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Settings of a run of some seconds; everything that results depend on is named.
pub(crate) const QUICK: [&str; 20] = [
    "--device",
    "cpu",
    "--seed",
    "5",
    "--opponent",
    "random",
    "--set",
    "rollout.groups=4",
    "--set",
    "rollout.group_size=4",
    "--set",
    "evaluation.episodes=0",
    "--set",
    "filter.ratio=1.0",
    "--set",
    "scripts.call_ms=20000",
    "--set",
    "optimizer.learning_rate=0.001",
    "--set",
    "optimizer.warmup_updates=2",
];

pub(crate) struct Place {
    folder: tempfile::TempDir,
}

/// A command under way.
pub(crate) struct Running {
    id: u32,
    output: std::thread::JoinHandle<std::io::Result<Output>>,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn wait_with_output(self) -> std::io::Result<Output> {
        self.output.join().expect("the reader")
    }
}

impl Place {
    /// A folder with copies of the repository's games and scripts.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["games", "scripts"] {
            copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name), &folder.path().join(name));
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The lines of a run's metrics without what the clock and the machine decide.
    pub(crate) fn metrics(&self, run: &str) -> Vec<String> {
        let records = gift_host::metrics::read_jsonl(&self.path(run).join("metrics.jsonl")).expect("metrics");
        records.into_iter().map(|record| record.without_timings().to_json()).collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gift-host"));
        command.args(arguments).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a command; what it writes is read meanwhile, or a full pipe would stop it.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        let child = self.command(arguments).spawn().expect("the binary");
        Running { id: child.id(), output: std::thread::spawn(move || child.wait_with_output()) }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary")
    }

    /// Runs a command that must succeed; what it wrote to standard error.
    pub(crate) fn run_to_end(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        errors
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
