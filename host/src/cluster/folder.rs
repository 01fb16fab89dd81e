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
        for document in read(&path)? {
            let name = document["metadata"]["name"].as_str().unwrap_or("without a name").to_string();
            let kind = document["kind"].as_str().unwrap_or("object").to_string();
            let place = || format!("{kind} `{name}` in {}", path.display());
            if let Some(object) = super::object(&document).with_context(place)?
                && objects.insert(object)
            {
                bail!("{} is there twice", place());
            }
        }
    }
    Ok(objects)
}

/// The YAML or JSON documents of a file, of every file of a folder, or of standard input (`-`), with where each came from.
pub fn documents(path: &Path) -> Result<Vec<(PathBuf, Value)>> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().take(LARGEST_FILE).read_to_string(&mut text).context("reading standard input")?;
        let place = PathBuf::from("standard input");
        return Ok(parse(&text).context("standard input")?.into_iter().map(|it| (place.clone(), it)).collect());
    }
    let paths = if path.is_dir() { files(path)? } else { vec![path.to_path_buf()] };
    let mut found = Vec::new();
    for path in paths {
        found.extend(read(&path)?.into_iter().map(|document| (path.clone(), document)));
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

fn read(path: &Path) -> Result<Vec<Value>> {
    let size = std::fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    if size > LARGEST_FILE {
        bail!("{} has {size} bytes: more than the {LARGEST_FILE} that are read", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("{}", path.display()))
}

/// The documents of a text; a `List` is taken apart.
fn parse(text: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for document in yaml_serde::Deserializer::from_str(text) {
        match Value::deserialize(document)? {
            Value::Null => {}
            Value::Object(mut list) if list.get("kind") == Some(&"List".into()) => match list.remove("items") {
                Some(Value::Array(items)) => found.extend(items),
                _ => bail!("a List without items"),
            },
            document => found.push(document),
        }
    }
    Ok(found)
}
