//! One opponent as users write it: `SPEC`, or a mixture such as `random*0.2+search*0.8`. Which game and seat it is for is
//! read by [`super::assignment`].

use std::fmt;
use std::time::Duration;

use super::remote::Endpoint;
use crate::diag::Diagnostic;
use crate::seed::Seed;

/// Positions that one move of `search` may visit by default.
pub const DEFAULT_NODES: usize = 100_000;
/// Every kind of opponent.
const KINDS: [&str; 9] = ["random", "bot", "search", "human", "openai", "self", "checkpoint", "gguf", "league"];
const KNOWN: &str = "`random`, `bot`, `search`, `search:BUDGET`, `self`, `checkpoint:DIR`, `gguf:FILE`, `league`, \
                     `openai:URL#MODEL` or `human`";

/// One kind of opponent.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// A uniformly random legal action.
    Random,
    /// The script's own player.
    Bot,
    /// Search within a budget.
    Search(Strength),
    /// A person in the terminal (`play` only).
    Human,
    /// A language model behind a server.
    Remote(Endpoint),
    /// The policy itself: every such seat is trained.
    Policy,
    /// A model that is not trained.
    Model(ModelSource),
    /// Who the league draws.
    League,
}

/// Where a frozen model is read from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelSource {
    /// What kind of place it is.
    pub kind: ModelKind,
    /// A folder with a model, a run directory (its newest checkpoint), or a file.
    pub path: String,
}

/// The kinds of places that hold models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelKind {
    /// A folder in Hugging Face's layout, or a run directory.
    Checkpoint,
    /// A GGUF file.
    Gguf,
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ModelKind::Checkpoint => "checkpoint",
            ModelKind::Gguf => "gguf",
        };
        write!(f, "{kind}:{}", self.path)
    }
}

/// How strong a search is, from random (`epsilon=1`) to perfect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength {
    /// Where it ends.
    pub limit: SearchLimit,
    /// Probability of a random legal action instead, drawn for each turn.
    pub epsilon: f64,
    /// Whether it looks at the whole state, hidden parts too.
    pub sees_all: bool,
}

/// The budget of one move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchLimit {
    /// Positions. Deterministic.
    Nodes(usize),
    /// Moves ahead; positions there are valued by `game.score`, or 0. Deterministic.
    Depth(usize),
    /// Time on the clock. What it finds differs from run to run.
    Time(Duration),
}

impl Default for Strength {
    fn default() -> Self {
        Self { limit: SearchLimit::Nodes(DEFAULT_NODES), epsilon: 0.0, sees_all: false }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => f.write_str("random"),
            Self::Bot => f.write_str("bot"),
            Self::Search(strength) => write!(f, "search{strength}"),
            Self::Human => f.write_str("human"),
            Self::Remote(endpoint) => endpoint.fmt(f),
            Self::Policy => f.write_str("self"),
            Self::Model(source) => source.fmt(f),
            Self::League => f.write_str("league"),
        }
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            SearchLimit::Nodes(DEFAULT_NODES) => {}
            SearchLimit::Nodes(nodes) => write!(f, ":{nodes}")?,
            SearchLimit::Depth(depth) => write!(f, ":depth={depth}")?,
            SearchLimit::Time(time) => write!(f, ":ms={}", time.as_millis())?,
        }
        if self.epsilon > 0.0 {
            write!(f, ":epsilon={}", self.epsilon)?;
        }
        if self.sees_all { f.write_str(":sees=all") } else { Ok(()) }
    }
}

impl Spec {
    /// Reads one `SPEC`.
    ///
    /// # Errors
    /// A [`Diagnostic`] that says what is not known.
    pub fn parse(text: &str) -> Result<Self, Box<Diagnostic>> {
        one(text.trim())
    }
}

/// Opponents with their weights, one of which is drawn for each episode.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture(Vec<(Spec, f64)>);

impl Mixture {
    /// Only this one.
    pub(super) fn one(spec: Spec) -> Self {
        Self(vec![(spec, 1.0)])
    }

    /// Its parts.
    pub fn parts(&self) -> impl Iterator<Item = &Spec> {
        self.0.iter().map(|(spec, _)| spec)
    }

    /// Its parts, to be changed.
    pub(super) fn parts_mut(&mut self) -> impl Iterator<Item = &mut Spec> {
        self.0.iter_mut().map(|(spec, _)| spec)
    }

    /// One part, with a probability in proportion to its weight; always the same one for the same seed.
    pub(super) fn draw(&self, seed: Seed) -> &Spec {
        if let [(only, _)] = self.0.as_slice() {
            return only;
        }
        let total: f64 = self.0.iter().map(|(_, weight)| weight).sum();
        let mut left = seed.stream().float() * total;
        for (spec, weight) in &self.0 {
            left -= weight;
            if left < 0.0 {
                return spec;
            }
        }
        // Rounding may leave a rest.
        self.0.last().map_or(&Spec::Random, |(spec, _)| spec)
    }
}

