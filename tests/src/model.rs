//! Volumes under random calls and random harm, against a model of what must hold.
//!
//! Several callers, each with volumes of its own, ask two replicas over one file system, as the sidecars do: again until there is
//! an answer, with deadlines that are often too short, and now and then both replicas at once. Meanwhile `pith`, its workers and
//! the metadata engine are killed with -9, and the engine stands still. What each answer says is compared with the model when it
//! comes, and what lies in the file system in the end: no volume is lost, doubled, left behind, or shows what is another's.
//!
//! All that is decided by chance comes from the seed. What runs beside each other is the machine's to order, so a seed that found
//! something may have to be run more than once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use pith::csi::proto::controller_client::ControllerClient;
use pith::csi::proto::volume_capability::access_mode::Mode;
use pith::csi::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use pith::csi::proto::{
    CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest,
    ValidateVolumeCapabilitiesRequest, VolumeCapability,
};
use pith::juicefs::{Depth, FileSystem, JuiceFsError, Path, Workers};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::juicefs::options;
use crate::provisioner::{Serving, Site};
use crate::redis::Redis;

/// How much happens.
#[derive(Debug, Clone)]
pub struct Options {
    /// What chance comes from.
    pub seed: u64,
    /// How many processes are killed.
    pub kills: usize,
    /// The binary.
    pub pith: PathBuf,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    /// Calls that were answered for good, by their name.
    pub calls: BTreeMap<&'static str, usize>,
    /// How often a call was made until it was.
    pub attempts: usize,
    /// Processes that were killed, by what they were; and how often the engine stood still.
    pub harm: BTreeMap<&'static str, usize>,
    /// Volumes that were there in the end.
    pub volumes: usize,
}

type Secrets = BTreeMap<String, String>;

const CALLERS: u64 = 4;
/// Volumes of each caller, and directories that all of them share.
const VOLUMES: u64 = 4;
const SHARED: u64 = 2;
const GIB: i64 = 1 << 30;
/// How long one call is repeated at most.
const PATIENCE: Duration = Duration::from_secs(180);
const AGAIN: Duration = Duration::from_millis(15);
/// Short, so that what hangs is ended in the time of a test.
const TIMEOUTS: &str = "startTimeout: 10s, callTimeout: 2s, workerIdle: 60s";
/// What every volume of ours has in it: its name and which one of that name it is.
const MARK: &str = "mark";

/// Numbers that follow from a seed (SplitMix64).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// A volume as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    gib: i64,
    directory: Vec<String>,
    shared: bool,
    /// What its mark says.
    mark: String,
}

/// Runs it. An error says what does not hold.
pub fn run(options: &Options) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run_all(options)).with_context(|| format!("seed {}", options.seed))
}

async fn run_all(options: &Options) -> Result<Report> {
    let mut redis = Redis::durable()?;
    let secrets = redis.secrets();
    let first = Site::timed("csi: {socket: csi.sock, cluster: test}\n", "", &secrets, TIMEOUTS)?;
    let key = first.path().join("state/record.key");
    // The first one makes the key.
    let mut servings = vec![Some(first.serve_with(&options.pith, &[])?)];
    let config = format!("csi: {{socket: csi.sock, cluster: test, recordKey: {}}}\n", key.display());
    let second = Site::timed(&config, "", &secrets, TIMEOUTS)?;
    servings.push(Some(second.serve_with(&options.pith, &[])?));
    let sites = [first, second];
    let workers = Arc::new(Workers::new(self::options())?);
    let file_system = FileSystem::from_secrets(&secrets)?;
    let shared = Arc::new(Shared { over: AtomicBool::new(false), attempts: AtomicUsize::new(0), workers, file_system });

    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let channels = sites.iter().map(|site| {
                let endpoint = Endpoint::from_shared(format!("unix://{}", site.socket().display()))?;
                Ok(ControllerClient::new(endpoint.connect_lazy()))
            });
            let caller = Caller {
                number,
                dice: Dice(options.seed.wrapping_mul(1000).wrapping_add(number)),
                replicas: channels.collect::<Result<_>>()?,
                secrets: secrets.clone(),
                held: BTreeMap::new(),
                made: 0,
                calls: BTreeMap::new(),
                shared: shared.clone(),
            };
            Ok(tokio::spawn(caller.run()))
        })
        .collect::<Result<_>>()?;
    let mut report = Report::default();
    // Blocks this thread of the runtime, of which there are others for the callers.
    let harmed = tokio::task::block_in_place(|| {
        let mut dice = Dice(options.seed);
        let ended = || callers.iter().any(tokio::task::JoinHandle::is_finished);
        while report.kills() < options.kills && !ended() {
            harm(&mut dice, &mut redis, &sites, &mut servings, &options.pith, &mut report)?;
        }
        anyhow::Ok(())
    });
    shared.over.store(true, Ordering::Relaxed);
    harmed?;
    let mut held = BTreeMap::new();
    for caller in callers {
        let (volumes, calls) = caller.await??;
        held.extend(volumes);
        for (call, count) in calls {
            *report.calls.entry(call).or_default() += count;
        }
    }
    report.attempts = shared.attempts.load(Ordering::Relaxed);
    report.volumes = held.len();
    shared.check(&sites[0], &held).await?;
    shared.workers.stop().await;
    Ok(report)
}

