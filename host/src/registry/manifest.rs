//! What registries say of artifacts: manifests, and indexes of them. Read from bytes alone.
//!
//! A manifest has the module as its one layer of a WebAssembly media type. What its config is makes no difference, so that what
//! `pith policy push`, `wkg oci push` and `oras push policy.wasm:application/wasm` make is all the same here.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::reference::Digest;
use super::{quoted, read_json};
use crate::wasm::LARGEST_MODULE_BYTES;

/// A manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A list of manifests.
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What a client can read, for a header.
pub(super) const READABLE: [&str; 4] = [MANIFEST, DOCKER_MANIFEST, INDEX, DOCKER_INDEX];

/// The layers that are modules: that of the CNCF's "Wasm OCI artifact", and that of tools from before it.
const MODULES: [&str; 2] = ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"];
const CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// The most layers of a manifest, or manifests of an index, that are looked at.
const MOST: usize = 64;

/// What a registry has under a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// What kind of artifact it is, where it is a manifest.
    pub artifact_type: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// What else is said of it.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest, as far as it is of use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Something about the layers.
    pub config: Descriptor,
    /// The parts.
    pub layers: Vec<Descriptor>,
}

/// As it is written. Of a field that is there twice serde says so, and it is an error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenDescriptor {
    media_type: String,
    #[serde(default)]
    artifact_type: Option<String>,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<WrittenDescriptor>,
    #[serde(default)]
    layers: Option<Vec<WrittenDescriptor>>,
    #[serde(default)]
    manifests: Option<Vec<WrittenDescriptor>>,
}

impl WrittenDescriptor {
    fn read(self) -> Result<Descriptor> {
        let WrittenDescriptor { media_type, artifact_type, digest, size, annotations } = self;
        let digest = digest.parse()?;
        Ok(Descriptor { media_type, artifact_type, digest, size, annotations: annotations.unwrap_or_default() })
    }
}

fn read_all(written: Vec<WrittenDescriptor>) -> Result<Vec<Descriptor>> {
    ensure!(written.len() <= MOST, "it has {} parts: at most {MOST}", written.len());
    written.into_iter().map(WrittenDescriptor::read).collect()
}

/// What both have in common. Something that could be read as the one and as the other is neither: two clients would see two things
/// under one digest.
fn written(bytes: &[u8]) -> Result<Written> {
    let written: Written = read_json(bytes).context("it is no manifest")?;
    ensure!(written.schema_version == 2, "it has schemaVersion {}: only 2 is read", written.schema_version);
    let is_both = written.manifests.is_some() && (written.layers.is_some() || written.config.is_some());
    ensure!(!is_both, "it has both `layers` and `manifests`, so it could be read as two things");
    Ok(written)
}

impl Manifest {
    /// Reads one. An index is an error, which says so.
    pub fn read(bytes: &[u8]) -> Result<Manifest> {
        let it = written(bytes)?;
        if it.manifests.is_some() {
            bail!("it is an index of several manifests: name the one that is meant by its digest");
        }
        let media_type = it.media_type.as_deref().unwrap_or(MANIFEST);
        ensure!([MANIFEST, DOCKER_MANIFEST].contains(&media_type), "its media type is `{}`", quoted(media_type));
        let (config, layers) = (it.config.context("it has no config")?, it.layers.context("it has no layers")?);
        Ok(Manifest { config: config.read().context("its config")?, layers: read_all(layers).context("its layers")? })
    }

    /// The layer that is the module.
    pub fn module(&self) -> Result<&Descriptor> {
        let mut modules = self.layers.iter().filter(|it| MODULES.contains(&&*it.media_type));
        let Some(module) = modules.next() else {
            let there: Vec<&str> = self.layers.iter().map(|it| &*it.media_type).collect();
            bail!("none of its layers is a module (`{}`), only: {}", MODULES[0], quoted(&there.join(", ")));
        };
        ensure!(modules.next().is_none(), "several of its layers are modules, and nothing says which is meant");
        let (size, most) = (module.size, LARGEST_MODULE_BYTES);
        ensure!(size <= most as u64, "its module has {size} bytes: at most {most}");
        Ok(module)
    }

    /// Config and layers.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Descriptor> {
        [&self.config].into_iter().chain(&self.layers)
    }
}

/// Reads an index.
pub fn read_index(bytes: &[u8]) -> Result<Vec<Descriptor>> {
    let it = written(bytes)?;
    let media_type = it.media_type.as_deref().unwrap_or(INDEX);
    ensure!(
        [INDEX, DOCKER_INDEX].contains(&media_type),
        "its media type is `{}`, which is no index's",
        quoted(media_type)
    );
    read_all(it.manifests.context("it has no manifests")?)
}

