//! The requests of all episodes to one server: a queue, a few threads that work it off, and what is known of the server's
//! health.
//!
//! A failed request is tried again after a pause that doubles, with jitter, or after the one that the server asked for.
//! While the server answers others, a request gives up after some tries and costs its episode; when it has answered nobody
//! for the grace period, the run ends.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Endpoint;
use super::request::{Client, Message, Problem};
use crate::config::Remote;
use crate::seed::Seed;

/// The first pause after a failure, and the longest that we choose ourselves.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often a pausing thread looks whether it is still wanted.
const SLICE: Duration = Duration::from_millis(50);
/// How often a failing server is told of.
const REMINDER: Duration = Duration::from_secs(30);

/// Where lines about a server go.
pub(in super::super) type Log = fn(&str);

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server has answered nobody for the grace period.
    Down(String),
    /// The server refuses us.
    Refused(String),
    /// Only this question.
    Episode(String),
}

/// The place where an answer will be.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    begun: Mutex<Option<Instant>>,
    answer: Mutex<Option<Result<String, Failure>>>,
}

impl Ticket {
    /// The answer, once.
    pub(super) fn take(&self) -> Option<Result<String, Failure>> {
        lock(&self.answer).take()
    }

    pub(super) fn is_done(&self) -> bool {
        lock(&self.answer).is_some()
    }

    /// How long the server has been asked; the time in the queue does not count.
    pub(super) fn asked_for(&self) -> Duration {
        lock(&self.begun).map_or(Duration::ZERO, |begun| begun.elapsed())
    }
}

struct Job {
    number: u64,
    messages: Vec<Message>,
    ticket: Arc<Ticket>,
}

impl Job {
    /// Whether somebody still waits: the seat drops its ticket with its episode.
    fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.ticket) > 1
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    asked: u64,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

#[derive(Default)]
struct Health {
    last_answer: Option<Instant>,
    failing_since: Option<Instant>,
    /// Threads that wait for an answer or pause before the next try.
    asking: usize,
    told: Option<Instant>,
    /// The end of it, if there is one: no further question is tried.
    end: Option<Failure>,
}

struct Shared {
    endpoint: Endpoint,
    settings: Remote,
    client: Client,
    queue: Mutex<Queue>,
    changed: Condvar,
    health: Mutex<Health>,
    log: Log,
}

