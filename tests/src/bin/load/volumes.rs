//! Volumes: the calls of external-provisioner and external-resizer over the real socket, on SQLite and on Redis, with quotas and
//! without, and where the time of a CreateVolume goes.
//!
//! A closed loop: each caller has a connection and asks again once it is answered. The load, `pith`, its worker and Redis share
//! the processors, so the processor time of a call stands beside the rate.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use pith::csi::proto::controller_client::ControllerClient;
use pith::csi::proto::volume_capability::access_mode::Mode;
use pith::csi::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use pith::csi::proto::{
    CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest, VolumeCapability,
};
use pith::juicefs::{FileSystem, Made, Moved, Path, Worker, Workers};
use pith_core::volume::Bound;
use pith_tests::juicefs::{Scratch, options};
use pith_tests::provisioner::{Serving, Site};
use pith_tests::redis::Redis;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::process::{children, cpu_seconds, cpu_seconds_of_ended_children, kibibytes};
use crate::{Args, gather, median, time};

pub(crate) type Secrets = BTreeMap<String, String>;

const CALLERS: [usize; 2] = [1, 16];
const CALLS: [Call; 3] = [Call::Create, Call::Expand, Call::Delete];
const GIB: i64 = 1 << 30;
/// How long a caller waits before it asks again.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a volume is asked for at most.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often each request of the breakdown is measured; a quota, which is a process, less often.
const REQUESTS: usize = 300;
const QUOTAS: usize = 15;

