//! What a client needs in the pod before it mounts: a file system that is made, a configuration from the console of the Enterprise
//! Edition, keys as files, and folders.
//!
//! A plain init container does it by argv. It stands before its client, and ends before that one is started.

use serde_json::{Value, json};

use super::{CLIENT, INIT_PREFIX, Place, from_secret, named, resources, volume_name};
use crate::object::{FileSystemFacts, Preparation, PreparationOption};
use crate::secret_key;
use crate::settings::Settings;

/// Where the client of the Enterprise Edition lies in its image.
const ENTERPRISE_CLIENT: &str = "/usr/bin/juicefs";
/// Where that client keeps what it got from the console.
const CONFIGURATION_FOLDER: &str = "/root/.juicefs";
/// Where the file system's Secret has it instead, for the container that copies it.
const GIVEN_FOLDER: &str = "/etc/juicefs";
const RSA_FOLDER: &str = "/root/.rsa";
/// Where a private key lies.
pub(super) const RSA_FILE: &str = "/root/.rsa/rsa-key.pem";
/// A folder from `configs` that says who belongs to which group in the Enterprise Edition's file systems, and what it becomes.
const ACL_FOLDER: &str = "/root/.acl";
const ACL_FILES: [&str; 2] = ["group", "passwd"];

/// What is beside a client, and what it has of it.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// The init container.
    pub(super) container: Option<Value>,
    /// The volumes of both.
    pub(super) volumes: Vec<Value>,
    /// The client's mounts of them.
    pub(super) mounts: Vec<Value>,
}

/// Builds what is beside a client.
pub(super) fn prepare(settings: &Settings, place: Place<'_>) -> Prepared {
    let Some(facts) = settings.file_system.as_deref() else { return Prepared::default() };
    let mut prepared = Prepared::default();
    for (index, (secret, path)) in facts.folders.iter().enumerate() {
        let name = volume_name(&format!("pith-config-{index}-"), place.volume);
        prepared.volumes.push(json!({"name": name, "secret": {"secretName": secret}}));
        prepared.mounts.push(json!({"name": name, "mountPath": path, "readOnly": true}));
        if facts.enterprise && path.contains(ACL_FOLDER) {
            let files = ACL_FILES.map(
                |file| json!({"name": name, "mountPath": format!("/etc/{file}"), "subPath": file, "readOnly": true}),
            );
            prepared.mounts.extend(files);
        }
    }
    // Only these: whatever else is in the claim's Secret is no file.
    let file_of =
        |key: &str, path: &str| json!({"secret": {"secretName": place.secret, "items": [{"key": key, "path": path}]}});
    let mut own_mounts = Vec::new();
    if facts.rsa_key {
        let name = volume_name("pith-rsa-", place.volume);
        prepared.volumes.push(named(file_of(secret_key::RSA_KEY, "rsa-key.pem"), &name));
        let mount = json!({"name": name, "mountPath": RSA_FOLDER, "readOnly": true});
        // In the Community Edition only who makes the file system needs it.
        if facts.enterprise { &mut prepared.mounts } else { &mut own_mounts }.push(mount);
    }
    let Some(preparation) = &facts.preparation else { return prepared };
    if facts.enterprise {
        let name = volume_name("pith-client-", place.volume);
        prepared.volumes.push(json!({"name": name, "emptyDir": {}}));
        prepared.mounts.push(json!({"name": name, "mountPath": CONFIGURATION_FOLDER}));
    }
    if *preparation == Preparation::Configured {
        let name = volume_name("pith-given-", place.volume);
        let file = file_of(secret_key::CONFIGURATION, &format!("{}.conf", facts.name));
        prepared.volumes.push(named(file, &name));
        own_mounts.push(json!({"name": name, "mountPath": GIVEN_FOLDER, "readOnly": true}));
    }
    own_mounts.extend(prepared.mounts.iter().cloned());
    prepared.container = Some(container(settings, place, facts, preparation, &own_mounts));
    prepared
}

fn container(
    settings: &Settings,
    place: Place<'_>,
    facts: &FileSystemFacts,
    preparation: &Preparation,
    mounts: &[Value],
) -> Value {
    let mut env = Vec::new();
    let mut given = |options: &[PreparationOption]| -> Vec<String> {
        let argument = |option: &PreparationOption| match option {
            PreparationOption::Switch(name) => format!("--{name}"),
            PreparationOption::Secret(name) => {
                let key = secret_key::option(name);
                // By name, so that the container waits for it.
                env.push(from_secret(place.secret, &key));
                format!("--{name}=$({key})")
            }
        };
        options.iter().map(argument).collect()
    };
    let command = match preparation {
        Preparation::Format(options) => {
            let mut command = vec![CLIENT.into(), "format".into(), "--no-update".into()];
            command.extend(given(options));
            command.extend(facts.rsa_key.then(|| format!("--encrypt-rsa-key={RSA_FILE}")));
            command.extend([format!("$({})", secret_key::META_URL), facts.name.clone()]);
            env.extend([secret_key::META_URL, secret_key::META_PASSWORD].map(|key| from_secret(place.secret, key)));
            command
        }
        Preparation::Authenticate(options) => {
            let mut command = vec![ENTERPRISE_CLIENT.into(), "auth".into(), facts.name.clone()];
            command.extend(given(options));
            command.push(format!("--conf-dir={CONFIGURATION_FOLDER}"));
            command
        }
        Preparation::Configured => {
            vec!["cp".into(), format!("{GIVEN_FOLDER}/{}.conf", facts.name), format!("{CONFIGURATION_FOLDER}/")]
        }
    };
    let mut container = json!({
        "name": container_name(place.index),
        "image": settings.image.value,
        "command": command,
        "envFrom": [{"secretRef": {"name": place.secret}}],
        // What it writes is root's, and the pod's own runAsNonRoot would keep the container from starting.
        "securityContext": {"runAsUser": 0, "runAsNonRoot": false},
    });
    if !env.is_empty() {
        container["env"] = Value::Array(env);
    }
    if !mounts.is_empty() {
        container["volumeMounts"] = json!(mounts);
    }
    // Those of the client: it runs before that one, so a pod asks for no more with it.
    let resources = resources(settings);
    if !resources.is_empty() {
        container["resources"] = Value::Object(resources);
    }
    if let Some(policy) = &settings.image_pull_policy {
        container["imagePullPolicy"] = json!(policy.value);
    }
    container
}

fn container_name(index: usize) -> String {
    if index == 0 { INIT_PREFIX.into() } else { format!("{INIT_PREFIX}-{index}") }
}
