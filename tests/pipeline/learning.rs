//! A tiny policy whose reward rises: rollout, reward, advantage, loss, optimizer and decoder together do what they are
//! for.

use super::support::{ECHO, Lab, catalog, config, iterate, pool, start};

#[test]
fn a_policy_learns_to_name_the_digit_that_it_sees() {
    let lab = Lab::new();
    let game = lab.write("games/echo.lua", ECHO);
    let successes: Vec<f64> = pool(2).install(|| {
        let settings = ["steps=40", "rollout.groups=16", "rollout.group_size=8"];
        let mut run = start(config(&settings), catalog(&[game], None, None));
        (0..40).map(|_| iterate(&mut run).figures["success/echo"]).collect()
    });
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&successes[..5]), mean(&successes[35..]));
    assert!(first < 0.5, "chance is 0.25, found {first}: {successes:?}");
    assert!(last > 0.9, "learned up to {last}: {successes:?}");
}

/// The same run with the reward turned round unlearns what chance knows: the sign of the whole chain is right.
#[test]
fn a_policy_learns_to_avoid_what_is_punished() {
    let lab = Lab::new();
    let game = lab.write("games/echo.lua", ECHO);
    let reward = lab.write("reward.lua", "return function(episode) return -episode.outcome.scores[1] end\n");
    let successes: Vec<f64> = pool(2).install(|| {
        let settings = ["steps=20", "rollout.groups=16", "rollout.group_size=8"];
        let mut run = start(config(&settings), catalog(&[game], None, Some(&reward)));
        (0..20).map(|_| iterate(&mut run).figures["success/echo"]).collect()
    });
    let last = successes[15..].iter().sum::<f64>() / 5.0;
    assert!(last < 0.1, "still {last}: {successes:?}");
}

/// Without a learning rate nothing moves, so a rise above is learning and not drift.
#[test]
fn a_learning_rate_of_zero_changes_no_weight() {
    let lab = Lab::new();
    let game = lab.write("games/echo.lua", ECHO);
    pool(2).install(|| {
        let mut run = start(config(&["optimizer.learning_rate=0.0"]), catalog(&[game], None, None));
        let before = super::support::weights(&run);
        for _ in 0..3 {
            iterate(&mut run);
        }
        assert!(super::support::weights(&run) == before);
    });
}
