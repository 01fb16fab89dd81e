//! `pith serve` as a child process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::fixtures;
use crate::command::{POLL, spawn, wait};
use crate::workspace::relative;

/// How long it may take to be ready: the first start compiles the policies.
const READY: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// A running `pith serve`. Dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    folder: PathBuf,
    /// Where it listens for HTTP.
    pub(crate) addresses: Addresses,
    /// The socket where it listens for CSI.
    pub(crate) socket: PathBuf,
}

/// What `pith serve --addresses-file` writes.
#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Addresses {
    /// The webhook, over TLS.
    pub(crate) webhook: SocketAddr,
    /// Health and metrics.
    pub(crate) admin: SocketAddr,
}

impl Server {
    /// Starts it on free ports of the loopback interface and waits until it is ready. Its files go to `folder`.
    pub(crate) fn start(pith: &Path, folder: &Path) -> Result<Server> {
        let socket = fixtures::socket()?;
        let (log, addresses) = (folder.join("pith.log"), folder.join("addresses.json"));
        let output = File::create(&log).with_context(|| format!("making {}", relative(&log)))?;
        let mut serve = Command::new(pith);
        serve.arg("serve").arg("--config").arg(fixtures::configuration());
        serve.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        serve.arg("--state-dir").arg(folder.join("state")).arg("--addresses-file").arg(&addresses);
        serve.stdout(output.try_clone()?).stderr(output);
        let mut child = spawn(&mut serve)?;
        leftover::record(folder, child.id())?;

        let ready = ready(&mut child, &addresses).and_then(|addresses| {
            Ok((addresses, fs::canonicalize(&socket).with_context(|| format!("looking for {}", socket.display()))?))
        });
        match ready {
            Ok((addresses, socket)) => Ok(Server { child, log, folder: folder.into(), addresses, socket }),
            Err(error) => {
                let _ = child.kill();
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("`pith serve`: {error:#}; its log, {}:\n{}", relative(&log), said.trim());
            }
        }
    }

    /// The certificate of the authority that it made for itself, as PEM.
    pub(crate) fn authority(&self) -> Result<Vec<u8>> {
        let file = self.folder.join("state/tls/ca.crt");
        fs::read(&file).with_context(|| format!("reading {}", relative(&file)))
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has counted so far.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        let answer = ureq::get(format!("http://{}/metrics", self.addresses.admin)).call();
        let text = answer.context("asking for the metrics")?.body_mut().read_to_string();
        Ok(Metrics::parse(&text.context("reading the metrics")?))
    }

    /// The processes that it has started and that still run.
    pub(crate) fn children(&self) -> Result<Vec<u32>> {
        let parent = format!("\nPPid:\t{}\n", self.id());
        let mut children = Vec::new();
        for entry in fs::read_dir("/proc").context("reading /proc")? {
            let entry = entry?;
            // A process that ends meanwhile is none.
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            if status.contains(&parent) {
                children.extend(entry.file_name().to_string_lossy().parse::<u32>());
            }
        }
        Ok(children)
    }

    /// Stops it as a kubelet would, and checks that it stopped of its own accord and left no process behind. The answer are those
    /// that it had.
    pub(crate) fn stop(mut self) -> Result<Vec<u32>> {
        let children = self.children()?;
        let process = Pid::from_child(&self.child);
        kill_process(process, Signal::TERM).context("stopping `pith serve`")?;
        match wait(&mut self.child, STOP)? {
            Some(status) if status.success() => {}
            Some(status) => bail!("`pith serve` ended with {status} after SIGTERM: see {}", relative(&self.log)),
            None => bail!("`pith serve` still runs {} s after SIGTERM: see {}", STOP.as_secs(), relative(&self.log)),
        }
        for child in &children {
            let left = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            ensure!(left.is_empty(), "`pith serve` ended and left a process behind: {child}");
        }
        Ok(children)
    }
}

