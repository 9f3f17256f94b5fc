//! A language model behind a chat-completions server (vLLM, llama.cpp, mistral.rs, hosted ones) in a seat: `openai:URL#MODEL`.
//!
//! Each seat of each episode has a conversation of its own: its prompts are `game.observe`, its answers are read as the
//! learner's are in the format `think`. Requests run on threads of their own ([`server`]); while one is under way the
//! rollout plays other episodes. What a server answers is not in our hands, so runs with such opponents are not repeatable.

mod request; // one request and its answer
mod server; // the requests of all episodes to one server

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::lineup::{Answer, Fault, Opponent, Reply, View};
use super::scripted::random_action;
use crate::config::{AnswerFormat, OnInvalid, Remote};
use crate::diag::Diagnostic;
use crate::game::{parse_answer, told_again};
use crate::seed::Stream;

use request::{Message, Role};
use server::{Failure, Ticket};
pub(super) use server::{Log, Server};

/// Where a model is served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The server, as it was given: `http://…` or `https://…`.
    pub url: String,
    /// The model's name there.
    pub model: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "openai:{}#{}", self.url, self.model)
    }
}

impl Endpoint {
    /// Reads `URL#MODEL`.
    pub(super) fn parse(text: &str) -> Result<Self, Box<Diagnostic>> {
        let problem = |message: &str, found: &str, help: &str| {
            Err(Box::new(
                Diagnostic::error("opponent::url", message)
                    .expected("`openai:URL#MODEL`, such as `openai:http://localhost:8000/v1#SmolLM2`")
                    .found(found)
                    .help(help),
            ))
        };
        let Some((url, model)) = text.split_once('#').filter(|(_, model)| !model.trim().is_empty()) else {
            let found = format!("`openai:{text}`");
            return problem("the server's model is not named", &found, "put its name behind a `#`");
        };
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
        match host {
            None | Some("") => {
                let found = format!("`{url}`");
                problem("the address of the server is no web address", &found, "begin with `http://` or `https://`")
            }
            Some(host) if host.contains('@') || url.contains('?') => problem(
                "the address of the server may hold a key",
                "a user, a password or a query in the address, which is not shown here",
                "put the key into the environment (`remote.key_env`): addresses are logged and stored",
            ),
            Some(_) => Ok(Self { url: url.trim().to_owned(), model: model.trim().to_owned() }),
        }
    }

    /// The address of chat completions: the server's own, with the usual path where none was given.
    fn completions(&self) -> String {
        let url = self.url.trim_end_matches('/');
        if url.ends_with("/chat/completions") {
            return url.to_owned();
        }
        let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        format!("{url}{}/chat/completions", if has_path { "" } else { "/v1" })
    }
}

/// A model in one seat of one episode.
pub(super) struct Chat {
    server: Arc<Server>,
    settings: Remote,
    messages: Vec<Message>,
    /// The request under way.
    pending: Option<Arc<Ticket>>,
    /// Time that the seat has taken for earlier answers.
    taken: Duration,
    /// Answers on this turn that could not be read or were refused; those that could not be read.
    invalid: usize,
    unreadable: usize,
    observation: String,
}

impl Chat {
    pub(super) fn new(server: Arc<Server>, settings: Remote) -> Self {
        Self {
            server,
            settings,
            messages: Vec::new(),
            pending: None,
            taken: Duration::ZERO,
            invalid: 0,
            unreadable: 0,
            observation: String::new(),
        }
    }

    fn ask(&mut self, view: &View<'_>, reason: Option<&str>) -> Result<Reply, Fault> {
        let text = view.game.observe(view.state, view.seat, false)?;
        self.observation = match reason {
            None => text,
            Some(reason) => told_again(&text, reason, false),
        };
        self.messages.push(Message { role: Role::User, content: self.observation.clone() });
        self.pending = Some(self.server.ask(self.messages.clone()));
        Ok(Reply::Waiting)
    }

    /// Plays what the model wrote, or asks again if that cannot be read.
    fn read(&mut self, view: &View<'_>, text: String, stream: &mut Stream) -> Result<Reply, Fault> {
        self.messages.push(Message { role: Role::Assistant, content: text.clone() });
        let read = parse_answer(&text, AnswerFormat::Think);
        let action = if read.well_formed {
            Some(read.text)
        } else {
            // Small models often leave out the tags; an answer that is legal as it stands is good enough.
            let bare = text.trim();
            view.game.actions(view.state, view.seat)?.and_then(|all| all.into_iter().find(|action| action == bare))
        };
        if let Some(action) = action {
            let invalid = std::mem::take(&mut self.unreadable);
            let observation = std::mem::take(&mut self.observation);
            return Ok(Reply::Answer(Answer { action, observation, text, invalid }));
        }
        self.unreadable += 1;
        self.invalid += 1;
        if self.invalid >= self.settings.invalid_tries {
            return self.give_in(view, "its answers are not in the answer format", stream);
        }
        self.ask(view, Some("it is not in the form <think>...</think><answer>...</answer>"))
    }

