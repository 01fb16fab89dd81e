//! The serving certificate and the webhook's registration, on a real API server with the rights that the chart gives.
//!
//! Replicas are reached through a Service, as in a cluster: the API server connects to whichever of them it likes.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use pith_tests::client::{Client, Protocol, get};
use pith_tests::cluster::{self, ADDRESS, CLUSTER, Cluster, Namespace};
use pith_tests::server::{self, PITH, Server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::WEB;
use crate::cluster::{pod, said, yaml};
use crate::secrets::{NOISE, check_for};

/// The Secret, as the chart names it.
const SECRET: &str = "pith-webhook-tls";
const AUTHORITY_ONLY: &str = ", caBundleOnly: true";

/// What a release of Pith has in a cluster, under names of a test's own.
pub(crate) struct Site {
    pub(crate) cluster: &'static Cluster,
    namespace: Namespace,
    pub(crate) kubeconfig: String,
}

impl Site {
    pub(crate) fn new(about: &str) -> Site {
        let cluster = &*CLUSTER;
        let namespace = cluster.namespace(about, &json!({})).expect("a namespace");
        let name = &*namespace.name;
        let rights = cluster::rights("default", "pith-webhook").expect("the rights").replace("pith-system", name);
        // The Secret's name may stay: it is in a namespace.
        let rights = rights.replace(SECRET, "THE-SECRET").replace("pith-webhook", name).replace("THE-SECRET", SECRET);
        cluster.apply(&rights).expect("rights");
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": name, "name": "pith"},
            "spec": {"ports": [{"name": "webhook", "port": 443}]},
        });
        cluster.apply(&service.to_string()).expect("a Service");
        // Only now, so that nothing of this is asked of the webhook.
        cluster.kubectl(&["label", "namespace", name, &format!("pith.test/webhook={name}")]).expect("a label");
        let kubeconfig = cluster.kubeconfig(name, name).expect("a kubeconfig");
        Site { cluster, namespace, kubeconfig }
    }

    pub(crate) fn name(&self) -> &str {
        &self.namespace.name
    }

    pub(crate) fn manifest(&self) -> Value {
        let name = self.name();
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name, "labels": {"pith.test/of": name}},
            "webhooks": [{
                "name": "inject.pith.dev",
                "clientConfig": {"service": {"namespace": name, "name": "pith", "path": "/mutate", "port": 443}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"pith.test/webhook": name}},
                "objectSelector": {},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 10,
            }],
        })
    }

    /// Starts a replica, with more for `webhook.tls.secret` and for `webhook.registration`.
    pub(crate) fn start(&self, secret: &str, registration: &str) -> Server {
        let name = self.name();
        let owner = if registration.is_empty() {
            format!(", owner: {{kind: ClusterRole, name: {name}}}")
        } else {
            String::new()
        };
        let config = format!(
            "log: {{format: json, filter: '{NOISE}'}}\nwebhook:\n  tls: {{secret: {{namespace: {name}, name: {SECRET}, \
             names: [pith.{name}.svc]{secret}}}}}\n  registration: {{manifest: manifest.yaml{registration}{owner}}}\n"
        );
        let folder = server::following(&config, &self.kubeconfig).expect("a folder");
        fs::write(folder.path().join("manifest.yaml"), self.manifest().to_string()).expect("written");
        let server = Server::start_on_node(self.cluster, folder).expect("it serves");
        let port = server.webhook.port();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": name, "name": format!("pith-{port}"), "labels": {"kubernetes.io/service-name": "pith"}},
            "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": true}}],
            "ports": [{"name": "webhook", "port": port, "protocol": "TCP"}],
        });
        self.cluster.apply(&slice.to_string()).expect("an endpoint");
        server
    }

    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        let mut look = look;
        self.cluster.until(self.name(), what, || Ok(look())).unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn object(&self, arguments: &[&str]) -> Option<Value> {
        let output = self.cluster.try_kubectl(&[&["get", "--output=json"], arguments].concat(), "").expect("it runs");
        serde_json::from_slice(&output.stdout).ok()
    }

    fn secret(&self) -> Option<Value> {
        self.object(&["secret", SECRET, "--namespace", self.name()])
    }

    fn registered(&self) -> Option<Value> {
        self.object(&["mutatingwebhookconfiguration", self.name(), "--show-managed-fields"])
    }

    /// The configuration, once it has what the Secret says is to be trusted.
    #[track_caller]
    pub(crate) fn in_step(&self) -> Value {
        self.until("a configuration with the bundle", || {
            let (secret, registered) = (self.secret()?, self.registered()?);
            let bundle = registered["webhooks"][0]["clientConfig"]["caBundle"].as_str()?.to_string();
            (secret["data"]["ca.crt"] == *bundle).then_some(registered)
        })
    }

    /// How many CAs are trusted.
    fn authorities(&self) -> usize {
        let secret = self.secret().expect("the Secret");
        let bundle = STANDARD.decode(secret["data"]["ca.crt"].as_str().expect("a bundle")).expect("base64");
        String::from_utf8(bundle).expect("PEM").matches("BEGIN CERTIFICATE").count()
    }

    fn create_pods(&self, count: usize) -> std::process::Output {
        let pods: Vec<Value> = (0..count)
            .map(|index| {
                let mut pod = pod(self.name(), "true", &json!([]));
                pod["metadata"]["name"] = json!(format!("app-{index}"));
                pod["spec"].as_object_mut().expect("a spec").remove("volumes");
                pod
            })
            .collect();
        self.cluster.try_kubectl(&["create", "--dry-run=server", "-f", "-"], &yaml(&pods)).expect("kubectl runs")
    }

    /// Waits until the API server asks one of these replicas and gets an answer: it keeps to one for a while.
    fn until_asked(&self, servers: &[&Server]) {
        self.until("a review", || {
            assert!(self.create_pods(1).status.success() || self.registered().is_some());
            let asked = servers.iter().any(|server| self.metric(server, "pith_admissions_total") > 0.0);
            asked.then_some(())
        });
    }

    fn metric(&self, server: &Server, name: &str) -> f64 {
        let (_, text) = self.cluster.http(server.admin, "/metrics").expect("an answer");
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Looks for the private key in what the replicas said, and ends.
    fn end(self, servers: Vec<Server>) {
        let secret = self.secret().expect("the Secret");
        for server in &servers {
            let log = server.log();
            assert!(log.contains("\"TRACE\""), "the log is not at its noisiest");
            for key in ["tls.key", "next.key"] {
                let Some(key) = secret["data"][key].as_str() else { continue };
                let key = String::from_utf8(STANDARD.decode(key).expect("base64")).expect("PEM");
                for line in key.lines().filter(|line| !line.starts_with("-----") && line.len() > 20) {
                    check_for(line, "the log", &log);
                }
            }
        }
        drop(servers);
        let name = self.name();
        self.cluster.kubectl(&["delete", "clusterrolebinding,clusterrole", name]).expect("they are deleted");
        self.cluster
            .kubectl(&["delete", "mutatingwebhookconfiguration", name, "--ignore-not-found"])
            .expect("it is deleted");
    }
}

