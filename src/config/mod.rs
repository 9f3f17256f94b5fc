//! The settings of a run: every key with its default in one place, read from TOML and `KEY=VALUE`, checked as a whole.
//! Used by every room that has settings; uses only [`crate::diag`].
//!
//! The defaults train the built-in tiny model; [`LANGUAGE_MODEL`] says what differs for real ones.

mod changes; // what may change while a run goes on
mod load; // file, --set and flags to a checked RunConfig
mod sections; // the settings by room
mod validate; // the ranges of all settings

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use changes::{CHANGEABLE, Review, SettingChange, review};
pub use load::{LANGUAGE_MODEL, from_toml, from_toml_over, set_key};
pub use sections::{
    Advantage, AnswerFormat, Constrain, Decode, EstimatorKind, Evaluation, Filter, FilterKind, League, Lora,
    LoraTarget, Loss, LossAggregation, ObservationKind, OnInvalid, Optimizer, OptimizerStates, Penalties, RatioKind,
    Remote, Rollout, Schedule, Scripts, Weighting,
};

/// Who plays the other seats by default. Who's the spy is decided by what the others say and whom they vote for, so
/// against random players there is little to learn.
pub const DEFAULT_OPPONENT: &str = "random,spy=bot";

/// All settings of a run.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Game files, or patterns of them.
    pub games: GameList,
    /// Nesting script; without one, one game trains alone and several train nested in the order given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nest: Option<PathBuf>,
    /// Reward script; without one, reward = the learner's score plus the penalties.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<PathBuf>,
    /// `tiny`, a folder in Hugging Face's layout, a GGUF file, or a name on the Hugging Face Hub.
    pub model: String,
    /// `auto`, `cpu`, `cuda[:N]`, or several as `cuda:0,1`.
    pub device: String,
    /// `auto`, `f32` or `bf16`.
    pub dtype: String,
    /// Who sits in the other seats: `SPEC`, or `SPEC,game=SPEC,game.SEAT=SPEC,…`; what is left out stays as by default.
    pub opponent: String,
    /// The learner's seat; 0 draws one for each group.
    pub seat: u32,
    /// Iterations to train.
    pub steps: u64,
    /// Seed of every random stream.
    pub seed: u64,
    /// The run directory; without one, `runs/` and a name made from the games.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
    /// Iterations between two checkpoints; 0 writes only the last one.
    pub checkpoint_every: u64,
    /// Iterations between two steps whose trajectories are stored; 0 stores none.
    pub episodes_every: u64,
    /// Threads of the model's arithmetic; 0 takes all cores. Results do not depend on it.
    pub threads: usize,
    /// How many episodes are played, and how long they may be.
    pub rollout: Rollout,
    /// What the policy sees and how its tokens are drawn.
    pub decode: Decode,
    /// Penalties of the built-in reward.
    pub penalty: Penalties,
    /// Rewards to credit.
    pub advantage: Advantage,
    /// Which groups are kept.
    pub filter: Filter,
    /// The objective.
    pub loss: Loss,
    /// An adapter that is trained in place of all weights.
    pub lora: Lora,
    /// AdamW and its schedule.
    pub optimizer: Optimizer,
    /// Models as opponents: those behind a server, and in part those of `checkpoint:` and `gguf:`.
    pub remote: Remote,
    /// Who plays where the opponent is `league`.
    pub league: League,
    /// Evaluation before and after training.
    pub evaluation: Evaluation,
    /// Limits on scripts, and reloading.
    pub scripts: Scripts,
}

/// `games` in a configuration: patterns, or a table of options by game.
///
/// `games = ["games/*.lua"]` names files; `[games.math] level = 1` gives options to one game. Both may be wanted in one
/// file, where the patterns are written as `[games] files = […]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GameList {
    /// File names or patterns.
    pub files: Vec<String>,
    /// Options handed to `game.init`, by game.
    pub options: BTreeMap<String, toml::Table>,
}

impl serde::Serialize for GameList {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = toml::Table::new();
        table.insert("files".to_owned(), self.files.clone().into());
        for (name, options) in &self.options {
            table.insert(name.clone(), toml::Value::Table(options.clone()));
        }
        table.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for GameList {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Form {
            Files(Vec<String>),
            Table(toml::Table),
        }
        use serde::de::Error;
        match Form::deserialize(deserializer)? {
            Form::Files(files) => Ok(Self { files, options: BTreeMap::new() }),
            Form::Table(table) => {
                let mut list = Self::default();
                for (key, value) in table {
                    match (key.as_str(), value) {
                        ("files", value) => list.files = value.try_into().map_err(D::Error::custom)?,
                        (_, toml::Value::Table(options)) => _ = list.options.insert(key, options),
                        (_, other) => {
                            let kind = other.type_str();
                            return Err(D::Error::custom(format!(
                                "`games.{key}` must be a table of options, not a {kind}"
                            )));
                        }
                    }
                }
                Ok(list)
            }
        }
    }
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            games: GameList::default(),
            nest: None,
            reward: None,
            model: "tiny".to_owned(),
            device: "auto".to_owned(),
            dtype: "auto".to_owned(),
            opponent: DEFAULT_OPPONENT.to_owned(),
            seat: 0,
            steps: 200,
            seed: 0,
            out: None,
            checkpoint_every: 50,
            episodes_every: 10,
            threads: 0,
            rollout: Rollout::default(),
            decode: Decode::default(),
            penalty: Penalties::default(),
            advantage: Advantage::default(),
            filter: Filter::default(),
            loss: Loss::default(),
            lora: Lora::default(),
            optimizer: Optimizer::default(),
            remote: Remote::default(),
            league: League::default(),
            evaluation: Evaluation::default(),
            scripts: Scripts::default(),
        }
    }
}
