//! The cgroups that a cluster's containers are in: one of its own at the root of each hierarchy.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::command::POLL;

/// Where hierarchies are mounted: several folders with version 1, one with version 2.
const MOUNTED: &str = "/sys/fs/cgroup";
/// How long the kernel may take to notice that the last process is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the cgroup in every hierarchy.
pub(crate) fn make(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let cgroup = hierarchy.join(name);
        fs::create_dir_all(&cgroup).with_context(|| format!("making {}", cgroup.display()))?;
        // With version 1 an empty set has no processor to run on.
        for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|_| hierarchy.ends_with("cpuset")) {
            let all = fs::read(hierarchy.join(file)).with_context(|| format!("reading {file}"))?;
            fs::write(cgroup.join(file), all).with_context(|| format!("setting {file}"))?;
        }
    }
    Ok(())
}

/// Every cgroup of that name and all below it, the deepest ones first.
pub(crate) fn of(name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        below(&hierarchy.join(name), &mut found);
    }
    Ok(found)
}

/// Removes them all, whose processes are gone. The answer is how many there were.
pub(crate) fn remove(name: &str) -> Result<usize> {
    let all = of(name)?;
    let deadline = Instant::now() + PATIENCE;
    for cgroup in &all {
        while let Err(error) = fs::remove_dir(cgroup) {
            if error.kind() == std::io::ErrorKind::NotFound {
                break;
            }
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("removing {}", cgroup.display()));
            }
            sleep(POLL);
        }
    }
    Ok(all.len())
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(MOUNTED);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_path_buf()]);
    }
    let mut hierarchies = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("reading {MOUNTED}"))? {
        let path = entry?.path();
        // A link such as `cpu,cpuacct` is the same hierarchy again.
        if path.join("cgroup.procs").exists() && !path.is_symlink() {
            hierarchies.push(path);
        }
    }
    Ok(hierarchies)
}

fn below(cgroup: &Path, found: &mut Vec<PathBuf>) {
    // One that is not there, or goes away meanwhile, has nothing below it.
    let Ok(entries) = fs::read_dir(cgroup) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            below(&entry.path(), found);
        }
    }
    found.push(cgroup.to_path_buf());
}
