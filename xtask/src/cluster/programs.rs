//! The programs of a cluster: built from the Go modules that pin them, once for each content of those, and kept in the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::parts::Tier;
use crate::command::{capture, run};
use crate::tools;
use crate::workspace::{cache, root};

/// What one call of `go build` makes.
struct Set {
    tier: Tier,
    /// The folder of its module in tests/cluster.
    module: &'static str,
    packages: &'static [&'static str],
    /// The C parts of runc: without its filters, an unprivileged container does not start.
    seccomp: bool,
}

/// In the order in which they are built.
const SETS: [Set; 6] = [
    Set {
        tier: Tier::Control,
        module: "kubernetes",
        packages: &[
            "go.etcd.io/etcd/server/v3",
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "k8s.io/kubernetes/cmd/kubeadm",
            "k8s.io/kubernetes/cmd/kubectl",
        ],
        seccomp: false,
    },
    HELM,
    Set {
        tier: Tier::Csi,
        module: "csi",
        packages: &[
            "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner",
            "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
            "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter",
            "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
        ],
        seccomp: false,
    },
    Set {
        tier: Tier::Node,
        module: "kubernetes",
        packages: &["k8s.io/kubernetes/cmd/kubelet", "k8s.io/kubernetes/cmd/kube-proxy"],
        seccomp: false,
    },
    Set {
        tier: Tier::Node,
        module: "containerd",
        packages: &[
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ],
        seccomp: false,
    },
    Set { tier: Tier::Node, module: "runc", packages: &["github.com/opencontainers/runc"], seccomp: true },
];

/// Also for charts that are rendered without a cluster.
const HELM: Set = Set { tier: Tier::Control, module: "helm", packages: &["helm.sh/helm/v4/cmd/helm"], seccomp: false };

/// No part of a cluster, but what one may keep its objects on.
const S3: Set =
    Set { tier: Tier::Node, module: "s3", packages: &["github.com/versity/versitygw/cmd/versitygw"], seccomp: false };

/// No parts of a cluster, but what policies come from and are signed with.
const REGISTRY: Set = Set {
    tier: Tier::Node,
    module: "registry",
    packages: &["github.com/distribution/distribution/v3/cmd/registry"],
    seccomp: false,
};
const COSIGN: Set =
    Set { tier: Tier::Node, module: "cosign", packages: &["github.com/sigstore/cosign/v3/cmd/cosign"], seccomp: false };

/// No part of a cluster either, but what Pith takes the place of.
const DRIVER: Set = Set {
    tier: Tier::Node,
    module: "driver",
    packages: &["github.com/juicedata/juicefs-csi-driver/cmd"],
    seccomp: false,
};

/// Programs of Debian that parts call, and the packages that have them.
const DEBIAN: [(Tier, &str, &str); 6] = [
    (Tier::Control, "unshare", "util-linux"),
    (Tier::Control, "nsenter", "util-linux"),
    (Tier::Control, "ip", "iproute2"),
    (Tier::Node, "iptables", "iptables"),
    (Tier::Node, "/usr/lib/cni/ptp", "containernetworking-plugins"),
    (Tier::Node, "/usr/include/seccomp.h", "libseccomp-dev pkg-config"),
];

/// The module that has the kinds of the snapshots.
const SNAPSHOT_KINDS: &str = "github.com/kubernetes-csi/external-snapshotter/client/v8";

/// What was built.
pub(crate) struct Programs {
    /// Folders for PATH.
    pub(crate) folders: Vec<PathBuf>,
    /// The definitions of the snapshots' kinds.
    pub(crate) kinds: PathBuf,
}

/// Builds what these tiers need, with what of the control plane they are made by.
pub(crate) fn build(tiers: &[Tier]) -> Result<Programs> {
    tools::require(&[("go", "golang-go"), ("cc", "gcc")])?;
    for (_, program, package) in DEBIAN.iter().filter(|(tier, ..)| *tier == Tier::Control || tiers.contains(tier)) {
        tools::package(program, package)?;
    }
    let intermediate = Intermediate::share()?;
    let mut folders = Vec::new();
    for set in SETS.iter().filter(|set| set.tier == Tier::Control || tiers.contains(&set.tier)) {
        folders.push(set.build(&intermediate)?);
    }
    intermediate.remove()?;
    let kinds = folders.first().context("the control plane is always built")?.join("kinds");
    Ok(Programs { folders, kinds })
}

/// Helm, for what needs no cluster.
pub(crate) fn helm() -> Result<PathBuf> {
    Ok(alone(&HELM)?.join("helm"))
}

/// The S3 server.
pub(crate) fn s3() -> Result<PathBuf> {
    Ok(alone(&S3)?.join("versitygw"))
}

/// A registry, and what signs what is in it.
pub(crate) fn registry() -> Result<()> {
    alone(&REGISTRY)?;
    alone(&COSIGN)?;
    Ok(())
}

/// The JuiceFS CSI driver.
pub(crate) fn driver() -> Result<PathBuf> {
    Ok(alone(&DRIVER)?.join(program(DRIVER.packages[0])))
}

/// The folder of the programs that call a CSI driver.
pub(crate) fn csi() -> Result<PathBuf> {
    alone(SETS.iter().find(|set| set.tier == Tier::Csi).context("there is a set of them")?)
}

