//! Several games in one run: nested in one trajectory, mixed over the groups, or one after the other with an update each
//! (coordinated subtask training). A nest is a script, or the default: all games nested in the order given.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, SourceSpan, closest};
use crate::script::{Argument, CallError, Field, Script, Source, Value, with_script};
use crate::seed::Stream;

use super::ScriptHost;
use super::definition::shown;
use super::fields::misspelt;
use super::reward::number;

/// How the games of a nest are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NestMode {
    /// One trajectory plays every stage; its reward is the joint reward.
    Nested,
    /// Each trajectory plays one stage; the groups are divided over the stages.
    Mixed,
    /// One iteration does a separate rollout and update for each stage in turn (arXiv:2601.05633 v2).
    Cst,
}

/// What a stage of a trajectory came to.
#[derive(Clone, Debug, PartialEq)]
pub struct StageResult {
    /// The game's name.
    pub game: String,
    /// The learner's reward.
    pub reward: f64,
    /// Whether the learner succeeded.
    pub success: bool,
}

/// How a game went lately; what an adaptive nest is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct GameStats {
    /// Success rate.
    pub success: f64,
    /// Mean reward.
    pub reward: f64,
}

/// Most stages of an order. Each is an episode of every trajectory, or a rollout and an update of every iteration.
const MAX_STAGES: usize = 100;
/// Everything that the host reads in a nest's table.
pub const NEST_FIELDS: [&str; 5] = ["mode", "stages", "reward", "k", "weights"];

/// The order and the joint reward of several games.
#[derive(Clone, Debug)]
pub struct Nest {
    /// How the games are put together.
    pub mode: NestMode,
    /// The script, if it is not the default nest.
    pub source: Option<Source>,
    stages: Option<Vec<String>>,
    weights: Vec<f64>,
    updates: Vec<usize>,
    has_reward: bool,
    host: ScriptHost,
}

impl Nest {
    /// The default: all games nested in the order given, or one game alone.
    pub fn in_order(games: Vec<String>, host: &ScriptHost) -> Self {
        Self {
            mode: NestMode::Nested,
            source: None,
            weights: vec![1.0; games.len()],
            updates: vec![1; games.len()],
            stages: Some(games),
            has_reward: false,
            host: host.clone(),
        }
    }

    /// Compiles a nesting script and checks its fields; `games` are the names it may use.
    ///
    /// # Errors
    /// A [`Diagnostic`] that names the field, what it must be and what it is.
    pub fn compile(source: &Source, games: &[String], host: &ScriptHost) -> Result<Self, Box<Diagnostic>> {
        let nest = Self::compile_unchecked(source, host)?;
        if let Some(stages) = &nest.stages {
            nest.check_names(stages, games)?;
        }
        Ok(nest)
    }

    /// Compiles a nesting script and checks its fields, whatever games there are.
    ///
    /// # Errors
    /// A [`Diagnostic`] that names the field, what it must be and what it is.
    pub fn compile_unchecked(source: &Source, host: &ScriptHost) -> Result<Self, Box<Diagnostic>> {
        let read = |script: &dyn Script| {
            read_fields(script, source, host).map_err(|problem| {
                Box::new(if problem.place.is_some() { *problem } else { (*problem).at(SourceSpan::file(&source.path)) })
            })
        };
        host.guarded(source, || with_script(source, &host.limits, &host.library, read))??
    }

    /// Warnings for fields that look like misspelt ones; none for the default nest.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script cannot be loaded.
    pub fn misspelt_fields(&self) -> Result<Vec<Diagnostic>, Box<Diagnostic>> {
        let Some(source) = &self.source else { return Ok(Vec::new()) };
        let read = || with_script(source, &self.host.limits, &self.host.library, |script| script.field_names());
        Ok(misspelt(source, "nest", &self.host.guarded(source, read)??, &NEST_FIELDS))
    }

