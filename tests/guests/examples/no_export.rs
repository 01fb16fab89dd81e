//! Exports something, but no hook. Is refused when it is loaded.

#![allow(unsafe_code, missing_docs, reason = "generated bindings")]

wit_bindgen::generate!({
    inline: "
        package other:product;
        world runner { export run: func(); }
    ",
    generate_all,
});

struct Odd;

impl Guest for Odd {
    fn run() {}
}

export!(Odd);
