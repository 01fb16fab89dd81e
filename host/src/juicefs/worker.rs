//! The workers: one supervised `juicefs webdav` process per file system, started when it is asked for.
//!
//! A worker listens on loopback with a password of its own, has no cache (another replica writes to the same file system), runs
//! no background job, and stops when it is idle. One that ends is started again by the next call that needs it, at growing
//! intervals where it keeps ending. One that does not answer is ended, so that nothing that it was asked for happens later.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::clone::{self, CloneError, Hindrance, Job, Progress};
use super::dav::{Ending, Path, Worker};
use super::enterprise::{self, Enterprise, Home};
use super::fuse::{self, FuseError, Session};
use super::process::{Launcher, Process, TERMINATION};
use super::source::{FileSystem, FileSystemKey};
use super::{JuiceFsError, locked};
use crate::fair::Places;
use crate::metrics::WorkerMetrics;

/// How often a worker that starts is asked whether it is there.
const POLL: Duration = Duration::from_millis(5);
/// The second wait after a worker that ended; the first is none, and each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest of these waits.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A worker that ran for so long was well: what ended it is no reason to wait.
const WELL: Duration = Duration::from_secs(60);
/// How often a worker that is in use for longer than it may be idle is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How many ports are tried: each was free when it was chosen.
const PORTS: usize = 3;
/// Places for short commands: each is a process of 50 to 200 ms. A file system alone has half of them.
const COMMANDS: usize = 8;
/// Places for clones: each is a client of about 80 MiB for as long as it takes. A file system alone has half of them.
const CLONES: usize = 8;
/// From how many ends in a row on an error says that they are.
const KEEPS_ENDING: u32 = 3;

/// Options of a worker. The engine and the storage are not asked again and again before an operation fails (ten times, 40 s, by
/// default; this often it takes 5 s): whoever waits is told, and asks again. One thread removes what is in a directory, instead of 50 that would leave calls no room.
const OPTIONS: &str = "--no-usage-report --metrics 127.0.0.1:0 --no-bgjob --backup-meta 0 --cache-dir memory --cache-size 0 \
                       --buffer-size 32 --threads 1 --attr-cache 0 --entry-cache 0 --dir-entry-cache 0 --io-retries 2";

/// How workers are run.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The JuiceFS client.
    pub client: PathBuf,
    /// That of the Enterprise Edition, where there is one.
    pub enterprise_client: Option<PathBuf>,
    /// How long a worker stays that nobody uses.
    pub idle: Duration,
    /// The most time for the start of a worker, the formatting of the file system included.
    pub start_timeout: Duration,
    /// The most time for one call of a worker, and for one command.
    pub call_timeout: Duration,
    /// The most workers at once.
    pub max_workers: usize,
    /// What is counted of them.
    pub metrics: WorkerMetrics,
}

/// The workers of all file systems. When it is dropped, their processes are killed; [`Workers::stop`] lets them end in peace.
#[derive(Debug)]
pub struct Workers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: WorkerOptions,
    launcher: Launcher,
    slots: Mutex<HashMap<FileSystemKey, Arc<Slot>>>,
    /// A permit for each worker that may run. Its supervisor holds it until the process is gone.
    room: Arc<Semaphore>,
    commands: Arc<Places<FileSystemKey>>,
    clones: Arc<Places<FileSystemKey>>,
    stopping: watch::Sender<bool>,
}

/// What is known of one file system's worker.
#[derive(Debug)]
struct Slot {
    file_system: FileSystem,
    /// Held while a worker is started: several callers start one.
    start: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    running: Option<Running>,
    formatted: bool,
    /// Where processes of the Enterprise Edition live, once they can.
    home: Option<Arc<Home>>,
    /// How many workers ended that were not to, or never came up.
    ends: u64,
    /// How many of them in a row.
    failures: u32,
    /// Before then none is started.
    next_start: Instant,
    error: Option<JuiceFsError>,
}

#[derive(Debug)]
struct Running {
    worker: Arc<Worker>,
    stop: Arc<Notify>,
}

impl Running {
    /// Whether nobody holds the worker. Under the lock of its state nobody can get hold of it either.
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.worker) == 1
    }
}

