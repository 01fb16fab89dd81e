//! From an `impl` block to the same block and what binds it to the host.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Error, Expr, ExprLit, Ident, ItemImpl, Lit, MetaNameValue, Result, Type};

use crate::hook::Hook;

pub(crate) fn policy(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let schema = if arguments.is_empty() { None } else { Some(schema(arguments)?) };
    let Ok(block) = syn::parse2::<ItemImpl>(item.clone()) else {
        return Err(Error::new_spanned(item, "`#[policy]` goes on the `impl` block of the settings"));
    };
    if block.trait_.is_some() || !block.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &block.self_ty,
            "`#[policy]` goes on a plain `impl` block of a type without generics",
        ));
    }
    let hooks = hooks(&block)?;
    let wasm = wasm(&block.self_ty, &hooks);
    let native = native(&block.self_ty, &hooks);
    Ok(quote! { #block #wasm #native #schema })
}

/// The file with the JSON Schema of the settings, as a section of the module: `schema = "settings.schema.json"`, beside Cargo.toml.
fn schema(arguments: TokenStream) -> Result<TokenStream> {
    let wrong = Error::new_spanned(&arguments, "`#[policy]` takes `schema = \"FILE\"` and nothing else");
    let Ok(MetaNameValue { path, value: Expr::Lit(ExprLit { lit: Lit::Str(file), .. }), .. }) = syn::parse2(arguments)
    else {
        return Err(wrong);
    };
    if !path.is_ident("schema") {
        return Err(wrong);
    }
    Ok(quote! {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "where a static lies is the linker's business")]
        const _: () = {
            const FILE: &[u8] = ::core::include_bytes!(::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/", #file));
            #[used]
            #[unsafe(link_section = "pith.settings-schema")]
            static SCHEMA: [u8; FILE.len()] = *::core::include_bytes!(::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/", #file));
        };
    })
}

/// The hooks in the block, each with where it stands, so that a wrong type of an argument is reported there.
fn hooks(block: &ItemImpl) -> Result<Vec<(Hook, Span)>> {
    let mut hooks = Vec::new();
    for item in &block.items {
        let (hook, function) = Hook::of(item)?;
        hooks.push((hook, function.sig.ident.span()));
    }
    if hooks.iter().all(|(hook, _)| *hook == Hook::Validate) {
        let message = "a policy has at least one of the hooks `exempt`, `sidecar`, `name` and `quota`";
        return Err(Error::new_spanned(&block.self_ty, message));
    }
    Ok(hooks)
}

fn check_of(settings: &Type, hooks: &[(Hook, Span)]) -> TokenStream {
    match hooks.iter().find(|(hook, _)| *hook == Hook::Validate) {
        Some((_, span)) => {
            let validate = Ident::new("validate", *span);
            quote! { <#settings>::#validate }
        }
        None => quote! { |_: &#settings| ::core::result::Result::Ok(()) },
    }
}

/// The exports of the component. They exist in wasm only, and only for the hooks that there are.
fn wasm(settings: &Type, hooks: &[(Hook, Span)]) -> TokenStream {
    let check = check_of(settings, hooks);
    let exports = hooks.iter().map(|(hook, span)| match hook {
        Hook::Exempt => quote_spanned! {*span=>
            impl bindings::exemption::exports::pith::policy::exemption::Guest for Policy {
                fn exempt(
                    settings: ::std::string::String,
                    pod: ::pith_policy_sdk::Pod,
                    namespace: ::pith_policy_sdk::Namespace,
                    volumes: ::std::vec::Vec<::pith_policy_sdk::Volume>,
                ) -> ::core::result::Result<::pith_policy_sdk::Exemption, ::std::string::String> {
                    glue::log_panics();
                    glue::answer(&settings, |settings: &#settings| settings.exempt(&pod, &namespace, &volumes))
                }
            }
            bindings::exemption::export!(Policy with_types_in ::pith_policy_sdk::bindings::exemption);
        },
        Hook::Sidecar => quote_spanned! {*span=>
            impl bindings::sidecar::exports::pith::policy::sidecar::Guest for Policy {
                fn adjust(
                    settings: ::std::string::String,
                    pod: ::pith_policy_sdk::Pod,
                    namespace: ::pith_policy_sdk::Namespace,
                    volume: ::pith_policy_sdk::Volume,
                    current: ::pith_policy_sdk::Sidecar,
                ) -> ::core::result::Result<::pith_policy_sdk::Change, ::std::string::String> {
                    glue::log_panics();
                    glue::answer(&settings, |settings: &#settings| settings.sidecar(&pod, &namespace, &volume, &current))
                }
            }
            bindings::sidecar::export!(Policy with_types_in ::pith_policy_sdk::bindings::sidecar);
        },
        Hook::Name => quote_spanned! {*span=>
            impl bindings::naming::exports::pith::policy::naming::Guest for Policy {
                fn name(
                    settings: ::std::string::String,
                    request: ::pith_policy_sdk::NamingRequest,
                ) -> ::core::result::Result<::pith_policy_sdk::Naming, ::std::string::String> {
                    glue::log_panics();
                    glue::answer(&settings, |settings: &#settings| settings.name(&request))
                }
            }
            bindings::naming::export!(Policy with_types_in ::pith_policy_sdk::bindings::naming);
        },
        Hook::Quota => quote_spanned! {*span=>
            impl bindings::quota::exports::pith::policy::quota::Guest for Policy {
                fn decide(
                    settings: ::std::string::String,
                    request: ::pith_policy_sdk::QuotaRequest,
                ) -> ::core::result::Result<::pith_policy_sdk::Quota, ::std::string::String> {
                    glue::log_panics();
                    glue::answer(&settings, |settings: &#settings| settings.quota(&request))
                }
            }
            bindings::quota::export!(Policy with_types_in ::pith_policy_sdk::bindings::quota);
        },
        Hook::Validate => TokenStream::new(),
    });
    quote! {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the exports of a component are unsafe functions")]
        const _: () = {
            use ::pith_policy_sdk::{bindings, glue};

            struct Policy;

            #(#exports)*

            impl bindings::settings::exports::pith::policy::settings::Guest for Policy {
                fn validate(
                    settings: ::std::string::String,
                ) -> ::core::result::Result<(), ::pith_policy_sdk::SettingsProblem> {
                    glue::log_panics();
                    glue::validate(&settings, #check)
                }
            }
            bindings::settings::export!(Policy with_types_in ::pith_policy_sdk::bindings::settings);
        };
    }
}

/// What lets a native test ask the same questions as the host.
fn native(settings: &Type, hooks: &[(Hook, Span)]) -> TokenStream {
    let check = check_of(settings, hooks);
    let functions = hooks.iter().map(|(hook, span)| match hook {
        Hook::Exempt => quote_spanned! {*span=>
            fn exemption(
                settings: &str,
                input: &cases::ExemptionInput,
            ) -> ::core::option::Option<::core::result::Result<::pith_policy_sdk::Exemption, ::std::string::String>> {
                ::core::option::Option::Some(glue::answer(settings, |settings: &#settings| {
                    settings.exempt(&input.pod, &input.namespace, &input.volumes)
                }))
            }
        },
        Hook::Sidecar => quote_spanned! {*span=>
            fn sidecar(
                settings: &str,
                input: &cases::SidecarInput,
            ) -> ::core::option::Option<::core::result::Result<::pith_policy_sdk::Change, ::std::string::String>> {
                ::core::option::Option::Some(glue::answer(settings, |settings: &#settings| {
                    settings.sidecar(&input.pod, &input.namespace, &input.volume, &input.current)
                }))
            }
        },
        Hook::Name => quote_spanned! {*span=>
            fn naming(
                settings: &str,
                request: &::pith_policy_sdk::NamingRequest,
            ) -> ::core::option::Option<::core::result::Result<::pith_policy_sdk::Naming, ::std::string::String>> {
                ::core::option::Option::Some(glue::answer(settings, |settings: &#settings| settings.name(request)))
            }
        },
        Hook::Quota => quote_spanned! {*span=>
            fn quota(
                settings: &str,
                request: &::pith_policy_sdk::QuotaRequest,
            ) -> ::core::option::Option<::core::result::Result<::pith_policy_sdk::Quota, ::std::string::String>> {
                ::core::option::Option::Some(glue::answer(settings, |settings: &#settings| settings.quota(request)))
            }
        },
        Hook::Validate => TokenStream::new(),
    });
    quote! {
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            use ::pith_policy_sdk::{cases, glue};

            // Natively nothing but tests calls a policy; without this use, a private one would be warned of as dead code.
            const _: fn(&str) -> ::core::result::Result<(), ::pith_policy_sdk::SettingsProblem> =
                <#settings as cases::Policy>::validate;

            impl cases::Policy for #settings {
                #(#functions)*

                fn validate(settings: &str) -> ::core::result::Result<(), ::pith_policy_sdk::SettingsProblem> {
                    glue::validate(settings, #check)
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(arguments: TokenStream, item: TokenStream, message: &str) {
        let error = policy(arguments, item).expect_err("an error");
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn only_the_hooks_that_there_are_get_exported() {
        let item = quote! {
            impl Settings {
                fn name(&self, request: &NamingRequest) -> Result<Naming, Problem> { todo() }
            }
        };
        let expanded = policy(TokenStream::new(), item).expect("a policy").to_string();
        assert!(expanded.contains("bindings :: naming :: export !"));
        assert!(expanded.contains("bindings :: settings :: export !"));
        assert!(!expanded.contains("exemption") && !expanded.contains("sidecar"));
    }

    #[test]
    fn misspelt_hook_is_an_error_that_names_the_hooks() {
        check_refused(
            TokenStream::new(),
            quote! { impl Settings { fn excempt(&self) {} } },
            "`excempt` is not a hook of a policy; the hooks are `exempt`, `sidecar`, `name` and `quota`, and `validate` \
             checks the settings; put helpers into another `impl` block",
        );
    }

    #[test]
    fn hook_with_the_wrong_arguments_is_an_error_that_shows_the_right_ones() {
        let message = "this hook must look like `fn name(&self, request: &NamingRequest) -> Result<Naming, Problem>`";
        for function in [
            quote! { fn name(&self) {} },
            quote! { fn name(request: &NamingRequest) {} },
            quote! { fn name(self, request: &NamingRequest) {} },
            quote! { fn name(&mut self, request: &NamingRequest) {} },
            quote! { fn name<T>(&self, request: T) {} },
            quote! { async fn name(&self, request: &NamingRequest) {} },
        ] {
            check_refused(TokenStream::new(), quote! { impl Settings { #function } }, message);
        }
    }

    #[test]
    fn attribute_in_the_wrong_place_is_an_error() {
        let nothing = TokenStream::new;
        check_refused(nothing(), quote! { struct Settings; }, "`#[policy]` goes on the `impl` block of the settings");
        let arguments = "`#[policy]` takes `schema = \"FILE\"` and nothing else";
        for wrong in [quote! { strict }, quote! { schema }, quote! { schema = 1 }, quote! { file = "a.json" }] {
            check_refused(wrong, quote! { impl Settings {} }, arguments);
        }
        let plain = "`#[policy]` goes on a plain `impl` block of a type without generics";
        check_refused(nothing(), quote! { impl Clone for Settings {} }, plain);
        check_refused(nothing(), quote! { impl<T> Settings<T> {} }, plain);
        check_refused(
            nothing(),
            quote! { impl Settings { fn validate(&self) -> Result<(), SettingsProblem> { Ok(()) } } },
            "a policy has at least one of the hooks `exempt`, `sidecar`, `name` and `quota`",
        );
        check_refused(
            nothing(),
            quote! { impl Settings { const SIZE: usize = 1; } },
            "only hooks may stand here; put helpers into another `impl` block",
        );
    }
}
