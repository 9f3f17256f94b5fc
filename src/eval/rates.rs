//! What the episodes of a match come to: shares with Wilson intervals, means, the same for each seat.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::diag::Diagnostic;
use crate::game::GameDef;

use super::wilson;

/// What one episode came to for the player.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EpisodeResult {
    /// The episode's number in the match, from 0; two players of one match have the same episodes under the same numbers.
    pub episode: usize,
    /// The player's seat, from 1.
    pub seat: u32,
    /// Whether the player succeeded, by the game's own `success`.
    pub success: bool,
    /// Whether nobody won: the rules ended the episode, the player did not succeed, and its score is above 0 (the worst)
    /// and as high as the best of the other seats. Games for one seat have no draws.
    pub draw: bool,
    /// Whether a limit ended it.
    pub truncated: bool,
    /// The player's score.
    pub score: f64,
    /// The player's turns.
    pub turns: usize,
    /// Those whose answer the rules refused.
    pub illegal: usize,
    /// Those whose answer was not in the answer format.
    pub format_error: usize,
    /// Tokens that the player sampled; 0 for scripted players.
    pub tokens: usize,
}

/// Shares and means over episodes. Intervals are Wilson's 95 % intervals ([`wilson`]); those of `illegal` and
/// `format_error` count answers, of which several belong to one episode.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Episodes that were played to an end.
    pub episodes: usize,
    /// Share of them that the player won, by the game's own `success`.
    pub success: f64,
    /// The interval of `success`.
    pub interval: [f64; 2],
    /// Share of them that nobody won ([`EpisodeResult::draw`]).
    pub draw: f64,
    /// The interval of `draw`.
    pub draw_interval: [f64; 2],
    /// The rest: lost by the rules, ended by a limit or by an illegal answer.
    pub loss: f64,
    /// The interval of `loss`.
    pub loss_interval: [f64; 2],
    /// Mean score.
    pub score: f64,
    /// Share of the player's answers that the rules refused.
    pub illegal: f64,
    /// The interval of `illegal`.
    pub illegal_interval: [f64; 2],
    /// Share of the player's answers that were not in the answer format.
    pub format_error: f64,
    /// The interval of `format_error`.
    pub format_error_interval: [f64; 2],
    /// Share of the episodes that a limit ended.
    pub truncated: f64,
    /// Mean number of the player's turns an episode.
    pub turns: f64,
    /// Mean number of tokens that the player sampled an episode; 0 for players other than a policy.
    pub tokens: f64,
}

impl Rates {
    /// The rates of these episodes.
    pub fn of(results: &[EpisodeResult]) -> Self {
        let episodes = results.len();
        let count = |is: fn(&EpisodeResult) -> bool| results.iter().filter(|result| is(result)).count();
        let sum = |value: fn(&EpisodeResult) -> usize| results.iter().map(value).sum::<usize>();
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let (won, drawn) = (count(|result| result.success), count(|result| result.draw));
        let lost = episodes - won - drawn;
        let (answers, illegal, malformed) =
            (sum(|result| result.turns), sum(|result| result.illegal), sum(|result| result.format_error));
        Self {
            episodes,
            success: share(won, episodes),
            interval: wilson(won, episodes),
            draw: share(drawn, episodes),
            draw_interval: wilson(drawn, episodes),
            loss: share(lost, episodes),
            loss_interval: wilson(lost, episodes),
            // An empty sum is -0, which would be printed with its sign.
            score: results.iter().map(|result| result.score).sum::<f64>() / episodes.max(1) as f64 + 0.0,
            illegal: share(illegal, answers),
            illegal_interval: wilson(illegal, answers),
            format_error: share(malformed, answers),
            format_error_interval: wilson(malformed, answers),
            truncated: share(count(|result| result.truncated), episodes),
            turns: share(answers, episodes),
            tokens: share(sum(|result| result.tokens), episodes),
        }
    }
}

