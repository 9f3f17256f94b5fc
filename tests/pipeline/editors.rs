//! What editors, checkouts and people do to files while a run goes on, with a real watcher on real files: the newest
//! version that works comes into service, and nothing else does.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gift_host::diag::Diagnostic;
use gift_host::game::{GameDef, Seat};
use gift_host::reload::{Also, Catalog, Event, Taken, Watcher};
use gift_host::seed::Seed;

use super::support::{ECHO, Lab, catalog, pool};

/// Longer than any event takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than the watcher waits before it tells of a fault.
const QUIET: Duration = Duration::from_millis(500);

struct Desk {
    lab: Lab,
    catalog: Catalog,
    watcher: Watcher,
    events: Receiver<Event>,
}

/// The game with another prompt.
fn echo(prompt: &str) -> String {
    ECHO.replace("Name this digit: ", prompt)
}

fn prompt(game: &GameDef) -> String {
    let state = game.init(Seed::new(1)).expect("a start");
    game.observe(&state, Seat(1), false).expect("an observation")
}

impl Desk {
    fn new(lab: Lab, games: &[PathBuf], nest: Option<&Path>, open: &[PathBuf]) -> Self {
        let catalog = catalog(games, nest, None);
        let (sender, events) = channel();
        let also = Also { open_folders: open.to_vec(), settings: None };
        let report = move |event: &Event| _ = sender.send(event.clone());
        let watcher = Watcher::start_with(&catalog, also, Box::new(report)).expect("a watcher");
        Self { lab, catalog, watcher, events }
    }

    fn with_echo() -> Self {
        let lab = Lab::new();
        let game = lab.write("games/echo.lua", ECHO);
        Self::new(lab, &[game], None, &[])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.path(name)
    }

    fn take(&mut self) -> Taken {
        self.watcher.take(&mut self.catalog)
    }

    /// Asks for what is ready until `done` holds, as a run that does nothing else would.
    fn until(&mut self, what: &str, done: impl Fn(&Catalog) -> bool) {
        let started = Instant::now();
        while !done(&self.catalog) {
            assert!(started.elapsed() < PATIENCE, "{what}: {:?}", self.events.try_iter().collect::<Vec<_>>());
            self.take();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the game asks with this text.
    fn active(&mut self, text: &str) {
        self.until(text, |catalog| prompt(&catalog.games[0]).starts_with(text));
    }

    /// The next event that `pick` takes; others are passed over.
    fn event<T>(&self, pick: impl Fn(Event) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(started.elapsed());
            let event = self.events.recv_timeout(left).expect("an event");
            if let Some(found) = pick(event) {
                return found;
            }
        }
    }

    fn rejected(&self) -> Diagnostic {
        self.event(|event| match event {
            Event::Rejected { problem } => Some(problem),
            _ => None,
        })
    }

    fn warned(&self) -> Diagnostic {
        self.event(|event| match event {
            Event::Warned { problem } => Some(problem),
            _ => None,
        })
    }

    /// No fault is told, now or after the time in which one would be.
    fn assert_calm(&self) {
        std::thread::sleep(QUIET);
        let faults: Vec<Event> = self
            .events
            .try_iter()
            .filter(|event| matches!(event, Event::Rejected { .. } | Event::Warned { .. }))
            .collect();
        assert!(faults.is_empty(), "{faults:?}");
    }
}

fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("a rename");
}

#[test]
fn every_way_to_save_a_file_is_seen() {
    pool(2).install(|| {
        let mut desk = Desk::with_echo();
        let file = desk.path("games/echo.lua");
        for round in 0..3 {
            desk.lab.write("games/echo.lua", &echo(&format!("in place {round}: ")));
            desk.active(&format!("in place {round}: "));
            let beside = desk.lab.write("games/echo.lua~", &echo(&format!("renamed {round}: ")));
            rename(&beside, &file);
            desk.active(&format!("renamed {round}: "));
            // As vim does it: the old file becomes the backup, a new one is written.
            rename(&file, &desk.path("games/echo.lua~"));
            desk.lab.write("games/echo.lua", &echo(&format!("backed up {round}: ")));
            desk.active(&format!("backed up {round}: "));
            std::fs::remove_file(&file).expect("a removal");
            std::thread::sleep(Duration::from_millis(60));
            desk.lab.write("games/echo.lua", &echo(&format!("made anew {round}: ")));
            desk.active(&format!("made anew {round}: "));
        }
        desk.assert_calm();
        assert!(desk.take().versions.is_empty());
    });
}

