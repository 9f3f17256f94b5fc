//! The time budget of calls: one thread a process looks at all running calls and marks those whose time is over. A call
//! that goes on regardless for as long again is given up with its thread ([`super::workers`]).
//!
//! A running call pays one atomic load at most where it asks ([`Timer::expired`], Rhai) and nothing where the thread
//! reaches into the virtual machine itself ([`Interrupt`], Luau).

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::workers::Worker;

/// The budget of work of the host that a script is not charged for.
const UNCHARGED: Duration = Duration::from_secs(60);
/// A call that waits for a processor is ended after so many budgets nevertheless, and given up after as many more.
const MAX_STRETCH: u32 = 10;
/// A call is not given up sooner after the end of its time: some operations of the library take tens of milliseconds.
const MIN_GRACE: Duration = Duration::from_millis(250);
/// How often running calls are looked at, and so how late a call may be stopped.
const TICK: Duration = Duration::from_millis(4);

/// What stops a virtual machine from another thread.
pub(super) trait Interrupt: Send + Sync {
    /// Makes the virtual machine raise errors until [`Interrupt::disarm`]. Called only while a call runs.
    fn arm(&self);
    /// Lets the virtual machine run again.
    fn disarm(&self);
}

/// The time budget of one virtual machine.
///
/// A call pays two atomic writes and no look at the clock: the watchdog sees a call's number at one of its ticks, and ends
/// the call when it still sees that number after the budget. So a call may run a tick longer than its budget.
pub(super) struct Timer {
    /// The number of the running call (above) and the [`phase`] (lowest three bits).
    word: AtomicU64,
    /// Budget of the running call, in nanoseconds.
    budget: AtomicU64,
    /// Time of the running call that it is not charged for, in nanoseconds.
    uncharged: AtomicU64,
    /// Whether the running call is not charged at the moment.
    is_paused: AtomicBool,
    expired: AtomicBool,
    interrupt: Option<Box<dyn Interrupt>>,
    processor: ProcessorTime,
    /// The thread, if it may be given up.
    worker: Option<Arc<Worker>>,
    /// What the watchdog has seen of the last call. Nobody else locks it.
    seen: Mutex<Option<Seen>>,
}

/// What a timer is doing.
mod phase {
    pub(super) const MASK: u64 = 7;
    pub(super) const IDLE: u64 = 0;
    pub(super) const RUNNING: u64 = 1;
    /// The watchdog is about to stop the virtual machine; the call must not end meanwhile.
    pub(super) const ARMING: u64 = 2;
    /// The virtual machine is being stopped.
    pub(super) const ARMED: u64 = 3;
    /// Whoever waited for the call has gone on without it.
    pub(super) const GIVEN_UP: u64 = 4;
    /// Added for each call.
    pub(super) const NEXT_CALL: u64 = 8;
}

/// A running call, as the watchdog sees it.
struct Seen {
    number: u64,
    /// When it was seen first.
    since: Instant,
    /// Time since then and processor time, both at a moment not long after.
    mark: Option<(Duration, Duration)>,
    /// When it was first seen not to be charged.
    paused: Option<Instant>,
    /// When its time was over, and the processor time then.
    armed: Option<(Instant, Option<Duration>)>,
}

impl Timer {
    /// A timer for this thread's calls that the process's watchdog looks after; `interrupt` is told when the time is over.
    ///
    /// # Errors
    /// The operating system's, if the watchdog thread cannot start.
    pub(super) fn new(interrupt: Option<Box<dyn Interrupt>>) -> std::io::Result<Arc<Self>> {
        let timer = Arc::new(Self {
            word: AtomicU64::new(phase::IDLE),
            budget: AtomicU64::new(0),
            uncharged: AtomicU64::new(0),
            is_paused: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            interrupt,
            processor: ProcessorTime::of_this_thread(),
            worker: Worker::current(),
            seen: Mutex::default(),
        });
        Watchdog::get()?.watch(&timer);
        Ok(timer)
    }

