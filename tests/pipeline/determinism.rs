//! Same configuration, seed and script versions, same bytes: whatever the number of threads, inside the process and
//! through the program.

use gift_host::run::Figures;

use super::binary::{Place, QUICK};
use super::support::{catalog, config, iterate, pool, start, weights};

/// Figures and weights after four iterations of nested play against an opponent that draws.
fn four_iterations(threads: usize, more: &[&str]) -> (Vec<Figures>, Vec<gift_host::policy::NamedTensor>) {
    let games = ["games/tictactoe.lua", "games/nim.rhai"].map(std::path::PathBuf::from);
    pool(threads).install(|| {
        let mut run = start(config(more), catalog(&games, None, None));
        let figures = (0..4).map(|_| iterate(&mut run).figures).collect();
        (figures, weights(&run))
    })
}

#[test]
fn threads_and_repetition_change_no_figure_and_no_weight() {
    let one = four_iterations(1, &[]);
    for threads in [1, 2, 3] {
        let again = four_iterations(threads, &[]);
        assert_eq!(one.0, again.0, "{threads} threads");
        assert!(one.1 == again.1, "the weights differ with {threads} threads");
    }
    assert_ne!(one.0, four_iterations(1, &["seed=6"]).0, "another seed is another run");
}

/// How many tokens one pass takes and how much is kept is a matter of memory, not of results.
#[test]
fn the_size_of_a_pass_changes_no_rollout() {
    let one = four_iterations(2, &["optimizer.learning_rate=0.0"]);
    let small = four_iterations(2, &["optimizer.learning_rate=0.0", "rollout.max_batch_tokens=40"]);
    assert_eq!(one.0, small.0);
    let bounded = four_iterations(2, &["optimizer.learning_rate=0.0", "rollout.max_cache_mib=1"]);
    assert_eq!(one.0, bounded.0);
}

#[test]
fn two_runs_write_the_same_metrics_weights_and_episodes() {
    let place = Place::new();
    let run = |name: &str, threads: &str| {
        let mut arguments =
            vec!["train", "--games", "games/tictactoe.lua", "games/nim.rhai", "--steps", "3", "--out", name];
        arguments.extend(QUICK);
        arguments.extend(["--set", threads]);
        place.run_to_end(&arguments);
        (
            place.metrics(name),
            place.bytes(&format!("{name}/checkpoints/step-000003/model.safetensors")),
            place.bytes(&format!("{name}/checkpoints/step-000003/trainer.safetensors")),
            place.bytes(&format!("{name}/episodes/step-000001.jsonl.zst")),
        )
    };
    let first = run("first", "threads=1");
    for (name, threads) in [("second", "threads=1"), ("third", "threads=2")] {
        let other = run(name, threads);
        assert_eq!(first.0, other.0, "metrics, {threads}");
        assert!(first.1 == other.1, "weights, {threads}");
        assert!(first.2 == other.2, "moments, {threads}");
        assert!(first.3 == other.3, "episodes, {threads}");
    }
}
