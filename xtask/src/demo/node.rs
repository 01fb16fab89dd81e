//! A node for one pod: private namespaces in which its containers run as processes.
//!
//! Mounts, processes and network are the node's own. So nothing is ever mounted where this machine sees it, nothing listens on
//! its addresses, and when the demo goes away, however it does, the kernel ends the containers and drops their mounts with the
//! namespaces. Deliberately absent: images and cgroups. A container's root has this machine's /usr, and limits are not enforced.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::kubelet::{Container, Probe, Propagation};
use crate::command::{POLL, both, output, spawn, wait};
use crate::terminal::seconds;
use crate::tools;
use crate::workspace::relative;

/// The programs that make the namespaces, and Debian's packages that have them.
const PROGRAMS: [(&str, &str); 7] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("chroot", "coreutils"),
    ("sh", "dash"),
];
/// What a node has of its own.
const NAMESPACES: [&str; 7] = ["--mount", "--pid", "--net", "--fork", "--kill-child", "--propagation", "private"];
/// How long a container may take to set itself up, and one that runs to its end to get there.
const PATIENCE: Duration = Duration::from_secs(30);
/// `terminationGracePeriodSeconds` of a pod that does not say.
const GRACE: Duration = Duration::from_secs(30);
/// The type of a JuiceFS mount in /proc/PID/mountinfo.
const JUICEFS_MOUNT: &str = " fuse.juicefs ";

/// The node. Dropped, everything in it ends.
pub(crate) struct Node {
    /// Whose end is the node's end; closing its standard input ends it.
    keeper: Child,
    /// The first process in the namespaces, by its number on this machine.
    init: u32,
    folder: PathBuf,
    client: PathBuf,
    state: PathBuf,
}

/// A container that runs.
pub(crate) struct Running {
    child: Child,
    process: u32,
    log: PathBuf,
    container: Container,
}

/// How often and for how long a startup probe was tried.
pub(crate) struct Started {
    /// The tries, the last of which succeeded.
    pub(crate) tries: u64,
    /// Since the container's start.
    pub(crate) after: Duration,
}

/// The first thing that this machine lacks for a node.
pub(crate) fn lacking() -> Result<Option<&'static str>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Some("root"));
    }
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        return Ok(Some("/dev/fuse"));
    }
    tools::require(&PROGRAMS)?;
    // Root in an ordinary container has the name without the rights.
    let tried = output(Command::new("unshare").args(NAMESPACES).arg("true"))?;
    Ok((!tried.status.success()).then_some("the right to make namespaces (CAP_SYS_ADMIN)"))
}

