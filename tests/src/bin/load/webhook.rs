//! The webhook: full injection against two servers of the same stack, memory, and the start.
//!
//! A closed loop over keep-alive connections, every server in turn and again, so that a machine whose speed drifts does so for
//! all of them: ratios of one run are what counts. The load shares the processors with the server, so the processor time that a
//! server spends on one request stands beside the rate.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use pith_tests::client::{Client, Protocol};
use pith_tests::server::{self, Server};
use pith_tests::wasm_builds;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process::{cpu_seconds, kibibytes};
use crate::{Args, gather, median, release, time};

const SHOP: &str = include_str!("../../../fixtures/objects/shop.yaml");
const WEB: &str = include_str!("../../../fixtures/reviews/web.json");
const CONNECTIONS: [usize; 3] = [1, 16, 64];

/// Measures and prints its sections.
pub(crate) fn run(args: &Args, runtime: &Runtime) -> Result<()> {
    runtime.block_on(throughput(args))?;
    runtime.block_on(memory(&args.pith))?;
    start(&args.pith)
}

/// A server under load: a name, where it is, and the process that holds it.
pub(crate) struct Target {
    name: String,
    address: SocketAddr,
    ca: PathBuf,
    pid: u32,
    _held: Held,
}

impl Target {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

enum Held {
    Pith(#[expect(dead_code, reason = "held until the end, which kills it")] Server),
    Baseline(Child, #[expect(dead_code, reason = "held until the end, which removes it")] TempDir),
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Held::Baseline(child, _) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What one turn of one server gave.
pub(crate) struct Turn {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) cpu_micros: f64,
}

async fn throughput(args: &Args) -> Result<()> {
    let targets = [
        baseline("static", "a: static answer")?,
        baseline("parse", "b: parse and allow")?,
        pith(&args.pith, "c: pith, three policies", &three_policies())?,
    ];
    println!("## Full injection over TLS\n");
    println!(
        "Review of {} bytes, three policies ({} calls a review), HTTP/1.1 keep-alive, {} rounds of {} s each, medians.\n",
        WEB.trim_end().len(),
        3,
        args.rounds,
        args.seconds
    );
    println!("| connections | server | requests/s | of (b) | p50 | p99 | server CPU per request |");
    println!("|---|---|---|---|---|---|---|");
    for connections in CONNECTIONS {
        let mut turns: Vec<Vec<Turn>> = targets.iter().map(|_| Vec::new()).collect();
        for round in 0..=args.rounds {
            for (target, turns) in targets.iter().zip(&mut turns) {
                let turn = load(target, connections, Duration::from_secs(args.seconds)).await?;
                // The first round warms up.
                if round > 0 {
                    turns.push(turn);
                }
            }
        }
        let parse: Vec<f64> = turns[1].iter().map(|turn| turn.per_second).collect();
        for (target, turns) in targets.iter().zip(&turns) {
            let ratios = turns.iter().zip(&parse).map(|(turn, parse)| turn.per_second / parse * 100.0).collect();
            println!(
                "| {connections} | {} | {:.0} | {:.0} % | {} | {} | {:.0} µs |",
                target.name,
                median(turns.iter().map(|turn| turn.per_second).collect()),
                median(ratios),
                time(median(turns.iter().map(|turn| turn.p50.as_secs_f64()).collect())),
                time(median(turns.iter().map(|turn| turn.p99.as_secs_f64()).collect())),
                median(turns.iter().map(|turn| turn.cpu_micros).collect()),
            );
        }
    }
    println!();
    Ok(())
}

/// Asks as fast as answers come, on each connection on its own.
pub(crate) async fn load(target: &Target, connections: usize, time: Duration) -> Result<Turn> {
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(Client::connect(target.address, &target.ca, Protocol::Http1).await?);
    }
    let body = Bytes::from_static(WEB.as_bytes());
    let (cpu_before, started) = (cpu_seconds(target.pid)?, Instant::now());
    let loops: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let body = body.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(100_000);
                while started.elapsed() < time {
                    let asked = Instant::now();
                    let answer = client.review(body.clone()).await?;
                    ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
                    latencies.push(asked.elapsed());
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = gather(loops).await?;
    let took = started.elapsed();
    let cpu = cpu_seconds(target.pid)? - cpu_before;
    latencies.sort_unstable();
    let count = latencies.len();
    ensure!(count > 0, "{} gave no answer", target.name);
    #[expect(clippy::cast_precision_loss, reason = "a count of requests is small")]
    let requests = count as f64;
    Ok(Turn {
        per_second: requests / took.as_secs_f64(),
        p50: latencies[count / 2],
        p99: latencies[count * 99 / 100],
        cpu_micros: cpu / requests * 1e6,
    })
}

/// A Pith with this configuration.
pub(crate) fn pith(binary: &Path, name: &str, config: &str) -> Result<Target> {
    let server = Server::start_in(server::folder(config, SHOP)?, binary)?;
    Ok(Target {
        name: name.into(),
        address: server.webhook,
        ca: server.ca(),
        pid: server.pid(),
        _held: Held::Pith(server),
    })
}

fn baseline(kind: &str, name: &str) -> Result<Target> {
    let folder = tempfile::tempdir()?;
    let mut child = Command::new(release("baseline")).arg(kind).arg(folder.path()).stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut address)?;
    Ok(Target {
        name: name.into(),
        address: address.trim().parse().context("the address of the baseline")?,
        ca: folder.path().join("tls/ca.crt"),
        pid: child.id(),
        _held: Held::Baseline(child, folder),
    })
}

/// One exemption and two sidecar policies, so that a review with one volume makes three calls. The log is what it is in
/// production: one line a request.
pub(crate) fn three_policies() -> String {
    let module = |name: &str| wasm_builds::policy(name).display().to_string();
    let (exemption, resources) = (module("exemption"), module("resources"));
    format!(
        "log: {{format: json}}\n\
         policies:\n\
         - name: exemption\n  module: {{file: {exemption}}}\n  settings: {{rules: [{{action: skip, reason: system, namespaces: [kube-*]}}]}}\n\
         - name: sizes\n  module: {{file: {resources}}}\n  priority: 1\n  settings: {{sizes: {{small: {{requests: {{cpu: 100m, memory: 128Mi}}}}}}, default: small}}\n\
         - name: teams\n  module: {{file: {resources}}}\n  priority: 2\n  settings: {{teams: {{web: {{change: {{limits: {{memory: 2Gi}}}}}}}}}}\n"
    )
}

async fn memory(binary: &Path) -> Result<()> {
    println!(
        "## Memory\n\nResident memory of `pith serve` with three policies, after a hundred reviews.\n\n\
         | objects | policies compiled at this start | from the compile cache |\n|---|---|---|"
    );
    let claims = 10_000;
    for (name, objects) in [("one claim", SHOP.to_string()), ("10 000 claims and volumes", many_claims(claims))] {
        let first = Server::start_in(server::folder(&three_policies(), &objects)?, binary)?;
        let compiled = resident_after_reviews(&first).await?;
        // The copy has the first one's compiled policies.
        let second = Server::start_in(folder_again(&first.folder)?, binary)?;
        println!("| {name} | {compiled} | {} |", resident_after_reviews(&second).await?);
    }
    println!();
    Ok(())
}

async fn resident_after_reviews(server: &Server) -> Result<String> {
    let mut client = Client::connect(server.webhook, &server.ca(), Protocol::Http1).await?;
    for _ in 0..100 {
        client.review(WEB).await?;
    }
    Ok(format!("{:.1} MiB", kibibytes(server.pid(), "Rss:")? / 1024.0))
}

/// The shop, with that many bound claims of ordinary size.
fn many_claims(count: usize) -> String {
    let mut objects = SHOP.to_string();
    for index in 0..count {
        let _ = write!(
            objects,
            "---\napiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: pvc-{index:08x}-0000-4000-8000-000000000000}}\n\
             spec:\n  accessModes: [ReadWriteMany]\n  storageClassName: juicefs\n  csi:\n    driver: csi.juicefs.com\n    \
             volumeHandle: pvc-{index:08x}-0000-4000-8000-000000000000\n    volumeAttributes: {{subPath: shop/data-{index}, capacity: \"10737418240\"}}\n    \
             nodePublishSecretRef: {{namespace: pith-system, name: juicefs-shop}}\n\
             ---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: data-{index}\n  namespace: shop\n  \
             uid: {index:08x}-0000-4000-8000-000000000000\n  labels: {{app: web, team: web}}\n  \
             annotations: {{pv.kubernetes.io/bind-completed: \"yes\", volume.kubernetes.io/storage-provisioner: csi.juicefs.com}}\n\
             spec:\n  accessModes: [ReadWriteMany]\n  storageClassName: juicefs\n  volumeName: pvc-{index:08x}-0000-4000-8000-000000000000\n  \
             resources: {{requests: {{storage: 10Gi}}}}\n"
        );
    }
    objects
}

/// From the start of the process to readiness with twenty policies, each a module of its own.
fn start(binary: &Path) -> Result<()> {
    println!("## Start to ready, 20 policies\n\n| compile cache | time (median of 5) |\n|---|---|");
    let (cold, warm) = starts(binary, 20, 5)?;
    println!("| cold | {:.2} s |\n| warm | {:.3} s |", median(cold), median(warm));
    Ok(())
}

/// The seconds of so many starts with so many policies, with nothing compiled and with everything.
pub(crate) fn starts(binary: &Path, count: usize, times: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let modules = tempfile::tempdir()?;
    let config = policies(modules.path(), count)?;
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let folder = server::folder(&config, SHOP)?;
        for times in [&mut cold, &mut warm] {
            let started = Instant::now();
            let server = Server::start_in(folder_again(&folder)?, binary)?;
            times.push(started.elapsed().as_secs_f64());
            // What was compiled is kept for the second start.
            let compiled = server.folder.path().join("state/compiled");
            let kept = folder.path().join("state/compiled");
            if !kept.exists() {
                fs::create_dir_all(folder.path().join("state"))?;
                fs::rename(compiled, kept)?;
            }
        }
    }
    Ok((cold, warm))
}

/// A copy of a folder, with its compiled policies where there are some.
pub(crate) fn folder_again(from: &TempDir) -> Result<TempDir> {
    let to = tempfile::tempdir()?;
    let status = Command::new("cp")
        .args(["--recursive", "--preserve=mode", "."])
        .arg(to.path())
        .current_dir(from.path())
        .status()?;
    ensure!(status.success(), "copying the folder");
    // The sign of a server that listens, which this one does not yet.
    match fs::remove_file(to.path().join("addresses.json")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(to)
}

/// So many policies, of which every other one is about sidecars and the rest about exemptions; a custom section makes each module
/// another one.
pub(crate) fn policies(folder: &Path, count: usize) -> Result<String> {
    let mut config = String::from("policies:\n");
    for index in 0..count {
        let name = if index % 2 == 0 { "resources" } else { "exemption" };
        let mut bytes = fs::read(wasm_builds::policy(name))?;
        // Section id 0 (custom), its length, the length of its name, the name, one byte.
        bytes.extend([0, 3, 1, b'n', u8::try_from(index)?]);
        let path = folder.join(format!("{index}.wasm"));
        fs::write(&path, bytes)?;
        let settings = if index % 2 == 0 { "{}" } else { "{rules: []}" };
        let _ = writeln!(config, "- {{name: p{index}, module: {{file: {}}}, settings: {settings}}}", path.display());
    }
    Ok(config)
}