impl Workers {
    /// No worker yet. An error means that no thread can be started.
    pub fn new(options: WorkerOptions) -> std::io::Result<Workers> {
        Ok(Workers {
            shared: Arc::new(Shared {
                launcher: Launcher::new(options.client.clone(), options.enterprise_client.clone())?,
                slots: Mutex::default(),
                room: Arc::new(Semaphore::new(options.max_workers)),
                commands: Places::new(COMMANDS),
                clones: Places::new(CLONES),
                stopping: watch::Sender::new(false),
                options,
            }),
        })
    }

    /// The worker of a file system, started if it isn't there. To be held for one operation only: a worker that is held is in use.
    pub async fn get(&self, file_system: &FileSystem) -> Result<Arc<Worker>, JuiceFsError> {
        let slot = self.shared.slot(file_system);
        if let Some(worker) = slot.worker() {
            return Ok(worker);
        }
        // A task of its own: where this caller gives up, the start goes on for those who wait for it too.
        let starting = tokio::spawn(started(self.shared.clone(), slot));
        starting.await.unwrap_or_else(|error| {
            let name = file_system.name();
            Err(JuiceFsError::Unavailable(format!("the start of a worker for `{name}` was cut short: {error}")))
        })
    }

    /// Whether there is a client for it here.
    pub fn has_client(&self, file_system: &FileSystem) -> bool {
        self.shared.launcher.has_client(file_system)
    }

    /// The most workers at once.
    pub fn most(&self) -> usize {
        self.shared.options.max_workers
    }

