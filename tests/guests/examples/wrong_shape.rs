//! Exports a hook of the right name and version with another shape. Is refused when it is loaded.

#![allow(unsafe_code, missing_docs, reason = "generated bindings")]

wit_bindgen::generate!({
    inline: "
        package pith:policy@0.1.0;
        interface exemption { exempt: func(settings: string) -> bool; }
        world policy { export exemption; }
    ",
    generate_all,
});

struct Guest;

impl exports::pith::policy::exemption::Guest for Guest {
    fn exempt(_: String) -> bool {
        true
    }
}

export!(Guest);
