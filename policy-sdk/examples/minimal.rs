//! The policy of `docs/policy-authors.md`, whole: pods of chosen owner kinds get no sidecar.

use pith_policy_sdk::prelude::*;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    kinds: Vec<String>,
}

#[policy]
impl Settings {
    fn exempt(&self, pod: &Pod, _: &Namespace, _: &[Volume]) -> Result<Exemption, Problem> {
        Ok(match pod.owners.iter().find(|owner| self.kinds.contains(&owner.kind)) {
            Some(owner) => Exemption::Skip(format!("{} pods use no JuiceFS", owner.kind)),
            None => Exemption::Inject,
        })
    }
}
