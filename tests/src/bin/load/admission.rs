//! What the webhook adds to the creation of a pod, as whoever creates it sees it: through a real API server.
//!
//! Pods are created in four namespaces in turn, and again: two that no webhook is asked about, of which one gets the pods as Pith
//! would make them, one whose pods are injected, and one whose pods are injected with three bindings. Nobody schedules them, so
//! what is measured is their creation and nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use pith_tests::client::Client;
use pith_tests::cluster::{ADDRESS, Cluster, Namespace, static_volume};
use pith_tests::server::Server;
use serde_json::{Value, json};

use crate::process::kibibytes;
use crate::webhook::three_policies;
use crate::{Args, gather, median, time};

/// The cluster, which `cargo xtask bench` starts.
const CLUSTER: &str = "bench";
const CONNECTIONS: [usize; 2] = [1, 16];
const CLAIMS: usize = 20;
const PODS: usize = 300;
/// Of how many pods each namespace has its turn.
const TURN: usize = 100;

/// A namespace and what is asked about its pods.
struct Target {
    name: &'static str,
    namespace: Namespace,
    server: Option<Server>,
    /// What is created there.
    pod: Value,
}

/// How the API server is asked.
#[derive(Clone)]
struct Access {
    address: SocketAddr,
    ca: PathBuf,
    token: String,
}

/// What one turn of one namespace gave.
struct Turn {
    latencies: Vec<Duration>,
    took: Duration,
}

/// Measures and prints its section.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::find(CLUSTER)?));
    let access = access(cluster)?;
    let injected = target(cluster, args, "injected", Some(""))?;
    let mut beforehand = target(cluster, args, "no webhook, injected beforehand", None)?;
    beforehand.pod = made(cluster, &injected)?;
    let targets = [
        target(cluster, args, "no webhook", None)?,
        beforehand,
        injected,
        target(cluster, args, "injected, three bindings", Some(&three_policies()))?,
    ];
    println!("## Pod creation through a real API server\n");
    println!(
        "{PODS} pods with one of {CLAIMS} claims each, {TURN} in a turn, namespaces in turn; p50 and p99 over all, the rate of the \
         median turn.\n"
    );
    println!("| connections | namespace | p50 | added | p99 | pods/s | of no webhook | resident |");
    println!("|---|---|---|---|---|---|---|---|");
    for connections in CONNECTIONS {
        let mut turns: Vec<Vec<Turn>> = targets.iter().map(|_| Vec::new()).collect();
        for round in 0..=PODS / TURN {
            for (target, turns) in targets.iter().zip(&mut turns) {
                let turn = create(&access, target, connections).await?;
                remove(&access, &target.namespace.name).await?;
                // The first round warms up.
                if round > 0 {
                    turns.push(turn);
                }
            }
        }
        let mut first = None;
        for (target, turns) in targets.iter().zip(&turns) {
            let mut latencies: Vec<f64> =
                turns.iter().flat_map(|turn| &turn.latencies).map(Duration::as_secs_f64).collect();
            latencies.sort_unstable_by(f64::total_cmp);
            let (p50, p99) = (latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100]);
            #[expect(clippy::cast_precision_loss, reason = "a count of pods is small")]
            let rate = median(turns.iter().map(|turn| turn.latencies.len() as f64 / turn.took.as_secs_f64()).collect());
            let (alone, rate_alone) = *first.get_or_insert((p50, rate));
            let resident = match &target.server {
                Some(server) => format!("{:.1} MiB", kibibytes(server.pid(), "Rss:")? / 1024.0),
                None => String::new(),
            };
            println!(
                "| {connections} | {} | {} | {} | {} | {rate:.0} | {:.0} % | {resident} |",
                target.name,
                time(p50),
                time((p50 - alone).max(0.0)),
                time(p99),
                rate / rate_alone * 100.0,
            );
        }
    }
    for target in &targets {
        if target.server.is_some() {
            cluster.kubectl(&["delete", "mutatingwebhookconfiguration", &format!("pith-{}", target.namespace.name)])?;
        }
    }
    Ok(())
}

/// An account that may do everything, and where the API server is.
fn access(cluster: &Cluster) -> Result<Access> {
    cluster.apply(
        &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bench"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "default"}],
        })
        .to_string(),
    )?;
    Ok(Access {
        address: format!("{ADDRESS}:6443").parse()?,
        ca: cluster.folder().join("lib/pki/ca.crt"),
        token: cluster.kubectl(&["create", "token", "default", "--duration=24h"])?.trim().into(),
    })
}

