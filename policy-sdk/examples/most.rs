//! The third policy of `docs/policy-authors.md`, whole: a namespace has no more volumes than it may. Its binding grants look-ups.

use pith_policy_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    most: usize,
}

#[policy]
impl Settings {
    fn name(&self, request: &NamingRequest) -> Result<Naming, Problem> {
        let namespace = &request.namespace.name;
        let claims = lookup::claims(namespace, &[]);
        let volumes = claims.iter().filter(|claim| claim["spec"]["volumeName"].is_string()).count();
        if volumes < self.most {
            return Ok(Naming::Pass);
        }
        Ok(Naming::Deny(format!("`{namespace}` has {volumes} volumes, and may have {}", self.most)))
    }
}
