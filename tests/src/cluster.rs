//! The real Kubernetes that the end-to-end tests share. `cargo xtask test` starts it; a test has a namespace of its own in it.
//!
//! The API server listens on a network of the cluster's own. `kubectl` gets there by itself; a server that it is to call, such as
//! the webhook, is started [on that network](Cluster::command).

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::{Server, root};

/// The most time for anything that is waited for. Generous: the machines of CI are small and shared.
const PATIENCE: Duration = Duration::from_secs(90);
/// How much of a log is shown.
const LINES: usize = 30;
/// How often something is looked at for which nobody can be asked to wait.
const POLL: Duration = Duration::from_millis(50);

/// The node's address, which pods and the API server reach.
pub const ADDRESS: &str = "10.180.0.1";

/// The cluster of this run.
pub static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    Cluster::find("tests").unwrap_or_else(|error| {
        panic!("{error:#}: `cargo xtask cluster up --name tests csi node` starts it, as `cargo xtask test` does")
    })
});

/// A cluster that runs.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    /// The first of its processes.
    keeper: u64,
    /// Logs of what tests have started beside it.
    logs: Mutex<Vec<PathBuf>>,
}

/// A namespace of a test's own; it is deleted when dropped.
#[derive(Debug)]
pub struct Namespace {
    cluster: &'static Cluster,
    /// Its name.
    pub name: String,
}

impl Cluster {
    /// The cluster of that name, if it runs.
    pub fn find(name: &str) -> Result<Cluster> {
        let folder = root().join("target/clusters").join(name);
        let text = fs::read(folder.join("keeper.json")).with_context(|| format!("there is no cluster `{name}`"))?;
        let keeper: Value = serde_json::from_slice(&text)?;
        let process = keeper["process"].as_u64().context("keeper.json names no process")?;
        let network = fs::read_link(format!("/proc/{process}/ns/net")).unwrap_or_default();
        let known =
            keeper["namespaces"].as_array().is_some_and(|all| all.iter().any(|it| *it == *network.to_string_lossy()));
        ensure!(known, "the cluster `{name}` does not run");
        Ok(Cluster { folder, keeper: process, logs: Mutex::default() })
    }

    /// Its folder, with the logs of its parts.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where its CSI programs look for a driver.
    pub fn csi_socket(&self) -> PathBuf {
        self.folder.join("csi/csi.sock")
    }

