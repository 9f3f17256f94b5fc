//! What the log says, in which form, and what it must never say.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::support::{Place, QUICK, show};

const SECRETS: [(&str, &str); 2] = [("HF_TOKEN", "hf-value-of-the-token"), ("OPENAI_API_KEY", "value/of+the-key")];

/// Runs the binary with both secrets in its environment; its output, and standard error alone.
fn run(place: &Place, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gift-host"));
    command.args(arguments).current_dir(place.path("")).envs(SECRETS).env_remove("RUST_BACKTRACE");
    let output = command.stdin(Stdio::null()).output().expect("the binary");
    (show(&output), String::from_utf8(output.stderr).expect("UTF-8"))
}

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "--games", "games/echo.lua", "--out", "run", "--steps", "2"], &QUICK[..], more].concat()
}

#[test]
fn json_has_one_object_a_line_with_time_level_and_figures() {
    let place = Place::with_echo();
    let arguments = train(&["--log", "json", "--log-level", "debug", "--set", "evaluation.episodes=5"]);
    let (shown, errors) = run(&place, &arguments);
    assert!(shown.starts_with("status: 0"), "{shown}");
    let lines: Vec<Value> = errors.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert!(lines.iter().all(|line| line["time"].as_f64() > Some(1.6e9) && line["message"].is_string()), "{errors}");
    let iteration = lines.iter().find(|line| line["step"] == 2).expect("the second iteration");
    assert!(iteration["message"].as_str().expect("a text").starts_with("iteration 2/2 | echo "), "{iteration}");
    assert!(iteration["level"] == "info" && iteration["reward"].is_number() && iteration["steps"] == 2, "{iteration}");
    let wrote =
        |line: &&Value| line["message"].as_str().is_some_and(|text| text.starts_with("a checkpoint was written"));
    assert_eq!(lines.iter().find(wrote).expect("the checkpoint")["level"], "debug");
}

#[test]
fn levels_leave_out_what_is_less_severe() {
    let place = Place::with_echo();
    let (shown, errors) = run(&place, &train(&["--log-level", "warn", "--set", "games.other.n=1"]));
    assert!(shown.starts_with("status: 0"), "{shown}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.starts_with("warning: the options of `games.other` are not used"), "{errors}");
    let (shown, errors) = run(&place, &["eval", "--games", "games/none.lua", "--log", "json", "--log-level", "error"]);
    assert!(shown.starts_with("status: 2"), "{shown}");
    let line: Value = serde_json::from_str(errors.trim_end()).expect("one object");
    assert_eq!(line["level"], "error");
}

/// Model, opponent and options are where addresses with keys are written; a game's name and its log are where text of a stranger
/// comes from.
#[test]
fn secrets_appear_nowhere() {
    let place = Place::with_echo();
    place.write("games/talk.lua", &super::support::ECHO.replace("\"echo\"", "\"talk\"").replace(
        "done = false, right = false }",
        "done = false, right = false, n = gift.log(\"at https://u:hidden-pass@h/ \" .. tostring(options.url)) and 0 or 0 }",
    ));
    let [(_, token), (_, key)] = SECRETS;
    let url = format!("https://me:hidden-pass@host/v1?api_key=hidden-param&token={token}#m");
    let mut all = String::new();
    for form in ["text", "json"] {
        let (set, model, opponent) =
            (format!("games.talk.url='{url}'"), format!("models/{key}"), format!("openai:{url}"));
        for arguments in [
            vec!["train", "--games", "games/talk.lua", "--set", &set, "--out", form, "--steps", "1", "--log", form],
            vec!["eval", "--games", "games/talk.lua", "--model", &model, "--log", form],
            vec!["eval", "--games", "games/talk.lua", "--opponent", &opponent, "--log", form],
            vec!["eval", "--games", "games/talk.lua", "--seat", &url, "--log", form],
            vec!["report", form, "--log", form],
        ] {
            let quick = if arguments[0] == "train" { &QUICK[..] } else { &[] };
            all += &run(&place, &[&arguments, quick].concat()).0;
        }
        for file in ["launches.jsonl", "report.html", "metrics.jsonl"] {
            all += &place.read(&format!("{form}/{file}"));
        }
        let events = std::fs::read_dir(place.path(form)).expect("a run").map(|entry| entry.expect("an entry").path());
        let events = events.filter(|path| path.to_string_lossy().contains("tfevents")).collect::<Vec<_>>();
        assert_eq!(events.len(), 1);
        all += &String::from_utf8_lossy(&std::fs::read(&events[0]).expect("the events"));
    }
    for secret in [token, key, "hidden-pass", "hidden-param"] {
        let at = all.find(secret);
        assert!(at.is_none(), "`{secret}` appears: {}", &all[at.unwrap_or(0).saturating_sub(200)..][..400]);
    }
    // The texts themselves were there.
    assert!(all.contains("models/[secret]") && all.contains("https://[secret]@host/v1"), "{all}");
}

#[test]
fn a_script_cannot_move_the_cursor() {
    let place = Place::with_echo();
    place.write(
        "games/echo.lua",
        &super::support::ECHO.replace(
            "function game.to_act(state)",
            "gift.log(\"a\\27[2Jb\\r\\7c\\u{9b}d\")\nfunction game.to_act(state)",
        ),
    );
    for form in ["text", "json"] {
        let (_, errors) = run(&place, &["check", "games/echo.lua", "--episodes", "1", "--log", form]);
        assert!(errors.contains("[2Jb"), "{errors:?}");
        assert!(!errors.contains(|c: char| c.is_control() && c != '\n'), "{errors:?}");
    }
}

#[test]
fn a_run_says_how_and_where_it_was_started() {
    let place = Place::with_echo();
    let (shown, _) = run(&place, &train(&["--opponent", "random"]));
    assert!(shown.starts_with("status: 0"), "{shown}");
    let (shown, _) = run(&place, &["train", "--resume", "run", "--steps", "3"]);
    assert!(shown.starts_with("status: 0"), "{shown}");
    let launches = gift_host::metrics::read_launches(&place.path("run"));
    let steps: Vec<u64> = launches.iter().map(|launch| launch.step).collect();
    assert_eq!(steps, [0, 2]);
    assert!(launches[0].command.starts_with("gift-host train --games games/echo.lua --out run --steps 2 --device cpu"));
    assert_eq!((launches[0].threads, launches[0].device.as_str()), (1, "cpu"));
    assert!(launches[0].cores > 0 && !launches[0].system.is_empty());
    assert!(!cfg!(target_os = "linux") || launches[0].memory_bytes > 1 << 20, "{launches:?}");
    run(&place, &["report", "run"]);
    let page = place.read("run/report.html");
    assert!(page.contains(&launches[0].command) && page.contains("after iteration 2: gift-host train --resume run"));
}

/// Where there is no terminal, `--watch` changes nothing.
#[test]
fn watching_without_a_terminal_prints_plain_lines() {
    let place = Place::with_echo();
    let (shown, errors) = run(&place, &train(&["--watch"]));
    assert!(shown.starts_with("status: 0") && errors.contains("\niteration 2/2 | echo "), "{shown}");
}
