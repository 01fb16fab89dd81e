//! Many volumes: what CreateVolume, ListVolumes and DeleteVolume cost while there are ten and a hundred thousand of them, and what a
//! volume costs in memory. Beside them a straw man, which does what the JuiceFS CSI driver does for a volume.
//!
//! Everything is made through the socket of `pith serve`, on Redis without quotas, and deleted again.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pith::csi::proto::ListVolumesRequest;
use pith_tests::juicefs::CLIENT;
use pith_tests::provisioner::{Serving, Site};
use pith_tests::redis::Redis;
use serde::Deserialize;
use serde_json::json;

use crate::process::{children, kibibytes, largest_resident};
use crate::volumes::{Again, Call, Secrets, connect, insist, number};
use crate::{Args, time};

const CALLERS: usize = 16;
/// How many of the first and of the last calls are compared.
const ENDS: usize = 1000;
/// How many calls of one caller are measured beside all those volumes.
const ALONE: usize = 200;
/// How many client processes the JuiceFS driver runs at once to set quotas, and how many are measured.
const POOL: usize = 4;
const PROCESSES: usize = 200;
/// How often a list of PersistentVolumes is read.
const LISTS: usize = 7;

/// Memory at one moment, in KiB.
struct Memory {
    when: &'static str,
    pith: f64,
    most: f64,
    worker: f64,
}

/// Measures and prints its sections.
pub(crate) async fn run(args: &Args) -> Result<()> {
    println!("## Many volumes\n");
    println!(
        "On Redis without quotas, directories in the root; {CALLERS} callers make and delete them, and one caller measures {ALONE} more \
         while they are there. The first and the last are the medians of {ENDS} calls each.\n"
    );
    println!("| volumes | callers | call | p50 | p99 | per second | the first | the last | asked again |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut memory = Vec::new();
    for volumes in &args.many {
        memory.push((*volumes, fill(args, *volumes).await?));
    }
    println!("\n## Memory of many volumes\n");
    println!("Resident memory; `a volume` is what came to it since the first line, by volume.\n");
    println!("| volumes | when | `pith` | a volume | at most so far | worker |\n|---|---|---|---|---|---|");
    for (volumes, moments) in &memory {
        let first = moments.first().context("it was measured")?.pith;
        for Memory { when, pith, most, worker } in moments {
            let each = (pith - first) / number(*volumes);
            let mebibytes = [pith, most, worker].map(|kibibytes| format!("{:.1} MiB", kibibytes / 1024.0));
            let [pith, most, worker] = mebibytes;
            println!("| {volumes} | {when} | {pith} | {each:.2} KiB | {most} | {worker} |");
        }
    }
    straw_man(&args.many)
}

/// Makes so many volumes, lists them and deletes them, and prints a row for each. The answer is the memory on the way.
async fn fill(args: &Args, volumes: usize) -> Result<Vec<Memory>> {
    let redis = Redis::start("")?;
    let secrets = redis.secrets();
    let config =
        "log: {format: json}\ncsi: {socket: csi.sock, cluster: bench, quota: false, secretFiles: [secret.yaml]}\n";
    let site = Site::new(config, "", &secrets)?;
    let serving = site.serve_with(&args.pith, &[])?;
    let mut client = connect(&site.socket()).await?;
    for call in [Call::Create, Call::Delete] {
        insist(&mut client, call, "warm", &secrets, &Mutex::default()).await?;
    }
    let mut memory = vec![now("at the start", &serving)?];
    many(&site, &secrets, volumes, Call::Create).await?;
    memory.push(now("when they are made", &serving)?);
    for call in [Call::Create, Call::Delete] {
        let mut latencies = Vec::with_capacity(ALONE);
        let (again, started) = (Mutex::default(), Instant::now());
        for index in 0..ALONE {
            let asked = Instant::now();
            insist(&mut client, call, &format!("alone-{index}"), &secrets, &again).await?;
            latencies.push(asked.elapsed());
        }
        row(volumes, 1, call.name(), &latencies, started.elapsed(), &again.into_inner().expect("no panic"));
    }
    list(&site, volumes).await?;
    memory.push(now("when they were listed", &serving)?);
    many(&site, &secrets, volumes, Call::Delete).await?;
    memory.push(now("when they are deleted", &serving)?);
    Ok(memory)
}

/// Calls for each volume, by several callers.
async fn many(site: &Site, secrets: &Secrets, volumes: usize, call: Call) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let again: Arc<Mutex<Again>> = Arc::default();
    let started = Instant::now();
    let mut loops = Vec::with_capacity(CALLERS);
    for _ in 0..CALLERS {
        let mut client = connect(&site.socket()).await?;
        let (next, again, secrets) = (next.clone(), again.clone(), secrets.clone());
        loops.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= volumes {
                    return anyhow::Ok(latencies);
                }
                if index.is_multiple_of(volumes.div_ceil(20)) {
                    progress(call.name(), index, volumes, started);
                }
                let asked = Instant::now();
                insist(&mut client, call, &id(index), &secrets, &again).await?;
                latencies.push((index, asked.elapsed()));
            }
        }));
    }
    let mut latencies = Vec::with_capacity(volumes);
    for one in loops {
        latencies.extend(one.await??);
    }
    let took = started.elapsed();
    latencies.sort_unstable();
    let latencies: Vec<Duration> = latencies.into_iter().map(|(_, latency)| latency).collect();
    let again = std::mem::take(&mut *again.lock().expect("no panic"));
    row(volumes, CALLERS, call.name(), &latencies, took, &again);
    Ok(())
}

