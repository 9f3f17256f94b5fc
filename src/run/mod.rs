//! One training run, read from top to bottom in [`TrainRun::iterate`]: reload, rollout, score, filter, update; checkpoint
//! when asked. It returns its figures; [`crate::cli`] prints and writes them.

mod episodes; // the episodes file of a step
mod figures; // figures from groups and updates
mod league; // snapshots and other members, their results, who is met how often
mod plan; // what an iteration plays
mod rating; // Elo's scale with uncertainty
mod replay; // a stored episode, played again and compared
mod retire; // versions that lose too many episodes

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::advantage::{AdvantageEstimator, Cut, EstimatorState, GroupFilter, build_estimator, build_filter};
use crate::checkpoint::{self, Origin, RunState};
use crate::config::{RunConfig, SettingChange, review};
use crate::diag::Diagnostic;
use crate::game::GameStats;
use crate::opponent::{ModelLoader, Opponents};
use crate::policy::{Decoder, NamedTensor, Sampling, TensorKind, Tokenizer};
use crate::reload::{Catalog, Watcher};
use crate::rollout::{Group, GroupPlan, GroupProgress, RolloutSettings, Table, play};
use crate::script::Version;
use crate::seed::Seed;
use crate::train::{Batch, Learner, UpdateContext};

pub use episodes::{Conditions, ScoredTrajectory, line as episode_line, write as write_episodes};
pub use figures::Figures;
pub use league::{LeagueState, MemberRecord, Standing, fixed_members};
pub use rating::Rating;
pub use replay::{Replay, replay};
pub use retire::FAILING_VERSION;

use league::League;
use retire::LastGood;

/// How fast a game's running success rate follows (the statistics that adaptive nests are given).
const STATS_WEIGHT: f64 = 0.2;

