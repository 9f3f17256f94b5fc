//! Settings that are saved while a run goes on: what may change does at the next iteration, the rest is refused with the
//! reason, and a resumed run goes on with what was in service.
#![expect(clippy::float_cmp, reason = "the settings are compared with themselves")]

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use gift_host::config::from_toml;
use gift_host::reload::{Also, Event, SettingsFile, Watcher};
use gift_host::run::IterationReport;

use super::support::{ECHO, Lab, catalog, config, pool, start};

#[test]
fn safe_settings_change_with_an_iteration_and_others_are_refused() {
    let lab = Lab::new();
    let game = lab.write("games/echo.lua", ECHO);
    let first = config(&["optimizer.learning_rate=0.001", "steps=30"]);
    let text = toml::to_string(&first).expect("TOML");
    let file = lab.write("config.toml", &text);
    pool(2).install(|| {
        let mut run = start(first.clone(), catalog(&[game], None, None));
        let (sender, events) = channel();
        let path = file.clone();
        #[expect(clippy::disallowed_methods, reason = "a file of the test")]
        let read = move || from_toml(Some((&path, &std::fs::read_to_string(&path).expect("the file"))), &[]);
        let settings = SettingsFile { path: file.clone(), config: first.clone(), read: Box::new(read) };
        let also = Also { settings: Some(settings), ..Also::default() };
        let report = move |event: &Event| _ = sender.send(event.clone());
        let watcher = Watcher::start_with(&run.catalog, also, Box::new(report)).expect("a watcher");
        let mut iterate = || -> IterationReport {
            run.iterate(Some(&watcher), &AtomicBool::new(false)).unwrap_or_else(|error| panic!("{error}"))
        };
        let next = || events.recv_timeout(Duration::from_secs(30)).expect("an event");
        let before = iterate();
        assert_eq!((before.figures["learning_rate"], before.settings.len()), (0.001, 0));

        let changed =
            text.replace("learning_rate = 0.001", "learning_rate = 0.002").replace("steps = 30", "steps = 40");
        lab.write("config.toml", &changed.replace("groups = 4", "groups = 8"));
        assert!(matches!(next(), Event::Settings { changes } if changes.len() == 2));
        let Event::Rejected { problem } = next() else { panic!("no refusal") };
        let shown = problem.to_string();
        assert!(shown.contains("`rollout.groups` cannot change while a run goes on"), "{shown}");
        assert!(shown.contains("config.toml") && shown.contains("why: memory"), "{shown}");
        let after = iterate();
        let changes: Vec<String> = after.settings.iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["optimizer.learning_rate: 0.001 -> 0.002", "steps: 30 -> 40"]);
        assert_eq!((after.figures["learning_rate"], after.groups.len(), after.rejected.len()), (0.002, 4, 1));

        // A refused value is told of once; a file that is not valid changes nothing.
        lab.write("config.toml", "[optimizer]\nlearning_rat = 1\n");
        let Event::Rejected { problem } = next() else { panic!("no refusal") };
        assert!(problem.to_string().contains("did you mean `learning_rate`?"), "{problem}");
        assert_eq!(iterate().figures["learning_rate"], 0.002);
        lab.write("config.toml", &changed);
        std::thread::sleep(Duration::from_millis(400));
        let last = iterate();
        assert_eq!((last.settings.len(), last.figures["learning_rate"]), (0, 0.002));
        assert!(events.try_recv().is_err());
    });
}

/// Through the program: the file that `--config` named is watched, `config.toml` follows, and a resumed run uses it.
#[cfg(unix)]
#[test]
fn a_resumed_run_goes_on_with_the_settings_as_changed() {
    let place = super::binary::Place::new();
    std::fs::write(place.path("games/echo.lua"), ECHO).expect("a script");
    let write = |rate: &str, steps: u64| {
        let text = format!("steps = {steps}\n[optimizer]\nlearning_rate = {rate}\nwarmup_updates = 0\n");
        std::fs::write(place.path("my.toml.new"), text).expect("settings");
        std::fs::rename(place.path("my.toml.new"), place.path("my.toml")).expect("a rename");
    };
    write("0.001", 1_000_000);
    let arguments = ["train", "--config", "my.toml", "--games", "games/echo.lua", "--out", "run", "--device", "cpu"];
    let settings = [
        "rollout.groups=4",
        "rollout.group_size=4",
        "evaluation.episodes=0",
        "episodes_every=0",
        // A policy that answers at random always has something to learn from, so every iteration has an update.
        "decode.temperature=100.0",
    ];
    let mut arguments = arguments.to_vec();
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let child = place.spawn(&arguments);
    let records = || gift_host::metrics::read_jsonl(&place.path("run/metrics.jsonl")).unwrap_or_default();
    let rates = || -> Vec<f64> {
        let mut rates: Vec<f64> = records().iter().filter_map(|record| record.number("learning_rate")).collect();
        rates.dedup();
        rates
    };
    let started = Instant::now();
    let wait = || {
        assert!(started.elapsed() < Duration::from_secs(120), "{:?}", rates());
        std::thread::sleep(Duration::from_millis(20));
    };
    while rates().is_empty() {
        wait();
    }
    write("0.002", 1_000_000);
    while rates().len() < 2 {
        wait();
    }
    // The number of iterations ends the run.
    write("0.002", 2);
    let output = child.wait_with_output().expect("the end");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("optimizer.learning_rate: 0.001 -> 0.002, from iteration"), "{errors}");
    let records = records();
    let event = records.iter().find(|record| record.get("reload/settings").is_some()).expect("a record of the change");
    assert_eq!(event.number("reload/settings"), Some(1.0));
    assert!(format!("{:?}", event.get("reload/events")).contains("0.001 -> 0.002"), "{event:?}");
    let stored = String::from_utf8(place.bytes("run/config.toml")).expect("UTF-8");
    assert!(stored.contains("learning_rate = 0.002"), "{stored}");

    let done = records.last().expect("a record").step();
    place.run_to_end(&["train", "--resume", "run", "--steps", &(done + 2).to_string()]);
    let resumed = gift_host::metrics::read_jsonl(&place.path("run/metrics.jsonl")).expect("metrics");
    assert_eq!(resumed.len() as u64, done + 2);
    let rates: Vec<f64> = resumed[done as usize..].iter().filter_map(|record| record.number("learning_rate")).collect();
    assert!(!rates.is_empty() && rates.iter().all(|rate| *rate == 0.002), "{rates:?}");
}