#[test]
fn the_first_start_makes_secret_and_configuration_and_the_second_replica_agrees() {
    let site = Site::new("agree");
    let (first, second) = thread::scope(|scope| {
        let starting = [(); 2].map(|()| scope.spawn(|| site.start("", "")));
        let [first, second] = starting.map(|it| it.join().expect("it starts"));
        (first, second)
    });
    let registered = site.in_step();
    let secret = site.secret().expect("the Secret");
    assert_eq!(secret["type"], "kubernetes.io/tls");
    let keys: Vec<&String> = secret["data"].as_object().expect("data").keys().collect();
    assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);
    assert_eq!(site.authorities(), 1);
    assert_eq!(registered["webhooks"][0]["failurePolicy"], "Fail");
    let owner = &registered["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("ClusterRole"), &json!(site.name())));
    site.until_asked(&[&first, &second]);

    // One certificate: its end is in the metrics of both.
    let expiry = |server| site.metric(server, "pith_certificate_expiry_timestamp_seconds");
    assert!(expiry(&first) > 0.0);
    assert_eq!(expiry(&first), expiry(&second), "{}\n{}", first.log(), second.log());
    let again = site.start("", "");
    site.until("readiness", || (site.cluster.http(again.admin, "/readyz").ok()?.0 == 200).then_some(()));
    assert_eq!(expiry(&again), expiry(&first));
    let version = |object: Option<Value>| object.expect("it is there")["metadata"]["resourceVersion"].clone();
    assert_eq!(version(site.secret()), secret["metadata"]["resourceVersion"]);
    assert_eq!(version(site.registered()), registered["metadata"]["resourceVersion"], "nothing was to be written");

    // With its owner it goes: nobody is there to write it again.
    let (cluster, name) = (site.cluster, site.name().to_string());
    site.end_with_owner(vec![first, second, again]);
    cluster
        .kubectl(&["wait", "--for=delete", &format!("mutatingwebhookconfiguration/{name}"), "--timeout=60s"])
        .expect("the garbage collector removes it");
}

