//! One process of the JuiceFS client: how it is started, what it says, how it ends.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::Level;

use super::JuiceFsError;
use super::complaint::Complaints;
use super::redact::Redactor;
use super::source::FileSystem;

/// How long a process has to end after SIGTERM. It closes its session with the metadata engine then.
pub(super) const TERMINATION: Duration = Duration::from_secs(5);
/// How long the end of the output is waited for once a process is gone.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The most of a line that is read, in bytes.
const LONGEST_LINE: usize = 8 << 10;
/// The most that a process may print where that is kept, in bytes: a quota takes about 100.
const MOST_PRINTED: u64 = 64 << 20;
/// The most of a line that is logged, in bytes.
const LONGEST_SHOWN: usize = 1 << 10;

/// Starts processes of the client.
#[derive(Debug)]
pub(super) struct Launcher {
    client: PathBuf,
    /// That of the Enterprise Edition, where there is one.
    enterprise_client: Option<PathBuf>,
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
struct Order {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

impl Launcher {
    /// Starts the thread that starts the processes. It ends with the launcher, and every process ends with it.
    ///
    /// A process is to be killed when Pith dies, however it dies. The kernel's word for that is the parent's death, but what it
    /// means is the *thread* that forked: on a thread of the runtime's blocking pool, which ends after seconds of idleness, the
    /// process would die in the middle of its work. Hence a thread that does nothing else.
    pub(super) fn new(client: PathBuf, enterprise_client: Option<PathBuf>) -> io::Result<Launcher> {
        let (orders, received) = mpsc::channel();
        std::thread::Builder::new().name("juicefs-parent".into()).spawn(move || start_in_order(&received))?;
        Ok(Launcher { client, enterprise_client, orders })
    }

    /// Whether there is a client for it here.
    pub(super) fn has_client(&self, file_system: &FileSystem) -> bool {
        file_system.enterprise().is_none() || self.enterprise_client.is_some()
    }

    /// Its client, called as the shell would.
    fn command(&self, file_system: &FileSystem) -> Result<Command, JuiceFsError> {
        if file_system.enterprise().is_none() {
            let mut command = Command::new(&self.client);
            command.arg("--no-agent");
            return Ok(command);
        }
        let client = self.enterprise_client.as_ref().ok_or_else(|| {
            JuiceFsError::NoClient(format!(
                "`{}` is a file system of the JuiceFS Enterprise Edition: pods can use its volumes, and Pith makes some only where \
                 `juicefs.enterpriseClient` names the client of that edition",
                file_system.name()
            ))
        })?;
        Ok(Command::new(client))
    }

    /// Starts a process for a file system. Its environment is the file system's and `more`, and nothing of Pith's own. What it prints
    /// is kept for [`Process::printed`] where it is piped. It has `socket` with the number that it has here.
    pub(super) async fn start<'a>(
        &self,
        file_system: &FileSystem,
        arguments: &[&str],
        more: impl IntoIterator<Item = (&'a str, &'a str)>,
        redactor: Redactor,
        stdout: Stdio,
        socket: Option<OwnedFd>,
    ) -> Result<Process, JuiceFsError> {
        let mut command = self.command(file_system)?;
        let client = command.as_std().get_program().to_owned();
        command.args(arguments).env_clear().envs(file_system.environment()).envs(more);
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).kill_on_drop(true);
        // A ctrl-c is for Pith, which still needs its workers for what it has begun.
        command.process_group(0);
        before_exec(&mut command, socket);
        let (reply, started) = oneshot::channel();
        let order = Order { command, runtime: Handle::current(), reply };
        let lost = || io::Error::other("the thread that starts processes is gone");
        let started = match self.orders.send(order) {
            Ok(()) => started.await.unwrap_or_else(|_| Err(lost())),
            Err(_) => Err(lost()),
        };
        let mut child = started.map_err(|error| {
            JuiceFsError::Unavailable(format!("the JuiceFS client {} can't be started: {error}", client.display()))
        })?;
        let complaints = Arc::new(Complaints::default());
        let name = file_system.name().to_string();
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let listener = tokio::spawn(listen(stderr, name.clone(), redactor, complaints.clone()));
        Ok(Process { child, name, complaints, listener: Some(listener) })
    }
}

