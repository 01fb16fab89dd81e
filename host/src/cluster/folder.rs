//! Kubernetes objects from a folder of YAML or JSON files, for use without a cluster.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use pith_core::object::Objects;
use serde::Deserialize;
use serde_json::Value;

/// The largest file that is read: a folder given by mistake must not fill the memory.
const LARGEST_FILE: u64 = 64 << 20;

/// Reads every object of a folder. An object that is there twice is an error: which one counts would be a matter of chance.
pub fn load(directory: &Path) -> Result<Objects> {
    let mut objects = Objects::default();
    for path in files(directory).with_context(|| format!("reading objects from the folder {}", directory.display()))? {
        // One after the other: as parsed documents, ten thousand claims would take a hundred times what is kept of them.
        read(&path, &mut |document| {
            let name = document["metadata"]["name"].as_str().unwrap_or("without a name");
            let kind = document["kind"].as_str().unwrap_or("object");
            let place = || format!("{kind} `{name}` in {}", path.display());
            if let Some(known) = super::file_systems(&document) {
                objects.know(known);
            }
            if let Some(object) = super::object(&document).with_context(place)?
                && objects.insert(object)
            {
                bail!("{} is there twice", place());
            }
            Ok(())
        })?;
    }
    Ok(objects)
}

/// The YAML or JSON documents of a file, of every file of a folder, or of standard input (`-`), with where each came from.
pub fn documents(path: &Path) -> Result<Vec<(PathBuf, Value)>> {
    let mut found = Vec::new();
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().take(LARGEST_FILE).read_to_string(&mut text).context("reading standard input")?;
        let place = PathBuf::from("standard input");
        let mut keep = |document| {
            found.push((place.clone(), document));
            Ok(())
        };
        parse(&text, &mut keep).context("standard input")?;
        return Ok(found);
    }
    let paths = if path.is_dir() { files(path)? } else { vec![path.to_path_buf()] };
    for path in paths {
        read(&path, &mut |document| {
            found.push((path.clone(), document));
            Ok(())
        })?;
    }
    Ok(found)
}

/// The YAML and JSON files of a folder by name. Folders within it are left out.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("opening the folder {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let wanted = path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json");
        if wanted && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path, visit: &mut dyn FnMut(Value) -> Result<()>) -> Result<()> {
    let size = std::fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    if size > LARGEST_FILE {
        bail!("{} has {size} bytes: more than the {LARGEST_FILE} that are read", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text, visit).with_context(|| format!("{}", path.display()))
}

/// Visits the documents of a text in order; a `List` is taken apart.
fn parse(text: &str, visit: &mut dyn FnMut(Value) -> Result<()>) -> Result<()> {
    for document in yaml_serde::Deserializer::from_str(text) {
        match Value::deserialize(document)? {
            Value::Null => {}
            Value::Object(mut list) if list.get("kind") == Some(&"List".into()) => match list.remove("items") {
                Some(Value::Array(items)) => items.into_iter().try_for_each(&mut *visit)?,
                _ => bail!("a List without items"),
            },
            document => visit(document)?,
        }
    }
    Ok(())
}
