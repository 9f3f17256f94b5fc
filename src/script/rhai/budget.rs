//! What a call may hold: memory, where allocations are counted, and nesting, which would overflow the thread's stack when
//! the values are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU8, AtomicU32, AtomicU64, Ordering};

use ::rhai::{Array, Dynamic, FnPtr, Map, Scope};

use crate::script::{Limits, memory};

/// Deepest nesting of values, closures in closures included.
const MAX_NESTING: usize = 500;
/// Accesses of variables between two looks at the nesting; it may grow by one an access.
const LONGEST_PAUSE: u32 = 1000;
/// Values that one look visits.
const MAX_VISITED: usize = 50_000;
/// Times that a call which is over is asked to stop before it is ended wherever it is. It stops where it next reads a
/// variable, which tells the place; being ended does not.
const PATIENCE: u32 = 4;

/// What a call used too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// More memory than the limits allow. Seen only where [`crate::script::CountingAllocator`] is installed.
    Memory = 1,
    /// Values nested deeper than can be dropped.
    Nesting = 2,
    /// Memory that earlier calls have left behind and nothing frees.
    LeftBehind = 3,
}

/// The budget of the calls of one engine. An excess is remembered until the next call, so that a script which mends it in
/// time is ended nevertheless.
#[derive(Clone)]
pub(super) struct Budget(Arc<Parts>);

struct Parts {
    bytes: isize,
    /// What the thread held when the call began.
    start: AtomicIsize,
    /// An [`Excess`], or 0.
    excess: AtomicU8,
    /// Accesses until the next look.
    pause: AtomicU32,
    /// Makes the pauses uneven, so that no loop keeps step with them.
    spread: AtomicU32,
    /// How often a call that is over was asked to stop; 0 while it is not over.
    asked: AtomicU32,
    /// Whether accesses are counted, to find the last one before an error.
    counts: AtomicBool,
    accesses: AtomicU64,
    /// The access at which the call stops.
    last: AtomicU64,
}

impl Budget {
    pub(super) fn new(limits: &Limits) -> Self {
        let bytes = isize::try_from(limits.memory_bytes).unwrap_or(isize::MAX);
        Self(Arc::new(Parts {
            bytes,
            start: AtomicIsize::new(0),
            excess: AtomicU8::new(0),
            pause: AtomicU32::new(LONGEST_PAUSE),
            spread: AtomicU32::new(1),
            asked: AtomicU32::new(0),
            counts: AtomicBool::new(false),
            accesses: AtomicU64::new(0),
            last: AtomicU64::new(u64::MAX),
        }))
    }

    /// Starts the budget of a call on this thread.
    pub(super) fn start(&self) {
        self.0.start.store(memory::held(), Ordering::Relaxed);
        self.0.excess.store(0, Ordering::Relaxed);
        self.0.asked.store(0, Ordering::Relaxed);
    }

    /// Asks a call that is over to stop at the next variable; true if it has been asked often enough.
    pub(super) fn is_patience_over(&self) -> bool {
        self.0.pause.store(0, Ordering::Relaxed);
        self.0.asked.fetch_add(1, Ordering::Relaxed) >= PATIENCE
    }

    /// Counts the accesses of variables in the calls that follow.
    pub(super) fn count(&self) {
        self.0.counts.store(true, Ordering::Relaxed);
        self.0.last.store(u64::MAX, Ordering::Relaxed);
        self.restart();
    }

    /// Stops the call that follows at the last access that was counted.
    pub(super) fn stop_at_last(&self) {
        self.0.last.store(self.0.accesses.load(Ordering::Relaxed), Ordering::Relaxed);
        self.restart();
    }

    /// Counts no more.
    pub(super) fn count_no_more(&self) {
        self.0.counts.store(false, Ordering::Relaxed);
    }

    /// Whether a call is made again only to find a place.
    pub(super) fn is_counting(&self) -> bool {
        self.0.counts.load(Ordering::Relaxed)
    }

    fn restart(&self) {
        self.0.accesses.store(0, Ordering::Relaxed);
        self.0.pause.store(0, Ordering::Relaxed);
    }

    /// What the call has used too much of at any time that was asked.
    pub(super) fn exceeded(&self) -> Option<Excess> {
        let held = memory::held().wrapping_sub(self.0.start.load(Ordering::Relaxed));
        if held > self.0.bytes {
            self.0.excess.store(Excess::Memory as u8, Ordering::Relaxed);
        }
        match self.0.excess.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Excess::Memory),
            _ => Some(Excess::Nesting),
        }
    }

    /// Called at each access of a variable; now and then looks how deep the values in scope are nested. True if the call has
    /// to stop here.
    ///
    /// Rhai bounds arrays and maps but not closures that hold closures, which a loop can nest as often as it runs; and
    /// only a variable can be captured, so whoever nests comes by here with the nest in scope.
    #[inline]
    pub(super) fn look(&self, scope: &Scope<'_>) -> bool {
        // One thread runs an engine at a time, so the separate load and store lose nothing.
        let pause = self.0.pause.load(Ordering::Relaxed);
        if pause > 0 {
            self.0.pause.store(pause - 1, Ordering::Relaxed);
            return false;
        }
        self.look_closely(scope)
    }

    #[cold]
    fn look_closely(&self, scope: &Scope<'_>) -> bool {
        if self.0.asked.load(Ordering::Relaxed) > 0 {
            return true;
        }
        if self.is_counting() {
            let access = self.0.accesses.fetch_add(1, Ordering::Relaxed) + 1;
            return access == self.0.last.load(Ordering::Relaxed);
        }
        let spread = self.0.spread.load(Ordering::Relaxed).wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0.spread.store(spread, Ordering::Relaxed);
        self.0.pause.store((spread >> 8) % LONGEST_PAUSE, Ordering::Relaxed);
        let mut visits = MAX_VISITED;
        let is_deep = scope.iter_raw().any(|(_, _, value)| is_deep(value, MAX_NESTING, &mut visits));
        if is_deep {
            self.0.excess.store(Excess::Nesting as u8, Ordering::Relaxed);
        }
        is_deep
    }
}

/// Whether the value is nested deeper than `room`, as far as the visits last.
fn is_deep(value: &Dynamic, room: usize, visits: &mut usize) -> bool {
    if room == 0 {
        return true;
    }
    if *visits == 0 {
        return false;
    }
    *visits -= 1;
    if value.is_shared() {
        // A value that is in use elsewhere is seen the next time.
        value.read_lock::<Dynamic>().is_some_and(|inner| is_deep(&inner, room - 1, visits))
    } else if let Some(pointer) = value.read_lock::<FnPtr>() {
        pointer.curry().iter().any(|value| is_deep(value, room - 1, visits))
    } else if let Some(items) = value.read_lock::<Array>() {
        items.iter().any(|value| is_deep(value, room - 1, visits))
    } else if let Some(fields) = value.read_lock::<Map>() {
        fields.values().any(|value| is_deep(value, room - 1, visits))
    } else {
        false
    }
}
