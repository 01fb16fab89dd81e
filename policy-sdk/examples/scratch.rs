//! The second policy of `docs/policy-authors.md`, whole: nothing enforces the size of volumes whose claims have a label.

use pith_policy_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    label: String,
}

#[policy]
impl Settings {
    fn quota(&self, request: &QuotaRequest) -> Result<Quota, Problem> {
        let is_labelled = request.claim.labels.iter().any(|(key, _)| *key == self.label);
        Ok(if is_labelled { Quota::Off } else { Quota::Pass })
    }
}