    /// One of the programs that it runs, to run another one beside it.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let wanted: Value = serde_json::from_slice(&fs::read(self.folder.join("wanted.json"))?)?;
        let folders = wanted["path"].as_str().context("wanted.json has no path")?;
        let found = std::env::split_paths(folders).map(|folder| folder.join(name)).find(|it| it.is_file());
        found.with_context(|| format!("the cluster has no program {name}"))
    }

    /// A program on the cluster's network, which sees this machine's files and processes.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.to_string(), "--net", "--"]).arg(program);
        command
    }

    /// A program on the node: with the cluster's network, mounts and processes.
    pub fn node_command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.to_string(), "--net", "--mount", "--pid", "--"]).arg(program);
        command
    }

    /// A program with the cluster's network and the node's files, but a process of this machine's: to kill it is to end it.
    pub fn beside_node(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.to_string(), "--net", "--mount", "--"]).arg(program);
        command
    }

    /// What a server on the cluster's network answers to GET over plain HTTP: the code and the body.
    pub fn http(&self, address: SocketAddr, path: &str) -> Result<(u16, String)> {
        let ask = format!(
            "exec 3<>/dev/tcp/{}/{} && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3",
            address.ip(),
            address.port()
        );
        let output = self.command(Path::new("bash")).args(["-c", &ask]).output()?;
        let answer = String::from_utf8(output.stdout)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .with_context(|| format!("no answer from {address}: {}", String::from_utf8_lossy(&output.stderr).trim()))?;
        let code = head.split(' ').nth(1).context("a status line")?.parse()?;
        Ok((code, body.to_string()))
    }

    /// A program that sees the node's files and mounts, as a privileged pod could.
    pub fn on_node(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.to_string(), "--mount", "--pid", "--"]).arg(program);
        command
    }

    /// The mounts that the node sees, as /proc/PID/mountinfo has them.
    pub fn mounts(&self) -> Result<String> {
        fs::read_to_string(format!("/proc/{}/mountinfo", self.keeper)).context("reading the node's mounts")
    }

    /// A kubeconfig for a service account, valid for an hour.
    pub fn kubeconfig(&self, namespace: &str, account: &str) -> Result<String> {
        let token = self.kubectl(&["create", "token", account, "--namespace", namespace])?;
        let ca = fs::read(self.folder.join("lib/pki/ca.crt")).context("the cluster's CA")?;
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": {
                "server": format!("https://{ADDRESS}:6443"), "certificate-authority-data": STANDARD.encode(ca),
            }}],
            "users": [{"name": "account", "user": {"token": token.trim()}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "account"}}],
            "current-context": "tests",
        });
        Ok(kubeconfig.to_string())
    }

    /// A kubeconfig for a service account of Pith, `pith-webhook` or `pith-controller`, with the rights that the chart gives it
    /// and no other.
    pub fn kubeconfig_of_pith(&self, account: &str) -> Result<String> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "pith-system"}});
        let rights = [rights("default", account)?, rights("default", "pith-cleaner")?].join("\n---\n");
        self.apply(&format!("{namespace}\n---\n{rights}"))?;
        self.kubeconfig("pith-system", account)
    }

    /// Registers a server as the webhook of the namespaces with the label `pith.test/webhook` and this value.
    pub fn register(&self, name: &str, server: &Server) -> Result<()> {
        let ca = fs::read(server.ca()).context("the server's certificate")?;
        let webhook = json!({
            "name": "inject.pith.dev",
            "clientConfig": {"url": format!("https://{}/mutate", server.webhook), "caBundle": STANDARD.encode(ca)},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}],
            "namespaceSelector": {"matchLabels": {"pith.test/webhook": name}},
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "reinvocationPolicy": "IfNeeded",
            "failurePolicy": "Fail",
            "timeoutSeconds": 10,
        });
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": format!("pith-{name}")},
            "webhooks": [webhook],
        });
        self.apply(&configuration.to_string())
    }

    /// Waits until the API server has heard of a webhook: with it, this pod's first init container has a name that begins like this.
    pub fn until_injected(&self, namespace: &str, pod: &Value, first: &str) -> Result<()> {
        let dry_run = ["create", "--dry-run=server", "--output=json", "-f", "-"];
        self.until(namespace, "an injection", || {
            let made: Value = serde_json::from_str(&self.kubectl_with(&dry_run, &pod.to_string())?)?;
            let name = made["spec"]["initContainers"][0]["name"].as_str();
            Ok(name.is_some_and(|name| name.starts_with(first)).then_some(()))
        })
    }

    /// Runs `helm`, whatever comes of it.
    pub fn helm(&self, arguments: &[&str]) -> Result<Output> {
        Command::new(self.folder.join("bin/helm")).args(arguments).output().context("starting helm")
    }

    /// Runs `kubectl`, whatever comes of it, with this on its standard input.
    pub fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut kubectl = Command::new(self.folder.join("bin/kubectl"));
        kubectl.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = kubectl.spawn().context("starting kubectl")?;
        // One that does not read it ends early, and says why.
        let _ = child.stdin.take().context("a pipe")?.write_all(input.as_bytes());
        Ok(child.wait_with_output()?)
    }

    /// Runs `kubectl` for what it prints. Where it fails, what it said is the error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, "")
    }

    /// As [`kubectl`](Cluster::kubectl), with this on its standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.try_kubectl(arguments, input)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Makes these objects as they are here, or as they are to be now: YAML documents, or JSON.
    pub fn apply(&self, objects: &str) -> Result<()> {
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.kubectl_with(&apply, objects).map(drop)
    }

    /// An object, or a list of them.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "--output=json"], arguments].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits with `kubectl wait`, which watches. The error has what a person would look at first.
    pub fn wait(&self, namespace: &str, condition: &str, object: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        let condition = format!("--for={condition}");
        let waited = self.kubectl(&["wait", "--namespace", namespace, &condition, object, &timeout]);
        waited.map(drop).with_context(|| self.dump(namespace))
    }

    /// Waits until there is an answer, for what nobody can be asked to watch.
    pub fn until<T>(&self, namespace: &str, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = look().with_context(|| format!("waiting for {what}"))? {
                return Ok(found);
            }
            if started.elapsed() > PATIENCE {
                bail!("{what}: not within {PATIENCE:?}\n{}", self.dump(namespace));
            }
            std::thread::sleep(POLL);
        }
    }

    /// The messages of the events about an object.
    pub fn events(&self, namespace: &str, object: &str) -> Result<Vec<String>> {
        let selector = format!("--field-selector=involvedObject.name={object}");
        let events = self.get(&["events", "--namespace", namespace, &selector])?;
        let events = events["items"].as_array().context("a list of events")?;
        Ok(events.iter().filter_map(|event| event["message"].as_str()).map(String::from).collect())
    }

    /// What stands for the cluster where Pith reads its objects from a folder, as YAML documents.
    pub fn objects(&self) -> Result<String> {
        let kinds = "namespaces,storageclasses,persistentvolumes,persistentvolumeclaims";
        let list = self.get(&[kinds, "--all-namespaces"])?;
        let items = list["items"].as_array().context("a list of objects")?;
        Ok(items.iter().map(|item| format!("---\n{item}\n")).collect())
    }

    /// A namespace whose name begins with this.
    pub fn namespace(&'static self, about: &str, labels: &Value) -> Result<Namespace> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{about}-{}-{count}", std::process::id());
        let metadata = json!({"name": name, "labels": labels});
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}).to_string())?;
        // Pods of a namespace without one are refused.
        self.wait(&name, "create", "serviceaccount/default")?;
        Ok(Namespace { cluster: self, name })
    }

    /// Shows the end of this log too where something does not happen.
    pub fn show_log(&self, log: &Path) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(log.to_path_buf());
    }

    /// What a person would look at first when something did not happen.
    fn dump(&self, namespace: &str) -> String {
        let said = |arguments: &[&str]| {
            let output = self.try_kubectl(arguments, "");
            output.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let events = ["get", "events", "--sort-by=.lastTimestamp", "--namespace", namespace];
        let describe = ["describe", "pods,persistentvolumeclaims", "--namespace", namespace];
        let mut dump = format!("{}\n{}\n", said(&events), said(&describe));
        for log in self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // That of a test which has ended is gone.
            let Ok(text) = fs::read_to_string(log) else { continue };
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
            dump.push_str(&format!("the end of {}:\n{end}\n", log.display()));
        }
        dump + &format!("logs of the parts: {}", self.folder.join("log").display())
    }
}

/// A volume made by hand, `<namespace>-<claim>`, and the claim that it is for.
pub fn static_volume(namespace: &str, claim: &str) -> [Value; 2] {
    let name = format!("{namespace}-{claim}");
    [
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": claim},
                "csi": {"driver": "csi.juicefs.com", "volumeHandle": name},
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": namespace, "name": claim},
            "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}},
        }),
    ]
}

/// What has this in its name of the service accounts of Pith and their rights, as the chart renders them for a release `pith` in
/// `pith-system` with the values of this name.
pub fn rights(values: &str, name: &str) -> Result<String> {
    let rendered = fs::read_to_string(root().join(format!("deploy/rendered/{values}.yaml")))?;
    let of_account = |document: &&str| {
        let is_right =
            |line: &str| line == "apiVersion: rbac.authorization.k8s.io/v1" || line == "kind: ServiceAccount";
        document.lines().any(is_right) && document.contains(name)
    };
    Ok(rendered.split("\n---\n").filter(of_account).collect::<Vec<_>>().join("\n---\n"))
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Its end takes seconds, which nobody waits for.
        let delete = ["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"];
        let _ = self.cluster.try_kubectl(&delete, "");
    }
}
