//! The random battery: what the contract promises for every state of every shipped game, tried on seeded random play.

use std::sync::Arc;

use gift_host::game::{Action, ApplyError, Episode, GameDef, Seat, Status, check_game};
use gift_host::script::State;
use gift_host::seed::Seed;

use super::support::{any_action, deep, variants};

const EPISODES: u64 = 40;
/// No game takes this for an answer where it lists the legal ones.
const NONSENSE: &str = "@@ not an answer @@";

fn answer(text: &str) -> Action {
    Action { text: text.to_owned(), well_formed: true }
}

/// A test of one game variant in the episode of a seed; the name is for messages.
fn for_every_episode(test: impl Fn(&str, &Arc<GameDef>, Seed) + Send + Sync) {
    deep(|| {
        for (name, game) in variants() {
            for number in 0..EPISODES {
                test(&name, &game, Seed::new(11).child("battery", number));
            }
        }
    });
}

#[test]
fn the_contract_check_finds_nothing() {
    deep(|| {
        for (name, game) in variants() {
            let problems = check_game(&game, 30, Seed::new(3));
            assert!(problems.is_empty(), "{name}: {}", problems[0]);
        }
    });
}

#[test]
fn random_play_ends_by_the_rules_within_the_limit() {
    for_every_episode(|name, game, seed| {
        let mut stream = seed.child("play", 0).stream();
        let mut episode = Episode::start(game, seed).expect("a start");
        while let Status::Turn(seat) = *episode.status() {
            let text = any_action(game, episode.state(), seat, &mut stream);
            episode.act(seat, &answer(&text)).expect("a turn");
            let last = episode.turns().last().expect("the turn");
            assert!(last.legal, "{name}: `{text}` was refused: {:?}", last.refusal);
        }
        let Status::Terminated(outcome) = episode.status() else {
            panic!("{name}: seed {} ended as {:?}", seed.value(), episode.status());
        };
        assert_eq!(outcome.scores.len(), game.seats as usize, "{name}");
        assert_eq!(outcome.success.len(), game.seats as usize, "{name}");
        for seat in 1..=game.seats {
            let own = episode.turns().iter().filter(|turn| turn.seat == Seat(seat)).count();
            assert!(own <= game.max_turns as usize, "{name}: seat {seat} took {own} turns");
        }
    });
}

/// A model is asked by these texts and answers from these lists, so neither may ever be empty or out of order.
#[test]
fn every_turn_has_texts_and_sorted_legal_answers() {
    for_every_episode(|name, game, seed| {
        let mut stream = seed.child("play", 1).stream();
        let mut episode = Episode::start(game, seed).expect("a start");
        while let Status::Turn(seat) = *episode.status() {
            let state = episode.state();
            let (full, brief) = (game.observe(state, seat, false), game.observe(state, seat, true));
            let (full, brief) = (full.expect("observe"), brief.expect("brief"));
            assert!(!full.trim().is_empty() && !brief.trim().is_empty(), "{name}");
            assert!(full.contains("<answer>"), "{name}: the prompt names the answer format:\n{full}");
            assert!(brief.len() <= 200 && !brief.contains('\n'), "{name}: `{brief}`");
            if let Some(actions) = game.actions(state, seat).expect("actions") {
                assert!(!actions.is_empty(), "{name}");
                assert!(actions.is_sorted_by(|a, b| a < b), "{name}: {actions:?}");
                assert!(actions.iter().all(|action| action.trim() == action), "{name}: {actions:?}");
                for action in &actions {
                    assert!(game.apply(state, seat, action).is_ok(), "{name}: `{action}` of {actions:?}");
                }
            }
            let text = any_action(game, episode.state(), seat, &mut stream);
            episode.act(seat, &answer(&text)).expect("a turn");
        }
    });
}

#[test]
fn the_bot_is_always_legal_and_draws_only_from_its_generator() {
    for_every_episode(|name, game, seed| {
        let mut stream = seed.child("play", 2).stream();
        let mut episode = Episode::start(game, seed).expect("a start");
        while let Status::Turn(seat) = *episode.status() {
            let state = episode.state();
            let bot = || game.bot(state, seat, &mut seed.child("bot", 0).stream()).expect("a bot");
            let text = bot();
            assert_eq!(text, bot(), "{name}: the same generator gives the same action");
            assert!(game.apply(state, seat, &text).is_ok(), "{name}: `{text}`");
            if let Some(actions) = game.actions(state, seat).expect("actions") {
                assert!(actions.contains(&text), "{name}: `{text}` is not one of {actions:?}");
            }
            let text = any_action(game, episode.state(), seat, &mut stream);
            episode.act(seat, &answer(&text)).expect("a turn");
        }
    });
}

fn states_of(game: &Arc<GameDef>, seed: Seed, actions: &[(Seat, String)]) -> Vec<State> {
    let mut episode = Episode::start(game, seed).expect("a start");
    let mut states = vec![episode.state().clone()];
    for (seat, text) in actions {
        episode.act(*seat, &answer(text)).expect("a turn");
        states.push(episode.state().clone());
    }
    states
}

/// Groups share a seed, and a resumed run plays again what the interrupted one would have played.
#[test]
fn the_same_seed_and_actions_give_the_same_states() {
    for_every_episode(|name, game, seed| {
        let mut stream = seed.child("play", 3).stream();
        let mut episode = Episode::start(game, seed).expect("a start");
        let mut actions = Vec::new();
        while let Status::Turn(seat) = *episode.status() {
            let text = any_action(game, episode.state(), seat, &mut stream);
            episode.act(seat, &answer(&text)).expect("a turn");
            actions.push((seat, text));
        }
        let states = states_of(game, seed, &actions);
        assert_eq!(states.last(), Some(episode.state()), "{name}");
        // Another thread compiles the script for itself and must find the same.
        let elsewhere = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(gift_host::script::STACK_BYTES);
            thread.spawn_scoped(scope, || states_of(game, seed, &actions)).expect("a thread").join().expect("states")
        });
        assert_eq!(states, elsewhere, "{name}");
    });
}

/// A refused answer costs a turn and changes nothing; a seat that never answers ends the episode, it does not hang.
#[test]
fn nonsense_is_refused_with_a_reason_and_ends_the_episode_at_last() {
    for_every_episode(|name, game, seed| {
        let mut episode = Episode::start(game, seed).expect("a start");
        let Status::Turn(first) = *episode.status() else { panic!("{name}: nobody acts") };
        if game.actions(episode.state(), first).expect("actions").is_none() {
            return; // any text is an answer
        }
        match game.apply(episode.state(), first, NONSENSE) {
            Err(ApplyError::Illegal(reason)) => assert!(!reason.trim().is_empty(), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        let start = episode.state().clone();
        episode.act(first, &answer(NONSENSE)).expect("a refused turn");
        assert_eq!(episode.state(), &start, "{name}: a refused answer changes nothing");
        let mut stream = seed.child("play", 4).stream();
        while let Status::Turn(seat) = *episode.status() {
            let text =
                if seat == first { NONSENSE.to_owned() } else { any_action(game, episode.state(), seat, &mut stream) };
            episode.act(seat, &answer(&text)).expect("a turn");
        }
        assert_eq!(episode.result(first), (0.0, false), "{name}: {:?}", episode.status());
    });
}
