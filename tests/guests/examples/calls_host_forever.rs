//! Asks for the raw object in a loop. Uses up its host calls, in every hook.

use pith_guests::pith::policy::object;

pith_guests::guest!({
    loop {
        std::hint::black_box(object::json());
    }
});
