//! Saving scripts while a run plays: the next iteration uses what passes the check, and what does not changes nothing.
#![expect(clippy::float_cmp, reason = "the rewards here are whole numbers")]

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use gift_host::diag::Diagnostic;
use gift_host::reload::{Event, Watcher};
use gift_host::run::{IterationReport, TrainRun};

use super::support::{ECHO, Lab, catalog, config, pool, start};

/// A run with its watcher and what that has reported.
struct Session {
    run: TrainRun,
    watcher: Watcher,
    events: Receiver<Event>,
}

impl Session {
    fn new(games: &[PathBuf], nest: Option<&PathBuf>, reward: Option<&PathBuf>) -> Self {
        let catalog = catalog(games, nest.map(PathBuf::as_path), reward.map(PathBuf::as_path));
        let run = start(config(&["decode.observation=full"]), catalog);
        let (sender, events) = channel();
        let report = move |event: &Event| sender.send(event.clone()).expect("the test listens");
        let watcher = Watcher::start(&run.catalog, Box::new(report)).unwrap_or_else(|problem| panic!("{problem}"));
        Self { run, watcher, events }
    }

    fn next_event(&self) -> Event {
        loop {
            let event = self
                .events
                .recv_timeout(Duration::from_secs(20))
                .expect("an event within the time that a slow machine takes");
            // A file that is being replaced may be missed for a moment.
            if !matches!(event, Event::Warned { .. }) {
                return event;
            }
        }
    }

    /// Waits for a version that is ready; what it is called.
    fn ready(&self) -> String {
        match self.next_event() {
            Event::Ready { name, .. } => name,
            Event::Rejected { problem } => panic!("{problem}"),
            other => panic!("{other:?}"),
        }
    }

    fn rejected(&self) -> Diagnostic {
        match self.next_event() {
            Event::Rejected { problem } => problem,
            other => panic!("something broken was taken: {other:?}"),
        }
    }

