//! The iterations of a run, and what is kept of each: figures, episodes, checkpoints, settings, evaluations.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use indicatif::ProgressBar;

use crate::checkpoint;
use crate::config::RunConfig;
use crate::diag::Diagnostic;
use crate::eval::{Match, SuccessRate};
use crate::game::NestMode;
use crate::metrics::{Evaluation, JsonlSink, MetricSink, Record, TensorBoardSink, add_evaluations};
use crate::opponent::Opponents;
use crate::reload::{Catalog, Watcher};
use crate::rollout::Table;
use crate::run::{IterationReport, TrainRun, write_episodes};
use crate::seed::Seed;

use super::super::output::{clock, duration, log, peak_memory};
use super::details::details;
use super::evaluation_settings;

/// A run that is ready to iterate, with its directory and sinks.
pub(super) struct Session {
    pub(super) run: TrainRun,
    /// Who plays the other seats while the policy is measured; those of the run, if none.
    pub(super) evaluators: Option<Opponents>,
    pub(super) folder: PathBuf,
    pub(super) jsonl: JsonlSink,
    pub(super) tensorboard: TensorBoardSink,
    pub(super) progress: ProgressBar,
    /// The settings that `config.toml` holds.
    pub(super) stored: RunConfig,
    /// Whether settings are reloaded from another file than `config.toml`.
    pub(super) settings_are_elsewhere: bool,
    /// What keeping the figures and episodes of the last iteration took.
    pub(super) recording: Option<Duration>,
}

impl Session {
    /// Iterates to the end; false if it was interrupted. Writes a checkpoint in either case.
    pub(super) fn train(&mut self, watcher: Option<&Watcher>, interrupt: &AtomicBool) -> anyhow::Result<bool> {
        let (started, first) = (clock(), self.run.step);
        let mut saved = self.run.step;
        while self.run.step < self.run.config.steps {
            let report = match self.run.iterate(watcher, interrupt) {
                Err(crate::run::Error::Rollout(crate::rollout::Error::Interrupted)) => {
                    self.save()?;
                    return Ok(false);
                }
                result => result.map_err(anyhow::Error::from).and_then(|report| {
                    self.write(&report)?;
                    Ok(report)
                }),
            };
            let report = report.inspect_err(|_| {
                // What was learned so far must not be lost with the run.
                self.progress.finish_and_clear();
                match self.save() {
                    Ok(folder) => log(&format!("a checkpoint was written to {}", folder.display())),
                    Err(problem) => log(&format!("no checkpoint could be written: {problem}")),
                }
            })?;
            let done = report.step - first;
            let left = clock()
                .saturating_sub(started)
                .div_f64(done as f64)
                .mul_f64((self.run.config.steps - report.step) as f64);
            self.show(&report, done == 1, left);
            let every = self.run.config.checkpoint_every;
            if every > 0 && report.step.is_multiple_of(every) {
                self.save()?;
                saved = report.step;
            }
        }
        if saved != self.run.step || !self.folder.join("checkpoints").exists() {
            self.save()?;
        }
        Ok(true)
    }

    /// A checkpoint, and the settings that it goes on with.
    fn save(&mut self) -> anyhow::Result<PathBuf> {
        self.store_settings()?;
        let folder = self.run.save(&self.folder)?;
        tracing::debug!("a checkpoint was written to {}", folder.display());
        Ok(folder)
    }

