//! Threads that run scripts and may be given up: a call that does not end within twice its budget, because it stays
//! inside one operation where it cannot be stopped, keeps its thread for itself; its item is lost and all others go on.
//!
//! Calls run right on these threads, so that one costs no more than elsewhere. What makes it sound to go on while a thread
//! still stands inside a call is that it never comes back: from the start of a call to its end a thread touches only what
//! it owns (its virtual machine, and what that holds), and at the end it stops for ever if it was given up
//! ([`super::watchdog`]).

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::STACK_BYTES;

/// Does `work` on every item, on as many threads as rayon uses here, and returns the items that were lost: the script of
/// each could not be stopped. A lost item is whole, but `work` has stopped in the middle of it.
///
/// # Panics
/// If `work` does; the items that were not begun are then left as they are.
pub fn for_each_abandonable<'a, T: Send>(items: Vec<&'a mut T>, work: impl Fn(&mut T) + Sync) -> Vec<&'a mut T> {
    if items.is_empty() {
        return Vec::new();
    }
    let threads = rayon::current_num_threads().min(items.len());
    let count = items.len();
    let places: Vec<Mutex<Option<&'a mut T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
    // Each place is handed out once; the reference stays in it, so that a lost item can be returned.
    let on_place = |index: usize| {
        let item = {
            let mut place = lock(&places[index]);
            place.as_deref_mut().map(std::ptr::from_mut::<T>)
        };
        if let Some(item) = item {
            #[expect(
                unsafe_code,
                reason = "an item that is given up is used again while a stopped thread still borrows it"
            )]
            // SAFETY: the item is borrowed for this function's whole run and every index is handed out once, so nobody
            // else uses it until `work` ends or never goes on.
            work(unsafe { &mut *item });
        }
    };
    let lost = run(count, threads, &on_place);
    let mut places = places;
    lost.into_iter()
        .filter_map(|index| places[index].get_mut().unwrap_or_else(PoisonError::into_inner).take())
        .collect()
}

/// What `work` gives, done on a thread that may be given up; `None` if a script that it called could not be stopped. On
/// such a thread it is done right there: whoever handed that thread its item is told of the loss.
///
/// # Panics
/// If `work` does.
pub fn abandonable<R: Send>(work: impl FnOnce() -> R + Send) -> Option<R> {
    if Worker::is_current() {
        return Some(work());
    }
    let mut item = (Some(work), None);
    // A thread that is given up has taken the closure with it, and never comes back to write the result.
    let lost = for_each_abandonable(vec![&mut item], |(work, result)| *result = work.take().map(|work| work()));
    if lost.is_empty() { item.1 } else { None }
}

/// The work of one [`run`], told to the threads.
struct Batch {
    count: usize,
    /// The caller's closure. Valid until the caller has seen `active` at 0, and not used by a thread that is given up.
    work: Erased,
    state: Mutex<State>,
    changed: Condvar,
}

