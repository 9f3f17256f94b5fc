//! A run at its beginning: settings, scripts, model and folder of a new run, or those of a checkpoint.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use crate::checkpoint;
use crate::config::{DEFAULT_OPPONENT, OptimizerStates, RunConfig};
use crate::diag::{Diagnostic, SourceSpan};
use crate::metrics::{JsonlSink, TensorBoardSink, add_launch};
use crate::opponent::Opponents;
use crate::policy::{AdapterConfig, Decoder};
use crate::reload::Catalog;
use crate::run::{TrainRun, fixed_members};
use crate::seed::Seed;

use super::super::machine;
use super::super::model::{self, Model};
use super::super::output::{clock, log};
use super::super::setup;
use super::details::hyperparameters;
use super::session::{Session, store_scripts};
use super::{TrainArgs, use_threads};

pub(super) fn start(args: &TrainArgs) -> anyhow::Result<Session> {
    let mut config = settings(args)?;
    use_threads(config.threads);
    let catalog = setup::catalog(&config)?;
    let opponents = check_opponents(&config, &catalog)?;
    // What was read is what a resumed run must read, also if a run that was named has gone on by then.
    if opponents.has_models() {
        config.opponent = opponents.resolved();
    }
    let folder = new_run_folder(&config, &catalog)?;
    config.out = Some(folder.clone());
    let mut model = model::load_apart(&config.model, Seed::new(config.seed))?;
    model.tokenizer = model::with_system(model.tokenizer, &config)?;
    let is_on_disk = model.folder.is_some() && model.adapter.is_none();
    let model = model.merged()?;
    announce(&config, &model, &catalog, &opponents);
    warn_of_fields(&catalog)?;
    let has_reference = config.loss.kl_coefficient > 0.0;
    let reference = if has_reference { Some(model::place(&model, &config.device, &config.dtype)?) } else { None };
    let mut model = with_adapter(model, &config)?;
    let decoder = model::place(&model, &config.device, &config.dtype)?;
    check_states(&config, decoder.as_ref())?;
    // Nothing is written before all that may be refused was accepted.
    checkpoint::create_folder(&folder)?;
    checkpoint::write_text(&folder.join("config.toml"), &toml::to_string(&config)?)?;
    if model.adapter.is_some() && !is_on_disk {
        keep_base(&mut model, &folder)?;
    }
    // Under an adapter, the first policy is the base.
    if has_reference && model.adapter.is_none() {
        let reference_folder = folder.join("reference");
        checkpoint::create_folder(&reference_folder)?;
        checkpoint::save_model(&reference_folder, decoder.as_ref(), &model.tokenizer, &model.origin)?;
    }
    let mut run = TrainRun::new(config, catalog, decoder, reference, model.tokenizer, opponents, clock);
    run.origin = model.origin;
    start_league(&mut run, &folder)?;
    let evaluators = evaluators(&run)?;
    store_scripts(&folder, &run.catalog)?;
    let jsonl = JsonlSink::create(&folder.join("metrics.jsonl"))?;
    let mut tensorboard = TensorBoardSink::create(&folder, None, wall_clock())?;
    tensorboard.write_hyperparameters(&hyperparameters(&run.config))?;
    add_launch(&folder, &machine::launch(0, &run.config, &run.decoder.device()))?;
    let progress = progress_bar(run.config.steps, 0);
    let stored = run.config.clone();
    Ok(Session {
        run,
        evaluators,
        folder,
        jsonl,
        tensorboard,
        progress,
        stored,
        settings_are_elsewhere: args.shared.config.is_some(),
        recording: None,
    })
}

/// Refuses optimizer states that the device does not have.
fn check_states(config: &RunConfig, decoder: &dyn Decoder) -> Result<(), Box<Diagnostic>> {
    if config.optimizer.states == OptimizerStates::F32 || decoder.device() == "cpu" {
        return Ok(());
    }
    Err(Box::new(
        Diagnostic::error("config::states", "optimizer states in 8 bits are for the CPU only")
            .expected("`optimizer.states = \"f32\"`, or `--device cpu`")
            .found(format!("the device `{}`", decoder.device()))
            .help("train an adapter (`lora.rank`) to save more memory than that"),
    ))
}

