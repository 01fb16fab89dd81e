//! The `#[policy]` attribute of pith-policy-sdk, which re-exports it and documents its use.

mod expand;
mod hook;

use proc_macro::TokenStream;

/// Makes the functions of an inherent `impl` block the hooks of a policy; `Self` is its settings.
///
/// The functions stay as they are, and can be called and tested natively. In wasm, the module exports one interface of the
/// contract for each hook, and `settings`. The hooks are known by name:
///
/// - `fn exempt(&self, pod: &Pod, namespace: &Namespace, volumes: &[Volume]) -> Result<Exemption, Problem>`
/// - `fn sidecar(&self, pod: &Pod, namespace: &Namespace, volume: &Volume, current: &Sidecar) -> Result<Change, Problem>`
/// - `fn name(&self, request: &NamingRequest) -> Result<Naming, Problem>`
/// - `fn quota(&self, request: &QuotaRequest) -> Result<Quota, Problem>`
/// - `fn validate(&self) -> Result<(), SettingsProblem>`: optional, what must hold of settings beyond their types
///
/// With `#[policy(schema = "settings.schema.json")]` that file beside Cargo.toml, a JSON Schema, goes into the module, where
/// `pith policy inspect` finds it. It is for people and editors: what is usable is said by the types and by `validate`.
///
/// Nothing else may stand in the block, so that a misspelt hook is an error and not a function that nobody calls: put
/// helpers into another `impl` block. A module holds one `#[policy]`.
#[proc_macro_attribute]
pub fn policy(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::policy(arguments.into(), item.into()).unwrap_or_else(|error| error.into_compile_error()).into()
}