/// The requests of one CreateVolume to the worker, as `host/src/juicefs/store.rs` makes them for a directory in the root.
const REQUESTS_OF_A_CREATION: [(Request, usize, &str); 5] = [
    (Request::Look, 2, "whether there is a record; whether something lies at the directory"),
    (Request::MakeDirectory, 5, "staging, the entry in the index (2), the directory, the mark that it is made"),
    (Request::Write, 1, "the record"),
    (Request::Move, 2, "the record and the entry into their places"),
    (Request::Quota, 1, "a client process; only with quotas"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Create,
    Expand,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Look,
    MakeDirectory,
    Write,
    Move,
    Quota,
}

/// A metadata engine, which goes when it is dropped.
enum Engine {
    Sqlite(Scratch),
    Redis(Redis),
}

/// What one row came to.
struct Row {
    latencies: Vec<Duration>,
    took: Duration,
    pith: f64,
    clients: f64,
    again: Again,
}

/// Answers after which a call was made again, by their code: how many, and what the first one said.
#[derive(Debug, Default)]
pub(crate) struct Again(BTreeMap<String, (usize, String)>);

/// Measures and prints its sections.
pub(crate) async fn run(args: &Args) -> Result<()> {
    println!("## Volumes\n");
    println!(
        "Calls over the socket of `pith serve`, each caller on its own connection, {} s a row at most. Sizes of 1 GiB, directories \
         in the root. CPU is processor time per call; that of JuiceFS is its worker and the processes that set quotas.\n",
        args.volume_seconds
    );
    println!(
        "| engine | quota | callers | call | p50 | p99 | per second | calls | asked again | `pith` CPU | JuiceFS CPU |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut said = Vec::new();
    let mut memory = Vec::new();
    let mut redis = None;
    for name in ["SQLite", "Redis"] {
        for quota in [false, true] {
            let engine = Engine::start(name)?;
            let (again, lines) = table(args, name, &engine, quota).await?;
            said.extend(again.0.into_iter().map(|(code, (count, first))| {
                format!("- {name}, {}: {count} × {code}, the first: {first}", if quota { "quota" } else { "no quota" })
            }));
            memory.push(lines);
            if name == "Redis" && !quota {
                redis = Some(engine);
            }
        }
    }
    println!();
    if !said.is_empty() {
        println!("Answers after which the same was asked again:\n\n{}\n", said.join("\n"));
    }
    println!("## Memory of volumes\n\nAfter the calls above.\n");
    println!("| engine, quota | process | resident | of it anonymous |\n|---|---|---|---|\n{}\n", memory.join("\n"));
    let engine = redis.context("it was measured")?;
    breakdown(&engine.secrets()).await
}

impl Engine {
    fn start(name: &str) -> Result<Engine> {
        Ok(if name == "Redis" { Engine::Redis(Redis::start("")?) } else { Engine::Sqlite(Scratch::new()) })
    }

    fn secrets(&self) -> Secrets {
        match self {
            Engine::Sqlite(scratch) => scratch.secrets(),
            Engine::Redis(redis) => redis.secrets(),
        }
    }
}

/// The rows of one file system, and the lines of the memory of the server that made them.
async fn table(args: &Args, engine_name: &str, engine: &Engine, quota: bool) -> Result<(Again, String)> {
    let secrets = engine.secrets();
    let config = format!("log: {{format: json}}\ncsi: {{socket: csi.sock, cluster: bench, quota: {quota}}}\n");
    let site = Site::new(&config, "", &secrets)?;
    let serving = site.serve_with(&args.pith, &[])?;
    // The worker starts, and its own directories are made.
    let mut warm = connect(&site.socket()).await?;
    for call in CALLS {
        insist(&mut warm, call, "warm", &secrets, &Mutex::default()).await?;
    }
    let quota_name = if quota { "yes" } else { "no" };
    let mut again = Again::default();
    for callers in CALLERS {
        let mut made = None;
        for call in CALLS {
            let most = Duration::from_secs(args.volume_seconds);
            let row = measure(&site, &serving, &secrets, callers, call, made, most).await?;
            // What was made is expanded, and deleted.
            let count = row.latencies.len();
            made = made.or(Some(count));
            let mean = 1.0 / number(count);
            println!(
                "| {engine_name} | {quota_name} | {callers} | {} | {} | {} | {:.0} | {count} | {} | {} | {} |",
                call.name(),
                time(row.latencies[count / 2].as_secs_f64()),
                time(row.latencies[count * 99 / 100].as_secs_f64()),
                number(count) / row.took.as_secs_f64(),
                row.again.count(),
                time(row.pith * mean),
                time(row.clients * mean),
            );
            again.add(row.again);
        }
    }
    let mut lines = vec![("`pith`".to_string(), serving.id())];
    lines.extend(children(serving.id())?.into_iter().map(|child| ("worker".to_string(), child)));
    let lines: Result<Vec<String>> = lines
        .into_iter()
        .map(|(process, pid)| {
            let mebibytes = |key| anyhow::Ok(kibibytes(pid, key)? / 1024.0);
            let (resident, anonymous) = (mebibytes("Rss:")?, mebibytes("Anonymous:")?);
            Ok(format!("| {engine_name}, {quota_name} | {process} | {resident:.1} MiB | {anonymous:.1} MiB |"))
        })
        .collect();
    Ok((again, lines?.join("\n")))
}

/// One row: volumes are numbered, and each caller takes the next number until there is none or the time is over.
async fn measure(
    site: &Site,
    serving: &Serving,
    secrets: &Secrets,
    callers: usize,
    call: Call,
    made: Option<usize>,
    most: Duration,
) -> Result<Row> {
    let next = Arc::new(AtomicUsize::new(0));
    let again: Arc<Mutex<Again>> = Arc::default();
    let mut clients = Vec::with_capacity(callers);
    for _ in 0..callers {
        clients.push(connect(&site.socket()).await?);
    }
    let (pith_before, clients_before) = cpu(serving)?;
    let started = Instant::now();
    let loops: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let (next, again, secrets) = (next.clone(), again.clone(), secrets.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while started.elapsed() < most {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if made.is_some_and(|made| index >= made) {
                        break;
                    }
                    let asked = Instant::now();
                    insist(&mut client, call, &format!("pvc-{callers}-{index}"), &secrets, &again).await?;
                    latencies.push(asked.elapsed());
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = gather(loops).await?;
    let took = started.elapsed();
    let (pith, clients) = cpu(serving)?;
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "{} was not answered", call.name());
    let again = std::mem::take(&mut *again.lock().expect("no panic"));
    Ok(Row { latencies, took, pith: pith - pith_before, clients: clients - clients_before, again })
}

/// The processor time of `pith`, and of the clients of JuiceFS that it runs and has run.
fn cpu(serving: &Serving) -> Result<(f64, f64)> {
    let mut clients = cpu_seconds_of_ended_children(serving.id())?;
    for child in children(serving.id())? {
        clients += cpu_seconds(child)?;
    }
    Ok((cpu_seconds(serving.id())?, clients))
}

pub(crate) async fn connect(socket: &FilePath) -> Result<ControllerClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    Ok(ControllerClient::new(endpoint.connect().await?))
}

/// Asks until it is done, as the sidecars do.
pub(crate) async fn insist(
    client: &mut ControllerClient<Channel>,
    call: Call,
    name: &str,
    secrets: &Secrets,
    again: &Mutex<Again>,
) -> Result<()> {
    let started = Instant::now();
    loop {
        match ask(client, call, name, secrets).await {
            Ok(()) => return Ok(()),
            Err(status) if may_pass(&status) && started.elapsed() < PATIENCE => {
                again.lock().expect("no panic").note(&status);
                tokio::time::sleep(AGAIN).await;
            }
            Err(status) => return Err(anyhow!("{} of {name}: {status}", call.name())),
        }
    }
}

async fn ask(client: &mut ControllerClient<Channel>, call: Call, name: &str, secrets: &Secrets) -> Result<(), Status> {
    let secrets = secrets.clone();
    let range = |gib: i64| Some(CapacityRange { required_bytes: gib * GIB, limit_bytes: 0 });
    match call {
        Call::Create => {
            let capability = VolumeCapability {
                access_mode: Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() }),
                access_type: Some(AccessType::Mount(MountVolume::default())),
            };
            let request = CreateVolumeRequest {
                name: name.into(),
                capacity_range: range(1),
                volume_capabilities: vec![capability],
                secrets,
                ..CreateVolumeRequest::default()
            };
            client.create_volume(request).await.map(drop)
        }
        Call::Expand => {
            let request = ControllerExpandVolumeRequest {
                volume_id: name.into(),
                capacity_range: range(2),
                secrets,
                volume_capability: None,
            };
            client.controller_expand_volume(request).await.map(drop)
        }
        Call::Delete => client.delete_volume(DeleteVolumeRequest { volume_id: name.into(), secrets }).await.map(drop),
    }
}

