//! Recurses until there is no stack. Fails for its stack, in every hook, and the host's own stack stays whole.

fn deeper(depth: u64) -> u64 {
    // Neither a tail call nor a sum that could become a loop.
    if std::hint::black_box(depth) == 0 { 0 } else { deeper(depth + 1).rotate_left(3) ^ depth }
}

pith_guests::guest!({ pith_guests::says(deeper(1).to_string()) });
