//! `gift-host report` and `gift-host watch`: what they make of a run directory.

use super::support::{Place, show};

#[test]
fn a_run_becomes_a_page_and_lines() {
    let place = Place::with_echo();
    let output = place.train(&["--steps", "2", "--set", "evaluation.episodes=20", "--set", "episodes_every=2"]);
    assert!(output.status.success(), "{}", show(&output));
    assert_eq!(place.read("run/evaluations.jsonl").lines().count(), 2);

    assert_eq!(place.shown(&["report", "run"]).trim_end(), "status: 0\n--- output\nrun/report.html");
    let page = place.read("run/report.html");
    let data = page.split("<script type=\"application/json\" id=\"data\">").nth(1).expect("the data");
    let data = data.split("</script>").next().expect("its end");
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    let run = &data["runs"][0];
    assert_eq!(run["curves"]["reward/echo"].as_array().map(Vec::len), Some(2));
    assert_eq!(run["evaluations"][1]["step"], 2);
    assert_eq!(run["versions"][0]["name"], "echo");
    assert_eq!(run["problems"], serde_json::json!([]));
    // Both files whole: four groups of four.
    assert_eq!(run["sample"]["episodes"].as_array().map(Vec::len), Some(32));
    assert_eq!(run["sample"]["episodes"][0]["tokens"][0][0].as_str().map(|text| &text[..15]), Some("<|observation|>"));

    let shown = place.shown(&["watch", "run"]);
    assert!(shown.contains("\niteration 1 | echo reward ") && shown.contains("\niteration 2 | echo "), "{shown}");
}

#[test]
fn a_folder_that_is_no_run_is_told() {
    let place = Place::with_echo();
    for command in ["report", "watch"] {
        let shown = place.shown(&[command, "games"]);
        let expected = format!(
            "status: 2\n--- errors\nerror[cli::{command}]: there is no run in this folder\n  --> games\n  \
             expected: a run directory, with `config.toml` and `metrics.jsonl` in it\n  \
             help:     `gift-host {command} runs/NAME`"
        );
        assert_eq!(shown.trim_end(), expected);
    }
}