/// A namespace with bound claims. With a configuration, a webhook is asked about its pods.
fn target(cluster: &'static Cluster, args: &Args, name: &'static str, config: Option<&str>) -> Result<Target> {
    let label = if config.is_some() { "true" } else { "false" };
    let namespace = cluster.namespace("bench", &json!({"juicefs.com/enable-injection": label}))?;
    let objects: Vec<String> = (0..CLAIMS)
        .flat_map(|index| static_volume(&namespace.name, &format!("data-{index}")))
        .map(|it| format!("{it}\n"))
        .collect();
    cluster.apply(&objects.join("---\n"))?;
    for index in 0..CLAIMS {
        cluster.wait(&namespace.name, "jsonpath={.status.phase}=Bound", &format!("pvc/data-{index}"))?;
    }
    let server = match config {
        Some(config) => {
            let kubeconfig = cluster.kubeconfig_of_pith("pith-webhook")?;
            let server = Server::start_binary_following(cluster, &args.pith, config, &kubeconfig)?;
            cluster.until(&namespace.name, "readiness", || {
                Ok((cluster.http(server.admin, "/readyz")?.0 == 200).then_some(()))
            })?;
            cluster.register(&namespace.name, &server)?;
            let label = format!("pith.test/webhook={}", namespace.name);
            cluster.kubectl(&["label", "namespace", &namespace.name, &label])?;
            Some(server)
        }
        None => None,
    };
    let target = Target { name, namespace, server, pod: pod() };
    if target.server.is_some() {
        cluster.until(&target.namespace.name, "an injection", || {
            Ok(made(cluster, &target)?["spec"]["initContainers"].is_array().then_some(()))
        })?;
    }
    Ok(target)
}

/// A pod as it would be stored, without what the API server gives to each.
fn made(cluster: &Cluster, target: &Target) -> Result<Value> {
    let dry = ["create", "--dry-run=server", "--output=json", "--namespace", &target.namespace.name, "-f", "-"];
    let made: Value = serde_json::from_str(&cluster.kubectl_with(&dry, &target.pod.to_string())?)?;
    let mut pod = target.pod.clone();
    pod["metadata"]["annotations"] = made["metadata"]["annotations"].clone();
    pod["metadata"]["labels"] = made["metadata"]["labels"].clone();
    pod["spec"] = made["spec"].clone();
    Ok(pod)
}

/// A pod that nobody runs.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-", "labels": {"app": "web"}},
        "spec": {
            "schedulerName": "nobody", "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "app", "image": "docker.io/pith/app:0.1.0",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-0"}}],
        },
    })
}

/// The same pod with another claim.
fn with_claim(mut pod: Value, index: usize) -> Value {
    let volumes = pod["spec"]["volumes"].as_array_mut().into_iter().flatten();
    for claim in volumes.filter_map(|volume| volume.pointer_mut("/persistentVolumeClaim/claimName")) {
        *claim = format!("data-{}", index % CLAIMS).into();
    }
    pod
}

/// Creates pods as fast as answers come, on each connection on its own.
async fn create(access: &Access, target: &Target, connections: usize) -> Result<Turn> {
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(Client::connect_by_address(access.address, &access.ca).await?);
    }
    let started = Instant::now();
    let loops = clients.into_iter().enumerate().map(|(first, client)| {
        let mine: Vec<String> =
            (first..TURN).step_by(connections).map(|index| with_claim(target.pod.clone(), index).to_string()).collect();
        tokio::spawn(create_each(client, access.clone(), target.namespace.name.to_string(), mine))
    });
    let latencies = gather(loops.collect()).await?;
    Ok(Turn { latencies, took: started.elapsed() })
}

async fn create_each(
    mut client: Client,
    access: Access,
    namespace: String,
    pods: Vec<String>,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(pods.len());
    for pod in pods {
        let asked = Instant::now();
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let answer = ask(&mut client, &access, "POST", &path, pod.into()).await?;
        latencies.push(asked.elapsed());
        drop(answer);
    }
    Ok(latencies)
}

async fn remove(access: &Access, namespace: &str) -> Result<()> {
    let mut client = Client::connect_by_address(access.address, &access.ca).await?;
    let path = format!("/api/v1/namespaces/{namespace}/pods?gracePeriodSeconds=0");
    ask(&mut client, access, "DELETE", &path, Bytes::new()).await.map(drop)
}

async fn ask(client: &mut Client, access: &Access, method: &str, path: &str, body: Bytes) -> Result<Bytes> {
    let mut request = client.request(method, path, "application/json", body)?;
    let token = format!("Bearer {}", access.token).parse().context("a token")?;
    request.headers_mut().insert("authorization", token);
    let answer = client.send(request).await?;
    ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
    Ok(answer.body)
}
