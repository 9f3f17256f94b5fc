//! `gift-host train`: a training run from settings to the last checkpoint.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::checkpoint;
use crate::config::RunConfig;
use crate::diag::{Diagnostic, SourceSpan};
use crate::eval::{Match, SuccessRate};
use crate::game::NestMode;
use crate::metrics::{Evaluation, JsonlSink, MetricSink, Record, TensorBoardSink, add_evaluations};
use crate::opponent::Opponents;
use crate::policy::Sampling;
use crate::reload::{Also, Catalog, Event, SettingsFile, Watcher};
use crate::rollout::{RolloutSettings, Table};
use crate::run::{IterationReport, TrainRun, rollout_settings, write_episodes};
use crate::seed::Seed;

use super::ExitStatus;
use super::output::{clock, duration, log, peak_memory, rates_table};
use super::setup::{self, SharedArgs};

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
}

/// A run that is ready to iterate, with its directory and sinks.
struct Session {
    run: TrainRun,
    folder: PathBuf,
    jsonl: JsonlSink,
    tensorboard: TensorBoardSink,
    progress: ProgressBar,
    /// The settings that `config.toml` holds.
    stored: RunConfig,
    /// Whether settings are reloaded from another file than `config.toml`.
    settings_are_elsewhere: bool,
}

/// Trains, and prints each game's success before and after.
pub(crate) fn run(args: &TrainArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let interrupt = Arc::new(AtomicBool::new(false));
    catch_interrupts(&interrupt)?;
    let mut session = match &args.resume {
        Some(folder) => resume(args, folder)?,
        None => start(args)?,
    };
    if args.resume.is_some() && session.run.step >= session.run.config.steps {
        log(&format!(
            "nothing is left to do: {} of {} iterations are done; go on further with `--steps N`",
            session.run.step, session.run.config.steps
        ));
        return Ok(ExitStatus::Done);
    }
    let watcher = start_watcher(args, &session)?;
    let before = session.evaluate(&interrupt)?;
    if let Some(rates) = &before {
        let how = if session.is_nested() { " (nested, as in training)" } else { "" };
        log(&format!("before training{how}:\n{}", rates_table(rates, None)));
        session.store_rates(rates)?;
    }
    let finished = session.train(watcher.as_ref(), &interrupt)?;
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
    } else if interrupt.load(Ordering::Relaxed) {
        log("interrupted while the trained model was measured; training itself was done");
        return Ok(ExitStatus::Interrupted);
    }
    log(&format!("done; the run is in {}", session.folder.display()));
    Ok(ExitStatus::Done)
}

/// The first interrupt asks for a checkpoint, the second ends the program at once.
fn catch_interrupts(interrupt: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let flag = Arc::clone(interrupt);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            #[expect(clippy::exit, reason = "the user asked twice, and the last checkpoint is whole")]
            std::process::exit(130);
        }
        log("interrupted: writing a checkpoint (interrupt again to stop at once)");
    })
    .context("cannot catch interrupts")
}

fn start(args: &TrainArgs) -> anyhow::Result<Session> {
    let mut config = settings(args)?;
    use_threads(config.threads);
    let catalog = setup::catalog(&config)?;
    let opponents = check_opponents(&config, &catalog)?;
    let folder = new_run_folder(&config, &catalog)?;
    config.out = Some(folder.clone());
    let model = super::model::load(&config.model, Seed::new(config.seed))?;
    announce(&config, &model, &catalog, &opponents);
    warn_of_fields(&catalog)?;
    let decoder = super::model::place(&model, &config.device, &config.dtype)?;
    let has_reference = config.loss.kl_coefficient > 0.0;
    let reference =
        if has_reference { Some(super::model::place(&model, &config.device, &config.dtype)?) } else { None };
    checkpoint::create_folder(&folder)?;
    checkpoint::write_text(&folder.join("config.toml"), &toml::to_string(&config)?)?;
    if has_reference {
        let reference_folder = folder.join("reference");
        checkpoint::create_folder(&reference_folder)?;
        checkpoint::save_model(&reference_folder, decoder.as_ref(), &model.tokenizer)?;
    }
    let run = TrainRun::new(config, catalog, decoder, reference, model.tokenizer, opponents, clock);
    store_scripts(&folder, &run.catalog)?;
    let jsonl = JsonlSink::create(&folder.join("metrics.jsonl"))?;
    let tensorboard = TensorBoardSink::create(&folder, None, wall_clock())?;
    let progress = progress_bar(run.config.steps, 0);
    let stored = run.config.clone();
    Ok(Session {
        run,
        folder,
        jsonl,
        tensorboard,
        progress,
        stored,
        settings_are_elsewhere: args.shared.config.is_some(),
    })
}

