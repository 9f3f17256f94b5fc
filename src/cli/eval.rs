//! `gift-host eval`: a frozen policy, or a scripted player, against fixed opponents.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::diag::Diagnostic;
use crate::eval::{Match, SuccessRate};
use crate::game::{NestMode, Seat};
use crate::opponent::Opponents;
use crate::rollout::Table;
use crate::seed::Seed;

use super::ExitStatus;
use super::output::{clock, rates_table};
use super::setup::{self, SharedArgs};

/// What `--nest` without a file stands for.
const IN_ORDER: &str = "in-order";

/// Flags of `gift-host eval`.
#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    shared: SharedArgs,
    /// Episodes of each game
    #[arg(long, default_value_t = 100, value_name = "N")]
    episodes: usize,
    /// Put a scripted player in the model's place: `random`, `bot` or `search`
    #[arg(long, value_name = "SPEC", conflicts_with = "model")]
    player: Option<String>,
    /// Play the games nested in one trajectory, in the order given or as the nesting script FILE says; each game by itself
    /// if left out
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = IN_ORDER, conflicts_with = "player")]
    nest: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Measures and prints the success rates.
pub(crate) fn run(args: &EvalArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let mut config = setup::configuration(&args.shared, None)?;
    // A configuration's nest is for training; here a nest is asked for by its flag.
    config.nest = args.nest.clone().filter(|nest| nest.as_os_str() != IN_ORDER);
    super::train::use_threads(config.threads);
    let catalog = setup::catalog(&config)?;
    let opponents = Opponents::parse_with(&config.opponent, &config.remote, super::output::log)?;
    for game in &catalog.games {
        opponents.check_unattended(game)?;
    }
    if args.episodes == 0 {
        return Err(Box::new(
            Diagnostic::error("cli::episodes", "there is nothing to measure").expected("`--episodes` of at least 1"),
        )
        .into());
    }
    let seed = Seed::new(config.seed);
    let matches = Match {
        games: catalog.games.clone(),
        episodes: args.episodes,
        seat: (config.seat > 0).then_some(Seat(config.seat)),
        seed: seed.child("evaluation", 0),
    };
    let rates = if let Some(spec) = &args.player {
        let player = Opponents::parse_with(spec, &config.remote, super::output::log)?;
        check_player(&player, &catalog)?;
        matches.play_scripted(&player, &opponents)
    } else {
        let model = super::model::load(&config.model, seed)?;
        super::output::log(&model.describe());
        super::model::tell_notes(&model, &config);
        let decoder = super::model::place(&model, &config.device, &config.dtype)?;
        let table = Table {
            decoder: decoder.as_ref(),
            tokenizer: &model.tokenizer,
            opponents: &opponents,
            nest: &catalog.nest,
            reward: None,
            interrupt: &AtomicBool::new(false),
            clock,
        };
        let settings = super::train::evaluation_settings(&config, decoder.as_ref());
        if args.nest.is_some() && catalog.nest.mode == NestMode::Nested {
            matches.play_nested(&table, &settings)?
        } else {
            matches.play_policy(&table, &settings)?
        }
    };
    print(&rates, args.json, out)?;
    for problem in rates.iter().filter_map(|rate| rate.problem.as_ref()) {
        super::output::log(&problem.to_string());
    }
    // Rates over nothing would be taken for a measurement.
    let lost: Vec<&str> = rates.iter().filter(|rate| rate.episodes == 0).map(|rate| rate.game.as_str()).collect();
    if !lost.is_empty() {
        super::output::log(&format!("error: every episode was lost to a fault of the script: {}", lost.join(", ")));
        return Ok(ExitStatus::Failed);
    }
    Ok(ExitStatus::Done)
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
        player.check_every_seat(game).map_err(|problem| {
            Box::new(problem.note("as `--player`; leave the game out of `--games`, or choose another player"))
        })?;
    }
    Ok(())
}

fn print(rates: &[SuccessRate], json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        let document = serde_json::json!({ "games": rates });
        writeln!(out, "{document:#}")?;
    } else {
        write!(out, "{}", rates_table(rates, None))?;
    }
    Ok(())
}