impl Report {
    /// How many processes were killed.
    pub fn kills(&self) -> usize {
        self.harm.iter().filter(|(what, _)| **what != STOOD_STILL).map(|(_, count)| count).sum()
    }
}

const STOOD_STILL: &str = "engine stood still";

/// Waits a moment, and kills something.
fn harm(
    dice: &mut Dice,
    redis: &mut Redis,
    sites: &[Site; 2],
    servings: &mut [Option<Serving>],
    pith: &std::path::Path,
    report: &mut Report,
) -> Result<()> {
    std::thread::sleep(Duration::from_millis(20 + dice.below(300)));
    let replica = usize::try_from(dice.below(2))?;
    let what = match dice.below(20) {
        0..8 => {
            servings[replica].take().context("it was started")?.kill()?;
            std::thread::sleep(Duration::from_millis(dice.below(100)));
            servings[replica] = Some(sites[replica].serve_with(pith, &[])?);
            "pith"
        }
        8..15 => {
            let serving = servings[replica].as_ref().context("it was started")?;
            let clients = children(serving.id())?;
            let Some(client) = clients.get(usize::try_from(dice.below(8))? % clients.len().max(1)) else {
                return Ok(());
            };
            // A worker, or a command that sets a quota; it may have ended by itself.
            if kill_process(*client, Signal::KILL).is_err() {
                return Ok(());
            }
            "client"
        }
        15..19 => {
            redis.kill()?;
            std::thread::sleep(Duration::from_millis(dice.below(100)));
            redis.start_again()?;
            "engine"
        }
        _ => {
            redis.freeze(true)?;
            // Now and then for longer than a call waits.
            std::thread::sleep(Duration::from_millis(dice.below(3000)));
            redis.freeze(false)?;
            STOOD_STILL
        }
    };
    *report.harm.entry(what).or_default() += 1;
    Ok(())
}

/// The processes that one has started.
pub fn children(pid: u32) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(child) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // Others may end meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
        let parent = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(1));
        if parent == Some(&pid.to_string()) {
            found.extend(Pid::from_raw(child));
        }
    }
    Ok(found)
}

/// What all callers have.
#[derive(Debug)]
struct Shared {
    over: AtomicBool,
    attempts: AtomicUsize,
    workers: Arc<Workers>,
    file_system: FileSystem,
}

/// One caller, with volumes that nobody else asks for.
struct Caller {
    number: u64,
    dice: Dice,
    replicas: Vec<ControllerClient<Channel>>,
    secrets: Secrets,
    held: BTreeMap<String, Held>,
    made: usize,
    calls: BTreeMap<&'static str, usize>,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone)]
enum Call {
    Create { name: String, gib: i64, pattern: Option<String> },
    Expand { name: String, gib: i64 },
    Delete { name: String },
    Validate { name: String },
}

/// What an answer says that counts.
type Answer = std::result::Result<Value, Status>;

impl Caller {
    async fn run(mut self) -> Result<(BTreeMap<String, Held>, BTreeMap<&'static str, usize>)> {
        while !self.shared.over.load(Ordering::Relaxed) {
            let name = format!("pvc-{}-{}", self.number, self.dice.below(VOLUMES));
            match self.held.get(&name).cloned() {
                None if self.dice.one_in(6) => self.check_absent(&name).await?,
                None => self.create(&name).await?,
                Some(held) => self.use_volume(&name, held).await?,
            }
        }
        Ok((self.held, self.calls))
    }