/// The settings of a new run: defaults < file < `--set` < flags.
fn settings(args: &TrainArgs) -> Result<RunConfig, Box<Diagnostic>> {
    let mut config = setup::configuration(&args.shared, None)?;
    config.nest = args.nest.clone().or(config.nest);
    config.reward = args.reward.clone().or(config.reward);
    config.steps = args.steps.unwrap_or(config.steps);
    config.out = args.out.clone().or(config.out);
    Ok(config)
}

fn resume(args: &TrainArgs, folder: &Path) -> anyhow::Result<Session> {
    let missing = |message: String| {
        Box::new(
            Diagnostic::error("cli::resume", message)
                .at(SourceSpan::file(folder))
                .expected("a run directory, or a folder `step-…` below its `checkpoints`")
                .help("`--resume runs/NAME`"),
        )
    };
    let checkpoint_folder =
        checkpoint::find(folder).ok_or_else(|| missing("there is no whole checkpoint to resume from".to_owned()))?;
    let run_folder = checkpoint::run_of(&checkpoint_folder)
        .filter(|run| run.join("config.toml").is_file())
        .ok_or_else(|| missing("the checkpoint lies in no run directory".to_owned()))?;
    // The name that the user gave is easier to read than the canonical one.
    let run_folder = if folder.join("config.toml").is_file() { folder.to_owned() } else { run_folder };
    let mut config = setup::configuration(&args.shared, Some(&run_folder.join("config.toml")))?;
    config.steps = args.steps.unwrap_or(config.steps);
    config.out = Some(run_folder.clone());
    use_threads(config.threads);
    let (state, first, second) = checkpoint::load_trainer(&checkpoint_folder)?;
    let load = |script| {
        let loaded = checkpoint::load_script(&run_folder, script)?;
        for file in &loaded.changed_data {
            log(&format!("warning: `{}` has changed since and was too large to be stored", file.display()));
        }
        Ok::<_, Box<Diagnostic>>(loaded.source)
    };
    let (options, host) = setup::script_settings(&config);
    let catalog = Catalog::from_sources(
        state.games.iter().map(load).collect::<Result<_, _>>()?,
        state.nest.as_ref().map(load).transpose()?,
        state.reward.as_ref().map(load).transpose()?,
        options,
        host,
    )?;
    let opponents = check_opponents(&config, &catalog)?;
    let seed = Seed::new(config.seed);
    let model = super::model::load(&checkpoint_folder.to_string_lossy(), seed)?;
    let decoder = super::model::place(&model, &config.device, &config.dtype)?;
    let reference = if config.loss.kl_coefficient > 0.0 {
        let model = super::model::load(&run_folder.join("reference").to_string_lossy(), seed)?;
        Some(super::model::place(&model, &config.device, &config.dtype)?)
    } else {
        None
    };
    checkpoint::replace_text(&run_folder.join("config.toml"), &toml::to_string(&config)?)?;
    let mut run = TrainRun::new(config, catalog, decoder, reference, model.tokenizer, opponents, clock);
    run.restore(&state, &first, &second)?;
    log(&format!("going on after iteration {} of {}", run.step, run_folder.display()));
    if checkpoint::set_later_aside(&run_folder, run.step)? > 0 {
        log("what the run wrote after that iteration is kept under names that begin with `abandoned-`");
    }
    let jsonl = JsonlSink::resume(&run_folder.join("metrics.jsonl"), run.step)?;
    let tensorboard = TensorBoardSink::create(&run_folder, Some(run.step), wall_clock())?;
    let progress = progress_bar(run.config.steps, run.step);
    let stored = run.config.clone();
    Ok(Session {
        run,
        folder: run_folder,
        jsonl,
        tensorboard,
        progress,
        stored,
        settings_are_elsewhere: args.shared.config.is_some(),
    })
}

/// Seconds since 1970, which TensorBoard's files hold.
fn wall_clock() -> crate::metrics::Clock {
    #[expect(clippy::disallowed_methods, reason = "TensorBoard's files hold the time of day; nothing depends on it")]
    Box::new(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
    })
}

/// Results are the same for any number of threads; the stacks must hold the script engines.
pub(crate) fn use_threads(threads: usize) {
    // A second call in one process (tests) keeps the first pool.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(crate::script::STACK_BYTES).build_global();
}

fn check_opponents(config: &RunConfig, catalog: &Catalog) -> Result<Opponents, Box<Diagnostic>> {
    let opponents = Opponents::parse_with(&config.opponent, &config.remote, log)?;
    for game in &catalog.games {
        opponents.check_unattended(game)?;
    }
    Ok(opponents)
}