fn alone(set: &Set) -> Result<PathBuf> {
    tools::require(&[("go", "golang-go")])?;
    let intermediate = Intermediate::share()?;
    let folder = set.build(&intermediate)?;
    intermediate.remove()?;
    Ok(folder)
}

/// The version of Kubernetes, such as `v1.36.3`, from where it is pinned.
pub(crate) fn version() -> Result<String> {
    let file = module("kubernetes").join("go.mod");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let mut words = text.lines().map(|line| line.trim().trim_start_matches("require "));
    let line = words.find_map(|line| line.strip_prefix("k8s.io/kubernetes "));
    let version = line.and_then(|rest| rest.split_whitespace().next());
    Ok(version.with_context(|| format!("{} does not name k8s.io/kubernetes", file.display()))?.to_string())
}

impl Set {
    fn build(&self, intermediate: &Intermediate) -> Result<PathBuf> {
        let module = module(self.module);
        let flags = self.flags()?;
        let go = capture(Command::new("go").args(["env", "GOVERSION", "GOOS", "GOARCH"]))?;
        let mut content = Sha256::new();
        for file in ["go.mod", "go.sum"] {
            content.update(fs::read(module.join(file)).with_context(|| format!("reading {file} of {}", self.module))?);
        }
        content.update(format!("{go}{flags:?}{:?}", self.packages));
        let name = format!("cluster-{}-{}-{}", self.tier.name(), self.module, &hex(&content.finalize())[..16]);
        tools::cached(&name, |folder| self.make(&module, &flags, intermediate, folder))
    }

    fn flags(&self) -> Result<Vec<String>> {
        let mut linking = "-s -w".to_string();
        if self.module == "kubernetes" {
            // Or the programs say that they are v0.0.0, and clients that look at a version misbehave.
            let version = version()?;
            let mut numbers = version.trim_start_matches('v').split('.');
            let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
            for (name, value) in [("gitVersion", &*version), ("gitMajor", major), ("gitMinor", minor)] {
                linking.push_str(&format!(" -X k8s.io/component-base/version.{name}={value}"));
            }
        }
        let mut flags = vec!["-mod=readonly".to_string(), "-trimpath".into(), "-ldflags".into(), linking];
        if self.seccomp {
            flags.extend(["-tags".into(), "seccomp".into()]);
        }
        Ok(flags)
    }

    fn make(&self, module: &Path, flags: &[String], intermediate: &Intermediate, folder: &Path) -> Result<()> {
        let names: Vec<&str> = self.packages.iter().map(|package| program(package)).collect();
        println!("building {} (minutes, once)", names.join(", "));
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        for package in self.packages {
            let mut go = Command::new("go");
            go.current_dir(module).env("CGO_ENABLED", if self.seccomp { "1" } else { "0" });
            go.env("GOCACHE", &intermediate.folder).env("GOFLAGS", "");
            run(go.arg("build").args(flags).arg("-o").arg(folder.join(program(package))).arg(package))?;
        }
        if self.module == "kubernetes" && self.tier == Tier::Control {
            // Of a module of its own, because its dependencies clash with those of Kubernetes.
            let go = |arguments: &[&str]| capture(Command::new("go").current_dir(self::module("csi")).args(arguments));
            go(&["mod", "download", SNAPSHOT_KINDS])?;
            let kinds = go(&["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", SNAPSHOT_KINDS])?;
            copy_kinds(&Path::new(kinds.trim()).join("config/crd"), &folder.join("kinds"))?;
        }
        Ok(())
    }
}

/// The stable kinds only: those of groups of snapshots are behind a feature gate.
fn copy_kinds(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if name.to_string_lossy().starts_with("snapshot.storage") {
            // A copy keeps the mode, and files of the module cache are read-only.
            let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            fs::write(to.join(name), text).with_context(|| format!("writing to {}", to.display()))?;
        }
    }
    Ok(())
}

/// The name of a package's program.
fn program(package: &str) -> &str {
    let last = package.rsplit('/').next().unwrap_or(package);
    match last {
        // As `go.etcd.io/etcd/server/v3`, whose program everybody calls etcd.
        _ if package.starts_with("go.etcd.io/etcd/") => "etcd",
        "cmd" => package.trim_end_matches("/cmd").rsplit('/').next().unwrap_or(package),
        _ => last,
    }
}

fn module(name: &str) -> PathBuf {
    root().join("tests/cluster").join(name)
}

/// Where Go keeps what it has compiled: gigabytes that only another version of a module would need, most of which it would
/// not find there. A build that was cut goes on from it.
struct Intermediate {
    folder: PathBuf,
    /// Shared by the commands that build, as each would remove it under the others.
    lock: File,
}

impl Intermediate {
    fn share() -> Result<Self> {
        let cache = cache()?;
        fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
        let lock = File::create(cache.join("go-build.lock")).context("making the lock of Go's intermediate files")?;
        lock.lock_shared().context("waiting for another command that removes the intermediate files of Go")?;
        Ok(Self { folder: cache.join("go-build"), lock })
    }

    /// Leaves it to the last of those that share it.
    fn remove(self) -> Result<()> {
        self.lock.unlock().context("letting go of Go's intermediate files")?;
        if self.lock.try_lock().is_ok() && self.folder.exists() {
            fs::remove_dir_all(&self.folder).context("removing the intermediate files of Go")?;
        }
        Ok(())
    }
}

/// In hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