    /// Brings `config.toml` up to the settings in service. If it is itself where they came from, it has them.
    fn store_settings(&mut self) -> anyhow::Result<()> {
        if self.run.config != self.stored {
            self.stored = self.run.config.clone();
            if self.settings_are_elsewhere {
                checkpoint::replace_text(&self.folder.join("config.toml"), &toml::to_string(&self.stored)?)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, report: &IterationReport) -> anyhow::Result<()> {
        let started = clock();
        if !report.reloaded.is_empty() {
            store_scripts(&self.folder, &self.run.catalog)?;
        }
        self.store_settings()?;
        let mut record = Record::new(report.step);
        for (name, &value) in &report.figures {
            record.set(name.as_str(), value);
        }
        for (name, version) in &report.versions {
            record.set(crate::metrics::names::scripts(name), version.0.as_str());
        }
        set_events(&mut record, report);
        if let Some(bytes) = peak_memory() {
            record.set(crate::metrics::names::MEMORY_PEAK_BYTES, bytes);
        }
        if let Some(time) = self.recording {
            record.set(crate::metrics::names::TIME_RECORD_S, time.as_secs_f64());
        }
        self.jsonl.write(&record)?;
        self.tensorboard.write(&record)?;
        let every = self.run.config.episodes_every;
        let is_stored = every > 0 && (report.step.is_multiple_of(every) || report.step == 1);
        self.tensorboard.write_details(report.step, &details(report, is_stored))?;
        if is_stored {
            let path = write_episodes(&self.folder, report.step, &report.trajectories())?;
            tracing::debug!("episodes were written to {}", path.display());
        }
        self.recording = Some(clock().saturating_sub(started));
        Ok(())
    }

    fn show(&self, report: &IterationReport, is_first: bool, left: Duration) {
        let figure = |name: &str| report.figures.get(name).copied();
        for change in &report.settings {
            let text = format!("{change}, from iteration {}", report.step);
            self.progress.suspend(|| log(&text));
        }
        for (name, version) in &report.reloaded {
            let text = format!("{name}: version {} is active from iteration {}", version.short(), report.step);
            self.progress.suspend(|| log(&text));
        }
        if let Some(deviation) = figure(crate::metrics::names::RATIO_DEVIATION).filter(|_| is_first) {
            let text = format!(
                "sampler and trainer agree: before the first update no ratio is further from 1 than {deviation:.1e}"
            );
            self.progress.suspend(|| log(&text));
        }
        for problem in &report.problems {
            self.progress.suspend(|| log(&problem.to_string()));
        }
        let games: Vec<String> = self
            .run
            .catalog
            .names()
            .iter()
            .filter_map(|name| {
                let reward = figure(&crate::metrics::names::reward(name))?;
                let success = figure(&crate::metrics::names::success(name))?;
                Some(format!("{name} {reward:.2} {:.0}%", success * 100.0))
            })
            .collect();
        let speed = figure(crate::metrics::names::TOKENS_ROLLOUT_PER_S).unwrap_or(0.0);
        let text = format!("{} | {speed:.0} tokens/s | {} left", games.join(" | "), duration(left));
        if self.progress.is_hidden() {
            let mean = |name: &str| figure(name).unwrap_or(f64::NAN);
            let steps = self.run.config.steps;
            tracing::info!(
                step = report.step,
                steps,
                reward = mean(crate::metrics::names::REWARD_MEAN),
                success = mean(crate::metrics::names::SUCCESS_ALL),
                left_s = left.as_secs(),
                "iteration {}/{steps} | {text}",
                report.step
            );
        } else {
            self.progress.set_length(self.run.config.steps);
            self.progress.set_position(report.step);
            self.progress.set_message(text);
        }
    }

    /// Keeps what was measured of the policy as it is now.
    pub(super) fn store_rates(&self, rates: &[SuccessRate]) -> anyhow::Result<()> {
        let step = self.run.step;
        let evaluation = |rate: &SuccessRate| Evaluation {
            step,
            game: rate.game.clone(),
            opponent: rate.opponent.clone(),
            episodes: rate.rates.episodes,
            success: rate.rates.success,
            interval: rate.rates.interval,
            score: rate.rates.score,
            illegal: rate.rates.illegal,
            format_error: rate.rates.format_error,
            turns: rate.rates.turns,
        };
        let evaluations: Vec<Evaluation> = rates.iter().map(evaluation).collect();
        Ok(add_evaluations(&self.folder, step, &evaluations)?)
    }

    /// Whether a trajectory holds several games.
    pub(super) fn is_nested(&self) -> bool {
        let catalog = &self.run.catalog;
        catalog.nest.mode == NestMode::Nested && (catalog.games.len() > 1 || catalog.nest.source.is_some())
    }

    /// The success of every game, if the settings ask for it: in the nest if the games are trained so, as a game that
    /// comes late in a context is another task than the game by itself.
    pub(super) fn evaluate(&self, interrupt: &AtomicBool) -> anyhow::Result<Option<Vec<SuccessRate>>> {
        let config = &self.run.config;
        if config.evaluation.episodes == 0 {
            return Ok(None);
        }
        let matches = Match {
            games: self.run.catalog.games.clone(),
            episodes: config.evaluation.episodes,
            by_game: config.evaluation.by_game.clone(),
            seat: (config.seat > 0).then_some(crate::game::Seat(config.seat)),
            seed: Seed::new(config.seed).child("evaluation", 0),
        };
        let table = Table {
            decoder: self.run.decoder.as_ref(),
            tokenizer: &self.run.tokenizer,
            opponents: self.evaluators.as_ref().unwrap_or(&self.run.opponents),
            nest: &self.run.catalog.nest,
            reward: None,
            decided: None,
            interrupt,
            clock,
        };
        let settings = evaluation_settings(config, self.run.decoder.as_ref());
        let rates = if self.is_nested() {
            matches.play_nested(&table, &settings)
        } else {
            matches.play_policy(&table, &settings)
        };
        match rates {
            Ok(rates) => Ok(Some(rates)),
            Err(crate::rollout::Error::Interrupted) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Stores every script in service, so that the run directory holds each version that was used.
pub(super) fn store_scripts(folder: &Path, catalog: &Catalog) -> anyhow::Result<()> {
    for source in catalog.sources_in_service() {
        checkpoint::store_script(folder, source)?;
    }
    Ok(())
}

/// What reloading did, in numbers and in words; nothing where nothing happened.
fn set_events(record: &mut Record, report: &IterationReport) {
    use crate::metrics::names;
    let retired: Vec<&Diagnostic> =
        report.problems.iter().filter(|problem| problem.code == crate::run::FAILING_VERSION).collect();
    let activated =
        report.reloaded.iter().map(|(name, version)| format!("{name}: version {} is active", version.short()));
    let mut events: Vec<String> = activated.collect();
    events.extend(report.settings.iter().map(ToString::to_string));
    events.extend(report.rejected.iter().map(|problem| format!("not taken: {}", in_short(problem))));
    events.extend(retired.iter().map(|problem| in_short(problem)));
    if events.is_empty() {
        return;
    }
    record.set(names::RELOAD_ACTIVATED, report.reloaded.len()).set(names::RELOAD_SETTINGS, report.settings.len());
    record.set(names::RELOAD_REJECTED, report.rejected.len()).set(names::RELOAD_RETIRED, retired.len());
    record.set(names::RELOAD_EVENTS, events.join("; "));
}

/// A problem in one line: what is wrong, where, and how to fix it.
fn in_short(problem: &Diagnostic) -> String {
    let mut text = format!("{}: {}", problem.code, problem.message);
    if let Some(place) = &problem.place {
        text.extend([", at ", &place.to_string()]);
    }
    if let Some(help) = &problem.help {
        text.extend([" (help: ", help, ")"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::SourceSpan;

    #[test]
    fn a_refused_save_says_where_and_what_to_do() {
        let problem = Diagnostic::error("game::bad_outcome", "`outcome` gave no score");
        assert_eq!(in_short(&problem), "game::bad_outcome: `outcome` gave no score");
        let problem = problem.at(SourceSpan::line("games/nim.lua", 7)).help("write `scores = { 1 }`");
        let expected = "game::bad_outcome: `outcome` gave no score, at games/nim.lua:7 (help: write `scores = { 1 }`)";
        assert_eq!(in_short(&problem), expected);
    }
}