/// What a server has counted, by series.
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        Metrics(lines.filter_map(|(series, value)| Some((series.to_string(), value.parse().ok()?))).collect())
    }

    /// What was added between two moments to the series of that name with that label: the labels of each, and how much.
    pub(crate) fn passed(
        before: &Metrics,
        after: &Metrics,
        name: &str,
        (label, value): (&str, &str),
    ) -> Vec<(BTreeMap<String, String>, f64)> {
        let mut passed = Vec::new();
        for (series, now) in &after.0 {
            let labels = series.strip_prefix(name).and_then(|rest| rest.strip_prefix('{')?.strip_suffix('}'));
            let Some(labels) = labels.map(labels_of) else { continue };
            let added = now - before.0.get(series).unwrap_or(&0.0);
            if added > 0.0 && labels.get(label).is_some_and(|it| it == value) {
                passed.push((labels, added));
            }
        }
        passed
    }
}

/// None of the values that the demo reads has a quote or a comma in it.
fn labels_of(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_string(), value.trim_matches('"').to_string())).collect()
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail where it has ended already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ready(child: &mut Child, addresses: &Path) -> Result<Addresses> {
    let deadline = Instant::now() + READY;
    let mut last = "it has not said where it listens".to_string();
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().context("waiting for `pith serve`")? {
            bail!("it ended before it was ready ({status})");
        }
        let written = fs::read(addresses).ok().and_then(|text| serde_json::from_slice::<Addresses>(&text).ok());
        if let Some(addresses) = written {
            match ureq::get(format!("http://{}/readyz", addresses.admin)).call() {
                Ok(_) => return Ok(addresses),
                Err(error) => last = error.to_string(),
            }
        }
        sleep(POLL);
    }
    bail!("it was not ready after {} s: {last}", READY.as_secs())
}

/// The process of a demo that was cut.
pub(crate) mod leftover {
    use super::{Context, Path, Pid, Result, Signal, fs, kill_process, sleep};
    use super::{Duration, Instant, POLL};

    /// Remembers the process in the demo's folder.
    pub(crate) fn record(folder: &Path, process: u32) -> Result<()> {
        fs::write(folder.join("pith.pid"), process.to_string()).context("writing the process id of `pith serve`")
    }

    /// Ends the process that is remembered, if it still is what it was.
    pub(crate) fn end(folder: &Path) -> Result<()> {
        let Ok(text) = fs::read_to_string(folder.join("pith.pid")) else { return Ok(()) };
        let Some(process) = text.trim().parse().ok().and_then(Pid::from_raw) else { return Ok(()) };
        // The number may belong to another program by now: ours has the demo's folder among its arguments.
        let arguments = || fs::read(format!("/proc/{}/cmdline", process.as_raw_nonzero())).unwrap_or_default();
        let ours = || String::from_utf8_lossy(&arguments()).contains(&*folder.to_string_lossy());
        let deadline = Instant::now() + Duration::from_secs(5);
        while ours() && Instant::now() < deadline {
            let _ = kill_process(process, Signal::KILL);
            sleep(POLL);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_series_gained_is_told_with_its_labels() {
        let before = Metrics::parse("# TYPE a counter\na_sum{policy=\"x\",hook=\"naming\"} 1.5\nb 3\n");
        let after = Metrics::parse(
            "a_sum{policy=\"x\",hook=\"naming\"} 2.0\na_sum{policy=\"y\",hook=\"naming\"} 0.25\n\
             a_sum{policy=\"x\",hook=\"sidecar\"} 9\nb 3\n# EOF\n",
        );
        let passed = Metrics::passed(&before, &after, "a_sum", ("hook", "naming"));
        let passed: Vec<_> = passed.iter().map(|(labels, added)| (labels["policy"].as_str(), *added)).collect();
        assert_eq!(passed, [("x", 0.5), ("y", 0.25)]);
        assert!(Metrics::passed(&after, &after, "a_sum", ("hook", "naming")).is_empty());
    }
}