    /// Stops every worker and waits for it. Nothing is started any more.
    pub async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        let all = u32::try_from(self.shared.options.max_workers).unwrap_or(u32::MAX);
        // An error means that another call of this function got them, and all is done.
        let _ = self.shared.room.acquire_many(all).await;
        self.shared.room.close();
    }

    /// Makes a file system where the Secret says how and there is none. Asked again, it does nothing once that was seen to.
    pub async fn make(&self, file_system: &FileSystem) -> Result<(), JuiceFsError> {
        let slot = self.shared.slot(file_system);
        let _start = slot.start.lock().await;
        let deadline = Instant::now() + self.shared.options.start_timeout;
        self.shared.make(&slot, deadline).await
    }

    /// Whether there is such a file system, as far as it takes none to be made to find that out: where its Secret does not say how, its
    /// worker says so.
    pub async fn is_made(&self, file_system: &FileSystem) -> Result<bool, JuiceFsError> {
        let slot = self.shared.slot(file_system);
        if file_system.format().is_none() || slot.worker().is_some() || locked(&slot.state).formatted {
            return Ok(true);
        }
        match self.run(file_system, &["status", file_system.address()]).await {
            Ok(()) => Ok(true),
            Err(JuiceFsError::NotFormatted(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Clones a directory to where nothing is, with a client of its own for that time. There is all of the clone or nothing, and until
    /// this is done nobody may use it.
    pub async fn clone_directory(
        &self,
        file_system: &FileSystem,
        source: &Path,
        target: &Path,
        progress: &Arc<Progress>,
    ) -> Result<(), CloneError> {
        if file_system.enterprise().is_some() {
            // That client is asked in other words, and nobody here has one to try.
            let name = file_system.name();
            let sentence =
                format!("`{name}` is a file system of the JuiceFS Enterprise Edition, where Pith makes no clones");
            return Err(JuiceFsError::NoClient(sentence).into());
        }
        let job = Job {
            source: source.clone(),
            target: target.clone(),
            threads: clone::threads(file_system.address()),
            progress: progress.clone(),
        };
        let metrics = &self.shared.options.metrics;
        let _counted = metrics.cloning();
        let mut stopping = self.shared.stopping.subscribe();
        let cloned = tokio::select! {
            biased;
            // An error means that the workers were dropped, which is a stop too. The client is killed with its process.
            _ = stopping.wait_for(|stopping| *stopping) => Err(JuiceFsError::Unavailable("Pith is stopping".into()).into()),
            cloned = async {
                let _place = self.shared.clones.take(&file_system.key()).await;
                self.shared.clone_directory(file_system, job).await
            } => cloned,
        };
        metrics.cloned(cloned.is_ok());
        cloned
    }

    /// Runs a short command of the client for a file system.
    pub(super) async fn run(&self, file_system: &FileSystem, arguments: &[&str]) -> Result<(), JuiceFsError> {
        self.printed(file_system, arguments, Stdio::null()).await.map(|_| ())
    }

    /// Runs a short command of the client for a file system; the answer is what it prints.
    pub(super) async fn ask(&self, file_system: &FileSystem, arguments: &[&str]) -> Result<String, JuiceFsError> {
        self.printed(file_system, arguments, Stdio::piped()).await
    }

    async fn printed(
        &self,
        file_system: &FileSystem,
        arguments: &[&str],
        stdout: Stdio,
    ) -> Result<String, JuiceFsError> {
        let slot = self.shared.slot(file_system);
        if file_system.enterprise().is_some() {
            // As a rule its worker has seen to that.
            self.make(file_system).await?;
        }
        let deadline = Instant::now() + self.shared.options.call_timeout;
        self.shared.run(&slot, arguments, [], stdout, deadline).await
    }
}

/// Starts a worker, unless another caller does.
async fn started(shared: Arc<Shared>, slot: Arc<Slot>) -> Result<Arc<Worker>, JuiceFsError> {
    let ends = locked(&slot.state).ends;
    let _start = slot.start.lock().await;
    if let Some(worker) = slot.worker() {
        return Ok(worker);
    }
    slot.may_start(ends)?;
    let mut stopping = shared.stopping.subscribe();
    let stopped = || JuiceFsError::Unavailable("Pith is stopping".into());
    let permit = tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => return Err(stopped()),
        permit = shared.room() => permit?,
    };
    let launched = tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => return Err(stopped()),
        launched = shared.launch(&slot) => launched,
    };
    let (process, worker) = launched.inspect_err(|error| {
        shared.options.metrics.ended.inc();
        slot.ended(error.clone(), Duration::ZERO);
    })?;
    let (worker, stop) = (Arc::new(worker), Arc::new(Notify::new()));
    {
        let mut state = locked(&slot.state);
        state.running = Some(Running { worker: worker.clone(), stop: stop.clone() });
        state.error = None;
    }
    let (ending, WorkerOptions { idle, metrics, .. }) = (worker.ending(), shared.options.clone());
    let supervised = supervise(slot.clone(), process, (idle, metrics), stop, ending.clone(), stopping);
    // Awaited by `Workers::stop`, through the permit.
    tokio::spawn(async move {
        let _permit = permit;
        supervised.await;
        ending.ended();
    });
    Ok(worker)
}

/// Waits for the end of a worker's process, or for a reason to end it.
async fn supervise(
    slot: Arc<Slot>,
    mut process: Process,
    (idle, metrics): (Duration, WorkerMetrics),
    stop: Arc<Notify>,
    ending: Arc<Ending>,
    mut stopping: watch::Receiver<bool>,
) {
    let (_running, started) = (metrics.running(), Instant::now());
    let mut look = started + idle;
    let name = slot.file_system.name();
    let hangs = loop {
        tokio::select! {
            ended = process.ended() => {
                let sentence = ended.err().unwrap_or_else(|| process.sentence("ended"));
                tracing::warn!(file_system = name, error = %sentence, "a worker ended");
                metrics.ended.inc();
                return slot.ended(JuiceFsError::Unavailable(sentence), started.elapsed());
            }
            () = ending.wanted() => break true,
            () = stop.notified() => break false,
            // An error means that the workers were dropped, which is a stop too.
            _ = stopping.wait_for(|stopping| *stopping) => {
                locked(&slot.state).running = None;
                break false;
            }
            () = sleep_until(look) => match slot.idle_until(idle) {
                Some(later) => look = later,
                None => break false,
            },
        }
    };
    if hangs {
        let sentence = process.sentence("did not answer in time and was ended");
        tracing::warn!(file_system = name, error = %sentence, "a worker hangs");
        metrics.ended.inc();
        // Nobody gets hold of it any more before it is gone.
        slot.ended(JuiceFsError::Unavailable(sentence), started.elapsed());
        return process.kill().await;
    }
    process.stop().await;
    tracing::info!(file_system = name, "worker stopped");
}

impl Shared {
    fn slot(&self, file_system: &FileSystem) -> Arc<Slot> {
        let mut slots = locked(&self.slots);
        if let Some(slot) = slots.get(&file_system.key()) {
            return slot.clone();
        }
        // Secrets change and file systems go. A supervisor holds its slot, and so does who waits for a start.
        slots.retain(|_, slot| Arc::strong_count(slot) > 1 || locked(&slot.state).is_to_be_remembered());
        let state = State {
            running: None,
            formatted: false,
            home: None,
            ends: 0,
            failures: 0,
            next_start: Instant::now(),
            error: None,
        };
        let start = tokio::sync::Mutex::default();
        let slot = Arc::new(Slot { file_system: file_system.clone(), start, state: Mutex::new(state) });
        slots.insert(file_system.key(), slot.clone());
        slot
    }

    /// Formats the file system if need be, starts a worker, and waits until it answers.
    async fn launch(&self, slot: &Slot) -> Result<(Process, Worker), JuiceFsError> {
        let begun = Instant::now();
        let deadline = begun + self.options.start_timeout;
        self.make(slot, deadline).await?;
        let mut launched = self.launch_once(slot, deadline).await;
        for _ in 1..PORTS {
            match &launched {
                Err(error) if error.to_string().contains("address already in use") => {
                    launched = self.launch_once(slot, deadline).await;
                }
                _ => break,
            }
        }
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        launched.inspect(|_| tracing::info!(file_system = slot.file_system.name(), millis, "worker started"))
    }

    /// Makes the file system, or gets what its client needs, unless that was seen to before. The lock of its start is held.
    async fn make(&self, slot: &Slot, deadline: Instant) -> Result<(), JuiceFsError> {
        if !locked(&slot.state).formatted {
            match slot.file_system.enterprise() {
                None => self.format(slot, deadline).await?,
                Some(enterprise) => self.authenticate(slot, enterprise, deadline).await?,
            }
            locked(&slot.state).formatted = true;
        }
        Ok(())
    }

    async fn launch_once(&self, slot: &Slot, deadline: Instant) -> Result<(Process, Worker), JuiceFsError> {
        let (file_system, home) = (&slot.file_system, slot.home());
        let unprepared = |error| JuiceFsError::Unavailable(format!("no worker can be prepared: {error}"));
        let address = free_address().map_err(unprepared)?;
        let user = random_word().map_err(|error| unprepared(error.into()))?;
        let password = random_word().map_err(|error| unprepared(error.into()))?;
        let listen = address.to_string();
        // The client cuts its command line off in the process list: what tells one worker from another comes first.
        let mut arguments = vec!["webdav", file_system.address(), &listen];
        let rsa_key = home.as_ref().map(|home| format!("--rsa-key={}", home.rsa_key()));
        match file_system.enterprise() {
            None => arguments.extend(OPTIONS.split_whitespace()),
            Some(enterprise) => {
                arguments.extend(enterprise::OPTIONS);
                arguments.extend(rsa_key.as_deref().filter(|_| enterprise.rsa_key.is_some()));
            }
        }
        let more = [("WEBDAV_USER", user.as_str()), ("WEBDAV_PASSWORD", password.as_str())];
        let more = more.into_iter().chain(home.iter().flat_map(|home| home.variables()));
        let redactor = file_system.redactor().with(&password);
        let mut process = self.launcher.start(file_system, &arguments, more, redactor, Stdio::null(), None).await?;
        let timeout = self.options.call_timeout;
        let worker = Worker::new(file_system.name(), address, (&user, &password), timeout, process.complaints());
        let answers = async {
            while !worker.answers().await {
                sleep(POLL).await;
            }
        };
        let failed = tokio::select! {
            ended = process.ended() => ended.err().unwrap_or_else(|| process.sentence("ended at once")),
            () = answers => return Ok((process, worker)),
            () = sleep_until(deadline) => process.sentence("did not come up in time"),
        };
        Err(failure(failed))
    }

    /// Makes the file system where the Secret says how and there is none. One that is there is left as it is.
    async fn format(&self, slot: &Slot, deadline: Instant) -> Result<(), JuiceFsError> {
        let file_system = &slot.file_system;
        let Some(format) = file_system.format() else { return Ok(()) };
        let kept =
            |error| JuiceFsError::Unavailable(format!("`encrypt_rsa_key` can't be handed to the client: {error}"));
        // In a file that is readable for this user alone and goes with the command.
        let rsa_key = format.rsa_key.as_ref().map(|key| {
            let mut file = tempfile::NamedTempFile::new()?;
            file.write_all(key.as_bytes())?;
            std::io::Result::Ok(file)
        });
        let rsa_key = rsa_key.transpose().map_err(kept)?;
        let rsa_key_option = rsa_key.as_ref().map(|file| format!("--encrypt-rsa-key={}", file.path().display()));
        let mut arguments = vec!["format", "--no-update"];
        arguments.extend(format.options.iter().chain(&rsa_key_option).map(String::as_str));
        arguments.extend([file_system.address(), file_system.name()]);
        let keys = format.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.run(slot, &arguments, keys, Stdio::null(), deadline).await.map(|_| ())
    }

    /// Makes a home for the processes of a file system of the Enterprise Edition, and lets its client ask the console what it needs.
    async fn authenticate(&self, slot: &Slot, enterprise: &Enterprise, deadline: Instant) -> Result<(), JuiceFsError> {
        let name = slot.file_system.name();
        let home = Home::furnished(name, enterprise)
            .map_err(|error| JuiceFsError::Unavailable(format!("no client for `{name}` can be prepared: {error}")))?;
        let configurations = format!("--conf-dir={}", home.configurations());
        locked(&slot.state).home = Some(Arc::new(home));
        let Some(options) = enterprise.authentication() else { return Ok(()) };
        let mut arguments = vec!["auth", name];
        arguments.extend(options.iter().chain([&configurations]).map(String::as_str));
        self.run(slot, &arguments, [], Stdio::null(), deadline).await.map(|_| ())
    }

    /// Runs a command to its end. The answer is what it prints, where that is piped.
    async fn run<'a>(
        &self,
        slot: &Slot,
        arguments: &[&str],
        more: impl IntoIterator<Item = (&'a str, &'a str)>,
        stdout: Stdio,
        deadline: Instant,
    ) -> Result<String, JuiceFsError> {
        let (file_system, home) = (&slot.file_system, slot.home());
        let Ok(_place) = timeout_at(deadline, self.commands.take(&file_system.key())).await else {
            let name = file_system.name();
            let sentence = format!("the JuiceFS client for `{name}` had to wait for others for too long");
            return Err(JuiceFsError::Unavailable(sentence));
        };
        let mut more: Vec<(&str, &str)> = more.into_iter().collect();
        more.extend(home.iter().flat_map(|home| home.variables()));
        let started = self.launcher.start(file_system, arguments, more, file_system.redactor(), stdout, None);
        let mut process = started.await?;
        let ended = timeout_at(deadline, async {
            let printed = process.printed().await?;
            process.ended().await.map(|()| printed)
        });
        let ended = ended.await;
        ended.unwrap_or_else(|_| Err(process.sentence("did not end in time"))).map_err(failure)
    }

    async fn clone_directory(&self, file_system: &FileSystem, job: Job) -> Result<(), CloneError> {
        let unprepared =
            |error: std::io::Error| JuiceFsError::Unavailable(format!("no clone can be prepared: {error}"));
        let (ours, theirs) = fuse::pair().map_err(unprepared)?;
        let descriptor = format!("/dev/fd/{}", theirs.as_raw_fd());
        let mut arguments = vec!["mount", file_system.address(), &descriptor];
        arguments.extend(clone::OPTIONS.split_whitespace());
        let redactor = file_system.redactor();
        let started =
            self.launcher.start(file_system, &arguments, [clone::SUPERVISED], redactor, Stdio::null(), Some(theirs));
        let mut process = started.await?;
        let (start, call) = (self.options.start_timeout, self.options.call_timeout);
        // It ends with the client, at the latest.
        let cloning = spawn_blocking(move || clone::clone(&mut Session::begin(ours, start, call)?, &job));
        let cloned = cloning.await.map_err(|error| unprepared(error.into()))?;
        // The session is over, and so is the client.
        let ended = timeout(TERMINATION, process.ended()).await;
        let hindrance = match cloned {
            Ok(()) => return Ok(()),
            Err(Hindrance::NoSource(path) | Hindrance::Refused(path, Errno::NOENT)) => {
                return Err(CloneError::NoSource(path));
            }
            Err(hindrance) => hindrance,
        };
        Err(failure(match (hindrance, ended) {
            // What ended it says more than that it is gone.
            (Hindrance::Fuse(FuseError::Silent(_)), Ok(Err(sentence))) => sentence,
            (hindrance, _) => process.sentence(&format!("has not cloned a directory: {hindrance}")),
        })
        .into())
    }

    /// A permit for one more worker. The one that was used longest ago makes room where it must and can.
    async fn room(&self) -> Result<OwnedSemaphorePermit, JuiceFsError> {
        if let Ok(permit) = self.room.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let most = self.options.max_workers;
        if !self.stop_one() {
            let sentence = format!("as many JuiceFS workers as may run ({most}) are in use: ask again, or allow more");
            return Err(JuiceFsError::Unavailable(sentence));
        }
        match timeout(2 * TERMINATION, self.room.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(JuiceFsError::Unavailable(format!("none of the {most} JuiceFS workers made room in time"))),
        }
    }

    /// Stops the worker that was used longest ago and that nobody uses; false where there is none.
    fn stop_one(&self) -> bool {
        let unused_since = |slot: &Arc<Slot>| {
            let state = locked(&slot.state);
            state.running.as_ref().filter(|running| running.is_unused()).map(|running| running.worker.last_used())
        };
        let slots = locked(&self.slots);
        let mut unused: Vec<_> = slots.values().filter_map(|slot| Some((unused_since(slot)?, slot))).collect();
        unused.sort_by_key(|(since, _)| *since);
        // One of them may have been taken up meanwhile.
        let stopped = unused.iter().find_map(|(_, slot)| locked(&slot.state).running.take_if(|it| it.is_unused()));
        stopped.inspect(|running| running.stop.notify_one()).is_some()
    }
}

