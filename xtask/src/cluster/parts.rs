//! The programs that make a cluster: what each is started with, and how it is known to be ready.
//!
//! Every cluster has a network and a tree of folders of its own, so all of them have the same addresses and paths.

use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The node's address on its bridge. The loopback interface will not do: the node says its address to the API server.
pub(crate) const ADDRESS: &str = "10.180.0.1";
/// The node's name.
pub(crate) const NODE: &str = "pith-node";

const SERVICES: &str = "10.96.0.0/16";
const ETCD: &str = "http://127.0.0.1:2379";
const PKI: &str = "/var/lib/pki";
const KUBECONFIG: &str = "/var/lib/kubeconfig";

/// What a cluster is made of, so that a test starts what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tier {
    /// etcd, the API server, the controllers, the scheduler, and the kinds of the snapshots.
    Control,
    /// The programs that call a CSI driver for claims, and the one for snapshots.
    Csi,
    /// containerd, a kubelet and kube-proxy: pods run.
    Node,
}

impl Tier {
    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tier::Control => "control",
            Tier::Csi => "csi",
            Tier::Node => "node",
        }
    }
}

/// One program that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The program, which is also its name.
    pub(crate) name: &'static str,
    /// Why it runs.
    pub(crate) tier: Tier,
    /// It is started when every part of a smaller stage is ready.
    pub(crate) stage: u8,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// How it is known to be ready.
    pub(crate) ready: Probe,
}

/// How a part is known to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// It answers 200 here. Its certificate is not looked at: nobody else is on its network.
    Http(&'static str),
    /// It takes connections at this socket.
    Socket(&'static str),
    /// It runs: it has no way to say more, or waits for somebody else's socket.
    Runs,
}

/// Everything that can run. `config` is the folder of the configurations, `csi` the socket of the CSI driver.
pub(crate) fn parts(config: &Path, csi: &Path, cgroup: &str) -> Vec<Part> {
    let kubeconfig = |user: &str| format!("--kubeconfig={KUBECONFIG}/{user}.conf");
    let config = |file: &str| format!("{}", config.join(file).display());
    let csi_address = format!("--csi-address={}", csi.display());
    let part = |name, tier, stage, ready, arguments: &[&str]| Part {
        name,
        tier,
        stage,
        ready,
        arguments: arguments.iter().map(|it| it.to_string()).collect(),
    };
    use Probe::{Http, Runs, Socket};
    use Tier::{Control, Csi, Node};
    let admin = kubeconfig("super-admin");
    vec![
        part(
            "etcd",
            Control,
            0,
            Http("http://127.0.0.1:2379/readyz"),
            &[
                "--data-dir=/var/lib/etcd",
                &format!("--listen-client-urls={ETCD}"),
                &format!("--advertise-client-urls={ETCD}"),
                "--listen-peer-urls=http://127.0.0.1:2380",
                // What a test wrote need not outlive a power cut.
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
        ),
        part(
            "kube-apiserver",
            Control,
            1,
            Http("https://127.0.0.1:6443/readyz"),
            &[
                &format!("--etcd-servers={ETCD}"),
                &format!("--advertise-address={ADDRESS}"),
                &format!("--service-cluster-ip-range={SERVICES}"),
                &format!("--client-ca-file={PKI}/ca.crt"),
                &format!("--tls-cert-file={PKI}/apiserver.crt"),
                &format!("--tls-private-key-file={PKI}/apiserver.key"),
                &format!("--kubelet-client-certificate={PKI}/apiserver-kubelet-client.crt"),
                &format!("--kubelet-client-key={PKI}/apiserver-kubelet-client.key"),
                // Or logs and exec look the node's name up in DNS.
                "--kubelet-preferred-address-types=InternalIP",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                &format!("--service-account-key-file={PKI}/sa.pub"),
                &format!("--service-account-signing-key-file={PKI}/sa.key"),
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                &format!("--audit-policy-file={}", config("audit.yaml")),
                "--audit-log-path=/var/log/audit.log",
            ],
        ),
        part(
            "kube-controller-manager",
            Control,
            2,
            Http("https://127.0.0.1:10257/healthz"),
            &[
                &kubeconfig("controller-manager"),
                &format!("--root-ca-file={PKI}/ca.crt"),
                &format!("--cluster-signing-cert-file={PKI}/ca.crt"),
                &format!("--cluster-signing-key-file={PKI}/ca.key"),
                &format!("--service-account-private-key-file={PKI}/sa.key"),
                "--use-service-account-credentials=true",
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
            ],
        ),
        part(
            "kube-scheduler",
            Control,
            2,
            Http("https://127.0.0.1:10259/healthz"),
            &[&kubeconfig("scheduler"), "--leader-elect=false", "--bind-address=127.0.0.1"],
        ),
        part(
            "csi-provisioner",
            Csi,
            2,
            Runs,
            &[
                &admin,
                &csi_address,
                "--extra-create-metadata",
                "--leader-election=false",
                "--retry-interval-start=200ms",
                "--timeout=60s",
                "--v=2",
            ],
        ),
        part(
            "csi-resizer",
            Csi,
            2,
            Runs,
            &[
                &admin,
                &csi_address,
                "--leader-election=false",
                "--retry-interval-start=200ms",
                "--timeout=60s",
                "--v=2",
            ],
        ),
        part("csi-snapshotter", Csi, 2, Runs, &[&admin, &csi_address, "--leader-election=false", "--v=2"]),
        part("snapshot-controller", Csi, 2, Runs, &[&admin, "--leader-election=false", "--v=2"]),
        part("containerd", Node, 0, Socket("/run/containerd/containerd.sock"), &["--config=/var/lib/containerd.toml"]),
        part(
            "kube-proxy",
            Node,
            2,
            Http("http://127.0.0.1:10256/healthz"),
            &[&format!("--config={}", config("kube-proxy.yaml"))],
        ),
        part(
            "kubelet",
            Node,
            2,
            Http("http://127.0.0.1:10248/healthz"),
            &[
                &kubeconfig("kubelet"),
                &format!("--config={}", config("kubelet.yaml")),
                &format!("--hostname-override={NODE}"),
                &format!("--node-ip={ADDRESS}"),
                &format!("--cgroup-root=/{cgroup}"),
                "--v=2",
            ],
        ),
    ]
}
