//! The content of a Secret, read once by its name: it is handed on, and kept nowhere here.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use pith_core::object::SecretRef;

use super::api::cause;

/// The most time for one question to the API server that nobody waits for at a keyboard.
const PATIENCE: Duration = Duration::from_secs(10);

/// The content of a file system's Secret, or the sentence that says why there is none.
pub(crate) async fn secret(client: &Client, secret: &SecretRef) -> Result<BTreeMap<String, String>, String> {
    let SecretRef { namespace, name } = secret;
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let secret = match in_time(api.get_opt(name)).await {
        Ok(Some(secret)) => secret,
        Ok(None) => return Err(format!("the Secret `{namespace}/{name}` of its file system does not exist")),
        Err(why) => return Err(format!("the Secret `{namespace}/{name}` of its file system cannot be read: {why}")),
    };
    let values: Option<BTreeMap<String, String>> = secret
        .data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, ByteString(value))| Some((key, String::from_utf8(value).ok()?)))
        .collect();
    values.ok_or_else(|| format!("the Secret `{namespace}/{name}` has a value that is no text"))
}

/// What the API server answers, if it does so in time.
pub(crate) async fn in_time<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| cause(&error)),
        Err(_) => Err("the API server did not answer in time".into()),
    }
}
