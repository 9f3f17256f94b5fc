//! Small training runs inside the test process: a decoder of some ten thousand parameters, games in a temporary folder,
//! a clock that stands still.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use gift_host::config::{RunConfig, from_toml};
use gift_host::game::{GameDef, Nest, ScriptHost};
use gift_host::opponent::{LoadedModel, Opponents};
use gift_host::policy::{CpuDecoder, Decoder, DecoderConfig, NamedTensor, TensorKind, Tokenizer, initial_weights};
use gift_host::reload::{Catalog, read_source};
use gift_host::run::{IterationReport, TrainRun};
use gift_host::script::{Limits, STACK_BYTES, Value};
use gift_host::seed::Seed;

/// One turn: name the digit that is shown.
pub(crate) const ECHO: &str = include_str!("../echo.lua");

/// Settings that results of the tests depend on, whatever the defaults are.
const SETTINGS: &[&str] = &[
    "seed=5",
    "steps=30",
    "opponent=random",
    "rollout.groups=4",
    "rollout.group_size=4",
    "rollout.max_new_tokens=8",
    "decode.temperature=1.0",
    "decode.constrain=legal",
    "decode.observation=brief",
    "decode.format=bare",
    "advantage.estimator=mean_std",
    "filter.kind=reward_std",
    "filter.ratio=1.0",
    "loss.aggregation=token_mean",
    "loss.kl_coefficient=0.0",
    "loss.entropy_coefficient=0.0",
    "optimizer.learning_rate=0.003",
    "optimizer.warmup_updates=0",
    "optimizer.schedule=constant",
    "optimizer.minibatch=0",
    "optimizer.epochs=1",
];

/// A temporary folder with scripts.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(&path, text).expect("a file");
        path
    }
}

/// A pool of this many threads with the stacks that scripts need; everything of a run happens in it.
pub(crate) fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK_BYTES).build().expect("a pool")
}

/// Limits that a busy machine does not run into.
pub(crate) fn host() -> ScriptHost {
    ScriptHost::new(Limits { call: Duration::from_secs(20), ..Limits::default() }, Vec::new())
}

/// The settings of the tests, then `more`.
pub(crate) fn config(more: &[&str]) -> RunConfig {
    let pairs: Vec<String> = SETTINGS.iter().chain(more).map(|pair| (*pair).to_owned()).collect();
    from_toml(None, &pairs).unwrap_or_else(|problem| panic!("{problem}"))
}

/// A version of a game that need not pass the check of a reload.
pub(crate) fn game(path: &Path) -> Arc<GameDef> {
    let source = read_source(path).unwrap_or_else(|problem| panic!("{problem}"));
    let options = Value::Map(std::collections::BTreeMap::new());
    Arc::new(GameDef::compile(&source, options, &host()).unwrap_or_else(|problem| panic!("{problem}")))
}

/// A catalog of games that are not checked.
pub(crate) fn unchecked(games: Vec<Arc<GameDef>>) -> Catalog {
    let names = games.iter().map(|game| game.name.clone()).collect();
    let host = host();
    let nest = Arc::new(Nest::in_order(names, &host));
    Catalog { games, offered: Vec::new(), nest, reward: None, options: std::collections::BTreeMap::new(), host }
}

/// A checked catalog, as `train` loads it.
pub(crate) fn catalog(games: &[PathBuf], nest: Option<&Path>, reward: Option<&Path>) -> Catalog {
    Catalog::load(games, nest, reward, std::collections::BTreeMap::new(), host())
        .unwrap_or_else(|problem| panic!("{problem}"))
}

/// The model of the tests, with the same first weights every time.
pub(crate) fn decoder() -> Box<dyn Decoder> {
    let config = DecoderConfig {
        hidden_size: 32,
        intermediate_size: 64,
        layer_count: 2,
        head_count: 2,
        kv_head_count: 1,
        head_dim: 16,
        max_positions: 1024,
        ..DecoderConfig::tiny(Tokenizer::Bytes.vocabulary_size())
    };
    let weights = initial_weights(&config, Seed::new(1));
    Box::new(CpuDecoder::new(config, &weights).expect("a decoder"))
}

/// Reads a model of the tests that was stored in a folder.
pub(crate) fn load(path: &Path) -> Result<LoadedModel, Box<gift_host::diag::Diagnostic>> {
    let (config, weights) = gift_host::checkpoint::load_model(path)?;
    let decoder = CpuDecoder::new(config, &weights).expect("a decoder");
    Ok(LoadedModel { decoder: Box::new(decoder), tokenizer: Tokenizer::Bytes, place: path.to_owned() })
}

/// A run at its start.
pub(crate) fn start(config: RunConfig, catalog: Catalog) -> TrainRun {
    let opponents =
        Opponents::parse_with(&config.opponent, &config, |_| {}, &load).unwrap_or_else(|problem| panic!("{problem}"));
    TrainRun::new(config, catalog, decoder(), None, Tokenizer::Bytes, opponents, || Duration::ZERO)
}

/// One iteration that must succeed.
pub(crate) fn iterate(run: &mut TrainRun) -> IterationReport {
    run.iterate(None, &AtomicBool::new(false)).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn weights(run: &TrainRun) -> Vec<NamedTensor> {
    run.decoder.tensors(TensorKind::Weight).expect("weights")
}