fn may_pass(status: &Status) -> bool {
    let code = status.code();
    matches!(code, Code::Aborted | Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled)
        || status.message().ends_with("(nothing was made)")
}

impl Call {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Call::Create => "CreateVolume",
            Call::Expand => "ControllerExpandVolume",
            Call::Delete => "DeleteVolume",
        }
    }
}

impl Again {
    fn note(&mut self, status: &Status) {
        let (count, _) =
            self.0.entry(format!("{:?}", status.code())).or_insert_with(|| (0, status.message().to_string()));
        *count += 1;
    }

    fn add(&mut self, other: Again) {
        for (code, (count, first)) in other.0 {
            self.0.entry(code).or_insert((0, first)).0 += count;
        }
    }

    pub(crate) fn count(&self) -> String {
        let counts: Vec<String> = self.0.iter().map(|(code, (count, _))| format!("{count} {code}")).collect();
        if counts.is_empty() { "none".into() } else { counts.join(", ") }
    }
}

/// What the requests of one CreateVolume take, asked one after the other of a worker of our own in the same file system.
async fn breakdown(secrets: &Secrets) -> Result<()> {
    let file_system = FileSystem::from_secrets(secrets)?;
    let workers = Workers::new(options())?;
    let worker = workers.get(&file_system).await?;
    worker.make_directory(&Path::of(["from"])?).await?;
    worker.make_directory(&Path::of(["to"])?).await?;
    let mut times: Vec<(Request, Vec<f64>)> = Vec::new();
    for (request, _, _) in REQUESTS_OF_A_CREATION {
        let rounds = if request == Request::Quota { QUOTAS } else { REQUESTS };
        let mut seconds = Vec::with_capacity(rounds);
        // The first few are for the worker to get going.
        for index in 0..rounds + 10 {
            let took = once(&workers, &file_system, &worker, request, index).await?;
            if index >= 10 {
                seconds.push(took.as_secs_f64());
            }
        }
        times.push((request, seconds));
    }
    drop(worker);
    workers.stop().await;

    println!("## Where the time of a CreateVolume goes\n");
    println!(
        "On Redis, the requests to the worker one after the other, medians of {REQUESTS} ({QUOTAS} of the quota).\n"
    );
    println!("| request | how many | what for | each | together |\n|---|---|---|---|---|");
    let mut sum = 0.0;
    for ((request, count, what), (_, seconds)) in REQUESTS_OF_A_CREATION.into_iter().zip(times) {
        let each = median(seconds);
        let together = each * number(count);
        if request != Request::Quota {
            sum += together;
        }
        println!("| {} | {count} | {what} | {} | {} |", request.name(), time(each), time(together));
    }
    println!("| all without the quota | | | | {} |", time(sum));
    Ok(())
}

async fn once(
    workers: &Workers,
    file_system: &FileSystem,
    worker: &Worker,
    request: Request,
    index: usize,
) -> Result<Duration> {
    // The size of a record; what is in it makes no difference.
    const RECORD: usize = 700;
    let staged = Path::of(["from", &index.to_string()])?;
    let moved = Path::of(["to", &index.to_string()])?;
    let started = Instant::now();
    match request {
        Request::Look => ensure!(worker.kind(&staged).await?.is_none()),
        Request::MakeDirectory => ensure!(worker.make_directory(&staged).await? == Made::Made),
        Request::Write => worker.write(&staged.join("record")?, vec![b'r'; RECORD]).await?,
        Request::Move => ensure!(worker.move_exclusive(&staged, &moved).await? == Moved::Moved),
        Request::Quota => workers.set_quota(file_system, &moved, Bound { bytes: Some(1 << 30), inodes: None }).await?,
    }
    Ok(started.elapsed())
}

impl Request {
    fn name(self) -> &'static str {
        match self {
            Request::Look => "look (PROPFIND)",
            Request::MakeDirectory => "make a directory (MKCOL)",
            Request::Write => "write a file (PUT)",
            Request::Move => "move (MOVE)",
            Request::Quota => "set a quota (`juicefs quota set`)",
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of calls is small")]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}
