//! The test cluster itself: whatever is killed, the next `up` repairs it, and `down` leaves nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pith_tests::server::root;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PARTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// A cluster of one test alone; it goes down when the test fails.
pub(crate) struct Own {
    pub(crate) name: String,
}

impl Own {
    /// Of the test with this name, and of no other process.
    pub(crate) fn of(test: &str) -> Own {
        Own { name: format!("{test}-{}", std::process::id()) }
    }

    fn folder(&self) -> PathBuf {
        root().join("target/clusters").join(&self.name)
    }

    pub(crate) fn xtask(&self, action: &str, tiers: &[&str]) -> String {
        let mut xtask = Command::new("cargo");
        xtask.args(["run", "--quiet", "--package", "xtask", "--", "cluster", action, "--name", &self.name]).args(tiers);
        let output = xtask.current_dir(root()).stdin(Stdio::null()).output().expect("cargo runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "cluster {action}: {said}");
        said
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let output = Command::new(self.folder().join("bin/kubectl")).args(arguments).output().expect("kubectl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn read(&self, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.folder().join(file)).expect("a file")).expect("JSON")
    }

    /// The namespaces of this cluster.
    fn namespaces(&self) -> BTreeSet<String> {
        let namespaces = self.read("keeper.json")["namespaces"].take();
        serde_json::from_value(namespaces).expect("a list of names")
    }

    /// Kills a part, and waits until it was started again.
    pub(crate) fn kill(&self, part: &str) {
        let (namespaces, before) = (self.namespaces(), self.state_of(part));
        let inside = |(_, its, line): &(i32, BTreeSet<String>, String)| {
            !its.is_disjoint(&namespaces) && line.split(' ').next() == Some(part)
        };
        kill(processes().iter().find(|it| inside(it)).expect("it runs").0);
        let restarts = before["restarts"].as_u64().expect("a number") + 1;
        until(part, || self.state_of(part)["restarts"] == restarts);
    }

    fn state_of(&self, part: &str) -> Value {
        let parts = self.read("status.json")["parts"].take();
        let mut parts = parts.as_array().expect("a list").iter();
        parts.find(|it| it["name"] == part).cloned().expect("a part")
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut down = Command::new("cargo");
            down.args(["run", "--quiet", "--package", "xtask", "--", "cluster", "down", "--name", &self.name]);
            let _ = down.current_dir(root()).status();
        }
    }
}

/// Every process, with its namespaces and its command line.
pub(crate) fn processes() -> Vec<(i32, BTreeSet<String>, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("a /proc").flatten() {
        let Ok(process) = entry.file_name().to_string_lossy().parse() else { continue };
        let namespaces = fs::read_dir(entry.path().join("ns")).into_iter().flatten().flatten();
        let namespaces =
            namespaces.filter_map(|it| Some(fs::read_link(it.path()).ok()?.to_string_lossy().into_owned()));
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        found.push((process, namespaces.collect(), String::from_utf8_lossy(&line).replace('\0', " ")));
    }
    found
}

fn kill(process: i32) {
    let process = Pid::from_raw(process).expect("a process");
    kill_process(process, Signal::KILL).expect("it can be killed");
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_cluster_outlives_the_death_of_its_parts_and_leaves_nothing_behind() {
    let own = Own::of("own");
    own.xtask("up", &[]);
    own.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);

    for part in PARTS {
        own.kill(part);
    }
    own.xtask("up", &[]);
    for part in PARTS {
        assert_eq!(own.state_of(part)["state"], "ready", "{part}");
    }
    own.kubectl(&["get", "configmap", "kept"]);

    // Both processes that everything hangs on, one after the other.
    for which in ["process", "outer"] {
        let namespaces = own.namespaces();
        let process = own.read("keeper.json")[which].as_i64().expect("a number");
        kill(i32::try_from(process).expect("a process"));
        until("its processes end", || processes().iter().all(|(_, its, _)| its.is_disjoint(&namespaces)));
        own.xtask("up", &[]);
        own.kubectl(&["get", "configmap", "kept"]);
    }

    let namespaces = own.namespaces();
    let said = own.xtask("down", &[]);
    assert!(said.contains(&format!("cluster `{}` is gone", own.name)), "{said}");
    assert!(!own.folder().exists());
    // Its network and its mounts are gone with the last process in its namespaces.
    let folder = own.folder().display().to_string();
    let left: Vec<_> = processes();
    let left: Vec<_> =
        left.iter().filter(|(_, its, line)| !its.is_disjoint(&namespaces) || line.contains(&folder)).collect();
    assert!(left.is_empty(), "{left:#?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&folder), "{mounts}");
    let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten();
    let roots = hierarchies.map(|it| it.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
    let cgroups = roots.flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
    let own_cgroup = format!("pith-{}-", own.name);
    let left: Vec<_> = cgroups.filter(|it| it.file_name().to_string_lossy().starts_with(&own_cgroup)).collect();
    assert!(left.is_empty(), "{left:?}");
}
