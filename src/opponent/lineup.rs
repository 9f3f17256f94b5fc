//! The players of one episode, one a seat, and what opponents are asked and answer.

use std::sync::Arc;
use std::time::Duration;

use crate::diag::Diagnostic;
use crate::game::{GameDef, Seat};
use crate::policy::Dialogue;
use crate::script::State;
use crate::seed::Stream;

use super::frozen::FrozenModel;

/// How long a waiting caller sleeps before it asks again.
const PATIENCE: Duration = Duration::from_millis(10);
/// Refused answers before a random legal one is taken instead, unless an opponent says otherwise.
const DEFAULT_TRIES: usize = 3;

/// What an opponent is asked about.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The game.
    pub game: &'a GameDef,
    /// The position.
    pub state: &'a State,
    /// The opponent's seat, whose turn it is.
    pub seat: Seat,
    /// Why its last answer on this turn was refused, if one was.
    pub refusal: Option<&'a str>,
}

/// An opponent's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What it plays.
    pub action: String,
    /// What it was shown; empty for opponents that are not language models.
    pub observation: String,
    /// All that it wrote.
    pub text: String,
    /// Answers before this one, on the same turn, that could not be played, where the opponent counts them.
    pub invalid: usize,
}

impl Answer {
    /// The answer of an opponent that only says what it plays.
    pub fn plain(action: String) -> Self {
        Self { text: action.clone(), action, ..Self::default() }
    }
}

/// What an opponent says when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Its answer.
    Answer(Answer),
    /// Nothing yet: it is to be asked again about the same view.
    Waiting,
}

/// Why an opponent has no answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The game's script failed: the episode is voided and counts against the script.
    Script(Box<Diagnostic>),
    /// This opponent failed in this episode: the episode is voided, and the script is not blamed.
    Episode(Box<Diagnostic>),
    /// The opponent cannot play at all any more: the run has to stop.
    Run(Box<Diagnostic>),
}

impl Fault {
    /// The fault with a note of who was asked, where a script failed: the moves of an episode lead to that position only.
    #[must_use]
    pub fn of(self, opponent: &str, seat: Seat) -> Self {
        match self {
            Self::Script(problem) => {
                Self::Script(Box::new((*problem).note(format!("when `{opponent}` was to answer for seat {seat}"))))
            }
            other => other,
        }
    }

    /// The problem, whoever is to blame.
    pub fn into_problem(self) -> Box<Diagnostic> {
        match self {
            Self::Script(problem) | Self::Episode(problem) | Self::Run(problem) => problem,
        }
    }
}

impl From<Box<Diagnostic>> for Fault {
    fn from(problem: Box<Diagnostic>) -> Self {
        Self::Script(problem)
    }
}

/// The player of one seat in one episode. It may keep what it likes while the episode lasts: a conversation, a tree.
///
/// An opponent that needs time outside of this process says [`Reply::Waiting`]; the rollout goes on with other episodes and
/// asks again. One that needs a model's forward pass, which should serve many episodes at once, says the same and shows what
/// it waits for ([`Opponent::thinking`]). Everything random comes from `stream`, so that an opponent
/// that never waits for anything outside answers alike for the same seed.
pub trait Opponent: Send {
    /// Its answer on its turn. Called again with the same view after [`Reply::Waiting`], and with a refusal after an answer
    /// that the rules did not take.
    ///
    /// # Errors
    /// A [`Fault`], which also says what it costs.
    fn act(&mut self, view: &View<'_>, stream: &mut Stream) -> Result<Reply, Fault>;

    /// Whether to ask again would bring news, after [`Reply::Waiting`].
    fn is_ready(&self) -> bool {
        true
    }

    /// The model that has to sample the next token of its answer, if one has to, after [`Reply::Waiting`].
    fn thinking(&mut self) -> Option<(&Arc<FrozenModel>, &mut Dialogue)> {
        None
    }

    /// Refused answers on one turn before a random legal one takes their place.
    fn max_tries(&self) -> usize {
        DEFAULT_TRIES
    }
}

/// Who sits in a seat.
pub(super) enum Player {
    /// The policy of the rollout itself.
    Policy,
    /// Somebody else.
    Other(Box<dyn Opponent>),
}

/// The players of one episode.
pub struct Lineup {
    /// By seat, each under its name.
    players: Vec<(Arc<str>, Player)>,
}

impl Lineup {
    pub(super) fn new(players: Vec<(Arc<str>, Player)>) -> Self {
        Self { players }
    }

    fn at(&self, seat: Seat) -> Option<&(Arc<str>, Player)> {
        self.players.get((seat.0 as usize).wrapping_sub(1))
    }

    /// Whether the rollout's own policy plays this seat.
    pub fn is_policy(&self, seat: Seat) -> bool {
        matches!(self.at(seat), Some((_, Player::Policy)))
    }

    /// Who sits in the seat: a `SPEC`, or `league:NAME`.
    pub fn name(&self, seat: Seat) -> &str {
        self.at(seat).map_or("", |(name, _)| name)
    }

    fn player(&mut self, seat: Seat) -> Result<&mut Box<dyn Opponent>, Fault> {
        let index = (seat.0 as usize).wrapping_sub(1);
        match self.players.get_mut(index) {
            Some((_, Player::Other(player))) => Ok(player),
            Some((_, Player::Policy)) => Err(Fault::Run(super::no_policy())),
            None => {
                Err(Fault::Script(Box::new(Diagnostic::error("opponent::seat", format!("there is no seat {seat}")))))
            }
        }
    }

    /// The model that has to sample the next token for the seat, which said [`Reply::Waiting`], if one has to.
    pub fn thinking(&mut self, seat: Seat) -> Option<(&Arc<FrozenModel>, &mut Dialogue)> {
        self.player(seat).ok()?.thinking()
    }

    /// The answer of the seat on its turn.
    ///
    /// # Errors
    /// As [`Opponent::act`].
    pub fn act(&mut self, view: &View<'_>, stream: &mut Stream) -> Result<Reply, Fault> {
        self.player(view.seat)?.act(view, stream)
    }

    /// As [`Lineup::act`], on this thread until there is an answer.
    ///
    /// # Errors
    /// As [`Opponent::act`].
    pub fn wait_for(&mut self, view: &View<'_>, stream: &mut Stream) -> Result<Answer, Fault> {
        let player = self.player(view.seat)?;
        let mut batcher = None;
        loop {
            match player.act(view, stream)? {
                Reply::Answer(answer) => return Ok(answer),
                Reply::Waiting => {
                    while let Some((model, dialogue)) = player.thinking() {
                        let batcher = batcher.get_or_insert_with(|| model.batcher());
                        model.advance(&mut [dialogue], batcher).map_err(Fault::Run)?;
                    }
                    while !player.is_ready() {
                        std::thread::sleep(PATIENCE);
                    }
                }
            }
        }
    }

    /// Whether the seat, which said [`Reply::Waiting`], has news.
    pub fn is_ready(&self, seat: Seat) -> bool {
        !matches!(self.at(seat), Some((_, Player::Other(player))) if !player.is_ready())
    }

    /// Refused answers of the seat on one turn before a random legal one takes their place.
    pub fn max_tries(&self, seat: Seat) -> usize {
        match self.at(seat) {
            Some((_, Player::Other(player))) => player.max_tries(),
            _ => DEFAULT_TRIES,
        }
    }
}
