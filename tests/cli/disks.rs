//! What can go wrong with files: a folder in use, a disk that is full, a checkpoint that was cut. Nothing that was there
//! is lost, and the message has the path and the way on.

use std::path::Path;
use std::process::Command;

use super::support::{Place, assert_output, copy_folder, filtered, show};

#[test]
fn a_run_directory_in_use_is_refused_and_left_alone() {
    let place = Place::with_echo();
    place.write("run/metrics.jsonl", "{\"step\":1}\n");
    let before = place.files("run");
    let shown = show(&place.train(&["--steps", "1"]));
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r"
    status: 2
    --- errors
    error[cli::run_exists]: the run directory `run` is in use
      expected: a folder that does not exist yet
      found:    a folder with files
      help:     go on with it: `--resume run`; or choose another name with `--out`
    ");
    });
    assert_eq!(place.files("run"), before);
}

#[test]
fn a_file_where_the_run_directory_should_be() {
    let place = Place::with_echo();
    place.write("taken", "a file");
    assert_output!(place, ["train", "--games", "games/echo.lua", "--device", "cpu", "--out", "taken/run", "--steps", "1"], @r"
    status: 1
    --- errors
    model: tiny, a byte-level decoder of [size] M parameters, built in and trained from scratch; train your own with --model DIR
    games: echo; no opponents: the games have one seat
    error: cannot create `taken/run`: Not a directory (os error 20)
    ");
    assert_eq!(place.read("taken"), "a file");
}

#[cfg(target_os = "linux")]
#[test]
fn output_to_a_full_device_fails() {
    let place = Place::with_echo();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gift-host"));
    command.args(["check", "games/echo.lua"]).current_dir(place.path("")).stdout(full);
    let shown = show(&command.output().expect("the binary"));
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r"
    status: 1
    --- errors
    error: No space left on device (os error 28)
    ");
    });
}

/// The limit on file sizes stands for a full disk: small files fit, the weights do not.
#[cfg(unix)]
#[test]
fn a_checkpoint_that_does_not_fit_is_no_checkpoint() {
    let place = Place::with_echo();
    let mut arguments = vec!["train", "--games", "games/echo.lua", "--out", "run", "--steps", "1"];
    arguments.extend(super::support::QUICK);
    let script = "trap '' XFSZ; ulimit -f 256; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_gift-host")]).args(&arguments).current_dir(place.path(""));
    let shown = show(&command.output().expect("the binary"));
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r"
    status: 1
    --- errors
    model: tiny, a byte-level decoder of [size] M parameters, built in and trained from scratch; train your own with --model DIR
    games: echo; no opponents: the games have one seat
    sampler and trainer agree: before the first update no ratio is further from 1 than [rounding]
    iteration 1/1 | echo [reward] [success] | [speed] tokens/s | [time] left
    error: cannot access `run/checkpoints/.step-000001.partial/model.safetensors`: File too large (os error 27)
    ");
    });
    assert!(!place.path("run/checkpoints/step-000001").exists());
    assert!(place.read("run/metrics.jsonl").starts_with("{\"step\":1,"), "the figures of the iteration are kept");
    // Once there is room again the run cannot go on from nothing, and says so.
    assert_output!(place, ["train", "--resume", "run"], @r"
    status: 2
    --- errors
    error[cli::resume]: there is no whole checkpoint to resume from
      --> run
      expected: a run directory, or a folder `step-…` below its `checkpoints`
      help:     `--resume runs/NAME`
    ");
}

/// A run with the checkpoints of iterations 1 and 2.
fn two_checkpoints() -> Place {
    let place = Place::with_echo();
    let output = place.train(&["--steps", "2", "--set", "checkpoint_every=1"]);
    assert!(output.status.success(), "{}", show(&output));
    place
}

fn cut_in_half(path: &Path) {
    let bytes = std::fs::read(path).expect("a file");
    std::fs::write(path, &bytes[..bytes.len() / 2]).expect("half a file");
}

#[test]
fn a_checkpoint_cut_in_half_is_named_and_the_earlier_one_resumes() {
    let whole = two_checkpoints();
    for (index, file) in ["model.safetensors", "trainer.safetensors", "state.json"].into_iter().enumerate() {
        let place = Place::with_echo();
        copy_folder(&whole.path("run"), &place.path("run"));
        cut_in_half(&place.path("run/checkpoints/step-000002").join(file));
        let before = place.files("run");
        let shown = show(&place.run(&["train", "--resume", "run", "--steps", "3"]));
        filtered(&place, || match index {
            0 => insta::assert_snapshot!(shown, @r"
            status: 1
            --- errors
            error[model::unusable]: `run/checkpoints/step-000002/model.safetensors` is not usable: incomplete metadata, file not fully covered
              --> run/checkpoints/step-000002/model.safetensors
              help:     it may have been cut off; an earlier checkpoint is `run/checkpoints/step-000001`
            "),
            1 => insta::assert_snapshot!(shown, @r"
            status: 1
            --- errors
            error[checkpoint::damaged]: the checkpoint cannot be resumed: `run/checkpoints/step-000002/trainer.safetensors` is not usable: incomplete metadata, file not fully covered
              --> run/checkpoints/step-000002/trainer.safetensors
              expected: a whole folder `step-…` as a run writes it
              help:     give an earlier one: `--resume run/checkpoints/step-000001`
            "),
            _ => insta::assert_snapshot!(shown, @r"
            status: 1
            --- errors
            error[checkpoint::damaged]: the checkpoint cannot be resumed: EOF while parsing a value at line 14 column 19
              --> run/checkpoints/step-000002/state.json
              expected: a whole folder `step-…` as a run writes it
              help:     give an earlier one: `--resume run/checkpoints/step-000001`
            "),
        });
        assert_eq!(place.files("run"), before, "{file}: a refused resume changes nothing");
        let earlier = place.run(&["train", "--resume", "run/checkpoints/step-000001", "--steps", "2"]);
        assert!(earlier.status.success(), "{file}: {}", show(&earlier));
        let names = |place: &Place| place.read("run/metrics.jsonl").lines().count();
        assert_eq!(names(&place), 2, "{file}: iteration 2 was played again");
    }
}

#[test]
fn a_stored_script_that_was_changed_is_named() {
    let place = two_checkpoints();
    let stored = place.files("run/scripts").into_iter().find(|(path, _)| path.extension().is_some_and(|e| e == "lua"));
    let (path, mut bytes) = stored.expect("a stored script");
    bytes.extend(b"-- changed\n");
    std::fs::write(&path, bytes).expect("a change");
    let output = show(&place.run(&["train", "--resume", "run", "--steps", "3"]));
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let shown = output.replace(&name, "[hash].lua");
    filtered(&place, || {
        insta::assert_snapshot!(shown, @r"
    status: 1
    --- errors
    error[checkpoint::script]: a stored script version is not usable: its text now has the version [hash]
      --> run/scripts/[hash].lua
      expected: version [hash] of `games/echo.lua`
      help:     start a new run with `--model` set to the checkpoint and the scripts that you have
    ");
    });
}
