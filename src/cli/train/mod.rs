//! `gift-host train`: a training run from settings to the last checkpoint.

mod begin; // a new run, or one that goes on
mod details; // histograms, transcripts and settings for TensorBoard
mod live; // the screen while it trains
mod session; // the iterations, and what is kept of each
mod watching; // what is reloaded while the run goes on

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use crate::config::RunConfig;
use crate::policy::Sampling;
use crate::rollout::RolloutSettings;
use crate::run::rollout_settings;

use super::ExitStatus;
use super::output::{log, log_losses, rates_table};
use super::setup::SharedArgs;

/// Flags of `gift-host train`; each is also a key of the configuration.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    shared: SharedArgs,
    /// How several games are put together (a script); nested in the order given if left out
    #[arg(long, value_name = "FILE")]
    nest: Option<PathBuf>,
    /// How an episode is rewarded (a script); the score plus the penalties if left out
    #[arg(long, value_name = "FILE")]
    reward: Option<PathBuf>,
    /// Iterations to train
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// The run directory; a free name below `runs/` if left out
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with a run, or from one of its checkpoints
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "games", "nest", "reward", "model", "config"])]
    resume: Option<PathBuf>,
    /// Show the run as `gift-host watch` does while it trains; plain lines where there is no terminal
    #[arg(long)]
    watch: bool,
}

/// Trains, and prints each game's success before and after.
pub(crate) fn run(args: &TrainArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let interrupt = Arc::new(AtomicBool::new(false));
    catch_interrupts(&interrupt)?;
    let mut session = match &args.resume {
        Some(folder) => begin::resume(args, folder)?,
        None => begin::start(args)?,
    };
    if args.resume.is_some() && session.run.step >= session.run.config.steps {
        log(&format!(
            "nothing is left to do: {} of {} iterations are done; go on further with `--steps N`",
            session.run.step, session.run.config.steps
        ));
        return Ok(ExitStatus::Done);
    }
    let watcher = watching::start_watcher(args, &session)?;
    let before = session.evaluate(&interrupt)?;
    if let Some(rates) = &before {
        let how = if session.is_nested() { " (nested, as in training)" } else { "" };
        log(&format!("before training{how}:\n{}", rates_table(rates, None)));
        log_losses(rates);
        session.store_rates(rates)?;
    }
    let screen = (args.watch && super::watch::has_terminal()).then(|| {
        session.progress.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        live::Live::start(&session.folder, &interrupt)
    });
    let finished = session.train(watcher.as_ref(), &interrupt);
    drop(screen);
    let finished = finished?;
    session.progress.finish_and_clear();
    if !finished {
        log(&format!(
            "interrupted after iteration {}; go on with: gift-host train --resume {}",
            session.run.step,
            session.folder.display()
        ));
        return Ok(ExitStatus::Interrupted);
    }
    if let Some(after) = session.evaluate(&interrupt)? {
        session.store_rates(&after)?;
        write!(out, "{}", rates_table(&after, before.as_deref()))?;
        log_losses(&after);
    } else if interrupt.load(Ordering::Relaxed) {
        log("interrupted while the trained model was measured; training itself was done");
        return Ok(ExitStatus::Interrupted);
    }
    if session.run.step > 0 && session.run.updates() == 0 {
        log(
            "note: nothing was learned: no update was taken, as the rewards differed within no group. `format_error/…`, \
             `illegal/…` and `truncated` in metrics.jsonl say whether answers could be read at all",
        );
    }
    log(&format!("done; the run is in {}", session.folder.display()));
    Ok(ExitStatus::Done)
}

/// The first interrupt asks for a checkpoint, the second ends the program at once.
fn catch_interrupts(interrupt: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let flag = Arc::clone(interrupt);
    ctrlc::set_handler(move || interrupted(&flag)).context("cannot catch interrupts")
}

/// The user interrupts.
fn interrupted(flag: &AtomicBool) {
    if flag.swap(true, Ordering::Relaxed) {
        super::watch::give_back_terminal();
        #[expect(clippy::exit, reason = "the user asked twice, and the last checkpoint is whole")]
        std::process::exit(130);
    }
    log("interrupted: writing a checkpoint (interrupt again to stop at once)");
}

/// Results are the same for any number of threads; the stacks must hold the script engines.
pub(crate) fn use_threads(threads: usize) {
    // A second call in one process (tests) keeps the first pool.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(crate::script::STACK_BYTES).build_global();
}

/// The settings of training with the temperature of evaluation.
pub(crate) fn evaluation_settings(config: &RunConfig, decoder: &dyn crate::policy::Decoder) -> RolloutSettings {
    let settings = rollout_settings(config, decoder);
    let sampling = Sampling { temperature: config.evaluation.temperature, ..settings.sampling };
    RolloutSettings { sampling, ..settings }
}