impl Site {
    /// As [`end`](Site::end), with the configuration left to its owner.
    fn end_with_owner(self, servers: Vec<Server>) {
        drop(servers);
        let name = self.name();
        self.cluster.kubectl(&["delete", "clusterrolebinding,clusterrole", name]).expect("they are deleted");
    }
}

#[test]
fn whatever_somebody_does_to_the_configuration_or_the_secret_is_undone() {
    let site = Site::new("drift");
    let server = site.start(", overlap: 1s", "");
    let registered = site.in_step();
    let (cluster, name) = (site.cluster, site.name());
    let configuration = format!("mutatingwebhookconfiguration/{name}");
    for patch in [
        json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]),
        json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]),
        json!([{"op": "replace", "path": "/metadata/labels", "value": {}}]),
    ] {
        cluster
            .kubectl(&["patch", &configuration, "--type=json", "--patch", &patch.to_string()])
            .expect("it is patched");
        site.until(&format!("the end of {patch}"), || {
            let now = site.registered()?;
            (now["webhooks"] == registered["webhooks"] && now["metadata"]["labels"] == registered["metadata"]["labels"])
                .then_some(())
        });
    }
    // What others keep there is theirs.
    cluster.kubectl(&["annotate", &configuration, "team=storage"]).expect("it is annotated");
    cluster.kubectl(&["delete", &configuration]).expect("it is deleted");
    site.until("another one", || Some(site.registered()?["metadata"]["uid"] != registered["metadata"]["uid"]));
    site.until_asked(&[&server]);

    // Without a gap: what is served was in memory.
    let before = site.secret().expect("the Secret");
    cluster.kubectl(&["delete", "secret", SECRET, "--namespace", name]).expect("it is deleted");
    let restored = site.until("the Secret", || site.secret());
    assert_eq!(restored["data"], before["data"]);
    let torn = json!({"data": {"tls.key": STANDARD.encode("no key")}}).to_string();
    cluster.kubectl(&["patch", "secret", SECRET, "--namespace", name, "--patch", &torn]).expect("it is patched");
    site.until("the Secret as it was", || (site.secret()?["data"] == before["data"]).then_some(()));
    let complaint = "the shared certificate cannot be used: the private key cannot be read";
    assert!(server.log().contains(complaint), "{complaint}");

    // A renewal by hand.
    cluster
        .kubectl(&["annotate", "secret", SECRET, "--namespace", name, "pith.dev/rotate=now"])
        .expect("it is asked for");
    site.until("another certificate", || {
        (site.secret()?["data"]["tls.crt"] != before["data"]["tls.crt"]).then_some(())
    });
    site.until("one CA", || (site.authorities() == 1).then_some(()));
    site.in_step();
    assert_eq!(site.secret().expect("the Secret")["metadata"]["annotations"], Value::Null);
    assert!(site.create_pods(1).status.success());
    site.end(vec![server]);
}

#[test]
fn a_renewal_under_a_steady_load_fails_no_pod() {
    let site = Site::new("renewal");
    let short = ", lifetime: 45s, overlap: 4s";
    let servers = vec![site.start(short, ""), site.start(short, "")];
    site.in_step();
    site.until_asked(&servers.iter().collect::<Vec<_>>());
    let before = site.secret().expect("the Secret");

    let (done, created, failures) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let output = site.create_pods(5);
                    created.fetch_add(5, Ordering::Relaxed);
                    if !output.status.success() {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(said(&output));
                    }
                }
            });
        }
        let renewed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            site.until("two CAs", || (site.authorities() == 2).then_some(()));
            site.until("the next certificate", || {
                (site.secret()?["data"]["tls.crt"] != before["data"]["tls.crt"]).then_some(())
            });
            site.until("one CA", || (site.authorities() == 1).then_some(()));
            site.in_step();
            // The API server connects anew with the bundle that it has now.
            let enough = created.load(Ordering::Relaxed) + 20;
            site.until("more pods", || (created.load(Ordering::Relaxed) > enough).then_some(()));
        }));
        done.store(true, Ordering::Relaxed);
        renewed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let (created, failures) = (created.into_inner(), failures.into_inner().unwrap_or_else(PoisonError::into_inner));
    println!("{created} pods during a renewal, {} calls failed", failures.len());
    assert!(failures.is_empty(), "of {created} pods: {failures:#?}");
    assert_ne!(site.secret().expect("the Secret")["data"]["ca.crt"], before["data"]["ca.crt"]);
    site.end(servers);
}

