//! What the guests in `examples` share: the bindings of the world `complete-policy`, and one macro that gives every hook the same body.
//!
//! Not over the policy SDK, so that a fault of the SDK is not mistaken for one of the host. Guests that Rust cannot express
//! are text, in `wat`. A guest is known by its file; `tests/tests/guests.rs` says what the host makes of each.

#![allow(unsafe_code, missing_docs, unreachable_pub, reason = "generated bindings")]

wit_bindgen::generate!({
    path: "../../proto/policy",
    world: "complete-policy",
    pub_export_macro: true,
    export_macro_name: "export_policy",
    default_bindings_module: "pith_guests",
});

/// What a binding grants. Not part of the world with every hook.
pub mod granted {
    wit_bindgen::generate!({
        path: "../../proto/policy",
        world: "imports",
        disable_custom_section_link_helpers: true,
    });
}

use exports::pith::policy::{exemption, naming, quota, settings, sidecar};

/// What a guest answers, whatever the hook.
pub enum Says {
    /// Nothing against it, nothing to change, nothing to name, nothing wrong.
    Fine,
    /// This text: a reason to skip, the variable `SAYS`, a directory, or what is wrong with the settings.
    Text(String),
    /// More of everything than the host takes.
    TooMuch,
}

/// The answer of a guest that has nothing to say.
pub const FINE: Says = Says::Fine;

/// The answer of a guest that has something to say.
pub fn says(text: String) -> Says {
    Says::Text(text)
}

/// Executes `unreachable`.
pub fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

const SENTENCE: usize = 100 << 10;

impl Says {
    pub fn exemption(self) -> Result<exemption::Verdict, String> {
        Ok(match self {
            Says::Fine => exemption::Verdict::Inject,
            Says::Text(text) => exemption::Verdict::Skip(text),
            Says::TooMuch => exemption::Verdict::Deny("too much ".repeat(SENTENCE / 9)),
        })
    }

    pub fn sidecar(self) -> Result<sidecar::Change, String> {
        let mut change =
            sidecar::Change { requests: vec![], limits: vec![], mount_options: vec![], env: vec![], cache: None };
        match self {
            Says::Fine => {}
            Says::Text(text) => change.env.push(("SAYS".to_owned(), Some(text))),
            Says::TooMuch => {
                change.mount_options =
                    (0..1000).map(|n| (format!("option-{n}"), sidecar::OptionChange::Remove)).collect();
            }
        }
        Ok(change)
    }

    pub fn naming(self) -> Result<naming::Verdict, String> {
        let directory = |components| naming::Verdict::Directory(naming::Directory { components, shared: false });
        Ok(match self {
            Says::Fine => naming::Verdict::Pass,
            Says::Text(text) => directory(vec![text]),
            Says::TooMuch => directory(vec!["down".to_owned(); 1000]),
        })
    }

    /// It has no text but that of a failure.
    pub fn quota(self) -> Result<quota::Verdict, String> {
        match self {
            Says::Fine => Ok(quota::Verdict::Pass),
            Says::Text(text) => Err(text),
            Says::TooMuch => Err("too much ".repeat(SENTENCE / 9)),
        }
    }

    pub fn settings(self) -> Result<(), settings::Problem> {
        let problem = |reason| Err(settings::Problem { field: String::new(), reason });
        match self {
            Says::Fine => Ok(()),
            Says::Text(text) => problem(text),
            Says::TooMuch => problem("too much ".repeat(SENTENCE / 9)),
        }
    }
}

/// A policy with every hook, each with this body, which must make a [`Says`].
#[macro_export]
macro_rules! guest {
    ($body:block) => {
        struct Guest;

        fn body() -> $crate::Says {
            $body
        }

        const _: () = {
            use $crate::exports::pith::policy::{exemption, naming, quota, settings, sidecar};

            impl exemption::Guest for Guest {
                fn exempt(
                    _: String,
                    _: exemption::Pod,
                    _: exemption::Namespace,
                    _: Vec<exemption::Volume>,
                ) -> Result<exemption::Verdict, String> {
                    body().exemption()
                }
            }

            impl sidecar::Guest for Guest {
                fn adjust(
                    _: String,
                    _: sidecar::Pod,
                    _: sidecar::Namespace,
                    _: sidecar::Volume,
                    _: sidecar::Sidecar,
                ) -> Result<sidecar::Change, String> {
                    body().sidecar()
                }
            }

            impl naming::Guest for Guest {
                fn name(_: String, _: naming::Request) -> Result<naming::Verdict, String> {
                    body().naming()
                }
            }

            impl quota::Guest for Guest {
                fn decide(_: String, _: quota::Request) -> Result<quota::Verdict, String> {
                    body().quota()
                }
            }

            impl settings::Guest for Guest {
                // A test that is about a failing call has to get the module past the check of its settings.
                fn validate(settings: String) -> Result<(), settings::Problem> {
                    if settings.contains("accept") { Ok(()) } else { body().settings() }
                }
            }
        };

        $crate::export_policy!(Guest);
    };
}