    async fn check_absent(&mut self, name: &str) -> Result<()> {
        if self.dice.one_in(2) {
            let gone = self.insist(Call::Validate { name: name.into() }).await?;
            ensure!(
                gone.as_ref().is_err_and(|status| status.code() == Code::NotFound),
                "{name} is gone, but: {gone:?}"
            );
        } else {
            // What is gone is gone, however often it is asked for.
            self.done(Call::Delete { name: name.into() }).await?;
        }
        Ok(())
    }

    async fn create(&mut self, name: &str) -> Result<()> {
        let shared = self.dice.one_in(4).then(|| format!("team/app-{}", self.dice.below(SHARED)));
        // A directory has one quota, that of the last volume that set it: those that share one are of one size.
        let gib = if shared.is_some() { 2 } else { 1 + i64::try_from(self.dice.below(3))? };
        let call = Call::Create { name: name.into(), gib, pattern: shared.clone() };
        let made = if self.dice.one_in(5) { self.done_by_both(call).await? } else { self.done(call).await? };
        let directory = shared.clone().unwrap_or_else(|| name.to_string());
        ensure!(made == created(name, gib, &directory), "{name} was made as {made}");
        let directory: Vec<String> = directory.split('/').map(String::from).collect();
        if shared.is_none() {
            let there = self.shared.entries(&directory).await?.with_context(|| format!("{name} has no directory"))?;
            ensure!(there.is_empty(), "{name} was made just now, and shows {there:?}");
        }
        self.made += 1;
        let held = Held { gib, directory, shared: shared.is_some(), mark: format!("{name} {}", self.made) };
        self.shared.write(&held.mark_at(name)?, &held.mark).await?;
        self.held.insert(name.into(), held);
        Ok(())
    }

    async fn use_volume(&mut self, name: &str, held: Held) -> Result<()> {
        let pattern = held.shared.then(|| held.directory.join("/"));
        match self.dice.below(8) {
            0..3 => {
                let call = Call::Delete { name: name.into() };
                if self.dice.one_in(5) {
                    self.done_by_both(call).await?
                } else {
                    self.done(call).await?
                };
                self.held.remove(name);
                if !held.shared {
                    let left = self.shared.entries(&held.directory).await?;
                    ensure!(left.is_none(), "{name} is deleted, and its directory has {left:?}");
                }
            }
            3 | 4 if !held.shared => {
                let gib = held.gib + 1;
                let grown = self.done(Call::Expand { name: name.into(), gib }).await?;
                ensure!(grown == json!(gib * GIB), "{name} grew to {grown}");
                self.held.insert(name.into(), Held { gib, ..held });
            }
            5 => {
                let call = Call::Create { name: name.into(), gib: 1, pattern };
                let found = self.done(call).await?;
                ensure!(found == created(name, held.gib, &held.directory.join("/")), "{name} was found as {found}");
            }
            6 => {
                let call = Call::Create { name: name.into(), gib: held.gib + 7, pattern };
                let other = self.insist(call).await?;
                let is_refused = other.as_ref().is_err_and(|status| status.code() == Code::AlreadyExists);
                ensure!(is_refused, "{name} with another size: {other:?}");
            }
            _ => {
                self.done(Call::Validate { name: name.into() }).await?;
                let mark = self.shared.read(&held.mark_at(name)?).await?;
                ensure!(mark.as_deref() == Some(&*held.mark), "{name} has the mark {mark:?}, not {}", held.mark);
            }
        }
        Ok(())
    }

    /// A call that must be done in the end.
    async fn done(&mut self, call: Call) -> Result<Value> {
        let answer = self.insist(call.clone()).await?;
        answer.map_err(|status| anyhow!("{call:?} was refused: {status}"))
    }

    /// The same call to both replicas at once: both must do it, and say the same.
    async fn done_by_both(&mut self, call: Call) -> Result<Value> {
        let seeds = (self.dice.next(), self.dice.next());
        let (one, two) = tokio::join!(
            insist(&self.shared, &self.replicas[..1], &self.secrets, Dice(seeds.0), &call),
            insist(&self.shared, &self.replicas[1..], &self.secrets, Dice(seeds.1), &call),
        );
        *self.calls.entry(call.name()).or_default() += 2;
        match (one?, two?) {
            (Ok(one), Ok(two)) if one == two => Ok(one),
            (one, two) => bail!("{call:?} was answered by the replicas with {one:?} and {two:?}"),
        }
    }

