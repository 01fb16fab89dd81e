//! How long it is waited before something is tried again.

use std::time::{Duration, Instant};

/// The pause after a failure, which doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest: what is known is as old as this when the API server is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A failure after this long begins with the first pause again.
const CALM: Duration = Duration::from_secs(60);

/// The pauses between things that are tried again and again. It begins with none behind it.
#[derive(Debug, Default)]
pub(crate) struct Pauses(Option<(Instant, Duration)>);

impl Pauses {
    /// How long the pause is that begins now.
    pub(crate) fn next(&mut self, now: Instant) -> Duration {
        let pause = pause_after(self.0, now);
        self.0 = Some((now + pause, pause));
        pause
    }
}

/// The pause after a failure at this moment, by when the pause after the one before ended and how long it was.
fn pause_after(last: Option<(Instant, Duration)>, now: Instant) -> Duration {
    match last {
        Some((ended, pause)) if now.saturating_duration_since(ended) < CALM => (pause * 2).min(LONGEST_PAUSE),
        _ => FIRST_PAUSE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_failure_to_failure_and_not_for_ever() {
        let now = Instant::now();
        let after = |ago: u64, pause: u64| {
            let last = now.checked_sub(Duration::from_secs(ago)).map(|ended| (ended, Duration::from_millis(pause)));
            pause_after(last, now).as_millis()
        };
        assert_eq!(pause_after(None, now), FIRST_PAUSE);
        assert_eq!([after(0, 500), after(2, 4_000), after(2, 8_000), after(5, 10_000)], [1_000, 8_000, 10_000, 10_000]);
        assert_eq!(after(61, 10_000), 500);
    }
}
