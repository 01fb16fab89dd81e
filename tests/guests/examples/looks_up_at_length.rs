//! Looks up names of a hundred thousand bytes in a loop. Uses up its look-ups, and nothing keeps the names.

use pith_guests::granted::pith::policy::claims;

pith_guests::guest!({
    let name = "x".repeat(100_000);
    loop {
        std::hint::black_box(claims::get("shop", &name));
    }
});
