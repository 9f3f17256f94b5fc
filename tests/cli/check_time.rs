//! `gift-host check` of scripts that take long: what is known is told at once.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::support::{ECHO, Place};

/// A script whose every episode runs into the time limit: one call is paid for, not one an episode.
#[test]
fn the_first_timeout_is_told_at_once() {
    let place = Place::new();
    let call = Duration::from_millis(500);
    place.write(
        "slow.lua",
        &ECHO.replace("  state.done, state.right", "  while true do end\n  state.done, state.right"),
    );
    let start = Instant::now();
    let output = place.run(&["check", "slow.lua", "--set", "scripts.call_ms=500", "--json"]);
    let took = start.elapsed();
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    assert_eq!(report["games"][0]["problems"][0]["code"], "script::timeout");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    // Twenty episodes of the second process alone took more.
    assert!(took < call * 15, "{took:?}");
}

/// The report of a file does not wait for those of the files behind it.
#[test]
fn a_report_is_printed_while_other_files_are_still_checked() {
    let place = Place::new();
    place.write("a.lua", &ECHO.replace("return \"Name", "error(\"boom\") return \"Name"));
    let slow = "local n = 0 for i = 1, 3000000 do n += i end return \"Name";
    place.write("b.lua", &ECHO.replace("return \"Name", slow));
    let mut command = Command::new(env!("CARGO_BIN_EXE_gift-host"));
    command.args(["check", "a.lua", "b.lua"]).current_dir(place.path(""));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary");
    let mut told = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("its output"));
    for _ in 0..2 {
        out.read_line(&mut told).expect("a line");
    }
    child.kill().expect("its end");
    child.wait().expect("its end");
    out.read_to_string(&mut told).expect("the rest");
    assert!(told.starts_with("error[script::runtime]: boom") && told.contains("--> a.lua:4"), "{told}");
    assert!(!told.contains("b.lua"), "{told}");
}