    fn iterate(&mut self) -> IterationReport {
        let report = self.run.iterate(Some(&self.watcher), &AtomicBool::new(false));
        report.unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The first observation of every trajectory.
fn observations(report: &IterationReport) -> Vec<String> {
    let trajectories = report.groups.iter().flat_map(|scored| &scored.group.trajectories);
    trajectories.map(|trajectory| trajectory.stages[0].turns[0].observation.clone()).collect()
}

fn names(report: &IterationReport) -> Vec<&str> {
    report.reloaded.iter().map(|(name, _)| name.as_str()).collect()
}

/// A run goes back to an earlier version where a newer one fails too often; that is then the one in service.
#[test]
fn a_refused_version_leaves_the_one_that_the_run_went_back_to() {
    let lab = Lab::new();
    let game = lab.write("games/echo.lua", ECHO);
    pool(2).install(|| {
        let mut session = Session::new(&[game], None, None);
        let good = session.run.catalog.game("echo").expect("the game").clone();
        lab.write("games/echo.lua", &ECHO.replace("Name this digit: ", "Which digit is this? "));
        assert_eq!(session.ready(), "echo");
        assert_ne!(session.iterate().versions["echo"], good.source.version);
        session.run.catalog.replace_game(good.clone());
        assert_eq!(session.iterate().versions["echo"], good.source.version);
        lab.write("games/echo.lua", "return {");
        let problem = session.rejected();
        let kept = format!("`echo` keeps serving version {}", good.source.version.short());
        assert!(problem.notes.contains(&kept), "{problem}");
    });
}

#[test]
fn a_saved_prompt_is_active_at_the_next_iteration_and_a_broken_script_is_not() {
    let lab = Lab::new();
    let game = lab.write("games/echo.lua", ECHO);
    pool(2).install(|| {
        let mut session = Session::new(&[game], None, None);
        let first = session.iterate();
        assert!(observations(&first).iter().all(|text| text.starts_with("Name this digit: ")));
        assert!(first.reloaded.is_empty());

        lab.write("games/echo.lua", &ECHO.replace("Name this digit: ", "Which digit is this? "));
        assert_eq!(session.ready(), "echo");
        let second = session.iterate();
        assert_eq!(names(&second), ["echo"]);
        assert_ne!(first.versions["echo"], second.versions["echo"]);
        assert!(observations(&second).iter().all(|text| text.starts_with("Which digit is this? ")));
        let trajectories = second.groups.iter().flat_map(|scored| &scored.group.trajectories);
        assert!(trajectories.flat_map(|t| &t.stages).all(|stage| stage.version == second.versions["echo"].0));

        // A bracket is missing in line 5.
        let broken = ECHO.replace("return \"e\" .. state.digit end", "return (\"e\" .. state.digit end");
        lab.write("games/echo.lua", &broken);
        let problem = session.rejected();
        let place = problem.place.clone().expect("a place");
        assert!(place.file.ends_with("games/echo.lua") && place.line == 5, "{problem}");
        let kept = format!("`echo` keeps serving version {}", second.versions["echo"].short());
        assert!(problem.notes.contains(&kept), "{problem}");
        let third = session.iterate();
        assert_eq!((third.reloaded.len(), &third.versions), (0, &second.versions));
        assert!(observations(&third).iter().all(|text| text.starts_with("Which digit is this? ")));

        // It compiles, but breaks the contract in play.
        lab.write("games/echo.lua", &ECHO.replace("return nil end return 1 end", "return nil end return 7 end"));
        let problem = session.rejected();
        assert_eq!(problem.code, "game::illegal_seat", "{problem}");
        assert!(problem.help.is_some() && problem.notes.contains(&kept), "{problem}");
        assert_eq!(session.iterate().versions, second.versions);

        // Metrics and groups go by name and seats, so those must stay.
        lab.write("games/echo.lua", &ECHO.replace("name = \"echo\"", "name = \"digits\""));
        let problem = session.rejected();
        assert_eq!(problem.code, "reload::identity", "{problem}");
        assert_eq!(session.iterate().versions, second.versions);

        lab.write("games/echo.lua", ECHO);
        assert_eq!(session.ready(), "echo");
        let mended = session.iterate();
        assert_eq!(mended.versions, first.versions, "the same text is the same version");
    });
}

/// Editors write a file beside and rename it over the old one; so does `git checkout`.
#[test]
fn a_file_that_is_renamed_into_place_is_seen() {
    let lab = Lab::new();
    let game = lab.write("games/echo.lua", ECHO);
    pool(2).install(|| {
        let mut session = Session::new(std::slice::from_ref(&game), None, None);
        for number in 1..=3 {
            let prompt = format!("Number {number}: ");
            let beside = lab.write("games/.echo.lua.tmp", &ECHO.replace("Name this digit: ", &prompt));
            std::fs::rename(&beside, &game).expect("a rename");
            assert_eq!(session.ready(), "echo");
            assert!(observations(&session.iterate()).iter().all(|text| text.starts_with(&prompt)));
        }
        // For a moment there is no file at all: the version in service stays, and no message is written.
        std::fs::remove_file(&game).expect("a removal");
        assert!(session.events.recv_timeout(Duration::from_millis(300)).is_err());
        assert!(session.iterate().reloaded.is_empty());
        lab.write("games/echo.lua", ECHO);
        assert_eq!(session.ready(), "echo");
    });
}

#[test]
fn nest_and_reward_scripts_reload_as_games_do() {
    let lab = Lab::new();
    let games =
        [lab.write("games/echo.lua", ECHO), lab.write("games/other.lua", &ECHO.replace("\"echo\"", "\"other\""))];
    let nest = lab.write("nest.lua", "return { mode = \"nested\", stages = { \"echo\", \"other\" } }\n");
    let reward = lab.write("reward.lua", "return function(episode) return 1 end\n");
    pool(2).install(|| {
        let mut session = Session::new(&games, Some(&nest), Some(&reward));
        let rewards = |report: &IterationReport| report.figures["reward/mean"];
        let first = session.iterate();
        assert_eq!(rewards(&first), 1.0);
        let stage_counts = |report: &IterationReport| -> Vec<usize> {
            report.groups.iter().flat_map(|scored| &scored.group.trajectories).map(|t| t.stages.len()).collect()
        };
        assert!(stage_counts(&first).iter().all(|count| *count == 2));

        lab.write("reward.lua", "return function(episode) return 3 end\n");
        assert_eq!(session.ready(), "reward.lua");
        let second = session.iterate();
        assert_eq!(rewards(&second), 3.0);
        assert_ne!(first.versions["reward"], second.versions["reward"]);
        assert_eq!(first.versions["nest"], second.versions["nest"]);

        lab.write("nest.lua", "return { mode = \"mixed\", stages = { \"other\", \"echo\" } }\n");
        assert_eq!(session.ready(), "nest.lua");
        let third = session.iterate();
        assert!(stage_counts(&third).iter().all(|count| *count == 1));

        lab.write("nest.lua", "return { mode = \"mixed\", stages = { \"other\", \"chess\" } }\n");
        let problem = session.rejected();
        assert!(problem.code == "nest::unknown_game" && problem.to_string().contains("nest.lua"), "{problem}");
        lab.write("reward.lua", "return function(episode)\n  return 1 +\nend\n");
        let problem = session.rejected();
        assert_eq!(problem.place.as_ref().map(|place| place.line), Some(3), "{problem}");
        assert_eq!(session.iterate().versions, third.versions);
    });
}

/// A module that several games share is part of their versions.
#[test]
fn a_saved_module_reloads_the_games_that_load_it() {
    let lab = Lab::new();
    lab.write("scripts/lib/texts.lua", "return { prompt = \"Name this digit: \" }\n");
    let text = format!("local texts = require(\"texts\")\n{}", ECHO.replace("\"Name this digit: \"", "texts.prompt"));
    let game = lab.write("games/echo.lua", &text);
    pool(2).install(|| {
        let mut session = Session::new(&[game], None, None);
        let first = session.iterate();
        lab.write("scripts/lib/texts.lua", "return { prompt = \"Digit? \" }\n");
        assert_eq!(session.ready(), "echo");
        let second = session.iterate();
        assert_ne!(first.versions, second.versions);
        assert!(observations(&second).iter().all(|text| text.starts_with("Digit? ")));
    });
}

/// A fixed order may name a new game, and so may a function that decides anew in every iteration.
#[test]
fn a_game_that_the_nest_names_joins_the_run() {
    let lab = Lab::new();
    let named = |name: &str| ECHO.replace("\"echo\"", &format!("\"{name}\""));
    let game = lab.write("games/echo.lua", ECHO);
    let nest = lab.write("nest.lua", "return { stages = { \"echo\" } }\n");
    pool(2).install(|| {
        let mut session = Session::new(&[game], Some(&nest), None);
        session.iterate();
        lab.write("games/late.lua", &named("late"));
        assert!(matches!(session.next_event(), Event::Offered { name, .. } if name == "late"));
        assert!(!session.iterate().versions.contains_key("late"));
        lab.write("nest.lua", "return { stages = { \"echo\", \"late\" } }\n");
        assert_eq!(session.ready(), "nest.lua");
        let joined = session.iterate();
        assert_eq!(names(&joined), ["nest.lua", "late"]);
        assert!(joined.versions.contains_key("late") && joined.figures.contains_key("reward/late"));
        lab.write("games/later.lua", &named("later"));
        assert!(matches!(session.next_event(), Event::Offered { name, .. } if name == "later"));
        lab.write("nest.lua", "return { stages = function(rng, stats) return { \"echo\", \"later\" } end }\n");
        assert_eq!(session.ready(), "nest.lua");
        let joined = session.iterate();
        assert!(names(&joined).contains(&"later") && joined.figures.contains_key("reward/later"), "{joined:?}");
        // A game in service is saved as any other.
        lab.write("games/late.lua", &named("late").replace("Name this digit: ", "Digit? "));
        let (Event::Ready { name, .. } | Event::Offered { name, .. }) = session.next_event() else {
            panic!("no event")
        };
        assert_eq!(name, "late");
        assert_eq!(names(&session.iterate()), ["late"]);
        assert_eq!(session.run.catalog.names(), ["echo", "late", "later"]);
    });
}

/// Through the program: what it says on standard error, what it stores, and a broken save in the middle of a run.
#[cfg(unix)]
#[test]
fn the_program_says_which_version_is_active_and_stores_it() {
    let place = super::binary::Place::new();
    let write = |text: &str| std::fs::write(place.path("games/echo.lua"), text).expect("a script");
    write(ECHO);
    let mut arguments = vec!["train", "--games", "games/echo.lua", "--out", "run", "--steps", "100000"];
    arguments.extend(super::binary::QUICK);
    arguments.extend(["--set", "checkpoint_every=0", "--set", "episodes_every=0"]);
    let child = place.spawn(&arguments);
    let versions = || -> Vec<String> {
        let records = gift_host::metrics::read_jsonl(&place.path("run/metrics.jsonl")).unwrap_or_default();
        let mut versions: Vec<String> = records
            .iter()
            .filter_map(|record| record.get("scripts/echo").map(|version| format!("{version:?}")))
            .collect();
        versions.dedup();
        versions
    };
    let wait_for = |count: usize| {
        let started = std::time::Instant::now();
        while versions().len() < count {
            assert!(started.elapsed() < Duration::from_secs(120), "{:?}", versions());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(1);
    write(&ECHO.replace("Name this digit: ", "Which digit is this? "));
    wait_for(2);
    write("local game = {\n");
    // Longer than the watcher waits and looks: a broken version has every chance to come into service.
    std::thread::sleep(Duration::from_millis(500));
    write(&ECHO.replace("Name this digit: ", "Digit? "));
    wait_for(3);
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
    let output = child.wait_with_output().expect("the end");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{errors}");
    // The refused save is in the figures of the iteration after it, in both forms.
    let records = gift_host::metrics::read_jsonl(&place.path("run/metrics.jsonl")).expect("metrics");
    let refused = records.iter().filter_map(|record| Some(format!("{:?}", record.get("reload/rejected")?)));
    assert_eq!(refused.filter(|count| count.contains('1')).count(), 1, "{records:?}");
    let events = records.iter().filter_map(|record| Some(format!("{:?}", record.get("reload/events")?)));
    let events: Vec<String> = events.filter(|event| event.contains("not taken: script::syntax")).collect();
    assert!(events.len() == 1 && events[0].contains("games/echo.lua:2"), "{events:?}");
    let run = std::fs::read_dir(place.path("run")).expect("the run");
    let names = run.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names: Vec<String> = names.filter(|name| name.starts_with("events.out.tfevents")).collect();
    let bytes = place.bytes(&format!("run/{}", names[0]));
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("reload/rejected") && holds("not taken: script::syntax"), "TensorBoard has it too");
    assert_eq!(versions().len(), 3, "three versions were in service, one after the other");
    assert_eq!(errors.matches("is active from iteration").count(), 2, "{errors}");
    assert!(errors.contains("error[script::syntax]") && errors.contains("--> games/echo.lua:2"), "{errors}");
    assert!(errors.contains("note: `echo` keeps serving version"), "{errors}");
    let stored = std::fs::read_dir(place.path("run/scripts")).expect("scripts");
    let count =
        stored.filter(|entry| entry.as_ref().is_ok_and(|e| e.path().extension().is_some_and(|x| x == "lua"))).count();
    assert_eq!(count, 3);
}
