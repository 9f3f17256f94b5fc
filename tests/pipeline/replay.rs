//! Stored episodes, played again from the run directory alone: identical, or the first difference is named.

use std::io::Write;

use super::binary::{Place, QUICK};

fn train(place: &Place, more: &[&str]) {
    let mut arguments = vec!["train", "--out", "run", "--steps", "1"];
    arguments.extend(more);
    arguments.extend(QUICK);
    place.run_to_end(&arguments);
}

fn replay(place: &Place, episode: &str) -> (Option<i32>, String) {
    let output = place.run(&["replay", "run", "--episode", episode]);
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), text)
}

/// The ids of the stored episodes.
fn lines(place: &Place) -> Vec<serde_json::Value> {
    let bytes = zstd::decode_all(&place.bytes("run/episodes/step-000001.jsonl.zst")[..]).expect("zstd");
    let text = String::from_utf8(bytes).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn store(place: &Place, lines: &[serde_json::Value]) {
    let file = std::fs::File::create(place.path("run/episodes/step-000001.jsonl.zst")).expect("a file");
    let mut encoder = zstd::Encoder::new(file, 0).expect("zstd").auto_finish();
    for line in lines {
        writeln!(encoder, "{line}").expect("a line");
    }
}

/// All four games in one trajectory, with a data file, modules, opponents, options, a reward script and a nest.
#[test]
fn episodes_are_identical_although_every_file_changed_since() {
    let place = Place::new();
    let nest = "return { stages = { \"math\", \"spy\", \"nim\", \"tictactoe\" }, reward = function(results) return \
                gift.min(results) end }";
    std::fs::write(place.path("nest.lua"), nest).expect("a nest");
    let scripts = ["--nest", "nest.lua", "--reward", "scripts/rewards/efficient.lua", "--games", "games"];
    train(&place, &scripts);
    std::fs::remove_dir_all(place.path("games")).expect("the games go");
    std::fs::remove_dir_all(place.path("scripts")).expect("the scripts go");
    let stored = lines(&place);
    assert_eq!(stored.len(), 16);
    for line in &stored {
        let (status, text) = replay(&place, line["id"].as_str().expect("an id"));
        assert_eq!(status, Some(0), "{text}");
        assert!(text.contains("identical: ") && text.contains("stage 4: tictactoe"), "{text}");
    }
}

#[test]
fn free_answers_and_mixed_stages_replay_too() {
    let place = Place::new();
    train(&place, &["--games", "games/tictactoe.lua", "--set", "decode.constrain=off", "--set", "decode.format=think"]);
    // Hardly an answer of an untrained model is in the format: penalties and refusals are played again.
    for line in lines(&place).iter().take(4) {
        let (status, text) = replay(&place, line["id"].as_str().expect("an id"));
        assert_eq!(status, Some(0), "{text}");
        assert!(text.contains("which is refused: it is not in the answer format"), "{text}");
    }
}

/// What a game reads itself, and prompts that ask for another form, are stored and read again as they were.
#[test]
fn every_format_replays() {
    for format in ["script", "answer", "json", "boxed"] {
        let place = Place::new();
        let setting = format!("decode.format={format}");
        let more = ["--set", "decode.constrain=off", "--set", "decode.observation=full"];
        train(&place, &[&["--games", "games/tictactoe.lua", "--set", &setting][..], &more].concat());
        let stored = lines(&place);
        let turns: Vec<&serde_json::Value> =
            stored.iter().flat_map(|line| line["turns"].as_array().expect("turns")).collect();
        let asked = turns[0]["observation"].as_str().expect("a text").to_owned()
            + turns[1]["observation"].as_str().expect("a text");
        assert!(!asked.contains("<think>"), "{asked}");
        for line in stored.iter().take(4) {
            let (status, text) = replay(&place, line["id"].as_str().expect("an id"));
            assert_eq!(status, Some(0), "{format}: {text}");
        }
        if format == "script" {
            // A single digit in a text of random bytes is a move.
            assert!(turns.iter().any(|turn| turn["well_formed"] == false), "{stored:?}");
        }
    }
    let place = Place::new();
    let script = ["train", "--games", "games/nim.rhai", "--set", "decode.format=script", "--out", "run"];
    let output = place.run(&script);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("error[game::no_parse]"), "{text}");
}

type Change = fn(&mut serde_json::Value);

#[test]
fn the_first_difference_is_named() {
    let place = Place::new();
    train(&place, &["--games", "games/tictactoe.lua"]);
    let first = lines(&place).swap_remove(0);
    let id = first["id"].as_str().expect("an id").to_owned();
    let changes: [(&str, Change, &str); 4] = [
        ("reward", |line| line["stage_rewards"][0] = 0.25.into(), "the reward of stage 1"),
        ("observation", |line| line["seed"] = 7.into(), " of stage 1"),
        ("turns", |line| _ = line["turns"].as_array_mut().expect("turns").pop(), "goes on after its last stored turn"),
        ("legal", |line| line["turns"][0]["legal"] = false.into(), "whether the action is legal in turn 1"),
    ];
    for (what, change, expected) in changes {
        let mut line = first.clone();
        change(&mut line);
        store(&place, &[line]);
        let (status, text) = replay(&place, &id);
        assert_eq!(status, Some(1), "{what}: {text}");
        assert!(text.contains("different: ") && text.contains(expected), "{what}: {text}");
    }
    store(&place, &[first]);
    for (id, expected) in [("1-9-9", "1 episodes of iteration 1"), ("4-0-0", "stored: 1"), ("x", "an id without")] {
        let (status, text) = replay(&place, id);
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    // A stored version that was tampered with is no evidence.
    let stored = std::fs::read_dir(place.path("run/scripts")).expect("scripts").filter_map(Result::ok);
    for entry in stored.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "lua")) {
        std::fs::write(entry.path(), "return {}").expect("a change");
    }
    let (status, text) = replay(&place, &id);
    assert!(status == Some(1) && text.contains("its text now has the version"), "{text}");
}

/// Who does not know the ids is told where they stand, and some of them.
#[test]
fn without_an_id_some_are_named() {
    let place = Place::new();
    train(&place, &["--games", "games/nim.rhai"]);
    let output = place.run(&["replay", "run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    for part in ["no episode was named", "stored iterations: 1; iteration 1 has 16 episodes", "`1-0-0` (first, reward "]
    {
        assert!(text.contains(part), "{text}");
    }
    assert!(text.contains("`gift-host replay run --episode 1-0-0`"), "{text}");
    let (status, text) = replay(&place, "1-0-0");
    assert_eq!(status, Some(0), "{text}");
    let output = place.run(&["replay", "run", "--step", "7"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("stored are episodes of the iterations 1"), "{text}");
}
