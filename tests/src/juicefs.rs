//! The real JuiceFS client, and file systems for it: SQLite and a local folder, nothing to start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use pith::juicefs::{FileSystem, WorkerOptions};
use pith::metrics::WorkerMetrics;
use tempfile::TempDir;

/// The client's version. It stands in one place, which is not this one.
pub static VERSION: LazyLock<&str> = LazyLock::new(|| {
    let tools = include_str!("../../xtask/src/tools.rs");
    let version = tools.split_once("const JUICEFS: &str = \"").and_then(|(_, rest)| rest.split_once('"'));
    version.expect("xtask/src/tools.rs says which version of the client it fetches").0
});

/// The client, where xtask keeps it.
pub static CLIENT: LazyLock<PathBuf> = LazyLock::new(|| {
    let version = *VERSION;
    let client = cache().join(format!("pith/tools/juicefs-{version}/bin/juicefs"));
    assert!(client.exists(), "{} is missing: `cargo xtask test` fetches it", client.display());
    client
});

/// The folder for what is fetched and built once.
pub(crate) fn cache() -> PathBuf {
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    cache.expect("neither XDG_CACHE_HOME nor HOME is set: set one of them")
}

#[expect(clippy::disallowed_methods, reason = "the ban is for the host; the tests have no configuration")]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Options that no slow machine exceeds.
pub fn options() -> WorkerOptions {
    WorkerOptions {
        client: CLIENT.clone(),
        enterprise_client: None,
        idle: Duration::from_secs(60),
        start_timeout: Duration::from_secs(60),
        call_timeout: Duration::from_secs(30),
        max_workers: 4,
        metrics: WorkerMetrics::default(),
    }
}

/// A file system in a folder of its own, which goes with it.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// An empty folder: the file system is made by whoever uses it first.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Scratch {
        Scratch { folder: tempfile::tempdir().expect("a folder can be made") }
    }

    /// The address of its metadata engine. It is in the command line of every client.
    pub fn meta_url(&self) -> String {
        format!("sqlite3://{}", self.folder.path().join("meta.db").display())
    }

    /// Its Secret.
    pub fn secrets(&self) -> BTreeMap<String, String> {
        let bucket = self.folder.path().join("data").display().to_string();
        let values =
            [("name", "scratch".into()), ("metaurl", self.meta_url()), ("storage", "file".into()), ("bucket", bucket)];
        values.map(|(key, value): (&str, String)| (key.to_string(), value)).into()
    }

    /// The file system.
    pub fn file_system(&self) -> FileSystem {
        FileSystem::from_secrets(&self.secrets()).expect("the Secret is well formed")
    }

    /// What a command of the client prints. The arguments have `META` for the address of the metadata engine.
    pub fn run(&self, arguments: &[&str]) -> String {
        let arguments = arguments.iter().map(|argument| argument.replace("META", &self.meta_url()));
        let mut command = Command::new(&*CLIENT);
        let output = command.args(arguments).stdin(Stdio::null()).output().expect("the client runs");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints UTF-8")
    }

    /// The processes that run for it now, with their command lines.
    pub fn processes(&self) -> BTreeMap<i32, String> {
        let address = self.meta_url();
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir("/proc").expect("a /proc").flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(pid) = pid.filter(|_| line.contains(&address)) {
                found.insert(pid, line);
            }
        }
        found
    }
}

/// How long a client may take to mount, and to hear of another quota: it asks every 12 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of a file system, mounted; unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    client: Child,
    point: TempDir,
}

impl Mount {
    /// Mounts a directory of the file system at this metadata engine.
    pub fn of(meta_url: &str, directory: &str) -> Mount {
        let point = tempfile::tempdir().expect("a folder");
        let mut client = Command::new(&*CLIENT);
        client.args(["--no-agent", "mount", "--no-usage-report", "--cache-dir=memory", "--enable-xattr"]);
        // Others change what it shows: a name that was given away is not to lead to what had it a moment ago.
        client.args(["--attr-cache=0", "--entry-cache=0", "--dir-entry-cache=0"]);
        client.arg(format!("--subdir={directory}")).arg(meta_url).arg(point.path());
        let client =
            client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let mount = Mount { client, point };
        // The client's own file, which no bare folder has.
        mount.until("a mount", || mount.path().join(".config").exists());
        mount
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.point.path()
    }

    /// How much there is room for in all, in bytes, as `df` has it.
    pub fn size(&self) -> u64 {
        let found = rustix::fs::statvfs(self.path()).expect("it is mounted");
        found.f_blocks * found.f_frsize
    }

    /// Writes a file of this size, all the way.
    pub fn write(&self, name: &str, bytes: u64) -> std::io::Result<()> {
        const MIB: usize = 1 << 20;
        let mut file = File::create(self.path().join(name))?;
        let block = vec![7; MIB];
        for _ in 0..bytes / MIB as u64 {
            file.write_all(&block)?;
        }
        file.sync_all()
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, reached: impl Fn() -> bool) {
        let started = Instant::now();
        while !reached() {
            assert!(started.elapsed() < PATIENCE, "there was not {what} within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).output();
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
