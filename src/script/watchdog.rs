//! The time budget of calls: one thread a process looks at all running calls and marks those whose time is over.
//!
//! A running call pays one atomic load at most where it asks ([`Timer::expired`], Rhai) and nothing where the thread
//! reaches into the virtual machine itself ([`Interrupt`], Luau).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

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
    /// The number of the running call (above) and the [`phase`] (lowest two bits).
    word: AtomicU64,
    /// Budget of the running call, in nanoseconds.
    budget: AtomicU64,
    /// Time of the running call that it is not charged for, in nanoseconds.
    uncharged: AtomicU64,
    /// Whether the running call is not charged at the moment.
    is_paused: AtomicBool,
    expired: AtomicBool,
    interrupt: Option<Box<dyn Interrupt>>,
    /// What the watchdog saw last: the word, and when it saw it first. Nobody else locks it.
    seen: Mutex<Option<(u64, Instant)>>,
}

/// What a timer is doing.
mod phase {
    pub(super) const MASK: u64 = 3;
    pub(super) const IDLE: u64 = 0;
    pub(super) const RUNNING: u64 = 1;
    /// The watchdog is about to stop the virtual machine; the call must not end meanwhile.
    pub(super) const ARMING: u64 = 2;
    /// The virtual machine is being stopped.
    pub(super) const ARMED: u64 = 3;
    /// Added for each call.
    pub(super) const NEXT_CALL: u64 = 4;
}

impl Timer {
    /// A timer that the process's watchdog looks after; `interrupt` is told when the time is over.
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
            seen: Mutex::default(),
        });
        Watchdog::get()?.watch(&timer);
        Ok(timer)
    }

    /// Starts the budget of a call, which ends when the guard is dropped.
    pub(super) fn start(&self, budget: Duration) -> Running<'_> {
        self.expired.store(false, Ordering::Relaxed);
        self.uncharged.store(0, Ordering::Relaxed);
        self.budget.store(u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        // One call runs at a time, so nobody writes between the load and the store.
        let last = self.word.load(Ordering::Relaxed) & !phase::MASK;
        let word = last.wrapping_add(phase::NEXT_CALL) | phase::RUNNING;
        self.word.store(word, Ordering::Release);
        Running { timer: self, word }
    }

    /// Whether the time of the running call is over.
    pub(super) fn expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// Does work of the host that the script is not charged for, such as reading a data file.
    pub(super) fn uncharged<R>(&self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        self.is_paused.store(true, Ordering::Release);
        let result = work();
        let spent = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.uncharged.fetch_add(spent, Ordering::Relaxed);
        self.is_paused.store(false, Ordering::Release);
        result
    }

    fn look(&self, now: Instant) {
        let word = self.word.load(Ordering::Acquire);
        if word & phase::MASK != phase::RUNNING {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, since)) = seen.filter(|(last, _)| *last == word) else {
            *seen = Some((word, now));
            return;
        };
        if self.is_paused.load(Ordering::Acquire) {
            return;
        }
        let allowed = self.budget.load(Ordering::Relaxed).saturating_add(self.uncharged.load(Ordering::Relaxed));
        if now.saturating_duration_since(since) < Duration::from_nanos(allowed) {
            return;
        }
        // A call that has just ended, or another that has begun, is never armed.
        let arming = word & !phase::MASK | phase::ARMING;
        if self.word.compare_exchange(word, arming, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.expired.store(true, Ordering::Relaxed);
            if let Some(interrupt) = &self.interrupt {
                interrupt.arm();
            }
            self.word.store(word & !phase::MASK | phase::ARMED, Ordering::Release);
        }
    }
}

/// A call under a time budget.
pub(super) struct Running<'a> {
    timer: &'a Timer,
    word: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let timer = self.timer;
        let idle = self.word & !phase::MASK | phase::IDLE;
        if timer.word.compare_exchange(self.word, idle, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return;
        }
        // The watchdog was faster: let it finish, then undo what it did.
        while timer.word.load(Ordering::Acquire) & phase::MASK == phase::ARMING {
            std::hint::spin_loop();
        }
        if let Some(interrupt) = &timer.interrupt {
            interrupt.disarm();
        }
        timer.word.store(idle, Ordering::Release);
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
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(running);
        let running = timer.start(Duration::from_secs(60));
        assert!(!timer.expired());
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
