//! When the certificate that all replicas share is renewed, and in which steps.
//!
//! A client must trust the next certificate before it is served, and the one before it for as long as a replica may serve it.
//! So the next CA is announced first, then the certificates are swapped, and then the old CA is forgotten. What a step writes is
//! made by the host; nothing but the times and facts that it depends upon is known here.

use std::time::{Duration, SystemTime};

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub starts: SystemTime,
    /// The last.
    pub ends: SystemTime,
}

/// What the replicas share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or nothing that can be served.
    Nothing,
    /// A certificate that can be served.
    Stored(Stored),
}

/// A certificate that can be served, and what a renewal left beside it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The certificate that is served.
    pub serving: Validity,
    /// Whether it is for every name that is wanted.
    pub has_names: bool,
    /// The one that comes after it, whose CA is announced.
    pub next: Option<Validity>,
    /// Whether clients are told of a CA that neither of the two needs.
    pub old_authority: bool,
    /// Whether somebody asked for a renewal.
    pub asked: bool,
}

/// What a replica knows of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Now.
    pub now: SystemTime,
    /// Since when it sees what is shared as it is.
    pub unchanged_since: SystemTime,
    /// Since when it sees that clients trust the CA of the next certificate.
    pub trusted_since: Option<SystemTime>,
    /// How long every client and replica may take to hear of a change.
    pub overlap: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this moment; nothing by itself where there is none.
    Wait(Option<SystemTime>),
    /// Write what this replica serves, which is still good.
    Restore,
    /// Make a first certificate.
    Make,
    /// Make the next certificate and announce its CA.
    Announce,
    /// Serve the next certificate.
    Swap,
    /// Tell clients of no other CA than that of the certificate that is served.
    Forget,
}

impl Validity {
    /// When the next certificate is made: with a third of the time left, which is long enough for somebody to see that it failed.
    fn renewal(&self) -> SystemTime {
        self.ends - self.ends.duration_since(self.starts).unwrap_or_default() / 3
    }

    fn ended(&self, now: SystemTime) -> bool {
        self.ends <= now
    }
}

/// The next step of whichever replica comes first. `kept` is what this one serves.
pub fn next_step(found: &Found, kept: Option<Validity>, times: &Times) -> Step {
    let now = times.now;
    let next = |it: &Stored| it.next.filter(|next| !next.ended(now));
    let stored = match found {
        Found::Stored(it) if !it.serving.ended(now) || next(it).is_some() => it,
        _ if kept.is_some_and(|kept| !kept.ended(now)) => return Step::Restore,
        _ => return Step::Make,
    };
    match next(stored) {
        // Whoever does not trust the next one trusts nothing now.
        Some(_) if stored.serving.ended(now) => Step::Swap,
        Some(_) => {
            let trusted = times.trusted_since.map_or(stored.serving.ends, |since| since + times.overlap);
            at(trusted.min(stored.serving.ends), now, Step::Swap)
        }
        None if stored.next.is_some() => Step::Announce,
        None if stored.old_authority => at(times.unchanged_since + times.overlap, now, Step::Forget),
        None if stored.asked || !stored.has_names => Step::Announce,
        None => at(stored.serving.renewal(), now, Step::Announce),
    }
}

fn at(moment: SystemTime, now: SystemTime, step: Step) -> Step {
    if moment <= now { step } else { Step::Wait(Some(moment)) }
}

#[cfg(test)]
mod tests;
