//! Who sits in the seats that the learner leaves: chosen for each game and seat by a `SPEC`. Sits beside
//! [`crate::rollout`] and [`crate::eval`], which ask for one action at a time on the threads that run the scripts.
//!
//! [`Opponents`] are those of a run. For each episode they make a [`Lineup`]: one [`Opponent`] a seat, drawn from the
//! seat's mixture, with whatever it keeps during an episode. A new kind is a file with an implementation of that trait and
//! an arm in [`Spec`].

mod assignment; // game.seat=SPEC lists
mod lineup; // the opponents of one episode
mod remote; // a language model behind a server
mod scripted; // random actions, and the script's own player
mod search; // search for any game with listed actions
mod spec; // SPEC and mixtures

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{DEFAULT_OPPONENT, Remote};
use crate::diag::{Diagnostic, SourceSpan};
use crate::game::{GameDef, Seat};
use crate::script::State;
use crate::seed::{Seed, Stream};

pub use lineup::{Answer, Fault, Lineup, Opponent, Reply, View};
pub use remote::Endpoint;
pub use spec::{DEFAULT_NODES, Mixture, SearchLimit, Spec, Strength};

use assignment::Assignment;
use remote::{Log, Server};
use search::Memory;

/// The opponents of a run, by game and seat.
#[derive(Debug)]
pub struct Opponents {
    assignment: Assignment,
    /// Games that the user named, which may be misspelt.
    named: Vec<String>,
    memory: Arc<Memory>,
    settings: Remote,
    servers: BTreeMap<Endpoint, Arc<Server>>,
}

impl Opponents {
    /// The opponents of a specification: `SPEC`, or a list such as `bot,tictactoe=search,spy.2=random`. A list that names
    /// games only leaves the others with their default opponents.
    ///
    /// # Errors
    /// A [`Diagnostic`] that names the part that is not a known opponent.
    pub fn parse(text: &str) -> Result<Self, Box<Diagnostic>> {
        Self::parse_with(text, &Remote::default(), |_| {})
    }

    /// As [`Opponents::parse`], with the settings of models behind servers; `log` is given a line when one does not answer.
    ///
    /// # Errors
    /// As [`Opponents::parse`].
    pub fn parse_with(text: &str, remote: &Remote, log: Log) -> Result<Self, Box<Diagnostic>> {
        let wanted = Assignment::parse(text)?;
        let named = if text == DEFAULT_OPPONENT { Vec::new() } else { wanted.games().map(str::to_owned).collect() };
        let assignment = wanted.completed(Assignment::parse(DEFAULT_OPPONENT)?);
        let server = |spec: &Spec| match spec {
            Spec::Remote(endpoint) => Some((endpoint.clone(), Arc::new(Server::new(endpoint, remote, log)))),
            _ => None,
        };
        let servers = assignment.mixtures().flat_map(Mixture::parts).filter_map(server).collect();
        Ok(Self { assignment, named, memory: Arc::default(), settings: remote.clone(), servers })
    }

    /// Who plays in this game, in words: `bot`, or `bot, seat 2 random`.
    pub fn describe(&self, game: &str) -> String {
        self.assignment.describe(game)
    }

    /// Who may sit in this seat.
    pub fn mixture(&self, game: &str, seat: Seat) -> Mixture {
        self.assignment.of(game, seat)
    }

    /// The games that the specification names and `games` lacks.
    pub fn unknown_games(&self, games: &[String]) -> Vec<String> {
        self.named.iter().filter(|name| !games.contains(name)).cloned().collect()
    }

    /// Whether every seat's opponent can play it, also in games for one seat.
    ///
    /// # Errors
    /// A [`Diagnostic`] for the first that cannot: what the game lacks.
    pub fn check_every_seat(&self, game: &GameDef) -> Result<(), Box<Diagnostic>> {
        if let Some((seat, mixture)) = self.assignment.seats(&game.name).find(|(seat, _)| *seat > game.seats) {
            return Err(Box::new(
                Diagnostic::error("opponent::seat", format!("`{}` has no seat {seat}", game.name))
                    .at(SourceSpan::file(&game.source.path))
                    .expected(format!("a seat from 1 to {}", game.seats))
                    .found(format!("`{}.{seat}={mixture}`", game.name))
                    .help("drop it from `--opponent`, or name another seat"),
            ));
        }
        for seat in 1..=game.seats {
            for spec in self.mixture(&game.name, Seat(seat)).parts() {
                self.check_spec(spec, game)?;
            }
        }
        Ok(())
    }