/// The room's failures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A script is at fault and nothing can take its place.
    #[error("{0}")]
    Script(Box<Diagnostic>),
    /// The rollout failed or was interrupted.
    #[error(transparent)]
    Rollout(#[from] crate::rollout::Error),
    /// The advantages cannot be computed.
    #[error(transparent)]
    Advantage(#[from] crate::advantage::Error),
    /// The update failed.
    #[error(transparent)]
    Train(#[from] crate::train::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The policy failed.
    #[error(transparent)]
    Policy(#[from] crate::policy::Error),
}

impl From<Box<Diagnostic>> for Error {
    fn from(problem: Box<Diagnostic>) -> Self {
        Self::Script(problem)
    }
}

/// Everything that a run works with.
pub struct TrainRun {
    /// The settings.
    pub config: RunConfig,
    /// The scripts in service.
    pub catalog: Catalog,
    /// The model.
    pub decoder: Box<dyn Decoder>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Where it came from; by default nowhere, as the built-in model.
    pub origin: Origin,
    /// Who plays the other seats.
    pub opponents: Opponents,
    /// Iterations done.
    pub step: u64,
    reference: Option<Box<dyn Decoder>>,
    league: Option<League>,
    estimator: Box<dyn AdvantageEstimator + Send>,
    filter: Box<dyn GroupFilter + Send>,
    learner: Learner,
    stats: BTreeMap<String, GameStats>,
    last_good: LastGood,
    /// Games that the opponents can play.
    admitted: BTreeSet<String>,
    clock: fn() -> Duration,
}

/// What an iteration came to.
#[derive(Debug)]
pub struct IterationReport {
    /// The iteration, from 1.
    pub step: u64,
    /// Its figures.
    pub figures: Figures,
    /// The version of each script that was active.
    pub versions: BTreeMap<String, Version>,
    /// Names and versions that became active with this iteration.
    pub reloaded: Vec<(String, Version)>,
    /// Settings that changed with this iteration.
    pub settings: Vec<SettingChange>,
    /// What was saved since the last iteration and not taken.
    pub rejected: Vec<Diagnostic>,
    /// What went wrong without stopping the run: lost episodes, a version that was taken out of service.
    pub problems: Vec<Diagnostic>,
    /// The groups with advantages and what was kept, for the episodes file.
    pub groups: Vec<ScoredGroup>,
}

/// A group and what became of it.
#[derive(Debug)]
pub struct ScoredGroup {
    /// The group.
    pub group: Group,
    /// One advantage a trajectory.
    pub advantages: Vec<f32>,
    /// Whether it was trained on.
    pub kept: bool,
    /// What else its members were played and rewarded with.
    pub conditions: Arc<Conditions>,
}

impl IterationReport {
    /// Every trajectory with its advantage.
    pub fn trajectories(&self) -> Vec<ScoredTrajectory<'_>> {
        self.groups
            .iter()
            .flat_map(|scored| {
                scored.group.trajectories.iter().zip(&scored.advantages).map(|(trajectory, &advantage)| {
                    ScoredTrajectory { trajectory, advantage, kept: scored.kept, conditions: &scored.conditions }
                })
            })
            .collect()
    }
}

/// The rollout settings of a configuration, for training.
pub fn rollout_settings(config: &RunConfig, decoder: &dyn Decoder) -> RolloutSettings {
    let (rollout, decode) = (&config.rollout, &config.decode);
    let context = decoder.config().max_positions;
    RolloutSettings {
        sampling: Sampling {
            temperature: decode.temperature,
            top_k: decode.top_k,
            top_p: decode.top_p,
            min_p: decode.min_p,
        },
        constrain: decode.constrain,
        observation: decode.observation,
        format: decode.format,
        stop: decode.stop,
        max_new_tokens: rollout.max_new_tokens,
        max_context: if rollout.max_context == 0 { context } else { rollout.max_context.min(context) },
        max_batch_tokens: rollout.max_batch_tokens,
        max_cache_bytes: rollout.max_cache_mib.saturating_mul(1 << 20),
        format_penalty: config.penalty.format,
        illegal_penalty: config.penalty.illegal,
    }
}

impl TrainRun {
    /// A run at its start. `reference` is a frozen copy of the first policy, needed if `loss.kl_coefficient` is above 0.
    pub fn new(
        config: RunConfig,
        catalog: Catalog,
        decoder: Box<dyn Decoder>,
        reference: Option<Box<dyn Decoder>>,
        tokenizer: Tokenizer,
        opponents: Opponents,
        clock: fn() -> Duration,
    ) -> Self {
        Self {
            estimator: build_estimator(&config.advantage),
            filter: build_filter(&config.filter),
            learner: Learner::new(&config.loss, &config.optimizer),
            step: 0,
            stats: BTreeMap::new(),
            last_good: LastGood::new(&catalog),
            admitted: catalog.names().into_iter().collect(),
            config,
            catalog,
            decoder,
            reference,
            league: None,
            tokenizer,
            origin: Origin::default(),
            opponents,
            clock,
        }
    }

    /// Begins the league of `--opponent league`, whose snapshots go below the run directory and are read again by `load`.
    ///
    /// # Errors
    /// A [`Diagnostic`] if one of the fixed members cannot be one.
    pub fn start_league(&mut self, folder: &Path, load: Box<ModelLoader>) -> Result<(), Box<Diagnostic>> {
        self.league = Some(League::new(&self.config.league, folder, load)?);
        Ok(())
    }

    /// One iteration. If it fails, the counters are as before, and unless it had trained on an earlier stage already
    /// (coordinated subtask training) a checkpoint taken now resumes at this iteration.
    ///
    /// # Errors
    /// [`Error`]; [`crate::rollout::Error::Interrupted`] if the flag was set.
    pub fn iterate(&mut self, watcher: Option<&Watcher>, interrupt: &AtomicBool) -> Result<IterationReport, Error> {
        let step = self.step + 1;
        let seed = Seed::new(self.config.seed).child("iteration", step);
        let taken = watcher.map(|watcher| watcher.take(&mut self.catalog)).unwrap_or_default();
        let mut reloaded = taken.versions;
        let changes = taken.settings.map(|config| self.change_settings(&config)).unwrap_or_default();
        let size = plan::PlanSize {
            groups: self.config.rollout.groups,
            members: self.config.rollout.group_size,
            seat: self.config.seat,
        };
        let mut problems = self.admit();
        reloaded.retain(|(name, _)| !problems.iter().any(|(refused, _)| refused == name));
        let mut problems: Vec<Diagnostic> = problems.drain(..).map(|(_, problem)| problem).collect();
        let plan = |catalog: &Catalog| plan::plan_rounds(catalog, &self.stats, size, seed, step);
        let rounds = match plan(&self.catalog) {
            Err(problem) if self.last_good.go_back_to_nest(&mut self.catalog) => {
                problems.push((*problem).note("the nest goes back to its last good version"));
                plan(&self.catalog)?
            }
            result => result?,
        };
        // A game that the nest names for the first time belongs to the run from now on.
        let stages = rounds.iter().flatten().flat_map(|group| &group.stages);
        for game in stages.map(|stage| Arc::clone(&stage.game)).collect::<Vec<_>>() {
            if self.catalog.join(&game.name) {
                reloaded.push((game.name.clone(), game.source.version.clone()));
            }
        }
        if let Some(league) = &mut self.league {
            league.begin_iteration(step, (self.decoder.as_ref(), &self.tokenizer, &self.origin), &self.opponents)?;
            self.opponents.set_league(league.pool(&self.catalog.games, &self.opponents));
        }
        let settings = rollout_settings(&self.config, self.decoder.as_ref());
        let versions = self.active_versions();
        let mut tally = figures::Tally::default();
        let mut scored: Vec<ScoredGroup> = Vec::new();
        let never = AtomicBool::new(false);
        for (round, plans) in rounds.into_iter().enumerate() {
            // Sample. Once weights have changed, an interrupt waits for the end of the iteration: a checkpoint holds
            // whole iterations only.
            let flag = if round == 0 { interrupt } else { &never };
            let conditions = Arc::new(Conditions::new(&self.config, &self.catalog));
            let cut = self.cut(&plans);
            let decided = |progress: &[GroupProgress]| cut.as_ref().map_or_else(Vec::new, |cut| cut.decided(progress));
            let table = Table { decided: cut.as_ref().map(|_| &decided as _), ..self.table(flag) };
            let (groups, stats) = play(&table, &plans, &settings)?;
            problems.extend(cut.and_then(|cut| outside_of_range(&cut, &groups)));
            problems.extend(self.last_good.review(&mut self.catalog, &groups, self.config.scripts.max_voided_share)?);
            if let Some(watcher) = watcher {
                watcher.note_serving(&self.catalog);
            }
            tally.add_rollout(&groups, stats);
            if let Some(league) = &mut self.league {
                league.add(&groups);
            }
            // Score
            let advantages =
                groups.iter().map(|group| self.estimator.advantages(group)).collect::<Result<Vec<_>, _>>()?;
            // Filter
            let kept = self.filter.keep(&groups);
            // Update
            let started = (self.clock)();
            let batch = Batch::from_groups(&groups, &kept, &advantages)?;
            let context = UpdateContext {
                iteration: step,
                iterations: self.config.steps.max(step),
                temperature: self.config.decode.temperature,
                max_pass_tokens: self.config.optimizer.max_pass_tokens,
                seed: seed.child("update", round as u64),
            };
            let update = if batch.target_count() == 0 {
                None
            } else {
                Some(self.learner.update(self.decoder.as_mut(), self.reference.as_deref(), &batch, &context)?)
            };
            let time = (self.clock)().saturating_sub(started);
            tally.add_update(kept.iter().filter(|kept| **kept).count(), update, time);
            scored.extend(groups.into_iter().zip(advantages).zip(kept).map(|((group, advantages), kept)| {
                ScoredGroup { group, advantages, kept, conditions: Arc::clone(&conditions) }
            }));
        }
        self.step = step;
        tally.update_stats(&mut self.stats, STATS_WEIGHT);
        let (mut figures, rejected) = (tally.figures(), taken.rejected);
        if let Some(league) = &mut self.league {
            league.end_iteration(step)?;
            league.put_figures(&mut figures);
        }
        Ok(IterationReport { step, figures, versions, reloaded, settings: changes, rejected, problems, groups: scored })
    }

    /// Goes on with other settings, as far as they may change; returns what did.
    fn change_settings(&mut self, config: &RunConfig) -> Vec<SettingChange> {
        let review = review(&self.config, config);
        self.config = review.config;
        self.learner.change_settings(&self.config.loss, &self.config.optimizer);
        review.changes
    }

    /// Turns away new games that the opponents cannot play; returns their names and why.
    fn admit(&mut self) -> Vec<(String, Diagnostic)> {
        let mut refused = Vec::new();
        for name in self.catalog.known_names() {
            let Some(game) = self.catalog.game(&name).filter(|_| !self.admitted.contains(&name)) else { continue };
            let form = self.config.decode.format;
            if let Err(problem) = self.opponents.check_unattended(game).and_then(|()| game.check_form(form)) {
                refused.push((name.clone(), problem.note(format!("`{name}` does not join the run"))));
                self.catalog.withdraw(&name);
            } else {
                self.admitted.insert(name);
            }
        }
        refused
    }

    /// What the advantage estimator carries from one iteration to the next.
    pub fn estimator_state(&self) -> EstimatorState {
        self.estimator.state()
    }

    /// What cuts groups short. Where the policy may take further seats the filter ranks those as well, and how many there will be
    /// is not known before.
    fn cut(&self, plans: &[GroupPlan]) -> Option<Cut> {
        let mut stages = plans.iter().flat_map(|plan| &plan.stages);
        let has_further = stages.any(|stage| self.opponents.has_league(&stage.game, true));
        Cut::new(&self.config.filter).filter(|_| !has_further)
    }

    fn table<'a>(&'a self, interrupt: &'a AtomicBool) -> Table<'a> {
        Table {
            decoder: self.decoder.as_ref(),
            tokenizer: &self.tokenizer,
            opponents: &self.opponents,
            nest: &self.catalog.nest,
            reward: self.catalog.reward.as_deref(),
            decided: None,
            interrupt,
            clock: self.clock,
        }
    }

    /// Optimizer steps taken so far.
    pub fn updates(&self) -> u64 {
        self.learner.state().updates
    }

    /// The version of every game, of the nest (`nest`) and of the reward script (`reward`).
    pub fn active_versions(&self) -> BTreeMap<String, Version> {
        let mut versions: BTreeMap<String, Version> =
            self.catalog.games.iter().map(|game| (game.name.clone(), game.source.version.clone())).collect();
        versions.extend(self.catalog.nest.source.iter().map(|source| ("nest".to_owned(), source.version.clone())));
        let reward = self.catalog.reward.as_ref();
        versions.extend(reward.map(|reward| ("reward".to_owned(), reward.source.version.clone())));
        versions
    }

    /// Writes a checkpoint below the run directory, with every script version that it needs, and returns its folder.
    ///
    /// # Errors
    /// [`Error::Checkpoint`].
    pub fn save(&self, run: &Path) -> Result<PathBuf, Error> {
        let games = self.catalog.games.iter().map(|game| checkpoint::store_script(run, &game.source));
        let stored = |source| checkpoint::store_script(run, source);
        let state = RunState {
            format: checkpoint::FORMAT,
            step: self.step,
            learner: serde_json::to_value(self.learner.state()).unwrap_or_default(),
            estimator: serde_json::to_value(self.estimator.state()).unwrap_or_default(),
            stats: self.stats.clone(),
            league: self.league.as_ref().map(|league| serde_json::to_value(league.state()).unwrap_or_default()),
            games: games.collect::<Result<_, _>>()?,
            nest: self.catalog.nest.source.as_ref().map(stored).transpose()?,
            reward: self.catalog.reward.as_ref().map(|reward| &reward.source).map(stored).transpose()?,
        };
        let folder = checkpoint::save(run, self.decoder.as_ref(), &self.tokenizer, &self.origin, &state)?;
        if let Some(league) = &self.league {
            league.delete_left()?;
        }
        Ok(folder)
    }

    /// Goes on from a checkpoint's counters and moments; the weights are already in the decoder.
    ///
    /// # Errors
    /// [`Error::Policy`] if the moments do not fit the model.
    pub fn restore(&mut self, state: &RunState, first: &[NamedTensor], second: &[NamedTensor]) -> Result<(), Error> {
        self.decoder.set_tensors(TensorKind::FirstMoment, first)?;
        self.decoder.set_tensors(TensorKind::SecondMoment, second)?;
        self.step = state.step;
        self.stats.clone_from(&state.stats);
        self.learner.restore(serde_json::from_value(state.learner.clone()).unwrap_or_default());
        let estimator: EstimatorState = serde_json::from_value(state.estimator.clone()).unwrap_or_default();
        self.estimator.restore(estimator);
        if let Some(league) = &mut self.league {
            let stored = state.league.clone().and_then(|stored| serde_json::from_value(stored).ok());
            league.restore(stored.unwrap_or_default(), &self.opponents)?;
            league.write(state.step)?;
        }
        Ok(())
    }
}

/// Tells that a reward lies outside of `filter.reward_range`.
fn outside_of_range(cut: &Cut, groups: &[Group]) -> Option<Diagnostic> {
    let (id, reward) = cut.outside(groups)?;
    let problem = Diagnostic::warning("run::reward_range", "a reward lies outside of `filter.reward_range`")
        .found(format!("{reward} in episode {id}"))
        .help("widen the range: groups that were cut short before it was seen might have been kept");
    Some(problem)
}
