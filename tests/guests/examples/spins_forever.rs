//! Never returns. Is cut at its deadline, in every hook.

pith_guests::guest!({
    loop {
        std::hint::black_box(0);
    }
});