/// `git checkout` and `rsync` replace whole folders; what is watched must not be the folder that is gone.
#[test]
fn a_folder_that_is_replaced_is_watched_anew() {
    pool(2).install(|| {
        let mut desk = Desk::with_echo();
        for round in 0..2 {
            desk.lab.write("next/echo.lua", &echo(&format!("another folder {round}: ")));
            rename(&desk.path("games"), &desk.path(&format!("old {round}")));
            rename(&desk.path("next"), &desk.path("games"));
            desk.active(&format!("another folder {round}: "));
            desk.lab.write("games/echo.lua", &echo(&format!("saved in it {round}: ")));
            desk.active(&format!("saved in it {round}: "));
            std::fs::remove_dir_all(desk.path("games")).expect("a removal");
            desk.lab.write("games/echo.lua", &echo(&format!("made anew {round}: ")));
            desk.active(&format!("made anew {round}: "));
            // Nobody writes to the folder that was put away any more.
            std::fs::write(desk.path(&format!("old {round}/echo.lua")), "broken").expect("a file");
        }
        desk.assert_calm();
    });
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_may_be_pointed_elsewhere() {
    use std::os::unix::fs::symlink;
    pool(2).install(|| {
        let lab = Lab::new();
        lab.write("v1/echo.lua", &echo("one: "));
        lab.write("v2/echo.lua", &echo("two: "));
        let point = |target: &str, link: &str| {
            symlink(target, lab.path("link.new")).expect("a link");
            rename(&lab.path("link.new"), &lab.path(link));
        };
        point("v1", "current");
        std::fs::create_dir(lab.path("games")).expect("a folder");
        point("../current/echo.lua", "games/echo.lua");
        let game = lab.path("games/echo.lua");
        let mut desk = Desk::new(lab, &[game], None, &[]);
        let point = |desk: &Desk, target: &str, link: &str| {
            symlink(target, desk.path("link.new")).expect("a link");
            rename(&desk.path("link.new"), &desk.path(link));
        };
        assert!(prompt(&desk.catalog.games[0]).starts_with("one: "));
        // The target itself, then a folder on the way, then the link.
        desk.lab.write("v1/echo.lua", &echo("one and a half: "));
        desk.active("one and a half: ");
        point(&desk, "v2", "current");
        desk.active("two: ");
        desk.lab.write("v2/echo.lua", &echo("two and a half: "));
        desk.active("two and a half: ");
        desk.lab.write("elsewhere/new.lua", &echo("three: "));
        point(&desk, "../elsewhere/new.lua", "games/echo.lua");
        desk.active("three: ");
        desk.lab.write("elsewhere/new.lua", &echo("four: "));
        desk.active("four: ");
        desk.assert_calm();
    });
}

#[test]
fn a_half_written_file_is_waited_for_and_a_broken_one_is_told_of_once() {
    pool(2).install(|| {
        let mut desk = Desk::with_echo();
        for round in 0..3 {
            let text = echo(&format!("slowly {round}: "));
            for end in [0, text.len() / 3, text.len() / 2, text.len()] {
                desk.lab.write("games/echo.lua", &text[..end]);
                // Longer than a debounce, shorter than a fault takes to be told.
                std::thread::sleep(Duration::from_millis(60));
            }
            desk.active(&format!("slowly {round}: "));
        }
        desk.assert_calm();
        let kept = desk.catalog.games[0].source.version.clone();
        desk.lab.write("games/echo.lua", "local game = {\n");
        assert_eq!(desk.rejected().code, "script::syntax");
        desk.lab.write("other.txt", "an event that has nothing to do with it");
        desk.assert_calm();
        let taken = desk.take();
        assert_eq!((taken.versions.len(), taken.rejected.len()), (0, 1));
        assert_eq!(desk.catalog.games[0].source.version, kept);
        // An empty file is no script either, and is said to be none.
        desk.lab.write("games/echo.lua", "");
        assert_eq!(desk.rejected().code, "script::empty");
    });
}

/// Saves the game a thousand times, a third of them half written, while a run asks for what is ready all along. Returns
/// how many versions came into service.
fn thousand_saves(over: Duration) -> usize {
    pool(2).install(|| {
        let mut desk = Desk::with_echo();
        let file = desk.path("games/echo.lua");
        let (started, mut active) = (Instant::now(), vec![0_u32]);
        for save in 1..=1000_u32 {
            let text = echo(&format!("save {save}: "));
            match save % 3 {
                0 => _ = desk.lab.write("games/echo.lua", &text),
                1 => rename(&desk.lab.write("games/.echo.lua.tmp", &text), &file),
                _ => _ = desk.lab.write("games/echo.lua", &text[..text.len() / 2]),
            }
            std::thread::sleep((over * save / 1000).saturating_sub(started.elapsed()));
            if !desk.take().versions.is_empty() {
                let prompt = prompt(&desk.catalog.games[0]);
                let number = prompt.strip_prefix("save ").and_then(|rest| rest.split(':').next());
                active.push(number.and_then(|number| number.parse().ok()).expect("the number of a save"));
            }
        }
        // 1000 leaves a remainder of 1: it is a whole one.
        desk.active("save 1000: ");
        assert!(active.is_sorted(), "an older save came after a newer one: {active:?}");
        assert!(active.iter().all(|save| save % 3 != 2), "a half-written save came into service: {active:?}");
        desk.assert_calm();
        let last = desk.catalog.games[0].source.clone();
        assert!(desk.take().versions.is_empty(), "nothing is left to take");
        assert_eq!(desk.catalog.games[0].source, last);
        assert_eq!(
            (desk.catalog.games.len(), desk.catalog.offered.len()),
            (1, 0),
            "what was written beside is no game"
        );
        active.len() - 1
    })
}

#[test]
fn of_a_thousand_saves_the_newest_is_active_and_nothing_else() {
    thousand_saves(Duration::from_millis(100));
}

/// A save every hundredth of a second leaves no quiet time, and yet the run does not wait for its end.
#[test]
fn of_a_thousand_saves_in_ten_seconds_some_are_played_and_the_newest_stays() {
    let versions = thousand_saves(Duration::from_secs(10));
    assert!(versions >= 3, "{versions} versions came into service meanwhile");
}

#[test]
fn every_game_that_loads_a_module_reloads_with_it() {
    pool(2).install(|| {
        let lab = Lab::new();
        lab.write("scripts/lib/words.lua", "return require(\"deeper\")\n");
        lab.write("scripts/lib/deeper.lua", "return { prompt = \"first: \" }\n");
        let with_module = ECHO.replace("\"Name this digit: \"", "require(\"words\").prompt");
        let games = ["a", "b", "c"].map(|name| {
            let text = if name == "c" { ECHO.to_owned() } else { with_module.clone() };
            lab.write(&format!("games/{name}.lua"), &text.replace("\"echo\"", &format!("\"{name}\"")))
        });
        let mut desk = Desk::new(lab, &games, None, &[]);
        let untouched = desk.catalog.games[2].source.version.clone();
        desk.lab.write("scripts/lib/deeper.lua", "return { prompt = \"second: \" }\n");
        desk.until("both", |catalog| catalog.games[..2].iter().all(|game| prompt(game).starts_with("second: ")));
        assert_eq!(desk.catalog.games[2].source.version, untouched);
        // Without the module they do not compile, and go on as they are.
        std::fs::remove_file(desk.path("scripts/lib/deeper.lua")).expect("a removal");
        let problems = [desk.rejected(), desk.rejected()];
        assert!(problems.iter().all(|problem| problem.to_string().contains("deeper")), "{problems:?}");
        desk.lab.write("scripts/lib/deeper.lua", "return { prompt = \"third: \" }\n");
        desk.until("both again", |catalog| catalog.games[..2].iter().all(|game| prompt(game).starts_with("third: ")));
    });
}

/// Rows change at a rollout boundary only, with a new version; who plays the old version keeps the old rows.
#[test]
fn a_data_file_is_part_of_the_version_of_what_opened_it() {
    pool(2).install(|| {
        let lab = Lab::new();
        let text = ECHO
            .replace("local game", "local rows = gift.dataset(\"data/words.jsonl\")\nlocal game")
            .replace("\"Name this digit: \"", "rows[1].word");
        lab.write("games/data/words.jsonl", "{\"word\": \"first: \"}\n");
        let game = lab.write("games/echo.lua", &text);
        let mut desk = Desk::new(lab, &[game], None, &[]);
        let first = desk.catalog.games[0].clone();
        assert_ne!(first.source.version, first.source.code_version());
        desk.lab.write("games/data/words.jsonl", "{\"word\": \"second: \"}\n");
        desk.active("second: ");
        let second = desk.catalog.games[0].clone();
        assert_ne!(first.source.version, second.source.version);
        // A thread that compiles the old version now sees its rows, not the file's.
        let seen = pool(1).install(|| [prompt(&first), prompt(&second)]);
        assert!(seen[0].starts_with("first: ") && seen[1].starts_with("second: "), "{seen:?}");

        desk.lab.write("games/data/words.jsonl", "{\"word\": \n");
        let problem = desk.rejected().to_string();
        assert!(problem.contains("line 1") && problem.contains("keeps serving version"), "{problem}");
        std::fs::remove_file(desk.path("games/data/words.jsonl")).expect("a removal");
        let problem = desk.rejected().to_string();
        assert!(problem.contains("words.jsonl"), "{problem}");
        desk.lab.write("games/data/words.jsonl", "{\"word\": \"first: \"}\n");
        desk.active("first: ");
        assert_eq!(desk.catalog.games[0].source.version, first.source.version, "the same rows are the same version");

        // A file that a new version asks for may come after it.
        desk.lab.write("games/echo.lua", &text.replace("words.jsonl", "more.jsonl"));
        assert!(desk.rejected().to_string().contains("more.jsonl"));
        desk.lab.write("games/data/more.jsonl", "{\"word\": \"more: \"}\n");
        desk.active("more: ");
    });
}

#[test]
fn a_new_game_is_offered_and_joins_when_the_nest_names_it() {
    pool(2).install(|| {
        let lab = Lab::new();
        let named = |name: &str| ECHO.replace("\"echo\"", &format!("\"{name}\""));
        let nest = |stages: &str| format!("return {{ mode = \"mixed\", stages = {{ {stages} }} }}\n");
        let game = lab.write("games/echo.lua", ECHO);
        lab.write("games/bystander.lua", &named("bystander"));
        lab.write("games/notes.lua", "not a game, and nobody asked");
        let nest_path = lab.write("nest.lua", &nest("\"echo\""));
        let mut desk = Desk::new(lab, &[game], Some(&nest_path), &[]);
        let offered = |desk: &Desk| {
            desk.event(|event| match event {
                Event::Offered { name, .. } => Some(name),
                Event::Rejected { problem } => panic!("{problem}"),
                _ => None,
            })
        };
        desk.lab.write("games/late.lua", &named("late"));
        assert_eq!(offered(&desk), "late");
        assert!(desk.take().versions.is_empty());
        assert_eq!((desk.catalog.names(), desk.catalog.known_names().len()), (vec!["echo".to_owned()], 2));
        desk.lab.write("nest.lua", &nest("\"echo\", \"late\""));
        desk.until("the nest", |catalog| catalog.nest.stage_names().is_some_and(|stages| stages.len() == 2));
        // What lies there since the start can be named as well.
        desk.lab.write("nest.lua", &nest("\"echo\", \"bystander\""));
        assert_eq!(offered(&desk), "bystander");
        // The nest may come first.
        desk.lab.write("nest.lua", &nest("\"echo\", \"last\""));
        assert_eq!(desk.rejected().code, "nest::unknown_game");
        desk.lab.write("games/last.lua", &named("last"));
        desk.until("the last", |catalog| {
            catalog.nest.stage_names().is_some_and(|stages| stages.contains(&"last".into()))
        });
        assert!(desk.catalog.game("last").is_some());
        // A name that is taken, and a file that is no game.
        desk.lab.write("games/twin.lua", &named("echo"));
        assert_eq!(desk.rejected().code, "game::same_name");
        desk.lab.write("games/wrong.lua", "return 1\n");
        assert!(desk.rejected().notes.iter().any(|note| note.contains("does not join")));
    });
}

#[test]
fn a_game_in_a_folder_that_was_named_joins_at_once() {
    pool(2).install(|| {
        let lab = Lab::new();
        let game = lab.write("games/echo.lua", ECHO);
        let folder = lab.path("games");
        let mut desk = Desk::new(lab, &[game], None, &[folder]);
        desk.lab.write("games/late.lua", &ECHO.replace("\"echo\"", "\"late\""));
        desk.until("late", |catalog| catalog.names() == ["echo", "late"]);
        assert_eq!(desk.catalog.nest.stage_names(), Some(&["echo".to_owned(), "late".to_owned()][..]));
        desk.lab.write("games/late.lua", &echo("again: ").replace("\"echo\"", "\"late\""));
        desk.until("again", |catalog| prompt(&catalog.games[1]).starts_with("again: "));
    });
}

#[test]
fn a_file_that_is_gone_keeps_its_last_version_and_one_that_is_renamed_goes_on() {
    pool(2).install(|| {
        let mut desk = Desk::with_echo();
        let version = desk.catalog.games[0].source.version.clone();
        std::fs::remove_file(desk.path("games/echo.lua")).expect("a removal");
        let problem = desk.warned();
        assert_eq!(problem.code, "reload::gone");
        assert!(problem.notes.contains(&format!("`echo` keeps serving version {}", version.short())), "{problem}");
        assert!(desk.take().versions.is_empty());
        desk.lab.write("games/other_name.lua", &echo("renamed: "));
        desk.active("renamed: ");
        desk.lab.write("games/other_name.lua", &echo("and saved: "));
        desk.active("and saved: ");
        assert_eq!(desk.catalog.names(), ["echo"]);
    });
}
