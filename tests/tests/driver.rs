//! A cluster moves from the JuiceFS CSI driver to Pith and back while pods run: docs/migration.md, with the driver itself.
//!
//! The driver is one process, its webhook and its own provisioner. It and Pith have a driver's name of this test alone, so that
//! volumes of other tests are nobody's business here.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pith_tests::cluster::{ADDRESS, CLUSTER, Cluster, Namespace, static_volume};
use pith_tests::juicefs::{CLIENT, VERSION};
use pith_tests::redis::Redis;
use pith_tests::server::{PITH, Server};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{driver, driver_of, of_sidecar, said, yaml};

/// The name of the driver that both are.
const NAME: &str = "moving.csi.test";
/// Where the driver's webhook listens.
const PORT: &str = "9444";
/// Where a pod has the token of its account. The node has a /run of its own.
const ACCOUNT: &str = "run/secrets/kubernetes.io/serviceaccount";

/// A namespace that both inject into, and what the driver needs to run.
struct Site {
    cluster: &'static Cluster,
    namespace: Namespace,
    /// Its certificate, configuration, socket and log.
    folder: TempDir,
    ca: String,
    redis: Redis,
}

/// The driver; it is killed when dropped.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Site {
    /// With two classes, of which one has a pattern for directories, a claim `data` of a volume that was made by hand, and a file system that nobody has made yet.
    fn new() -> Site {
        let cluster = &*CLUSTER;
        let redis = Redis::start_on(cluster, ADDRESS).expect("a Redis");
        let labels = json!({"juicefs.com/enable-injection": "true"});
        let namespace = cluster.namespace("moving", &labels).expect("a namespace");
        let name = &*namespace.name;
        let mut own = driver();
        own["metadata"]["name"] = json!(NAME);
        let secret = json!({"namespace": name, "name": "file-system"});
        let mut volume = static_volume(name, "data");
        volume[0]["spec"]["csi"]["driver"] = json!(NAME);
        volume[0]["spec"]["csi"]["nodePublishSecretRef"] = secret.clone();
        // What has the whole file system uses the directories of all others.
        volume[0]["spec"]["mountOptions"] = json!(["subdir=data"]);
        let mut parameters = json!({});
        for what in ["provisioner", "controller-expand", "node-publish"] {
            parameters[format!("csi.storage.k8s.io/{what}-secret-name")] = secret["name"].clone();
            parameters[format!("csi.storage.k8s.io/{what}-secret-namespace")] = secret["namespace"].clone();
        }
        let class = |name: &str, parameters: &Value| {
            json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
                "provisioner": NAME, "parameters": parameters, "reclaimPolicy": "Delete", "allowVolumeExpansion": true,
            })
        };
        let plain = class(name, &parameters);
        parameters["pathPattern"] = json!("${.pvc.namespace}/of-${.pvc.name}");
        let named = class(&format!("{name}-named"), &parameters);
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": name, "name": "driver"}});
        let rights = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "namespace": name, "name": "driver"}],
        });
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": secret, "stringData": redis.secrets()});
        cluster.apply(&yaml(&[&[own, plain, named, account, rights, secret][..], &volume].concat())).expect("objects");
        cluster.wait(name, "jsonpath={.status.phase}=Bound", "pvc/data").expect("it is bound");

        let token = cluster.kubectl(&["create", "token", "driver", "--namespace", name]).expect("a token");
        let folder = cluster.folder().join(ACCOUNT);
        fs::create_dir_all(&folder).expect("a folder");
        fs::copy(cluster.folder().join("lib/pki/ca.crt"), folder.join("ca.crt")).expect("the cluster's CA");
        fs::write(folder.join("token"), token.trim()).expect("it is written");

        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_string()]).expect("an address");
        let ca = certificate.self_signed(&key).expect("a certificate").pem();
        // What it asks for by default would fill a small node, and its cache would lie on this machine.
        let patch = json!({
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
            "cacheDirs": [{"type": "EmptyDir", "sizeLimit": "64Mi"}],
        });
        for (file, text) in [
            ("tls.crt", &ca),
            ("tls.key", &key.serialize_pem()),
            ("config.yaml", &json!({"mountPodPatch": [patch]}).to_string()),
        ] {
            fs::write(folder.path().join(file), text).expect("it is written");
        }
        Site { cluster, namespace, folder, ca, redis }
    }

    fn name(&self) -> &str {
        &self.namespace.name
    }

    fn driver(&self) -> Driver {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let program = self.cluster.folder().join("bin/juicefs-csi-driver");
        assert!(
            program.exists(),
            "{} is missing: `cargo xtask cluster up --name tests csi node` makes it",
            program.display()
        );
        let socket = file("csi.sock");
        let _ = fs::remove_file(&socket);
        let log = fs::File::options().create(true).append(true).open(file("log")).expect("a log");
        // It looks for the client where its own image has it, which is seen by this process alone.
        let prepare = "mount -t tmpfs client /usr/local/bin && ln -s \"$0\" /usr/local/bin/juicefs && exec \"$@\"";
        let mut command = self.cluster.beside_node(Path::new("unshare"));
        command.args(["--mount", "sh", "-c", prepare]).args([&*CLIENT, &program]);
        command.args([
            &format!("--endpoint=unix://{socket}"),
            "--nodeid=pith-node",
            "--webhook",
            "--provisioner",
            &format!("--webhook-port={PORT}"),
            &format!("--webhook-cert-dir={}", self.folder.path().display()),
            &format!("--config={}", file("config.yaml")),
        ]);
        command.envs([
            ("KUBERNETES_SERVICE_HOST", ADDRESS),
            ("KUBERNETES_SERVICE_PORT", "6443"),
            ("DRIVER_NAME", NAME),
            // By this it knows which part of the driver it is.
            ("POD_NAME", "juicefs-csi-controller-0"),
            ("NODE_NAME", "pith-node"),
            ("JUICEFS_MOUNT_NAMESPACE", self.name()),
            ("JUICEFS_MOUNT_PATH", "/var/lib/juicefs/volume"),
            ("JUICEFS_CONFIG_PATH", "/var/lib/juicefs/config"),
            ("JUICEFS_CE_MOUNT_IMAGE", &format!("docker.io/pith/mount:{}", *VERSION)),
            // Or its sidecars mount a file of the node's /etc.
            ("JUICEFS_IMMUTABLE", "true"),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Driver(command.spawn().expect("it starts"))
    }

    /// Registers the driver's webhook under this name.
    fn register_driver(&self, configuration: &str) {
        let webhook = json!({
            "name": "sidecar.inject.juicefs.com",
            "clientConfig": {
                "url": format!("https://127.0.0.1:{PORT}/juicefs/inject-v1-pod"), "caBundle": STANDARD.encode(&self.ca),
            },
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {
                "juicefs.com/enable-injection": "true", "kubernetes.io/metadata.name": self.name(),
            }},
            "admissionReviewVersions": ["v1", "v1beta1"],
            "sideEffects": "None",
            "timeoutSeconds": 20,
        });
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": configuration}, "webhooks": [webhook],
        });
        self.cluster.apply(&configuration.to_string()).expect("a webhook can be registered");
    }

    fn unregister(&self, configuration: &str) {
        self.cluster.kubectl(&["delete", "mutatingwebhookconfiguration", configuration]).expect("it is deleted");
    }

    /// Pith's webhook and controller, whose CSI half listens at this socket.
    fn pith(&self, socket: &Path) -> Server {
        let config = [
            ("driver", json!(NAME)),
            ("driverConfig", json!(self.folder.path().join("config.yaml"))),
            ("sidecar", of_sidecar()),
            ("csi", json!({"socket": socket, "cluster": "test"})),
            ("controller", json!({})),
            ("juicefs", json!({"client": *CLIENT, "startTimeout": "60s", "callTimeout": "30s"})),
        ];
        let config: String = config.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        let kubeconfig = self.cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
        let server = Server::start_following(self.cluster, &config, &kubeconfig).expect("it serves");
        self.cluster.show_log(&server.folder.path().join("log"));
        self.cluster.register(self.name(), &server).expect("a webhook can be registered");
        server
    }

    /// A claim of the class, once somebody has made its volume. The answer is the volume.
    fn claim(&self, claim: &str) -> Value {
        self.claim_of(claim, self.name())
    }

    fn claim_of(&self, claim: &str, class: &str) -> Value {
        let spec = json!({
            "accessModes": ["ReadWriteMany"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}},
        });
        let metadata = json!({"namespace": self.name(), "name": claim});
        let object = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec});
        self.cluster.apply(&object.to_string()).expect("a claim");
        let bound = "jsonpath={.status.phase}=Bound";
        self.cluster.wait(self.name(), bound, &format!("pvc/{claim}")).expect("its volume is made");
        let claim = self.cluster.get(&["pvc", claim, "--namespace", self.name()]).expect("the claim");
        self.cluster.get(&["pv", claim["spec"]["volumeName"].as_str().expect("a volume")]).expect("the volume")
    }

    /// A pod that appends to a file of its own name in each claim, for as long as it runs.
    fn pod(&self, pod: &str, claims: &[&str]) -> Value {
        let write = claims.iter().map(|claim| format!("echo here >> /{claim}/{pod} || echo failed; "));
        let command = format!("while sleep 0.2; do {}done", write.collect::<String>());
        let mounts: Vec<Value> =
            claims.iter().map(|claim| json!({"name": claim, "mountPath": format!("/{claim}")})).collect();
        let volumes: Vec<Value> =
            claims.iter().map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}})).collect();
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": self.name(), "name": pod},
            "spec": {
                "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "app", "image": "docker.io/pith/app:0.1.0", "imagePullPolicy": "Never",
                    "command": ["sh", "-c", command], "volumeMounts": mounts,
                }],
                "volumes": volumes,
            },
        })
    }

    /// What the webhooks make of a pod: its init containers, which are sidecars all of them.
    fn sidecars(&self, pod: &Value, more: &[&str]) -> anyhow::Result<Vec<String>> {
        let arguments = [&["create", "-f", "-", "--output=json"], more].concat();
        let created: Value = serde_json::from_str(&self.cluster.kubectl_with(&arguments, &pod.to_string())?)?;
        let containers = created["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
        Ok(containers.iter().filter_map(|it| it["name"].as_str()).map(String::from).collect())
    }

    /// Starts a pod once the webhooks make exactly this of it.
    #[track_caller]
    fn run(&self, pod: &str, claims: &[&str], sidecars: &[&str]) {
        let object = self.pod(pod, claims);
        // The API server hears of a registration in a moment, and Pith of a claim. The driver answers once it listens.
        let heard = || {
            let made = self.sidecars(&object, &["--dry-run=server"]).unwrap_or_default();
            Ok((made == sidecars).then_some(()))
        };
        self.cluster.until(self.name(), &format!("{pod} to get {sidecars:?}"), heard).expect("it is injected");
        assert_eq!(self.sidecars(&object, &[]).expect("it is created"), sidecars);
        self.cluster.wait(self.name(), "condition=Ready", &format!("pod/{pod}")).expect("its mounts are there");
    }

    /// How often this pod has written to its file in a claim, as another pod sees it.
    fn written(&self, pod: &str, claim: &str, seen_by: &str) -> anyhow::Result<usize> {
        let count = format!("cat /{claim}/{pod} 2>/dev/null | wc -l");
        let exec = ["exec", seen_by, "--namespace", self.name(), "--container", "app", "--", "sh", "-c", &count];
        Ok(self.cluster.kubectl(&exec)?.trim().parse()?)
    }

    /// Each of these pods goes on writing to its claims, the others see it, and none has noticed anything.
    #[track_caller]
    fn all_write(&self, pods: &[(&str, &[&str])]) {
        for (pod, claims) in pods {
            for claim in *claims {
                for (other, _) in pods.iter().filter(|(_, claims)| claims.contains(claim)) {
                    let before = self.written(pod, claim, other).expect("it can be read");
                    let more = || Ok((self.written(pod, claim, other)? > before).then_some(()));
                    let what = format!("{other} to see what {pod} writes to {claim}");
                    self.cluster.until(self.name(), &what, more).expect("it is seen");
                }
            }
            let log = self.cluster.kubectl(&["logs", pod, "--namespace", self.name(), "--container", "app"]);
            assert_eq!(log.expect("a log"), "", "{pod}");
            let status = self.cluster.get(&["pod", pod, "--namespace", self.name()]).expect("the pod")["status"].take();
            let all = ["initContainerStatuses", "containerStatuses"].map(|key| status[key].as_array().cloned());
            for container in all.into_iter().flatten().flatten() {
                assert_eq!(container["restartCount"], 0, "{pod}: {container:#}");
            }
        }
    }

    /// What lies in a directory of the file system, by its metadata.
    fn directories(&self, path: &[&str]) -> Vec<String> {
        let mut dump = self.cluster.command(&CLIENT);
        let output =
            dump.args(["--no-agent", "dump", &self.redis.secrets()["metaurl"]]).output().expect("the client runs");
        let dump: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
        let entries = path.iter().fold(&dump["FSTree"]["entries"], |entries, name| &entries[name]["entries"]);
        entries.as_object().map(|entries| entries.keys().cloned().collect()).unwrap_or_default()
    }

    /// What the client says of the quota of a volume's directory.
    fn quota(&self, directory: &str) -> String {
        let mut get = self.cluster.command(&CLIENT);
        let meta_url = &self.redis.secrets()["metaurl"];
        get.args(["--no-agent", "quota", "get", meta_url, "--path", &format!("/{directory}")]);
        said(&get.output().expect("the client runs"))
    }

    /// What `df` shows of a claim in a pod, in KiB.
    fn size(&self, pod: &str, claim: &str) -> String {
        let size = format!("df -k /{claim} | tail -n 1 | awk '{{print $2}}'");
        let exec = ["exec", pod, "--namespace", self.name(), "--container", "app", "--", "sh", "-c", &size];
        self.cluster.kubectl(&exec).expect("df runs").trim().to_string()
    }

    /// What `pith check` finds in the namespace, with an administrator's rights.
    fn check(&self, server: &Server) -> String {
        let mut check: Command = self.cluster.command(&PITH);
        check.args(["check", "--namespace", self.name(), "--config"]).arg(server.folder.path().join("pith.yaml"));
        check.arg("--kubeconfig").arg(self.cluster.folder().join("lib/kubeconfig/super-admin.conf"));
        said(&check.output().expect("pith runs"))
    }
}