/// The folder of a new run: the one that was named, which must be free, or the next free name.
fn new_run_folder(config: &RunConfig, catalog: &Catalog) -> Result<PathBuf, Box<Diagnostic>> {
    let is_free =
        |folder: &Path| !folder.exists() || folder.read_dir().is_ok_and(|mut entries| entries.next().is_none());
    if let Some(folder) = &config.out {
        if is_free(folder) {
            return Ok(folder.clone());
        }
        return Err(Box::new(
            Diagnostic::error("cli::run_exists", format!("the run directory `{}` is in use", folder.display()))
                .expected("a folder that does not exist yet")
                .found("a folder with files")
                .help(format!("go on with it: `--resume {0}`; or choose another name with `--out`", folder.display())),
        ));
    }
    let name = match catalog.games.as_slice() {
        [only] => only.name.clone(),
        games => format!("{}-games", games.len()),
    };
    let numbered = (1..10_000).map(|number| Path::new("runs").join(format!("{name}-{number}")));
    numbered.into_iter().find(|folder| is_free(folder)).ok_or_else(|| {
        Box::new(
            Diagnostic::error("cli::run_exists", "no free name is left below `runs/`")
                .help("name a folder with `--out`"),
        )
    })
}

fn announce(config: &RunConfig, model: &super::model::Model, catalog: &Catalog, opponents: &Opponents) {
    if config.model == "tiny" {
        log(&format!(
            "model: tiny, a byte-level decoder of {:.1} M parameters, built in and trained from scratch; train your own with \
             --model DIR",
            model.config.parameter_count() as f64 / 1e6
        ));
    } else {
        log(&format!("model: {}, {:.1} M parameters", config.model, model.config.parameter_count() as f64 / 1e6));
    }
    super::model::tell_notes(model, config);
    log(&format!("games: {}; {}", catalog.names().join(", "), describe_opponents(opponents, catalog)));
}

/// Who plays the other seats of the games of this run.
fn describe_opponents(opponents: &Opponents, catalog: &Catalog) -> String {
    let shared: Vec<_> = catalog.games.iter().filter(|game| game.seats > 1).collect();
    let spec = |name: &str| opponents.describe(name);
    let Some(first) = shared.first().map(|game| spec(&game.name)) else {
        return "no opponents: the games have one seat".to_owned();
    };
    if shared.iter().all(|game| spec(&game.name) == first) {
        return format!("opponent: {first}");
    }
    let each: Vec<String> = shared.iter().map(|game| format!("{}={}", game.name, spec(&game.name))).collect();
    format!("opponents: {}", each.join(", "))
}

/// Fields that look misspelt are told once; the scripts are used as they are.
fn warn_of_fields(catalog: &Catalog) -> Result<(), Box<Diagnostic>> {
    for game in &catalog.games {
        for warning in game.misspelt_fields()? {
            log(&warning.to_string());
        }
    }
    for warning in catalog.nest.misspelt_fields()? {
        log(&warning.to_string());
    }
    Ok(())
}

fn start_watcher(args: &TrainArgs, session: &Session) -> anyhow::Result<Option<Watcher>> {
    let config = &session.run.config;
    if !config.scripts.reload {
        return Ok(None);
    }
    let progress = session.progress.clone();
    let report = move |event: &Event| {
        let text = match event {
            Event::Ready { name, version } => {
                format!("{name}: version {} is ready for the next rollout", version.short())
            }
            Event::Offered { name, version } => {
                format!("{name}: version {} is checked; the game joins when a nest names it", version.short())
            }
            Event::Settings { changes } => {
                let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
                format!("settings for the next rollout: {}", changes.join(", "))
            }
            Event::Rejected { problem } | Event::Warned { problem } => problem.to_string(),
        };
        progress.suspend(|| log(&text));
    };
    // A folder that was named as a whole may get further games; a pattern names those that are there.
    let open_folders = config.games.files.iter().map(PathBuf::from).filter(|path| path.is_dir()).collect();
    let also = Also { open_folders, settings: Some(settings_file(args, session)) };
    Ok(Some(Watcher::start_with(&session.run.catalog, also, Box::new(report))?))
}

/// The file of settings that is watched: the one that `--config` named, else the run's own `config.toml`. Flags and `--set`
/// stand above the first and are part of the second.
fn settings_file(args: &TrainArgs, session: &Session) -> SettingsFile {
    let config = session.run.config.clone();
    if let Some(path) = args.shared.config.clone() {
        let args = args.clone();
        return SettingsFile { path, config, read: Box::new(move || settings(&args)) };
    }
    let path = session.folder.join("config.toml");
    let shared = SharedArgs { config: Some(path.clone()), ..SharedArgs::default() };
    SettingsFile { path, config, read: Box::new(move || setup::configuration(&shared, None)) }
}

