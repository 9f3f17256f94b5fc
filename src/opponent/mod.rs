//! Who sits in the seats that the learner leaves: chosen for each game and seat by a `SPEC`. Sits beside
//! [`crate::rollout`] and [`crate::eval`], which ask for one action at a time on the threads that run the scripts.
//!
//! [`Opponents`] are those of a run. For each episode they make a [`Lineup`]: one [`Opponent`] a seat, drawn from the
//! seat's mixture, with whatever it keeps during an episode. A new kind is a file with an implementation of that trait and
//! an arm in [`Spec`].

mod assignment; // game.seat=SPEC lists
mod form; // where answers of models may stop
mod frozen; // a model that is not trained
mod league; // who may be drawn for a seat of the league
mod lineup; // the players of one episode
mod remote; // a language model behind a server
mod scripted; // random actions, and the script's own player
mod search; // search for any game with listed actions
mod spec; // SPEC and mixtures

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{DEFAULT_OPPONENT, Remote, RunConfig};
use crate::diag::{Diagnostic, SourceSpan};
use crate::game::{GameDef, Seat};
use crate::script::State;
use crate::seed::{Seed, Stream};

pub use form::stop_rule;
pub use frozen::{FrozenModel, LoadedModel, ModelLoader, ModelPasses};
pub use league::{Pool, PoolMember};
pub use lineup::{Answer, Fault, Lineup, Opponent, Reply, View};
pub use remote::Endpoint;
pub use spec::{DEFAULT_NODES, Mixture, ModelKind, ModelSource, SearchLimit, Spec, Strength};

use assignment::Assignment;
use frozen::FrozenSettings;
use lineup::Player;
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
    models: BTreeMap<ModelSource, Arc<FrozenModel>>,
    frozen: FrozenSettings,
    league: Pool,
}

impl Opponents {
    /// The opponents of a specification: `SPEC`, or a list such as `bot,tictactoe=search,spy.2=random`. A list that names
    /// games only leaves the others with their default opponents.
    ///
    /// # Errors
    /// A [`Diagnostic`] that names the part that is not a known opponent.
    pub fn parse(text: &str) -> Result<Self, Box<Diagnostic>> {
        let wanted = Assignment::parse(text)?;
        let named = if text == DEFAULT_OPPONENT { Vec::new() } else { wanted.games().map(str::to_owned).collect() };
        Ok(Self {
            assignment: wanted.completed(Assignment::parse(DEFAULT_OPPONENT)?),
            named,
            memory: Arc::default(),
            settings: Remote::default(),
            servers: BTreeMap::new(),
            models: BTreeMap::new(),
            frozen: FrozenSettings::new(&RunConfig::default()),
            league: Pool::default(),
        })
    }

    /// As [`Opponents::parse`], ready to play: models are read by `load`, once each, and play as the settings say; `log` is
    /// given a line when a server does not answer.
    ///
    /// # Errors
    /// As [`Opponents::parse`], and a [`Diagnostic`] for a model that cannot be read.
    pub fn parse_with(text: &str, config: &RunConfig, log: Log, load: &ModelLoader) -> Result<Self, Box<Diagnostic>> {
        let mut all = Self::parse(text)?;
        all.settings = config.remote.clone();
        all.frozen = FrozenSettings::new(config);
        let mut read: BTreeMap<ModelSource, ModelSource> = BTreeMap::new();
        for spec in all.assignment.mixtures_mut().flat_map(Mixture::parts_mut) {
            match spec {
                Spec::Remote(endpoint) => {
                    let server = || Arc::new(Server::new(endpoint, &config.remote, log));
                    all.servers.entry(endpoint.clone()).or_insert_with(server);
                }
                Spec::Model(source) => {
                    if let Some(resolved) = read.get(source) {
                        *source = resolved.clone();
                        continue;
                    }
                    let loaded = load(source.path.as_ref())
                        .map_err(|problem| Box::new((*problem).note(format!("as the opponent `{source}`"))))?;
                    // From here on it is this checkpoint, also if the run that it is of goes on.
                    let path = loaded.place.to_string_lossy().into_owned();
                    let resolved = ModelSource { path, ..source.clone() };
                    let model = || Arc::new(FrozenModel::new(resolved.to_string(), loaded, &all.frozen));
                    all.models.entry(resolved.clone()).or_insert_with(model);
                    read.insert(std::mem::replace(source, resolved.clone()), resolved);
                }
                _ => {}
            }
        }
        Ok(all)
    }

