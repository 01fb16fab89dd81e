//! The files that are generated from the code, so that they cannot say something else than it does.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::capture;
use crate::workspace::{pith, root};

/// A file, and the arguments of `pith` that print it.
const FILES: [(&str, [&str; 2]); 2] =
    [("docs/configuration.md", ["config", "--reference"]), ("docs/pith.schema.json", ["config", "--schema"])];

/// Writes every file that is not what it should be.
pub(crate) fn write() -> Result<()> {
    for (file, wanted) in generate()? {
        let path = root().join(file);
        if present(&path) != wanted {
            fs::write(&path, wanted).with_context(|| format!("writing {file}"))?;
            println!("wrote {file}");
        }
    }
    Ok(())
}

/// Fails if a file is not what it should be.
pub(crate) fn check() -> Result<()> {
    for (file, wanted) in generate()? {
        if present(&root().join(file)) != wanted {
            bail!("{file} is not what the code says: run `cargo xtask generate` and commit it");
        }
    }
    Ok(())
}

fn generate() -> Result<Vec<(&'static str, String)>> {
    let pith = pith()?;
    FILES.iter().map(|(file, arguments)| Ok((*file, capture(Command::new(&pith).args(arguments))?))).collect()
}

/// A file that is missing differs from everything.
fn present(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
