//! Scripts that cannot be stopped outside rollouts: while they are compiled, tried, asked for an order, and saved in the
//! middle of a run. A call that sleeps inside the host, where nothing can end it, stands for a library call without an end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use gift_host::diag::Diagnostic;
use gift_host::game::{Nest, ScriptHost};
use gift_host::reload::{Catalog, Event, Watcher, read_source};
use gift_host::run::Error;
use gift_host::script::{HostFunction, Library, Limits, Value};

use super::support::{ECHO, Lab, config, pool, start};

/// Far longer than giving a thread up takes, and far shorter than the scripts sleep.
const HANG: Duration = Duration::from_secs(100);

/// [`ECHO`] in the other language.
const ECHO_RHAI: &str = include_str!("../echo.rhai");

/// Scripts of one language, with a call that holds its thread in each place.
struct Scripts {
    extension: &'static str,
    good: &'static str,
    top: String,
    nest: &'static str,
    good_nest: &'static str,
    reward: &'static str,
}

fn languages() -> [Scripts; 2] {
    [
        Scripts {
            extension: "lua",
            good: ECHO,
            top: format!("gift.hold()\n{ECHO}"),
            nest: "return { stages = function(rng, stats) gift.hold() return { \"echo\" } end }",
            good_nest: "return { stages = { \"echo\" } }",
            reward: "return function(episode) gift.hold() return 1 end",
        },
        Scripts {
            extension: "rhai",
            good: ECHO_RHAI,
            top: format!("gift.hold();\n{ECHO_RHAI}"),
            nest: "#{ stages: |rng, stats| { gift.hold(); [\"echo\"] } }",
            good_nest: "#{ stages: [\"echo\"] }",
            reward: "|episode| { gift.hold(); 1 }",
        },
    ]
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a function of the host")]
fn hold(_: &[Value]) -> Result<Value, String> {
    std::thread::sleep(Duration::from_secs(600));
    Ok(Value::Nil)
}

/// Calls of [`hold_counted`].
static HELD: AtomicUsize = AtomicUsize::new(0);

fn hold_counted(arguments: &[Value]) -> Result<Value, String> {
    HELD.fetch_add(1, Ordering::Relaxed);
    hold(arguments)
}

fn host_with(call: fn(&[Value]) -> Result<Value, String>) -> ScriptHost {
    ScriptHost {
        limits: Limits { call: Duration::from_millis(50), ..Limits::default() },
        library: Library::new(vec![HostFunction { name: "hold", call }]),
    }
}

fn host() -> ScriptHost {
    host_with(hold)
}

fn load(game: &Path, nest: Option<&Path>, reward: Option<&Path>) -> Result<Catalog, Box<Diagnostic>> {
    Catalog::load(&[game.to_owned()], nest, reward, BTreeMap::new(), host())
}

/// The work ends in time, as scripts that could not be stopped do.
fn is_stuck<T>(file: &Path, work: impl FnOnce() -> Result<T, Box<Diagnostic>>) {
    let start = Instant::now();
    let problem = work().err().expect("a call that cannot be stopped is a fault");
    assert_eq!(problem.code, "script::stuck", "{problem}");
    assert_eq!(problem.place.as_ref().map(|place| &*place.file), Some(file), "{problem}");
    assert!(start.elapsed() < HANG, "{:?}", start.elapsed());
}

#[test]
fn loading_ends_whatever_the_scripts_do() {
    for Scripts { extension, good, top, nest, reward, .. } in languages() {
        let lab = Lab::new();
        let write = |name: &str, text: &str| lab.write(&format!("{name}.{extension}"), text);
        let top = write("games/top", &top);
        is_stuck(&top, || load(&top, None, None));
        let good = write("games/echo", good);
        let nest = write("nest", nest);
        is_stuck(&nest, || load(&good, Some(&nest), None));
        let reward = write("reward", reward);
        is_stuck(&reward, || load(&good, None, Some(&reward)));
    }
}

/// A fault that a trial does not meet: the order is asked for again in every iteration.
#[test]
fn an_order_that_never_comes_stops_the_run_with_the_reason() {
    for Scripts { extension, good, nest, .. } in languages() {
        let lab = Lab::new();
        let game = lab.write(&format!("games/echo.{extension}"), good);
        let nest = lab.write(&format!("nest.{extension}"), nest);
        let mut catalog = load(&game, None, None).unwrap_or_else(|problem| panic!("{problem}"));
        let source = read_source(&nest).unwrap_or_else(|problem| panic!("{problem}"));
        let compiled = Nest::compile(&source, &catalog.names(), &host());
        catalog.nest = Arc::new(compiled.unwrap_or_else(|problem| panic!("{problem}")));
        pool(2).install(|| {
            let mut run = start(config(&["decode.observation=full"]), catalog);
            is_stuck::<()>(&nest, || match run.iterate(None, &AtomicBool::new(false)) {
                Err(Error::Script(problem)) => Err(problem),
                other => panic!("{other:?}"),
            });
        });
    }
}

/// The watcher tells of what it gave up, and sees the next save. A save costs one thread, although its fault is told only when
/// the file has stayed so for a while.
#[test]
fn the_watcher_goes_on_after_a_script_that_cannot_be_stopped() {
    for Scripts { extension, good, top, nest, good_nest, .. } in languages() {
        let lab = Lab::new();
        let file = |name: &str| -> PathBuf { format!("{name}.{extension}").into() };
        let write = |name: &str, text: &str| lab.write(&file(name).to_string_lossy(), text);
        let (game, order) = (write("games/echo", good), write("nest", good_nest));
        let catalog = Catalog::load(&[game], Some(&order), None, BTreeMap::new(), host_with(hold_counted))
            .unwrap_or_else(|problem| panic!("{problem}"));
        let (sender, events) = channel();
        let report = move |event: &Event| _ = sender.send(event.clone());
        let watcher = Watcher::start(&catalog, Box::new(report)).unwrap_or_else(|problem| panic!("{problem}"));
        let next = || events.recv_timeout(HANG).expect("the watcher is at work");
        let comment = if extension == "lua" { "--" } else { "//" };
        for (name, bad, better) in [("games/echo", &*top, good), ("nest", nest, good_nest)] {
            let path = write(name, bad);
            is_stuck(&path, || match next() {
                Event::Rejected { problem } => Err::<(), _>(Box::new(problem)),
                other => panic!("{other:?}"),
            });
            write(name, &format!("{better}\n{comment} better\n"));
            assert!(matches!(next(), Event::Ready { .. }), "{name}.{extension}");
        }
        drop(watcher);
    }
    assert_eq!(HELD.load(Ordering::Relaxed), 4, "two saves of each language");
}
