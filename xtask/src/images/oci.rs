//! Images as OCI archives: a tar of blobs, each named by its digest, and of an index that leads to them.
//!
//! The bytes follow from the input alone: entries are sorted, belong to root and date from the epoch. Layers are not compressed,
//! since archives are read on this machine, and whoever pushes one to a registry compresses it on the way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where a reader finds what the archive holds.
const ENTRY_POINT: &str = "index.json";

/// An image for one platform.
pub(super) struct Image {
    /// As OCI calls it.
    pub(super) architecture: &'static str,
    /// The `config` of the image's configuration: its user, entry point and so on.
    pub(super) config: Value,
    pub(super) annotations: Value,
    pub(super) layers: Vec<Layer>,
}

/// Part of an image's file system, by path from its root.
#[derive(Default)]
pub(super) struct Layer(BTreeMap<String, Node>);

enum Node {
    Folder { mode: u32 },
    File { mode: u32, content: Content },
    Link { to: String },
}

enum Content {
    Text(String),
    CopyOf(PathBuf),
}

impl Layer {
    pub(super) fn folder(self, path: &str, mode: u32) -> Layer {
        self.with(path, Node::Folder { mode })
    }

    pub(super) fn text(self, path: &str, text: &str) -> Layer {
        self.with(path, Node::File { mode: 0o644, content: Content::Text(text.into()) })
    }

    pub(super) fn copy(self, path: &str, of: PathBuf) -> Layer {
        self.with(path, Node::File { mode: 0o644, content: Content::CopyOf(of) })
    }

    pub(super) fn program(self, path: &str, of: PathBuf) -> Layer {
        self.with(path, Node::File { mode: 0o755, content: Content::CopyOf(of) })
    }

    pub(super) fn link(self, path: &str, to: &str) -> Layer {
        self.with(path, Node::Link { to: to.into() })
    }

    /// With the folders on the way, or whoever unpacks it would choose their modes.
    fn with(mut self, path: &str, node: Node) -> Layer {
        for (end, _) in path.match_indices('/') {
            self.0.entry(path[..end].into()).or_insert(Node::Folder { mode: 0o755 });
        }
        self.0.insert(path.into(), node);
        self
    }

    fn write(&self, to: impl Write) -> Result<()> {
        let mut tar = Builder::new(to);
        for (path, node) in &self.0 {
            append(&mut tar, path, node).with_context(|| format!("writing /{path} of an image"))?;
        }
        Ok(tar.finish()?)
    }
}

fn append(tar: &mut Builder<impl Write>, path: &str, node: &Node) -> Result<()> {
    match node {
        Node::Folder { mode } => {
            tar.append_data(&mut header(EntryType::Directory, *mode, 0), format!("{path}/"), io::empty())?
        }
        Node::File { mode, content: Content::Text(text) } => append_file(tar, path, *mode, text.as_bytes())?,
        Node::File { mode, content: Content::CopyOf(source) } => {
            let file = File::open(source).with_context(|| format!("opening {}", source.display()))?;
            let size = file.metadata()?.len();
            tar.append_data(&mut header(EntryType::Regular, *mode, size), path, file.take(size))?
        }
        Node::Link { to } => tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, to)?,
    }
    Ok(())
}

fn append_file(tar: &mut Builder<impl Write>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    Ok(tar.append_data(&mut header(EntryType::Regular, mode, content.len() as u64), path, content)?)
}

/// Of root, without a name, and from the epoch: a new header has zeros for what is not set.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// The archive of one image, for one platform or several.
pub(super) struct Archive<'a> {
    blobs: BTreeMap<String, Blob<'a>>,
    entry_point: Vec<u8>,
    /// What the image is known by wherever it is loaded.
    pub(super) digest: String,
}

struct Blob<'a> {
    size: u64,
    content: BlobContent<'a>,
}

enum BlobContent<'a> {
    Json(Vec<u8>),
    Layer(&'a Layer),
}

