//! What wit-bindgen makes of the contract in `proto/policy`, one module for each world that SDKs compose.
//!
//! A world an export: the component-type section of an interface is then part of its own `export!` macro, and a guest
//! claims only the hooks that it has. The records of `types` are made once, in [`exemption`], and shared by the others.
//!
//! The serde derives exist natively only. They are for the tables of cases; in wasm the records arrive over the
//! canonical ABI and a reader for them would be dead weight.

/// What a policy may call: the log, what a volume starts with, and what its binding grants.
pub mod imports {
    wit_bindgen::generate!({
        world: "imports",
        path: "../proto/policy",
        disable_custom_section_link_helpers: true,
        additional_derives: [PartialEq, Clone],
        additional_type_attributes: {
            "pith:policy/origin@0.1.0/kind": [
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(rename_all = "camelCase"))]
            ],
            "pith:policy/origin@0.1.0/origin": [
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(deny_unknown_fields, rename_all = "camelCase"))]
            ],
        },
    });
}

/// The hook `exemption`, and the records of `types` for all hooks.
pub mod exemption {
    wit_bindgen::generate!({
        world: "exports-exemption",
        path: "../proto/policy",
        generate_unused_types: true,
        pub_export_macro: true,
        export_macro_name: "export",
        default_bindings_module: "::pith_policy_sdk::bindings::exemption",
        disable_custom_section_link_helpers: true,
        additional_derives: [PartialEq, Clone],
        additional_type_attributes: {
            "pith:policy/types@0.1.0/namespace": [
                #[derive(Default)]
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(default, deny_unknown_fields, rename_all = "camelCase"))]
            ],
            "pith:policy/types@0.1.0/owner": [
                #[derive(Default)]
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(default, deny_unknown_fields, rename_all = "camelCase"))]
            ],
            "pith:policy/types@0.1.0/pod": [
                #[derive(Default)]
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(default, deny_unknown_fields, rename_all = "camelCase"))]
            ],
            "pith:policy/types@0.1.0/claim": [
                #[derive(Default)]
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(default, deny_unknown_fields, rename_all = "camelCase"))]
            ],
            "pith:policy/types@0.1.0/volume": [
                #[derive(Default)]
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(default, deny_unknown_fields, rename_all = "camelCase"))]
            ],
            "pith:policy/types@0.1.0/access-mode": [
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize))]
            ],
            "pith:policy/exemption@0.1.0/verdict": [
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(rename_all = "camelCase"))]
            ],
        },
        additional_member_attributes: {
            "pith:policy/types@0.1.0/namespace.labels": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/types@0.1.0/namespace.annotations": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/types@0.1.0/pod.labels": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/types@0.1.0/pod.annotations": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/types@0.1.0/claim.labels": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/types@0.1.0/claim.annotations": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/types@0.1.0/volume.class-parameters": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/types@0.1.0/volume.volume-attributes": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
        },
    });
}

pub use exemption::pith::policy::types;

/// The hook `sidecar`.
pub mod sidecar {
    wit_bindgen::generate!({
        world: "exports-sidecar",
        path: "../proto/policy",
        pub_export_macro: true,
        export_macro_name: "export",
        default_bindings_module: "::pith_policy_sdk::bindings::sidecar",
        disable_custom_section_link_helpers: true,
        with: { "pith:policy/types@0.1.0": crate::bindings::types },
        additional_derives: [PartialEq, Clone],
        additional_type_attributes: {
            "pith:policy/sidecar@0.1.0/empty-dir": [
                #[derive(Default)]
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(default, deny_unknown_fields, rename_all = "camelCase"))]
            ],
            "pith:policy/sidecar@0.1.0/cache": [
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(rename_all = "camelCase"))]
            ],
            "pith:policy/sidecar@0.1.0/sidecar": [
                #[derive(Default)]
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(default, deny_unknown_fields, rename_all = "camelCase"))]
            ],
            "pith:policy/sidecar@0.1.0/option-change": [
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(rename_all = "camelCase"))]
            ],
            "pith:policy/sidecar@0.1.0/change": [
                #[derive(Default)]
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(default, deny_unknown_fields, rename_all = "camelCase"))]
            ],
        },
        additional_member_attributes: {
            "pith:policy/sidecar@0.1.0/sidecar.requests": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/sidecar@0.1.0/sidecar.limits": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/sidecar@0.1.0/sidecar.mount-options": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/sidecar@0.1.0/sidecar.env": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/sidecar@0.1.0/change.requests": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/sidecar@0.1.0/change.limits": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/sidecar@0.1.0/change.mount-options": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
            "pith:policy/sidecar@0.1.0/change.env": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
        },
    });
}

/// The hook `naming`.
pub mod naming {
    wit_bindgen::generate!({
        world: "exports-naming",
        path: "../proto/policy",
        pub_export_macro: true,
        export_macro_name: "export",
        default_bindings_module: "::pith_policy_sdk::bindings::naming",
        disable_custom_section_link_helpers: true,
        with: { "pith:policy/types@0.1.0": crate::bindings::types },
        additional_derives: [PartialEq, Clone],
        additional_type_attributes: {
            "pith:policy/naming@0.1.0/request": [
                #[derive(Default)]
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(default, deny_unknown_fields, rename_all = "camelCase"))]
            ],
            "pith:policy/naming@0.1.0/directory": [
                #[derive(Default)]
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(default, deny_unknown_fields, rename_all = "camelCase"))]
            ],
            "pith:policy/naming@0.1.0/verdict": [
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(rename_all = "camelCase"))]
            ],
        },
        additional_member_attributes: {
            "pith:policy/naming@0.1.0/request.parameters": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
        },
    });
}

/// The hook `quota`.
pub mod quota {
    wit_bindgen::generate!({
        world: "exports-quota",
        path: "../proto/policy",
        pub_export_macro: true,
        export_macro_name: "export",
        default_bindings_module: "::pith_policy_sdk::bindings::quota",
        disable_custom_section_link_helpers: true,
        with: { "pith:policy/types@0.1.0": crate::bindings::types },
        additional_derives: [PartialEq, Clone],
        additional_type_attributes: {
            "pith:policy/quota@0.1.0/request": [
                #[derive(Default)]
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(default, deny_unknown_fields, rename_all = "camelCase"))]
            ],
            "pith:policy/quota@0.1.0/verdict": [
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(rename_all = "camelCase"))]
            ],
        },
        additional_member_attributes: {
            "pith:policy/quota@0.1.0/request.parameters": [#[cfg_attr(not(target_arch = "wasm32"), serde(deserialize_with = "crate::cases::by_key"))]],
        },
    });
}

/// The check of the settings.
pub mod settings {
    wit_bindgen::generate!({
        world: "exports-settings",
        path: "../proto/policy",
        pub_export_macro: true,
        export_macro_name: "export",
        default_bindings_module: "::pith_policy_sdk::bindings::settings",
        disable_custom_section_link_helpers: true,
        additional_derives: [PartialEq, Clone],
        additional_type_attributes: {
            "pith:policy/settings@0.1.0/problem": [
                #[derive(Default)]
                #[cfg_attr(not(target_arch = "wasm32"), derive(::serde::Deserialize), serde(default, deny_unknown_fields, rename_all = "camelCase"))]
            ],
        },
    });
}
