//! What nearly every policy uses: `use pith_policy_sdk::prelude::*;`.

pub use crate::{
    AccessMode, Amount, Cache, Change, Claim, Directory, EmptyDir, Entries, Exemption, Namespace, Naming,
    NamingRequest, OptionChange, Origin, OriginKind, Owner, Pod, Problem, Quantity, Quota, QuotaRequest,
    SettingsProblem, Sidecar, Volume, clock, log, lookup, object, origin, policy,
};
#[doc(no_inline)]
pub use serde::Deserialize;
