//! Who sits in the seats that the learner leaves: chosen for each game by a `SPEC`. Sits beside [`crate::rollout`] and
//! [`crate::eval`], which ask for one action at a time on the threads that run the scripts.

mod random; // a uniformly random legal action
mod search; // perfect play by search, within a budget
mod spec; // SPEC and game=SPEC lists

use std::collections::BTreeMap;

use crate::config::DEFAULT_OPPONENT;
use crate::diag::Diagnostic;
use crate::game::{GameDef, Seat};
use crate::script::State;
use crate::seed::Stream;

pub use search::DEFAULT_NODES;
pub use spec::Spec;

use search::Solved;

/// The opponents of a run, by game.
#[derive(Debug)]
pub struct Opponents {
    default: Spec,
    by_game: BTreeMap<String, Spec>,
    solved: Solved,
}

impl Opponents {
    /// The opponents of a specification: `SPEC`, or a list such as `bot,tictactoe=search`. A list that names games only
    /// leaves the others with their default opponents.
    ///
    /// # Errors
    /// A [`Diagnostic`] that names the part that is not a known opponent.
    pub fn parse(text: &str) -> Result<Self, Box<Diagnostic>> {
        let (default, mut by_game) = spec::parse(text)?;
        let (usual, usual_by_game) = spec::parse(DEFAULT_OPPONENT)?;
        if default.is_none() {
            for (game, spec) in usual_by_game {
                by_game.entry(game).or_insert(spec);
            }
        }
        let default = default.or(usual).unwrap_or(Spec::Random);
        Ok(Self { default, by_game, solved: Solved::default() })
    }

    /// Who plays against the learner in this game.
    pub fn spec(&self, game: &str) -> Spec {
        self.by_game.get(game).copied().unwrap_or(self.default)
    }

    /// Whether this opponent can play the game at all; games for one seat need none.
    ///
    /// # Errors
    /// A [`Diagnostic`] that says what the game lacks.
    pub fn check(&self, game: &GameDef) -> Result<(), Box<Diagnostic>> {
        let spec = self.spec(&game.name);
        let missing = match spec {
            _ if game.seats < 2 => return Ok(()),
            Spec::Human => None,
            Spec::Bot => (!game.has("bot")).then_some("`bot`"),
            Spec::Search(_) => (!game.has("actions")).then_some("`actions`"),
            Spec::Random => (!game.has("actions") && !game.has("bot")).then_some("`actions` or `bot`"),
        };
        let Some(missing) = missing else { return Ok(()) };
        Err(Box::new(
            Diagnostic::error("opponent::cannot_play", format!("`{spec}` cannot play `{}`", game.name))
                .at(crate::diag::SourceSpan::file(&game.source.path))
                .expected(format!("the game has {missing}"))
                .found("no such function")
                .help(format!("add it to the script, or choose another opponent: `--opponent {}=…`", game.name)),
        ))
    }

    /// As [`Opponents::check`], for play without a person at the terminal.
    ///
    /// # Errors
    /// A [`Diagnostic`] that says what the game lacks, or that a person was named.
    pub fn check_unattended(&self, game: &GameDef) -> Result<(), Box<Diagnostic>> {
        if game.seats > 1 && self.spec(&game.name) == Spec::Human { Err(no_person()) } else { self.check(game) }
    }

    /// Whether this opponent searches the game and, from this position on, plays it perfectly.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails.
    pub fn solves(&self, game: &GameDef, state: &State, seat: Seat) -> Result<bool, Box<Diagnostic>> {
        match self.spec(&game.name) {
            Spec::Search(nodes) => search::solves(&self.solved, nodes, game, state, seat),
            _ => Ok(false),
        }
    }

    /// The action of the opponent in this seat.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails, or a person would have to be asked.
    pub fn act(
        &self,
        game: &GameDef,
        state: &State,
        seat: Seat,
        stream: &mut Stream,
    ) -> Result<String, Box<Diagnostic>> {
        match self.spec(&game.name) {
            Spec::Random => random::act(game, state, seat, stream),
            Spec::Bot => game.bot(state, seat, stream),
            Spec::Search(nodes) => search::act(&self.solved, nodes, game, state, seat, stream),
            Spec::Human => Err(no_person()),
        }
    }
}

fn no_person() -> Box<Diagnostic> {
    Box::new(
        Diagnostic::error("opponent::human", "a person cannot sit in a rollout")
            .expected("`random`, `bot` or `search`")
            .help("play yourself with `gift-host play GAME`"),
    )
}