fn start_in_order(orders: &mpsc::Receiver<Order>) {
    for Order { mut command, runtime, reply } in orders {
        let _runtime = runtime.enter();
        // Who ordered it may be gone; then the process is killed with its handle.
        let _ = reply.send(command.spawn());
    }
}

/// What the child does to itself between fork and exec.
#[expect(unsafe_code, reason = "there is no other way to set what a child only is to have")]
fn before_exec(command: &mut Command, socket: Option<OwnedFd>) {
    let pith = rustix::process::getpid();
    let prepare = move || {
        // Of Pith's own descriptors it gets this one. Here it is closed with the command.
        if let Some(socket) = &socket {
            rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty())?;
        }
        // Directories of volumes are for any uid, as with the JuiceFS driver.
        rustix::process::umask(Mode::empty());
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // Pith may have died before it was asked for its death.
        if rustix::process::getppid() != Some(pith) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    // SAFETY: The child of a process with several threads may only do what is safe in a signal handler until it calls exec. The
    // closure makes four system calls; it takes no lock and allocates nothing, not even for its errors.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// A running process. It is killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    name: String,
    complaints: Arc<Complaints>,
    listener: Option<JoinHandle<()>>,
}

impl Process {
    /// Waits for its end. Without an error, the process did what it was to do. Nothing is lost where the wait is cut short.
    pub(super) async fn ended(&mut self) -> Result<(), String> {
        let status = self.child.wait().await;
        if let Some(listener) = &mut self.listener {
            // The pipe may be held open by something that the process left behind.
            let _ = timeout(LAST_WORDS, listener).await;
            self.listener = None;
        }
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.sentence(&format!("ended ({status})"))),
            Err(error) => Err(self.sentence(&format!("could not be waited for ({error})"))),
        }
    }

    /// All that it prints, up to its end; nothing where that is not piped. The error is a sentence.
    pub(super) async fn printed(&mut self) -> Result<String, String> {
        let Some(stdout) = self.child.stdout.take() else { return Ok(String::new()) };
        let mut printed = String::new();
        let read = stdout.take(MOST_PRINTED + 1).read_to_string(&mut printed).await;
        match read {
            Ok(bytes) if bytes as u64 > MOST_PRINTED => {
                Err(self.sentence(&format!("printed more than {} MiB", MOST_PRINTED >> 20)))
            }
            Ok(_) => Ok(printed),
            Err(error) => Err(self.sentence(&format!("printed something that cannot be read ({error})"))),
        }
    }

    /// Ends it: politely, then not.
    pub(super) async fn stop(&mut self) {
        // None once it has been waited for, so that no other process with its number is meant.
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let ended: Result<io::Result<ExitStatus>, _> = timeout(TERMINATION, self.child.wait()).await;
        if ended.is_err() {
            tracing::warn!(file_system = %self.name, "a JuiceFS client that did not end when asked to is killed");
            let _ = self.child.kill().await;
        }
    }

    /// Ends it at once: what it has not done by then it does not do.
    pub(super) async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }

    /// What it complains about.
    pub(super) fn complaints(&self) -> Arc<Complaints> {
        self.complaints.clone()
    }

    /// What happened to it, with the process's own worst complaint.
    pub(super) fn sentence(&self, what: &str) -> String {
        let name = &self.name;
        match self.complaints.worst() {
            Some(complaint) => format!("the JuiceFS client for `{name}` {what}: {complaint}"),
            None => format!("the JuiceFS client for `{name}` {what}"),
        }
    }
}

