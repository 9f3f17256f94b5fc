//! Models by their name on the Hub, against a server of the test that speaks its protocol: the list of files at a commit,
//! checksums and sizes in headers, redirects to another host, parts of files. It also does what a bad day brings.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::models::with_model;
use super::support::{Place, show};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secretsecretsecret";

/// What the server does, and what it was asked.
#[derive(Default)]
struct Hub {
    files: BTreeMap<String, Vec<u8>>,
    /// The token that it wants, if any.
    token: Option<String>,
    /// Connections of which a large file's content is cut off half way.
    cuts: Mutex<u32>,
    /// Whether large files have another content than their checksum says.
    is_corrupt: bool,
    /// Request lines, with a mark for those that had the token, and the range.
    asked: Mutex<Vec<String>>,
    /// Where the large files lie.
    store: Mutex<String>,
}

fn checksum(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// Starts a server and gives its address.
fn serve(hub: &Arc<Hub>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let hub = Arc::clone(hub);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let hub = Arc::clone(&hub);
            std::thread::spawn(move || while answer(&hub, &stream).is_some() {});
        }
    });
    address
}

fn answer(hub: &Hub, stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let range = headers.get("range").cloned();
    let has_token = headers.contains_key("authorization");
    let mark = if has_token { " with token" } else { "" };
    hub.asked.lock().expect("whole").push(format!("{method} {path}{mark} {}", range.clone().unwrap_or_default()));
    let send = |status: &str, headers: &[(&str, String)], body: &[u8], size: usize| {
        let mut text = format!("HTTP/1.1 {status}\r\ncontent-length: {size}\r\n");
        for (name, value) in headers {
            write!(text, "{name}: {value}\r\n").expect("a string takes all");
        }
        let mut stream = stream;
        stream.write_all((text + "\r\n").as_bytes()).ok()?;
        if method != "HEAD" {
            stream.write_all(body).ok()?;
        }
        stream.flush().ok()
    };
    let empty: &[u8] = &[];
    // The store has no tokens to do with.
    if let Some(name) = path.strip_prefix("/store/") {
        let mut content = hub.files.get(name)?.clone();
        if hub.is_corrupt {
            content[100] ^= 1;
        }
        let (first, last) = range.as_deref()?.strip_prefix("bytes=")?.split_once('-')?;
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        let part = &content[first..=last];
        let headers = [("content-range", format!("bytes {first}-{last}/{}", content.len()))];
        let mut cuts = hub.cuts.lock().expect("whole");
        if *cuts > 0 {
            *cuts -= 1;
            send("206 Partial Content", &headers, &part[..part.len() / 2], part.len())?;
            return None;
        }
        return send("206 Partial Content", &headers, part, part.len());
    }
    let wanted = hub.token.as_ref().map(|token| format!("Bearer {token}"));
    if wanted.is_some() && headers.get("authorization") != wanted.as_ref() {
        let why = format!("access is restricted, {} is no good", headers.get("authorization").map_or("nothing", |t| t));
        return send(
            "401 Unauthorized",
            &[("x-error-code", "GatedRepo".to_owned()), ("x-error-message", why)],
            empty,
            0,
        );
    }
    let listed = path.strip_prefix("/api/models/org/model/revision/");
    if let Some(revision) = listed.filter(|revision| ["main", COMMIT].contains(revision)) {
        let _ = revision;
        let siblings: Vec<_> = hub.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        return send("200 OK", &[], body.as_bytes(), body.len());
    }
    let file =
        path.strip_prefix(&format!("/org/model/resolve/{COMMIT}/")).and_then(|name| hub.files.get_key_value(name));
    let Some((name, content)) = file else {
        return send("404 Not Found", &[("x-error-code", "RepoNotFound".to_owned())], empty, 0);
    };
    let commit = ("x-repo-commit", COMMIT.to_owned());
    if !name.ends_with(".safetensors") {
        let etag = ("etag", format!("\"{}\"", &checksum(content)[..40]));
        return send("200 OK", &[commit, etag], content, content.len());
    }
    let store = hub.store.lock().expect("whole").clone();
    let headers = [
        commit,
        ("x-linked-etag", format!("\"{}\"", checksum(content))),
        ("x-linked-size", content.len().to_string()),
        ("location", format!("{store}/store/{name}")),
    ];
    send("302 Found", &headers, empty, 0)
}

/// The small model, in two files, on a hub; the folder has no model any more.
fn with_hub(change: impl FnOnce(&mut Hub)) -> (Place, Arc<Hub>, String) {
    let place = with_model();
    let mut hub = Hub::default();
    for (path, content) in place.files("model") {
        hub.files.insert(path.file_name().expect("a name").to_string_lossy().into_owned(), content);
    }
    std::fs::rename(place.path("model"), place.path("kept")).expect("renamed");
    change(&mut hub);
    let hub = Arc::new(hub);
    // Two servers with one memory: the content lies on another host than the Hub.
    *hub.store.lock().expect("whole") = serve(&hub);
    let endpoint = serve(&hub);
    (place, hub, endpoint)
}