/// Page after page, as long as they may be.
async fn list(site: &Site, volumes: usize) -> Result<()> {
    let mut client = connect(&site.socket()).await?;
    let (mut listed, mut latencies, mut token) = (0, Vec::new(), String::new());
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        let page =
            client.list_volumes(ListVolumesRequest { max_entries: 0, starting_token: token }).await?.into_inner();
        latencies.push(asked.elapsed());
        listed += page.entries.len();
        token = page.next_token;
        if latencies.len() % 10 == 1 {
            progress("ListVolumes", listed, volumes, started);
        }
        if token.is_empty() {
            break;
        }
    }
    ensure!(listed == volumes, "{listed} of {volumes} volumes were listed");
    let took = started.elapsed();
    let name = format!("ListVolumes, {} pages in {:.1} s", latencies.len(), took.as_secs_f64());
    row(volumes, 1, &name, &latencies, took, &Again::default());
    Ok(())
}

/// A row, of latencies in the order of the calls.
fn row(volumes: usize, callers: usize, call: &str, latencies: &[Duration], took: Duration, again: &Again) {
    let some = ENDS.min(latencies.len() / 2);
    let (first, last) = (&latencies[..some], &latencies[latencies.len() - some..]);
    let percentile = |latencies: &[Duration], percent: usize| {
        let mut sorted = latencies.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() * percent / 100).map_or_else(String::new, |it| time(it.as_secs_f64()))
    };
    println!(
        "| {volumes} | {callers} | {call} | {} | {} | {:.0} | {} | {} | {} |",
        percentile(latencies, 50),
        percentile(latencies, 99),
        number(latencies.len()) / took.as_secs_f64(),
        percentile(first, 50),
        percentile(last, 50),
        again.count(),
    );
    let _ = std::io::stdout().flush();
}

fn progress(call: &str, done: usize, of: usize, started: Instant) {
    eprintln!("{call}: {done} of {of} after {:.0} s", started.elapsed().as_secs_f64());
}

fn now(when: &'static str, serving: &Serving) -> Result<Memory> {
    let worker = children(serving.id())?.into_iter().next().context("a worker runs")?;
    let (pith, most) = (kibibytes(serving.id(), "Rss:")?, largest_resident(serving.id())?);
    Ok(Memory { when, pith, most, worker: kibibytes(worker, "Rss:")? })
}

