//! `gift-host play`: one episode in the terminal, a person in one seat.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use crate::diag::Diagnostic;
use crate::game::{Action, Episode, GameDef, Seat, Status};
use crate::opponent::{Fault, Opponents, View};
use crate::seed::Seed;

use super::ExitStatus;
use super::output::log;
use super::setup::{self, SharedArgs};

/// Flags of `gift-host play`.
#[derive(Debug, clap::Args)]
pub(crate) struct PlayArgs {
    /// The game's script
    #[arg(value_name = "GAME")]
    game: PathBuf,
    /// Your seat; drawn from the seed if left out
    #[arg(long)]
    seat: Option<u32>,
    /// Who plays the other seats: `random`, `bot`, `search[:BUDGET]`, `checkpoint:DIR`, `human`; by seat with
    /// `bot,tictactoe.2=search`, mixed with `random*0.2+search*0.8`; if left out, `bot`, or `random` in a game without one
    #[arg(long, value_name = "SPEC")]
    opponent: Option<String>,
    /// Seed of the episode; the same seed replays the same episode
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One setting, such as `games.math.level=2`; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pairs: Vec<String>,
}

/// Plays one episode: prints each turn, asks for actions, prints the outcome. An episode that the input leaves unfinished
/// is a failure: a program that pipes answers in must learn that they were too few.
pub(crate) fn run(args: &PlayArgs, input: &mut dyn BufRead, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let game_path = args.game.to_string_lossy().into_owned();
    // A person may answer freely, so the options that make answers a list are not wanted.
    let mut pairs = vec!["decode.constrain=off".to_owned()];
    pairs.extend(args.pairs.clone());
    let shared = SharedArgs { games: vec![game_path], pairs, ..SharedArgs::default() };
    let config = setup::configuration(&shared, None)?;
    super::train::use_threads(config.threads);
    let catalog = setup::catalog(&config)?;
    let Some(game) = catalog.games.first() else { return Ok(ExitStatus::Failed) };
    // A model that sits here answers as it does in training.
    let opponent_shared = SharedArgs { games: shared.games, pairs: args.pairs.clone(), ..SharedArgs::default() };
    let opponent_config = setup::configuration(&opponent_shared, None)?;
    let load = super::model::loader(&opponent_config);
    let spec = args.opponent.as_deref().unwrap_or_else(|| usual_opponent(game));
    let opponents = Opponents::parse_with(spec, &opponent_config, log, &load)?;
    opponents.check(game)?;
    opponents.check_outside_training(game, false)?;
    let seed = Seed::new(args.seed);
    let own = match args.seat {
        None => Seat(seed.child("seat", 0).stream().int(1, i64::from(game.seats)) as u32),
        Some(seat) if (1..=game.seats).contains(&seat) => Seat(seat),
        Some(seat) => {
            return Err(Box::new(
                Diagnostic::error("cli::seat", format!("`{}` has no seat {seat}", game.name))
                    .expected(format!("`--seat` from 1 to {}", game.seats)),
            )
            .into());
        }
    };
    let mut stream = seed.child("opponent", 0).stream();
    let host = game.host();
    let mut episode = host.guarded(&game.source, || Episode::start(game, seed))??;
    let mut lineup = opponents.sit(game, seed.child("lineup", 0));
    if game.seats > 1 {
        writeln!(out, "You have seat {own} of {}; the others: {}.\n", game.seats, opponents.describe(&game.name))?;
    }
    while let Status::Turn(seat) = *episode.status() {
        if seat == own || opponents.has_person(game, seat) {
            let Some(action) = ask(&episode, seat, input, out)? else {
                writeln!(out, "\nThe episode was left unfinished.")?;
                return Ok(ExitStatus::Failed);
            };
            host.guarded(&game.source, || episode.act(seat, &action))??;
            if let Some(reason) = episode.turns().last().and_then(|turn| turn.refusal.as_deref()) {
                writeln!(out, "Refused: {reason}\n")?;
            }
        } else {
            let refusal = episode.turns().last().filter(|turn| turn.seat == seat);
            let refusal = refusal.and_then(|turn| turn.refusal.as_deref());
            let view = View { game, state: episode.state(), seat, refusal };
            let answer =
                host.guarded(&game.source, || lineup.wait_for(&view, &mut stream).map_err(Fault::into_problem))??;
            let text = answer.action;
            writeln!(out, "Seat {seat} answers: {text}\n")?;
            host.guarded(&game.source, || episode.act(seat, &Action { text, well_formed: true }))??;
        }
    }
    match episode.status() {
        Status::Terminated(outcome) => {
            for (index, score) in outcome.scores.iter().enumerate() {
                let you = if index + 1 == own.0 as usize { " (you)" } else { "" };
                let success = if outcome.success.get(index) == Some(&true) { "success" } else { "no success" };
                writeln!(out, "Seat {}{you}: score {score}, {success}", index + 1)?;
            }
        }
        Status::Forfeited(seat) => writeln!(out, "Seat {seat} answered against the rules and lost.")?,
        Status::Truncated | Status::Turn(_) => {
            writeln!(out, "Stopped: a seat has used its {} turns.", game.max_turns)?;
        }
    }
    Ok(ExitStatus::Done)
}

/// Who plays the other seats unless the user says otherwise: the script's own player where there is one.
fn usual_opponent(game: &GameDef) -> &'static str {
    if game.seats < 2 || game.has("bot") || !game.has("actions") {
        return "bot";
    }
    log(&format!(
        "note: `{}` has no `bot`, so the other seats answer at random; `--opponent search` plays well, with `--opponent human` \
         you answer for every seat",
        game.name
    ));
    "random"
}

/// Shows the observation and reads an answer; `None` at the end of the input.
fn ask(episode: &Episode, seat: Seat, input: &mut dyn BufRead, out: &mut dyn Write) -> anyhow::Result<Option<Action>> {
    let (game, state) = (episode.game(), episode.state());
    let host = game.host();
    writeln!(out, "{}\n", host.guarded(&game.source, || game.observe(state, seat, false))??.trim_end())?;
    if let Some(actions) = host.guarded(&game.source, || game.actions(state, seat))?? {
        writeln!(out, "Legal answers: {}", actions.join(", "))?;
    }
    write!(out, "seat {seat}> ")?;
    out.flush()?;
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    writeln!(out)?;
    Ok(Some(Action { text: line.trim().to_owned(), well_formed: true }))
}
