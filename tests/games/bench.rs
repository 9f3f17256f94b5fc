//! The benchmarks of `games/bench` on small hand-made files with the columns of the published ones: every row is asked once,
//! the right answer succeeds however it is spelt, a wrong one fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gift_host::eval::Match;
use gift_host::game::{Action, Episode, GameDef, ScriptHost, Seat, Status};
use gift_host::opponent::Opponents;
use gift_host::script::Value;
use gift_host::seed::Seed;

use super::support::{deep, load_under, options, patient, scripts_in, stem};

const NAMES: [&str; 5] = ["commongen", "math500", "mmlu", "mmlu_pro", "social_iqa"];
/// The same data once more, with a judge in the second seat.
const JUDGED: &str = "commongen_judged";

fn sample(name: &str, kind: &str) -> PathBuf {
    Path::new("tests/games/data/bench").join(format!("{name}.{kind}"))
}

fn load(name: &str, file: &Path) -> Arc<GameDef> {
    let all = options(&[("data", Value::from(file.to_string_lossy().as_ref()))]);
    let host = ScriptHost::new(patient(), vec![file.to_owned()]);
    load_under(format!("games/bench/{name}.lua"), all, &host)
}

/// What the seat sees in each of the game's numbered episodes.
fn prompts(game: &Arc<GameDef>) -> Vec<String> {
    let count = game.episode_count().expect("a number").expect("as many as rows");
    let prompt = |number: u64| {
        let episode = Episode::start_numbered(game, Seed::new(9), Some(number)).expect("a start");
        episode.observation(Seat(1), false).expect("a prompt")
    };
    (1..=count).map(prompt).collect()
}

/// Score and success of an answer to the numbered episode whose prompt holds `question`; none if it was refused.
fn answer(game: &Arc<GameDef>, question: &str, text: &str) -> Option<(f64, bool)> {
    let number = 1 + prompts(game).iter().position(|prompt| prompt.contains(question)).expect("a question") as u64;
    let mut episode = Episode::start_numbered(game, Seed::new(1), Some(number)).expect("a start");
    episode.act(Seat(1), &Action { text: text.to_owned(), well_formed: true }).expect("a turn");
    matches!(episode.status(), Status::Terminated(_)).then(|| episode.result(Seat(1)))
}

#[test]
fn all_benchmarks_are_here_and_no_pattern_for_games_finds_them() {
    let found: Vec<String> = scripts_in("games/bench").iter().map(|path| stem(path)).collect();
    let mut all: Vec<&str> = NAMES.into_iter().chain([JUDGED]).collect();
    all.sort_unstable();
    assert_eq!(found, all);
    let games: Vec<PathBuf> = glob::glob("games/*.lua").expect("a pattern").filter_map(Result::ok).collect();
    assert!(games.len() > 3 && games.iter().all(|path| !path.starts_with("games/bench")), "{games:?}");
}

#[test]
fn every_row_is_asked_once_and_asks_for_the_tags() {
    deep(|| {
        for (name, count) in NAMES.into_iter().zip([3, 5, 4, 3, 3]) {
            let prompts = prompts(&load(name, &sample(name, "jsonl")));
            let different: BTreeSet<&String> = prompts.iter().collect();
            assert_eq!((prompts.len(), different.len()), (count, count), "{name}: {prompts:?}");
            assert!(
                prompts.iter().all(|prompt| prompt.contains("<think>") && prompt.ends_with("<answer>...</answer>."))
            );
        }
    });
}

#[test]
fn parquet_as_published_asks_the_same() {
    deep(|| {
        for name in NAMES.into_iter().filter(|name| *name != "math500") {
            let [jsonl, parquet] = ["jsonl", "parquet"].map(|kind| prompts(&load(name, &sample(name, kind))));
            assert_eq!(jsonl, parquet, "{name}");
        }
    });
}

#[test]
fn an_evaluation_plays_each_row_once_and_the_bot_knows_the_answers() {
    deep(|| {
        for name in NAMES {
            let game = load(name, &sample(name, "jsonl"));
            let count = game.episode_count().expect("a number").expect("rows") as usize;
            let matches =
                Match { games: vec![game], episodes: 1000, by_game: BTreeMap::new(), seat: None, seed: Seed::new(3) };
            let player = |spec: &str| Opponents::parse(spec).expect("a player");
            let rate = &matches.play_scripted(&player("bot"), &player("random"))[0];
            assert_eq!((rate.rates.episodes, rate.rates.success, rate.voided), (count, 1.0, 0), "{name}");
        }
    });
}

