//! The command line: one file a subcommand. The only room that wires the others together, prints, reads the clock or
//! exits. Results go to standard output, progress and logs to standard error.

mod bench; // how fast the parts of a run are
mod bench_model; // tokens a second of the model alone
mod bench_reload; // from a save to the new version
mod check; // the contract of games
mod eval; // a frozen policy against fixed opponents
mod export; // what was trained, in the layout of another program
mod hub; // downloads from the Hugging Face Hub, as they are shown
mod inspect; // what a model is, and what it says of a text
mod logging; // where the log goes, and in which form
mod machine; // what the program runs on and how it was called
mod memory; // what training takes, predicted and measured
mod model; // tiny or a folder, on a device
mod new; // a small game to start from
mod output; // writers, tables, times
mod play; // one episode in the terminal
mod replay; // a stored episode, played again and compared
mod report; // one or several runs as a page
mod setup; // flags and files to a configuration and a catalog
mod train; // a training run
mod watch; // a run on the terminal, while it goes on

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::diag::Diagnostic;

/// Train language models by play: games in Lua or Rhai, rollouts and GRPO in one binary.
#[derive(Debug, Parser)]
#[command(name = "gift-host", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The form of the log on standard error
    #[arg(long, global = true, value_enum, default_value = "text", value_name = "FORM", help_heading = "Log")]
    log: logging::LogFormat,
    /// The least severe lines that are logged
    #[arg(long, global = true, value_enum, default_value = "info", value_name = "LEVEL", help_heading = "Log")]
    log_level: logging::LogLevel,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model on games
    Train(train::TrainArgs),
    /// Measure a model against fixed opponents
    Eval(eval::EvalArgs),
    /// Play one episode in the terminal
    Play(play::PlayArgs),
    /// Check games against the contract
    Check(check::CheckArgs),
    /// Write a small game to start from
    New(new::NewArgs),
    /// Look at a model: what it is, and what it says of a text
    Model(inspect::ModelArgs),
    /// Write what a run trained in the layout of another program
    Export(export::ExportArgs),
    /// Measure how fast the parts of a run are
    Bench(bench::BenchArgs),
    /// Play a stored episode of a run again and compare
    Replay(replay::ReplayArgs),
    /// Write a page about a run, or several, that opens in a browser
    Report(report::ReportArgs),
    /// Look at a run while it goes on
    Watch(watch::WatchArgs),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// Everything was done.
    Done,
    /// Something failed.
    Failed,
    /// The command was used wrongly.
    Usage,
    /// The user interrupted it; a checkpoint was written.
    Interrupted,
}

impl ExitStatus {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Interrupted => 130,
        }
    }
}

/// Parses the command line, runs the command and returns the program's exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors: clap knows where each goes.
            if !error.use_stderr() {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            // It shows what was written, which may hold a secret.
            let text = error.render();
            let text = if std::io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
            let _ = write!(std::io::stderr(), "{}", logging::without_secrets(&text));
            return ExitCode::from(2);
        }
    };
    logging::start(arguments.log, arguments.log_level);
    // Not locked for good: the screen of `train --watch` is drawn by another thread.
    let mut out = std::io::stdout();
    let result = match &arguments.command {
        Command::Train(args) => train::run(args, &mut out),
        Command::Eval(args) => eval::run(args, &mut out),
        Command::Play(args) => play::run(args, &mut std::io::stdin().lock(), &mut out),
        Command::Check(args) => check::run(args, &mut out),
        Command::New(args) => new::run(args, &mut out),
        Command::Model(args) => inspect::run(args, &mut out),
        Command::Export(args) => export::run(args, &mut out),
        Command::Bench(args) => bench::run(args, &mut out),
        Command::Replay(args) => replay::run(args, &mut out),
        Command::Report(args) => report::run(args, &mut out),
        Command::Watch(args) => watch::run(args, &mut out),
    };
    let flushed = out.flush();
    let status = result.unwrap_or_else(|error| {
        if is_closed_pipe(&error) {
            return ExitStatus::Done;
        }
        let usage = error.downcast_ref::<Box<Diagnostic>>().is_some_and(|problem| is_usage(problem));
        output::log(&describe(&error));
        if usage { ExitStatus::Usage } else { ExitStatus::Failed }
    });
    drop(flushed);
    ExitCode::from(status.code())
}

/// Whether a problem is in how the command was called, not in a script or the machine.
fn is_usage(problem: &Diagnostic) -> bool {
    ["cli::", "config::", "opponent::"].iter().any(|room| problem.code.starts_with(room))
}

/// The reader of our output went away (`gift-host … | head`): nobody is left to tell.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// A diagnostic as it is drawn; any other error with its causes in one line.
fn describe(error: &anyhow::Error) -> String {
    if let Some(problem) = error.chain().find_map(|cause| cause.downcast_ref::<Box<Diagnostic>>()) {
        return problem.to_string();
    }
    let of_rollout = match error.downcast_ref::<crate::run::Error>() {
        Some(crate::run::Error::Script(problem)) => return problem.to_string(),
        Some(crate::run::Error::Rollout(cause)) => Some(cause),
        _ => error.downcast_ref::<crate::rollout::Error>(),
    };
    if let Some(crate::rollout::Error::Opponent(problem)) = of_rollout {
        return problem.to_string();
    }
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}