impl Node {
    /// Makes a node whose files go to `folder`. `client` is the JuiceFS client of its image, `state` the file system's folder.
    pub(crate) fn start(folder: &Path, client: &Path, state: &Path) -> Result<Node> {
        for name in ["volumes", "root"] {
            fs::create_dir_all(folder.join(name)).with_context(|| format!("making {}", relative(folder)))?;
        }
        // The two `kill`s make a chain: this process, unshare, the first process in the namespaces, every other one in them.
        let mut keeper = Command::new("setpriv");
        keeper.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"]);
        keeper
            .args(["--propagation", "private", "sh", "-c", include_str!("node.sh"), "node"])
            .arg(folder.join("volumes"));
        let mut keeper = spawn(keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()))?;
        let mut first = String::new();
        let said = keeper.stdout.take().map(|output| BufReader::new(output).read_line(&mut first));
        said.transpose().context("starting the demo's node")?;
        let init = first.trim().parse().context("the demo's node did not start: see above for what its shell said")?;
        Ok(Node { keeper, init, folder: folder.into(), client: client.into(), state: state.into() })
    }

    /// Makes an emptyDir.
    pub(crate) fn add_volume(&self, name: &str) -> Result<()> {
        let folder = self.volume(name);
        fs::create_dir(&folder).with_context(|| format!("making {}", relative(&folder)))?;
        // As the kubelet makes them: any uid of the pod may write.
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .context("opening an emptyDir to all")
    }

    /// Starts a container, and waits for its startup probe if it has one.
    pub(crate) fn start_container(&self, container: Container) -> Result<(Running, Option<Started>)> {
        let started = Instant::now();
        let log = self.folder.join(format!("{}.log", container.name));
        let output = File::create(&log).with_context(|| format!("making {}", relative(&log)))?;
        let mut command = self.command(&container);
        let child = spawn(command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output))?;
        let mut running = Running { child, process: 0, log, container };
        running.process = self.process(&mut running)?;
        let probed = match &running.container.startup {
            Some(probe) => Some(self.probe(&running, probe, started)?),
            None => None,
        };
        Ok((running, probed))
    }

    /// Runs a container to its end, with this text as its standard input.
    pub(crate) fn run_container(&self, container: &Container, input: &str) -> Result<Output> {
        let mut command = self.command(container);
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        // A program that ends without reading all of it is not an error.
        child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        if wait(&mut child, PATIENCE)?.is_none() {
            child.kill().context("ending a container")?;
            bail!("`{}` still runs after {} s", container.name, PATIENCE.as_secs());
        }
        child.wait_with_output().context("reading what a container said")
    }

    /// Stops a container as the kubelet does: its preStop hook, SIGTERM, and no patience without end.
    pub(crate) fn stop_container(&self, mut running: Running) -> Result<Duration> {
        let started = Instant::now();
        if let Some(hook) = &running.container.pre_stop {
            let said = output(&mut self.exec(&running, hook))?;
            if !said.status.success() {
                bail!("the preStop hook of `{}` failed: {}", running.container.name, both(&said));
            }
        }
        let process = i32::try_from(running.process).ok().and_then(Pid::from_raw).context("no process id")?;
        match kill_process(process, Signal::TERM) {
            // A client whose mount the hook took away ends by itself.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("stopping `{}`", running.container.name)),
        }
        if wait(&mut running.child, GRACE)?.is_none() {
            bail!(
                "`{}` still runs {} s after SIGTERM\n{}",
                running.container.name,
                GRACE.as_secs(),
                running.last_words()
            );
        }
        Ok(started.elapsed())
    }

    /// The JuiceFS mounts of the node's volumes, as it and this machine see them. Elsewhere, whoever runs it may have others.
    pub(crate) fn juicefs_mounts(&self) -> Result<Vec<String>> {
        // As /proc/PID/mountinfo writes it.
        let folder =
            fs::canonicalize(&self.folder).with_context(|| format!("looking at {}", relative(&self.folder)))?;
        let folder = folder.display().to_string().replace(' ', "\\040");
        let is_ours = |line: &&str| {
            line.contains(JUICEFS_MOUNT) && line.split(' ').nth(4).is_some_and(|point| point.starts_with(&folder))
        };
        let mut mounts = Vec::new();
        for process in [self.init.to_string(), "self".into()] {
            let file = format!("/proc/{process}/mountinfo");
            let table = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
            mounts.extend(table.lines().filter(is_ours).map(String::from));
        }
        Ok(mounts)
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.folder.join("volumes").join(name)
    }

    fn command(&self, container: &Container) -> Command {
        let mut command = self.enter(self.init);
        command.args(["--", "unshare", "--mount", "--propagation", "unchanged", "sh", "-c"]);
        command.arg(include_str!("container.sh")).arg("container");
        command.arg(self.folder.join("root")).arg(self.process_file(container)).arg(container.user.to_string());
        command.arg(&self.client).arg(if container.privileged { self.state.as_path() } else { Path::new("") });
        for mount in &container.mounts {
            let propagation = match mount.propagation {
                Propagation::None => "rprivate",
                Propagation::HostToContainer => "rslave",
                Propagation::Bidirectional => "rshared",
            };
            command.arg(self.volume(&mount.volume)).arg(&mount.path);
            command.args([propagation, if mount.read_only { "ro" } else { "rw" }]);
        }
        command.arg("--").args(&container.argv).env_clear().envs(&container.env);
        command
    }

    /// A command in a running container.
    fn exec(&self, running: &Running, argv: &[String]) -> Command {
        let mut command = self.enter(running.process);
        command.args(["--root", "--wd", "--"]).args(argv).env_clear().envs(&running.container.env);
        command
    }

    fn enter(&self, process: u32) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &process.to_string(), "--mount", "--pid", "--net"]);
        command
    }

    fn process_file(&self, container: &Container) -> PathBuf {
        self.folder.join(format!("{}.pid", container.name))
    }

    /// The container's process, once it says so.
    fn process(&self, running: &mut Running) -> Result<u32> {
        let file = self.process_file(&running.container);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let written = fs::read_to_string(&file).unwrap_or_default();
            if let Some(process) = written.strip_suffix('\n') {
                return process.parse().context("reading the process id of a container");
            }
            if running.child.try_wait().context("waiting for a container")?.is_some() {
                break;
            }
            sleep(POLL);
        }
        bail!("`{}` did not start\n{}", running.container.name, running.last_words())
    }

    fn probe(&self, running: &Running, probe: &Probe, started: Instant) -> Result<Started> {
        let mut last = String::new();
        for tries in 1..=probe.failures {
            let mut command = self.exec(running, &probe.command);
            let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
            match wait(&mut child, probe.timeout)? {
                Some(status) if status.success() => return Ok(Started { tries, after: started.elapsed() }),
                Some(status) => last = status.to_string(),
                None => {
                    child.kill().context("ending a probe")?;
                    last = format!("no answer in {}", seconds(probe.timeout));
                }
            }
            if !Path::new("/proc").join(running.process.to_string()).exists() {
                bail!("`{}` ended before it was ready\n{}", running.container.name, running.last_words());
            }
            sleep(probe.period);
        }
        let command = probe.command.join(" ");
        bail!("the probe `{command}` failed {} times ({last})\n{}", probe.failures, running.last_words())
    }
}

impl Running {
    /// What the container's program is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.container.name
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n");
        format!("the last lines of {}:\n{last}", relative(&self.log))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Closing its input ends the first process, and the kernel every other one in the namespaces.
        drop(self.keeper.stdin.take());
        let ended = wait(&mut self.keeper, Duration::from_secs(5));
        if !matches!(ended, Ok(Some(_))) {
            let _ = self.keeper.kill();
            let _ = self.keeper.wait();
        }
    }
}
