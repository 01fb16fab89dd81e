//! The demo's JuiceFS file system: SQLite metadata and a local folder, both under target/demo.
//!
//! Reached here through `juicefs sync`, a client of its own that addresses the file system from its root and needs no mount:
//! what it finds was really written to JuiceFS, whatever the mounts show.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::fixtures::FileSystemSecret;
use crate::command::capture;

/// A formatted file system.
pub(crate) struct FileSystem {
    client: PathBuf,
    name: String,
    meta_url: String,
    meta_password: String,
}

impl FileSystem {
    /// Formats the file system that a Secret describes.
    pub(crate) fn format(client: &Path, secret: &FileSystemSecret) -> Result<FileSystem> {
        let file_system = FileSystem {
            client: client.into(),
            name: secret.get("name")?.into(),
            meta_url: secret.get("metaurl")?.into(),
            meta_password: secret.get("meta-password")?.into(),
        };
        let mut format = file_system.client();
        format.arg("format").args(["--storage", secret.get("storage")?, "--bucket", secret.get("bucket")?]);
        format.args([&file_system.meta_url, &file_system.name]);
        capture(&mut format).context("formatting the file system")?;
        Ok(file_system)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Copies a local folder to a directory of the file system.
    pub(crate) fn put(&self, folder: &Path, directory: &str) -> Result<()> {
        self.sync(&format!("{}/", folder.display()), &self.address(directory))
    }

    /// Copies a directory of the file system to a local folder.
    pub(crate) fn get(&self, directory: &str, folder: &Path) -> Result<()> {
        self.sync(&self.address(directory), &format!("{}/", folder.display()))
    }

    fn sync(&self, from: &str, to: &str) -> Result<()> {
        capture(self.client().args(["sync", "--quiet", from, to]))?;
        Ok(())
    }

    /// `juicefs sync` takes the metadata engine's address from a variable that the URL names.
    fn address(&self, directory: &str) -> String {
        format!("jfs://META/{directory}/")
    }

    fn client(&self) -> Command {
        let mut client = Command::new(&self.client);
        client.env("META", &self.meta_url).env("META_PASSWORD", &self.meta_password);
        client
    }
}
