//! Every metric of a run: its name in the files, its unit and its formula. A new metric is one line here; reports and
//! the book take their explanations from [`METRICS`].
//!
//! The figures of a step cover everything that its iteration played, before groups are dropped, unless the formula
//! says otherwise. A *learner turn* is a turn of the policy under training; a *play* is one game of a trajectory, the
//! whole of it or one stage of a nest.

/// Name, unit and formula of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The key; `<game>` stands for a game's name.
    pub name: &'static str,
    /// The unit; `1` for shares and ratios.
    pub unit: &'static str,
    /// How the number is made.
    pub formula: &'static str,
}

macro_rules! metrics {
    (
        run { $($constant:ident = $name:literal, $unit:literal, $formula:literal;)* }
        game { $($function:ident = $prefix:literal, $game_unit:literal, $game_formula:literal;)* }
    ) => {
        $(#[doc = concat!("`", $name, "` (", $unit, "): ", $formula)] pub const $constant: &str = $name;)*
        $(
            #[doc = concat!("`", $prefix, "/<game>` (", $game_unit, "): ", $game_formula)]
            pub fn $function(game: &str) -> String {
                format!(concat!($prefix, "/{}"), game)
            }
        )*

        /// All metrics: those of the run, then those by game.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $name, unit: $unit, formula: $formula },)*
            $(Metric { name: concat!($prefix, "/<game>"), unit: $game_unit, formula: $game_formula },)*
        ];
    };
}

metrics! {
    run {
        STEP = "step", "iterations", "number of the iteration, from 1";
        REWARD_MEAN = "reward/mean", "reward", "mean over trajectories of the reward, penalties included";
        SUCCESS_ALL = "success/all", "1", "share of the trajectories in which every game succeeded";
        ENTROPY = "entropy", "nats", "mean over trained tokens of H = -sum p log p over the ids each was sampled among";
        LOSS = "loss", "1", "mean over updates of the minibatch's loss, before the step";
        GRAD_NORM = "grad_norm", "1", "mean over updates of the gradient's L2 norm, before clipping";
        CLIP_FRACTION = "clip_fraction", "1", "share of the trained tokens whose surrogate is clipped";
        KL_ROLLOUT_TRAIN = "kl/rollout_train", "nats",
            "mean of exp(x - o) - (x - o) - 1 over the tokens scored before the first update; o: sampler, x: trainer";
        KL_REFERENCE = "kl/reference", "nats",
            "mean over trained tokens of exp(y - x) - (y - x) - 1; y: frozen first policy, x: trainer; with a KL term";
        RATIO_MAX = "ratio_max", "1", "largest ratio exp(x - o) of the objective over all updates";
        RATIO_DEVIATION = "ratio_deviation", "1",
            "largest |exp(x - o) - 1| over the tokens scored before the first update";
        LEARNING_RATE = "learning_rate", "1", "learning rate of the last update";
        UPDATES_TAKEN = "updates/taken", "updates", "optimizer steps taken";
        UPDATES_SKIPPED = "updates/skipped", "updates",
            "updates skipped because the loss or the gradient was not finite";
        GROUPS_KEPT = "groups/kept", "groups", "groups kept for the update";
        GROUPS_ZERO_STD = "groups/zero_std", "groups", "groups whose rewards have a standard deviation below 1e-8";
        GROUPS_CUT = "groups/cut", "groups", "groups cut short because they would not be kept; with filter.cut";
        TRUNCATED = "truncated", "1", "share of the trajectories that a limit ended";
        LENGTH_RESPONSE = "length/response", "tokens", "sampled tokens over learner turns";
        TOKENS_ROLLOUT_PER_S = "tokens/rollout_per_s", "tokens/s", "sampled tokens over time/rollout_s";
        TOKENS_UPDATE_PER_S = "tokens/update_per_s", "tokens/s",
            "tokens trained on, prompts included, over time/update_s";
        OPPONENT_ANSWERS = "opponent/answers", "answers", "answers of opponents that are language models";
        OPPONENT_INVALID = "opponent/invalid", "answers", "those of them that could not be read or were refused";
        LEAGUE_SNAPSHOTS = "league/snapshots", "snapshots", "snapshots of the policy that are members of the league";
        TIME_ROLLOUT_S = "time/rollout_s", "s", "time of the rollout, time/env_s included";
        TIME_ENV_S = "time/env_s", "s", "time in which the model waited for scripts and opponents";
        TIME_SCRIPTS_S = "time/scripts_s", "s", "time of all threads together in scripts, also while the model samples";
        TIME_UPDATE_S = "time/update_s", "s", "time of the updates";
        TIME_RECORD_S = "time/record_s", "s", "time that keeping figures and episodes of the iteration before took";
        RELOAD_ACTIVATED = "reload/activated", "versions", "script versions that came into service with the iteration";
        RELOAD_SETTINGS = "reload/settings", "settings", "settings that changed with the iteration";
        RELOAD_REJECTED = "reload/rejected", "saves", "saves that were refused since the iteration before";
        RELOAD_RETIRED = "reload/retired", "versions", "versions that were taken out of service for failing too often";
        RELOAD_EVENTS = "reload/events", "text", "what these four counted, in words";
        MEMORY_PEAK_BYTES = "memory/peak_bytes", "bytes", "most memory that the process has held so far";
    }
    game {
        reward = "reward", "reward", "mean over the game's plays of the learner's reward, penalties included";
        success = "success", "1", "share of the game's plays in which the learner succeeded";
        format_error = "format_error", "1",
            "share of the game's learner turns whose answer is not in the answer format";
        illegal = "illegal", "1", "share of the game's learner turns whose action the rules refused";
        voided = "voided", "episodes", "episodes lost to a fault of the game's script or of an opponent";
        turns = "turns", "turns", "mean over the game's plays of the learner's turns";
        scripts = "scripts", "hash", "version of the game's script";
        success_seat = "success_seat", "1",
            "`success` of one seat, `<game>.<seat>`, where the policy took several seats of an episode";
        league_rating = "league/rating", "points",
            "Elo rating of the learner, or, as `<game>.<member>`, of a member of the league; only differences count";
        league_deviation = "league/deviation", "points", "standard deviation of the learner's rating";
        league_rate = "league/rate", "1",
            "as `<game>.<member>`: the learner's recent wins and half its draws over the episodes against a member";
    }
}

