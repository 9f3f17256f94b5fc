//! Games and the scripts beside them: one contract in both languages, every game of `games/` through the random battery
//! and a stored playthrough, and what single games promise. Plays without a language model.

mod battery; // what every game must keep, by random play
mod bench; // benchmarks on small files with the published columns
mod conformance; // Lua and Rhai behind one interface
mod dataset; // math problems from a user's file
mod fuzz; // random scripts do no harm
mod hostile; // the corpus of hostile scripts
mod isolation; // nothing lasts from one call to the next
mod matrix; // success is a place in an equilibrium
mod nests; // every nest and reward script that is shipped
mod perfect_play; // the search opponent against theory
mod playthrough; // one stored episode a game
mod questions; // what is asked along with a call
mod search; // search against known values, its strengths and refusals
mod states; // states that go from call to call
mod support; // loading games, threads with a deep stack
mod twins; // tic-tac-toe in Lua and in Rhai
mod types; // the type files for editors against what the host offers
