//! Exports a hook of another version, `pith:policy@9.0.0`. Is refused when it is loaded.

#![allow(unsafe_code, missing_docs, reason = "generated bindings")]

wit_bindgen::generate!({
    inline: "
        package pith:policy@9.0.0;
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
