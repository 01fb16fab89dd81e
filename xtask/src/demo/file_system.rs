//! The demo's JuiceFS file system: SQLite metadata and a local folder, both under target/demo.
//!
//! Reached here with commands of the client that address the file system from its root and need no mount (`sync`, `dump`): what
//! they find was really written to JuiceFS, whatever the mounts show.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::fixtures::FileSystemSecret;
use crate::command::capture;

/// A formatted file system.
pub(crate) struct FileSystem {
    /// How it is reached.
    pub(crate) secret: FileSystemSecret,
    client: PathBuf,
}

impl FileSystem {
    /// Formats the file system that a Secret describes.
    pub(crate) fn format(client: &Path, secret: FileSystemSecret) -> Result<FileSystem> {
        let file_system = FileSystem { secret, client: client.into() };
        let secret = &file_system.secret;
        let mut format = file_system.client()?;
        format.arg("format").args(["--storage", secret.get("storage")?, "--bucket", secret.get("bucket")?]);
        format.args([secret.get("metaurl")?, secret.get("name")?]);
        capture(&mut format).context("formatting the file system")?;
        Ok(file_system)
    }

    /// Its name.
    pub(crate) fn name(&self) -> Result<&str> {
        self.secret.get("name")
    }

    /// Copies a local folder to a directory of the file system.
    pub(crate) fn put(&self, folder: &Path, directory: &str) -> Result<()> {
        self.sync(&format!("{}/", folder.display()), &address(directory))
    }

    /// Copies a directory of the file system to a local folder.
    pub(crate) fn get(&self, directory: &str, folder: &Path) -> Result<()> {
        self.sync(&address(directory), &format!("{}/", folder.display()))
    }

    fn sync(&self, from: &str, to: &str) -> Result<()> {
        capture(self.client()?.args(["sync", "--quiet", from, to]))?;
        Ok(())
    }

    /// What the metadata engine has.
    pub(crate) fn tree(&self) -> Result<Tree> {
        let dump = capture(self.client()?.args(["dump", self.secret.get("metaurl")?]))?;
        serde_json::from_str(&dump).context("reading what `juicefs dump` says")
    }

    fn client(&self) -> Result<Command> {
        let mut client = Command::new(&self.client);
        client.env("META", self.secret.get("metaurl")?).env("META_PASSWORD", self.secret.get("meta-password")?);
        Ok(client)
    }
}

/// `juicefs sync` takes the metadata engine's address from a variable that the URL names.
fn address(directory: &str) -> String {
    format!("jfs://META/{directory}/")
}

/// A file system as `juicefs dump` writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tree {
    /// By the directory's inode.
    #[serde(default)]
    quotas: BTreeMap<u64, Quota>,
    #[serde(rename = "FSTree")]
    root: Entry,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Quota {
    max_space: i64,
}

/// A directory or a file.
#[derive(Deserialize)]
pub(crate) struct Entry {
    attr: Attributes,
    /// What is in a directory.
    #[serde(default)]
    pub(crate) entries: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Attributes {
    inode: u64,
    #[serde(rename = "type")]
    kind: String,
    mode: u32,
}

impl Tree {
    /// What lies at a path from the root.
    pub(crate) fn find(&self, path: &str) -> Option<&Entry> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(&self.root, |entry, name| entry.entries.get(name))
    }

    /// The most that may lie in a directory, in bytes.
    pub(crate) fn quota(&self, directory: &Entry) -> Option<u64> {
        let quota = self.quotas.get(&directory.attr.inode)?;
        u64::try_from(quota.max_space).ok().filter(|bytes| *bytes > 0)
    }
}

impl Entry {
    /// Type and rights, as `ls` writes them.
    pub(crate) fn mode(&self) -> String {
        let rights = (0..9).rev().map(|bit| match self.attr.mode & (1 << bit) {
            0 => '-',
            _ => ['x', 'w', 'r'][bit % 3],
        });
        let kind = if self.attr.kind == "directory" { 'd' } else { '-' };
        std::iter::once(kind).chain(rights).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_a_tree_with_quotas() {
        let dump = r#"{
            "Setting": {"Name": "shop"},
            "Quotas": {"3": {"maxSpace": 1073741824, "maxInodes": -1}, "2": {"maxSpace": -1, "maxInodes": 9}},
            "FSTree": {
                "attr": {"inode": 1, "type": "directory", "mode": 511},
                "entries": {"a": {
                    "attr": {"inode": 2, "type": "directory", "mode": 493},
                    "entries": {"b": {"attr": {"inode": 3, "type": "regular", "mode": 416}}}
                }}
            }
        }"#;
        let tree: Tree = serde_json::from_str(dump).unwrap();
        let [a, b] = ["/a", "a/b"].map(|path| tree.find(path).unwrap());
        assert_eq!((a.mode().as_str(), tree.quota(a)), ("drwxr-xr-x", None));
        assert_eq!((b.mode().as_str(), tree.quota(b)), ("-rw-r-----", Some(1 << 30)));
        assert!(tree.find("a/c").is_none());
    }
}