/// What the JuiceFS driver needs of a PersistentVolume to find who else uses a directory.
#[derive(Deserialize)]
#[expect(dead_code, reason = "it is only read")]
struct Volume {
    metadata: BTreeMap<String, serde_json::Value>,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is only read")]
struct Spec {
    csi: Csi,
    storage_class_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is only read")]
struct Csi {
    volume_handle: String,
    volume_attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Volume>,
}

/// The parts of what the JuiceFS driver does for a volume that can be had without a cluster: a client process that sets the quota, and
/// reading a list of all PersistentVolumes. What the API server, the network and the delete Job's pod take comes on top.
fn straw_man(sizes: &[usize]) -> Result<()> {
    println!("\n## The straw man\n");
    println!(
        "What the JuiceFS CSI driver's controller does for a volume, as far as it takes no cluster: `juicefs quota set --create` for each, \
         {POOL} at once, and reading the JSON of all PersistentVolumes for each deletion. The pod that deletes, the API server and the \
         network come on top.\n"
    );
    println!("| what | for | p50 | p99 | per second |\n|---|---|---|---|---|");
    let redis = Redis::start("")?;
    let url = redis.url();
    let client = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(&*CLIENT);
        command.arg("--no-agent").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ensure!(command.status()?.success(), "the client failed: {arguments:?}");
        Ok(())
    };
    let bucket = format!("--bucket={}", redis.secrets()["bucket"]);
    client(&["format", "--storage=file", &bucket, &url, "straw"])?;
    let (next, latencies, started) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Instant::now());
    std::thread::scope(|scope| {
        let set = || -> Result<()> {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= PROCESSES {
                    return Ok(());
                }
                let (path, asked) = (format!("/pvc-{index}"), Instant::now());
                client(&["quota", "set", &url, "--path", &path, "--capacity", "1", "--create"])?;
                latencies.lock().expect("no panic").push(asked.elapsed());
            }
        };
        let callers: Vec<_> = (0..POOL).map(|_| scope.spawn(set)).collect();
        callers.into_iter().try_for_each(|caller| caller.join().expect("no panic"))
    })?;
    straw_row("a quota", "CreateVolume", latencies.into_inner().expect("no panic"), started.elapsed());
    for volumes in sizes {
        let items: Vec<_> = (0..*volumes).map(persistent_volume).collect();
        let text = json!({"apiVersion": "v1", "kind": "PersistentVolumeList", "items": items}).to_string();
        drop(items);
        let (mut latencies, started) = (Vec::with_capacity(LISTS), Instant::now());
        for _ in 0..LISTS {
            let asked = Instant::now();
            let list: List = serde_json::from_str(&text)?;
            ensure!(list.items.len() == *volumes, "a list is not whole");
            latencies.push(asked.elapsed());
        }
        let what = format!("the list of {volumes} PersistentVolumes, {} MiB", text.len() >> 20);
        straw_row(&what, "DeleteVolume", latencies, started.elapsed());
    }
    Ok(())
}

fn straw_row(what: &str, call: &str, mut latencies: Vec<Duration>, took: Duration) {
    latencies.sort_unstable();
    let percentile = |percent: usize| time(latencies[latencies.len() * percent / 100].as_secs_f64());
    let rate = number(latencies.len()) / took.as_secs_f64();
    println!("| {what} | {call} | {} | {} | {rate:.0} |", percentile(50), percentile(99));
}

/// As long as those that external-provisioner gives.
fn id(index: usize) -> String {
    format!("pvc-{index:08x}-0000-4000-8000-000000000000")
}

/// As external-provisioner writes them.
fn persistent_volume(index: usize) -> serde_json::Value {
    let name = id(index);
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": name, "uid": name, "resourceVersion": "123456", "creationTimestamp": "2026-11-23T10:00:00Z",
            "annotations": {
                "pv.kubernetes.io/provisioned-by": "csi.juicefs.com",
                "volume.kubernetes.io/provisioner-deletion-secret-name": "juicefs-secret",
                "volume.kubernetes.io/provisioner-deletion-secret-namespace": "kube-system",
            },
            "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer", "kubernetes.io/pv-protection"],
        },
        "spec": {
            "accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}, "storageClassName": "juicefs",
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name, "namespace": "shop", "uid": name},
            "csi": {
                "driver": "csi.juicefs.com", "volumeHandle": name,
                "nodePublishSecretRef": {"name": "juicefs-secret", "namespace": "kube-system"},
                "volumeAttributes": {
                    "capacity": "1073741824", "subPath": name, "storage.kubernetes.io/csiProvisionerIdentity": "1763892000000-1234-csi.juicefs.com",
                },
            },
            "persistentVolumeReclaimPolicy": "Delete", "volumeMode": "Filesystem",
        },
        "status": {"phase": "Bound"},
    })
}
