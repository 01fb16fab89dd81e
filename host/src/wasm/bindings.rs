//! The types that `wasmtime` makes of `proto/policy/policy.wit`.
#![allow(missing_docs, unreachable_pub, dead_code, reason = "generated, and only the records are used")]
#![allow(clippy::allow_attributes_without_reason, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../proto/policy",
    world: "complete-policy",
    ownership: Borrowing { duplicate_if_necessary: true },
});
