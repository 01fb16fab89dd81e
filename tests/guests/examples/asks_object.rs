//! Asks for the raw object and says what it got. Is loaded only where `object` is granted.

use pith_guests::pith::policy::object;

pith_guests::guest!({ pith_guests::says(object::json()) });
