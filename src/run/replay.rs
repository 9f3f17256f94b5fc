//! Plays a stored episode again, from the versions, seeds and actions of its line in the episodes file, and compares
//! everything that follows from them: whose turn it is, what the learner saw, how its answers were read, what was legal,
//! scores, rewards and success.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;

use crate::config::{AnswerFormat, ObservationKind};
use crate::diag::Diagnostic;
use crate::game::{
    Action, Episode, EpisodeSummary, GameDef, Nest, RewardScript, ScriptHost, Seat, StageResult, Status, abandonable,
};
use crate::script::{Source, Value, Version};
use crate::seed::Seed;

/// What playing an episode again came to.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The episode in words.
    pub transcript: String,
    /// The first thing that is not as it was; `None` if everything is.
    pub difference: Option<String>,
}

/// One value, or one for each stage.
#[derive(Deserialize)]
#[serde(untagged)]
enum Each<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> Each<T> {
    fn get(&self, stage: usize) -> Option<&T> {
        match self {
            Self::One(value) => (stage == 0).then_some(value),
            Self::Many(values) => values.get(stage),
        }
    }
}

/// The fields of a line that a replay needs.
#[derive(Deserialize)]
struct Line {
    id: String,
    step: u64,
    game: Each<String>,
    seed: Each<u64>,
    seat: Each<u32>,
    scripts: Vec<Version>,
    conditions: LineConditions,
    reward: f64,
    stage_rewards: Vec<f64>,
    stage_success: Vec<bool>,
    stage_scores: Vec<Vec<f64>>,
    /// Of the learner's observations, and sampled.
    stage_tokens: Vec<[usize; 2]>,
    success: bool,
    truncated: bool,
    turns: Vec<LineTurn>,
}

#[derive(Deserialize)]
struct LineConditions {
    nest: Option<Version>,
    reward: Option<Version>,
    observation: ObservationKind,
    format: AnswerFormat,
    format_penalty: f64,
    illegal_penalty: f64,
    options: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct LineTurn {
    stage: usize,
    seat: u32,
    observation: String,
    answer: String,
    action: String,
    legal: bool,
    well_formed: bool,
    reward: f64,
}

/// Why a replay stops.
enum Stop {
    Difference(String),
    Problem(Box<Diagnostic>),
}

impl From<Box<Diagnostic>> for Stop {
    fn from(problem: Box<Diagnostic>) -> Self {
        Self::Problem(problem)
    }
}

/// Plays the episode of a line of an episodes file. `load` gives the script of a version.
///
/// # Errors
/// A [`Diagnostic`] if the line is not what [`super::episode_line`] writes, or a script of it cannot be had. A script that
/// fails where it did not is a difference.
pub fn replay(
    line: &serde_json::Value,
    load: &dyn Fn(&Version) -> Result<Source, Box<Diagnostic>>,
    host: &ScriptHost,
) -> Result<Replay, Box<Diagnostic>> {
    let line = Line::deserialize(line).map_err(|error| {
        Box::new(
            Diagnostic::error("replay::line", "the stored episode cannot be read")
                .expected("a line as this version of the program writes it")
                .found(error.to_string())
                .help("an episode can be played again by the version of the program that wrote it"),
        )
    })?;
    let mut scripts = BTreeMap::new();
    for version in line.scripts.iter().chain(&line.conditions.nest).chain(&line.conditions.reward) {
        scripts.insert(version.clone(), load(version)?);
    }
    let mut player = Player { line: &line, scripts, host, transcript: String::new() };
    let result = abandonable(|| player.play()).unwrap_or_else(|| {
        Err(Stop::Difference("a call of a script could not be stopped, and its thread was given up".to_owned()))
    });
    let transcript = player.transcript;
    let difference = match result {
        Ok(()) => None,
        Err(Stop::Difference(difference)) => Some(difference),
        Err(Stop::Problem(problem)) => Some(format!("a script failed that had not failed\n{problem}")),
    };
    Ok(Replay { transcript, difference })
}

struct Player<'a> {
    line: &'a Line,
    scripts: BTreeMap<Version, Source>,
    host: &'a ScriptHost,
    transcript: String,
}

fn same<T: PartialEq + std::fmt::Debug>(what: impl FnOnce() -> String, stored: &T, now: &T) -> Result<(), Stop> {
    if stored == now {
        return Ok(());
    }
    Err(Stop::Difference(format!("{}\n  stored: {stored:?}\n  now:    {now:?}", what())))
}

