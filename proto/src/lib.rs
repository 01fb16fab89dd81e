//! What two programs of Pith must agree on: the policy interfaces (`policy/policy.wit`) and the Kubernetes quantity.
//!
//! The host and the policies are built apart and read the same amounts, so the reading stands here once. The crate has no
//! dependencies, so that a policy which checks an amount stays small. It holds nothing that only one side needs.

pub mod quantity;

pub use quantity::Quantity;