    /// The specification with everything that it stands for: run directories as the checkpoints that were read.
    pub fn resolved(&self) -> String {
        self.assignment.to_string()
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
            Spec::Human | Spec::Remote(_) | Spec::Policy | Spec::Model(_) | Spec::League => None,
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

    /// Whether everybody plays without a model: the script's player, search, chance.
    pub fn is_scripted(&self) -> bool {
        let is_scripted = |spec: &Spec| matches!(spec, Spec::Random | Spec::Bot | Spec::Search(_) | Spec::Human);
        self.assignment.mixtures().flat_map(Mixture::parts).all(is_scripted)
    }

    /// Whether a model that is not trained may sit at some table.
    pub fn has_models(&self) -> bool {
        !self.models.is_empty()
    }

    /// Whether the league may sit at some table.
    pub fn names_league(&self) -> bool {
        self.assignment.mixtures().flat_map(Mixture::parts).any(|spec| *spec == Spec::League)
    }

    /// Whether the league or, if `or_self`, the policy itself may sit in a seat of this game.
    pub fn has_league(&self, game: &GameDef, or_self: bool) -> bool {
        let is_one = |spec: &Spec| *spec == Spec::League || or_self && *spec == Spec::Policy;
        game.seats > 1 && (1..=game.seats).any(|seat| self.mixture(&game.name, Seat(seat)).parts().any(is_one))
    }

    /// As [`Opponents::check_unattended`], where there is no league and, unless `has_policy`, no policy either.
    ///
    /// # Errors
    /// A [`Diagnostic`] that says what the game lacks, or that nobody of that kind is there.
    pub fn check_outside_training(&self, game: &GameDef, has_policy: bool) -> Result<(), Box<Diagnostic>> {
        if self.has_league(game, false) {
            return Err(Box::new(
                Diagnostic::error("opponent::league", "there is a league only while a run trains")
                    .expected("an opponent that is there by itself")
                    .found("`league`")
                    .help("a snapshot of a run's league is `checkpoint:runs/NAME/league/step-…`"),
            ));
        }
        if !has_policy && self.has_league(game, true) { Err(no_policy()) } else { Ok(()) }
    }

    /// How models play that a league adds in mid-run.
    pub fn freeze(&self, name: String, loaded: LoadedModel) -> Arc<FrozenModel> {
        Arc::new(FrozenModel::new(name, loaded, &self.frozen))
    }

    /// Whom the league draws from now on.
    pub fn set_league(&mut self, pool: Pool) {
        self.league = pool;
    }

    /// Whether this opponent can play the game.
    pub fn can_play(&self, spec: &Spec, game: &GameDef) -> bool {
        self.check_spec(spec, game).is_ok()
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
        self.sit_in_group(game, seed, seed)
    }

    /// As [`Opponents::sit`], for a member of a group: whom the league sends is decided by the group's seed, so that all its
    /// members, whose rewards are compared, meet the same.
    pub fn sit_in_group(&self, game: &GameDef, seed: Seed, group: Seed) -> Lineup {
        let players = (1..=game.seats).map(|seat| {
            let mixture = self.mixture(&game.name, Seat(seat));
            match mixture.draw(seed.child("seat", u64::from(seat))) {
                Spec::League => match self.league.draw(&game.name, group.child("league", u64::from(seat))) {
                    Some(member) => (format!("league:{}", member.name).into(), self.pool_player(member)),
                    // Refused before play where there is no league.
                    None => ("league".into(), Player::Policy),
                },
                spec => (spec.to_string().into(), self.player(spec)),
            }
        });
        Lineup::new(players.collect())
    }

    fn pool_player(&self, member: &PoolMember) -> Player {
        match &member.model {
            Some(model) => Player::Other(Box::new(frozen::Frozen::new(Arc::clone(model)))),
            None => self.player(&member.spec),
        }
    }

    fn player(&self, spec: &Spec) -> Player {
        Player::Other(match spec {
            Spec::Policy | Spec::League => return Player::Policy,
            Spec::Random => Box::new(scripted::Random),
            Spec::Bot => Box::new(scripted::Bot),
            Spec::Search(strength) => Box::new(search::Searcher::new(*strength, Arc::clone(&self.memory))),
            Spec::Human => Box::new(scripted::Absent),
            Spec::Model(source) => match self.models.get(source) {
                Some(model) => Box::new(frozen::Frozen::new(Arc::clone(model))),
                None => Box::new(scripted::Absent),
            },
            Spec::Remote(endpoint) => match self.servers.get(endpoint) {
                Some(server) => Box::new(remote::Chat::new(Arc::clone(server), self.settings.clone())),
                None => Box::new(scripted::Absent),
            },
        })
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

fn no_policy() -> Box<Diagnostic> {
    Box::new(
        Diagnostic::error("opponent::self", "there is no model here that could play as `self`")
            .expected("an opponent that is there by itself")
            .found("`self`")
            .help("name a model: `checkpoint:runs/NAME`"),
    )
}

fn no_person() -> Box<Diagnostic> {
    Box::new(
        Diagnostic::error("opponent::human", "a person cannot sit in a rollout")
            .expected("an opponent that plays by itself, such as `random`, `bot` or `search`")
            .help("play yourself with `gift-host play GAME`"),
    )
}