    async fn insist(&mut self, call: Call) -> Result<Answer> {
        *self.calls.entry(call.name()).or_default() += 1;
        let dice = Dice(self.dice.next());
        insist(&self.shared, &self.replicas, &self.secrets, dice, &call).await
    }
}

/// Asks until there is an answer that counts, now this replica and now that. Where a call was cut, the same replica is asked on until
/// that call has ended: external-provisioner is the leader's, and a leader that goes takes its driver along.
async fn insist(
    shared: &Shared,
    replicas: &[ControllerClient<Channel>],
    secrets: &Secrets,
    mut dice: Dice,
    call: &Call,
) -> Result<Answer> {
    let started = Instant::now();
    let most = u64::try_from(replicas.len())?;
    let mut replica = usize::try_from(dice.below(most))?;
    loop {
        // Too short for most calls, or long enough for all.
        let deadline = Duration::from_millis(if dice.one_in(3) { 1 + dice.below(150) } else { 20_000 });
        shared.attempts.fetch_add(1, Ordering::Relaxed);
        match call.ask(replicas[replica].clone(), secrets, deadline).await {
            Err(status) if may_pass(&status) => {
                let goes_on = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
                    || status.message().contains("is not finished, and goes on");
                if !goes_on {
                    replica = usize::try_from(dice.below(most))?;
                }
                ensure!(
                    started.elapsed() < PATIENCE,
                    "{call:?} was not answered within {PATIENCE:?}, but told: {status}"
                );
            }
            answer => return Ok(answer),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn may_pass(status: &Status) -> bool {
    let code = status.code();
    matches!(code, Code::Aborted | Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled)
        || status.message().ends_with("(nothing was made)")
}

/// What is said of a volume that was made.
fn created(name: &str, gib: i64, directory: &str) -> Value {
    json!({"id": name, "bytes": gib * GIB, "subPath": directory})
}

impl Held {
    fn mark_at(&self, name: &str) -> Result<Path> {
        Ok(Path::of(self.directory.iter().cloned())?.join(format!("{MARK}-{name}"))?)
    }
}

impl Call {
    fn name(&self) -> &'static str {
        match self {
            Call::Create { .. } => "CreateVolume",
            Call::Expand { .. } => "ControllerExpandVolume",
            Call::Delete { .. } => "DeleteVolume",
            Call::Validate { .. } => "ValidateVolumeCapabilities",
        }
    }

    async fn ask(&self, mut client: ControllerClient<Channel>, secrets: &Secrets, deadline: Duration) -> Answer {
        let secrets = secrets.clone();
        let range = |gib: i64| Some(CapacityRange { required_bytes: gib * GIB, limit_bytes: 0 });
        let capability = || VolumeCapability {
            access_mode: Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() }),
            access_type: Some(AccessType::Mount(MountVolume::default())),
        };
        let answered = async {
            match self.clone() {
                Call::Create { name, gib, pattern } => {
                    let request = timed(
                        deadline,
                        CreateVolumeRequest {
                            name,
                            capacity_range: range(gib),
                            volume_capabilities: vec![capability()],
                            secrets,
                            parameters: pattern.into_iter().map(|it| ("pathPattern".to_string(), it)).collect(),
                            ..CreateVolumeRequest::default()
                        },
                    );
                    let volume = client.create_volume(request).await?.into_inner().volume.unwrap_or_default();
                    let place = volume.volume_context.get("subPath");
                    Ok(json!({"id": volume.volume_id, "bytes": volume.capacity_bytes, "subPath": place}))
                }
                Call::Expand { name, gib } => {
                    let request = timed(
                        deadline,
                        ControllerExpandVolumeRequest {
                            volume_id: name,
                            capacity_range: range(gib),
                            secrets,
                            volume_capability: None,
                        },
                    );
                    Ok(json!(client.controller_expand_volume(request).await?.into_inner().capacity_bytes))
                }
                Call::Delete { name } => {
                    let request = timed(deadline, DeleteVolumeRequest { volume_id: name, secrets });
                    client.delete_volume(request).await.map(|_| Value::Null)
                }
                Call::Validate { name } => {
                    let request = timed(
                        deadline,
                        ValidateVolumeCapabilitiesRequest {
                            volume_id: name,
                            volume_capabilities: vec![capability()],
                            secrets,
                            ..ValidateVolumeCapabilitiesRequest::default()
                        },
                    );
                    client.validate_volume_capabilities(request).await.map(|_| Value::Null)
                }
            }
        };
        // The server keeps the deadline that it is told; a server that is killed keeps none.
        let late = || Err(Status::deadline_exceeded("nobody answered"));
        tokio::time::timeout(deadline + Duration::from_secs(1), answered).await.unwrap_or_else(|_| late())
    }
}

fn timed<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// What a client of our own did; none where it is to be asked again.
async fn done<T>(result: std::result::Result<T, JuiceFsError>, started: Instant) -> Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(JuiceFsError::Unavailable(_)) if started.elapsed() < PATIENCE => {
            tokio::time::sleep(AGAIN).await;
            Ok(None)
        }
        Err(error) => Err(error).context("our own client"),
    }
}

