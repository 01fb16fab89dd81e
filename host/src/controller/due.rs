//! What is to be done, one after the other: a watch adds to it while somebody does it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// What is to be done, each thing once.
#[derive(Debug)]
pub(super) struct Due<T> {
    things: Mutex<BTreeSet<T>>,
    changed: Notify,
}

impl<T: Ord + Clone> Due<T> {
    pub(super) fn new() -> Due<T> {
        Due { things: Mutex::default(), changed: Notify::new() }
    }

    pub(super) fn add(&self, thing: T) {
        self.with(|things| things.insert(thing));
        self.changed.notify_one();
    }

    /// The first thing, as soon as there is one. It stays until it is done.
    pub(super) async fn first(&self) -> T {
        loop {
            if let Some(thing) = self.with(|things| things.first().cloned()) {
                return thing;
            }
            self.changed.notified().await;
        }
    }

    pub(super) fn done(&self, thing: &T) {
        self.with(|things| things.remove(thing));
    }

    fn with<A>(&self, change: impl FnOnce(&mut BTreeSet<T>) -> A) -> A {
        change(&mut self.things.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