impl<'a> Archive<'a> {
    /// Reads everything once, for the digests; [`Archive::write`] reads it again.
    pub(super) fn new(name: &str, tag: &str, images: &'a [Image]) -> Result<Archive<'a>> {
        let mut archive = Archive { blobs: BTreeMap::new(), entry_point: Vec::new(), digest: String::new() };
        let manifests = images.iter().map(|image| archive.add_image(image)).collect::<Result<Vec<_>>>()?;
        let mut index =
            archive.add_json(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))?;
        archive.digest = text(&index["digest"]);
        index["annotations"] =
            json!({"io.containerd.image.name": format!("{name}:{tag}"), "org.opencontainers.image.ref.name": tag});
        archive.entry_point =
            serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [index]}))?;
        Ok(archive)
    }

    /// The size of what it holds.
    pub(super) fn size(&self) -> u64 {
        self.blobs.values().map(|blob| blob.size).sum()
    }

    /// Whether that is an archive of the same: the blobs follow from the index.
    pub(super) fn is(&self, other: impl Read) -> bool {
        entry_point(other).is_ok_and(|other| other.as_ref() == Some(&self.entry_point))
    }

    pub(super) fn write(&self, to: impl Write) -> Result<()> {
        let mut tar = Builder::new(to);
        append_file(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append_file(&mut tar, ENTRY_POINT, 0o644, &self.entry_point)?;
        for (digest, blob) in &self.blobs {
            let path = format!("blobs/{}", digest.replace(':', "/"));
            match &blob.content {
                BlobContent::Json(json) => append_file(&mut tar, &path, 0o644, json)?,
                BlobContent::Layer(layer) => {
                    let mut header = header(EntryType::Regular, 0o644, blob.size);
                    header.set_path(&path)?;
                    header.set_cksum();
                    tar.get_mut().write_all(header.as_bytes())?;
                    // A layer is a tar, and so in whole records already: nothing is to be filled up.
                    layer.write(tar.get_mut())?;
                }
            }
        }
        Ok(tar.finish()?)
    }

    /// The descriptor of its manifest.
    fn add_image(&mut self, image: &'a Image) -> Result<Value> {
        let layers = image.layers.iter().map(|layer| self.add_layer(layer)).collect::<Result<Vec<_>>>()?;
        // Of a layer that is not compressed, both digests are one.
        let contents: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let platform = json!({"architecture": image.architecture, "os": "linux"});
        let mut config = platform.clone();
        config["config"] = image.config.clone();
        config["rootfs"] = json!({"type": "layers", "diff_ids": contents});
        let config = self.add_json(CONFIG, &config)?;
        let mut manifest = self.add_json(
            MANIFEST,
            &json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
                "annotations": image.annotations,
            }),
        )?;
        manifest["platform"] = platform;
        Ok(manifest)
    }

    fn add_layer(&mut self, layer: &'a Layer) -> Result<Value> {
        let mut digesting = Digesting::default();
        layer.write(&mut digesting)?;
        Ok(self.add(LAYER, digesting, BlobContent::Layer(layer)))
    }

    fn add_json(&mut self, media_type: &str, value: &Value) -> Result<Value> {
        let json = serde_json::to_vec(value)?;
        let mut digesting = Digesting::default();
        digesting.write_all(&json)?;
        Ok(self.add(media_type, digesting, BlobContent::Json(json)))
    }

    /// The descriptor by which another blob refers to this one.
    fn add(&mut self, media_type: &str, digesting: Digesting, content: BlobContent<'a>) -> Value {
        let Digesting { size, hash } = digesting;
        let digest = format!("sha256:{:x}", hash.finalize());
        self.blobs.insert(digest.clone(), Blob { size, content });
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }
}

