//! Which replica sums up: the one that holds a Lease, for as long as it renews it.
//!
//! Nothing depends on there being one only. Two that sum up at once, after a clock stood still say, write the same.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};

use crate::cluster::in_time;

const NAME: &str = "pith-policy-bindings";
/// A holder that has not renewed it for so long has lost it.
const TERM: Duration = Duration::from_secs(15);

/// One of those who may hold it.
pub(super) struct Candidate {
    api: Api<Lease>,
    name: String,
    /// What the Lease said when it last said something new, and when that was seen here. Clocks of others are not relied on.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    pub(super) fn new(client: &Client, namespace: &str, name: &str) -> Candidate {
        Candidate { api: Api::namespaced(client.clone(), namespace), name: name.into(), seen: None }
    }

    /// Takes it or renews it. Whether it is held now; where that cannot be known, it is not.
    pub(super) async fn holds(&mut self) -> bool {
        match in_time(self.bid()).await {
            Ok(holds) => holds,
            Err(why) => {
                tracing::debug!(%why, "the Lease of those who sum up the status of PolicyBindings cannot be had");
                false
            }
        }
    }

    async fn bid(&mut self) -> kube::Result<bool> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let made = self.api.create(&PostParams::default(), &self.lease(None)).await;
            return won(made);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let said = format!("{:?} {:?}", spec.holder_identity, spec.renew_time);
        let now = Instant::now();
        if self.seen.as_ref().is_none_or(|(last, _)| *last != said) {
            self.seen = Some((said, now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, at)| *at);
        if !may_take(spec.holder_identity.as_deref(), &self.name, now.saturating_duration_since(since)) {
            return Ok(false);
        }
        // With the version that was read: of two that try, one fails.
        let renewed = self.api.replace(NAME, &PostParams::default(), &self.lease(Some(lease.metadata))).await;
        won(renewed)
    }

    fn lease(&self, metadata: Option<ObjectMeta>) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: i32::try_from(TERM.as_secs()).ok(),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        };
        let metadata = metadata.unwrap_or_else(|| ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() });
        Lease { metadata, spec: Some(spec) }
    }
}

/// Whether a Lease may be taken, by who holds it and for how long it has not changed.
fn may_take(holder: Option<&str>, me: &str, unchanged: Duration) -> bool {
    holder.is_none_or(|holder| holder.is_empty() || holder == me) || unchanged >= TERM
}

/// Whether a write came before those of others.
fn won(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_from_who_does_not_renew_it() {
        for (holder, unchanged, expected) in [
            (None, 0, true),
            (Some(""), 0, true),
            (Some("me"), 0, true),
            (Some("other"), 0, false),
            (Some("other"), 14, false),
            (Some("other"), 15, true),
        ] {
            assert_eq!(may_take(holder, "me", Duration::from_secs(unchanged)), expected, "{holder:?} {unchanged}");
        }
    }
}
