//! `SPEC`s as users write them.

use std::collections::BTreeMap;
use std::fmt;

use super::DEFAULT_NODES;
use crate::diag::Diagnostic;

/// One kind of opponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spec {
    /// A uniformly random legal action.
    Random,
    /// The script's own player.
    Bot,
    /// Perfect play by search, as far as this many positions reach.
    Search(usize),
    /// A person in the terminal (`play` only).
    Human,
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => f.write_str("random"),
            Self::Bot => f.write_str("bot"),
            Self::Search(DEFAULT_NODES) => f.write_str("search"),
            Self::Search(nodes) => write!(f, "search:{nodes}"),
            Self::Human => f.write_str("human"),
        }
    }
}

/// The `SPEC` of most games, if there is one, and those of the games that are named.
type Specs = (Option<Spec>, BTreeMap<String, Spec>);

/// Reads `SPEC`, `SPEC,game=SPEC,…` or `game=SPEC,…`; the first part of the result is the `SPEC` of all other games.
pub(super) fn parse(text: &str) -> Result<Specs, Box<Diagnostic>> {
    let mut default = None;
    let mut by_game = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        // A URL may hold `=`, so only a plain name before the first one is a game.
        match part.split_once('=').filter(|(game, _)| !game.contains([':', '/'])) {
            Some((game, spec)) => _ = by_game.insert(game.trim().to_owned(), one(spec.trim())?),
            None => default = Some(one(part)?),
        }
    }
    Ok((default, by_game))
}

fn one(text: &str) -> Result<Spec, Box<Diagnostic>> {
    let (kind, argument) = text.split_once(':').map_or((text, None), |(kind, argument)| (kind, Some(argument)));
    let problem = |message: String| {
        Diagnostic::error("opponent::unknown", message)
            .expected("`random`, `bot`, `search`, `search:POSITIONS` or `human`")
            .found(format!("`{text}`"))
    };
    match (kind, argument) {
        ("random", None) => Ok(Spec::Random),
        ("bot", None) => Ok(Spec::Bot),
        ("human", None) => Ok(Spec::Human),
        ("search", None) => Ok(Spec::Search(DEFAULT_NODES)),
        ("search", Some(budget)) => match budget.replace('_', "").parse::<usize>() {
            Ok(nodes) if nodes > 0 => Ok(Spec::Search(nodes)),
            _ => Err(Box::new(
                problem("the budget of `search` is not a number of positions".to_owned())
                    .help("write `search:50000`, or `search` for the default"),
            )),
        },
        ("self" | "checkpoint" | "gguf" | "openai", _) => Err(Box::new(
            problem(format!("`{kind}` opponents are not available in this version"))
                .help("use `random`, `bot` or `search`"),
        )),
        _ => {
            let near = crate::diag::closest(kind, ["random", "bot", "search", "human"]);
            let help = near.map_or("see `gift-host train --help`".to_owned(), |near| format!("did you mean `{near}`?"));
            Err(Box::new(problem(format!("`{text}` is not a known opponent")).help(help)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_gives_a_default_and_games_of_their_own() {
        let (default, by_game) = parse("bot, tictactoe=search:500,spy=random").unwrap();
        assert_eq!(default, Some(Spec::Bot));
        assert_eq!(by_game["tictactoe"], Spec::Search(500));
        assert_eq!(by_game["spy"], Spec::Random);
        assert_eq!(parse("tictactoe=search").unwrap().0, None);
    }

    #[test]
    fn what_is_not_known_is_named_with_the_nearest() {
        assert!(parse("serch").unwrap_err().to_string().contains("did you mean `search`?"));
        assert!(parse("search:fast").unwrap_err().to_string().contains("number of positions"));
        assert!(parse("openai:http://x#m").unwrap_err().to_string().contains("not available"));
    }
}