    /// Starts the budget of a call, which ends when the guard is dropped.
    pub(super) fn start(&self, budget: Duration) -> Running<'_> {
        self.expired.store(false, Ordering::Relaxed);
        self.uncharged.store(0, Ordering::Relaxed);
        // A panic of the host's own work may have left it set.
        self.is_paused.store(false, Ordering::Relaxed);
        self.budget.store(nanoseconds(budget), Ordering::Relaxed);
        // One call runs at a time, so nobody writes between the load and the store.
        let last = self.word.load(Ordering::Relaxed) & !phase::MASK;
        let word = last.wrapping_add(phase::NEXT_CALL) | phase::RUNNING;
        self.word.store(word, Ordering::Release);
        Running { timer: self, word: Cell::new(word) }
    }

    /// Whether the time of the running call is over.
    pub(super) fn expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// Does work of the host that the script is not charged for, such as reading a data file. It has a budget of its own.
    pub(super) fn uncharged<R>(&self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        self.is_paused.store(true, Ordering::Release);
        let result = work();
        self.uncharged.fetch_add(nanoseconds(start.elapsed()), Ordering::Relaxed);
        self.is_paused.store(false, Ordering::Release);
        result
    }

    fn look(&self, now: Instant) {
        let word = self.word.load(Ordering::Acquire);
        let (number, phase) = (word & !phase::MASK, word & phase::MASK);
        if !matches!(phase, phase::RUNNING | phase::ARMED) {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.as_mut().filter(|seen| seen.number == number) {
            None => *seen = Some(Seen { number, since: now, mark: None, paused: None, armed: None }),
            Some(seen) if phase == phase::RUNNING => self.look_at_running(word, seen, now),
            Some(seen) => self.look_at_armed(word, seen, now),
        }
    }

    fn look_at_running(&self, word: u64, seen: &mut Seen, now: Instant) {
        let budget = Duration::from_nanos(self.budget.load(Ordering::Relaxed));
        let wall = now.saturating_duration_since(seen.since);
        if self.is_paused.load(Ordering::Acquire) {
            if now.saturating_duration_since(*seen.paused.get_or_insert(now)) < UNCHARGED {
                return;
            }
        } else {
            seen.paused = None;
            if seen.mark.is_none() && wall >= budget / 8 {
                // No more than half, in case this thread was kept waiting itself.
                seen.mark = self.processor.read().map(|used| (wall.min(budget / 2), used));
            }
            let uncharged = Duration::from_nanos(self.uncharged.load(Ordering::Relaxed));
            let allowed = budget.saturating_add(uncharged);
            if wall < allowed {
                return;
            }
            // A call that waited for a processor most of its time goes on: on a busy machine a thread may be kept waiting
            // for longer than a harmless script works.
            let used = seen.mark.and_then(|(before, mark)| Some(before + self.processor.read()?.saturating_sub(mark)));
            if used.is_some_and(|used| used < allowed) && wall < budget * MAX_STRETCH + uncharged {
                return;
            }
        }
        // A call that has just ended, or another that has begun, is never armed.
        let arming = seen.number | phase::ARMING;
        if self.word.compare_exchange(word, arming, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.expired.store(true, Ordering::Relaxed);
            if let Some(interrupt) = &self.interrupt {
                interrupt.arm();
            }
            seen.armed = Some((now, self.processor.read()));
            self.word.store(seen.number | phase::ARMED, Ordering::Release);
        }
    }

    /// Gives the call up with its thread if it goes on for as long again.
    fn look_at_armed(&self, word: u64, seen: &Seen, now: Instant) {
        let (Some(worker), Some((since, mark))) = (&self.worker, seen.armed) else { return };
        let grace = Duration::from_nanos(self.budget.load(Ordering::Relaxed)).max(MIN_GRACE);
        let wall = now.saturating_duration_since(since);
        let used = mark.and_then(|mark| Some(self.processor.read()?.saturating_sub(mark)));
        if wall < grace || used.is_some_and(|used| used < grace) && wall < grace * MAX_STRETCH {
            return;
        }
        let given_up = seen.number | phase::GIVEN_UP;
        if self.word.compare_exchange(word, given_up, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            worker.give_up();
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A call under a time budget.
pub(super) struct Running<'a> {
    timer: &'a Timer,
    word: Cell<u64>,
}

impl Running<'_> {
    /// Whether the time is over.
    pub(super) fn expired(&self) -> bool {
        self.timer.expired()
    }

    /// Starts the budget of a next call with the same guard, unless the time is over already.
    pub(super) fn renew(&self) {
        let word = self.word.get();
        let next = (word & !phase::MASK).wrapping_add(phase::NEXT_CALL) | phase::RUNNING;
        if self.timer.word.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.timer.uncharged.store(0, Ordering::Relaxed);
            self.word.set(next);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let timer = self.timer;
        let word = self.word.get();
        let number = word & !phase::MASK;
        let idle = number | phase::IDLE;
        if timer.word.compare_exchange(word, idle, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return;
        }
        // The watchdog was faster: let it finish, then undo what it did.
        while timer.word.load(Ordering::Acquire) & phase::MASK == phase::ARMING {
            std::hint::spin_loop();
        }
        if let Some(interrupt) = &timer.interrupt {
            interrupt.disarm();
        }
        let armed = number | phase::ARMED;
        if timer.word.compare_exchange(armed, idle, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Whoever waited for this call has gone on, and what the callers on this stack borrowed may be gone.
            loop {
                std::thread::park();
            }
        }
    }
}

/// The processor time of one thread, which other threads may read; known on Linux alone.
struct ProcessorTime(Option<Arc<File>>);

impl ProcessorTime {
    fn of_this_thread() -> Self {
        thread_local! {
            // One open file a thread: it keeps meaning this thread whoever reads it.
            static FILE: Option<Arc<File>> = File::open("/proc/thread-self/schedstat").ok().map(Arc::new);
        }
        Self(FILE.with(Clone::clone))
    }

    fn read(&self) -> Option<Duration> {
        let mut file = &**self.0.as_ref()?;
        let mut text = [0; 96];
        file.seek(SeekFrom::Start(0)).ok()?;
        let length = file.read(&mut text).ok()?;
        // Nanoseconds on a processor, nanoseconds waiting for one, turns.
        let first = std::str::from_utf8(&text[..length]).ok()?.split(' ').next()?;
        first.parse().ok().map(Duration::from_nanos)
    }
}

/// The thread and what it looks after.
struct Watchdog {
    timers: Mutex<Vec<Weak<Timer>>>,
    arrival: Condvar,
}

impl Watchdog {
    fn get() -> std::io::Result<&'static Self> {
        static WATCHDOG: OnceLock<Watchdog> = OnceLock::new();
        static START: Mutex<bool> = Mutex::new(false);
        let watchdog = WATCHDOG.get_or_init(|| Self { timers: Mutex::default(), arrival: Condvar::new() });
        let mut started = START.lock().unwrap_or_else(PoisonError::into_inner);
        if !*started {
            std::thread::Builder::new().name("script-watchdog".to_owned()).spawn(|| watchdog.run())?;
            *started = true;
        }
        Ok(watchdog)
    }

    fn watch(&self, timer: &Arc<Timer>) {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(timer));
        self.arrival.notify_one();
    }

    fn run(&self) {
        let mut live = Vec::new();
        loop {
            let mut timers = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
            while timers.is_empty() {
                timers = self.arrival.wait(timers).unwrap_or_else(PoisonError::into_inner);
            }
            timers.retain(|timer| timer.strong_count() > 0);
            live.extend(timers.iter().filter_map(Weak::upgrade));
            drop(timers);
            let now = Instant::now();
            live.drain(..).for_each(|timer| timer.look(now));
            std::thread::sleep(TICK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_expires_after_its_budget_and_the_next_starts_afresh() {
        let timer = Timer::new(None).expect("a watchdog");
        let running = timer.start(Duration::from_millis(5));
        let start = Instant::now();
        while !timer.expired() {
            assert!(start.elapsed() < Duration::from_secs(10), "the watchdog never came");
        }
        drop(running);
        let running = timer.start(Duration::from_secs(60));
        assert!(!timer.expired());
        drop(running);
    }

    /// Asleep as behind other threads: neither uses the processor. Elsewhere than on Linux only wall-clock time is known.
    #[cfg(target_os = "linux")]
    #[test]
    fn waiting_for_a_processor_is_not_charged_at_once() {
        let timer = Timer::new(None).expect("a watchdog");
        let running = timer.start(Duration::from_millis(50));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!timer.expired(), "the thread has not worked");
        let start = Instant::now();
        while !timer.expired() {
            assert!(start.elapsed() < Duration::from_secs(10), "the watchdog never came");
        }
        drop(running);
    }

    #[test]
    fn work_of_the_host_is_not_charged() {
        let timer = Timer::new(None).expect("a watchdog");
        let running = timer.start(Duration::from_millis(200));
        timer.uncharged(|| std::thread::sleep(Duration::from_millis(400)));
        assert!(!timer.expired());
        drop(running);
    }
}
