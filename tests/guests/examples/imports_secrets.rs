//! Imports an interface that looks Secrets up, as the others do. There is none, and it is refused when it is loaded.

#![allow(unsafe_code, missing_docs, reason = "generated bindings")]

wit_bindgen::generate!({
    inline: "
        package pith:policy@0.1.0;
        interface secrets { get: func(namespace: string, name: string) -> option<string>; }
        interface exemption { exempt: func(settings: string) -> bool; }
        world policy { import secrets; export exemption; }
    ",
    generate_all,
});

struct Guest;

impl exports::pith::policy::exemption::Guest for Guest {
    fn exempt(_: String) -> bool {
        pith::policy::secrets::get("shop", "credentials").is_some()
    }
}

export!(Guest);