/// Counts and digests what is written, and keeps none of it.
#[derive(Default)]
struct Digesting {
    size: u64,
    hash: Sha256,
}

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size += bytes.len() as u64;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn entry_point(archive: impl Read) -> Result<Option<Vec<u8>>> {
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if entry.path()?.as_ref() == ENTRY_POINT {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            return Ok(Some(content));
        }
    }
    Ok(None)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(architecture: &'static str) -> Image {
        let layer = Layer::default()
            .text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
            .link("bin/sh", "busybox")
            .folder("tmp", 0o1777)
            .program("bin/busybox", "/dev/null".into());
        let config = json!({"User": "1:1"});
        Image { architecture, config, annotations: json!({"title": "try"}), layers: vec![layer] }
    }

    fn bytes(archive: &Archive) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.write(&mut bytes).expect("memory takes all");
        bytes
    }

    /// What an archive holds, by path.
    fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let read = |entry: io::Result<tar::Entry<&[u8]>>| {
            let mut entry = entry.expect("a header");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("a whole entry");
            (entry.path().expect("a path").display().to_string(), content)
        };
        tar::Archive::new(archive).entries().expect("a tar").map(read).collect()
    }

    fn json(entries: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Value {
        let path = format!("blobs/{}", text(&descriptor["digest"]).replace(':', "/"));
        serde_json::from_slice(&entries[&path]).expect("JSON")
    }

    #[test]
    fn a_layer_is_sorted_and_of_root_and_from_the_epoch() {
        let mut layer = Vec::new();
        image("amd64").layers[0].write(&mut layer).expect("memory takes all");
        let line = |entry: io::Result<tar::Entry<&[u8]>>| {
            let entry = entry.expect("a header");
            let header = entry.header();
            let numbers = [header.uid(), header.gid(), header.mtime(), header.size()].map(|it| it.expect("a number"));
            let names = [header.username(), header.groupname()].map(|it| it.expect("text").unwrap_or_default().len());
            let link = entry.link_name().expect("a path").map(|to| format!(" -> {}", to.display())).unwrap_or_default();
            let mode = header.mode().expect("a number");
            format!("{mode:o} {} {numbers:?} {names:?}{link}", entry.path().expect("a path").display())
        };
        let lines: Vec<_> = tar::Archive::new(&*layer).entries().expect("a tar").map(line).collect();
        let expected = [
            "755 bin/ [0, 0, 0, 0] [0, 0]",
            "755 bin/busybox [0, 0, 0, 0] [0, 0]",
            "777 bin/sh [0, 0, 0, 0] [0, 0] -> busybox",
            "755 etc/ [0, 0, 0, 0] [0, 0]",
            "644 etc/passwd [0, 0, 0, 30] [0, 0]",
            "1777 tmp/ [0, 0, 0, 0] [0, 0]",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_same_input_has_the_same_digest_on_every_machine() {
        let images = [image("amd64")];
        let archive = Archive::new("docker.io/pith/try", "1", &images).expect("what it reads is there");
        assert_eq!(archive.digest, "sha256:04bfac593e15ef831aef65abfae045901bd75f79386ca19f183c2588b3dd7267");
        let again = Archive::new("docker.io/pith/try", "1", &images).expect("what it reads is there");
        assert!(bytes(&archive) == bytes(&again));
    }

    #[test]
    fn the_index_leads_to_every_platform_and_every_blob_is_what_its_name_says() {
        let images = [image("amd64"), image("arm64")];
        let archive = Archive::new("docker.io/pith/try", "1", &images).expect("what it reads is there");
        let entries = entries(&bytes(&archive));
        let entry_point: Value = serde_json::from_slice(&entries[ENTRY_POINT]).expect("JSON");
        let named =
            json!({"io.containerd.image.name": "docker.io/pith/try:1", "org.opencontainers.image.ref.name": "1"});
        assert_eq!(entry_point["manifests"][0]["annotations"], named);
        let index = json(&entries, &entry_point["manifests"][0]);
        for (at, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
            let manifest = &index["manifests"][at];
            let platform = json!({"architecture": architecture, "os": "linux"});
            assert_eq!(manifest["platform"], platform);
            let manifest = json(&entries, manifest);
            let config = json(&entries, &manifest["config"]);
            assert_eq!(
                (&config["architecture"], &config["config"]["User"]),
                (&platform["architecture"], &json!("1:1"))
            );
            assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        }
        let blobs = entries.iter().filter_map(|(path, content)| Some((path.strip_prefix("blobs/sha256/")?, content)));
        let wrong: Vec<_> = blobs.filter(|(name, content)| format!("{:x}", Sha256::digest(content)) != *name).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        // An index, for each platform a manifest and a configuration, and the layer that both have.
        assert_eq!(entries.len(), 2 + 1 + 2 * 2 + 1);
    }

    #[test]
    fn an_archive_is_known_again() {
        let images = [image("amd64")];
        let archive = |tag| Archive::new("docker.io/pith/try", tag, &images).expect("what it reads is there");
        let first = bytes(&archive("1"));
        for (tag, present, expected) in
            [("1", &first[..], true), ("2", &first, false), ("1", &[], false), ("1", b"no tar", false)]
        {
            assert_eq!(archive(tag).is(present), expected, "{tag} {} bytes", present.len());
        }
    }
}
