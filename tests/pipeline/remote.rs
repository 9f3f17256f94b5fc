//! Opponents behind a chat-completions server, against a server of this test that misbehaves in every way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gift_host::config::RunConfig;
use gift_host::game::{GameDef, Seat};
use gift_host::opponent::{Answer, Fault, Opponents, View};
use gift_host::rollout::Culprit;
use gift_host::run::Error;
use gift_host::seed::Seed;
use serde_json::{Value, json};

use super::support::{ECHO, Lab, config, game, iterate, load, pool, start, unchecked, weights};

/// What the server does with a request.
enum Reply {
    /// Answers with this status, further headers and body.
    Http(u16, &'static str, String),
    /// Sends these bytes and closes.
    Raw(String),
    /// Waits first.
    Late(Duration, Box<Self>),
}

fn says(text: &str) -> Reply {
    Reply::Http(200, "", json!({ "choices": [{ "message": { "role": "assistant", "content": text } }] }).to_string())
}

/// The right answer: the digit that the last message shows.
fn right(body: &Value) -> Reply {
    says(&format!("<think>I see it</think><answer>{}</answer>", digit(body)))
}

fn last_message(body: &Value) -> String {
    let messages = body["messages"].as_array().expect("messages");
    messages.last().and_then(|message| message["content"].as_str()).expect("a text").to_owned()
}

fn digit(body: &Value) -> String {
    last_message(body).chars().last().expect("a digit").to_string()
}

/// What a server does wrong, being late by this time or at once.
type Misdeed = fn(Duration) -> Reply;

/// A request as the server saw it.
struct Seen {
    head: String,
    body: Value,
}

struct Mock {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Mock {
    /// A server that answers the request of each number, from 0, as `behave` says.
    fn start(behave: impl Fn(usize, &Value) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let mock = Self { url, seen: Arc::default(), connections: Arc::default() };
        let (seen, connections, behave) = (Arc::clone(&mock.seen), Arc::clone(&mock.connections), Arc::new(behave));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::Relaxed);
                let (seen, behave) = (Arc::clone(&seen), Arc::clone(&behave));
                std::thread::spawn(move || serve(stream, &seen, behave.as_ref()));
            }
        });
        mock
    }

    fn requests(&self) -> usize {
        self.seen.lock().expect("no panic").len()
    }

    fn opponents(&self, settings: &[&str]) -> Opponents {
        let settings = self.config(settings);
        Opponents::parse_with(&settings.opponent, &settings, |_| {}, &load)
            .unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Settings with this server's model as the opponent of seat 1.
    fn config(&self, more: &[&str]) -> RunConfig {
        let opponent = format!("opponent=openai:{}#small", self.url);
        let first = [opponent.as_str(), "seat=1", "remote.key_env=GIFT_HOST_NO_SUCH_KEY", "remote.concurrency=4"];
        config(&[&first, more].concat())
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Seen>>, behave: &dyn Fn(usize, &Value) -> Reply) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        if input.read_exact(&mut body).is_err() {
            return;
        }
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let number = {
            let mut seen = seen.lock().expect("no panic");
            seen.push(Seen { head, body: body.clone() });
            seen.len() - 1
        };
        let mut reply = behave(number, &body);
        while let Reply::Late(time, then) = reply {
            std::thread::sleep(time);
            reply = *then;
        }
        match reply {
            Reply::Http(status, headers, text) => {
                let head = format!("HTTP/1.1 {status} said\r\ncontent-length: {}\r\n{headers}\r\n", text.len());
                if out.write_all(head.as_bytes()).and_then(|()| out.write_all(text.as_bytes())).is_err() {
                    return;
                }
            }
            Reply::Raw(bytes) => {
                _ = out.write_all(bytes.as_bytes());
                return;
            }
            Reply::Late(..) => {}
        }
    }
}

/// Seat 2 sees a digit and names it, then seat 1 does; both score if they are right.
fn pair(lab: &Lab) -> Arc<GameDef> {
    let text = ECHO
        .replace("seats = 1, max_turns = 1", "seats = 2, max_turns = 9")
        .replace("done = false, right = false", "turn = 2, right = { false, false }")
        .replace(
            "if state.done then return nil end return 1",
            "if state.turn > 0 then return state.turn end return nil",
        )
        .replace(
            "state.done, state.right = true, action == tostring(state.digit)",
            "state.right[seat] = action == tostring(state.digit)\n  state.turn -= 1",
        )
        .replace(
            "{ scores = { state.right and 1 or 0 }, success = { state.right } }",
            "{ scores = { state.right[1] and 1 or 0, state.right[2] and 1 or 0 }, success = state.right }",
        );
    game(&lab.write("games/echo.lua", &text))
}

/// The answer of seat 2 in one episode.
fn answer(opponents: &Opponents, game: &Arc<GameDef>) -> Result<Answer, Fault> {
    let state = game.init(Seed::new(1)).expect("a start");
    let view = View { game, state: &state, seat: Seat(2), refusal: None };
    opponents.sit(game, Seed::new(1)).wait_for(&view, &mut Seed::new(2).stream())
}