impl Player<'_> {
    fn say(&mut self, text: &str) {
        // Writing to a string cannot fail.
        _ = writeln!(self.transcript, "{text}");
    }

    fn script(&self, version: &Version) -> Result<Source, Stop> {
        let missing = || Stop::Difference(format!("version {version} was not loaded"));
        self.scripts.get(version).cloned().ok_or_else(missing)
    }

    fn play(&mut self) -> Result<(), Stop> {
        let line = self.line;
        let reward = match &line.conditions.reward {
            Some(version) => Some(RewardScript::compile(self.script(version)?, self.host)?),
            None => None,
        };
        let mut results = Vec::new();
        for stage in 0..line.scripts.len() {
            results.push(self.stage(stage, reward.as_ref())?);
        }
        let names: Vec<String> = results.iter().map(|result| result.game.clone()).collect();
        let nest = match &line.conditions.nest {
            // A nest may name games that this trajectory does not play, so the names are not checked again.
            Some(version) => Nest::compile_unchecked(&self.script(version)?, self.host)?,
            None => Nest::in_order(names, self.host),
        };
        let joint = nest.reward(&results)?;
        self.say(&format!("reward of the trajectory: {joint}"));
        same(|| "the reward of the trajectory".to_owned(), &line.reward, &joint)?;
        same(|| "the success of the trajectory".to_owned(), &line.success, &results.iter().all(|stage| stage.success))
    }

    fn stage(&mut self, stage: usize, reward: Option<&RewardScript>) -> Result<StageResult, Stop> {
        let line = self.line;
        let lacking = || Stop::Difference(format!("the line says too little about stage {}", stage + 1));
        let version = line.scripts.get(stage).ok_or_else(lacking)?;
        let seat = Seat(*line.seat.get(stage).ok_or_else(lacking)?);
        let seed = *line.seed.get(stage).ok_or_else(lacking)?;
        let name = line.game.get(stage).ok_or_else(lacking)?;
        let options = line.conditions.options.get(name).map(Value::from_json);
        let options = options.unwrap_or_else(|| Value::Map(BTreeMap::new()));
        let game = Arc::new(GameDef::compile(&self.script(version)?, options, self.host)?);
        self.say(&format!(
            "episode {} of iteration {}, stage {}: {name}, version {}, seed {seed}; the learner has seat {seat}",
            line.id,
            line.step,
            stage + 1,
            version.short()
        ));
        let mut episode = Episode::start(&game, Seed::new(seed))?;
        let turns: Vec<&LineTurn> = line.turns.iter().filter(|turn| turn.stage == stage).collect();
        for (number, turn) in turns.iter().enumerate() {
            let place = |what: &str| format!("{what} in turn {} of stage {}", number + 1, stage + 1);
            self.turn(&mut episode, turn, seat, &place)?;
        }
        if matches!(episode.status(), Status::Turn(_)) {
            if !line.truncated {
                return Err(Stop::Difference(format!("stage {} goes on after its last stored turn", stage + 1)));
            }
            // The context was full.
            episode.truncate();
        }
        let (score, success) = episode.result(seat);
        let (scores, successes) = match episode.status() {
            Status::Terminated(outcome) => (outcome.scores.clone(), outcome.success.clone()),
            _ => (vec![0.0; game.seats as usize], vec![false; game.seats as usize]),
        };
        let [prompt_tokens, response_tokens] = *line.stage_tokens.get(stage).ok_or_else(lacking)?;
        let penalty: f64 = turns.iter().map(|turn| turn.reward).sum();
        let texts: Vec<_> = turns.iter().map(|turn| (turn.observation.clone(), turn.answer.clone())).collect();
        let reward = match reward {
            None => score + penalty,
            Some(script) => script.reward(&EpisodeSummary {
                game: name,
                seat: seat.0,
                scores: &scores,
                success: &successes,
                turns: episode.turns(),
                texts: &texts,
                prompt_tokens,
                response_tokens,
                penalty,
                truncated: *episode.status() == Status::Truncated,
            })?,
        };
        self.say(&format!("  scores {scores:?}, success {success}, reward {reward}"));
        let of = |what: &str| format!("{what} of stage {}", stage + 1);
        same(|| of("the scores"), line.stage_scores.get(stage).ok_or_else(lacking)?, &scores)?;
        same(|| of("the success"), line.stage_success.get(stage).ok_or_else(lacking)?, &success)?;
        same(|| of("the reward"), line.stage_rewards.get(stage).ok_or_else(lacking)?, &reward)?;
        Ok(StageResult { game: name.clone(), reward, success })
    }

    fn turn(
        &mut self,
        episode: &mut Episode,
        turn: &LineTurn,
        learner: Seat,
        place: &dyn Fn(&str) -> String,
    ) -> Result<(), Stop> {
        let conditions = &self.line.conditions;
        let seat = Seat(turn.seat);
        match *episode.status() {
            Status::Turn(now) => same(|| place("the seat to act"), &seat, &now)?,
            _ => return Err(Stop::Difference(format!("{}, which is over", place("a turn is stored")))),
        }
        let mut penalty = 0.0;
        let action = Action { text: turn.action.clone(), well_formed: turn.well_formed };
        if seat == learner {
            let observation = episode.observation(seat, conditions.observation == ObservationKind::Brief)?;
            let observation = conditions.format.asked_for(observation);
            self.say(&format!("  seat {seat} sees: {}", observation.trim_end().replace('\n', "\n    ")));
            same(|| place("the observation"), &turn.observation, &observation)?;
            self.say(&format!("  seat {seat} answers: {}", turn.answer.trim().replace('\n', "\n    ")));
            let read = episode.game().read_answer(episode.state(), seat, &turn.answer, conditions.format)?;
            same(|| place("the action read from the answer"), &action, &read)?;
        }
        episode.act(seat, &action)?;
        let refusal = episode.turns().last().and_then(|turn| turn.refusal.clone());
        let result = refusal.as_ref().map_or_else(String::new, |reason| format!(", which is refused: {reason}"));
        self.say(&format!("  seat {seat} plays `{}`{result}", turn.action));
        same(|| place("whether the action is legal"), &turn.legal, &refusal.is_none())?;
        if seat == learner && !turn.well_formed {
            penalty = conditions.format_penalty;
        } else if seat == learner && !turn.legal {
            penalty = conditions.illegal_penalty;
        }
        same(|| place("the penalty"), &turn.reward, &penalty)
    }
}