/// A borrowed closure as a plain pointer.
#[derive(Clone, Copy)]
struct Erased(*const (dyn Fn(usize) + Sync + 'static));

#[expect(unsafe_code, reason = "a pointer to a closure that several threads may call")]
// SAFETY: the closure is `Sync`, and `run` keeps it alive while threads may call it.
unsafe impl Send for Erased {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl Sync for Erased {}

#[derive(Default)]
struct State {
    next: usize,
    /// Threads at work, less those that were given up.
    active: usize,
    lost: Vec<usize>,
    panic: Option<Box<dyn Any + Send>>,
}

/// Calls `work` with every index below `count` and returns those that were lost.
fn run(count: usize, threads: usize, work: &(dyn Fn(usize) + Sync)) -> Vec<usize> {
    #[expect(unsafe_code, reason = "threads that outlive this call cannot borrow from it in a way that Rust can check")]
    // SAFETY: only the lifetime changes. The loop below ends when no thread is active any more, and an active thread is
    // one that may call the closure.
    let work = Erased(unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work) });
    let batch = Arc::new(Batch { count, work, state: Mutex::default(), changed: Condvar::new() });
    let mut wanted = threads;
    let mut state = lock(&batch.state);
    loop {
        // At first all threads; later one for each that was given up, while there is work.
        while wanted > 0 && state.next < count {
            state.active += 1;
            drop(state);
            if !Worker::idle_or_new().is_some_and(|worker| worker.begin(&batch)) {
                // No thread can be had: the work is done here, where it cannot be given up.
                batch.work_off(None);
            }
            state = lock(&batch.state);
            wanted -= 1;
        }
        if state.active == 0 && state.next >= count {
            break;
        }
        let lost = state.lost.len();
        state = batch.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        wanted += state.lost.len() - lost;
    }
    if let Some(panic) = state.panic.take() {
        drop(state);
        resume_unwind(panic);
    }
    std::mem::take(&mut state.lost)
}

impl Batch {
    /// Takes index after index until none is left.
    fn work_off(self: &Arc<Self>, worker: Option<&Worker>) {
        loop {
            let index = {
                let mut state = lock(&self.state);
                if state.next >= self.count || state.panic.is_some() {
                    state.next = self.count;
                    if let Some(worker) = worker {
                        worker.rest();
                    }
                    state.active -= 1;
                    self.changed.notify_all();
                    return;
                }
                state.next += 1;
                state.next - 1
            };
            if let Some(worker) = worker {
                *lock(&worker.task) = Some((Arc::clone(self), index));
            }
            #[expect(unsafe_code, reason = "the closure is borrowed by `run`")]
            // SAFETY: this thread is active, so `run` waits and the closure lives.
            let work = unsafe { &*self.work.0 };
            let result = catch_unwind(AssertUnwindSafe(|| work(index)));
            if let Some(worker) = worker {
                *lock(&worker.task) = None;
            }
            if let Err(panic) = result {
                lock(&self.state).panic.get_or_insert(panic);
            }
        }
    }
}

/// A thread that may be given up.
pub(super) struct Worker {
    batches: Sender<Arc<Batch>>,
    /// What it works on.
    task: Mutex<Option<(Arc<Batch>, usize)>>,
    /// For the list of those that rest.
    own: std::sync::Weak<Self>,
}

/// Threads without work.
static RESTING: Mutex<Vec<Arc<Worker>>> = Mutex::new(Vec::new());

thread_local! {
    static CURRENT: RefCell<Option<Arc<Worker>>> = const { RefCell::new(None) };
}

impl Worker {
    /// The worker that this thread is, if it is one.
    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Whether this thread is a worker.
    fn is_current() -> bool {
        CURRENT.with_borrow(Option::is_some)
    }

    /// A thread that rests, the one that rested last, or a new one.
    fn idle_or_new() -> Option<Arc<Self>> {
        if let Some(worker) = lock(&RESTING).pop() {
            return Some(worker);
        }
        let (batches, given) = channel::<Arc<Batch>>();
        let worker = Arc::new_cyclic(|own| Self { batches, task: Mutex::default(), own: own.clone() });
        let own = Arc::clone(&worker);
        let thread = std::thread::Builder::new().name("scripts".to_owned()).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || {
            CURRENT.set(Some(Arc::clone(&own)));
            while let Ok(batch) = given.recv() {
                batch.work_off(Some(&own));
            }
        });
        spawned.ok().map(|_| worker)
    }

    fn begin(&self, batch: &Arc<Batch>) -> bool {
        self.batches.send(Arc::clone(batch)).is_ok()
    }

    fn rest(&self) {
        lock(&RESTING).extend(self.own.upgrade());
    }

    /// Goes on without this thread: its item is lost. Called by the watchdog while a call of the thread runs.
    pub(super) fn give_up(&self) {
        if let Some((batch, index)) = lock(&self.task).take() {
            let mut state = lock(&batch.state);
            state.lost.push(index);
            state.active -= 1;
            batch.changed.notify_all();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::script::watchdog::Timer;

    #[test]
    fn all_items_are_worked_on_once() {
        for count in [0, 1, 2, 7, 1000] {
            let mut items = vec![0_usize; count];
            let lost = for_each_abandonable(items.iter_mut().collect(), |item| *item += 1);
            assert!(lost.is_empty());
            assert_eq!(items, vec![1; count]);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_threads_work_on() {
        let mut items = vec![0, 1, 2, 3];
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            for_each_abandonable(items.iter_mut().collect(), |item| assert!(*item != 2, "two"));
        }));
        assert!(panicked.is_err());
        assert!(for_each_abandonable(items.iter_mut().collect(), |item| *item = 9).is_empty());
        assert_eq!(items, [9; 4]);
    }

    /// Where the work borrows, the thread that is given up has to be done with what it borrowed.
    #[test]
    fn one_piece_of_work_gives_its_result_or_is_lost() {
        let text = String::from("borrowed");
        assert_eq!(abandonable(|| text.len()), Some(8));
        let inner = abandonable(|| (std::thread::current().id(), abandonable(|| std::thread::current().id())));
        let (outer, inner) = inner.expect("done");
        assert_eq!(Some(outer), inner, "a thread that may be given up works itself");
        assert_ne!(outer, std::thread::current().id());
        let start = Instant::now();
        let lost = abandonable(|| {
            let timer = Timer::new(None).expect("a watchdog");
            let running = timer.start(Duration::from_millis(20));
            std::thread::sleep(Duration::from_secs(600));
            drop(running);
        });
        assert_eq!(lost, None);
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    }

    /// A call that cannot be stopped costs its item and its thread; every other item is done, by new threads if need be.
    #[test]
    fn a_call_that_cannot_be_stopped_is_given_up() {
        let mut items: Vec<(usize, bool)> = (0..40).map(|number| (number, false)).collect();
        let calls = AtomicUsize::new(0);
        let start = Instant::now();
        let lost = for_each_abandonable(items.iter_mut().collect(), |(number, is_done)| {
            let timer = Timer::new(None).expect("a watchdog");
            let running = timer.start(Duration::from_millis(20));
            if *number % 10 == 3 {
                std::thread::sleep(Duration::from_secs(600));
            }
            drop(running);
            calls.fetch_add(1, Ordering::Relaxed);
            *is_done = true;
        });
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
        let mut numbers: Vec<usize> = lost.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [3, 13, 23, 33]);
        assert!(items.iter().all(|(number, is_done)| *is_done == (number % 10 != 3)));
        assert_eq!(calls.load(Ordering::Relaxed), 36);
    }
}