#[test]
fn a_choice_is_read_from_a_letter_or_the_text() {
    deep(|| {
        let game = load("mmlu", &sample("mmlu", "jsonl"));
        for right in ["C", "c", "(C)", "C.", "C) 5", "5"] {
            assert_eq!(answer(&game, "2 + 3", right), Some((1.0, true)), "{right}");
        }
        for wrong in ["A", "B. 7", "4"] {
            assert_eq!(answer(&game, "2 + 3", wrong), Some((0.0, false)), "{wrong}");
        }
        for refused in ["E", "C or D", "C) 7", "", "the third"] {
            assert_eq!(answer(&game, "2 + 3", refused), None, "{refused}");
        }
        let game = load("mmlu_pro", &sample("mmlu_pro", "jsonl"));
        assert_eq!(
            (answer(&game, "decagon", "H"), answer(&game, "decagon", "J")),
            (Some((1.0, true)), Some((0.0, false)))
        );
        assert_eq!((answer(&game, "prime", "E"), answer(&game, "prime", "G")), (Some((1.0, true)), None));
        let game = load("social_iqa", &sample("social_iqa", "jsonl"));
        assert_eq!((answer(&game, "Sam", "C"), answer(&game, "Sam", "A")), (Some((1.0, true)), Some((0.0, false))));
    });
}

#[test]
fn mathematical_answers_may_be_written_otherwise() {
    deep(|| {
        let game = load("math500", &sample("math500", "jsonl"));
        assert_eq!(answer(&game, "frac{1}{4}", "0.5"), Some((1.0, true)));
        assert_eq!(answer(&game, "frac{1}{4}", "\\boxed{\\frac12}"), Some((1.0, true)));
        assert_eq!(answer(&game, "frac{1}{4}", "2"), Some((0.0, false)));
        assert_eq!(answer(&game, "sqrt{50}", "5\\sqrt2"), Some((1.0, true)));
        assert_eq!(answer(&game, "polar", "(3, \\pi/2)"), Some((1.0, true)));
    });
}

#[test]
fn concepts_count_in_any_inflection() {
    deep(|| {
        let game = load("commongen", &sample("commongen", "jsonl"));
        let covered = |text: &str| answer(&game, "run, child, carry", text);
        assert_eq!(covered("Two children ran home and carried the dog."), Some((1.0, true)));
        assert_eq!(covered("A child's mother is running, carrying her."), Some((1.0, true)));
        let (score, success) = covered("The child runs.").expect("a sentence");
        assert!((score - 2.0 / 3.0).abs() < 1e-12 && !success, "{score}");
        // Words that only begin alike are other words.
        assert_eq!(covered("The runway and the childhood of the carriage."), Some((0.0, false)));
        assert_eq!(covered("123"), None);
        assert_eq!(covered(&"run child carry ".repeat(21)), None);
        // A row for each set, as in the files of the authors.
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("sets.jsonl");
        std::fs::write(&file, "{\"concept_set\":\"stop#city#bus\"}\n{\"concept_set\":\"write#letter\"}\n")
            .expect("a file");
        let game = load("commongen", &file);
        assert_eq!(game.episode_count().expect("a number"), Some(2));
        assert_eq!(answer(&game, "stop, city, bus", "Buses are stopping in cities."), Some((1.0, true)));
        assert_eq!(answer(&game, "write, letter", "She wrote letters."), Some((1.0, true)));
    });
}

/// The judge sees concepts and sentence, and its verdict is the writer's score whatever the coverage; what is no sentence
/// never gets to it.
#[test]
fn a_judge_decides_about_a_sentence() {
    deep(|| {
        let game = load(JUDGED, &sample("commongen", "jsonl"));
        let judged = |sentence: &str, verdict: &str| {
            let mut episode = Episode::start_numbered(&game, Seed::new(1), Some(1)).expect("a start");
            let action = |text: &str| Action { text: text.to_owned(), well_formed: true };
            episode.act(Seat(1), &action(sentence)).expect("a turn");
            if *episode.status() != Status::Turn(Seat(2)) {
                return None;
            }
            let question = episode.observation(Seat(2), false).expect("a question");
            assert!(question.contains(sentence) && question.ends_with("<answer>...</answer>."), "{question}");
            let verdicts = episode.actions(Seat(2)).expect("verdicts").expect("a list");
            assert_eq!(verdicts.iter().collect::<Vec<_>>(), ["no", "yes"]);
            episode.act(Seat(2), &action(verdict)).expect("a turn");
            Some((episode.result(Seat(1)), episode.result(Seat(2))))
        };
        assert_eq!(judged("A plain sentence.", "Yes."), Some(((1.0, true), (0.0, false))));
        assert_eq!(judged("A plain sentence.", "no"), Some(((0.0, false), (0.0, false))));
        assert_eq!(judged("123", "yes"), None);
        // The stand-in goes by coverage, which its own sentences have and random ones have not.
        let matches =
            Match { games: vec![game], episodes: 3, by_game: BTreeMap::new(), seat: Some(Seat(1)), seed: Seed::new(3) };
        let player = |spec: &str| Opponents::parse(spec).expect("a player");
        let rate = &matches.play_scripted(&player("bot"), &player("commongen_judged=bot"))[0];
        assert_eq!((rate.rates.success, rate.voided), (1.0, 0));
    });
}

#[test]
fn a_game_without_its_file_says_which_setting_is_missing() {
    deep(|| {
        let host = ScriptHost::new(patient(), Vec::new());
        let game = load_under("games/bench/mmlu.lua", options(&[]), &host);
        let problem = game.init(Seed::new(0)).expect_err("a problem").to_string();
        assert!(problem.contains("set `games.mmlu.data` to the data set's file"), "{problem}");
    });
}
