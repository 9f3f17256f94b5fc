//! The policy in several seats, frozen models and the league: which tokens are trained on, who meets whom, and the same bytes
//! for the same seed.
#![expect(clippy::float_cmp, reason = "the scores here are exact")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gift_host::policy::{NamedTensor, Tokenizer};
use gift_host::rollout::{Culprit, StageRecord, Trajectory};
use gift_host::run::{Figures, IterationReport, TrainRun};

use super::binary::{Place, QUICK, copy_folder};
use super::support::{Lab, catalog, config, decoder, game, iterate, load, pool, start, unchecked, weights};

/// Both seats name a digit. Each scores its own; together they also score what they agree on.
const MEET: &str = r#"local game = { name = "meet", seats = 2, max_turns = 1 }
function game.init(rng, options) return { said = {}, shared = rng:int(0, 1) } end
function game.to_act(state) if #state.said == 2 then return nil end return #state.said + 1 end
function game.observe(state, seat) return "Seat " .. seat .. ", name a digit." end
function game.actions(state, seat) return { "1", "2", "3" } end
function game.apply(state, seat, action)
  if not table.find({ "1", "2", "3" }, action) then gift.illegal("a digit from 1 to 3") end
  state.said[seat] = tonumber(action)
  return state
end
function game.outcome(state)
  local same = state.said[1] == state.said[2]
  if state.shared == 1 then return { scores = { same and 1 or 0, same and 1 or 0 }, success = { same, same } } end
  return { scores = { state.said[1], 10 + state.said[2] }, success = { same, not same } }
end
return game
"#;

fn games(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| Path::new("games").join(name)).collect()
}

fn trajectories(report: &IterationReport) -> impl Iterator<Item = &Trajectory> {
    report.groups.iter().flat_map(|scored| &scored.group.trajectories)
}

/// A copy of the tests' model in a folder.
fn stored_model(lab: &Lab) -> String {
    let folder = lab.path("model");
    std::fs::create_dir_all(&folder).expect("a folder");
    gift_host::checkpoint::save_model(
        &folder,
        decoder().as_ref(),
        &Tokenizer::Bytes,
        &gift_host::checkpoint::Origin::default(),
    )
    .expect("a model");
    folder.to_string_lossy().into_owned()
}

/// What a seat read and wrote in a stage, as tokens.
fn own_tokens(stage: &StageRecord) -> Vec<u32> {
    let tokenizer = Tokenizer::Bytes;
    let own = stage.turns.iter().filter(|turn| turn.seat == stage.seat);
    let of_turn = own.map(|turn| {
        [tokenizer.prompt(&turn.observation, false), tokenizer.encode(&turn.answer), vec![tokenizer.end()]].concat()
    });
    of_turn.collect::<Vec<_>>().concat()
}

#[test]
fn every_seat_of_the_policy_is_trained_with_its_own_context_and_reward() {
    pool(2).install(|| {
        let mut run = start(config(&["opponent=self"]), catalog(&games(&["tictactoe.lua"]), None, None));
        let before = weights(&run);
        let report = iterate(&mut run);
        assert_eq!(report.groups.len(), 8, "four groups of each seat");
        let mut members: BTreeMap<(u64, usize), Vec<&StageRecord>> = BTreeMap::new();
        for (index, scored) in report.groups.iter().enumerate() {
            let of_group: Vec<&Trajectory> = scored.group.trajectories.iter().collect();
            assert_eq!(of_group.len(), 4);
            let shared: BTreeSet<_> = of_group.iter().map(|one| (one.stages[0].seed, one.stages[0].seat)).collect();
            assert_eq!(shared.len(), 1, "a group shares seed and seat");
            assert!((scored.advantages.iter().sum::<f32>()).abs() < 1e-4);
            for trajectory in of_group {
                assert_eq!((trajectory.group, trajectory.is_further), (index, index >= 4), "{}", trajectory.id);
                let stage = &trajectory.stages[0];
                assert_eq!(stage.players, ["self", "self"]);
                assert_eq!(trajectory.tokens, own_tokens(stage), "{}: the context is the seat's own", trajectory.id);
                assert_eq!(trajectory.targets.len(), trajectory.log_probs.len());
                let position = stage.seed.value();
                members.entry((position, trajectory.member)).or_default().push(stage);
            }
        }
        assert_eq!(members.len(), 16);
        for pair in members.values() {
            let [one, other] = pair.as_slice() else { panic!("two seats an episode") };
            assert_ne!(one.seat, other.seat);
            assert_eq!(one.scores, other.scores);
            assert_eq!(one.reward + other.reward, 1.0, "tic-tac-toe shares out one point");
        }
        let ids: BTreeSet<_> = trajectories(&report).map(|trajectory| trajectory.id.as_str()).collect();
        assert_eq!(ids.len(), 32);
        let seats: Vec<f64> = (1..=2).map(|seat| report.figures[&format!("success_seat/tictactoe.{seat}")]).collect();
        assert!(seats.iter().sum::<f64>() <= 1.0 && seats.iter().any(|share| *share > 0.0), "{seats:?}");
        assert!(weights(&run) != before);
    });
}

