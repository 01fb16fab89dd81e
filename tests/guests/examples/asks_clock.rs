//! Asks what time it is, twice, and says what it got. Is loaded only where `clock` is granted.

use pith_guests::granted::pith::policy::clock;

pith_guests::guest!({
    let first = clock::now();
    (0..1_000_000).for_each(|number| {
        std::hint::black_box(number);
    });
    pith_guests::says(format!("{first} {}", clock::now() - first))
});
