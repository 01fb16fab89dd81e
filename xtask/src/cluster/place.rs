//! Where a cluster keeps everything, and how it is found again: one folder, a lock that its keeper holds, and the namespaces.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::parts::Tier;
use super::programs::hex;
use crate::workspace::{relative, target};

/// The longest name, so that the names of cgroups stay readable.
const LONGEST_NAME: usize = 30;
/// The namespaces of a cluster that anything could be left in.
const NAMESPACES: [&str; 3] = ["mnt", "net", "pid"];

/// The folder of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    name: String,
    folder: PathBuf,
}

/// What the keeper is to run.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// The tiers.
    pub(crate) tiers: Vec<Tier>,
    /// The PATH on which their programs are found.
    pub(crate) path: String,
}

/// What the keeper says of its parts.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// In the order in which they are started.
    pub(crate) parts: Vec<PartStatus>,
}

/// What the keeper says of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartStatus {
    /// The program's name.
    pub(crate) name: String,
    /// Why it runs.
    pub(crate) tier: Tier,
    /// How far it is.
    pub(crate) state: PartState,
    /// How often it was started again.
    pub(crate) restarts: u32,
    /// How it ended last.
    pub(crate) last_end: Option<String>,
}

/// How far a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PartState {
    /// It does not run: others come first, or it has just ended.
    Waiting,
    /// It runs.
    Starting,
    /// It runs and answers.
    Ready,
}

/// The process that a cluster's life hangs on, and the namespaces that it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keeper {
    /// `unshare`, outside of the namespaces.
    pub(crate) outer: u32,
    /// The first process in them, by its number on this machine.
    pub(crate) process: u32,
    /// What `/proc/PID/ns` says, such as `pid:[4026532281]`.
    pub(crate) namespaces: Vec<String>,
}

impl Keeper {
    /// What is known of the cluster whose `unshare` this is; none where it is not that far, or not there.
    pub(crate) fn of(outer: u32) -> Option<Keeper> {
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        let process = children.trim().parse().ok()?;
        let namespaces = namespaces(process);
        (namespaces.len() == NAMESPACES.len()).then_some(Keeper { outer, process, namespaces })
    }

    /// Holds the namespaces of a keeper that runs: as long as these are open, no other ones get their numbers.
    pub(crate) fn hold(&self) -> Result<Vec<File>> {
        let open = |kind| {
            let path = format!("/proc/{}/ns/{kind}", self.process);
            File::open(&path).with_context(|| format!("holding {path}"))
        };
        NAMESPACES.into_iter().map(open).collect()
    }
}

/// The namespaces of a process: all of them, or what the kernel still says of one that ends.
pub(crate) fn namespaces(process: u32) -> Vec<String> {
    let name = |kind| Some(fs::read_link(format!("/proc/{process}/ns/{kind}")).ok()?.to_string_lossy().into_owned());
    NAMESPACES.into_iter().filter_map(name).collect()
}

impl Place {
    /// The place of a cluster of this name.
    pub(crate) fn named(name: &str) -> Result<Place> {
        let fits = !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('-');
        let plain = name.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-');
        ensure!(
            fits && plain,
            "`{name}` can't be a cluster's name: use up to {LONGEST_NAME} lower-case letters, digits and dashes"
        );
        Ok(Place { name: name.to_string(), folder: clusters().join(name) })
    }

    /// The places of all clusters of this checkout, running or not.
    pub(crate) fn all() -> Result<Vec<Place>> {
        let Ok(entries) = fs::read_dir(clusters()) else { return Ok(Vec::new()) };
        let mut places = Vec::new();
        for entry in entries {
            let name = entry.context("reading the folder of clusters")?.file_name();
            places.extend(Place::named(&name.to_string_lossy()));
        }
        places.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(places)
    }

    /// The cluster's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder.
    pub(crate) fn make(&self) -> Result<()> {
        for (inside, _) in self.binds() {
            fs::create_dir_all(&inside).with_context(|| format!("making {}", relative(&inside)))?;
        }
        fs::create_dir_all(self.folder.join("csi")).context("making the folder of CSI sockets")
    }

    /// The folders that its programs see in the place of the machine's.
    pub(crate) fn binds(&self) -> [(PathBuf, &'static str); 3] {
        [("run", "/run"), ("lib", "/var/lib"), ("log", "/var/log")]
            .map(|(name, inside)| (self.folder.join(name), inside))
    }

    /// The log of a part, or of the keeper.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.folder.join("log").join(format!("{name}.log"))
    }

