//! What a script keeps from one call to the next: nothing. A closure shares the variables that it captures with the top
//! level, and may change them; after each call they get back the values that the top level left them with.
//!
//! Everything else of the top level is handed out as copies.

use std::collections::BTreeSet;

use ::rhai::{Array, Dynamic, FnPtr, Map};

/// The variables that closures share with the top level, each with the value that the top level left it with.
#[derive(Default)]
pub(super) struct Captured(Vec<(Dynamic, Dynamic)>);

impl Captured {
    /// All that can be reached from these values.
    pub(super) fn by<'a>(values: impl IntoIterator<Item = &'a Dynamic>) -> Self {
        let (mut captured, mut seen) = (Vec::new(), BTreeSet::new());
        let mut found: Vec<Dynamic> = values.into_iter().cloned().collect();
        while let Some(value) = found.pop() {
            if value.is_shared() {
                // The place of the shared value tells it from others.
                let Some(inner) = value.read_lock::<Dynamic>() else { continue };
                if seen.insert(std::ptr::from_ref(&*inner).addr()) {
                    let left = inner.clone();
                    drop(inner);
                    found.push(left.clone());
                    captured.push((value, left));
                }
            } else if let Some(pointer) = value.read_lock::<FnPtr>() {
                found.extend(pointer.iter_curry().cloned());
            } else if let Some(items) = value.read_lock::<Array>() {
                found.extend(items.iter().filter(|item| may_hold(item)).cloned());
            } else if let Some(fields) = value.read_lock::<Map>() {
                found.extend(fields.values().filter(|field| may_hold(field)).cloned());
            }
        }
        Self(captured)
    }

    /// Gives the variables back what the top level left.
    pub(super) fn restore(&mut self) {
        for (variable, left) in &mut self.0 {
            let changed =
                variable.write_lock::<Dynamic>().map(|mut inner| std::mem::replace(&mut *inner, left.clone()));
            // Not while the variable is locked: what it held may hold the variable.
            drop(changed);
        }
    }
}

/// Whether the value may hold a shared one; most data does not.
fn may_hold(value: &Dynamic) -> bool {
    value.is_shared() || value.is_fnptr() || value.is_array() || value.is_map()
}