#[test]
fn it_plays_its_seat_and_is_not_trained_on() {
    let lab = Lab::new();
    let mock = Mock::start(|_, body| right(body));
    pool(2).install(|| {
        // Any variable that is set will do for a key.
        let mut run = start(mock.config(&["remote.key_env=PATH"]), unchecked(vec![pair(&lab)]));
        let report = iterate(&mut run);
        assert_eq!((report.figures["opponent/answers"], report.figures["opponent/invalid"]), (16.0, 0.0));
        for trajectory in report.groups.iter().flat_map(|scored| &scored.group.trajectories) {
            let [theirs, own] = trajectory.stages[0].turns.as_slice() else { panic!("two turns") };
            assert!(theirs.seat == 2 && theirs.answer.starts_with("<think>") && theirs.observation.contains("digit"));
            assert_eq!(trajectory.stages[0].scores[1], 1.0);
            // Only the learner's own prompt and answer are in the context.
            let own_bytes = own.observation.len() + own.answer.len();
            assert!(trajectory.tokens.len() <= own_bytes + 4, "{} tokens, {own_bytes} bytes", trajectory.tokens.len());
        }
    });
    let seen = mock.seen.lock().expect("no panic");
    assert_eq!(seen.len(), 16);
    assert!(mock.connections.load(Ordering::Relaxed) <= 4, "connections are used again, and limited");
    let key = std::env::var("PATH").expect("a path");
    for request in seen.iter() {
        assert!(request.head.starts_with("POST /v1/chat/completions "), "{}", request.head);
        assert!(request.head.contains(&format!("Bearer {key}")), "the key is sent");
        assert_eq!((&request.body["model"], &request.body["temperature"]), (&json!("small"), &json!(0.5)));
    }
}

#[test]
fn whatever_the_server_does_it_is_asked_again() {
    let lab = Lab::new();
    let game = pair(&lab);
    let late = Duration::from_millis(900);
    let misdeeds: [(&str, Misdeed); 11] = [
        ("an error", |_| Reply::Http(500, "", "boom".to_owned())),
        ("overload", |_| Reply::Http(503, "retry-after: soon\r\n", String::new())),
        ("a rate limit", |_| Reply::Http(429, "retry-after: 0.1\r\n", String::new())),
        ("a closed connection", |_| Reply::Raw(String::new())),
        ("no HTTP", |_| Reply::Raw("hello\r\n\r\n".to_owned())),
        ("half a body", |_| Reply::Raw("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"choices\":[".to_owned())),
        ("truncated JSON", |_| Reply::Http(200, "", "{\"choices\":[{\"message\":{\"cont".to_owned())),
        ("wrong types", |_| Reply::Http(200, "", "{\"choices\":[{\"message\":{\"content\":7}}]}".to_owned())),
        ("another document", |_| Reply::Http(200, "", "[1, 2]".to_owned())),
        ("a huge body", |_| says(&"x".repeat(3 << 20))),
        ("silence", |late| Reply::Late(late, Box::new(Reply::Raw(String::new())))),
    ];
    for (name, misdeed) in misdeeds {
        let mock = Mock::start(move |number, body| if number < 2 { misdeed(late) } else { right(body) });
        let opponents = mock.opponents(&["remote.timeout_s=0.4"]);
        let answer = answer(&opponents, &game).unwrap_or_else(|fault| panic!("{name}: {:?}", fault.into_problem()));
        assert_eq!((answer.action.len(), answer.invalid, mock.requests()), (1, 0, 3), "{name}");
    }
}

#[test]
fn a_rate_limit_is_waited_for_as_long_as_it_says() {
    let lab = Lab::new();
    let limited =
        |number| if number == 0 { Some(Reply::Http(429, "retry-after: 1.2\r\n", String::new())) } else { None };
    let mock = Mock::start(move |number, body| limited(number).unwrap_or_else(|| right(body)));
    let started = Instant::now();
    answer(&mock.opponents(&[]), &pair(&lab)).expect("an answer");
    assert!(started.elapsed() >= Duration::from_millis(1200), "{:?}", started.elapsed());
}

#[test]
fn an_invalid_answer_is_asked_for_again_with_the_reason_in_one_conversation() {
    let lab = Lab::new();
    let mock = Mock::start(|number, body| match number {
        0 => says("let me think"),
        1 => says("<think></think><answer>7</answer>"),
        _ => right(body),
    });
    pool(1).install(|| {
        let one = ["rollout.groups=1", "rollout.group_size=2", "remote.concurrency=1"];
        let mut run = start(mock.config(&one), unchecked(vec![pair(&lab)]));
        let report = iterate(&mut run);
        assert_eq!((report.figures["opponent/answers"], report.figures["opponent/invalid"]), (4.0, 2.0));
    });
    let seen = mock.seen.lock().expect("no panic");
    let longest =
        seen.iter().map(|seen| seen.body["messages"].as_array().expect("messages")).max_by_key(|all| all.len());
    let texts: Vec<&str> = longest.expect("requests").iter().map(|m| m["content"].as_str().expect("a text")).collect();
    let told = texts.join("\n");
    assert!(told.contains("refused: it is not in the form") || told.contains("refused: answer with a digit"), "{told}");
    let roles = |request: &Seen| -> Vec<String> {
        let messages = request.body["messages"].as_array().expect("messages");
        messages.iter().map(|message| message["role"].as_str().expect("a role").to_owned()).collect()
    };
    for request in seen.iter() {
        let roles = roles(request);
        assert!(roles.iter().enumerate().all(|(at, role)| (role == "user") == (at % 2 == 0)), "{roles:?}");
    }
}