/// The model with a fresh adapter, if the settings ask for one.
fn with_adapter(mut model: Model, config: &RunConfig) -> Result<Model, Box<Diagnostic>> {
    let Some(adapter) = AdapterConfig::of(&config.lora) else { return Ok(model) };
    let seed = Seed::new(config.seed).child("adapter", 0);
    let tensors = adapter.initial(&model.config, &model.weights, seed).map_err(|error| {
        Box::new(
            Diagnostic::error("config::lora", "the settings make no adapter of this model")
                .found(error.to_string())
                .help("change `lora` in the configuration file or with `--set lora.rank=…`"),
        )
    })?;
    let share = 100.0 * adapter.parameter_count(&model.config) as f64 / model.config.parameter_count() as f64;
    let millions = adapter.parameter_count(&model.config) as f64 / 1e6;
    log(&format!(
        "adapter: rank {}, {millions:.2} M parameters are trained, {share:.1} % of the model's",
        adapter.rank
    ));
    model.adapter = Some((adapter, tensors));
    Ok(model)
}

/// Keeps weights in the run directory that stand nowhere else: of the built-in model, or with an earlier adapter added. Without
/// them the new adapter would be worth nothing.
fn keep_base(model: &mut Model, folder: &Path) -> Result<(), checkpoint::Error> {
    let base = folder.join(model::BASE_FOLDER);
    checkpoint::create_folder(&base)?;
    checkpoint::save_weights(&base, &model.config, &model.weights, &model.tokenizer, &model.origin)?;
    model.origin.base = base.canonicalize().unwrap_or(base).to_string_lossy().into_owned();
    Ok(())
}

/// The model of a checkpoint, which must be of the kind that the settings ask for.
fn checkpoint_model(folder: &Path, config: &RunConfig) -> Result<Model, Box<Diagnostic>> {
    let mut model = model::load_apart(&folder.to_string_lossy(), Seed::new(config.seed))?;
    model.tokenizer = model::with_system(model.tokenizer, config)?;
    let wanted = AdapterConfig::of(&config.lora);
    // Dropout belongs to training and not to the tensors, so it may change.
    if let (Some((found, _)), Some(wanted)) = (&mut model.adapter, &wanted) {
        found.dropout = wanted.dropout;
    }
    let found = model.adapter.as_ref().map(|(adapter, _)| adapter);
    if found != wanted.as_ref() {
        let kind = |adapter: Option<&AdapterConfig>| match adapter {
            Some(adapter) => adapter.describe(),
            None => "all weights trained, without an adapter".to_owned(),
        };
        return Err(Box::new(
            Diagnostic::error("config::lora", "a run cannot go on with another adapter than it has")
                .at(SourceSpan::file(folder))
                .expected(kind(found))
                .found(kind(wanted.as_ref()))
                .help("leave `lora` as it is, or begin a new run with `--model` and this folder"),
        ));
    }
    Ok(model)
}

/// The settings of a new run: defaults < file < `--set` < flags.
pub(super) fn settings(args: &TrainArgs) -> Result<RunConfig, Box<Diagnostic>> {
    let mut config = setup::configuration(&args.shared, None)?;
    config.nest = args.nest.clone().or(config.nest);
    config.reward = args.reward.clone().or(config.reward);
    config.steps = args.steps.unwrap_or(config.steps);
    config.out = args.out.clone().or(config.out);
    Ok(config)
}