#[test]
fn a_cluster_moves_from_the_driver_to_pith_and_back_while_pods_run() {
    let site = Site::new();
    let (cluster, name) = (site.cluster, site.name().to_string());
    let (before, after) = (format!("a-{name}"), format!("z-{name}"));
    let of_pith = format!("pith-{name}");
    cluster.show_log(&site.folder.path().join("log"));

    // As it was: the driver makes volumes and injects.
    let driver = site.driver();
    site.register_driver(&before);
    let theirs = site.claim("theirs");
    assert!(theirs["spec"]["csi"]["volumeAttributes"]["storage.kubernetes.io/csiProvisionerIdentity"].is_null());
    let left = site.claim("left");
    let left = left["metadata"]["name"].as_str().expect("a name");
    site.run("once", &["left"], &["jfs-mount"]);
    site.all_write(&[("once", &["left"])]);
    cluster.kubectl(&["delete", "pod", "once", "--namespace", &name]).expect("it ends");
    const TWO: &[&str] = &["data", "theirs"];
    site.run("old", TWO, &["jfs-mount", "jfs-mount-1"]);
    site.all_write(&[("old", TWO)]);

    // Both are asked. Whoever comes first mounts, and the other leaves the pod alone.
    let server = site.pith(Path::new("csi.sock"));
    cluster.kubectl(&["label", "namespace", &name, &format!("pith.test/webhook={name}")]).expect("it is labelled");
    let found = site.check(&server);
    let both = format!("MutatingWebhookConfiguration {before}");
    assert!(found.lines().any(|it| it.contains("two-injectors ") && it.ends_with(&both)), "{found}");
    site.register_driver(&after);
    site.unregister(&before);
    const PITHS: [&str; 3] = ["pith-guard", "jfs-mount", "jfs-mount-1"];
    site.run("new", TWO, &PITHS);
    site.register_driver(&before);
    site.unregister(&after);
    site.run("both", TWO, &["jfs-mount", "jfs-mount-1"]);
    site.all_write(&[("old", TWO), ("new", TWO), ("both", TWO)]);

    // The driver goes, and Pith makes volumes too.
    site.unregister(&before);
    drop(driver);
    drop(server);
    let csi = driver_of(cluster);
    let server = site.pith(&cluster.csi_socket());
    let ours = site.claim("ours");
    let attributes = &ours["spec"]["csi"]["volumeAttributes"];
    assert!(
        attributes["storage.kubernetes.io/csiProvisionerIdentity"].is_string(),
        "csi-provisioner has made it: {ours:#}"
    );
    // All that the driver will find of it.
    let (volume, found) = (ours["metadata"]["name"].as_str().expect("a name"), &ours["spec"]["csi"]);
    let secret = json!({"namespace": name, "name": "file-system"});
    assert_eq!((&found["volumeHandle"], &attributes["subPath"]), (&json!(volume), &json!(volume)));
    assert_eq!(attributes["capacity"], "1073741824");
    assert_eq!((&found["nodePublishSecretRef"], &found["controllerExpandSecretRef"]), (&secret, &secret));
    assert_eq!(ours["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"], NAME);
    assert!(site.quota(volume).contains("1.0 GiB"), "{}", site.quota(volume));
    let named = site.claim_of("named", &format!("{name}-named"));
    assert_eq!(named["spec"]["csi"]["volumeAttributes"]["subPath"], format!("{name}/of-named"));
    const THREE: &[&str] = &["data", "theirs", "ours"];
    site.run("newer", THREE, &[&PITHS[..], &["jfs-mount-2"]].concat());
    site.all_write(&[("old", TWO), ("new", TWO), ("newer", THREE)]);
    let found = site.check(&server);
    assert!(!found.contains("two-injectors"), "{found}");

    // What the driver has made grows, and what is deleted of it lies in the trash.
    assert!(site.directories(&[]).iter().any(|it| it == left));
    let larger = r#"{"spec": {"resources": {"requests": {"storage": "2Gi"}}}}"#;
    cluster.kubectl(&["patch", "pvc", "left", "--namespace", &name, "--patch", larger]).expect("it is patched");
    cluster.wait(&name, "jsonpath={.status.capacity.storage}=2Gi", "pvc/left").expect("csi-resizer calls Pith");
    cluster.kubectl(&["delete", "pvc", "left", "--namespace", &name]).expect("it is deleted");
    cluster.wait(&name, "delete", &format!("pv/{left}")).expect("csi-provisioner calls Pith");
    assert!(!site.directories(&[]).iter().any(|it| it == left));
    let trash = site.directories(&[".pith", "trash"]);
    let [of_left] = &trash[..] else { panic!("{trash:?}") };
    assert!(of_left.starts_with(left), "{of_left}");
    assert_eq!(site.directories(&[".pith", "trash", of_left, "data"]), ["once"]);
    site.all_write(&[("old", TWO), ("new", TWO), ("newer", THREE)]);

    // And back.
    site.unregister(&of_pith);
    drop(server);
    drop(csi);
    let driver = site.driver();
    site.register_driver(&before);
    const FOUR: &[&str] = &["data", "theirs", "ours", "named"];
    site.run("back", FOUR, &["jfs-mount", "jfs-mount-1", "jfs-mount-2", "jfs-mount-3"]);
    site.all_write(&[("old", TWO), ("new", TWO), ("newer", THREE), ("back", FOUR)]);
    // A volume of Pith's lies where it lay, and has the size that it had, for whoever mounts it.
    assert_eq!(site.directories(&[&name, "of-named"]), ["back"]);
    for (pod, claim) in [("newer", "ours"), ("back", "ours"), ("back", "named")] {
        assert_eq!(site.size(pod, claim), "1048576", "{claim} in {pod}");
    }
    for directory in [volume, &format!("{name}/of-named")] {
        assert!(site.quota(directory).contains("1.0 GiB"), "{}", site.quota(directory));
    }

    // Each pod ends as ever, whoever is there, and the driver deletes the volumes of both.
    cluster.kubectl(&["delete", "pods", "--all", "--namespace", &name]).expect("they end");
    cluster.kubectl(&["delete", "pvc", "--all", "--namespace", &name]).expect("they are deleted");
    for volume in [&theirs, &ours, &named] {
        let volume = volume["metadata"]["name"].as_str().expect("a name");
        cluster.wait(&name, "delete", &format!("pv/{volume}")).expect("the driver deletes it");
    }
    assert_eq!(site.directories(&[&name]), [""; 0]);
    site.unregister(&before);
    drop(driver);
    for (kind, object) in [
        ("pv", &*format!("{name}-data")),
        ("storageclass", &name),
        ("storageclass", &format!("{name}-named")),
        ("clusterrolebinding", &name),
        ("csidriver", NAME),
    ] {
        cluster.kubectl(&["delete", kind, object, "--wait=false"]).expect("it is deleted");
    }
}