#[test]
fn cooperative_and_general_sum_games_reward_each_seat_by_its_own_score() {
    let lab = Lab::new();
    let path = lab.write("games/meet.lua", MEET);
    pool(2).install(|| {
        let mut run = start(config(&["opponent=self", "rollout.groups=8"]), unchecked(vec![game(&path)]));
        let report = iterate(&mut run);
        let (mut shared, mut own) = (0, 0);
        for trajectory in trajectories(&report) {
            let stage = &trajectory.stages[0];
            assert_eq!(trajectory.reward, stage.scores[stage.seat as usize - 1]);
            *(if stage.scores[0] == stage.scores[1] { &mut shared } else { &mut own }) += 1;
        }
        assert!(shared > 0 && own > 0, "both kinds come up");
    });
}

/// In a nest, a further seat is a trajectory of its stage alone, and groups may be smaller where the mixture drew another.
#[test]
fn further_seats_of_a_nest_stand_alone() {
    pool(2).install(|| {
        let settings = ["opponent=self*0.5+random*0.5,nim=self", "advantage.estimator=role"];
        let mut run = start(config(&settings), catalog(&games(&["tictactoe.lua", "nim.rhai"]), None, None));
        let report = iterate(&mut run);
        let (mut alone, mut nested) = (BTreeMap::<&str, usize>::new(), 0);
        for trajectory in trajectories(&report) {
            let stages = &trajectory.stages;
            assert_eq!(trajectory.tokens, stages.iter().flat_map(own_tokens).collect::<Vec<_>>());
            if !trajectory.is_further {
                assert_eq!(stages.len(), 2);
                nested += 1;
                continue;
            }
            let [stage] = stages.as_slice() else { panic!("one stage") };
            assert_eq!(trajectory.reward, stage.reward);
            assert!(trajectory.id.contains(if stage.game == "nim" { "-stage2-seat" } else { "-stage1-seat" }));
            *alone.entry(&stage.game).or_default() += 1;
        }
        assert_eq!((nested, alone["nim"]), (16, 16));
        assert!((1..16).contains(&alone["tictactoe"]), "{alone:?}");
        let baselines = run.estimator_state().baselines;
        assert!(baselines.keys().any(|role| role == "nim:1") && baselines.keys().any(|role| role == "nim:2"));
    });
}

#[test]
fn tokens_of_a_frozen_model_are_never_trained_on() {
    let lab = Lab::new();
    let opponent = format!("opponent=checkpoint:{}", stored_model(&lab));
    pool(2).install(|| {
        let mut run = start(config(&[&opponent]), catalog(&games(&["tictactoe.lua"]), None, None));
        let report = iterate(&mut run);
        assert_eq!((report.groups.len(), trajectories(&report).count()), (4, 16));
        let mut answers = 0;
        for trajectory in trajectories(&report) {
            let stage = &trajectory.stages[0];
            assert!(stage.players[2 - stage.seat as usize].starts_with("checkpoint:"), "{:?}", stage.players);
            assert_eq!(trajectory.tokens, own_tokens(stage));
            for turn in stage.turns.iter().filter(|turn| turn.seat != stage.seat) {
                assert!(turn.observation.starts_with('t') && !turn.answer.is_empty(), "{turn:?}");
                answers += 1;
            }
        }
        assert_eq!(report.figures["opponent/answers"], f64::from(answers));
        assert_eq!(report.figures["opponent/invalid"], 0.0, "it answers among the legal ones");
    });
}

