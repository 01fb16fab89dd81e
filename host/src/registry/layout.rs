//! A folder that has what a registry has: an OCI image layout. What refers to an artifact is in it under the tags that clients use on
//! registries which cannot be asked for that, so that a folder needs no questions of its own.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

use super::manifest::{Descriptor, INDEX, MANIFEST, index, read_index};
use super::reference::Digest;
use super::{LARGEST_MANIFEST, Store, fallback_tag};

/// What an entry of the index is called.
const NAME: &str = "org.opencontainers.image.ref.name";
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The folder.
#[derive(Debug)]
pub(super) struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// One that is there.
    pub(super) fn open(folder: &Path) -> Result<Layout> {
        let layout = Layout { folder: folder.into() };
        let version = layout.read("oci-layout", 4096);
        version.with_context(|| format!("{} is no OCI layout", folder.display()))?;
        Ok(layout)
    }

    /// One that is there or is made now.
    pub(super) fn make(folder: &Path) -> Result<Layout> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("making {}", blobs.display()))?;
        let layout = Layout { folder: folder.into() };
        layout.write("oci-layout", LAYOUT.as_bytes())?;
        if !folder.join("index.json").exists() {
            layout.write("index.json", &index(&[]))?;
        }
        Ok(layout)
    }

    /// Puts bytes under their digest.
    pub(super) fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.write(&path(&digest), bytes)?;
        Ok(digest)
    }

    /// Puts a manifest, and gives it a name which another one had that far.
    pub(super) fn put_manifest(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let digest = self.put_blob(bytes)?;
        let mut entries = self.index()?;
        let called = (NAME.to_string(), name.to_string());
        entries.retain(|it| it.annotations.get(NAME) != Some(&called.1));
        let media_type = if read_index(bytes).is_ok() { INDEX } else { MANIFEST };
        entries.push(Descriptor {
            media_type: media_type.into(),
            artifact_type: None,
            digest,
            size: bytes.len() as u64,
            annotations: [called].into(),
        });
        self.write("index.json", &index(&entries))
    }

    fn index(&self) -> Result<Vec<Descriptor>> {
        read_index(&self.read("index.json", LARGEST_MANIFEST)?).with_context(|| format!("{}", self.folder.display()))
    }

    fn read(&self, name: &str, most: u64) -> Result<Vec<u8>> {
        let path = self.folder.join(name);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|it| it.take(most + 1).read_to_end(&mut bytes));
        read.with_context(|| format!("reading {}", path.display()))?;
        ensure!(bytes.len() as u64 <= most, "{} has more than {most} bytes", path.display());
        Ok(bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        let write = || -> io::Result<()> {
            let mut file = NamedTempFile::new_in(path.parent().unwrap_or(&self.folder))?;
            file.write_all(bytes)?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("writing {}", path.display()))
    }
}

impl Store for Layout {
    fn manifest(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let named = match name.parse::<Digest>() {
            Ok(digest) => Some(digest),
            Err(_) => self
                .index()?
                .into_iter()
                .find(|it| it.annotations.get(NAME).is_some_and(|it| it == name))
                .map(|it| it.digest),
        };
        let there = named.filter(|it| self.folder.join(path(it)).exists());
        there.map(|it| self.read(&path(&it), LARGEST_MANIFEST)).transpose()
    }

    fn blob(&self, of: &Descriptor) -> Result<Vec<u8>> {
        self.read(&path(&of.digest), of.size)
    }

    fn referrers(&self, of: &Digest) -> Result<Vec<Descriptor>> {
        let index = self.manifest(&fallback_tag(of))?;
        index.map_or(Ok(Vec::new()), |it| read_index(&it)).context("the list of what refers to it")
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
