//! Tables of what is done when.

use super::*;

const OVERLAP: u64 = 60;

/// Seconds after some beginning.
fn second(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn valid(starts: u64, ends: u64) -> Validity {
    Validity { starts: second(starts), ends: second(ends) }
}

/// A certificate of 900 s and nothing beside it.
fn alone() -> Stored {
    Stored { serving: valid(0, 900), has_names: true, next: None, old_authority: false, asked: false }
}

fn announced() -> Stored {
    Stored { next: Some(valid(600, 1500)), ..alone() }
}

fn swapped() -> Stored {
    Stored { serving: valid(600, 1500), old_authority: true, ..alone() }
}

fn wait(until: u64) -> Step {
    Step::Wait(Some(second(until)))
}

#[track_caller]
fn check(found: Found, kept: Option<Validity>, now: u64, since: u64, trusted: Option<u64>, expected: Step) {
    let times = Times {
        now: second(now),
        unchanged_since: second(since),
        trusted_since: trusted.map(second),
        overlap: Duration::from_secs(OVERLAP),
    };
    assert_eq!(next_step(&found, kept, &times), expected, "{found:?} at {now}");
}

#[test]
fn a_certificate_is_made_where_there_is_none_and_restored_where_one_is_known() {
    for found in [Found::Nothing, Found::Stored(Stored { serving: valid(0, 10), ..alone() })] {
        check(found, None, 100, 100, None, Step::Make);
        check(found, Some(valid(0, 900)), 100, 100, None, Step::Restore);
        check(found, Some(valid(0, 100)), 100, 100, None, Step::Make);
    }
}

#[test]
fn it_is_renewed_when_a_third_of_its_time_is_left_or_when_somebody_wants_it() {
    for (now, stored, step) in [
        (0, alone(), wait(600)),
        (599, alone(), wait(600)),
        (600, alone(), Step::Announce),
        (899, alone(), Step::Announce),
        (10, Stored { asked: true, ..alone() }, Step::Announce),
        (10, Stored { has_names: false, ..alone() }, Step::Announce),
    ] {
        check(Found::Stored(stored), Some(stored.serving), now, 0, None, step);
    }
}

#[test]
fn the_next_one_is_served_once_clients_have_trusted_it_for_long_enough() {
    for (now, trusted, step) in [
        (600, None, wait(900)),
        (899, None, wait(900)),
        (610, Some(605), wait(665)),
        (664, Some(605), wait(665)),
        (665, Some(605), Step::Swap),
        // Nobody is left who could trust the one that is served.
        (870, Some(860), wait(900)),
        (900, None, Step::Swap),
        // Everybody was away for too long.
        (1500, Some(605), Step::Make),
    ] {
        check(Found::Stored(announced()), None, now, 600, trusted, step);
    }
    let late = Stored { next: Some(valid(0, 300)), ..alone() };
    check(Found::Stored(late), None, 300, 0, Some(0), Step::Announce);
}

#[test]
fn the_old_authority_is_forgotten_once_every_replica_serves_the_new_certificate() {
    for (now, step) in [(665, wait(725)), (724, wait(725)), (725, Step::Forget)] {
        check(Found::Stored(swapped()), None, now, 665, None, step);
    }
    // Whatever is wanted meanwhile waits for that: there are never three.
    let asked = Stored { asked: true, has_names: false, ..swapped() };
    check(Found::Stored(asked), None, 700, 665, None, wait(725));
}

#[test]
fn steps_lead_back_to_the_beginning_whoever_makes_them() {
    let (mut found, mut kept) = (Found::Nothing, None);
    let (mut since, mut steps) = (0, Vec::new());
    for now in 0..2000 {
        let times = Times {
            now: second(now),
            unchanged_since: second(since),
            trusted_since: Some(second(since + 5)),
            overlap: Duration::from_secs(OVERLAP),
        };
        let step = next_step(&found, kept, &times);
        let stored = match (step, found) {
            (Step::Wait(_), _) => continue,
            (Step::Make, Found::Nothing) => Stored { serving: valid(now, now + 900), ..alone() },
            (Step::Announce, Found::Stored(it)) => Stored { next: Some(valid(now, now + 900)), ..it },
            (Step::Swap, Found::Stored(it)) => {
                Stored { serving: it.next.expect("there is one"), next: None, old_authority: true, ..it }
            }
            (Step::Forget, Found::Stored(it)) => Stored { old_authority: false, ..it },
            unexpected => panic!("{unexpected:?} at {now}"),
        };
        steps.push((now, step));
        (found, kept, since) = (Found::Stored(stored), Some(stored.serving), now);
    }
    let expected = [
        (0, Step::Make),
        (600, Step::Announce),
        (665, Step::Swap),
        (725, Step::Forget),
        (1200, Step::Announce),
        (1265, Step::Swap),
        (1325, Step::Forget),
        (1800, Step::Announce),
        (1865, Step::Swap),
        (1925, Step::Forget),
    ];
    assert_eq!(steps, expected);
}