#[test]
fn the_bundle_alone_is_written_where_somebody_else_has_the_configuration() {
    let site = Site::new("bundle");
    let server = site.start("", AUTHORITY_ONLY);
    site.until("a line in the log", || {
        server.log().contains("there is no such MutatingWebhookConfiguration").then_some(())
    });
    assert!(site.registered().is_none());
    site.cluster.apply(&site.manifest().to_string()).expect("the chart's configuration");
    site.in_step();
    let ignore = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}, {"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    let configuration = format!("mutatingwebhookconfiguration/{}", site.name());
    site.cluster
        .kubectl(&["patch", &configuration, "--type=json", "--patch", &ignore.to_string()])
        .expect("it is patched");
    let registered = site.in_step();
    assert_eq!(registered["webhooks"][0]["failurePolicy"], "Ignore", "it is not ours");
    site.until_asked(&[&server]);
    site.end(vec![server]);
}

/// A CA, and a certificate of it for localhost with its key.
fn issue(folder: &Path, version: &str) -> [String; 2] {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let mut certificate = CertificateParams::new(vec!["localhost".to_string()]).expect("a name");
    certificate.use_authority_key_identifier_extension = true;
    let certificate = certificate.signed_by(&key, &ca).expect("a certificate");
    fs::write(folder.join(format!("{version}.crt")), ca.pem()).expect("written");
    [certificate.pem(), key.serialize_pem()]
}

/// Puts files where the server reads them, as Kubernetes does with a Secret: all at once.
fn publish(folder: &Path, version: &str, [certificate, key]: [&str; 2]) {
    let place = folder.join(format!("published-{version}"));
    fs::create_dir_all(&place).expect("a folder");
    fs::write(place.join("tls.crt"), certificate).expect("written");
    fs::write(place.join("tls.key"), key).expect("written");
    let link = folder.join("link");
    std::os::unix::fs::symlink(&place, &link).expect("a link");
    fs::rename(link, folder.join("published")).expect("swapped");
}

#[tokio::test]
async fn a_certificate_that_is_replaced_on_disk_is_served_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let [first, second] = ["first", "second"].map(|version| issue(path, version));
    publish(path, "first", [&first[0], &first[1]]);
    let place = path.join("published").display().to_string();
    let config = format!("webhook: {{tls: {{files: {{certificate: {place}/tls.crt, key: {place}/tls.key}}}}}}");
    let server = Server::start_in(server::folder(&config, "").expect("a folder"), &PITH).expect("it starts");
    let connect = |version: &str| {
        let ca = path.join(format!("{version}.crt"));
        async move { Client::connect(server.webhook, &ca, Protocol::Http1).await }
    };
    let mut before = connect("first").await.expect("a connection");
    assert_eq!(before.review(WEB).await.expect("an answer").status, StatusCode::OK);
    let expiry = async || {
        let metrics = get(server.admin, "/metrics").await.expect("an answer").text();
        let line =
            metrics.lines().find(|line| line.starts_with("pith_certificate_expiry_timestamp_seconds ")).expect("it");
        line.rsplit(' ').next().and_then(|it| it.parse::<f64>().ok()).expect("a number")
    };
    assert!(expiry().await > 1e9);

    publish(path, "broken", [&second[0], &first[1]]);
    let patience = std::time::Instant::now();
    let complaint = "the new certificate cannot be used, and the one before it is served";
    while !server.log().contains(complaint) {
        assert!(patience.elapsed() < Duration::from_secs(60), "{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    connect("first").await.expect("the first one is served");

    publish(path, "second", [&second[0], &second[1]]);
    while connect("second").await.is_err() {
        assert!(patience.elapsed() < Duration::from_secs(60), "{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(connect("first").await.is_err());
    assert_eq!(before.review(WEB).await.expect("the connection stays").status, StatusCode::OK);
    let log = server.log();
    assert_eq!(log.matches(complaint).count(), 1, "{log}");
    for line in first[1].lines().chain(second[1].lines()).filter(|line| line.len() > 20 && !line.starts_with("-----")) {
        check_for(line, "the log", &log);
    }
}
