//! What types cannot check: the ranges of all settings, in one table.

use std::fmt;

use super::{EstimatorKind, Filter, RunConfig};
use crate::diag::Diagnostic;

/// The numbers that a setting may be.
#[derive(Clone, Copy)]
enum Range {
    AtLeast(f64),
    Above(f64),
    Below(f64),
    /// Both ends included.
    Between(f64, f64),
    /// From 0 to 1.
    Share,
    /// Above 0, at most 1.
    PositiveShare,
    /// At least 0, below 1.
    Decay,
    Finite,
}

impl Range {
    fn holds(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Self::AtLeast(low) => value >= low,
                Self::Above(low) => value > low,
                Self::Below(high) => value < high,
                Self::Between(low, high) => (low..=high).contains(&value),
                Self::Share => (0.0..=1.0).contains(&value),
                Self::PositiveShare => value > 0.0 && value <= 1.0,
                Self::Decay => (0.0..1.0).contains(&value),
                Self::Finite => true,
            }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(low) => write!(f, "at least {low}"),
            Self::Above(low) => write!(f, "above {low}"),
            Self::Below(high) => write!(f, "below {high}"),
            Self::Between(low, high) => write!(f, "from {low} to {high}"),
            Self::Share => f.write_str("from 0 to 1"),
            Self::PositiveShare => f.write_str("above 0, at most 1"),
            Self::Decay => f.write_str("at least 0, below 1"),
            Self::Finite => f.write_str("a finite number"),
        }
    }
}

/// Seeds are kept exact in JSON, TOML and Lua.
const SEED_LIMIT: f64 = 9_007_199_254_740_992.0;

impl RunConfig {
    /// Checks the range of every setting.
    ///
    /// # Errors
    /// A [`Diagnostic`] for the first setting that is out of its range.
    pub fn validate(&self) -> Result<(), Box<Diagnostic>> {
        let (rollout, decode, loss, optimizer) = (&self.rollout, &self.decode, &self.loss, &self.optimizer);
        let table = [
            ("seed", self.seed as f64, Range::Below(SEED_LIMIT)),
            ("rollout.groups", rollout.groups as f64, Range::AtLeast(1.0)),
            // An advantage compares the members of a group.
            ("rollout.group_size", rollout.group_size as f64, Range::AtLeast(2.0)),
            ("rollout.max_new_tokens", rollout.max_new_tokens as f64, Range::AtLeast(1.0)),
            ("rollout.max_batch_tokens", rollout.max_batch_tokens as f64, Range::AtLeast(1.0)),
            // A policy that always answers alike cannot learn.
            ("decode.temperature", f64::from(decode.temperature), Range::Above(0.0)),
            ("decode.top_p", f64::from(decode.top_p), Range::PositiveShare),
            ("decode.min_p", f64::from(decode.min_p), Range::Share),
            ("penalty.format", self.penalty.format, Range::Finite),
            ("penalty.illegal", self.penalty.illegal, Range::Finite),
            ("advantage.role_decay", self.advantage.role_decay, Range::Share),
            ("filter.ratio", self.filter.ratio, Range::PositiveShare),
            ("loss.constant", loss.constant, Range::Above(0.0)),
            ("loss.clip_low", loss.clip_low, Range::Share),
            ("loss.clip_high", loss.clip_high, Range::AtLeast(0.0)),
            ("loss.kl_coefficient", loss.kl_coefficient, Range::AtLeast(0.0)),
            ("loss.entropy_coefficient", loss.entropy_coefficient, Range::Finite),
            ("loss.max_importance_weight", loss.max_importance_weight, Range::AtLeast(0.0)),
            ("lora.rank", self.lora.rank as f64, Range::Between(0.0, 4096.0)),
            ("lora.dropout", self.lora.dropout, Range::Decay),
            ("lora.alpha", self.lora.alpha, Range::Above(0.0)),
            // Without any, nothing would be trained.
            ("lora.targets", self.lora.targets.len() as f64, Range::Between(1.0, 7.0)),
            ("optimizer.learning_rate", optimizer.learning_rate, Range::AtLeast(0.0)),
            ("optimizer.beta1", optimizer.beta1, Range::Decay),
            ("optimizer.beta2", optimizer.beta2, Range::Decay),
            ("optimizer.epsilon", optimizer.epsilon, Range::Above(0.0)),
            ("optimizer.weight_decay", optimizer.weight_decay, Range::AtLeast(0.0)),
            ("optimizer.max_gradient_norm", optimizer.max_gradient_norm, Range::AtLeast(0.0)),
            ("optimizer.final_share", optimizer.final_share, Range::Share),
            ("optimizer.epochs", optimizer.epochs as f64, Range::AtLeast(1.0)),
            ("remote.concurrency", self.remote.concurrency as f64, Range::Between(1.0, 256.0)),
            ("remote.timeout_s", self.remote.timeout_s, Range::Between(0.01, 86_400.0)),
            ("remote.grace_s", self.remote.grace_s, Range::Between(0.0, 86_400.0)),
            ("remote.episode_s", self.remote.episode_s, Range::Between(0.01, 86_400.0)),
            ("remote.temperature", self.remote.temperature, Range::AtLeast(0.0)),
            ("remote.max_tokens", f64::from(self.remote.max_tokens), Range::AtLeast(1.0)),
            ("remote.invalid_tries", self.remote.invalid_tries as f64, Range::Between(1.0, 100.0)),
            ("league.max_snapshots", self.league.max_snapshots as f64, Range::Between(1.0, 1000.0)),
            ("league.self_share", self.league.self_share, Range::Share),
            ("league.power", self.league.power, Range::Between(0.0, 100.0)),
            ("league.memory", self.league.memory, Range::Share),
            ("evaluation.temperature", f64::from(self.evaluation.temperature), Range::AtLeast(0.0)),
            ("scripts.call_ms", self.scripts.call_ms as f64, Range::AtLeast(1.0)),
            ("scripts.memory_mib", self.scripts.memory_mib as f64, Range::AtLeast(4.0)),
            ("scripts.max_voided_share", self.scripts.max_voided_share, Range::Share),
        ];
        match table.iter().find(|(_, value, range)| !range.holds(*value)) {
            None => self.filter.validate(self.advantage.estimator),
            Some((key, value, range)) => Err(Box::new(
                Diagnostic::error("config::range", format!("`{key}` is out of its range"))
                    .expected(range.to_string())
                    .found(value.to_string())
                    .help(format!("change it in the configuration file or with `--set {key}=…`")),
            )),
        }
    }
}

impl Filter {
    fn validate(&self, estimator: EstimatorKind) -> Result<(), Box<Diagnostic>> {
        let is_range = match self.reward_range[..] {
            [] => true,
            [low, high] => low.is_finite() && high.is_finite() && low < high,
            _ => false,
        };
        if !is_range {
            return Err(Box::new(
                Diagnostic::error("config::range", "`filter.reward_range` is no range")
                    .expected("the lowest and the highest reward, such as `[-0.5, 1.0]`, or `[]`")
                    .found(format!("{:?}", self.reward_range)),
            ));
        }
        if self.cut && estimator == EstimatorKind::Role {
            return Err(Box::new(
                Diagnostic::error("config::range", "`filter.cut` would change what is learned")
                    .expected("an `advantage.estimator` that looks at one group only")
                    .found("`role`, whose running means count the groups that are dropped")
                    .help("leave `filter.cut` off, or take `mean_std` or `mean`"),
            ));
        }
        Ok(())
    }
}