/// Stores every script in service, so that the run directory holds each version that was used.
fn store_scripts(folder: &Path, catalog: &Catalog) -> anyhow::Result<()> {
    for source in catalog.sources_in_service() {
        checkpoint::store_script(folder, source)?;
    }
    Ok(())
}

fn progress_bar(steps: u64, done: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps).with_position(done);
    if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

impl Session {
    /// Iterates to the end; false if it was interrupted. Writes a checkpoint in either case.
    fn train(&mut self, watcher: Option<&Watcher>, interrupt: &AtomicBool) -> anyhow::Result<bool> {
        let (started, first) = (clock(), self.run.step);
        let mut saved = self.run.step;
        while self.run.step < self.run.config.steps {
            let report = match self.run.iterate(watcher, interrupt) {
                Err(crate::run::Error::Rollout(crate::rollout::Error::Interrupted)) => {
                    self.save()?;
                    return Ok(false);
                }
                result => result.map_err(anyhow::Error::from).and_then(|report| {
                    self.write(&report)?;
                    Ok(report)
                }),
            };
            let report = report.inspect_err(|_| {
                // What was learned so far must not be lost with the run.
                self.progress.finish_and_clear();
                match self.save() {
                    Ok(folder) => log(&format!("a checkpoint was written to {}", folder.display())),
                    Err(problem) => log(&format!("no checkpoint could be written: {problem}")),
                }
            })?;
            let done = report.step - first;
            let left = clock()
                .saturating_sub(started)
                .div_f64(done as f64)
                .mul_f64((self.run.config.steps - report.step) as f64);
            self.show(&report, done == 1, left);
            let every = self.run.config.checkpoint_every;
            if every > 0 && report.step.is_multiple_of(every) {
                self.save()?;
                saved = report.step;
            }
        }
        if saved != self.run.step || !self.folder.join("checkpoints").exists() {
            self.save()?;
        }
        Ok(true)
    }

    /// A checkpoint, and the settings that it goes on with.
    fn save(&mut self) -> anyhow::Result<PathBuf> {
        self.store_settings()?;
        Ok(self.run.save(&self.folder)?)
    }

