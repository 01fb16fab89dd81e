//! What `controller` keeps in step on a real API server, with the rights that the chart gives it and no other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pith_tests::cluster::{CLUSTER, Cluster, Namespace, static_volume};
use pith_tests::server::Server;
use serde_json::{Value, json};

use crate::cluster::yaml;

/// In the password of every file system here: it is looked for where it must not be.
const CANARY: &str = "canary-4f1d";

/// A controller, and a namespace that opted in.
struct Kept {
    cluster: &'static Cluster,
    namespace: Namespace,
    server: Server,
}

impl Kept {
    fn start(about: &str) -> Kept {
        let cluster = &*CLUSTER;
        let labels = json!({"juicefs.com/enable-injection": "true"});
        let namespace = cluster.namespace(about, &labels).expect("a namespace");
        Kept { cluster, namespace, server: serve(cluster) }
    }

    fn name(&self) -> &str {
        &self.namespace.name
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(&[arguments, &["--namespace", self.name()]].concat()).expect("kubectl")
    }

    /// The Secret of a file system whose metadata engine has this database.
    fn file_system(&self, database: u8) {
        let values = json!({
            "name": "shop", "metaurl": format!("redis://:{CANARY}@redis.example:6379/{database}"),
            "envs": format!("AWS_SECRET_ACCESS_KEY: {CANARY}"),
        });
        let metadata = json!({"namespace": self.name(), "name": "file-system"});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values});
        self.cluster.apply(&secret.to_string()).expect("a Secret");
    }

    /// A claim that is bound to a volume in `team/data`. The answer is the name of its Secret.
    fn claim(&self) -> String {
        let mut objects = static_volume(self.name(), "data");
        objects[0] = self.volume("data", "team/data");
        self.cluster.apply(&yaml(&objects)).expect("a volume");
        self.cluster.wait(self.name(), "jsonpath={.status.phase}=Bound", "pvc/data").expect("it is bound");
        let claim = self.cluster.get(&["pvc", "data", "--namespace", self.name()]).expect("the claim");
        format!("pith-{}", claim["metadata"]["uid"].as_str().expect("a uid"))
    }

    /// A volume in a directory, for a claim.
    fn volume(&self, claim: &str, directory: &str) -> Value {
        let [mut volume, _] = static_volume(self.name(), claim);
        volume["spec"]["csi"]["nodePublishSecretRef"] = json!({"namespace": self.name(), "name": "file-system"});
        volume["spec"]["csi"]["volumeAttributes"] = json!({"subPath": directory});
        volume
    }

    fn secret(&self, name: &str) -> Option<Value> {
        let found = self.kubectl(&["get", "secret", name, "--output=json", "--ignore-not-found"]);
        (!found.is_empty()).then(|| serde_json::from_str(&found).expect("a Secret"))
    }

    /// Waits until the Secret holds exactly this.
    #[track_caller]
    fn until_it_holds(&self, secret: &str, expected: [(&str, String); 4]) -> Value {
        let expected: serde_json::Map<String, Value> =
            expected.iter().map(|(key, value)| (key.to_string(), json!(STANDARD.encode(value)))).collect();
        let look = || Ok(self.secret(secret).filter(|found| found["data"].as_object() == Some(&expected)));
        let found = self.cluster.until(self.name(), "the Secret of a claim", look);
        found.unwrap_or_else(|error| panic!("{error:#}\n{:#?}\n{}", self.secret(secret), self.server.log()))
    }

    /// A pod that nobody runs: what counts is what an injection leaves on it.
    fn pod(&self, name: &str, sidecar: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": self.name(), "name": name, "labels": {"done.sidecar.juicefs.com/inject": "true"},
                "annotations": {"pith.io/injected": json!({"version": 1, "sidecars": [sidecar]}).to_string()},
            },
            "spec": {
                "schedulerName": "nobody", "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "app", "image": "docker.io/pith/app:0.1.0"}],
            },
        })
    }

    #[track_caller]
    fn until_it_is_gone(&self, secret: &str) {
        let look = || Ok(self.secret(secret).is_none().then_some(()));
        let found = self.cluster.until(self.name(), "no Secret", look);
        found.unwrap_or_else(|error| panic!("{error:#}\n{}", self.server.log()));
    }

    /// Waits for an event about an object.
    #[track_caller]
    fn until_it_is_said(&self, object: &str, sentence: &str) {
        let told = || {
            let events = self.cluster.events(self.name(), object)?;
            Ok(events.iter().any(|event| event.contains(sentence)).then_some(()))
        };
        let found = self.cluster.until(self.name(), sentence, told);
        found.unwrap_or_else(|error| panic!("{error:#}\n{}", self.server.log()));
    }

    fn end(self) {
        let log = self.server.log();
        assert!(!log.contains(CANARY) && !log.contains(&STANDARD.encode(CANARY)), "{log}");
        self.kubectl(&["delete", "pvc", "--all", "--ignore-not-found"]);
        self.cluster
            .kubectl(&["delete", "pv", &format!("{}-data", self.name()), "--ignore-not-found", "--wait=false"])
            .expect("it is deleted");
    }
}