/// What a metric is, from its key in a file.
pub fn find(key: &str) -> Option<&'static Metric> {
    let exact = METRICS.iter().find(|metric| metric.name == key);
    exact.or_else(|| {
        let is_family = |metric: &&Metric| {
            let game =
                metric.name.strip_suffix("/<game>").and_then(|prefix| key.strip_prefix(prefix)?.strip_prefix('/'));
            game.is_some_and(|game| !game.is_empty())
        };
        METRICS.iter().find(is_family)
    })
}

/// Whether a metric measures the machine and not the run, so that two runs of one seed may differ in it: `time/*`,
/// `tokens/*_per_s` and `memory/*`.
pub fn is_timing(name: &str) -> bool {
    name.starts_with("time/")
        || name.starts_with("memory/")
        || (name.starts_with("tokens/") && name.ends_with("_per_s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_explained() {
        let names: std::collections::BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        assert!(METRICS.iter().all(|metric| !metric.unit.is_empty() && !metric.formula.is_empty()));
    }

    #[test]
    fn keys_find_their_metric() {
        assert_eq!(find("reward/mean").unwrap().name, REWARD_MEAN);
        assert_eq!(find(&reward("nim")).unwrap().name, "reward/<game>");
        assert_eq!(find(&scripts("lib/nim")).unwrap().unit, "hash");
        assert_eq!(find(&league_rating("nim.search")).unwrap().name, "league/rating/<game>");
        assert_eq!((find("reward/"), find("reward"), find("nim/reward")), (None, None, None));
    }

    #[test]
    fn only_measurements_of_the_machine_are_timings() {
        let timings: Vec<_> = METRICS.iter().map(|metric| metric.name).filter(|name| is_timing(name)).collect();
        let expected = [
            TOKENS_ROLLOUT_PER_S,
            TOKENS_UPDATE_PER_S,
            TIME_ROLLOUT_S,
            TIME_ENV_S,
            TIME_SCRIPTS_S,
            TIME_UPDATE_S,
            TIME_RECORD_S,
            MEMORY_PEAK_BYTES,
        ];
        assert_eq!(timings, expected);
    }
}