    /// Brings `config.toml` up to the settings in service. If it is itself where they came from, it has them.
    fn store_settings(&mut self) -> anyhow::Result<()> {
        if self.run.config != self.stored {
            self.stored = self.run.config.clone();
            if self.settings_are_elsewhere {
                checkpoint::replace_text(&self.folder.join("config.toml"), &toml::to_string(&self.stored)?)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, report: &IterationReport) -> anyhow::Result<()> {
        if !report.reloaded.is_empty() {
            store_scripts(&self.folder, &self.run.catalog)?;
        }
        self.store_settings()?;
        let mut record = Record::new(report.step);
        for (name, &value) in &report.figures {
            record.set(name.as_str(), value);
        }
        for (name, version) in &report.versions {
            record.set(crate::metrics::names::scripts(name), version.0.as_str());
        }
        set_events(&mut record, report);
        if let Some(bytes) = peak_memory() {
            record.set(crate::metrics::names::MEMORY_PEAK_BYTES, bytes);
        }
        self.jsonl.write(&record)?;
        self.tensorboard.write(&record)?;
        let every = self.run.config.episodes_every;
        if every > 0 && (report.step.is_multiple_of(every) || report.step == 1) {
            write_episodes(&self.folder, report.step, &report.trajectories())?;
        }
        Ok(())
    }

    fn show(&self, report: &IterationReport, is_first: bool, left: Duration) {
        let figure = |name: &str| report.figures.get(name).copied();
        for change in &report.settings {
            let text = format!("{change}, from iteration {}", report.step);
            self.progress.suspend(|| log(&text));
        }
        for (name, version) in &report.reloaded {
            let text = format!("{name}: version {} is active from iteration {}", version.short(), report.step);
            self.progress.suspend(|| log(&text));
        }
        if let Some(deviation) = figure(crate::metrics::names::RATIO_DEVIATION).filter(|_| is_first) {
            let text = format!(
                "sampler and trainer agree: before the first update no ratio is further from 1 than {deviation:.1e}"
            );
            self.progress.suspend(|| log(&text));
        }
        for problem in &report.problems {
            self.progress.suspend(|| log(&problem.to_string()));
        }
        let games: Vec<String> = self
            .run
            .catalog
            .names()
            .iter()
            .filter_map(|name| {
                let reward = figure(&crate::metrics::names::reward(name))?;
                let success = figure(&crate::metrics::names::success(name))?;
                Some(format!("{name} {reward:.2} {:.0}%", success * 100.0))
            })
            .collect();
        let speed = figure(crate::metrics::names::TOKENS_ROLLOUT_PER_S).unwrap_or(0.0);
        let text = format!("{} | {speed:.0} tokens/s | {} left", games.join(" | "), duration(left));
        if self.progress.is_hidden() {
            log(&format!("iteration {}/{} | {text}", report.step, self.run.config.steps));
        } else {
            self.progress.set_length(self.run.config.steps);
            self.progress.set_position(report.step);
            self.progress.set_message(text);
        }
    }

    /// Keeps what was measured of the policy as it is now.
    fn store_rates(&self, rates: &[SuccessRate]) -> anyhow::Result<()> {
        let step = self.run.step;
        let evaluation = |rate: &SuccessRate| Evaluation {
            step,
            game: rate.game.clone(),
            opponent: rate.opponent.clone(),
            episodes: rate.episodes,
            success: rate.success,
            interval: rate.interval,
            score: rate.score,
            illegal: rate.illegal,
            format_error: rate.format_error,
            turns: rate.turns,
        };
        let evaluations: Vec<Evaluation> = rates.iter().map(evaluation).collect();
        Ok(add_evaluations(&self.folder, step, &evaluations)?)
    }

    /// Whether a trajectory holds several games.
    fn is_nested(&self) -> bool {
        let catalog = &self.run.catalog;
        catalog.nest.mode == NestMode::Nested && (catalog.games.len() > 1 || catalog.nest.source.is_some())
    }

    /// The success of every game, if the settings ask for it: in the nest if the games are trained so, as a game that
    /// comes late in a context is another task than the game by itself.
    fn evaluate(&self, interrupt: &AtomicBool) -> anyhow::Result<Option<Vec<SuccessRate>>> {
        let config = &self.run.config;
        if config.evaluation.episodes == 0 {
            return Ok(None);
        }
        let matches = Match {
            games: self.run.catalog.games.clone(),
            episodes: config.evaluation.episodes,
            seat: (config.seat > 0).then_some(crate::game::Seat(config.seat)),
            seed: Seed::new(config.seed).child("evaluation", 0),
        };
        let table = Table {
            decoder: self.run.decoder.as_ref(),
            tokenizer: &self.run.tokenizer,
            opponents: &self.run.opponents,
            nest: &self.run.catalog.nest,
            reward: None,
            interrupt,
            clock,
        };
        let settings = evaluation_settings(config, self.run.decoder.as_ref());
        let rates = if self.is_nested() {
            matches.play_nested(&table, &settings)
        } else {
            matches.play_policy(&table, &settings)
        };
        match rates {
            Ok(rates) => Ok(Some(rates)),
            Err(crate::rollout::Error::Interrupted) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What reloading did, in numbers and in words; nothing where nothing happened.
fn set_events(record: &mut Record, report: &IterationReport) {
    use crate::metrics::names;
    let retired: Vec<&Diagnostic> =
        report.problems.iter().filter(|problem| problem.code == crate::run::FAILING_VERSION).collect();
    let in_short = |problem: &Diagnostic| format!("{}: {}", problem.code, problem.message);
    let activated =
        report.reloaded.iter().map(|(name, version)| format!("{name}: version {} is active", version.short()));
    let mut events: Vec<String> = activated.collect();
    events.extend(report.settings.iter().map(ToString::to_string));
    events.extend(report.rejected.iter().map(|problem| format!("not taken: {}", in_short(problem))));
    events.extend(retired.iter().map(|problem| in_short(problem)));
    if events.is_empty() {
        return;
    }
    record.set(names::RELOAD_ACTIVATED, report.reloaded.len()).set(names::RELOAD_SETTINGS, report.settings.len());
    record.set(names::RELOAD_REJECTED, report.rejected.len()).set(names::RELOAD_RETIRED, retired.len());
    record.set(names::RELOAD_EVENTS, events.join("; "));
}

/// The settings of training with the temperature of evaluation.
pub(crate) fn evaluation_settings(config: &RunConfig, decoder: &dyn crate::policy::Decoder) -> RolloutSettings {
    let settings = rollout_settings(config, decoder);
    let sampling = Sampling { temperature: config.evaluation.temperature, ..settings.sampling };
    RolloutSettings { sampling, ..settings }
}