/// An untrained model that may write anything hardly ever writes a legal answer.
#[test]
fn invalid_answers_are_asked_again_then_replaced_and_counted() {
    let lab = Lab::new();
    let opponent = format!("opponent=checkpoint:{}", stored_model(&lab));
    let settings =
        [opponent.as_str(), "decode.constrain=off", "rollout.max_new_tokens=2", "scripts.max_voided_share=1.0"];
    pool(2).install(|| {
        let mut run = start(config(&settings), catalog(&games(&["tictactoe.lua"]), None, None));
        let report = iterate(&mut run);
        let (answers, invalid) = (report.figures["opponent/answers"], report.figures["opponent/invalid"]);
        assert!(invalid > 0.0 && invalid <= answers, "{invalid} of {answers}");
        let others = || trajectories(&report).flat_map(|one| &one.stages[0].turns).filter(|turn| turn.well_formed);
        assert!(others().any(|turn| turn.observation.is_empty() && turn.legal), "a random legal answer took its place");
        let settings = [&settings[..], &["remote.on_invalid=void"]].concat();
        let mut run = start(config(&settings), catalog(&games(&["tictactoe.lua"]), None, None));
        let report = iterate(&mut run);
        let lost: Vec<_> = report.groups.iter().flat_map(|scored| &scored.group.voided).collect();
        assert!(!lost.is_empty());
        for voided in lost {
            assert_eq!(voided.culprit, Culprit::Opponent("tictactoe".to_owned()));
            assert!(voided.problem.to_string().contains("gave no valid answer"), "{}", voided.problem);
        }
    });
}

fn with_league(lab: &Lab, folder: &str, settings: &[&str]) -> TrainRun {
    let settings = [&["opponent=league", "league.snapshot_every=1", "league.max_snapshots=2"], settings].concat();
    let mut run = start(config(&settings), catalog(&games(&["tictactoe.lua", "nim.rhai"]), None, None));
    std::fs::create_dir_all(lab.path(folder)).expect("a folder");
    run.start_league(&lab.path(folder), Box::new(load)).expect("a league");
    run
}

/// Figures, weights and who sat where in four iterations against everything that has a model.
fn four_iterations(lab: &Lab, threads: usize, model: &str) -> (Vec<Figures>, Vec<NamedTensor>, Vec<Vec<String>>) {
    let opponent = format!("opponent=league,nim=checkpoint:{model}*0.4+self*0.4+random*0.2");
    pool(threads).install(|| {
        let settings =
            [opponent.as_str(), "league.self_share=0.2", "league.fixed=[\"random\"]", "league.weighting=even"];
        let mut run = with_league(lab, &format!("run-{threads}"), &settings);
        let mut players = Vec::new();
        let figures = (0..4).map(|_| {
            let report = iterate(&mut run);
            let stages = trajectories(&report).flat_map(|trajectory| &trajectory.stages);
            players.extend(stages.map(|stage| stage.players.clone()));
            report.figures
        });
        (figures.collect(), weights(&run), players)
    })
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let lab = Lab::new();
    let model = stored_model(&lab);
    let one = four_iterations(&lab, 1, &model);
    let three = four_iterations(&lab, 3, &model);
    assert_eq!(one.0, three.0);
    assert!(one.1 == three.1, "the weights differ");
    assert_eq!(one.2, three.2);
    let met: BTreeSet<&str> = one.2.iter().flatten().map(String::as_str).collect();
    assert!(met.iter().any(|name| name.starts_with("checkpoint:")) && met.contains("self"), "{met:?}");
    assert!(met.iter().any(|name| name.starts_with("league:step-")), "{met:?}");
}

#[test]
fn the_members_of_a_group_meet_the_same_member_of_the_league() {
    let lab = Lab::new();
    pool(2).install(|| {
        let mut run = with_league(&lab, "run", &["rollout.groups=12"]);
        let mut met = BTreeSet::new();
        for _ in 0..3 {
            for scored in &iterate(&mut run).groups {
                let of_group: BTreeSet<_> = scored
                    .group
                    .trajectories
                    .iter()
                    .map(|one| one.stages.iter().map(|stage| stage.players.clone()).collect::<Vec<_>>())
                    .collect();
                assert!(of_group.len() <= 1, "{of_group:?}");
                met.extend(of_group.into_iter().flatten().flatten());
            }
        }
        assert!(met.contains("league:self") && met.contains("league:random") && met.len() > 4, "{met:?}");
    });
}

fn league(place: &Place, run: &str, steps: &str, more: &[&str]) {
    let mut arguments = vec!["train", "--games", "games/tictactoe.lua", "--out", run, "--steps", steps];
    // Not the opponent of `QUICK`, which may be named once only.
    let quick: Vec<&str> = QUICK.iter().copied().filter(|one| !["--opponent", "random"].contains(one)).collect();
    arguments.extend(quick);
    let settings = ["--opponent", "league", "--set", "league.snapshot_every=2", "--set", "league.max_snapshots=2"];
    arguments.extend(settings);
    // A search that solves every start anew would take most of the time.
    arguments.extend(["--set", "league.fixed=[\"random\", \"bot\"]"]);
    arguments.extend(more);
    place.run_to_end(&arguments);
}

