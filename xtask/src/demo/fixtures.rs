//! What lies in deploy/demo, read as the demo's player of the cluster needs it.
//!
//! `pith` reads the same files itself. Here they are read for the parts that a cluster would play: external-provisioner, which
//! asks for the volumes of claims, the API server that sends the pods, the reconciler that writes a claim's Secret, the
//! administrator who formats the file system.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
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

/// The longest path that a Unix socket can have on Linux.
const LONGEST_SOCKET: usize = 107;

/// The CSI socket that the configuration of `pith` names.
pub(crate) fn socket() -> Result<PathBuf> {
    let file = configuration();
    let documents = documents(&file)?;
    let socket = documents.first().and_then(|it| it["csi"]["socket"].as_str());
    let socket = folder().join(socket.with_context(|| format!("{} has no csi.socket", relative(&file)))?);
    ensure!(
        socket.as_os_str().len() <= LONGEST_SOCKET,
        "the path of the CSI socket has {} bytes, and Linux takes {LONGEST_SOCKET}: give csi.socket in {} a short absolute \
         path, such as /tmp/pith-demo.sock, or the checkout another place\n  {}",
        socket.as_os_str().len(),
        relative(&file),
        socket.display(),
    );
    Ok(socket)
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

/// The Secret of the file system. `pith serve` never reads it: whoever asks for a volume sends it along.
pub(crate) struct FileSystemSecret {
    /// Where it lies with its placeholder filled in, for its owner only.
    pub(crate) file: PathBuf,
    namespace: String,
    name: String,
    data: BTreeMap<String, String>,
}

impl FileSystemSecret {
    /// Reads it and writes it to `demo`, the folder that its placeholder stands for.
    pub(crate) fn read(demo: &Path) -> Result<FileSystemSecret> {
        let source = folder().join("secrets/file-system.yaml");
        let Ok([mut secret]) = <[Value; 1]>::try_from(documents(&source)?) else {
            bail!("{} must have exactly one Secret", relative(&source))
        };
        let data = secret["stringData"].as_object_mut();
        let data = data.with_context(|| format!("{} has no stringData", relative(&source)))?;
        let mut read = BTreeMap::new();
        for (key, value) in data.iter_mut() {
            let text = value.as_str().with_context(|| format!("`{key}` of {} is no text", relative(&source)))?;
            let text = text.replace(PLACEHOLDER, &demo.display().to_string());
            read.insert(key.clone(), text.clone());
            *value = text.into();
        }
        let file = demo.join("secret.yaml");
        write_private(&file, &yaml_serde::to_string(&secret)?)
            .with_context(|| format!("writing {}", relative(&file)))?;
        let metadata = |key: &str| secret["metadata"][key].as_str().unwrap_or_default().to_string();
        Ok(FileSystemSecret { file, namespace: metadata("namespace"), name: metadata("name"), data: read })
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Result<&str> {
        self.data.get(key).map(String::as_str).with_context(|| format!("the file system's Secret has no `{key}`"))
    }

    /// Whether it is the one of that namespace and name.
    pub(crate) fn is(&self, namespace: &Value, name: &Value) -> bool {
        *namespace == self.namespace && *name == self.name
    }
}

/// A file that its owner only can read, from the first moment.
fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(file)?.write_all(text.as_bytes())
}

/// A claim, with its StorageClass and its PersistentVolume where it has them.
pub(crate) struct Claim {
    /// The file that all of them are in.
    pub(crate) file: PathBuf,
    object: Value,
    storage_class: Value,
    persistent_volume: Value,
}

impl Claim {
    /// Reads it from deploy/demo/objects.
    pub(crate) fn read(namespace: &str, name: &str) -> Result<Claim> {
        let objects = objects()?;
        let find = |kind: &str, namespace: Option<&str>, name: &str| {
            let fits = |(_, object): &&(PathBuf, Value)| {
                let metadata = &object["metadata"];
                object["kind"] == kind && metadata["name"] == name && metadata["namespace"].as_str() == namespace
            };
            let found = objects.iter().find(fits);
            found.with_context(|| format!("{} has no {kind} `{name}`", relative(&folder().join("objects"))))
        };
        let (file, claim) = find("PersistentVolumeClaim", Some(namespace), name)?;
        let of_kind = |kind: &str, name: &Value| match name.as_str() {
            Some(name) => find(kind, None, name).map(|(_, object)| object.clone()),
            None => Ok(Value::Null),
        };
        Ok(Claim {
            storage_class: of_kind("StorageClass", &claim["spec"]["storageClassName"])?,
            persistent_volume: of_kind("PersistentVolume", &claim["spec"]["volumeName"])?,
            file: file.clone(),
            object: claim.clone(),
        })
    }

    /// Namespace and name, as people write them.
    pub(crate) fn name(&self) -> String {
        let text = |key: &str| self.object["metadata"][key].as_str().unwrap_or_default();
        format!("{}/{}", text("namespace"), text("name"))
    }

    /// Its uid, which names its Secret and its volume.
    pub(crate) fn uid(&self) -> Result<&str> {
        let uid = self.object["metadata"]["uid"].as_str();
        uid.with_context(|| format!("the claim {} has no `metadata.uid`", self.name()))
    }

    /// `spec`.
    pub(crate) fn spec(&self) -> &Value {
        &self.object["spec"]
    }

    /// Its StorageClass; null where it names none.
    pub(crate) fn storage_class(&self) -> &Value {
        &self.storage_class
    }

    /// The directory of the PersistentVolume that it is bound to, from the root of the file system; none for a claim that is
    /// not bound.
    pub(crate) fn bound_directory(&self) -> Option<&str> {
        self.persistent_volume["spec"]["csi"]["volumeAttributes"]["subPath"].as_str()
    }
}

/// The folders of deploy/demo/files, each with the claim whose volume they are for.
pub(crate) fn files() -> Result<Vec<(Claim, PathBuf)>> {
    let mut files = Vec::new();
    for namespace in folders(&folder().join("files"))? {
        for folder in folders(&namespace)? {
            let claim = Claim::read(&file_name(&namespace), &file_name(&folder))?;
            files.push((claim, folder));
        }
    }
    Ok(files)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", relative(folder)))?;
    let mut folders = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    folders.retain(|path| path.is_dir());
    folders.sort();
    Ok(folders)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Every object, with its file.
fn objects() -> Result<Vec<(PathBuf, Value)>> {
    let folder = folder().join("objects");
    let mut objects = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", relative(&folder)))? {
        let file = entry?.path();
        objects.extend(documents(&file)?.into_iter().map(|object| (file.clone(), object)));
    }
    Ok(objects)
}

/// The objects of a YAML file.
fn documents(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", relative(file)))?;
    let documents = yaml_serde::Deserializer::from_str(&text).map(Value::deserialize);
    documents.collect::<Result<_, _>>().with_context(|| format!("{} is no YAML", relative(file)))
}