    /// What comes in place of a valid answer.
    fn give_in(&mut self, view: &View<'_>, reason: &str, stream: &mut Stream) -> Result<Reply, Fault> {
        self.invalid = 0;
        let invalid = std::mem::take(&mut self.unreadable);
        if self.settings.on_invalid == OnInvalid::Random {
            let action = random_action(view.game, view.state, view.seat, stream)?;
            return Ok(Reply::Answer(Answer { invalid, ..Answer::plain(action) }));
        }
        let tries = self.settings.invalid_tries;
        Err(Fault::Episode(Box::new(
            Diagnostic::error("remote::invalid", format!("`{}` gave no valid answer", self.server.endpoint()))
                .expected(format!("one within {tries} tries (`remote.invalid_tries`)"))
                .found(reason)
                .help("`--set remote.on_invalid=random` plays a random legal answer instead"),
        )))
    }

    /// Whether the seat has taken too long. As long as the server answers nobody, the run's grace decides instead.
    fn is_late(&self) -> bool {
        let Some(ticket) = &self.pending else { return false };
        let taken = self.taken + ticket.asked_for();
        taken > Duration::from_secs_f64(self.settings.episode_s) && !self.server.is_failing()
    }

    fn fault(&self, failure: Failure) -> Fault {
        let endpoint = self.server.endpoint();
        match failure {
            Failure::Down(why) => Fault::Run(Box::new(
                Diagnostic::error("remote::down", format!("the server of `{endpoint}` does not answer"))
                    .expected(format!("an answer within {} s (`remote.grace_s`)", self.settings.grace_s))
                    .found(why)
                    .help("start the server again, then go on with `--resume`"),
            )),
            Failure::Refused(why) => Fault::Run(Box::new(
                Diagnostic::error("remote::refused", format!("the server of `{endpoint}` refuses us"))
                    .expected("a server that takes our key, at this address, with this model")
                    .found(why)
                    .help(format!("check address and model, and the key in `{}`", self.settings.key_env)),
            )),
            Failure::Episode(why) => Fault::Episode(Box::new(
                Diagnostic::error("remote::failed", format!("`{endpoint}` gave no answer"))
                    .expected("a chat completion")
                    .found(why)
                    .help("the episode is voided; others go on"),
            )),
        }
    }
}

impl Opponent for Chat {
    fn act(&mut self, view: &View<'_>, stream: &mut Stream) -> Result<Reply, Fault> {
        if let Some(ticket) = &self.pending {
            let Some(result) = ticket.take() else {
                if !self.is_late() {
                    return Ok(Reply::Waiting);
                }
                self.pending = None;
                let most = self.settings.episode_s;
                return Err(self.fault(Failure::Episode(format!(
                    "nothing within the {most} s that a seat has for an episode (`remote.episode_s`)"
                ))));
            };
            self.taken += ticket.asked_for();
            self.pending = None;
            return match result {
                Ok(text) => self.read(view, text, stream),
                Err(failure) => Err(self.fault(failure)),
            };
        }
        let Some(reason) = view.refusal else {
            self.invalid = 0;
            return self.ask(view, None);
        };
        self.invalid += 1;
        if self.invalid >= self.settings.invalid_tries {
            return self.give_in(view, &format!("the last one was refused: {reason}"), stream);
        }
        self.ask(view, Some(reason))
    }

    fn is_ready(&self) -> bool {
        self.pending.as_ref().is_none_or(|ticket| ticket.is_done()) || self.is_late()
    }

    fn max_tries(&self) -> usize {
        // It gives in by itself before that.
        self.settings.invalid_tries + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed_and_those_that_hold_secrets_are_refused() {
        let completions = |text: &str| Endpoint::parse(text).map(|endpoint| endpoint.completions());
        assert_eq!(completions("http://localhost:8000#m").unwrap(), "http://localhost:8000/v1/chat/completions");
        assert_eq!(completions("https://a.b/api/v1/#m/x:8b").unwrap(), "https://a.b/api/v1/chat/completions");
        for (text, told) in [
            ("http://localhost:8000", "model is not named"),
            ("http://localhost:8000#", "model is not named"),
            ("localhost:8000#m", "begin with `http://`"),
            ("http://#m", "no web address"),
            ("http://me:secret@host/v1#m", "may hold a key"),
            ("http://host/v1?key=secret#m", "may hold a key"),
        ] {
            let problem = Endpoint::parse(text).unwrap_err().to_string();
            assert!(problem.contains(told) && !problem.contains("secret"), "{text}: {problem}");
        }
    }
}