pub(super) fn resume(args: &TrainArgs, folder: &Path) -> anyhow::Result<Session> {
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
    let mut model = checkpoint_model(&checkpoint_folder, &config)?;
    let decoder = model::place(&model, &config.device, &config.dtype)?;
    check_states(&config, decoder.as_ref())?;
    let reference = if config.loss.kl_coefficient > 0.0 && model.adapter.take().is_some() {
        Some(model::place(&model, &config.device, &config.dtype)?)
    } else if config.loss.kl_coefficient > 0.0 {
        let model = model::load(&run_folder.join("reference").to_string_lossy(), seed)?;
        Some(model::place(&model, &config.device, &config.dtype)?)
    } else {
        None
    };
    checkpoint::replace_text(&run_folder.join("config.toml"), &toml::to_string(&config)?)?;
    let mut run = TrainRun::new(config, catalog, decoder, reference, model.tokenizer, opponents, clock);
    run.origin = model.origin;
    start_league(&mut run, &run_folder)?;
    let evaluators = evaluators(&run)?;
    let set_aside = checkpoint::set_later_aside(&run_folder, state.step)?;
    run.restore(&state, &first, &second)?;
    log(&format!("going on after iteration {} of {}", run.step, run_folder.display()));
    if set_aside > 0 {
        log("what the run wrote after that iteration is kept under names that begin with `abandoned-`");
    }
    let jsonl = JsonlSink::resume(&run_folder.join("metrics.jsonl"), run.step)?;
    let mut tensorboard = TensorBoardSink::create(&run_folder, Some(run.step), wall_clock())?;
    tensorboard.write_hyperparameters(&hyperparameters(&run.config))?;
    add_launch(&run_folder, &machine::launch(run.step, &run.config, &run.decoder.device()))?;
    let progress = progress_bar(run.config.steps, run.step);
    let stored = run.config.clone();
    Ok(Session {
        run,
        evaluators,
        folder: run_folder,
        jsonl,
        tensorboard,
        progress,
        stored,
        settings_are_elsewhere: args.shared.config.is_some(),
        recording: None,
    })
}

/// Seconds since 1970, which TensorBoard's files hold.
fn wall_clock() -> crate::metrics::Clock {
    #[expect(clippy::disallowed_methods, reason = "TensorBoard's files hold the time of day; nothing depends on it")]
    Box::new(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
    })
}

fn check_opponents(config: &RunConfig, catalog: &Catalog) -> Result<Opponents, Box<Diagnostic>> {
    let opponents = Opponents::parse_with(&config.opponent, config, log, &model::loader(config))?;
    for game in &catalog.games {
        opponents.check_unattended(game)?;
        game.check_form(config.decode.format)?;
    }
    if opponents.names_league() {
        fixed_members(&config.league)?;
    }
    Ok(opponents)
}

fn start_league(run: &mut TrainRun, folder: &Path) -> Result<(), Box<Diagnostic>> {
    if run.opponents.names_league() {
        run.start_league(folder, Box::new(model::loader(&run.config)))?;
    }
    Ok(())
}

/// Who plays the other seats while the policy is measured, unless it is who plays them in training.
fn evaluators(run: &TrainRun) -> Result<Option<Opponents>, Box<Diagnostic>> {
    let config = &run.config;
    let text = match config.evaluation.opponent.as_str() {
        "" if run.opponents.names_league() => DEFAULT_OPPONENT,
        "" => return Ok(None),
        text => text,
    };
    let opponents = Opponents::parse_with(text, config, log, &model::loader(config))?;
    for game in &run.catalog.games {
        opponents.check_unattended(game)?;
        opponents.check_outside_training(game, true)?;
    }
    Ok(Some(opponents))
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

fn announce(config: &RunConfig, model: &Model, catalog: &Catalog, opponents: &Opponents) {
    if config.model == "tiny" {
        log(&format!(
            "model: tiny, a byte-level decoder of {:.1} M parameters, built in and trained from scratch; train your own with \
             --model DIR",
            model.config.parameter_count() as f64 / 1e6
        ));
    } else {
        log(&format!("model: {}, {:.1} M parameters", config.model, model.config.parameter_count() as f64 / 1e6));
    }
    model::tell_notes(model, config, true);
    let lora = &config.lora;
    if lora.rank == 0 && (lora.dora || lora.root_scaling || lora.dropout > 0.0) {
        log(
            "warning: `lora` has no effect: its `rank` is 0, so all weights are trained; `--set lora.rank=16` trains an adapter",
        );
    }
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