fn same_end(place: &Place, one: &str, other: &str, step: u64) {
    assert_eq!(place.metrics(one), place.metrics(other));
    for file in ["model.safetensors", "trainer.safetensors", "state.json"]
        .map(|file| format!("checkpoints/step-{step:06}/{file}"))
    {
        assert!(place.bytes(&format!("{one}/{file}")) == place.bytes(&format!("{other}/{file}")), "{file}");
    }
    let text = |run: &str| String::from_utf8(place.bytes(&format!("{run}/league.json"))).expect("UTF-8");
    assert_eq!(text(one), text(other));
    let snapshots = |run: &str| {
        let entries = std::fs::read_dir(place.path(run).join("league")).expect("a league").filter_map(Result::ok);
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with("abandoned")).collect::<BTreeSet<_>>()
    };
    assert_eq!(snapshots(one), snapshots(other));
}

#[test]
fn a_league_that_goes_on_is_one_that_never_stopped() {
    let place = Place::new();
    league(&place, "whole", "8", &["--set", "threads=1"]);
    league(&place, "parts", "5", &["--set", "threads=1"]);
    place.run_to_end(&["train", "--resume", "parts", "--steps", "8", "--set", "threads=2"]);
    // The number of threads is a setting, which the figures do not show.
    same_end(&place, "whole", "parts", 8);
    let state: serde_json::Value = serde_json::from_slice(&place.bytes("whole/league.json")).expect("JSON");
    let standing = &state["league"]["games"]["tictactoe"];
    assert_eq!(state["league"]["snapshots"].as_array().map(Vec::len), Some(2), "{state}");
    assert!(standing["learner"]["deviation"].as_f64().is_some_and(|points| points < 350.0), "{state}");
    assert!(standing["members"]["bot"]["episodes"].as_u64().is_some_and(|count| count > 0), "{state}");
}

/// Snapshots that a later checkpoint has left behind are gone; then the run says so.
#[test]
fn an_earlier_checkpoint_needs_its_snapshots() {
    let place = Place::new();
    league(&place, "whole", "8", &["--set", "checkpoint_every=4"]);
    copy_folder(&place.path("whole"), &place.path("again"));
    place.run_to_end(&["train", "--resume", "again/checkpoints/step-000004"]);
    same_end(&place, "whole", "again", 8);
    let state: serde_json::Value =
        serde_json::from_slice(&place.bytes("whole/checkpoints/step-000008/state.json")).expect("JSON");
    let kept = state["league"]["snapshots"].as_array().expect("snapshots").clone();
    let first = format!("whole/league/step-{:06}", kept[0].as_u64().expect("a step"));
    std::fs::remove_dir_all(place.path(&first)).expect("a snapshot");
    let checkpoint = format!("whole/checkpoints/step-{:06}", kept[0].as_u64().expect("a step"));
    let _ = std::fs::remove_dir_all(place.path(&checkpoint));
    let output = place.run(&["train", "--resume", "whole", "--steps", "9"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("league::snapshot") && text.contains("is gone"), "{text}");
}

#[test]
fn further_seats_are_stored_and_replay() {
    let place = Place::new();
    let mut arguments =
        vec!["train", "--games", "games/tictactoe.lua", "games/nim.rhai", "--out", "run", "--steps", "1"];
    arguments.extend(QUICK.iter().copied().filter(|one| !["--opponent", "random"].contains(one)));
    // The joint reward of a nest is not that of a further seat.
    std::fs::write(
        place.path("nest.lua"),
        "return { stages = { \"tictactoe\", \"nim\" }, reward = function(r) return -r[2].reward end }",
    )
    .expect("a nest");
    arguments.extend(["--opponent", "self", "--nest", "nest.lua"]);
    place.run_to_end(&arguments);
    let bytes = zstd::decode_all(&place.bytes("run/episodes/step-000001.jsonl.zst")[..]).expect("zstd");
    let text = String::from_utf8(bytes).expect("UTF-8");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ids: Vec<&str> = lines.iter().filter_map(|line| line["id"].as_str()).collect();
    assert_eq!(ids.len(), 3 * 16, "the nest, and a further seat of each stage");
    let first: Vec<&str> = ids.into_iter().filter(|id| id.starts_with("1-0-0")).collect();
    assert_eq!(first.len(), 3, "{first:?}");
    for id in first {
        let output = place.run(&["replay", "run", "--episode", id]);
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(text.contains("identical: "), "{id}: {text}");
    }
    let report = place.run(&["report", "run"]);
    assert!(report.status.success());
}
