//! A player that is not the policy of a rollout: what a script, a search or a frozen model does in its place, over all
//! episodes of a match at once, so that a model serves many of them with one pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Match;
use super::rates::{EpisodeResult, is_draw};
use crate::diag::Diagnostic;
use crate::game::{Action, Episode, GameDef, Seat, Status, for_each_abandonable, told_of_lost};
use crate::opponent::{Fault, Lineup, ModelPasses, Opponents, Reply, View};
use crate::seed::Stream;

/// How long everybody sleeps where every episode waits for a server.
const PATIENCE: Duration = Duration::from_millis(5);

/// What became of an episode.
pub(super) type Played = Result<EpisodeResult, Box<Diagnostic>>;

/// One episode on its way.
struct Running<'a> {
    game: &'a Arc<GameDef>,
    episode: Episode,
    own: Lineup,
    others: Lineup,
    own_stream: Stream,
    /// The same stream as in a rollout, so that opponents draw alike.
    opponent_stream: Stream,
    tally: EpisodeResult,
}

impl Running<'_> {
    /// The seat whose turn it is, and the lineup that it plays for.
    fn turn(&mut self) -> Option<(Seat, &mut Lineup)> {
        let Status::Turn(seat) = *self.episode.status() else { return None };
        Some((seat, if seat.0 == self.tally.seat { &mut self.own } else { &mut self.others }))
    }

    /// Plays on until somebody has to think; the result if the episode is over.
    fn advance(&mut self) -> Result<Option<EpisodeResult>, Fault> {
        while let Status::Turn(seat) = *self.episode.status() {
            let last = self.episode.turns().last().filter(|turn| turn.seat == seat);
            let refusal = last.and_then(|turn| turn.refusal.as_deref());
            let view = View { game: self.game, state: self.episode.state(), seat, refusal };
            let is_own = seat.0 == self.tally.seat;
            let reply = if is_own {
                self.own.act(&view, &mut self.own_stream)
            } else {
                self.others.act(&view, &mut self.opponent_stream)
            };
            let asked =
                |fault: Fault| fault.of(if is_own { self.own.name(seat) } else { self.others.name(seat) }, seat);
            let Reply::Answer(answer) = reply.map_err(asked)? else { return Ok(None) };
            self.episode.act(seat, &Action { text: answer.action, well_formed: true })?;
            if is_own {
                // Answers that could not be read were asked for again; as a policy's, they count as turns.
                self.tally.turns += 1 + answer.invalid;
                self.tally.format_error += answer.invalid;
                self.tally.illegal += usize::from(self.episode.turns().last().is_some_and(|turn| !turn.legal));
            }
        }
        let mut tally = self.tally;
        tally.truncated = *self.episode.status() == Status::Truncated;
        (tally.score, tally.success) = self.episode.result(Seat(tally.seat));
        if let Status::Terminated(outcome) = self.episode.status() {
            tally.draw = is_draw(&outcome.scores, tally.seat, tally.success);
        }
        Ok(Some(tally))
    }
}

/// An episode before its start, on its way, or over.
struct Place<'a> {
    number: usize,
    running: Option<Running<'a>>,
    played: Option<Played>,
}

impl<'a> Place<'a> {
    fn start(
        &mut self,
        of: &Match,
        game: &'a Arc<GameDef>,
        (player, opponents): (&Opponents, &Opponents),
    ) -> Result<(), Box<Diagnostic>> {
        let stage = of.stage(game, self.number);
        let members = of.members(&game.name, self.number);
        self.running = Some(Running {
            game,
            episode: Episode::start_numbered(game, stage.seed, stage.number)?,
            own: player.sit(game, members.child("player lineup", 0)),
            others: opponents.sit(game, members.child("lineup", 0).child("stage", 0)),
            own_stream: members.child("player", 0).stream(),
            opponent_stream: members.child("opponent", 0).stream(),
            tally: EpisodeResult { episode: self.number, seat: stage.seat.0, ..EpisodeResult::default() },
        });
        Ok(())
    }

    /// Whether there is something to do but to wait.
    fn is_ready(&mut self) -> bool {
        self.played.is_none()
            && self.running.as_mut().and_then(Running::turn).is_none_or(|(seat, lineup)| lineup.is_ready(seat))
    }

    fn finish(&mut self, played: Played) {
        self.played = Some(played);
        self.running = None;
    }

    /// Gives the episode up for a fault of the script, with what leads there.
    fn lose(&mut self, of: &Match, game: &Arc<GameDef>, problem: Box<Diagnostic>) {
        let stage = of.stage(game, self.number);
        let turns = self.running.as_ref().map_or(&[][..], |running| running.episode.turns());
        let told = told_of_lost(problem, game, (stage.seed, stage.number), turns);
        self.finish(Err(told));
    }
}

/// Plays episodes `0..count` of a match. After `max_lost` lost ones no further episode is begun; those are then missing.
pub(super) fn play_scripted(
    of: &Match,
    game: &Arc<GameDef>,
    (count, max_lost): (usize, usize),
    players: (&Opponents, &Opponents),
) -> Vec<Played> {
    let lost = AtomicUsize::new(0);
    let mut places: Vec<Place<'_>> = (0..count).map(|number| Place { number, running: None, played: None }).collect();
    let mut passes = ModelPasses::default();
    while lost.load(Ordering::Relaxed) < max_lost && places.iter().any(|place| place.played.is_none()) {
        let ready: Vec<&mut Place<'_>> =
            places.iter_mut().filter_map(|place| place.is_ready().then_some(place)).collect();
        let is_idle = ready.is_empty();
        for stuck in for_each_abandonable(ready, |place| {
            if lost.load(Ordering::Relaxed) >= max_lost {
                return;
            }
            if place.running.is_none()
                && let Err(problem) = place.start(of, game, players)
            {
                lost.fetch_add(1, Ordering::Relaxed);
                return place.lose(of, game, problem);
            }
            let Some(running) = &mut place.running else { return };
            match running.advance() {
                Ok(None) => return,
                Ok(Some(tally)) => return place.finish(Ok(tally)),
                Err(Fault::Script(problem)) => place.lose(of, game, problem),
                Err(fault) => place.finish(Err(fault.into_problem())),
            }
            lost.fetch_add(1, Ordering::Relaxed);
        }) {
            lost.fetch_add(1, Ordering::Relaxed);
            stuck.lose(of, game, game.stuck());
        }
        let waiting = places.iter_mut().filter_map(|place| {
            let (seat, lineup) = place.running.as_mut()?.turn()?;
            lineup.thinking(seat)
        });
        match passes.advance(waiting) {
            Ok(has_sampled) if is_idle && !has_sampled => std::thread::sleep(PATIENCE),
            Ok(_) => {}
            Err(problem) => {
                for place in places.iter_mut().filter(|place| place.played.is_none()) {
                    place.finish(Err(problem.clone()));
                }
            }
        }
    }
    places.into_iter().filter_map(|place| place.played).collect()
}
