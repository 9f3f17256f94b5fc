//! What the screen shows, drawn into memory.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

fn run_directory() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let records = (1..=20_u32).map(|step| {
        let x = f64::from(step);
        let mut record = crate::metrics::Record::new(step.into());
        record.set("reward/mean", x / 20.0).set("success/all", x / 25.0);
        record.set("reward/nim", x / 20.0).set("success/nim", x / 25.0).set("entropy", 2.0 / x);
        record.set("grad_norm", if step == 3 { f64::NAN } else { 1.0 + x % 3.0 });
        record.set("tokens/rollout_per_s", 1000.0 + x).set("time/rollout_s", 2.0);
        record.set("time/env_s", 0.5).set("time/update_s", 2.0);
        if step == 12 {
            record.set("reload/events", "nim: version 3f9c1a2 is active");
        }
        record.to_json() + "\n"
    });
    std::fs::write(folder.path().join("metrics.jsonl"), records.collect::<String>()).unwrap();
    let episode = |member: u64, kept: bool| {
        let turns = serde_json::json!([
            {"stage": 0, "seat": 2, "observation": "", "answer": "take 1", "legal": true, "well_formed": true, "reward": 0.0},
            {"stage": 0, "seat": 1, "observation": "6 sticks", "answer": "take 9", "legal": false, "well_formed": true,
             "reward": -0.1},
        ]);
        let line = serde_json::json!({
            "id": format!("10-0-{member}"), "step": 10, "group": 0, "member": member, "game": "nim", "seat": 1,
            "tokens": [], "policy_mask": [], "logprobs": [], "reward": 0.9, "advantage": -1.25, "kept": kept,
            "success": kept, "turns": turns,
        });
        format!("{line}\n")
    };
    let text = [&episode(0, true), &episode(1, false), "{\"id\":"].concat();
    std::fs::create_dir(folder.path().join("episodes")).unwrap();
    let path = folder.path().join("episodes/step-000010.jsonl.zst");
    std::fs::write(path, zstd::encode_all(text.as_bytes(), 0).unwrap()).unwrap();
    folder
}

fn drawn(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    terminal.backend().to_string()
}

fn read(folder: &Path, has_colors: bool) -> Screen {
    let mut screen = Screen::new(folder, has_colors);
    "run".clone_into(&mut screen.name);
    screen.poll();
    screen
}

#[test]
fn curves_and_episodes_fit_80_by_24() {
    let folder = run_directory();
    let mut screen = read(folder.path(), true);
    insta::assert_snapshot!("curves", drawn(&screen, 80, 24));
    assert!(screen.key(KeyCode::Tab));
    insta::assert_snapshot!("episodes", drawn(&screen, 80, 24));
    screen.key(KeyCode::Down);
    assert!(drawn(&screen, 80, 24).contains("group dropped"));
    screen.key(KeyCode::Char('?'));
    assert!(drawn(&screen, 80, 24).contains("leave; the run goes on"));
    assert!(screen.key(KeyCode::Esc) && !screen.key(KeyCode::Char('q')));
}

/// Also a terminal that is much too small, and a run that has nothing yet.
#[test]
fn any_size_and_an_empty_run_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    for folder in [folder.path(), run_directory().path()] {
        let mut screen = read(folder, false);
        for key in [KeyCode::Char('1'), KeyCode::Char('2'), KeyCode::Char('?')] {
            screen.key(key);
            for (width, height) in [(1, 1), (10, 3), (30, 8), (80, 24), (250, 90)] {
                drawn(&screen, width, height);
            }
        }
    }
    assert!(drawn(&read(folder.path(), false), 80, 24).contains("no iteration is done yet"));
}

#[test]
fn nothing_is_coloured_without_colours() {
    let folder = run_directory();
    let mut screen = read(folder.path(), false);
    for key in [KeyCode::Char('1'), KeyCode::Char('2')] {
        screen.key(key);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        assert!(terminal.backend().buffer().content().iter().all(|cell| cell.fg == Color::Reset));
    }
}

#[test]
fn lines_have_every_iteration_once() {
    let folder = run_directory();
    let screen = read(folder.path(), false);
    let mut out = Vec::new();
    let last = screen.write_lines(18, &mut out).unwrap();
    assert_eq!(screen.write_lines(last, &mut out).unwrap(), 20);
    let expected = "\
iteration 19 | nim reward 0.95 success 0.76 | entropy 0.11 | grad_norm 2.00 | 1019 tokens/s
iteration 20 | nim reward 1.00 success 0.80 | entropy 0.10 | grad_norm 3.00 | 1020 tokens/s
";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

/// Text of a model may hold what moves the cursor or colours a terminal.
#[test]
fn control_characters_of_a_model_are_not_drawn() {
    let folder = run_directory();
    let turns = serde_json::json!([{"stage": 0, "seat": 1, "observation": "a\u{1b}[2Jb\rc", "answer": "x\u{9b}31my\u{7}z",
        "legal": true, "well_formed": true, "reward": 0.0}]);
    let line = serde_json::json!({
        "id": "20-0-0", "step": 20, "group": 0, "member": 0, "game": "nim", "seat": 1, "tokens": [], "policy_mask": [],
        "logprobs": [], "reward": 0.5, "advantage": 0.0, "kept": true, "success": true, "turns": turns,
    });
    let path = folder.path().join("episodes/step-000020.jsonl.zst");
    std::fs::write(path, zstd::encode_all(format!("{line}\n").as_bytes(), 0).unwrap()).unwrap();
    let mut screen = read(folder.path(), true);
    screen.key(KeyCode::Tab);
    let shown = drawn(&screen, 80, 24);
    assert!(shown.contains("a[2Jbc") && shown.contains("x31myz"), "{shown}");
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
}

/// With colours by colour, without them by the sign before the name; names that do not fit stand below.
#[test]
fn every_curve_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut record = crate::metrics::Record::new(1);
    for game in ["math", "matrix", "spy", "tictactoe"] {
        record.set(names::reward(game), 0.25).set(names::success(game), 0.5);
    }
    std::fs::write(folder.path().join("metrics.jsonl"), record.to_json() + "\n").unwrap();
    let plain = drawn(&read(folder.path(), false), 80, 24);
    for name in ["⠒ math 0.25", "• matrix 0.25", "█ spy 0.25", "▄ tictactoe 0.25"] {
        assert!(plain.contains(name), "{name}: {plain}");
    }
    let wide = drawn(&read(folder.path(), true), 160, 40);
    assert!(wide.contains("┌ reward math 0.25 matrix 0.25 spy 0.25 tictactoe 0.25 ─"), "{wide}");
}

#[test]
fn a_transcript_does_not_scroll_out_of_sight() {
    let folder = run_directory();
    let mut screen = read(folder.path(), true);
    screen.key(KeyCode::Tab);
    (0..200).for_each(|_| _ = screen.key(KeyCode::Right));
    let shown = drawn(&screen, 80, 24);
    assert!(shown.contains("> take 9"), "{shown}");
}