    /// Where `pith serve` listens for the CSI programs, unless it is told something else.
    pub(crate) fn csi_socket(&self) -> PathBuf {
        self.folder.join("csi/csi.sock")
    }

    /// The kubeconfig that may do everything.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("lib/kubeconfig/super-admin.conf")
    }

    /// The name of the cgroup that its containers are in, in each hierarchy: another checkout may have a cluster of the same name.
    pub(crate) fn cgroup(&self) -> String {
        let digest = Sha256::digest(self.folder.as_os_str().as_encoded_bytes());
        format!("pith-{}-{}", self.name, &hex(&digest)[..8])
    }

    /// Lets one command at a time start or stop this cluster. Held until it is dropped.
    pub(crate) fn lock(&self) -> Result<File> {
        fs::create_dir_all(clusters()).context("making the folder of clusters")?;
        // Beside the folder, which may go away meanwhile.
        let lock = open(&clusters().join(format!(".{}.lock", self.name)))?;
        lock.lock().context("waiting for another command that starts or stops this cluster")?;
        Ok(lock)
    }

    /// Takes the lock that says that a keeper runs; none where one does.
    pub(crate) fn keep(&self) -> Result<Option<File>> {
        let lock = open(&self.folder.join("keeper.lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).context("taking the keeper's lock"),
        }
    }

    /// The keeper, where it runs.
    pub(crate) fn keeper(&self) -> Result<Option<Keeper>> {
        Ok(if self.folder.is_dir() && self.keep()?.is_none() { self.last_keeper() } else { None })
    }

    /// The keeper, for what only a cluster that runs can do.
    pub(crate) fn running(&self) -> Result<Keeper> {
        let stopped = || format!("the cluster `{}` does not run: start it with `cargo xtask cluster up`", self.name);
        self.keeper()?.with_context(stopped)
    }

    /// The keeper that runs or ran last.
    pub(crate) fn last_keeper(&self) -> Option<Keeper> {
        read(&self.folder.join("keeper.json"))
    }

    /// Remembers the keeper.
    pub(crate) fn set_keeper(&self, keeper: &Keeper) -> Result<()> {
        write(&self.folder.join("keeper.json"), keeper)
    }

    /// What is to run.
    pub(crate) fn wanted(&self) -> Wanted {
        read(&self.folder.join("wanted.json")).unwrap_or_default()
    }

    /// Says what is to run. A keeper that runs hears of it.
    pub(crate) fn set_wanted(&self, wanted: &Wanted) -> Result<()> {
        write(&self.folder.join("wanted.json"), wanted)
    }

    /// What the keeper said last.
    pub(crate) fn status(&self) -> Status {
        read(&self.folder.join("status.json")).unwrap_or_default()
    }

    /// Says how the parts are.
    pub(crate) fn set_status(&self, status: &Status) -> Result<()> {
        write(&self.folder.join("status.json"), status)
    }

    /// The FUSE connections that its pods had last.
    pub(crate) fn connections(&self) -> BTreeSet<u32> {
        read(&self.folder.join("connections.json")).unwrap_or_default()
    }

    /// Notes them.
    pub(crate) fn set_connections(&self, connections: &BTreeSet<u32>) -> Result<()> {
        write(&self.folder.join("connections.json"), connections)
    }

    /// A program that runs inside: on the cluster's network, with its mounts and among its processes.
    pub(crate) fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let keeper = self.running()?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &keeper.process.to_string(), "--mount", "--net", "--pid", "--"]).arg(program);
        Ok(command)
    }
}

/// Where all clusters of this checkout are.
fn clusters() -> PathBuf {
    target().join("clusters")
}

fn open(path: &Path) -> Result<File> {
    File::options().create(true).append(true).open(path).with_context(|| format!("opening {}", relative(path)))
}

/// A file that is not there or half written is none: whoever writes it writes it again.
fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let partial = path.with_extension("partial");
    let text = serde_json::to_vec(value).context("every value is JSON")?;
    fs::write(&partial, text).with_context(|| format!("writing {}", relative(&partial)))?;
    fs::rename(&partial, path).with_context(|| format!("writing {}", relative(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plain_word() {
        for name in ["dev", "a-1"] {
            Place::named(name).expect("a good name");
        }
        for name in ["", "..", "a/b", "A", "-a", &"a".repeat(31)] {
            Place::named(name).expect_err("a bad name");
        }
    }
}
