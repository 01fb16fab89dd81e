//! Imports an interface that looks Secrets up, as the others do. There is none, and it is not loaded.

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package pith:policy@0.1.0;

            interface secrets {
                get: func(namespace: string, name: string) -> option<string>;
            }

            interface exemption {
                exempt: func(settings: string) -> result<string, string>;
            }

            world asks {
                import secrets;
                export exemption;
            }
        ",
    });
}

struct Guest;

impl bindings::exports::pith::policy::exemption::Guest for Guest {
    fn exempt(_: String) -> Result<String, String> {
        Ok(bindings::pith::policy::secrets::get("shop", "credentials").unwrap_or_default())
    }
}

bindings::export!(Guest with_types_in bindings);