impl fmt::Display for Mixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (spec, weight)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("+")?;
            }
            write!(f, "{spec}")?;
            if self.0.len() > 1 {
                write!(f, "*{weight}")?;
            }
        }
        Ok(())
    }
}

/// Reads `SPEC` or `SPEC*WEIGHT+SPEC*WEIGHT…`; a weight that is left out is 1.
pub(super) fn parse_mixture(text: &str) -> Result<Mixture, Box<Diagnostic>> {
    let terms = terms(text);
    let is_mixed = terms.len() > 1;
    let parts = terms.into_iter().map(|term| {
        let (spec, weight) = match term.rsplit_once('*') {
            Some((spec, weight)) => (spec, weight_of(weight, term)?),
            None => (term, 1.0),
        };
        let spec = one(spec.trim())?;
        if is_mixed && spec == Spec::Human {
            return Err(Box::new(
                Diagnostic::error("opponent::mixture", "a person cannot be part of a mixture")
                    .expected("`human` by itself")
                    .found(format!("`{text}`"))
                    .help("drop the other parts, or `human`"),
            ));
        }
        Ok((spec, weight))
    });
    Ok(Mixture(parts.collect::<Result<_, _>>()?))
}

/// Splits at each `+` that another kind of opponent follows: a model's name or place may hold one, too.
fn terms(text: &str) -> Vec<&str> {
    let names_a_model = ["openai:", "checkpoint:", "gguf:"].iter().any(|kind| text.contains(kind));
    let begins = |rest: &str| {
        let word = rest.trim_start().split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        KINDS.contains(&word) || !names_a_model
    };
    let mut terms = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices('+') {
        if begins(&text[at + 1..]) {
            terms.push(text[start..at].trim());
            start = at + 1;
        }
    }
    terms.push(text[start..].trim());
    terms
}

fn weight_of(weight: &str, term: &str) -> Result<f64, Box<Diagnostic>> {
    let number = weight.trim().parse::<f64>().ok().filter(|weight| weight.is_finite() && *weight > 0.0);
    number.ok_or_else(|| {
        Box::new(
            Diagnostic::error("opponent::mixture", "the weight of an opponent is not a positive number")
                .expected("a number above 0 behind the `*`")
                .found(format!("`{}` in `{term}`", weight.trim()))
                .help("write `random*0.2+search*0.8`; only the ratio of the weights matters"),
        )
    })
}

fn one(text: &str) -> Result<Spec, Box<Diagnostic>> {
    let (kind, argument) = text.split_once(':').map_or((text, None), |(kind, argument)| (kind, Some(argument)));
    let problem =
        |message: String| Diagnostic::error("opponent::unknown", message).expected(KNOWN).found(format!("`{text}`"));
    match (kind, argument) {
        ("", None) => Err(Box::new(
            problem("an opponent is missing".to_owned()).help("write one there, or drop the `+`, `=` or `,` beside it"),
        )),
        ("random", None) => Ok(Spec::Random),
        ("bot", None) => Ok(Spec::Bot),
        ("human", None) => Ok(Spec::Human),
        ("search", None) => Ok(Spec::Search(Strength::default())),
        ("search", Some(budget)) => strength(budget, text).map(Spec::Search),
        ("openai", address) => Endpoint::parse(address.unwrap_or_default()).map(Spec::Remote),
        ("self", None) => Ok(Spec::Policy),
        ("league", None) => Ok(Spec::League),
        ("checkpoint", path) => model(ModelKind::Checkpoint, path, "a folder with a model, or a run directory"),
        ("gguf", path) => model(ModelKind::Gguf, path, "a file that ends in `.gguf`"),
        ("random" | "bot" | "human" | "self" | "league", Some(_)) => {
            Err(Box::new(problem(format!("`{kind}` takes no argument")).help(format!("write `{kind}`"))))
        }
        _ => {
            let near = crate::diag::closest(kind, KINDS);
            let help = near.map_or("see `gift-host train --help`".to_owned(), |near| format!("did you mean `{near}`?"));
            Err(Box::new(problem(format!("`{text}` is not a known opponent")).help(help)))
        }
    }
}

fn model(kind: ModelKind, path: Option<&str>, expected: &str) -> Result<Spec, Box<Diagnostic>> {
    let path = path.unwrap_or_default().trim();
    let source = ModelSource { kind, path: path.to_owned() };
    let is_file = path.to_ascii_lowercase().ends_with(".gguf");
    if !path.is_empty() && (kind == ModelKind::Checkpoint || is_file) {
        return Ok(Spec::Model(source));
    }
    let (name, example) = match kind {
        ModelKind::Checkpoint => ("checkpoint", "checkpoint:runs/tictactoe-1"),
        ModelKind::Gguf => ("gguf", "gguf:models/small.gguf"),
    };
    let message = if path.is_empty() { "does not say where its model is" } else { "is given no such file" };
    Err(Box::new(
        Diagnostic::error("opponent::model", format!("`{name}` {message}"))
            .expected(format!("{expected}, behind the `:`"))
            .found(format!("`{}`", source.to_string().trim_end_matches(':')))
            .help(format!("such as `{example}`")),
    ))
}

