//! The first process of a cluster's namespaces: sets up what is theirs, starts the parts, and starts those again that end.
//!
//! When it ends, however it does, the kernel ends everything in its process namespace, and with the last process the network
//! and the mounts are gone. So nothing has to be cleaned up but files and cgroups, and the end of a cluster cannot fail halfway.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{WaitOptions, WaitStatus, wait};
use ureq::Agent;
use ureq::tls::TlsConfig;

use super::parts::{ADDRESS, Part, Probe, parts};
use super::place::{PartState, PartStatus, Place, Status, Wanted};
use super::{cgroups, config, fuse};
use crate::command::{POLL, capture, run, spawn};

/// The most time for one answer to a probe.
const PROBE: Duration = Duration::from_secs(1);
/// The wait before a part that ended is started again; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest of these waits.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A part that ran for so long was well: the next wait is the first one again.
const WELL: Duration = Duration::from_secs(30);

/// Keeps a cluster until it is killed. Must be the first process of namespaces of its own.
pub(crate) fn keep(place: &Place, version: &str) -> Result<()> {
    anyhow::ensure!(std::process::id() == 1, "this is run by `cargo xtask cluster up`, in namespaces of its own");
    let _lock = place.keep()?.context("another keeper of this cluster runs")?;
    mounts(place)?;
    network()?;
    // After a crash, the kubelet would look for the containers of each that is left, for three seconds each. What keeps one is a
    // process that has not ended yet; that costs the time and nothing else.
    let _ = cgroups::remove(&place.cgroup());
    cgroups::make(&place.cgroup())?;
    identities(version)?;
    let containerd = config("containerd.toml")?.replace("${CONFIG}", &super::config_folder().display().to_string());
    fs::write("/var/lib/containerd.toml", containerd).context("writing containerd's configuration")?;

    let mut running: Vec<Running> =
        parts(&super::config_folder(), &place.csi_socket(), &place.cgroup()).into_iter().map(Running::new).collect();
    let probe = Agent::config_builder().tls_config(TlsConfig::builder().disable_verification(true).build());
    let probe: Agent = probe.timeout_global(Some(PROBE)).build().into();
    let mut said = None;
    // All that there ever were: one whose mount is gone may be the one that is stuck.
    let mut connections = place.connections();
    loop {
        while let Ok(Some((process, status))) = wait(WaitOptions::NOHANG) {
            // Or one that lost its parent, which is only to be waited for.
            let process = process.as_raw_nonzero().get();
            if let Some(part) = running.iter_mut().find(|part| part.process == Some(process)) {
                part.ended(how(status));
            }
        }
        let Wanted { tiers, path } = place.wanted();
        let wanted = || running.iter().filter(|part| tiers.contains(&part.part.tier));
        let stage = wanted().filter(|it| !it.ready && it.part.ready != Probe::Runs).map(|it| it.part.stage).min();
        for part in running.iter_mut().filter(|part| tiers.contains(&part.part.tier)) {
            if stage.is_none_or(|stage| part.part.stage <= stage) {
                part.start_if_due(place, &path)?;
            }
            part.look(&probe);
        }
        let status =
            Status { parts: running.iter().filter(|it| tiers.contains(&it.part.tier)).map(Running::status).collect() };
        if said.as_ref() != Some(&status) {
            place.set_status(&status)?;
            said = Some(status);
        }
        let now = fuse::connections("self");
        if !now.is_subset(&connections) {
            connections.extend(now);
            place.set_connections(&connections)?;
        }
        sleep(POLL);
    }
}

/// One part, while the keeper lives.
struct Running {
    part: Part,
    process: Option<i32>,
    ready: bool,
    started: Instant,
    next_start: Instant,
    wait: Duration,
    restarts: u32,
    last_end: Option<String>,
}

impl Running {
    fn new(part: Part) -> Running {
        let now = Instant::now();
        Running {
            part,
            process: None,
            ready: false,
            started: now,
            next_start: now,
            wait: FIRST_WAIT,
            restarts: 0,
            last_end: None,
        }
    }