impl Slot {
    /// The worker, if one is running.
    fn worker(&self) -> Option<Arc<Worker>> {
        let state = locked(&self.state);
        let running = state.running.as_ref()?;
        running.worker.touch();
        Some(running.worker.clone())
    }

    fn home(&self) -> Option<Arc<Home>> {
        locked(&self.state).home.clone()
    }

    /// Refuses where the start that was waited for has failed, or where the last failure is too recent.
    fn may_start(&self, ends: u64) -> Result<(), JuiceFsError> {
        let state = locked(&self.state);
        match &state.error {
            Some(error) if state.ends != ends || state.next_start > Instant::now() => Err(state.again(error)),
            _ => Ok(()),
        }
    }

    /// Notes that a worker ended after this time without being asked to, or never came up.
    fn ended(&self, error: JuiceFsError, ran: Duration) {
        let mut state = locked(&self.state);
        state.running = None;
        state.ends += 1;
        state.failures = if ran < WELL { state.failures + 1 } else { 1 };
        state.next_start = Instant::now() + wait_after(state.failures);
        state.error = Some(error);
    }

    /// Takes the worker out if nobody used it for so long; else, when to look again.
    fn idle_until(&self, idle: Duration) -> Option<Instant> {
        let mut state = locked(&self.state);
        let running = state.running.as_ref()?;
        let (now, until) = (Instant::now(), running.worker.last_used() + idle);
        if running.is_unused() && until <= now {
            state.running = None;
            state.failures = 0;
            return None;
        }
        Some(until.max(now + LOOK))
    }
}

