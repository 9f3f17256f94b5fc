//! The time budget of calls: one thread a process looks at all running calls and marks those whose time is over.
//!
//! A running call pays one atomic load at most where it asks ([`Timer::expired`], Rhai) and nothing where the thread
//! reaches into the virtual machine itself ([`Interrupt`], Luau).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
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
pub(super) struct Timer {
    deadline: Mutex<Option<Instant>>,
    expired: AtomicBool,
    interrupt: Option<Box<dyn Interrupt>>,
}

impl Timer {
    /// A timer that the process's watchdog looks after; `interrupt` is told when the time is over.
    ///
    /// # Errors
    /// The operating system's, if the watchdog thread cannot start.
    pub(super) fn new(interrupt: Option<Box<dyn Interrupt>>) -> std::io::Result<Arc<Self>> {
        let timer = Arc::new(Self { deadline: Mutex::default(), expired: AtomicBool::new(false), interrupt });
        Watchdog::get()?.watch(&timer);
        Ok(timer)
    }

    /// Starts the budget of a call, which ends when the guard is dropped.
    pub(super) fn start(&self, budget: Duration) -> Running<'_> {
        let mut deadline = self.lock();
        self.expired.store(false, Ordering::Relaxed);
        *deadline = Instant::now().checked_add(budget);
        Running { timer: self }
    }

    /// Whether the time of the running call is over.
    pub(super) fn expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// Does work of the host that the script is not charged for, such as reading a data file.
    pub(super) fn uncharged<R>(&self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let stopped = self.lock().take();
        let result = work();
        if let Some(deadline) = stopped {
            *self.lock() = deadline.checked_add(start.elapsed());
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, now: Instant) {
        // The lock is held while arming, so that a call that just ended is never armed.
        let mut deadline = self.lock();
        if deadline.is_some_and(|deadline| now >= deadline) {
            *deadline = None;
            self.expired.store(true, Ordering::Relaxed);
            if let Some(interrupt) = &self.interrupt {
                interrupt.arm();
            }
        }
    }
}

/// A call under a time budget.
pub(super) struct Running<'a> {
    timer: &'a Timer,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut deadline = self.timer.lock();
        *deadline = None;
        if let Some(interrupt) = &self.timer.interrupt {
            interrupt.disarm();
        }
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
