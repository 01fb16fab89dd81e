//! Answers at once and touches nothing: the good guest between the hostile ones.

pith_guests::guest!({ pith_guests::FINE });
