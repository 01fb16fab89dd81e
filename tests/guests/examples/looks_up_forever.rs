//! Looks the same thing up in a loop. Uses up its look-ups, in every hook.

use pith_guests::granted::pith::policy::namespaces;

pith_guests::guest!({
    loop {
        std::hint::black_box(namespaces::get("shop"));
    }
});