impl Shared {
    /// What is in a directory; none where there is no such directory.
    async fn entries(&self, directory: &[String]) -> Result<Option<BTreeSet<String>>> {
        let (path, started) = (Path::of(directory.iter().cloned())?, Instant::now());
        loop {
            let listed = match self.workers.get(&self.file_system).await {
                Ok(worker) => worker.list(&path, Depth::One).await,
                Err(error) => Err(error),
            };
            if let Some(entries) = done(listed, started).await? {
                let name = |entry: pith::juicefs::Entry| entry.path.components().join("/");
                return Ok(entries.map(|entries| entries.into_iter().map(name).collect()));
            }
        }
    }

    async fn write(&self, file: &Path, text: &str) -> Result<()> {
        let started = Instant::now();
        loop {
            let written = match self.workers.get(&self.file_system).await {
                Ok(worker) => worker.write(file, text.into()).await,
                Err(error) => Err(error),
            };
            if done(written, started).await?.is_some() {
                return Ok(());
            }
        }
    }

    async fn read(&self, file: &Path) -> Result<Option<String>> {
        let started = Instant::now();
        loop {
            let read = match self.workers.get(&self.file_system).await {
                Ok(worker) => worker.read(file).await,
                Err(error) => Err(error),
            };
            if let Some(bytes) = done(read, started).await? {
                return Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
    }

    /// What is there is what is held, and nothing else.
    async fn check(&self, site: &Site, held: &BTreeMap<String, Held>) -> Result<()> {
        let records = site.volumes()?;
        let names = |records: BTreeSet<&String>| records.into_iter().cloned().collect::<Vec<_>>();
        let (found, expected) = (names(records.keys().collect()), names(held.keys().collect()));
        ensure!(found == expected, "there are records of {found:?}, and there should be of {expected:?}");
        for (name, held) in held {
            let record = &records[name];
            let place = format!("/{}", held.directory.join("/"));
            ensure!(record["state"] == "ready" && record["directory"] == place, "{name} has the record {record}");
            ensure!(record["capacityBytes"] == held.gib * GIB, "{name} has the record {record}");
            let mark = self.read(&held.mark_at(name)?).await?;
            ensure!(mark.as_deref() == Some(&*held.mark), "{name} has the mark {mark:?}, not {}", held.mark);
            if !held.shared {
                let entries = self.entries(&held.directory).await?.unwrap_or_default();
                ensure!(entries.len() == 1, "{name} shows {entries:?}");
            }
        }
        let (shared, alone): (Vec<&Held>, Vec<&Held>) = held.values().partition(|held| held.shared);
        let mut roots = self.entries(&[]).await?.unwrap_or_default();
        roots.retain(|name| name != ".pith" && name != "team");
        let expected: BTreeSet<String> = alone.iter().map(|held| held.directory[0].clone()).collect();
        ensure!(roots == expected, "there are the directories {roots:?}, and there should be {expected:?}");
        let teams = self.entries(&["team".into()]).await?.unwrap_or_default();
        let expected: BTreeSet<String> = shared.iter().map(|held| held.directory[1].clone()).collect();
        ensure!(teams == expected, "there are the shared directories {teams:?}, and there should be {expected:?}");

        // Records, directories, index and quotas agree before anything is repaired: what a killed process left half staged is a note.
        let checked = said(&site.run_volumes(&["check"])?);
        ensure!(checked.contains("0 errors, 0 warnings, "), "there is:\n{checked}");
        let repaired = said(&site.run_volumes(&["repair", "--apply"])?);
        let clean = said(&site.run_volumes(&["check"])?);
        // A record of which a killed client wrote a part is nobody's for repair, which leaves it alone.
        ensure!(clean.contains("0 errors, 0 warnings, "), "repaired:\n{repaired}\nand then there is:\n{clean}");
        Ok(())
    }
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
