//! One request to a chat-completions server, and what its answer means: a text, something to try again, or an end.

use std::time::Duration;

use serde_json::{Value, json};

use super::Endpoint;
use crate::config::Remote;

/// Largest answer that is read, in bytes.
const MAX_BODY: u64 = 1 << 20;
/// Characters of a server's own words that a message shows.
const MAX_SHOWN: usize = 200;

/// One entry of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) role: Role,
    pub(super) content: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    User,
    Assistant,
}

/// Why there is no text.
#[derive(Debug, PartialEq)]
pub(super) enum Problem {
    /// It may work later, not before the time that the server asked for.
    Again { why: String, after: Option<Duration> },
    /// This request will never work, others may.
    Rejected(String),
    /// No request will work: a wrong key, address or model.
    Refused(String),
}

/// A key from the environment. It has no text form, so that it can get into no message.
pub(super) struct Key(String);

impl Key {
    /// The key in this variable, if there is one.
    pub(super) fn from_environment(variable: &str) -> Option<Self> {
        let key = std::env::var(variable).ok()?.trim().to_owned();
        (!key.is_empty()).then_some(Self(key))
    }

    /// The text without the key: servers repeat it in their complaints.
    fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }
}

/// What sends requests, with the connections that it keeps open.
pub(super) struct Client {
    agent: ureq::Agent,
    url: String,
    model: String,
    key: Option<Key>,
    temperature: f64,
    max_tokens: u32,
}

impl Client {
    pub(super) fn new(endpoint: &Endpoint, settings: &Remote) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(settings.timeout_s)))
            .max_idle_connections_per_host(settings.concurrency)
            .max_idle_connections(settings.concurrency)
            .http_status_as_error(false)
            // Another server must not be given the key.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("gift-host/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.into(),
            url: endpoint.completions(),
            model: endpoint.model.clone(),
            key: Key::from_environment(&settings.key_env),
            temperature: settings.temperature,
            max_tokens: settings.max_tokens,
        }
    }

    /// The model's next message in this conversation.
    pub(super) fn ask(&self, messages: &[Message]) -> Result<String, Problem> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                let role = if message.role == Role::User { "user" } else { "assistant" };
                json!({ "role": role, "content": message.content })
            })
            .collect();
        let body = json!({
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "stream": false,
        });
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {}", key.0));
        }
        let again = |why: String| Problem::Again { why: self.redacted(&why), after: None };
        let mut response = match request.send(body.to_string()) {
            Ok(response) => response,
            Err(ureq::Error::BadUri(why)) => return Err(Problem::Refused(self.redacted(&why))),
            Err(ureq::Error::Http(why)) => return Err(Problem::Refused(self.redacted(&why.to_string()))),
            Err(error) => return Err(again(error.to_string())),
        };
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()).and_then(seconds);
        let text = match response.body_mut().with_config().limit(MAX_BODY).read_to_vec() {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(ureq::Error::BodyExceedsLimit(_)) => return Err(again(format!("an answer above {MAX_BODY} bytes"))),
            Err(error) if status == 200 => return Err(again(format!("half an answer: {error}"))),
            Err(_) => String::new(),
        };
        let told = || self.redacted(&format!("status {status}: {}", shown(&text)));
        match status {
            200..=299 => read(&text).map_err(again),
            408 | 409 | 425 | 429 | 500..=599 => Err(Problem::Again { why: told(), after }),
            401 | 403 | 404 | 405 | 300..=399 => Err(Problem::Refused(told())),
            _ => Err(Problem::Rejected(told())),
        }
    }

    fn redacted(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_owned(), |key| key.redact(text))
    }
}

/// `Retry-After` in seconds; a date is not read, and the usual pause then holds.
fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds))?;
    Some(Duration::from_secs_f64(seconds))
}

/// The text of a chat completion.
fn read(text: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("no chat completion ({why}): {}", shown(text));
    let body: Value = serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
    let message = body.pointer("/choices/0/message").ok_or_else(|| wrong("no `choices[0].message`"))?;
    match message.get("content") {
        Some(Value::String(content)) => Ok(content.clone()),
        // Some models say nothing, or have only thought.
        Some(Value::Null) => Ok(String::new()),
        Some(Value::Array(parts)) => {
            let texts: Option<Vec<&str>> = parts.iter().map(|part| part.get("text")?.as_str()).collect();
            Ok(texts.ok_or_else(|| wrong("a part of `content` is no text"))?.concat())
        }
        _ => Err(wrong("`content` is no text")),
    }
}

/// A server's words in one short line.
fn shown(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN).collect();
    if line.trim().is_empty() { "an empty body".to_owned() } else { line.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_of_every_form_are_read_and_others_explained() {
        let completion = |content: &str| format!(r#"{{"choices":[{{"message":{{"content":{content}}}}}]}}"#);
        assert_eq!(read(&completion(r#""5""#)), Ok("5".to_owned()));
        assert_eq!(read(&completion("null")), Ok(String::new()));
        assert_eq!(read(&completion(r#"[{"type":"text","text":"a"},{"text":"b"}]"#)), Ok("ab".to_owned()));
        for text in ["", "{", r#"{"choices":[]}"#, r#"{"choices":{"0":1}}"#, &completion("7"), &completion("[1]")] {
            assert!(read(text).unwrap_err().starts_with("no chat completion"), "{text}");
        }
    }

    #[test]
    fn a_key_gets_into_no_message() {
        let key = Key("sk-secret".to_owned());
        assert_eq!(key.redact("Incorrect API key: sk-secret."), "Incorrect API key: [key].");
        assert_eq!(seconds(" 2.5 "), Some(Duration::from_millis(2500)));
        assert_eq!((seconds("-1"), seconds("1e99"), seconds("Wed, 21 Oct 2015 07:28:00 GMT")), (None, None, None));
    }
}
