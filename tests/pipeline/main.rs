//! The whole way from scripts to new weights: borders between rooms, the same bytes for the same seed, resuming,
//! reloading while playing, what an episodes file holds, faults of scripts, and a policy that learns.

mod batching; // what is shared or dropped changes no token
mod binary; // running the program itself
mod borders; // which room may use which
mod cut; // groups that are decided before they are over
mod determinism; // the same seed gives the same bytes
mod editors; // what editors and checkouts do to files
mod learning; // a tiny policy whose reward rises
mod recompute; // an update from the episodes file alone
mod reloading; // saving scripts while a run plays
mod remote; // opponents behind a server that misbehaves
mod replay; // stored episodes, played again
mod resume; // stopping and going on changes nothing
mod self_play; // the policy in several seats, frozen models, the league
mod settings; // settings that change while a run goes on
mod stuck; // scripts that cannot be stopped, outside rollouts
mod support; // small runs inside the test
mod voided; // episodes lost to a fault of a script
