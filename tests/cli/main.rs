//! The binary as people call it: in a temporary folder, with its whole output as inline snapshots. What differs from run
//! to run (folders, times, speeds, hashes) is filtered; the exit status stands first.

mod adapters; // runs that train an adapter, and exports
mod bad_results; // what scripts return and call wrongly
mod bad_scripts; // scripts that are wrong, with place and fix
mod bad_usage; // flags, settings and names that are wrong
mod bench_model; // tokens a second of the model alone
mod check; // the contract of games
mod check_signal; // games that work but train badly
mod check_time; // scripts that take long
mod check_writes; // writes that are lost
mod disks; // folders in use, full disks, checkpoints that were cut
mod eval; // rates of a policy and of scripted players
mod guide; // every snippet of the guides
mod hub; // models by their name on the Hub
mod logs; // the form of the log, and that it keeps secrets
mod lost; // episodes that a fault of a script ends
mod models; // models with a tokenizer of their own
mod opponents; // who sits in the other seats
mod play_and_new; // one episode in the terminal, a game to start from
mod report; // a run as a page and as lines
mod slips; // what authors often get wrong
mod stacks; // the author's own calls in messages
mod stuck; // scripts that cannot be stopped
mod support; // a folder, the binary, filters
mod train; // a short run and its directory