fn serve(cluster: &'static Cluster) -> Server {
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    let config = "controller: {sourceInterval: 200ms, resync: 1s}\nlog: {filter: trace}\n";
    Server::start_following(cluster, config, &kubeconfig).expect("it serves")
}

/// What a Secret holds for a volume.
fn content(database: u8, directory: &str) -> [(&'static str, String); 4] {
    [
        ("AWS_SECRET_ACCESS_KEY", CANARY.into()),
        ("METAURL", format!("redis://:@redis.example:6379/{database}")),
        ("META_PASSWORD", CANARY.into()),
        ("SUBDIR", directory.into()),
    ]
}

#[test]
fn the_secret_beside_a_claim_is_written_kept_rotated_and_removed() {
    let kept = Kept::start("secrets");
    kept.file_system(1);
    let name = kept.claim();
    let holds = |database: u8| kept.until_it_holds(&name, content(database, "/team/data"));
    let secret = holds(1);
    let claim = kept.cluster.get(&["pvc", "data", "--namespace", kept.name()]).expect("the claim");
    let owner = &secret["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["uid"]), (&json!("PersistentVolumeClaim"), &claim["metadata"]["uid"]));

    for change in [
        json!({"data": {"SUBDIR": STANDARD.encode("/")}}),
        json!({"data": {"SUBDIR": null}}),
        json!({"data": {"token": STANDARD.encode("more than is needed")}}),
    ] {
        kept.kubectl(&["patch", "secret", &name, "--patch", &change.to_string()]);
        holds(1);
    }
    kept.kubectl(&["delete", "secret", &name]);
    holds(1);
    kept.file_system(2);
    holds(2);

    // The namespace opts out, and in again.
    kept.cluster.kubectl(&["label", "namespace", kept.name(), "juicefs.com/enable-injection-"]).expect("a label");
    kept.until_it_is_gone(&name);
    let label = "juicefs.com/enable-injection=true";
    kept.cluster.kubectl(&["label", "namespace", kept.name(), label]).expect("a label");
    holds(2);

    // The claim goes, and takes its Secret with it.
    kept.kubectl(&["delete", "pvc", "data"]);
    kept.until_it_is_gone(&name);
    kept.end();
}

#[test]
fn a_namespace_that_opts_out_while_nobody_runs_loses_its_secrets_later() {
    let mut kept = Kept::start("opted-out");
    kept.file_system(1);
    let name = kept.claim();
    kept.cluster.until(kept.name(), "a Secret", || Ok(kept.secret(&name))).expect("it is written");
    kept.server.terminate().expect("a signal");
    kept.server.wait().expect("it ends");
    kept.cluster.kubectl(&["label", "namespace", kept.name(), "juicefs.com/enable-injection-"]).expect("a label");
    kept.server = serve(kept.cluster);
    kept.until_it_is_gone(&name);
    kept.end();
}

#[test]
fn what_keeps_a_secret_from_being_written_is_said_on_the_claim_and_on_its_pods() {
    let kept = Kept::start("impossible");
    let name = kept.claim();
    let sentence = format!("the Secret `{}/file-system` of its file system does not exist", kept.name());
    kept.until_it_is_said("data", &sentence);
    // One that waits for the claim.
    kept.cluster.apply(&kept.pod("waits", json!({"claim": "data"})).to_string()).expect("a pod");
    kept.until_it_is_said("waits", &sentence);
    let values = json!({"metaurl": format!("redis://:{CANARY}@redis.example:6379/1")});
    let metadata = json!({"namespace": kept.name(), "name": "file-system"});
    let half = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values});
    kept.cluster.apply(&half.to_string()).expect("a Secret");
    kept.until_it_is_said("data", "the Secret of the file system has no `name`");
    assert!(kept.secret(&name).is_none());
    let events = kept.kubectl(&["get", "events", "--output=json"]);
    assert!(!events.contains(CANARY), "{events}");

    kept.file_system(1);
    kept.cluster.until(kept.name(), "a Secret", || Ok(kept.secret(&name))).expect("it is written");
    kept.kubectl(&["delete", "pod", "waits"]);
    kept.end();
}

