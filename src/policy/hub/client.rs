//! Requests to the Hub, and what its answers mean. Everything in an answer is checked before it names a file. Every request
//! ends within a time; large files come in parts, so that none of them is long and a cut one is small.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::cache::{Cache, home, is_commit};
use super::{HubError, HubEvent, HubName, hex};

const ENDPOINT: &str = "https://huggingface.co";
/// Bytes of one request: a part that must begin anew costs little.
const PART: u64 = 32 << 20;
/// Time of one request.
const CONNECT_TIME: Duration = Duration::from_secs(15);
const ANSWER_TIME: Duration = Duration::from_secs(60);
const BODY_TIME: Duration = Duration::from_secs(600);
/// Tries in a row without a byte, and the pause before the second one, which doubles.
const MAX_TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_REDIRECTS: usize = 5;
/// Largest list of a repository's files.
const MAX_LISTING: u64 = 8 << 20;

/// The files of a repository at a commit.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// A token. It has no text form, so that it can get into no message.
struct Token(String);

/// What sends requests.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
}

/// What the Hub says of a file.
struct About {
    etag: String,
    size: u64,
}

impl Client {
    pub(super) fn from_environment() -> Self {
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIME))
            .timeout_recv_response(Some(ANSWER_TIME))
            .timeout_recv_body(Some(BODY_TIME))
            .http_status_as_error(false)
            // Followed by hand: another server must not be given the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("gift-host/", env!("CARGO_PKG_VERSION")))
            .build();
        let text =
            |name: &str| std::env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let stored = || {
            let path = text("HF_TOKEN_PATH").map_or_else(|| home().join("token"), Into::into);
            let token = String::from_utf8(std::fs::read(path).ok()?).ok()?.trim().to_owned();
            (!token.is_empty()).then_some(token)
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Self {
            agent: config.into(),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: text("HF_TOKEN").or_else(stored).map(Token),
        }
    }

    fn network(&self, what: &str, why: impl std::fmt::Display) -> HubError {
        HubError::Network {
            what: what.to_owned(),
            endpoint: self.endpoint.clone(),
            why: self.redacted(&why.to_string()),
        }
    }

    /// The text without the token: servers repeat it in their complaints.
    fn redacted(&self, text: &str) -> String {
        let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
        self.token.as_ref().map_or_else(|| text.clone(), |token| text.replace(&token.0, "[token]"))
    }

    /// One request without following anything; the token goes to the Hub alone.
    fn send(&self, head: bool, url: &str, range: Option<(u64, u64)>, what: &str) -> Result<Response<Body>, HubError> {
        let mut request = if head { self.agent.head(url) } else { self.agent.get(url) };
        // The size of what is packed for the way would be the wrong one.
        request = request.header("accept-encoding", "identity");
        if let Some((first, last)) = range {
            request = request.header("range", format!("bytes={first}-{last}"));
        }
        let is_ours = url.strip_prefix(&self.endpoint).is_some_and(|rest| rest.starts_with('/'));
        if let Some(token) = self.token.as_ref().filter(|_| is_ours) {
            request = request.header("authorization", format!("Bearer {}", token.0));
        }
        request.call().map_err(|error| self.network(what, error))
    }

    /// The address that an answer sends us on to, made whole.
    fn target(&self, response: &Response<Body>, what: &str) -> Result<Option<String>, HubError> {
        if !response.status().is_redirection() {
            return Ok(None);
        }
        let location = header(response, "location").ok_or_else(|| self.network(what, "a redirect to nowhere"))?;
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(Some(format!("{}{location}", self.endpoint)));
        }
        let is_web = location.starts_with("https://") || location.starts_with("http://");
        if is_web { Ok(Some(location)) } else { Err(self.network(what, "a redirect to no address of the web")) }
    }

    /// What an answer that is none means.
    fn refusal(&self, response: &mut Response<Body>, what: &str) -> HubError {
        let code = header(response, "x-error-code").unwrap_or_default();
        let why = header(response, "x-error-message").unwrap_or_default();
        let why = self.redacted(if why.is_empty() { code.as_str() } else { why.as_str() });
        match response.status() {
            StatusCode::NOT_FOUND => HubError::NotFound { what: what.to_owned() },
            // What does not exist and what is not for us look alike without a token.
            StatusCode::UNAUTHORIZED if self.token.is_none() && code == "RepoNotFound" => {
                HubError::NotFound { what: format!("{what}, or it is private") }
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let why = if why.is_empty() { response.status().to_string() } else { why };
                HubError::Refused { what: what.to_owned(), why }
            }
            status => self.network(what, format!("status {status}{}{why}", if why.is_empty() { "" } else { ", " })),
        }
    }

    /// The files of a repository, at the commit that the revision is now.
    pub(super) fn listing(&self, name: &HubName) -> Result<Listing, HubError> {
        let what = format!("`{name}`");
        let revision = name.revision.replace('/', "%2F");
        let mut url = format!("{}/api/models/{}/revision/{revision}", self.endpoint, name.repository);
        for _ in 0..=MAX_REDIRECTS {
            let mut response = self.send(false, &url, None, &what)?;
            if let Some(next) = self.target(&response, &what)? {
                url = next;
                continue;
            }
            if !response.status().is_success() {
                return Err(self.refusal(&mut response, &what));
            }
            let text = response.body_mut().with_config().limit(MAX_LISTING).read_to_vec();
            let text = text.map_err(|error| self.network(&what, error))?;
            let document: serde_json::Value = serde_json::from_slice(&text)
                .map_err(|error| self.network(&what, format!("no list of files: {error}")))?;
            let commit = document["sha"].as_str().unwrap_or_default().to_owned();
            if !is_commit(&commit) {
                return Err(self.network(&what, "a list of files without a commit"));
            }
            let files = document["siblings"].as_array().into_iter().flatten();
            let files = files.filter_map(|file| Some(file["rfilename"].as_str()?.to_owned())).collect();
            return Ok(Listing { commit, files });
        }
        Err(self.network(&what, "too many redirects"))
    }

    /// Brings a file of a commit into the cache, unless it is there.
    pub(super) fn fetch(
        &self,
        name: &HubName,
        commit: &str,
        file: &str,
        cache: &Cache,
        tell: &mut dyn FnMut(HubEvent<'_>),
    ) -> Result<(), HubError> {
        if cache.has(commit, file) {
            return Ok(());
        }
        let what = format!("`{file}` of `{name}`");
        let url = format!("{}/{}/resolve/{commit}/{file}", self.endpoint, name.repository);
        let about = self.about(&url, &what)?;
        if !cache.blob(&about.etag).0.is_file() {
            let (mut growing, _lock) = cache.open(&about.etag)?;
            // Another process may have been at it in the meantime.
            if !cache.blob(&about.etag).0.is_file() {
                let path = cache.blob(&about.etag).1;
                let broken = |source| HubError::Io { path: path.clone(), source };
                let mut kept = growing.metadata().map_err(broken)?.len();
                if kept > about.size {
                    growing.set_len(0).map_err(broken)?;
                    kept = 0;
                }
                tell(HubEvent::Begin { file, size: about.size, kept });
                self.download((&url, &what), &about, (&mut growing, kept), &path, tell)?;
                growing.sync_all().map_err(broken)?;
                if let Err(problem) = self.verify(&mut growing, &about, &what) {
                    cache.discard(&about.etag);
                    return Err(problem);
                }
                cache.complete(&about.etag)?;
                tell(HubEvent::End);
            }
        }
        cache.link(commit, file, &about.etag)
    }

    /// Checksum and size of a file, from the Hub itself: only it knows them for files that lie elsewhere.
    fn about(&self, url: &str, what: &str) -> Result<About, HubError> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let mut response = self.send(true, &url, None, what)?;
            let status = response.status();
            if !status.is_success() && !status.is_redirection() {
                return Err(self.refusal(&mut response, what));
            }
            let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
            let size = header(&response, "x-linked-size").or_else(|| header(&response, "content-length"));
            // A redirect on the Hub itself (a renamed repository) says nothing of the file yet.
            let is_linked = header(&response, "x-linked-etag").is_some();
            if let Some(next) = self.target(&response, what)?.filter(|_| !is_linked) {
                url = next;
                continue;
            }
            let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
            let is_name = |etag: &String| {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
                (1..=128).contains(&etag.len()) && etag.bytes().all(fits)
            };
            let etag = etag.filter(is_name).ok_or_else(|| self.network(what, "an answer without a checksum"))?;
            let size = size.and_then(|size| size.parse().ok());
            let size = size.ok_or_else(|| self.network(what, "an answer without a size"))?;
            return Ok(About { etag, size });
        }
        Err(self.network(what, "too many redirects"))
    }

    /// Fetches what a file still lacks, part by part.
    fn download(
        &self,
        (url, what): (&str, &str),
        about: &About,
        (growing, mut held): (&mut File, u64),
        path: &std::path::Path,
        tell: &mut dyn FnMut(HubEvent<'_>),
    ) -> Result<(), HubError> {
        let broken = |source| HubError::Io { path: path.to_owned(), source };
        let (mut tries, mut pause) = (0, FIRST_PAUSE);
        while held < about.size {
            growing.seek(SeekFrom::Start(held)).map_err(broken)?;
            let before = held;
            let result = self.part((url, what), held, about.size, |bytes| {
                growing.write_all(bytes).map_err(broken)?;
                held += bytes.len() as u64;
                tell(HubEvent::More(bytes.len() as u64));
                Ok(())
            });
            if held > before {
                (tries, pause) = (0, FIRST_PAUSE);
            }
            match result {
                Ok(()) if held > before => {}
                Err(problem @ (HubError::Io { .. } | HubError::NotFound { .. } | HubError::Refused { .. })) => {
                    return Err(problem);
                }
                Ok(()) | Err(_) if tries < MAX_TRIES - 1 => {
                    tries += 1;
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                Ok(()) => return Err(self.network(what, "the server sends nothing")),
                Err(problem) => return Err(problem),
            }
        }
        Ok(())
    }

    /// One part of a file, from byte `first` on.
    fn part(
        &self,
        (url, what): (&str, &str),
        first: u64,
        size: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), HubError>,
    ) -> Result<(), HubError> {
        let last = (first + PART).min(size) - 1;
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let mut response = self.send(false, &url, Some((first, last)), what)?;
            if let Some(next) = self.target(&response, what)? {
                url = next;
                continue;
            }
            let status = response.status();
            let is_part = status == StatusCode::PARTIAL_CONTENT;
            if !status.is_success() {
                return Err(self.refusal(&mut response, what));
            }
            let begins =
                header(&response, "content-range").is_some_and(|range| range.starts_with(&format!("bytes {first}-")));
            if is_part && !begins {
                return Err(self.network(what, "another part of the file than was asked for"));
            }
            // A server that knows no parts sends the whole: what is held already is passed over.
            let mut skipped = if is_part { 0 } else { first };
            let mut left = if is_part { last + 1 - first } else { size - first };
            let mut reader = response.body_mut().as_reader();
            let mut buffer = vec![0; 1 << 16];
            while left > 0 {
                let count = reader.read(&mut buffer).map_err(|error| self.network(what, error))?;
                if count == 0 {
                    return Err(self.network(what, "the answer ended early"));
                }
                let passed = skipped.min(count as u64);
                skipped -= passed;
                let useful = &buffer[passed as usize..count];
                let useful = &useful[..useful.len().min(left as usize)];
                left -= useful.len() as u64;
                take(useful)?;
            }
            return Ok(());
        }
        Err(self.network(what, "too many redirects"))
    }

    /// Compares a fetched file with its checksum, where that is a SHA-256 (all large files).
    fn verify(&self, file: &mut File, about: &About, what: &str) -> Result<(), HubError> {
        if about.etag.len() != 64 {
            return Ok(());
        }
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        file.seek(SeekFrom::Start(0)).map_err(|error| self.network(what, error))?;
        loop {
            let count = file.read(&mut buffer).map_err(|error| self.network(what, error))?;
            if count == 0 {
                break;
            }
            digest.update(&buffer[..count]);
        }
        let found = hex(&digest.finalize());
        if found == about.etag.to_ascii_lowercase() {
            return Ok(());
        }
        Err(self.network(what, format!("the content has the checksum {found}, not {}", about.etag)))
    }
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}