    fn check_names(&self, stages: &[String], games: &[String]) -> Result<(), Box<Diagnostic>> {
        let Some(unknown) = stages.iter().find(|stage| !games.contains(stage)) else { return Ok(()) };
        let mut problem =
            Diagnostic::error("nest::unknown_game", format!("the nest names the unknown game `{unknown}`"))
                .expected(format!("one of the games of this run: {}", games.join(", ")))
                .found(format!("`{unknown}`"))
                .help(format!("add its script to `--games`, or take `{unknown}` out of `stages`"));
        if let Some(source) = &self.source {
            problem = problem.at(SourceSpan::file(&source.path));
        }
        Err(Box::new(problem))
    }

    /// The names of the stages; `None` if a function of the script decides.
    pub fn stage_names(&self) -> Option<&[String]> {
        self.stages.as_deref()
    }

    /// The stages for one group. A script's function may draw from `stream` and look at `stats`.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails, or names no or unknown games.
    pub fn stages(
        &self,
        games: &[String],
        stats: &BTreeMap<String, GameStats>,
        stream: &mut Stream,
    ) -> Result<Vec<String>, Box<Diagnostic>> {
        if let Some(stages) = &self.stages {
            return Ok(stages.clone());
        }
        let stats = Value::Map(
            stats
                .iter()
                .map(|(game, stats)| {
                    let fields = [("success", stats.success.into()), ("reward", stats.reward.into())];
                    (game.clone(), Value::from(fields))
                })
                .collect(),
        );
        let value = self.call("stages", &mut [Argument::Rng(stream), Argument::Data(&stats)])?;
        let stages = names(&value)
            .ok_or_else(|| self.bad_result("stages", &format!("a list of 1 to {MAX_STAGES} names of games"), &value))?;
        self.check_names(&stages, games)?;
        Ok(stages)
    }

    /// The share of the groups that each stage gets, in the order of `stages` (mixed).
    pub fn weights(&self, stage_count: usize) -> Vec<f64> {
        (0..stage_count).map(|stage| self.weights.get(stage).copied().unwrap_or(1.0)).collect()
    }

    /// The rollouts-and-updates of a stage in one iteration (coordinated subtask training).
    pub fn updates(&self, stage: usize) -> usize {
        self.updates.get(stage).copied().unwrap_or(1)
    }

    /// The joint reward of a nested trajectory: the script's, or the mean (GIFT v1). A single stage keeps its own.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails or returns no finite number.
    pub fn reward(&self, results: &[StageResult]) -> Result<f64, Box<Diagnostic>> {
        if !self.has_reward || self.mode != NestMode::Nested {
            return Ok(results.iter().map(|result| result.reward).sum::<f64>() / results.len().max(1) as f64);
        }
        let value = Value::List(
            results
                .iter()
                .map(|result| {
                    Value::from([
                        ("game", result.game.as_str().into()),
                        ("reward", result.reward.into()),
                        ("success", result.success.into()),
                    ])
                })
                .collect(),
        );
        let value = self.call("reward", &mut [Argument::Data(&value)])?;
        number(&value).ok_or_else(|| self.bad_result("reward", "a finite number", &value))
    }

    fn call(&self, function: &'static str, arguments: &mut [Argument<'_>]) -> Result<Value, Box<Diagnostic>> {
        let Some(source) = &self.source else {
            return Err(Box::new(Diagnostic::error("nest::no_script", "the default nest has no functions")));
        };
        let run = |script: &dyn Script| script.call(function, arguments);
        let run = || with_script(source, &self.host.limits, &self.host.library, run);
        let result = self.host.guarded(source, run)??;
        result.map_err(|error| match error {
            CallError::Fault(diagnostic) => diagnostic,
            CallError::Illegal(reason) => self.bad_result(function, "a value", &Value::Text(reason)),
        })
    }

    fn bad_result(&self, function: &str, expected: &str, found: &Value) -> Box<Diagnostic> {
        let mut problem =
            Diagnostic::error("nest::bad_result", format!("`{function}` of the nest returned the wrong value"))
                .expected(expected)
                .found(shown(found))
                .help("see `Nests` in `games/README.md`");
        if let Some(source) = &self.source {
            problem = problem.at(SourceSpan::file(&source.path));
        }
        Box::new(problem)
    }
}