    fn start_if_due(&mut self, place: &Place, path: &str) -> Result<()> {
        if self.process.is_some() || Instant::now() < self.next_start {
            return Ok(());
        }
        self.restarts += u32::from(self.last_end.is_some());
        let log = place.log(self.part.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let mut command = Command::new(self.part.name);
        command.args(&self.part.arguments).env("PATH", path);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.started = Instant::now();
        match spawn(&mut command) {
            // It is waited for with all the others, and its handle kills nothing when it is dropped.
            Ok(child) => self.process = i32::try_from(child.id()).ok(),
            Err(error) => self.ended(error.to_string()),
        }
        Ok(())
    }

    fn ended(&mut self, how: String) {
        if self.started.elapsed() > WELL {
            self.wait = FIRST_WAIT;
        }
        (self.process, self.ready, self.last_end) = (None, false, Some(how));
        self.next_start = Instant::now() + self.wait;
        self.wait = (2 * self.wait).min(LONGEST_WAIT);
    }

    fn look(&mut self, agent: &Agent) {
        if self.process.is_none() || self.ready {
            return;
        }
        self.ready = match self.part.ready {
            Probe::Http(url) => agent.get(url).call().is_ok(),
            Probe::Socket(path) => UnixStream::connect(path).is_ok(),
            Probe::Runs => true,
        };
    }

    fn status(&self) -> PartStatus {
        PartStatus {
            name: self.part.name.to_string(),
            tier: self.part.tier,
            state: match (self.process, self.ready) {
                (None, _) => PartState::Waiting,
                (Some(_), false) => PartState::Starting,
                (Some(_), true) => PartState::Ready,
            },
            restarts: self.restarts,
            last_end: self.last_end.clone(),
        }
    }
}

fn how(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "an unknown end".to_string(),
    }
}

/// What programs write to at fixed places goes to the cluster's folder.
fn mounts(place: &Place) -> Result<()> {
    // What another keeper left there belongs to processes that are gone.
    let [(run_folder, _), ..] = place.binds();
    fs::remove_dir_all(&run_folder).and_then(|()| fs::create_dir_all(&run_folder)).context("emptying /run")?;
    for (folder, inside) in place.binds() {
        run(Command::new("mount").arg("--bind").arg(folder).arg(inside))?;
        // What a pod mounts Bidirectional spreads from here to the node, and to pods that mount HostToContainer.
        run(Command::new("mount").args(["--make-shared", inside]))?;
    }
    Ok(())
}

/// A node's address, and a route for the addresses of Services, which kube-proxy turns into those of pods.
fn network() -> Result<()> {
    let address = format!("{ADDRESS}/24");
    let steps: [&[&str]; 5] = [
        &["link", "set", "lo", "up"],
        // The kernel here has no dummy device; a bridge that nothing is attached to is one.
        &["link", "add", "node0", "type", "bridge"],
        &["address", "add", &address, "dev", "node0"],
        &["link", "set", "node0", "up"],
        &["route", "add", "default", "dev", "node0"],
    ];
    for step in steps {
        run(Command::new("ip").args(step))?;
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("letting the node forward what pods send")
}

/// Certificates and kubeconfigs, made once by kubeadm.
fn identities(version: &str) -> Result<()> {
    let (kubeconfigs, file) = (Path::new("/var/lib/kubeconfig"), PathBuf::from("/var/lib/kubeadm.yaml"));
    // The last thing that is made here.
    if kubeconfigs.is_dir() {
        return Ok(());
    }
    fs::write(&file, config("kubeadm.yaml")?.replace("${VERSION}", version))
        .context("writing kubeadm's configuration")?;
    let phase = |phase: &[&str]| {
        capture(Command::new("kubeadm").args(["init", "phase"]).args(phase).arg("--config").arg(&file))
    };
    phase(&["certs", "all"])?;
    let partial = kubeconfigs.with_extension("partial");
    phase(&["kubeconfig", "all", "--kubeconfig-dir", &partial.display().to_string()])?;
    fs::rename(&partial, kubeconfigs).context("putting the kubeconfigs into place")
}
