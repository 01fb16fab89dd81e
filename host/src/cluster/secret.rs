//! The content of a Secret, read once by its name or from a file: it is handed on, and kept nowhere here.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use pith_core::object::SecretRef;
use serde_json::Value;

use super::api::cause;
use super::folder::documents;

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

/// The credentials for registries in a Secret.
pub(crate) async fn docker_config(client: &Client, namespace: &str, name: &str) -> Result<Vec<u8>> {
    let secret = in_time(Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name)).await;
    let secret = secret.map_err(|why| anyhow!("the pull Secret `{namespace}/{name}` cannot be read: {why}"))?;
    let secret = secret.with_context(|| format!("the pull Secret `{namespace}/{name}` does not exist"))?;
    let config = secret.data.unwrap_or_default().remove(".dockerconfigjson");
    let ByteString(config) = config.with_context(|| {
        format!("the pull Secret `{namespace}/{name}` has no `.dockerconfigjson`: its type is to be kubernetes.io/dockerconfigjson")
    })?;
    Ok(config)
}

/// The content of the one Secret in a file, as Kubernetes reads it. No error shows any of it.
pub(crate) fn secret_in(path: &Path) -> Result<BTreeMap<String, String>> {
    let secret = object_in(path)?;
    let mut content = BTreeMap::new();
    for (key, value) in secret["data"].as_object().into_iter().flatten() {
        let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        content.insert(key.clone(), text.with_context(|| format!("data.{key} is no text in base64"))?);
    }
    for (key, value) in secret["stringData"].as_object().into_iter().flatten() {
        let text = value.as_str().with_context(|| format!("stringData.{key} is no text: put it into quotes"))?;
        content.insert(key.clone(), text.into());
    }
    Ok(content)
}

/// What the one Secret in a file is called in its cluster, where the file says so.
pub(crate) fn secret_name_in(path: &Path) -> Result<Option<SecretRef>> {
    let secret = object_in(path)?;
    let text = |key: &str| secret["metadata"][key].as_str().map(String::from);
    Ok(text("namespace").zip(text("name")).map(|(namespace, name)| SecretRef { namespace, name }))
}

fn object_in(path: &Path) -> Result<Value> {
    let mut secrets = documents(path)?.into_iter().map(|(_, document)| document).filter(|it| it["kind"] == "Secret");
    let (Some(secret), None) = (secrets.next(), secrets.next()) else { bail!("it must have exactly one Secret") };
    Ok(secret)
}

/// What the API server answers, if it does so in time.
pub(crate) async fn in_time<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| cause(&error)),
        Err(_) => Err("the API server did not answer in time".into()),
    }
}