fn names(value: &Value) -> Option<Vec<String>> {
    let names: Option<Vec<String>> =
        value.as_list()?.iter().map(|item| item.as_text().map(ToOwned::to_owned)).collect();
    names.filter(|names| (1..=MAX_STAGES).contains(&names.len()))
}

fn read_fields(script: &dyn Script, source: &Source, host: &ScriptHost) -> Result<Nest, Box<Diagnostic>> {
    let place_of =
        |field: &str, problem: Diagnostic| Box::new(source.illustrate(problem.at(source.place_of_field(field))));
    let bad = |field: &str, expected: &str, found: String| {
        let problem =
            Diagnostic::error("nest::bad_field", format!("`{field}` of the nest is missing or of the wrong kind"))
                .expected(expected)
                .found(found)
                .help("a nest is `return { mode = \"nested\", stages = { \"math\", \"tictactoe\" } }`");
        place_of(field, problem)
    };
    let field = |name: &str| script.field(name);
    if script.is_function() {
        return Err(bad("mode", "a table with `mode` and `stages`", "a function".to_owned()));
    }
    let mode = match field("mode")? {
        Field::Missing => NestMode::Nested,
        Field::Data(Value::Text(mode)) if mode == "nested" => NestMode::Nested,
        Field::Data(Value::Text(mode)) if mode == "mixed" => NestMode::Mixed,
        Field::Data(Value::Text(mode)) if mode == "cst" => NestMode::Cst,
        Field::Data(Value::Text(mode)) => {
            let help = match closest(&mode, ["nested", "mixed", "cst"])
                .or_else(|| mode.starts_with("nest").then_some("nested"))
            {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write `mode = \"nested\"`, or leave it out".to_owned(),
            };
            let problem = Diagnostic::error("nest::bad_field", format!("`{mode}` is no mode of a nest"))
                .expected("\"nested\", \"mixed\" or \"cst\"")
                .found(format!("`mode = {mode:?}`"))
                .help(help);
            return Err(place_of("mode", problem));
        }
        Field::Data(other) => return Err(bad("mode", "\"nested\", \"mixed\" or \"cst\"", shown(&other))),
        Field::Function => return Err(bad("mode", "\"nested\", \"mixed\" or \"cst\"", "a function".to_owned())),
    };
    let expected = &*format!("a list of 1 to {MAX_STAGES} names of games, or `function(rng, stats) … return list end`");
    let stages = match field("stages")? {
        Field::Function => None,
        Field::Data(value) => Some(names(&value).ok_or_else(|| bad("stages", expected, shown(&value)))?),
        Field::Missing => return Err(bad("stages", expected, "nothing".to_owned())),
    };
    let count = stages.as_ref().map(Vec::len);
    let numbers = |name: &str, expected: &str, holds: fn(f64) -> bool| -> Result<Vec<f64>, Box<Diagnostic>> {
        match field(name)? {
            Field::Missing => Ok(Vec::new()),
            Field::Function => Err(bad(name, expected, "a function".to_owned())),
            Field::Data(value) => {
                let list: Option<Vec<f64>> =
                    value.as_list().and_then(|list| list.iter().map(Value::as_number).collect());
                list.filter(|list| list.iter().all(|&n| holds(n)) && count.is_none_or(|count| count == list.len()))
                    .ok_or_else(|| bad(name, expected, shown(&value)))
            }
        }
    };
    let weights = numbers("weights", "a number of 0 or more for each stage", |n| n.is_finite() && n >= 0.0)?;
    if !weights.is_empty() && weights.iter().sum::<f64>() <= 0.0 {
        return Err(bad("weights", "at least one above 0", "only zeros".to_owned()));
    }
    let updates = numbers("k", "a whole number from 1 to 100 for each stage", |n| {
        n.fract() == 0.0 && (1.0..=100.0).contains(&n)
    })?;
    let has_reward = match field("reward")? {
        Field::Function => true,
        Field::Missing => false,
        Field::Data(other) => return Err(bad("reward", "`function(results) … return number end`", shown(&other))),
    };
    Ok(Nest {
        mode,
        source: Some(source.clone()),
        stages,
        weights,
        updates: updates.into_iter().map(|n| n as usize).collect(),
        has_reward,
        host: host.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::script::Language;
    use crate::seed::Seed;

    fn compile(text: &str) -> Result<Nest, Box<Diagnostic>> {
        let source = Source::new(Path::new("nest.lua"), Language::Lua, text, BTreeMap::new());
        Nest::compile(&source, &["a".to_owned(), "b".to_owned()], &ScriptHost::default())
    }

    fn results(rewards: [(f64, bool); 2]) -> Vec<StageResult> {
        let of = |(reward, success)| StageResult { game: "a".to_owned(), reward, success };
        rewards.into_iter().map(of).collect()
    }

    /// Every stage is an episode of each trajectory, or a rollout of each iteration.
    #[test]
    fn an_order_is_bounded() {
        let stages = |count: usize| vec!["'a'"; count].join(", ");
        assert!(compile(&format!("return {{ stages = {{ {} }} }}", stages(MAX_STAGES))).is_ok());
        let problem = compile(&format!("return {{ stages = {{ {} }} }}", stages(MAX_STAGES + 1))).unwrap_err();
        assert!(problem.code == "nest::bad_field" && problem.to_string().contains("1 to 100 names"), "{problem}");
        let drawn = compile("return { stages = function() return table.create(101, 'a') end }").unwrap();
        let mut stream = Seed::new(0).stream();
        let problem = drawn.stages(&["a".to_owned()], &BTreeMap::new(), &mut stream).unwrap_err();
        assert!(problem.code == "nest::bad_result" && problem.to_string().contains("1 to 100 names"), "{problem}");
    }

    #[test]
    fn the_joint_reward_is_the_mean_or_the_scripts() {
        let results = results([(1.0, true), (0.5, false)]);
        assert_eq!(compile("return { stages = { 'a', 'b' } }").unwrap().reward(&results).unwrap(), 0.75);
        let script = |body: &str| {
            let text = format!("return {{ stages = {{ 'a', 'b' }}, reward = function(r) return {body} end }}");
            compile(&text).unwrap().reward(&results)
        };
        assert_eq!(script("gift.mean(r)").unwrap(), 0.75);
        assert_eq!(script("gift.min(r)").unwrap(), 0.5);
        assert_eq!(script("gift.product(r)").unwrap(), 0.5);
        assert_eq!(script("gift.all(r)").unwrap(), 0.0);
        assert_eq!(script("r[1].reward + 1").unwrap(), 2.0);
        assert!(script("'many'").is_err());
    }

    #[test]
    fn an_order_may_depend_on_success_and_chance() {
        let nest = compile(
            "return { stages = function(rng, stats) if stats.a and stats.a.success > 0.5 then return { 'b' } end \
             return rng:shuffle({ 'a', 'b' }) end }",
        )
        .unwrap();
        let games = ["a".to_owned(), "b".to_owned()];
        let mut stream = Seed::new(1).stream();
        let mut stages = |success| {
            let stats = BTreeMap::from([("a".to_owned(), GameStats { success, reward: 0.0 })]);
            nest.stages(&games, &stats, &mut stream).unwrap()
        };
        assert_eq!(stages(0.9), ["b"]);
        let orders: std::collections::BTreeSet<_> = (0..20).map(|_| stages(0.1)).collect();
        assert_eq!(orders.len(), 2);
    }

    #[test]
    fn wrong_nests_are_refused_with_the_reason() {
        for (text, part) in [
            ("return { stages = { 'a', 'c' } }", "unknown game `c`"),
            ("return { stages = {} }", "`stages`"),
            ("return { mode = 'nest', stages = { 'a' } }", "did you mean `nested`?"),
            ("return { mode = 'cst', stages = { 'a' }, k = { 1, 2 } }", "`k`"),
            ("return { mode = 'mixed', stages = { 'a' }, weights = { 0 } }", "`weights`"),
            ("return {}", "`stages`"),
        ] {
            let problem = compile(text).unwrap_err().to_string();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }
}
