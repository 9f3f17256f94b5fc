//! A random stream lent to a script for one call. Both languages wrap it as their `rng`.

use std::sync::{Arc, Mutex, PoisonError};

use crate::seed::Stream;

/// What a script is told when it draws after the call.
pub(super) const OVER: &str = "this `rng` belongs to a call that is over; use the one of this call";

/// A stream that can be drawn from until it is given back; the clones share it.
#[derive(Clone)]
pub(super) struct Loan {
    stream: Arc<Mutex<Option<Stream>>>,
}

impl Loan {
    /// Lends a copy of the stream.
    pub(super) fn new(stream: &Stream) -> Self {
        Self { stream: Arc::new(Mutex::new(Some(stream.clone()))) }
    }

    /// Ends the loan: the stream continues where the script stopped.
    pub(super) fn give_back(self, stream: &mut Stream) {
        if let Some(used) = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take() {
            *stream = used;
        }
    }

    /// Draws, or gives `None` after the call.
    pub(super) fn draw<R>(&self, draw: impl FnOnce(&mut Stream) -> R) -> Option<R> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(draw)
    }
}
