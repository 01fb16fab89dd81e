//! A running `pith serve`, with a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cluster::{ADDRESS, Cluster};
use crate::wasm_builds::cargo;

/// How long a server may take to listen, or to stop. Generous: the machines of CI are small and shared.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where nobody but this machine can call.
const LOOPBACK: &str = "127.0.0.1";

/// The binary, built once with the profile of the tests.
pub static PITH: LazyLock<PathBuf> = LazyLock::new(|| {
    cargo(&["build", "--quiet", "--package", "pith", "--bin", "pith"]);
    root().join("target/debug/pith")
});

/// The guard, built as [`PITH`] is.
pub static GUARD: LazyLock<PathBuf> = LazyLock::new(|| {
    cargo(&["build", "--quiet", "--package", "pith-guard", "--bin", "pith-guard"]);
    root().join("target/debug/pith-guard")
});

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the root").to_path_buf()
}

/// A running server; it is killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where the webhook listens.
    pub webhook: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
    /// Its configuration, state and log.
    pub folder: TempDir,
}

impl Server {
    /// Starts one with this configuration (YAML; listeners are added) and these objects (YAML documents).
    pub fn start(config: &str, objects: &str) -> Result<Server> {
        let folder = folder(config, objects)?;
        Server::start_in(folder, &PITH)
    }

    /// Starts one that the API server of a cluster can call.
    pub fn start_on(cluster: &Cluster, config: &str, objects: &str) -> Result<Server> {
        let folder = folder(config, objects)?;
        cluster.show_log(&folder.path().join("log"));
        Server::started(folder, cluster.command(&PITH))
    }

    /// Starts one that takes its objects from a cluster, whose API server can call it.
    pub fn start_following(cluster: &Cluster, config: &str, kubeconfig: &str) -> Result<Server> {
        Server::start_binary_following(cluster, &PITH, config, kubeconfig)
    }

    /// As [`start_following`](Server::start_following), of another binary than that of the tests.
    pub fn start_binary_following(cluster: &Cluster, binary: &Path, config: &str, kubeconfig: &str) -> Result<Server> {
        Server::started(following(config, kubeconfig)?, cluster.command(binary))
    }

    /// Starts one in a folder made by [`folder`] or [`following`].
    pub fn start_in(folder: TempDir, binary: &Path) -> Result<Server> {
        Server::started(folder, Command::new(binary))
    }

    /// Starts one in a folder made by [`following`], which a Service of the cluster can reach.
    pub fn start_on_node(cluster: &Cluster, folder: TempDir) -> Result<Server> {
        cluster.show_log(&folder.path().join("log"));
        Server::listening(folder, cluster.command(&PITH), ADDRESS)
    }

    fn started(folder: TempDir, command: Command) -> Result<Server> {
        Server::listening(folder, command, LOOPBACK)
    }

    fn listening(folder: TempDir, command: Command, address: &str) -> Result<Server> {
        let mut child = spawn_command(&folder, command, address)?;
        let addresses = folder.path().join("addresses.json");
        let started = Instant::now();
        while !addresses.exists() {
            if let Some(status) = child.try_wait()? {
                bail!("pith serve ended with {status}: {}", log_of(&folder));
            }
            if started.elapsed() > PATIENCE {
                child.kill()?;
                bail!("pith serve did not listen within {PATIENCE:?}: {}", log_of(&folder));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let addresses: serde_json::Value = read_json(&addresses)?;
        let address = |key: &str| addresses[key].as_str().context("an address")?.parse().context("an address");
        Ok(Server { webhook: address("webhook")?, admin: address("admin")?, child, folder })
    }

    /// Ends it at once, and starts it again in its folder on the network of a cluster. Its listeners have other ports then.
    pub fn start_again(&mut self, cluster: &Cluster) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        fs::remove_file(self.folder.path().join("addresses.json"))?;
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir()?);
        *self = Server::started(folder, cluster.command(&PITH))?;
        Ok(())
    }

    /// The CA that clients trust.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("state/tls/ca.crt")
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it logged so far.
    pub fn log(&self) -> String {
        log_of(&self.folder)
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        ended(&mut self.child, PATIENCE).with_context(|| self.log())
    }
}

/// Waits for a server's own end.
pub(crate) fn ended(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() > patience {
            bail!("pith serve did not stop within {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with a configuration and objects.
pub fn folder(config: &str, objects: &str) -> Result<TempDir> {
    let folder = configured(&format!("objects: {{directory: objects}}\n{config}"))?;
    fs::create_dir(folder.path().join("objects"))?;
    fs::write(folder.path().join("objects/all.yaml"), objects)?;
    Ok(folder)
}

/// A folder with a configuration for the objects of a cluster, and the kubeconfig, which the configuration may name itself.
pub fn following(config: &str, kubeconfig: &str) -> Result<TempDir> {
    let objects = match config.contains("kubeconfig.yaml") {
        true => "",
        false => "objects: {cluster: {kubeconfig: kubeconfig.yaml}}\n",
    };
    let folder = configured(&format!("{objects}{config}"))?;
    fs::write(folder.path().join("kubeconfig.yaml"), kubeconfig)?;
    Ok(folder)
}

fn configured(config: &str) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("pith.yaml"), format!("admin: {{listen: 127.0.0.1:0}}\n{config}"))?;
    Ok(folder)
}

/// Starts the process without waiting for it, its log in the folder.
pub fn spawn(folder: &TempDir, binary: &Path) -> Result<Child> {
    spawn_command(folder, Command::new(binary), LOOPBACK)
}

fn spawn_command(folder: &TempDir, mut pith: Command, address: &str) -> Result<Child> {
    let path = folder.path();
    let log = fs::File::create(path.join("log"))?;
    pith.args(["serve", "--listen", &format!("{address}:0"), "--config"])
        .arg(path.join("pith.yaml"))
        .arg("--addresses-file")
        .arg(path.join("addresses.json"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", pith.get_program().display()))
}

fn log_of(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join("log")).unwrap_or_default()
}

fn read_json(path: &Path) -> Result<serde_json::Value> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