/// Reads standard error to its end: every line goes to the log, and complaints are kept.
async fn listen(
    mut stderr: impl AsyncBufRead + Unpin,
    file_system: String,
    redactor: Redactor,
    complaints: Arc<Complaints>,
) {
    let mut before = Level::WARN;
    // Behind an error of the metadata engine stands where in the client it was met, line by line.
    let mut in_trace = false;
    while let Ok(Some(line)) = next_line(&mut stderr, &redactor).await {
        in_trace = is_trace(&line) || in_trace && !is_tagged(&line);
        // A message of several lines, such as the settings of a file system that was formatted.
        let continued = in_trace || line.starts_with([' ', '\t', '}']);
        let (level, message) = if continued { (before, line.as_str()) } else { parse(&line) };
        before = level;
        log(if in_trace { Level::DEBUG } else { level }, &file_system, message);
        if !continued && level <= Level::WARN {
            complaints.note(level, message);
        }
    }
}

/// Whether a trace begins with this line.
fn is_trace(line: &str) -> bool {
    line.starts_with("goroutine ") && line.ends_with(':')
}

fn is_tagged(line: &str) -> bool {
    line.split_once("] <").is_some_and(|(_, rest)| rest.contains(">: "))
}

/// The next line, without secrets and within its bound; none at the end.
async fn next_line(stderr: &mut (impl AsyncBufRead + Unpin), redactor: &Redactor) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = (&mut *stderr).take(LONGEST_LINE as u64).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    let cut = read == LONGEST_LINE && line.last() != Some(&b'\n');
    if cut {
        skip_line(stderr).await?;
    }
    let mut text = redactor.redact(String::from_utf8_lossy(&line).trim_end());
    // A secret that the cut went through is no longer recognised: what may be its beginning goes.
    let whole = if cut { text.len().saturating_sub(redactor.longest_spelling()) } else { text.len() };
    text.truncate(text.floor_char_boundary(whole.min(LONGEST_SHOWN)));
    Ok(Some(text))
}

async fn skip_line(stderr: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
    loop {
        let (skipped, ended) = match stderr.fill_buf().await? {
            [] => return Ok(()),
            buffer => match buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (buffer.len(), false),
            },
        };
        stderr.consume(skipped);
        if ended {
            return Ok(());
        }
    }
}

/// The level at which a line is logged here, and what it says:
/// `2026/11/22 08:57:18.055083 juicefs[20547] <FATAL>: Load setting: no answer [quota@quota.go:188]`.
fn parse(line: &str) -> (Level, &str) {
    let tagged = line.split_once("] <").and_then(|(_, rest)| rest.split_once(">: "));
    // Lines of libraries, and the trace of a crash.
    let Some((tag, message)) = tagged else {
        return (if is_end_of_session(line) { Level::DEBUG } else { Level::WARN }, line);
    };
    let place = message.rfind(" [").filter(|_| message.ends_with(']'));
    let message = &message[..place.unwrap_or(message.len())];
    let level = match tag {
        "FATAL" | "PANIC" => Level::ERROR,
        "ERROR" if is_ordinary(message) => Level::DEBUG,
        "ERROR" => Level::WARN,
        // At every start it warns of options that a worker is started with.
        "WARNING" => Level::INFO,
        "INFO" => Level::DEBUG,
        _ => Level::TRACE,
    };
    (level, message)
}

/// Whether an error of the WebDAV server is only an answer that its caller expects among others.
fn is_ordinary(message: &str) -> bool {
    const ANSWERS: [&str; 5] = [
        "file already exists",
        "file does not exist",
        "directory not empty",
        "webdav: locked",
        "no such file or directory",
    ];
    let error = message.strip_prefix("WEBDAV [").and_then(|rest| rest.rsplit_once("ERROR: "));
    error.is_some_and(|(_, error)| ANSWERS.contains(&error))
}

