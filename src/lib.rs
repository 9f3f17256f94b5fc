//! Trains language models by play. A game's rules, its reward and the nesting order of several games are short Lua or Rhai
//! scripts; many episodes are played at once with a language model, which is trained with GRPO; saving a script changes the
//! run at the next rollout. The method is GIFT (arXiv:2601.05633).
//!
//! Rooms, in the order in which data flows: [`script`] and [`game`] hold the rules, [`reload`] swaps them, [`policy`] is the
//! model, [`opponent`] sits in the other seats, [`rollout`] plays, [`advantage`] turns rewards to credit, [`train`] updates,
//! [`checkpoint`] stores, [`run`] reads from top to bottom, [`eval`] measures, [`report`] shows, [`cli`] is what people call.

pub mod advantage;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod diag;
pub mod eval;
pub mod game;
pub mod metrics;
pub mod opponent;
pub mod policy;
pub mod reload;
pub mod report;
pub mod rollout;
pub mod run;
pub mod script;
pub mod seed;
pub mod train;