/// A descriptor as it is written.
pub(super) fn descriptor(of: &Descriptor) -> Value {
    let mut written = json!({"mediaType": of.media_type, "digest": of.digest.to_string(), "size": of.size});
    if let Some(artifact_type) = &of.artifact_type {
        written["artifactType"] = json!(artifact_type);
    }
    if !of.annotations.is_empty() {
        written["annotations"] = json!(of.annotations);
    }
    written
}

/// An index as it is written.
pub(super) fn index(of: &[Descriptor]) -> Vec<u8> {
    let manifests: Vec<Value> = of.iter().map(descriptor).collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string().into_bytes()
}

/// An artifact to be pushed.
#[derive(Debug)]
pub(super) struct Artifact {
    pub(super) manifest: Vec<u8>,
    pub(super) config: Vec<u8>,
    pub(super) of_config: Digest,
    pub(super) of_module: Digest,
}

/// What is said of the module, as the Wasm OCI artifact has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    layer_digests: Vec<String>,
}

/// The manifest and the config of a module, in the form of a Wasm OCI artifact. The same module gives the same digest wherever and
/// whenever it is pushed, so the time of its making, which the form has to have, is the beginning of time.
pub(super) fn artifact(module: &[u8], is_component: bool) -> Result<Artifact> {
    let of_module = Digest::of(module);
    let config = Config {
        created: "1970-01-01T00:00:00Z",
        architecture: "wasm",
        os: if is_component { "wasip2" } else { "wasip1" },
        layer_digests: vec![of_module.to_string()],
    };
    let config = serde_json::to_vec(&config)?;
    let of_config = Digest::of(&config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": of_config.to_string(), "size": config.len()},
        "layers": [{"mediaType": MODULES[0], "digest": of_module.to_string(), "size": module.len()}],
    });
    Ok(Artifact { manifest: manifest.to_string().into_bytes(), config, of_config, of_module })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(media_type: &str, size: u64) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(b"x").to_string(), "size": size})
    }

    fn manifest(layers: Vec<Value>) -> Value {
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": layer("application/vnd.oci.empty.v1+json", 2), "layers": layers})
    }

    #[track_caller]
    fn check(manifest: &Value, expected: Result<(), &str>) {
        let read = Manifest::read(manifest.to_string().as_bytes());
        let read = read.and_then(|it| it.module().map(|module| assert_eq!(module.digest, Digest::of(b"x"))));
        match (read, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(words)) => assert!(format!("{error:#}").contains(words), "{error:#}"),
            (read, expected) => panic!("{manifest}: {read:?} for {expected:?}"),
        }
    }

    #[test]
    fn the_module_is_the_one_layer_that_is_one() {
        check(&manifest(vec![layer("application/wasm", 1)]), Ok(()));
        check(&manifest(vec![layer("application/vnd.wasm.content.layer.v1+wasm", 1)]), Ok(()));
        check(&manifest(vec![layer("text/markdown", 1), layer("application/wasm", 1)]), Ok(()));
        check(
            &manifest(vec![layer("application/vnd.oci.image.layer.v1.tar+gzip", 1)]),
            Err("none of its layers is a module"),
        );
        check(&manifest(vec![]), Err("none of its layers"));
        check(&manifest(vec![layer("application/wasm", 1); 2]), Err("several of its layers are modules"));
        check(&manifest(vec![layer("application/wasm", 65 << 20)]), Err("at most 67108864"));
        check(&manifest(vec![layer("text/plain", 1); 65]), Err("it has 65 parts"));
        check(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}), Err("it is an index"));
        let mut two_things = manifest(vec![layer("application/wasm", 1)]);
        two_things["manifests"] = json!([]);
        check(&two_things, Err("both `layers` and `manifests`"));
        let mut other = manifest(vec![]);
        other["mediaType"] = json!("application/vnd.cncf.helm.chart");
        check(&other, Err("its media type is"));
        let mut old = manifest(vec![]);
        old["schemaVersion"] = json!(1);
        check(&old, Err("schemaVersion 1"));
        let mut negative = manifest(vec![layer("application/wasm", 1)]);
        negative["layers"][0]["size"] = json!(-1);
        check(&negative, Err("it is no manifest"));
        assert!(Manifest::read(br#"{"schemaVersion":2,"layers":[],"layers":[]}"#).is_err(), "a field twice");
    }

    #[test]
    fn what_is_pushed_is_read_again_and_the_same_each_time() {
        let artifact = super::artifact(b"module", true).expect("an artifact");
        let read = Manifest::read(&artifact.manifest).expect("a manifest");
        assert_eq!(read.module().expect("a module").digest, Digest::of(b"module"));
        assert_eq!(read.config.digest, Digest::of(&artifact.config));
        assert_eq!(artifact.manifest, super::artifact(b"module", true).expect("an artifact").manifest);
    }
}