impl State {
    /// An error, and whether it comes again and again.
    fn again(&self, error: &JuiceFsError) -> JuiceFsError {
        match error {
            JuiceFsError::Unavailable(sentence) if self.failures >= KEEPS_ENDING => JuiceFsError::Unavailable(format!(
                "{sentence}; it keeps ending, and is started again at intervals of up to {LONGEST_WAIT:?}"
            )),
            other => other.clone(),
        }
    }

    fn is_to_be_remembered(&self) -> bool {
        self.next_start + LONGEST_WAIT > Instant::now()
    }
}

/// How long the next start waits after so many failures in a row.
fn wait_after(failures: u32) -> Duration {
    match failures.checked_sub(2) {
        None => Duration::ZERO,
        Some(further) => FIRST_WAIT.saturating_mul(2_u32.saturating_pow(further)).min(LONGEST_WAIT),
    }
}

/// An error from what the client said.
fn failure(sentence: String) -> JuiceFsError {
    if sentence.contains("database is not formatted") {
        JuiceFsError::NotFormatted(sentence)
    } else {
        JuiceFsError::Unavailable(sentence)
    }
}

/// An address of loopback that is free now.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// A word that nobody can guess.
fn random_word() -> rustix::io::Result<String> {
    let mut bytes = [0; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_further_start_waits_twice_as_long_up_to_a_bound() {
        let waits: Vec<f32> = (0..10).map(|failures| wait_after(failures).as_secs_f32()).collect();
        assert_eq!(waits, [0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(wait_after(u32::MAX), LONGEST_WAIT);
    }
}