/// A server, with the threads that ask it.
pub(in super::super) struct Server(Arc<Shared>);

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.0.endpoint)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock(&self.0.queue).is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Server {
    pub(in super::super) fn new(endpoint: &Endpoint, settings: &Remote, log: Log) -> Self {
        Self(Arc::new(Shared {
            endpoint: endpoint.clone(),
            settings: settings.clone(),
            client: Client::new(endpoint, settings),
            queue: Mutex::default(),
            changed: Condvar::new(),
            health: Mutex::default(),
            log,
        }))
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Whether the server has answered nobody since its last failure.
    pub(super) fn is_failing(&self) -> bool {
        lock(&self.0.health).failing_since.is_some()
    }

    /// Puts a question into the queue.
    pub(super) fn ask(&self, messages: Vec<Message>) -> Arc<Ticket> {
        let ticket = Arc::new(Ticket::default());
        let mut queue = lock(&self.0.queue);
        queue.asked += 1;
        let number = queue.asked;
        queue.jobs.push_back(Job { number, messages, ticket: Arc::clone(&ticket) });
        if queue.jobs.len() > queue.idle && queue.threads < self.0.settings.concurrency {
            let shared = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("opponent".to_owned());
            match thread.spawn(move || shared.work_off()) {
                Ok(_) => queue.threads += 1,
                // Without any thread nobody would ever answer.
                Err(error) if queue.threads == 0 => {
                    *lock(&ticket.answer) = Some(Err(Failure::Refused(format!("no thread can be started: {error}"))));
                    queue.jobs.pop_back();
                }
                Err(_) => {}
            }
        }
        drop(queue);
        self.0.changed.notify_one();
        ticket
    }
}

impl Shared {
    fn work_off(&self) {
        while let Some(job) = self.next() {
            *lock(&job.ticket.begun) = Some(Instant::now());
            {
                let mut health = lock(&self.health);
                // A failure from before a time in which nobody asked says nothing of now.
                if health.asking == 0 {
                    health.failing_since = None;
                }
                health.asking += 1;
            }
            let result = self.answer(&job);
            lock(&self.health).asking -= 1;
            if let Some(result) = result {
                *lock(&job.ticket.answer) = Some(result);
            }
        }
    }

    /// The next question that somebody waits for; `None` when the server is not needed any more.
    fn next(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.is_closed {
                return None;
            }
            match queue.jobs.pop_front() {
                Some(job) if job.is_wanted() => return Some(job),
                Some(_) => {}
                None => {
                    queue.idle += 1;
                    queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    queue.idle -= 1;
                }
            }
        }
    }

    /// The answer to a question; `None` if nobody waits for it any more.
    fn answer(&self, job: &Job) -> Option<Result<String, Failure>> {
        let started = Instant::now();
        let mut stream = Seed::new(job.number).child("jitter", 0).stream();
        let mut tries = 0_u32;
        loop {
            if let Some(end) = lock(&self.health).end.clone() {
                return Some(Err(end));
            }
            let (why, after) = match self.client.ask(&job.messages) {
                Ok(text) => {
                    self.note_answer();
                    return Some(Ok(text));
                }
                Err(Problem::Rejected(why)) => {
                    self.note_answer();
                    return Some(Err(Failure::Episode(why)));
                }
                Err(Problem::Refused(why)) => return Some(Err(self.end(Failure::Refused(why)))),
                Err(Problem::Again { why, after }) => (why, after),
            };
            tries += 1;
            let failing = self.note_failure(&why);
            let grace = Duration::from_secs_f64(self.settings.grace_s);
            if failing >= grace {
                return Some(Err(self.end(Failure::Down(why))));
            }
            // A request that alone fails gives up; where all fail, the grace decides.
            let others_succeed = lock(&self.health).last_answer.is_some_and(|last| last >= started);
            if others_succeed && tries > self.settings.retries {
                return Some(Err(Failure::Episode(format!("{tries} failed requests, the last one: {why}"))));
            }
            // Jitter from a half to the whole, so that the threads do not come back all at once.
            let doubled = FIRST_PAUSE.saturating_mul(1 << tries.min(16)).min(LONGEST_PAUSE);
            let pause = after.unwrap_or_else(|| doubled.mul_f64(0.5 + 0.5 * stream.float()));
            if !self.pause(pause.min(grace.saturating_sub(failing)), job) {
                return None;
            }
        }
    }

    /// Sleeps; false if nobody waits for the answer any more.
    fn pause(&self, pause: Duration, job: &Job) -> bool {
        let until = Instant::now() + pause;
        loop {
            if !job.is_wanted() || lock(&self.queue).is_closed {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(SLICE));
        }
    }

    fn note_answer(&self) {
        let mut health = lock(&self.health);
        health.last_answer = Some(Instant::now());
        health.failing_since = None;
        if health.told.take().is_some() {
            (self.log)(&format!("{}: the server answers again", self.endpoint));
        }
    }

    /// How long the server has answered nobody, this failure included.
    fn note_failure(&self, why: &str) -> Duration {
        let mut health = lock(&self.health);
        let failing = health.failing_since.get_or_insert_with(Instant::now).elapsed();
        if health.told.is_none_or(|told| told.elapsed() >= REMINDER) {
            health.told = Some(Instant::now());
            let (grace, endpoint) = (self.settings.grace_s, &self.endpoint);
            (self.log)(&format!(
                "warning: {endpoint}: {why}; trying again, the run stops after {grace} s without an answer"
            ));
        }
        failing
    }

    /// Ends the service of this server; the first reason stays.
    fn end(&self, failure: Failure) -> Failure {
        lock(&self.health).end.get_or_insert(failure).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave what is kept here half-written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
