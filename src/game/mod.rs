//! A validated game, a running episode, nests of games, reward scripts, Nash equilibria and answer checking. Sits on
//! [`crate::script`]; [`crate::rollout`] and [`crate::opponent`] play with it. Knows no language model.

mod actions; // the legal answers of a turn
pub mod answer; // equivalence of answers to math problems
mod check; // the contract, tried on seeded random episodes
mod definition; // one version of a game's script, its functions checked
mod episode; // one play from start to end
mod fields; // what the host reads in a game's table
mod foresight; // what is asked about a state on the way
mod format; // from an answer's text to an action
mod host; // what every script of a run shares: limits and library
mod lost; // what is told of an episode that a fault ended
pub mod nash; // equilibria of bimatrix games
mod nest; // several games in one trajectory or one run
mod optional; // what only some games answer
mod reward; // a script that rewards an episode
mod trial; // nests and reward scripts, tried on seeded examples

pub use check::{
    Answer, Examination, Figures, Sizes, check_game, check_game_within, check_seeds, difference, examine, fingerprint,
    transcript,
};
pub use definition::{ApplyError, GameDef, IllegalRule, Outcome, Seat};
pub use episode::{Episode, Status, Turn};
pub use fields::{GAME_FIELDS, NAME_FORM, check_name};
pub use foresight::Foresight;
pub use format::{Action, parse_answer, told_again};
pub use host::ScriptHost;
pub use lost::{lost_in_words, told_of_lost};
pub use nest::{GameStats, NEST_FIELDS, Nest, NestMode, StageResult};
pub use reward::{EpisodeSummary, RewardScript};
pub use trial::{try_nest, try_reward};

/// Where scripts are called: on threads that may be given up.
pub use crate::script::{abandonable, for_each_abandonable};
