//! The time budget of calls: one thread a process looks at all running calls and marks those whose time is over. A call
//! that goes on regardless for as long again is given up with its thread ([`super::workers`]).
//!
//! A running call pays one atomic load at most where it asks ([`Timer::expired`], Rhai) and nothing where the thread
//! reaches into the virtual machine itself ([`Interrupt`], Luau).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::workers::Worker;

/// The budget of work of the host that a script is not charged for.
const UNCHARGED: Duration = Duration::from_secs(60);
/// A call that waits for a processor is ended after so many budgets nevertheless, and given up after so many more.
const MAX_STRETCH: u32 = 10;
const MAX_GRACE_STRETCH: u32 = 4;
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
pub(super) struct Timer {
    call: Mutex<Option<Call>>,
    expired: AtomicBool,
    interrupt: Option<Box<dyn Interrupt>>,
    processor: ProcessorTime,
    /// The thread, if it may be given up.
    worker: Option<Arc<Worker>>,
}

/// A running call.
struct Call {
    budget: Duration,
    start: Instant,
    /// When to look at it again: at the end of its budget, then at the end of its grace.
    deadline: Instant,
    /// Time since the start and processor time, both at a moment not long after the start.
    mark: Option<(Duration, Duration)>,
    is_given_up: bool,
}

impl Timer {
    /// A timer for this thread's calls that the process's watchdog looks after; `interrupt` is told when the time is over.
    ///
    /// # Errors
    /// The operating system's, if the watchdog thread cannot start.
    pub(super) fn new(interrupt: Option<Box<dyn Interrupt>>) -> std::io::Result<Arc<Self>> {
        let timer = Arc::new(Self {
            call: Mutex::default(),
            expired: AtomicBool::new(false),
            interrupt,
            processor: ProcessorTime::of_this_thread(),
            worker: Worker::current(),
        });
        Watchdog::get()?.watch(&timer);
        Ok(timer)
    }

    /// Starts the budget of a call, which ends when the guard is dropped.
    pub(super) fn start(&self, budget: Duration) -> Running<'_> {
        let mut call = self.lock();
        self.expired.store(false, Ordering::Relaxed);
        let start = Instant::now();
        // A budget beyond the end of time is none.
        *call =
            start.checked_add(budget).map(|deadline| Call { budget, start, deadline, mark: None, is_given_up: false });
        Running { timer: self }
    }

    /// Whether the time of the running call is over.
    pub(super) fn expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// Does work of the host that the script is not charged for, such as reading a data file. It has a budget of its own.
    pub(super) fn uncharged<R>(&self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let ended = self.lock().take();
        if ended.is_some() {
            let deadline = start + UNCHARGED;
            *self.lock() = Some(Call { budget: UNCHARGED, start, deadline, mark: None, is_given_up: false });
        }
        let result = work();
        if let Some(call) = ended {
            let (start, deadline) = (call.start + start.elapsed(), call.deadline + start.elapsed());
            let mut running = self.lock();
            let is_given_up = running.as_ref().is_some_and(|running| running.is_given_up);
            *running = Some(Call { start, deadline, mark: None, is_given_up, ..call });
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Option<Call>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, now: Instant) {
        // The lock is held while arming, so that a call that just ended is never armed or given up.
        let mut running = self.lock();
        let Some(call) = &mut *running else { return };
        let wall = now.saturating_duration_since(call.start);
        if call.mark.is_none() && wall >= call.budget / 8 {
            // No more than half, in case this thread was kept waiting itself.
            call.mark = self.processor.read().map(|used| (wall.min(call.budget / 2), used));
        }
        if now < call.deadline || call.is_given_up {
            return;
        }
        if let Some(left) = self.left(call, wall) {
            call.deadline = now + left.max(TICK);
        } else if !self.expired() {
            self.expired.store(true, Ordering::Relaxed);
            // As long again, from now, before it is given up.
            call.budget = call.budget.max(MIN_GRACE);
            (call.start, call.deadline) = (now, now + call.budget);
            call.mark = self.processor.read().map(|used| (Duration::ZERO, used));
            if let Some(interrupt) = &self.interrupt {
                interrupt.arm();
            }
        } else if let Some(worker) = &self.worker {
            call.is_given_up = true;
            worker.give_up();
        }
    }

    /// What is left of the budget of a call that waited for a processor most of its time: on a busy machine a thread may
    /// be kept waiting for longer than a harmless script works.
    fn left(&self, call: &Call, wall: Duration) -> Option<Duration> {
        let (before, mark) = call.mark?;
        let used = before + self.processor.read()?.saturating_sub(mark);
        let stretch = if self.expired() { MAX_GRACE_STRETCH } else { MAX_STRETCH };
        (used < call.budget && wall < call.budget * stretch).then(|| call.budget.saturating_sub(used))
    }
}

/// A call under a time budget.
pub(super) struct Running<'a> {
    timer: &'a Timer,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.timer.lock();
        let is_given_up = running.take().is_some_and(|call| call.is_given_up);
        if let Some(interrupt) = &self.timer.interrupt {
            interrupt.disarm();
        }
        drop(running);
        if is_given_up {
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
