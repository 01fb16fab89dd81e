//! What lies in deploy/demo, read as the demo's player of the cluster needs it.
//!
//! `pith` reads the same files itself. Here they are read for the parts that a cluster would play: the API server that sends
//! the pods, the reconciler that writes a claim's Secret, the administrator who formats the file system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::workspace::{relative, root};

/// Stands in the file system's Secret for the demo's own folder, which lies elsewhere in each checkout.
const PLACEHOLDER: &str = "${DEMO}";

/// deploy/demo.
pub(crate) fn folder() -> PathBuf {
    root().join("deploy/demo")
}

/// The configuration of `pith`.
pub(crate) fn configuration() -> PathBuf {
    folder().join("pith.yaml")
}

/// A pod of deploy/demo/pods.
pub(crate) struct Pod {
    /// Its file.
    pub(crate) file: PathBuf,
    /// The object.
    pub(crate) object: Value,
}

impl Pod {
    /// Reads the pod of that file.
    pub(crate) fn read(file: &str) -> Result<Pod> {
        let file = folder().join("pods").join(file);
        match <[Value; 1]>::try_from(documents(&file)?) {
            Ok([object]) => Ok(Pod { file, object }),
            Err(objects) => bail!("{} has {} objects: the demo wants one pod", relative(&file), objects.len()),
        }
    }

    /// What messages call it.
    pub(crate) fn name(&self) -> &str {
        let metadata = &self.object["metadata"];
        metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or("without a name")
    }

    /// Where it is to be created.
    pub(crate) fn namespace(&self) -> &str {
        self.object["metadata"]["namespace"].as_str().unwrap_or("default")
    }
}

/// The Secret of the file system, which `pith` never reads.
pub(crate) struct FileSystemSecret(BTreeMap<String, String>);

impl FileSystemSecret {
    /// Reads it; `demo` is the folder that its placeholder stands for.
    pub(crate) fn read(demo: &Path) -> Result<FileSystemSecret> {
        let file = folder().join("secrets/file-system.yaml");
        let documents = documents(&file)?;
        let data = documents.first().and_then(|secret| secret["stringData"].as_object());
        let data = data.with_context(|| format!("{} has no stringData", relative(&file)))?;
        let demo = demo.display().to_string();
        let entry = |(key, value): (&String, &Value)| {
            let value = value.as_str().with_context(|| format!("`{key}` of {} is no text", relative(&file)))?;
            Ok((key.clone(), value.replace(PLACEHOLDER, &demo)))
        };
        Ok(FileSystemSecret(data.iter().map(entry).collect::<Result<_>>()?))
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Result<&str> {
        self.0.get(key).map(String::as_str).with_context(|| format!("the file system's Secret has no `{key}`"))
    }
}

/// Where a claim's volume lies.
pub(crate) struct Volume {
    /// The claim's uid, which names its Secret.
    pub(crate) claim_uid: String,
    /// The directory, from the root of the file system.
    pub(crate) directory: String,
}

/// The volume that a claim is bound to.
pub(crate) fn volume(namespace: &str, claim: &str) -> Result<Volume> {
    let objects = objects()?;
    let find = |kind: &str, namespace: Option<&str>, name: &str| {
        let fits = |object: &&Value| {
            let metadata = &object["metadata"];
            object["kind"] == kind && metadata["name"] == name && metadata["namespace"].as_str() == namespace
        };
        objects.iter().find(fits).with_context(|| format!("deploy/demo/objects has no {kind} `{name}`"))
    };
    let claim = find("PersistentVolumeClaim", Some(namespace), claim)?;
    let volume = claim["spec"]["volumeName"].as_str().context("the claim is not bound: give it a `spec.volumeName`")?;
    let volume = find("PersistentVolume", None, volume)?;
    let text =
        |value: &Value, what: &str| value.as_str().map(String::from).with_context(|| format!("{what} is missing"));
    Ok(Volume {
        claim_uid: text(&claim["metadata"]["uid"], "`metadata.uid` of the claim")?,
        directory: text(&volume["spec"]["csi"]["volumeAttributes"]["subPath"], "`subPath` of the PersistentVolume")?,
    })
}

fn objects() -> Result<Vec<Value>> {
    let folder = folder().join("objects");
    let mut objects = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", relative(&folder)))? {
        objects.extend(documents(&entry?.path())?);
    }
    Ok(objects)
}

/// The objects of a YAML file.
fn documents(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", relative(file)))?;
    let documents = yaml_serde::Deserializer::from_str(&text).map(Value::deserialize);
    documents.collect::<Result<_, _>>().with_context(|| format!("{} is no YAML", relative(file)))
}