fn run(place: &Place, endpoint: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gift-host"));
    command.args(arguments).current_dir(place.path("")).stdin(Stdio::null());
    for name in [
        "HF_TOKEN",
        "HF_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "HF_TOKEN_PATH",
        "http_proxy",
        "HTTP_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command.env("HF_HOME", place.path("home")).env("HF_ENDPOINT", endpoint).envs(variables.iter().copied());
    command.output().expect("the binary")
}

const LOGITS: [&str; 7] = ["model", "logits", "org/model", "--text", "the board is 1", "--device", "cpu"];

#[test]
fn a_model_is_fetched_once_and_then_taken_from_the_cache() {
    let (place, hub, endpoint) = with_hub(|_| {});
    let local = place.run(&["model", "logits", "kept", "--text", "the board is 1", "--device", "cpu"]);
    let output = run(&place, &endpoint, &LOGITS, &[("HF_TOKEN", TOKEN)]);
    assert!(output.status.success(), "{}", show(&output));
    assert_eq!(output.stdout, local.stdout);
    // As Hugging Face's programs have it.
    let folder = place.path("home/hub/models--org--model");
    assert_eq!(std::fs::read(folder.join("refs/main")).expect("there"), COMMIT.as_bytes());
    let link = std::fs::read_link(folder.join("snapshots").join(COMMIT).join("a.safetensors")).expect("a link");
    assert_eq!(link, std::path::Path::new("../../blobs").join(checksum(&hub.files["a.safetensors"])));
    let asked = std::mem::take(&mut *hub.asked.lock().expect("whole"));
    assert!(asked.iter().any(|line| line.starts_with("GET /store/b.safetensors")), "{asked:?}");
    // The token is for the Hub, not for where it sends us.
    for line in &asked {
        assert_eq!(line.contains("with token"), !line.contains("/store/"), "{line}");
    }
    // Again: the commit is asked for, no file; by commit or offline: nothing at all.
    let output = run(&place, &endpoint, &LOGITS, &[]);
    assert_eq!(output.stdout, local.stdout);
    assert_eq!(std::mem::take(&mut *hub.asked.lock().expect("whole")), ["GET /api/models/org/model/revision/main "]);
    let by_commit = ["model", "info", &format!("org/model@{COMMIT}")];
    assert!(run(&place, &endpoint, &by_commit, &[]).status.success());
    assert!(run(&place, &endpoint, &LOGITS, &[("HF_HUB_OFFLINE", "1")]).status.success());
    assert!(hub.asked.lock().expect("whole").is_empty());
    // A Hub that is not there: what the cache has, with a note.
    let output = run(&place, "http://127.0.0.1:9", &LOGITS, &[]);
    assert!(output.status.success() && show(&output).contains("is taken from the cache"), "{}", show(&output));
}

#[test]
fn a_download_that_is_cut_off_goes_on_where_it_stopped() {
    let (place, hub, endpoint) = with_hub(|hub| hub.cuts = Mutex::new(2));
    let output = run(&place, &endpoint, &LOGITS, &[]);
    assert!(output.status.success(), "{}", show(&output));
    let asked = hub.asked.lock().expect("whole").clone();
    let size = hub.files["a.safetensors"].len();
    let half = size / 2;
    let expected = format!("GET /store/a.safetensors bytes={half}-{}", size - 1);
    assert!(asked.contains(&expected), "{expected} in {asked:?}");
}

#[test]
fn a_wrong_content_is_not_kept() {
    let (place, _hub, endpoint) = with_hub(|hub| hub.is_corrupt = true);
    let output = run(&place, &endpoint, &LOGITS, &[]);
    let shown = show(&output);
    assert!(
        shown.contains("status: 1") && shown.contains("error[hub::network]") && shown.contains("checksum"),
        "{shown}"
    );
    let names: Vec<_> =
        place.files("home/hub").into_iter().map(|(path, _)| path.to_string_lossy().into_owned()).collect();
    assert!(!names.iter().any(|name| name.ends_with(".safetensors") || name.ends_with(".incomplete")), "{names:?}");
}

#[test]
fn what_cannot_be_fetched_is_told_without_the_token() {
    let (place, _hub, endpoint) = with_hub(|hub| hub.token = Some("hf_another".to_owned()));
    let refused = |place: &Place, endpoint: &str, variables: &[(&str, &str)], parts: &[&str]| {
        let shown = show(&run(place, endpoint, &LOGITS, variables));
        assert!(!shown.contains(TOKEN), "{shown}");
        for part in ["status: 1"].iter().chain(parts) {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    };
    refused(&place, &endpoint, &[("HF_TOKEN", TOKEN)], &["error[hub::refused]", "[token] is no good", "`HF_TOKEN`"]);
    refused(&place, &endpoint, &[], &["error[hub::refused]"]);
    refused(&place, &endpoint, &[("HF_HUB_OFFLINE", "1")], &["error[hub::offline]", "unset `HF_HUB_OFFLINE`"]);
    refused(&place, "http://127.0.0.1:9", &[], &["error[hub::network]", "127.0.0.1:9"]);
    place.write("home/token", &format!("{TOKEN}\n"));
    refused(&place, &endpoint, &[], &["error[hub::refused]", "[token] is no good"]);
    let (place, _hub, endpoint) = with_hub(|hub| _ = hub.files.remove("b.safetensors"));
    refused(&place, &endpoint, &[], &["error[hub::not_found]", "`b.safetensors` of `org/model`"]);
    let (place, _hub, endpoint) = with_hub(|hub| hub.files.retain(|name, _| !name.contains("safetensors")));
    refused(&place, &endpoint, &[], &["error[hub::no_weights]", "no weights"]);
    let shown = show(&run(&place, &endpoint, &["model", "info", "org/other"], &[]));
    assert!(shown.contains("error[hub::not_found]") && shown.contains("check the spelling"), "{shown}");
}
