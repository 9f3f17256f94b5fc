//! A script that rewards an episode: it returns one function of what happened to one number.

use crate::diag::{Diagnostic, SourceSpan};
use crate::script::{Argument, CallError, Script, Source, Value, with_script};

use super::definition::shown;
use super::{ScriptHost, Turn};

/// What a reward script is told of an episode.
#[derive(Clone, Debug)]
pub struct EpisodeSummary<'a> {
    /// The game's name.
    pub game: &'a str,
    /// The learner's seat.
    pub seat: u32,
    /// Scores by seat; zeros if the episode was truncated or forfeited.
    pub scores: &'a [f64],
    /// Success by seat.
    pub success: &'a [bool],
    /// All turns.
    pub turns: &'a [Turn],
    /// Observation and whole answer text of each turn, in the same order.
    pub texts: &'a [(String, String)],
    /// Tokens of the learner's observations.
    pub prompt_tokens: usize,
    /// Tokens that the learner sampled.
    pub response_tokens: usize,
    /// Sum of the format and illegal-action penalties.
    pub penalty: f64,
    /// Whether a limit ended the episode.
    pub truncated: bool,
}

impl EpisodeSummary<'_> {
    fn value(&self) -> Value {
        let turns = self.turns.iter().zip(self.texts).map(|(turn, (observation, answer))| {
            Value::from([
                ("seat", Value::Int(i64::from(turn.seat.0))),
                ("observation", observation.as_str().into()),
                ("answer", answer.as_str().into()),
                ("action", turn.action.as_str().into()),
                ("legal", turn.legal.into()),
                ("well_formed", turn.well_formed.into()),
            ])
        });
        Value::from([
            ("game", self.game.into()),
            ("seat", Value::Int(i64::from(self.seat))),
            (
                "outcome",
                Value::from([("scores", self.scores.to_vec().into()), ("success", self.success.to_vec().into())]),
            ),
            ("turns", Value::List(turns.collect())),
            (
                "tokens",
                Value::from([
                    ("prompt", Value::Int(self.prompt_tokens as i64)),
                    ("response", Value::Int(self.response_tokens as i64)),
                ]),
            ),
            ("penalty", self.penalty.into()),
            ("truncated", self.truncated.into()),
        ])
    }
}

/// One version of a reward script.
#[derive(Clone, Debug)]
pub struct RewardScript {
    /// The script.
    pub source: Source,
    host: ScriptHost,
}

impl RewardScript {
    /// Compiles the script and checks that it returns a function.
    ///
    /// # Errors
    /// A [`Diagnostic`] if it does not compile or returns something else.
    pub fn compile(source: Source, host: &ScriptHost) -> Result<Self, Box<Diagnostic>> {
        let ask = || with_script(&source, &host.limits, &host.library, |script| script.is_function());
        if !host.guarded(&source, ask)?? {
            return Err(Box::new(
                Diagnostic::error("reward::not_a_function", "the reward script returns no function")
                    .at(SourceSpan::file(&source.path))
                    .expected("`return function(episode) … return number end`")
                    .found("a table or other data")
                    .help("return the function itself; games go to `--games`, nests to `--nest`"),
            ));
        }
        Ok(Self { source, host: host.clone() })
    }

    /// The reward of an episode.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the script fails or returns no finite number.
    pub fn reward(&self, episode: &EpisodeSummary<'_>) -> Result<f64, Box<Diagnostic>> {
        let value = episode.value();
        let host = &self.host;
        let run = |script: &dyn Script| script.call("", &mut [Argument::Data(&value)]);
        let run = || with_script(&self.source, &host.limits, &host.library, run);
        let result = host.guarded(&self.source, run)??;
        let found = match result {
            Ok(value) => match number(&value) {
                Some(reward) => return Ok(reward),
                None => shown(&value),
            },
            Err(CallError::Fault(diagnostic)) => return Err(diagnostic),
            Err(CallError::Illegal(_)) => "`gift.illegal`, which has no meaning here".to_owned(),
        };
        Err(Box::new(
            Diagnostic::error("reward::bad_result", "the reward script returned no number")
                .at(SourceSpan::file(&self.source.path))
                .expected("a finite number")
                .found(found)
                .help("make every path of the function end with `return` and a number"),
        ))
    }
}

/// A finite number; true counts 1, false 0.
pub(crate) fn number(value: &Value) -> Option<f64> {
    let number = value.as_number().or_else(|| value.as_bool().map(|truth| if truth { 1.0 } else { 0.0 }))?;
    number.is_finite().then_some(number)
}
