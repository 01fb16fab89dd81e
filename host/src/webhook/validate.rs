//! PersistentVolumes, Secrets and PolicyBindings as they are written: read, looked at, and forgotten.
//!
//! No client is run and nobody is asked: whether an engine answers is no property of a Secret. Only the module of a PolicyBinding is
//! fetched, and tried as it will be when it is put to use.

use std::collections::BTreeMap;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pith_core::object::Object;
use pith_core::validation::{self, Checked, Problem};
use serde_json::Value;

use super::Webhook;
use crate::cluster::{Unanswered, object};
use crate::juicefs::{PodSource, SourceError};
use crate::policy::Policies;

/// Looks at a PersistentVolume.
pub(super) fn persistent_volume(webhook: &Webhook, volume: &Value) -> Checked {
    // One that cannot be read is the API server's to refuse.
    let Ok(Some(Object::PersistentVolume(read))) = object(volume) else {
        return Ok(Vec::new());
    };
    let class = volume["spec"]["storageClassName"].as_str().unwrap_or_default();
    validation::persistent_volume(&webhook.configuration.driver, &webhook.objects.snapshot(), class, &read)
}

/// Looks at the eviction of a pod, of which the API server says the name only. One that is not there is nobody's business.
pub(super) async fn eviction(
    webhook: &Webhook,
    namespace: &str,
    name: &str,
    deadline: Instant,
) -> Result<(Value, Checked), Unanswered> {
    let pod = webhook.objects.pod(namespace, name, deadline).await?.unwrap_or_default();
    let checked = validation::eviction(&pod);
    Ok((pod, checked))
}

/// Looks at a PolicyBinding: its module is loaded, and its settings are shown to it.
pub(super) async fn policy_binding(
    webhook: &Webhook,
    policies: &Policies,
    binding: &Value,
    deadline: Instant,
) -> Checked {
    match &webhook.trial {
        Some(trial) => trial.check(policies, binding, deadline).await.map_err(Problem::Binding),
        None => Ok(vec!["this Pith takes no PolicyBindings: its configuration has no `policyBindings`".to_string()]),
    }
}

/// What is said of a Secret whose file system is of the Enterprise Edition.
const ENTERPRISE: &str = "the file system is of the JuiceFS Enterprise Edition: pods can use its volumes, and Pith makes some only \
                          where `juicefs.enterpriseClient` of its controller names the client of that edition";

/// Looks at a Secret that says that it is one of a file system.
pub(super) fn secret(secret: &Value) -> Checked {
    let mut values = BTreeMap::new();
    for (key, value) in secret["data"].as_object().into_iter().flatten() {
        let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
        let text = String::from_utf8(bytes);
        let unusable = |_| Problem::Secret(format!("`{key}` in the Secret of the file system is no text"));
        values.insert(key.clone(), text.map_err(unusable)?);
    }
    match PodSource::from_secrets(&values) {
        Ok(source) => Ok(match source.file_system() {
            Some(_) => Vec::new(),
            None => vec![ENTERPRISE.to_string()],
        }),
        Err(error @ SourceError::Missing("metaurl")) => Ok(vec![format!("Pith cannot use it: {error}")]),
        Err(error) => Err(Problem::Secret(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(values: &[(&str, &str)], expected: Result<usize, &str>) {
        let data: serde_json::Map<String, Value> =
            values.iter().map(|(key, value)| (key.to_string(), json!(STANDARD.encode(value)))).collect();
        match (secret(&json!({"data": data})), expected) {
            (Ok(warnings), Ok(count)) => assert_eq!(warnings.len(), count, "{warnings:?}"),
            (Err(problem), Err(sentence)) => assert!(problem.to_string().contains(sentence), "{problem}"),
            (found, _) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn a_secret_is_looked_at_without_a_client() {
        let with = |more: &[(&'static str, &'static str)]| {
            [&[("name", "shop"), ("metaurl", "redis://:canary@host/1")], more].concat()
        };
        check(&with(&[]), Ok(0));
        check(&with(&[("configs", "keys: /etc/keys")]), Ok(0));
        check(&with(&[("configs", "keys: etc/keys")]), Err("`configs` in the Secret of the file system has a path"));
        check(&with(&[("configs", "{")]), Err("`configs`"));
        check(&with(&[("envs", "{")]), Err("`envs`"));
        check(&[("metaurl", "redis://host/1")], Err("no `name`"));
        check(&[("name", "shop"), ("metaurl", "redis://:a/canary@host/1")], Err("`metaurl`"));
        check(&[("name", "shop"), ("token", "canary")], Ok(1));
        check(&[("name", "shop")], Ok(1));
    }
}
