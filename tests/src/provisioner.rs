//! A `pith serve` that makes volumes, which can be killed and started again over the same state, and `pith csi` to ask it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::juicefs::CLIENT;
use crate::server::{PITH, ended};

/// How long a server may take to listen, and an operation to come to an end.
const PATIENCE: Duration = Duration::from_secs(90);

/// The folder of one provisioner: its configuration, its key, its socket. Servers come and go.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
}

/// An error that the driver answered with, or that it did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `AlreadyExists`, say; `unreachable` where nobody answered.
    pub code: String,
    /// What it said.
    pub sentence: String,
}

/// A running server; it is killed when dropped.
#[derive(Debug)]
pub struct Serving {
    child: Child,
}

impl Site {
    /// A site with this configuration (YAML, top level), these objects (YAML documents) and this Secret. It has more patience than
    /// any slow machine needs.
    pub fn new(config: &str, objects: &str, secrets: &BTreeMap<String, String>) -> Result<Site> {
        Site::timed(config, objects, secrets, "startTimeout: 60s, callTimeout: 30s")
    }

    /// A site whose clients have these timeouts.
    pub fn timed(config: &str, objects: &str, secrets: &BTreeMap<String, String>, timeouts: &str) -> Result<Site> {
        let folder = tempfile::tempdir()?;
        let client = CLIENT.display();
        let base = format!(
            "webhook: {{listen: 127.0.0.1:0}}\nadmin: {{listen: 127.0.0.1:0}}\nobjects: {{directory: objects}}\n\
             juicefs: {{client: {client}, {timeouts}}}\n"
        );
        fs::write(folder.path().join("pith.yaml"), format!("{base}{config}"))?;
        fs::create_dir(folder.path().join("objects"))?;
        fs::write(folder.path().join("objects/all.yaml"), objects)?;
        let site = Site { folder };
        site.give(secrets)?;
        Ok(site)
    }

    /// Calls have this Secret from now on.
    pub fn give(&self, secrets: &BTreeMap<String, String>) -> Result<()> {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": secrets});
        Ok(fs::write(self.path().join("secret.yaml"), secret.to_string())?)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The CSI socket.
    pub fn socket(&self) -> PathBuf {
        self.path().join("csi.sock")
    }

    /// What its servers have logged, the last one's.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// The address of health and metrics.
    pub fn admin(&self) -> Result<std::net::SocketAddr> {
        let addresses: Value = serde_json::from_slice(&fs::read(self.path().join("addresses.json"))?)?;
        addresses["admin"].as_str().context("an address")?.parse().context("an address")
    }

    /// Starts a server and waits until it listens. Its log goes on where that of the one before ended.
    pub fn serve(&self, arguments: &[&str]) -> Result<Serving> {
        self.serve_with(&PITH, arguments)
    }

    /// Starts a server from another binary than that of the tests.
    pub fn serve_with(&self, binary: &Path, arguments: &[&str]) -> Result<Serving> {
        self.serve_as(Command::new(binary), arguments)
    }

    /// Starts a server with this command, on a cluster's network say.
    pub fn serve_as(&self, mut command: Command, arguments: &[&str]) -> Result<Serving> {
        let listening = self.path().join("addresses.json");
        let _ = fs::remove_file(&listening);
        let log = fs::File::options().create(true).append(true).open(self.path().join("log"))?;
        command.args(["serve", "--config"]).arg(self.path().join("pith.yaml"));
        command.arg("--addresses-file").arg(&listening).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let program = command.get_program().display().to_string();
        let mut serving = Serving { child: child.with_context(|| format!("starting {program}"))? };
        let started = Instant::now();
        while !listening.exists() {
            if let Some(status) = serving.child.try_wait()? {
                bail!("pith serve ended with {status}: {}", self.log());
            }
            if started.elapsed() > PATIENCE {
                bail!("pith serve did not listen within {PATIENCE:?}: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(serving)
    }

    /// Runs `pith volumes` with a verb and its arguments.
    pub fn run_volumes(&self, verb: &[&str]) -> Result<Output> {
        let mut command = Command::new(&*PITH);
        command.arg("volumes").args(verb).arg("--config").arg(self.path().join("pith.yaml"));
        command.arg("--secret-file").arg(self.path().join("secret.yaml"));
        Ok(command.stdin(Stdio::null()).output()?)
    }

    /// Runs `pith csi`.
    pub fn csi(&self, arguments: &[&str]) -> Result<Output> {
        self.csi_with(arguments, &self.path().join("secret.yaml"))
    }

    /// Runs `pith csi` with another Secret.
    pub fn csi_with(&self, arguments: &[&str], secret_file: &Path) -> Result<Output> {
        let endpoint = format!("unix://{}", self.socket().display());
        let mut command = Command::new(&*PITH);
        command.args(["csi", "--endpoint", &endpoint, "--timeout", "60s", "-o", "json"]).args(arguments);
        // These take none.
        if !matches!(arguments.first(), Some(&("list" | "get"))) {
            command.arg("--secret-file").arg(secret_file);
        }
        Ok(command.stdin(Stdio::null()).output()?)
    }

    /// Asks once.
    pub fn ask(&self, arguments: &[&str]) -> Result<std::result::Result<Value, Refusal>> {
        let output = self.csi(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        Ok(match output.status.code() {
            Some(0) => Ok(serde_json::from_slice(&output.stdout)?),
            Some(1) => {
                let (code, sentence) = said.split_once(": ").with_context(|| format!("a code in `{said}`"))?;
                Err(Refusal { code: code.into(), sentence: sentence.into() })
            }
            _ => Err(Refusal { code: "unreachable".into(), sentence: said }),
        })
    }

    /// Asks until there is an answer, as external-provisioner does: again after whatever may pass.
    pub fn insist(&self, arguments: &[&str]) -> Result<std::result::Result<Value, Refusal>> {
        let started = Instant::now();
        loop {
            match self.ask(arguments)? {
                Err(refusal) if refusal.may_pass() && started.elapsed() < PATIENCE => {
                    // external-provisioner waits, too, before it asks again.
                    std::thread::sleep(Duration::from_millis(20));
                }
                answer => return Ok(answer),
            }
        }
    }

    /// What `pith volumes ls` lists, by id.
    pub fn volumes(&self) -> Result<BTreeMap<String, Value>> {
        let output = self.run_volumes(&["ls", "-o", "json"])?;
        let items: Vec<Value> = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("pith volumes ls said: {}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(items.into_iter().map(|item| (item["id"].as_str().unwrap_or_default().to_string(), item)).collect())
    }
}

impl Refusal {
    /// Whether the same request may have another answer soon.
    pub fn may_pass(&self) -> bool {
        let code = self.code.as_str();
        matches!(code, "unreachable" | "Unknown" | "Unavailable" | "Aborted" | "DeadlineExceeded" | "Cancelled")
            // The file system could not be asked: final for a claim that is gone, and no more than that.
            || self.sentence.ends_with("(nothing was made)")
    }
}

impl Serving {
    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with -9.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its own end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        ended(&mut self.child, PATIENCE)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