    fn check_spec(&self, spec: &Spec, game: &GameDef) -> Result<(), Box<Diagnostic>> {
        let missing = match spec {
            Spec::Human | Spec::Remote(_) => None,
            Spec::Bot => (!game.has("bot")).then_some("`bot`"),
            Spec::Search(_) => (!game.has("actions")).then_some("`actions`"),
            Spec::Random => (!game.has("actions") && !game.has("bot")).then_some("`actions` or `bot`"),
        };
        let cannot = |what: &str| {
            let message = format!("`{spec}` cannot play `{}`{what}", game.name);
            Diagnostic::error("opponent::cannot_play", message).at(SourceSpan::file(&game.source.path))
        };
        if let Some(missing) = missing {
            return Err(Box::new(
                cannot("")
                    .expected(format!("the game has {missing}"))
                    .found("no such function")
                    .help(format!("add it to the script, or choose another opponent: `--opponent {}=…`", game.name)),
            ));
        }
        let Spec::Search(strength) = spec else { return Ok(()) };
        if strength.sees_all {
            return Ok(());
        }
        if game.has("hide") {
            return match strength.limit {
                SearchLimit::Depth(_) => Err(Box::new(
                    cannot(", which has hidden information, to a depth")
                        .expected("`nodes` or `ms`: hidden information is searched by sampling")
                        .found(format!("`{spec}`"))
                        .help("write `search:nodes=20000`"),
                )),
                _ => Ok(()),
            };
        }
        if self.memory.hides_something(game) {
            return Err(Box::new(
                cannot(": a seat does not see all of its state")
                    .expected(
                        "`function game.hide(state, seat, rng) … return state end`, a state that the seat may be in",
                    )
                    .found("positions that look the same to a seat and go on differently, and no `hide`")
                    .help("add `hide` (see games/README.md), or let the search look at everything: `search:sees=all`"),
            ));
        }
        Ok(())
    }

    /// Whether these opponents can play the game at all; games for one seat need none.
    ///
    /// # Errors
    /// A [`Diagnostic`] that says what the game lacks.
    pub fn check(&self, game: &GameDef) -> Result<(), Box<Diagnostic>> {
        if game.seats < 2 { Ok(()) } else { self.check_every_seat(game) }
    }

    /// As [`Opponents::check`], for play without a person at the terminal.
    ///
    /// # Errors
    /// A [`Diagnostic`] that says what the game lacks, or that a person was named.
    pub fn check_unattended(&self, game: &GameDef) -> Result<(), Box<Diagnostic>> {
        let has_person = (1..=game.seats).any(|seat| self.has_person(game, Seat(seat)));
        if game.seats > 1 && has_person { Err(no_person()) } else { self.check(game) }
    }

    /// Whether a language model behind a server may sit at some table.
    pub fn has_remote(&self) -> bool {
        !self.servers.is_empty()
    }

    /// Whether a person sits in this seat.
    pub fn has_person(&self, game: &GameDef, seat: Seat) -> bool {
        self.mixture(&game.name, seat).parts().any(|spec| *spec == Spec::Human)
    }

    /// Whether the opponent in this seat searches the game and, from this position on, plays it perfectly.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails.
    pub fn solves(&self, game: &GameDef, state: &State, seat: Seat) -> Result<bool, Box<Diagnostic>> {
        match self.mixture(&game.name, seat).parts().next() {
            Some(Spec::Search(strength)) => search::solves(&self.memory, *strength, game, state, seat),
            _ => Ok(false),
        }
    }

    /// The opponents of one episode. The seed decides which part of each mixture plays.
    pub fn sit(&self, game: &GameDef, seed: Seed) -> Lineup {
        let players = (1..=game.seats).map(|seat| {
            let mixture = self.mixture(&game.name, Seat(seat));
            self.player(mixture.draw(seed.child("seat", u64::from(seat))))
        });
        Lineup::new(players.collect())
    }

    fn player(&self, spec: &Spec) -> Box<dyn Opponent> {
        match spec {
            Spec::Random => Box::new(scripted::Random),
            Spec::Bot => Box::new(scripted::Bot),
            Spec::Search(strength) => Box::new(search::Searcher::new(*strength, Arc::clone(&self.memory))),
            Spec::Human => Box::new(scripted::Absent),
            Spec::Remote(endpoint) => match self.servers.get(endpoint) {
                Some(server) => Box::new(remote::Chat::new(Arc::clone(server), self.settings.clone())),
                None => Box::new(scripted::Absent),
            },
        }
    }

    /// The action of the opponent in this seat for one turn by itself; a mixture draws for it alone.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script or the opponent fails, or a person would have to be asked.
    pub fn act(
        &self,
        game: &GameDef,
        state: &State,
        seat: Seat,
        stream: &mut Stream,
    ) -> Result<String, Box<Diagnostic>> {
        let seed = Seed::new(stream.clone().int(0, i64::MAX) as u64);
        let view = View { game, state, seat, refusal: None };
        Ok(self.sit(game, seed).wait_for(&view, stream).map_err(Fault::into_problem)?.action)
    }
}

fn no_person() -> Box<Diagnostic> {
    Box::new(
        Diagnostic::error("opponent::human", "a person cannot sit in a rollout")
            .expected("`random`, `bot` or `search`")
            .help("play yourself with `gift-host play GAME`"),
    )
}
