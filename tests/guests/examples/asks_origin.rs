//! Asks what the volume starts with and says what it got.

use pith_guests::pith::policy::origin;

pith_guests::guest!({
    match origin::starts_with() {
        Some(it) => pith_guests::says(format!("{:?} {} of {}", it.kind, it.id, it.directory.join("/"))),
        None => pith_guests::FINE,
    }
});