#[test]
fn an_opponent_without_valid_answers_is_replaced_or_its_episodes_are_voided() {
    let lab = Lab::new();
    let mock = Mock::start(|_, _| says("no idea"));
    pool(2).install(|| {
        let mut run = start(mock.config(&["remote.invalid_tries=2"]), unchecked(vec![pair(&lab)]));
        let report = iterate(&mut run);
        assert_eq!((report.figures["opponent/answers"], report.figures["opponent/invalid"]), (32.0, 32.0));
        let mut turns =
            report.groups.iter().flat_map(|scored| &scored.group.trajectories).map(|t| &t.stages[0].turns[0]);
        assert!(
            turns.all(|turn| turn.legal && turn.observation.is_empty()),
            "a random legal answer, which nobody wrote"
        );
        let settings = ["remote.invalid_tries=2", "remote.on_invalid=void"];
        let mut run = start(mock.config(&settings), unchecked(vec![pair(&lab)]));
        let report = iterate(&mut run);
        let voided: Vec<_> = report.groups.iter().flat_map(|scored| &scored.group.voided).collect();
        assert_eq!(voided.len(), 16);
        assert!(voided.iter().all(|voided| voided.culprit == Culprit::Opponent("echo".to_owned())));
        assert!(voided[0].problem.to_string().contains("remote::invalid"), "{}", voided[0].problem);
        // The script is not to blame and stays in service.
        assert_eq!(iterate(&mut run).step, 2);
    });
}

#[test]
fn a_server_that_is_down_stops_the_run_after_the_grace() {
    let lab = Lab::new();
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let opponent = format!("opponent=openai:http://127.0.0.1:{port}#small");
    pool(2).install(|| {
        let mut run = start(config(&[&opponent, "seat=1", "remote.grace_s=0.7"]), unchecked(vec![pair(&lab)]));
        let before = weights(&run);
        let started = Instant::now();
        let error = run.iterate(None, &AtomicBool::new(false)).expect_err("nobody answers");
        let Error::Rollout(gift_host::rollout::Error::Opponent(problem)) = &error else { panic!("{error}") };
        assert_eq!(problem.code, "remote::down");
        assert!(problem.to_string().contains("remote.grace_s"), "{problem}");
        assert!((Duration::from_millis(600)..Duration::from_secs(10)).contains(&started.elapsed()));
        assert!(run.step == 0 && weights(&run) == before, "a checkpoint taken now resumes here");
    });
}

#[test]
fn a_refusal_stops_at_once_and_does_not_show_the_key() {
    let lab = Lab::new();
    let key = std::env::var("PATH").expect("a path");
    let told = format!("the key {key} is wrong");
    let mock = Mock::start(move |_, _| Reply::Http(401, "", told.clone()));
    let fault = answer(&mock.opponents(&["remote.key_env=PATH"]), &pair(&lab)).expect_err("refused");
    let Fault::Run(problem) = fault else { panic!("{fault:?}") };
    let text = problem.to_string();
    assert!(text.contains("the key [key] is wrong") && text.contains("in `PATH`") && !text.contains(&key), "{text}");
    assert_eq!(mock.requests(), 1);
}

/// One episode waits for the server while the others are asked: sixteen answers of a quarter of a second, four at once.
#[test]
fn answers_are_waited_for_together() {
    let lab = Lab::new();
    let mock = Mock::start(|_, body| Reply::Late(Duration::from_millis(250), Box::new(right(body))));
    pool(1).install(|| {
        let mut run = start(mock.config(&[]), unchecked(vec![pair(&lab)]));
        let started = Instant::now();
        let report = iterate(&mut run);
        assert_eq!(report.figures["opponent/answers"], 16.0);
        assert!(started.elapsed() < Duration::from_millis(3500), "{:?}", started.elapsed());
    });
}

/// A request that hangs costs its own episode, within the episode's budget.
#[test]
fn a_hanging_answer_costs_its_episode_only() {
    let lab = Lab::new();
    let mock = Mock::start(|number, body| {
        if number == 3 { Reply::Late(Duration::from_secs(20), Box::new(right(body))) } else { right(body) }
    });
    pool(2).install(|| {
        let mut run = start(mock.config(&["remote.episode_s=0.8"]), unchecked(vec![pair(&lab)]));
        let started = Instant::now();
        let report = iterate(&mut run);
        let voided: Vec<_> = report.groups.iter().flat_map(|scored| &scored.group.voided).collect();
        assert!(voided.len() == 1 && voided[0].problem.to_string().contains("remote.episode_s"), "{voided:?}");
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    });
}