/// The rates of the episodes in which the player had this seat.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeatRates {
    /// The seat, from 1.
    pub seat: u32,
    /// The rates.
    #[serde(flatten)]
    pub rates: Rates,
}

/// How a player did in one game.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuccessRate {
    /// The game.
    pub game: String,
    /// Who played the other seats; `none` in games for one seat.
    pub opponent: String,
    /// Over all episodes.
    #[serde(flatten)]
    pub rates: Rates,
    /// Episodes that a fault of a script ended; they are in no other figure.
    pub voided: usize,
    /// By the player's seat, of those that were played; empty in games for one seat.
    pub seats: Vec<SeatRates>,
    /// Every episode that counts, by number.
    #[serde(skip)]
    pub results: Vec<EpisodeResult>,
    /// The first fault.
    #[serde(skip)]
    pub problem: Option<Diagnostic>,
}

/// The figures of a game from its episodes and the faults of those that were lost.
pub(super) fn summarize(
    game: &GameDef,
    opponent: String,
    mut results: Vec<EpisodeResult>,
    voided: &[&Diagnostic],
) -> SuccessRate {
    results.sort_by_key(|result| result.episode);
    let seats: BTreeSet<u32> = results.iter().map(|result| result.seat).filter(|_| game.seats > 1).collect();
    let of_seat = |seat: u32| {
        let own: Vec<EpisodeResult> = results.iter().filter(|one| one.seat == seat).copied().collect();
        SeatRates { seat, rates: Rates::of(&own) }
    };
    SuccessRate {
        game: game.name.clone(),
        opponent,
        rates: Rates::of(&results),
        voided: voided.len(),
        seats: seats.into_iter().map(of_seat).collect(),
        problem: voided.first().map(|&problem| problem.clone()),
        results,
    }
}

/// Whether nobody won ([`EpisodeResult::draw`]); `scores` are those that the rules gave, by seat, empty if a limit or an
/// illegal answer ended the episode.
pub(super) fn is_draw(scores: &[f64], seat: u32, success: bool) -> bool {
    let own = seat as usize - 1;
    let others = scores.iter().enumerate().filter(|(index, _)| *index != own).map(|(_, score)| *score);
    let best = others.reduce(f64::max);
    !success && scores.get(own).is_some_and(|score| *score > 0.0 && Some(*score) == best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_a_shared_best_score_above_the_worst() {
        for (scores, success, expected) in [
            (&[0.5, 0.5][..], false, true),
            (&[1.0, 0.0], true, false),
            (&[0.0, 1.0], false, false),
            (&[0.0, 0.0], false, false),
            (&[0.5, 0.5, 1.0], false, false),
            (&[0.5], false, false),
            (&[], false, false),
        ] {
            assert_eq!(is_draw(scores, 1, success), expected, "{scores:?}");
        }
    }

    #[test]
    fn rates_of_a_few_episodes() {
        let base = EpisodeResult { seat: 1, turns: 4, tokens: 10, ..EpisodeResult::default() };
        let results = [
            EpisodeResult { success: true, score: 1.0, ..base },
            EpisodeResult { draw: true, score: 0.5, illegal: 1, ..base },
            EpisodeResult { truncated: true, format_error: 2, ..base },
            EpisodeResult { turns: 0, tokens: 0, ..base },
        ];
        let rates = Rates::of(&results);
        assert_eq!((rates.success, rates.draw, rates.loss, rates.score), (0.25, 0.25, 0.5, 0.375));
        assert_eq!((rates.illegal, rates.format_error, rates.truncated), (1.0 / 12.0, 2.0 / 12.0, 0.25));
        assert_eq!((rates.turns, rates.tokens), (3.0, 7.5));
        assert_eq!((rates.loss_interval, rates.illegal_interval), (wilson(2, 4), wilson(1, 12)));
        let none = Rates::of(&[]);
        assert_eq!((none.loss, none.loss_interval, none.score.to_string()), (0.0, [0.0, 1.0], "0".to_owned()));
    }
}
