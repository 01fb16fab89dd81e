//! Sleeps for an hour, which no epoch interrupts. Is cut at its deadline, in every hook.

pith_guests::guest!({
    std::thread::sleep(std::time::Duration::from_secs(3600));
    pith_guests::FINE
});