/// Whether a client says no more than that nobody speaks to it any more over its socket: `2026-11-23 13:23:26.397360 I | Short read…`.
fn is_end_of_session(line: &str) -> bool {
    const WORDS: [&str; 2] = ["Short read for input header: []", "Failed to read from fuse conn: 22=invalid argument"];
    line.split_once(" | ").is_some_and(|(_, said)| WORDS.contains(&said))
}

fn log(level: Level, file_system: &str, message: &str) {
    match level {
        Level::ERROR => tracing::error!(target: "juicefs", file_system, "{message}"),
        Level::WARN => tracing::warn!(target: "juicefs", file_system, "{message}"),
        Level::INFO => tracing::info!(target: "juicefs", file_system, "{message}"),
        Level::DEBUG => tracing::debug!(target: "juicefs", file_system, "{message}"),
        Level::TRACE => tracing::trace!(target: "juicefs", file_system, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, level: Level, message: &str) {
        assert_eq!(parse(line), (level, message));
    }

    #[test]
    fn a_line_is_logged_at_the_level_that_it_has_for_pith() {
        let line =
            |tag: &str, message: &str| format!("2026/11/22 08:57:18.055083 juicefs[1] <{tag}>: {message} [a@b.go:1]");
        check(&line("FATAL", "Load setting: refused"), Level::ERROR, "Load setting: refused");
        check(&line("ERROR", "delete [x] <y>: failed"), Level::WARN, "delete [x] <y>: failed");
        check(&line("WARNING", "AOF is not enabled"), Level::INFO, "AOF is not enabled");
        check(&line("INFO", "WebDAV listening"), Level::DEBUG, "WebDAV listening");
        check(&line("DEBUG", "x"), Level::TRACE, "x");
        let exists = "WEBDAV [MKCOL]: /a, ERROR: file already exists";
        check(&line("ERROR", exists), Level::DEBUG, exists);
        let down = "WEBDAV [MKCOL]: /a, ERROR: input/output error";
        check(&line("ERROR", down), Level::WARN, down);
        let lies = "WEBDAV [MKCOL]: /ERROR: file already exists, ERROR: input/output error";
        check(&line("ERROR", lies), Level::WARN, lies);
        check("panic: runtime error", Level::WARN, "panic: runtime error");
        check("", Level::WARN, "");
    }

    #[tokio::test]
    async fn a_trace_is_no_complaint() {
        let text = "2026/11/23 08:56:46.920405 juicefs[1] <ERROR>: error: NOAUTH Authentication required.\n\
                    goroutine 231 [running]:\nruntime/debug.Stack()\n\truntime/debug/stack.go:26 +0x5e\n\
                    main.main [errno@utils.go:157]\n";
        let complaints = Arc::new(Complaints::default());
        listen(BufReader::new(text.as_bytes()), "a".into(), Redactor::default(), complaints.clone()).await;
        let worst = complaints.worst().expect("there is one");
        assert!(worst.ends_with("(error: NOAUTH Authentication required.)"), "{worst}");
    }

    #[tokio::test]
    async fn lines_are_bounded_and_their_cut_shows_no_part_of_a_secret() {
        let secret = "canary".repeat(100);
        let redactor = Redactor::new([&secret]);
        // The cut goes through the last of the secrets.
        let secrets = secret.repeat(LONGEST_LINE / secret.len() + 1);
        let text = format!("{secrets}\nplain {secret}\n{}\n\nlast", "x".repeat(3 * LONGEST_LINE));
        let mut reader = BufReader::new(text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut reader, &redactor).await.expect("bytes can be read") {
            lines.push(line);
        }
        let [masked, plain, long, empty, last] = &lines[..] else { panic!("{} lines", lines.len()) };
        assert!(!masked.contains("can"), "{masked}");
        assert_eq!(plain, "plain ***");
        assert_eq!(long.len(), LONGEST_SHOWN);
        assert_eq!((empty.as_str(), last.as_str()), ("", "last"));
    }
}