#[test]
fn a_pod_whose_claim_comes_later_has_a_secret_of_its_own_which_is_taken_from_nobody() {
    let kept = Kept::start("own-secrets");
    kept.file_system(1);
    // Nobody provisions for it: the claim waits for a consumer, and that for a scheduler.
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": kept.name()},
        "provisioner": "csi.juicefs.com", "volumeBindingMode": "WaitForFirstConsumer",
    });
    kept.cluster.apply(&class.to_string()).expect("a class");
    let secret = |number: u8| format!("pith-pod-{number:032}");
    let pod = |name: &str, number: u8| {
        let mut pod = kept.pod(name, json!({"ephemeral": "tmp", "secret": secret(number)}));
        let spec = json!({
            "accessModes": ["ReadWriteMany"], "storageClassName": kept.name(),
            "resources": {"requests": {"storage": "1Gi"}},
        });
        pod["spec"]["volumes"] = json!([{"name": "tmp", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}]);
        let mut volume = kept.volume(&format!("{name}-tmp"), name);
        volume["spec"]["storageClassName"] = json!(kept.name());
        // First, because one that comes later is not looked at before its turn.
        kept.cluster.apply(&yaml(&[volume, pod])).expect("a volume and a pod");
    };
    let of_pod = |name: &str, number: u8| kept.until_it_holds(&secret(number), content(1, &format!("/{name}")));
    let owner = |secret: &Value| secret["metadata"]["ownerReferences"][0]["name"].clone();

    pod("web-0", 0);
    pod("web-1", 1);
    let [first, second] = [of_pod("web-0", 0), of_pod("web-1", 1)];
    assert_eq!([owner(&first), owner(&second)], ["web-0", "web-1"]);
    assert_eq!(first["metadata"]["ownerReferences"][0]["kind"], "Pod");

    // One that was copied with all its annotations, and one whose author chose the name of a Secret that is somebody's.
    let values = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": kept.name(), "name": secret(7)}, "stringData": {"token": "theirs"}});
    kept.cluster.apply(&values.to_string()).expect("a Secret");
    for (name, number) in [("copy", 0), ("greedy", 7)] {
        let before = kept.secret(&secret(number));
        pod(name, number);
        let sentence =
            format!("the Secret `{}/{}` cannot be written: it is there and belongs", kept.name(), secret(number));
        kept.until_it_is_said(name, &sentence);
        assert_eq!(kept.secret(&secret(number)), before);
    }

    // A pod of the same name, whose claim is another one: it gets nothing of the first one's.
    kept.kubectl(&["delete", "pod", "web-0"]);
    // Its Secret ends with it; the copy may have it then.
    let of_copy = || Ok(kept.secret(&secret(0)).is_none_or(|found| owner(&found) == "copy").then_some(()));
    kept.cluster.until(kept.name(), "the end of the Secret", of_copy).expect("it ends with its pod");
    kept.kubectl(&["wait", "--for=delete", "pvc/web-0-tmp", "--timeout=60s"]);
    kept.cluster.kubectl(&["delete", "pv", &format!("{}-web-0-tmp", kept.name())]).expect("it is deleted");
    pod("web-0", 2);
    of_pod("web-0", 2);
    for name in ["web-0", "web-1", "copy", "greedy"] {
        kept.kubectl(&["delete", "pod", name]);
        kept.cluster
            .kubectl(&["delete", "pv", &format!("{}-{name}-tmp", kept.name()), "--wait=false"])
            .expect("it is deleted");
    }
    kept.cluster.kubectl(&["delete", "storageclass", kept.name()]).expect("it is deleted");
    kept.end();
}

#[test]
fn what_a_workloads_controller_keeps_to_itself_is_said_on_the_pod() {
    let kept = Kept::start("notes");
    let note = "${SUB_PATH}: mountPodPatch has it, and the claim has no such value yet: it is empty";
    let mut pod = kept.pod("web", json!({"claim": "nowhere"}));
    let mut status: Value = serde_json::from_str(
        pod["metadata"]["annotations"]["pith.io/injected"].as_str().expect("what the webhook leaves"),
    )
    .expect("JSON");
    status["notes"] = json!([note]);
    pod["metadata"]["annotations"]["pith.io/injected"] = json!(status.to_string());
    kept.cluster.apply(&pod.to_string()).expect("a pod");
    kept.until_it_is_said("web", note);
    kept.kubectl(&["delete", "pod", "web"]);
    kept.end();
}

#[test]
fn a_pod_that_a_policy_exempted_has_an_event_that_says_why() {
    let kept = Kept::start("exempt");
    let reason = "policy `who-is-exempt` exempts the pod: batch (reason: exempt-by-policy)";
    // What the webhook leaves on such a pod.
    let exempt = |name: &str, mut labels: Value| {
        labels["pith.io/skipped"] = json!("true");
        let mut pod = kept.pod(name, json!({"claim": "nowhere"}));
        pod["metadata"]["labels"] = labels;
        pod["metadata"]["annotations"] = json!({"pith.io/skipped": reason});
        kept.cluster.apply(&pod.to_string()).expect("a pod");
    };
    let events = |pod: &str| kept.cluster.events(kept.name(), pod).expect("events");
    // Copied from an exempt one, and injected: what there was to say of it would be said before what comes later.
    exempt("injected", json!({"done.sidecar.juicefs.com/inject": "true"}));
    exempt("first", json!({}));
    kept.until_it_is_said("first", reason);
    // Not with another reason: the controllers of other tests speak of this pod too, each of what it saw first.
    kept.kubectl(&["label", "pod", "first", "team=web"]);
    exempt("second", json!({"team": "web"}));
    kept.until_it_is_said("second", reason);
    assert_eq!((events("injected"), events("first")), (Vec::new(), vec![reason.to_string()]));
    let told = kept.cluster.get(&["events", "--namespace", kept.name(), "--field-selector=involvedObject.name=first"]);
    let told = &told.expect("events")["items"][0];
    assert_eq!((&told["type"], &told["reason"]), (&json!("Normal"), &json!("ExemptByPolicy")));
    kept.kubectl(&["delete", "pod", "injected", "first", "second"]);
    kept.end();
}
