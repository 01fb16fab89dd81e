//! Places that file systems share: none may take more than it leaves free.
//!
//! So one file system alone has half of the places, two that want all of them a third each, and there is always one left for
//! another: a metadata engine that hangs, or a flood of calls, holds up nobody else (decisions/0028).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The places, and who has how many of them.
#[derive(Debug)]
pub(crate) struct Places<K> {
    most: usize,
    taken: Mutex<HashMap<K, usize>>,
    freed: Notify,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Eq + Hash> {
    who: K,
    of: Arc<Places<K>>,
}

impl<K: Clone + Eq + Hash> Places<K> {
    pub(crate) fn new(most: usize) -> Arc<Places<K>> {
        Arc::new(Places { most, taken: Mutex::default(), freed: Notify::new() })
    }

    /// A place, unless it would be more than are left free.
    pub(crate) fn try_take(self: &Arc<Self>, who: &K) -> Option<Place<K>> {
        let mut taken = self.taken();
        let free = self.most.saturating_sub(taken.values().sum());
        let own = taken.get(who).copied().unwrap_or_default();
        if own >= free {
            return None;
        }
        taken.insert(who.clone(), own + 1);
        Some(Place { who: who.clone(), of: self.clone() })
    }

    /// How many it has.
    pub(crate) fn taken_by(&self, who: &K) -> usize {
        self.taken().get(who).copied().unwrap_or_default()
    }

    /// A place, as soon as there is one. It is the caller's to bound the wait.
    pub(crate) async fn take(self: &Arc<Self>, who: &K) -> Place<K> {
        loop {
            // Before it is looked: what is freed meanwhile counts.
            let freed = self.freed.notified();
            if let Some(place) = self.try_take(who) {
                return place;
            }
            freed.await;
        }
    }
}

impl<K> Places<K> {
    /// A panic elsewhere leaves the counts as good as they were: each change is one operation.
    fn taken(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        match taken.get_mut(&self.who) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                taken.remove(&self.who);
            }
        }
        drop(taken);
        self.of.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(places: &Arc<Places<&'static str>>, who: &'static str) -> Vec<Place<&'static str>> {
        std::iter::from_fn(|| places.try_take(&who)).collect()
    }

    #[track_caller]
    fn check(most: usize, shares: &[usize]) {
        let places = Places::new(most);
        let names = ["a", "b", "c", "d", "e", "f"];
        let taken: Vec<_> = names.into_iter().take(shares.len()).map(|who| take_all(&places, who)).collect();
        assert_eq!(taken.iter().map(Vec::len).collect::<Vec<_>>(), shares, "of {most}");
    }

    #[test]
    fn each_takes_as_much_as_it_leaves_and_there_is_one_for_the_next() {
        check(1, &[1, 0]);
        check(2, &[1, 1, 0]);
        check(8, &[4, 2, 1, 1, 0]);
        check(256, &[128, 64, 32, 16, 8, 4]);
    }

    #[test]
    fn what_is_given_back_is_free_for_others() {
        let places = Places::new(8);
        let first = take_all(&places, "a");
        let second = take_all(&places, "b");
        drop(first);
        assert_eq!((take_all(&places, "c").len(), second.len()), (3, 2));
        drop(second);
        assert!(places.taken().is_empty(), "nobody is remembered");
    }

    #[tokio::test]
    async fn who_waits_is_told_when_there_is_room() {
        let places = Places::new(2);
        let first = places.try_take(&"a").expect("there is room");
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.take(&"a").await }
        });
        let other = places.take(&"b").await;
        drop(first);
        waiting.await.expect("no panic");
        drop(other);
    }
}