/// Reads `POSITIONS` or `KEY=VALUE`, several with a `:` between them.
fn strength(budget: &str, text: &str) -> Result<Strength, Box<Diagnostic>> {
    let problem = |message: String, expected: &str| {
        Box::new(
            Diagnostic::error("opponent::strength", message)
                .expected(expected)
                .found(format!("`{text}`"))
                .help("such as `search:nodes=50000`, `search:depth=3`, `search:ms=20` or `search:2000:epsilon=0.1`"),
        )
    };
    let mut strength = Strength::default();
    let mut has_limit = false;
    for part in budget.split(':').map(str::trim) {
        let (key, value) = part.split_once('=').unwrap_or(("nodes", part));
        let count = || match value.replace('_', "").parse::<usize>() {
            Ok(number) if (1..=1_000_000_000).contains(&number) => Ok(number),
            _ => Err(problem(
                format!("the budget of `search` is not a number of {}", unit(key)),
                "a whole number from 1 to 1000000000",
            )),
        };
        if matches!(key, "nodes" | "depth" | "ms") && std::mem::replace(&mut has_limit, true) {
            return Err(problem("`search` has two budgets".to_owned(), "one of `nodes`, `depth` and `ms`"));
        }
        match key {
            "nodes" => strength.limit = SearchLimit::Nodes(count()?),
            "depth" => strength.limit = SearchLimit::Depth(count()?),
            "ms" => strength.limit = SearchLimit::Time(Duration::from_millis(count()? as u64)),
            "epsilon" => {
                let share = value.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
                strength.epsilon = share.ok_or_else(|| {
                    problem("`epsilon` of `search` is not a probability".to_owned(), "a number from 0 to 1")
                })?;
            }
            "sees" => {
                strength.sees_all = match value {
                    "all" => true,
                    "seat" => false,
                    _ => return Err(problem("`search` cannot see that".to_owned(), "`sees=all` or `sees=seat`")),
                };
            }
            _ => {
                let keys = ["nodes", "depth", "ms", "epsilon", "sees"];
                let near =
                    crate::diag::closest(key, keys).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                return Err(problem(
                    format!("`search` has no setting `{key}`{near}"),
                    "`nodes`, `depth`, `ms`, `epsilon` or `sees`",
                ));
            }
        }
    }
    Ok(strength)
}

fn unit(key: &str) -> &'static str {
    match key {
        "depth" => "moves",
        "ms" => "milliseconds",
        _ => "positions",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strength_is_read_and_written_alike() {
        for text in [
            "random",
            "bot",
            "search",
            "search:500",
            "search:depth=3",
            "search:ms=20",
            "search:depth=3:epsilon=0.1",
            "search:2000:epsilon=0.5:sees=all",
            "random*0.2+search:depth=2*0.8",
            "openai:http://localhost:8000/v1#org/model+chat:8b*0.5+bot*0.5",
            "self*0.5+search*0.5",
            "checkpoint:runs/a+b=c/checkpoints/step-000010*0.5+league*0.5",
            "gguf:models/small.Q4_1.gguf",
        ] {
            assert_eq!(parse_mixture(text).unwrap().to_string(), text);
        }
        assert_eq!(parse_mixture("search:nodes=500").unwrap().to_string(), "search:500");
        assert_eq!(parse_mixture(" random + bot ").unwrap().to_string(), "random*1+bot*1");
    }

    #[test]
    fn what_is_not_known_is_named_with_the_nearest() {
        for (text, told) in [
            ("serch", "did you mean `search`?"),
            ("search:fast", "not a number of positions"),
            ("search:depth=0", "not a number of moves"),
            ("search:depth=3:ms=5", "two budgets"),
            ("search:dept=3", "did you mean `depth`?"),
            ("search:epsilon=2", "a number from 0 to 1"),
            ("search:sees=half", "`sees=all` or `sees=seat`"),
            ("bot:3", "takes no argument"),
            ("random*x+bot", "`x` in `random*x`"),
            ("random*-1+bot", "above 0"),
            ("random+human", "a person cannot be part"),
            ("random+", "an opponent is missing"),
            ("self:3", "takes no argument"),
            ("checkpoint", "does not say where"),
            ("checkpoint:", "runs/tictactoe-1"),
            ("gguf:models/small", "ends in `.gguf`"),
            ("openai:localhost#m", "no web address"),
        ] {
            let problem = parse_mixture(text).unwrap_err().to_string();
            assert!(problem.contains(told), "{text}: {problem}");
        }
    }

    #[test]
    fn a_mixture_draws_its_parts_by_their_weights() {
        let mixture = parse_mixture("random*1+bot*3").unwrap();
        let seeds = (0..4000).map(|number| Seed::new(3).child("draw", number));
        let random = seeds.filter(|&seed| *mixture.draw(seed) == Spec::Random).count();
        // Five standard deviations of a binomial count with n = 4,000 and p = 1/4 are 137.
        assert!(random.abs_diff(1000) < 137, "{random}");
        assert_eq!(mixture.draw(Seed::new(9)), mixture.draw(Seed::new(9)));
    }
}
