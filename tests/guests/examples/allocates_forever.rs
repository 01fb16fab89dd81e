//! Takes memory and never gives it back. Fails for its memory, in every hook.

pith_guests::guest!({
    loop {
        std::mem::forget(std::hint::black_box(vec![1_u8; 64 << 10]));
    }
});
