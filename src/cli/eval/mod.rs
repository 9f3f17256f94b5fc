//! `gift-host eval`: a frozen policy, or a scripted player, against fixed opponents; and compared with another policy on the
//! same episodes.

mod tables; // what was measured, in the forms that people quote

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::config::RunConfig;
use crate::diag::Diagnostic;
use crate::eval::{Match, SuccessRate, compare};
use crate::game::{NestMode, Seat};
use crate::opponent::Opponents;
use crate::reload::Catalog;
use crate::rollout::Table;
use crate::seed::Seed;

use super::ExitStatus;
use super::output::clock;
use super::setup::{self, SharedArgs};

/// What `--nest` without a file stands for.
const IN_ORDER: &str = "in-order";

/// Episodes of each game, unless the flag or the configuration says otherwise.
const DEFAULT_EPISODES: usize = 100;

/// Flags of `gift-host eval`.
#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    shared: SharedArgs,
    /// Episodes of each game, at most as many as it has different ones; 100, or `evaluation.by_game` of the
    /// configuration, if left out
    #[arg(long, value_name = "N")]
    episodes: Option<usize>,
    /// Put another player in the model's place: `random`, `bot`, `search`, `checkpoint:DIR`
    #[arg(long, value_name = "SPEC", conflicts_with = "model")]
    player: Option<String>,
    /// Play the games nested in one trajectory, in the order given or as the nesting script FILE says; each game by itself
    /// if left out
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = IN_ORDER, conflicts_with = "player")]
    nest: Option<PathBuf>,
    /// Another model (as `--model`) that plays the same episodes: adds a paired comparison with its p-value
    #[arg(long, value_name = "tiny|DIR|FILE.gguf|HUB_ID")]
    baseline: Option<String>,
    /// How the figures are printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// The same as `--format json`
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// How figures are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for the terminal; the interval of success only
    Table,
    /// A table for a document, every rate with its interval
    Markdown,
    /// Everything, in full precision
    Json,
    /// As JSON, one row for each game and seat
    Csv,
}

/// Measures and prints the success rates.
pub(crate) fn run(args: &EvalArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let mut config = setup::configuration(&args.shared, None)?;
    // A configuration's nest is for training; here a nest is asked for by its flag.
    config.nest = args.nest.clone().filter(|nest| nest.as_os_str() != IN_ORDER);
    super::train::use_threads(config.threads);
    let catalog = setup::catalog(&config)?;
    let load = super::model::loader(&config);
    let opponents = Opponents::parse_with(&config.opponent, &config, super::output::log, &load)?;
    for game in &catalog.games {
        opponents.check_unattended(game)?;
        game.check_form(config.decode.format)?;
        opponents.check_outside_training(game, args.player.is_none())?;
    }
    if args.episodes == Some(0) {
        return Err(Box::new(
            Diagnostic::error("cli::episodes", "there is nothing to measure").expected("`--episodes` of at least 1"),
        )
        .into());
    }
    for game in &catalog.games {
        game.episode_count()?;
    }
    let matches = Match {
        games: catalog.games.clone(),
        episodes: args.episodes.unwrap_or(DEFAULT_EPISODES),
        by_game: if args.episodes.is_none() { config.evaluation.by_game.clone() } else { BTreeMap::new() },
        seat: (config.seat > 0).then_some(Seat(config.seat)),
        seed: Seed::new(config.seed).child("evaluation", 0),
    };
    let field = Field { config: &config, catalog: &catalog, opponents: &opponents, matches: &matches };
    let (player, rates) = if let Some(spec) = &args.player {
        let player = Opponents::parse_with(spec, &config, super::output::log, &load)?;
        check_player(&player, &catalog)?;
        (spec.clone(), matches.play_scripted(&player, &opponents))
    } else {
        (config.model.clone(), field.play(&config.model, args.nest.is_some())?)
    };
    let baseline = match &args.baseline {
        Some(model) => Some((model.clone(), field.play(model, args.nest.is_some())?)),
        None => None,
    };
    let comparison = baseline.as_ref().map(|(_, other)| compare(&rates, other)).unwrap_or_default();
    let format = if args.json { Format::Json } else { args.format };
    let measured = tables::Measured { player: (player, rates), baseline, comparison };
    measured.print(format, out)?;
    let rates = measured.all();
    super::output::log_losses(rates.iter().copied());
    // Rates over nothing would be taken for a measurement.
    let lost: Vec<&str> = rates.iter().filter(|rate| rate.rates.episodes == 0).map(|rate| rate.game.as_str()).collect();
    if !lost.is_empty() {
        super::output::log(&format!(
            "error: every episode was lost to a fault of a script or an opponent: {}",
            lost.join(", ")
        ));
        return Ok(ExitStatus::Failed);
    }
    Ok(ExitStatus::Done)
}

/// What every model of one call is put through.
struct Field<'a> {
    config: &'a RunConfig,
    catalog: &'a Catalog,
    opponents: &'a Opponents,
    matches: &'a Match,
}

impl Field<'_> {
    /// Puts a model through the match.
    fn play(&self, name: &str, nested: bool) -> anyhow::Result<Vec<SuccessRate>> {
        let mut model = super::model::load(name, Seed::new(self.config.seed))?;
        model.tokenizer = super::model::with_system(model.tokenizer, self.config)?;
        super::output::log(&model.describe());
        super::model::tell_notes(&model, self.config, false);
        let decoder = super::model::place(&model, &self.config.device, &self.config.dtype)?;
        let table = Table {
            decoder: decoder.as_ref(),
            tokenizer: &model.tokenizer,
            opponents: self.opponents,
            nest: &self.catalog.nest,
            reward: None,
            decided: None,
            interrupt: &AtomicBool::new(false),
            clock,
        };
        let settings = super::train::evaluation_settings(self.config, decoder.as_ref());
        Ok(if nested && self.catalog.nest.mode == NestMode::Nested {
            self.matches.play_nested(&table, &settings)?
        } else {
            self.matches.play_policy(&table, &settings)?
        })
    }
}

fn check_player(player: &Opponents, catalog: &crate::reload::Catalog) -> Result<(), Box<Diagnostic>> {
    for game in &catalog.games {
        if (1..=game.seats).any(|seat| player.has_person(game, Seat(seat))) {
            return Err(Box::new(
                Diagnostic::error("cli::player", format!("`human` cannot play `{}` here", game.name))
                    .expected("a player that is not a person")
                    .help("play yourself with `gift-host play GAME`"),
            ));
        }
        player.check_outside_training(game, false)?;
        player.check_every_seat(game).map_err(|problem| {
            Box::new(problem.note("as `--player`; leave the game out of `--games`, or choose another player"))
        })?;
    }
    Ok(())
}
