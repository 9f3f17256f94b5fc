//! Which opponent sits where: `SPEC,game=SPEC,game.SEAT=SPEC,…`. A seat's own entry comes before its game's, that before
//! the one of all games.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::spec::{Mixture, Spec, parse_mixture};
use crate::diag::Diagnostic;
use crate::game::Seat;

/// The opponents of every game and seat.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Assignment {
    default: Option<Mixture>,
    by_game: BTreeMap<String, Mixture>,
    by_seat: BTreeMap<(String, u32), Mixture>,
}

impl Assignment {
    /// Reads a list; entries for one game or seat must not contradict each other.
    pub(super) fn parse(text: &str) -> Result<Self, Box<Diagnostic>> {
        let mut all = Self::default();
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            return Err(Box::new(
                Diagnostic::error("opponent::unknown", "no opponent is named")
                    .expected("`SPEC`, such as `random`, or `game=SPEC,…`")
                    .found(format!("`{text}`")),
            ));
        }
        for part in parts {
            // `search:ms=20` and URLs hold `=` as well: only a name, or a name and a seat, before it is a game.
            let target = part.split_once('=').filter(|(target, _)| !target.contains([':', '/', '*', '+', '#']));
            let is_new = match target {
                None => all.default.replace(parse_mixture(part)?).is_none(),
                Some((target, spec)) => {
                    let mixture = parse_mixture(spec.trim())?;
                    match target.trim().split_once('.') {
                        None => all.by_game.insert(target.trim().to_owned(), mixture).is_none(),
                        Some((game, seat)) => {
                            let number = seat.parse::<u32>().ok().filter(|seat| *seat > 0).ok_or_else(|| {
                                Box::new(
                                    Diagnostic::error("opponent::seat", format!("`{seat}` is no seat"))
                                        .expected("a seat's number, from 1, behind the point")
                                        .found(format!("`{part}`"))
                                        .help(format!("write `{game}.2={}`", spec.trim())),
                                )
                            })?;
                            all.by_seat.insert((game.to_owned(), number), mixture).is_none()
                        }
                    }
                }
            };
            if !is_new {
                let whom = target.map_or("all games".to_owned(), |(target, _)| format!("`{}`", target.trim()));
                return Err(Box::new(
                    Diagnostic::error("opponent::twice", format!("the opponent of {whom} is given twice"))
                        .expected("one opponent for all games, and one for each game or seat")
                        .found(format!("`{text}`"))
                        .help("to mix two, write `random*0.2+search*0.8`"),
                ));
            }
        }
        Ok(all)
    }

    /// Takes from `usual` what this does not say. With a default of its own, it says everything.
    pub(super) fn completed(mut self, usual: Self) -> Self {
        if self.default.is_none() {
            self.default = usual.default;
            for (game, mixture) in usual.by_game {
                self.by_game.entry(game).or_insert(mixture);
            }
        }
        self
    }

    /// Who sits there.
    pub(super) fn of(&self, game: &str, seat: Seat) -> Mixture {
        let own = if self.by_seat.is_empty() { None } else { self.by_seat.get(&(game.to_owned(), seat.0)) };
        own.cloned().unwrap_or_else(|| self.of_game(game))
    }

    fn of_game(&self, game: &str) -> Mixture {
        self.by_game.get(game).or(self.default.as_ref()).cloned().unwrap_or_else(|| Mixture::one(Spec::Random))
    }

    /// The seats of a game with entries of their own.
    pub(super) fn seats(&self, game: &str) -> impl Iterator<Item = (u32, &Mixture)> {
        self.by_seat.iter().filter(move |((name, _), _)| name == game).map(|((_, seat), mixture)| (*seat, mixture))
    }

    /// The opponents of a game in words: `bot`, or `bot, seat 2 random`.
    pub(super) fn describe(&self, game: &str) -> String {
        let mut text = self.of_game(game).to_string();
        for (seat, mixture) in self.seats(game) {
            // Writing to a string cannot fail.
            _ = write!(text, ", seat {seat} {mixture}");
        }
        text
    }

    /// Every mixture.
    pub(super) fn mixtures(&self) -> impl Iterator<Item = &Mixture> {
        self.default.iter().chain(self.by_game.values()).chain(self.by_seat.values())
    }

    /// As [`Assignment::mixtures`], to be changed.
    pub(super) fn mixtures_mut(&mut self) -> impl Iterator<Item = &mut Mixture> {
        self.default.iter_mut().chain(self.by_game.values_mut()).chain(self.by_seat.values_mut())
    }

    /// Every game that is named.
    pub(super) fn games(&self) -> impl Iterator<Item = &str> {
        self.by_game.keys().chain(self.by_seat.keys().map(|(game, _)| game)).map(String::as_str)
    }
}

impl fmt::Display for Assignment {
    /// A list that [`Assignment::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = self.default.iter().map(ToString::to_string);
        let games = self.by_game.iter().map(|(game, mixture)| format!("{game}={mixture}"));
        let seats = self.by_seat.iter().map(|((game, seat), mixture)| format!("{game}.{seat}={mixture}"));
        f.write_str(&default.chain(games).chain(seats).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_gives_a_default_games_and_seats() {
        let all = Assignment::parse("bot, tictactoe=search:500,spy.2=random,spy.4=random*1+bot*2").unwrap();
        let of = |game: &str, seat: u32| all.of(game, Seat(seat)).to_string();
        assert_eq!((of("nim", 1), of("tictactoe", 2)), ("bot".to_owned(), "search:500".to_owned()));
        assert_eq!((of("spy", 1), of("spy", 2)), ("bot".to_owned(), "random".to_owned()));
        assert_eq!(all.describe("spy"), "bot, seat 2 random, seat 4 random*1+bot*2");
        assert_eq!(all.games().collect::<Vec<_>>(), ["tictactoe", "spy", "spy"]);
        assert_eq!(Assignment::parse(&all.to_string()).unwrap(), all);
    }

    #[test]
    fn games_that_are_not_named_keep_their_usual_opponent() {
        let usual = || Assignment::parse("random,spy=bot").unwrap();
        let named = Assignment::parse("tictactoe=search:ms=20").unwrap().completed(usual());
        assert_eq!(named.describe("tictactoe"), "search:ms=20");
        assert_eq!((named.describe("spy"), named.describe("nim")), ("bot".to_owned(), "random".to_owned()));
        let all = Assignment::parse("search").unwrap().completed(usual());
        assert_eq!(all.describe("spy"), "search");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (text, told) in [
            ("bot,random", "all games is given twice"),
            ("spy=bot,spy=random", "`spy` is given twice"),
            ("spy.2=bot,spy.2=random", "`spy.2` is given twice"),
            ("spy.x=bot", "`x` is no seat"),
            ("spy.0=bot", "`0` is no seat"),
            (" , ", "no opponent is named"),
        ] {
            let problem = Assignment::parse(text).unwrap_err().to_string();
            assert!(problem.contains(told), "{text}: {problem}");
        }
    }
}
