//! One play from start to end: the state, whose turn it is, the turns so far, and the limits. It asks nobody for actions:
//! a rollout or `play` hands them in.

use std::sync::{Arc, Mutex, PoisonError};

use crate::diag::Diagnostic;
use crate::script::{Answer, Answers, State, Texts};
use crate::seed::Seed;

use super::definition::SharedGame;
use super::foresight::{ACTIONS, BRIEF, Foresight, OBSERVE};
use super::format::told_again;
use super::{Action, ApplyError, GameDef, IllegalRule, Outcome, Seat};

/// Where an episode stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// This seat acts next.
    Turn(Seat),
    /// The rules ended it.
    Terminated(Outcome),
    /// An illegal answer of this seat ended it, and the seat lost.
    Forfeited(Seat),
    /// A limit ended it.
    Truncated,
}

/// One answer of one seat and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Who acted.
    pub seat: Seat,
    /// What was played.
    pub action: String,
    /// Whether the rules took it.
    pub legal: bool,
    /// Whether the answer was in the answer format.
    pub well_formed: bool,
    /// Why it was refused, if it was.
    pub refusal: Option<String>,
}

/// What a script has said about a state already, to be taken out.
#[derive(Debug)]
struct Known(Mutex<Answers>);

impl Known {
    fn get_mut(&mut self) -> &mut Answers {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Known {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}

/// One play of a game. It stays on the version that it began with.
#[derive(Clone, Debug)]
pub struct Episode {
    game: SharedGame,
    seed: Seed,
    state: State,
    status: Status,
    turns: Vec<Turn>,
    turn_counts: Vec<u32>,
    foresight: Foresight,
    /// What is known of the state already, taken when it is asked for.
    answers: Known,
}

impl Episode {
    /// Starts the episode of this seed.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails.
    pub fn start(game: &Arc<GameDef>, seed: Seed) -> Result<Self, Box<Diagnostic>> {
        Self::start_numbered(game, seed, None)
    }

    /// As [`Episode::start`], with this number in an evaluation, from 1, which the script finds as `options.episode`.
    ///
    /// # Errors
    /// As [`Episode::start`].
    pub fn start_numbered(game: &Arc<GameDef>, seed: Seed, number: Option<u64>) -> Result<Self, Box<Diagnostic>> {
        Self::start_foreseeing(game, seed, number, Foresight::default())
    }

    /// As [`Episode::start_numbered`], told what will be asked on the turns.
    ///
    /// # Errors
    /// As [`Episode::start`].
    pub fn start_foreseeing(
        game: &Arc<GameDef>,
        seed: Seed,
        number: Option<u64>,
        foresight: Foresight,
    ) -> Result<Self, Box<Diagnostic>> {
        let foresight = foresight.of(game);
        let (state, answers) = game.begin(seed, number, Some(foresight))?;
        let mut episode = Self {
            game: Arc::clone(game),
            seed,
            state,
            status: Status::Truncated,
            turns: Vec::new(),
            turn_counts: vec![0; game.seats as usize],
            foresight,
            answers: Known(Mutex::new(answers)),
        };
        episode.status = episode.find_status()?;
        Ok(episode)
    }

    /// Whether the episode was told of the same questions.
    pub fn foresees(&self, foresight: Foresight) -> bool {
        self.foresight == foresight.of(&self.game)
    }

    /// The game's version that is played.
    pub fn game(&self) -> &Arc<GameDef> {
        &self.game
    }

    /// The episode's seed.
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// The state now.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Where it stands.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The turns so far.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// What the acting seat sees; after a refused answer, the reason stands first.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails.
    pub fn observation(&self, seat: Seat, brief: bool) -> Result<String, Box<Diagnostic>> {
        let function = if brief && self.game.has("brief") { "brief" } else { "observe" };
        let is_brief = function == "brief";
        let text = match self.take_answer(seat, if is_brief { BRIEF } else { OBSERVE }) {
            Some(answer) => self.game.text_in(answer.into_value(), function)?,
            None => self.game.observe(&self.state, seat, brief)?,
        };
        Ok(match self.turns.last().filter(|turn| turn.seat == seat).and_then(|turn| turn.refusal.as_deref()) {
            None => text,
            Some(reason) => told_again(&text, reason, brief),
        })
    }

    /// The legal answers of the acting seat, or `None` for free text.
    ///
    /// # Errors
    /// As [`GameDef::actions`].
    pub fn actions(&self, seat: Seat) -> Result<Option<Arc<Texts>>, Box<Diagnostic>> {
        if !self.game.has("actions") {
            return Ok(None);
        }
        match self.take_answer(seat, ACTIONS) {
            Some(answer) => self.game.actions_answered(answer),
            None => Ok(self.game.actions(&self.state, seat)?.map(|actions| Arc::new(actions.into_iter().collect()))),
        }
    }

    /// What the script said about the acting seat along with the state.
    fn take_answer(&self, seat: Seat, which: usize) -> Option<Answer> {
        let is_asked = self.status == Status::Turn(seat);
        let mut answers = self.answers.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.then.get_mut(which).filter(|_| is_asked).and_then(Option::take)
    }

    /// Plays the seat's action. What the rules refuse is recorded as an illegal turn; only a fault of the script is an
    /// error.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails; the episode must then be voided. If `apply` did, the last turn is the action that
    /// it failed at, which was neither taken nor refused.
    pub fn act(&mut self, seat: Seat, action: &Action) -> Result<(), Box<Diagnostic>> {
        let refusal = if action.well_formed {
            match self.game.advance(&self.state, seat, &action.text, self.foresight) {
                Ok((state, answers)) => {
                    self.go_on(state, answers);
                    None
                }
                Err(ApplyError::Illegal(reason)) => Some(reason),
                Err(ApplyError::Fault(diagnostic)) => {
                    self.note_failing(seat, &action.text);
                    return Err(diagnostic);
                }
            }
        } else {
            Some("it is not in the answer format".to_owned())
        };
        let legal = refusal.is_none();
        self.finish_turn(Turn { seat, action: action.text.clone(), legal, well_formed: action.well_formed, refusal })
    }

    /// Keeps the action that `apply` failed at, for those who tell of the lost episode.
    #[cold]
    fn note_failing(&mut self, seat: Seat, action: &str) {
        self.turns.push(Turn { seat, action: action.to_owned(), legal: false, well_formed: true, refusal: None });
    }

    /// Adds the turn and looks where the episode stands after it.
    fn finish_turn(&mut self, turn: Turn) -> Result<(), Box<Diagnostic>> {
        let (seat, legal) = (turn.seat, turn.legal);
        self.turns.push(turn);
        if let Some(count) = self.turn_counts.get_mut(seat.0 as usize - 1) {
            *count += 1;
        }
        self.status =
            if !legal && self.game.illegal == IllegalRule::End { Status::Forfeited(seat) } else { self.find_status()? };
        Ok(())
    }

    /// Plays the seat's action if the rules take it; otherwise nothing happens and the result says why they refused it.
    ///
    /// # Errors
    /// As [`Episode::act`].
    pub fn act_if_taken(&mut self, seat: Seat, action: &str) -> Result<Option<String>, Box<Diagnostic>> {
        let (state, answers) = match self.game.advance(&self.state, seat, action, self.foresight) {
            Ok(advanced) => advanced,
            Err(ApplyError::Illegal(reason)) => return Ok(Some(reason)),
            Err(ApplyError::Fault(diagnostic)) => {
                self.note_failing(seat, action);
                return Err(diagnostic);
            }
        };
        self.go_on(state, answers);
        let turn = Turn { seat, action: action.to_owned(), legal: true, well_formed: true, refusal: None };
        self.finish_turn(turn)?;
        Ok(None)
    }

    /// Ends the episode by a limit of the host.
    pub fn truncate(&mut self) {
        if matches!(self.status, Status::Turn(_)) {
            self.status = Status::Truncated;
        }
    }

    fn go_on(&mut self, state: State, answers: Answers) {
        self.state = state;
        *self.answers.get_mut() = answers;
    }

    fn find_status(&mut self) -> Result<Status, Box<Diagnostic>> {
        let answers = self.answers.get_mut();
        let seat = match answers.first.take() {
            Some(value) => self.game.seat_in(&value)?,
            None => self.game.to_act(&self.state)?,
        };
        Ok(match seat {
            None => Status::Terminated(match answers.at_nil.take() {
                Some(value) => self.game.outcome_in(&value)?,
                None => self.game.outcome(&self.state)?,
            }),
            Some(seat) if self.turn_counts[seat.0 as usize - 1] >= self.game.max_turns => Status::Truncated,
            Some(seat) => Status::Turn(seat),
        })
    }

    /// Score and success of a seat: the outcome's, or 0 and failure if the episode was truncated or the seat forfeited
    /// it. Where another seat forfeited, this one has neither lost nor won: 0 and failure as well.
    pub fn result(&self, seat: Seat) -> (f64, bool) {
        match &self.status {
            Status::Terminated(outcome) => {
                let index = seat.0 as usize - 1;
                (
                    outcome.scores.get(index).copied().unwrap_or(0.0),
                    outcome.success.get(index).copied().unwrap_or(false),
                )
            }
            _ => (0.0, false),
        }
    }
}
