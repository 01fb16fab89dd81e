//! A Redis server of a test's own, on a free port of loopback, with a password or without, and all that can befall one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cluster::Cluster;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; it is killed when dropped.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    host: String,
    port: u16,
    password: String,
    /// True where its clients are pods, which have no folder in common with it.
    keeps_data: bool,
    folder: TempDir,
}

/// Every write is on disk before it is answered, so that a kill loses nothing.
const DURABLE: &str = "save \"\"\nappendonly yes\nappendfsync always\n";
/// What is kept is lost with the process.
const TRANSIENT: &str = "save \"\"\nappendonly no\n";

impl Redis {
    /// Starts one that keeps nothing on disk. Its password, empty for none, is not in its command line.
    pub fn start(password: &str) -> Result<Redis> {
        Redis::started(Command::new("redis-server"), "127.0.0.1", password, false)
    }

    /// Starts one for the pods of a cluster, at its node's address. Data of the file system is in it too.
    pub fn start_on(cluster: &Cluster, address: &str) -> Result<Redis> {
        Redis::started(cluster.command(Path::new("redis-server")), address, "", true)
    }

    /// Starts one that loses nothing when it is killed.
    pub fn durable() -> Result<Redis> {
        Redis::keeping(Command::new("redis-server"), "127.0.0.1", "", false, DURABLE)
    }

    fn started(command: Command, host: &str, password: &str, keeps_data: bool) -> Result<Redis> {
        Redis::keeping(command, host, password, keeps_data, TRANSIENT)
    }

    fn keeping(command: Command, host: &str, password: &str, keeps_data: bool, what: &str) -> Result<Redis> {
        let folder = tempfile::tempdir()?;
        // Free a moment ago: should somebody else take it, Redis says so and ends.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // Nobody but the tests is on a cluster's network, where a client is never local.
        let mut config = format!("protected-mode no\nbind {host}\nport {port}\nunixsocket socket\n{what}");
        if !password.is_empty() {
            config.push_str(&format!("requirepass {password}\n"));
        }
        let child = launch(command, &folder, &config)?;
        Ok(Redis { child, host: host.into(), port, password: password.into(), keeps_data, folder })
    }

    /// Kills it, and starts it again with what is on its disk and with these lines of configuration more.
    pub fn restart(&mut self, more: &str) -> Result<()> {
        self.kill()?;
        self.start_with(more)
    }

    /// Kills it with -9.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(std::fs::remove_file(self.folder.path().join("socket"))?)
    }

    /// Starts one that was killed, with what is on its disk.
    pub fn start_again(&mut self) -> Result<()> {
        self.start_with("")
    }

    fn start_with(&mut self, more: &str) -> Result<()> {
        let kept = if self.folder.path().join("appendonlydir").exists() { DURABLE } else { TRANSIENT };
        let config =
            format!("protected-mode no\nbind {}\nport {}\nunixsocket socket\n{kept}{more}\n", self.host, self.port);
        self.child = launch(Command::new("redis-server"), &self.folder, &config)?;
        Ok(())
    }

    /// Writes all that is kept to its disk.
    pub fn save(&self) -> Result<()> {
        self.tell("SAVE").map(drop)
    }

    /// Sets what `CONFIG SET` can.
    pub fn configure(&self, what: &str) -> Result<()> {
        self.tell(&format!("CONFIG SET {what}")).map(drop)
    }

    /// Makes a read-only replica of it, or its own primary again.
    pub fn follow(&self, other: bool) -> Result<()> {
        self.tell(if other { "REPLICAOF 127.0.0.1 1" } else { "REPLICAOF NO ONE" }).map(drop)
    }

    /// Asks for another password from now on, of those too that are connected. An empty one is none.
    pub fn change_password(&mut self, password: &str) -> Result<()> {
        self.tell(&format!("CONFIG SET requirepass \"{password}\"\r\nCLIENT KILL TYPE normal SKIPME yes"))?;
        self.password = password.into();
        Ok(())
    }

    /// Replaces text in the settings of the file system that is in it.
    pub fn change_settings(&self, from: &str, to: &str) -> Result<()> {
        let script = format!(
            "EVAL \"local s, n = redis.call('get', KEYS[1]):gsub(ARGV[1], ARGV[2]) redis.call('set', KEYS[1], s) return n\" 1 \
             setting \"{from}\" \"{to}\""
        );
        let answer = self.tell(&format!("SELECT 1\r\n{script}"))?;
        ensure!(answer.contains(":1"), "the settings have no {from}: {answer}");
        Ok(())
    }

    /// Adds so many keys that are nobody's.
    pub fn fill(&self, keys: usize) -> Result<()> {
        let script = "for i = 1, tonumber(ARGV[1]) do redis.call('set', 'x' .. i, 'x') end";
        self.tell(&format!("SELECT 3\r\nEVAL \"{script}\" 0 {keys}")).map(drop)
    }

    /// The address as a metadata engine, without the password.
    pub fn url(&self) -> String {
        format!("redis://{}:{}/1", self.host, self.port)
    }

    /// The Secret of a file system in it, with its data in a local folder, or in it too.
    pub fn secrets(&self) -> BTreeMap<String, String> {
        let url = match self.password.as_str() {
            "" => self.url(),
            password => self.url().replacen("redis://", &format!("redis://:{password}@"), 1),
        };
        let (storage, bucket) = match self.keeps_data {
            true => ("redis", format!("redis://{}:{}/2", self.host, self.port)),
            false => ("file", self.folder.path().join("data").display().to_string()),
        };
        let values = [("name", "scratch".into()), ("metaurl", url), ("storage", storage.into()), ("bucket", bucket)];
        values.map(|(key, value): (&str, String)| (key.to_string(), value)).into()
    }

    /// Lets it stand still (SIGSTOP) or go on (SIGCONT).
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// How many commands it was given since it was started.
    pub fn commands(&self) -> Result<u64> {
        let answers = self.tell("INFO stats")?;
        let count = answers.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
        Ok(count.context("it does not say")?.trim().parse()?)
    }

    /// Cuts every connection and refuses new ones, or takes them again. Unlike the end of the process, it loses nothing.
    pub fn refuse(&self, refused: bool) -> Result<()> {
        let port = if refused { 0 } else { self.port };
        self.tell(&format!("CONFIG SET port {port}\r\nCLIENT KILL TYPE normal SKIPME yes"))?;
        Ok(())
    }

    fn tell(&self, commands: &str) -> Result<String> {
        let mut socket = UnixStream::connect(self.folder.path().join("socket"))?;
        let password = if self.password.is_empty() { String::new() } else { format!("AUTH {}\r\n", self.password) };
        write!(socket, "{password}{commands}\r\nQUIT\r\n")?;
        let mut answers = String::new();
        socket.read_to_string(&mut answers)?;
        ensure!(!answers.contains("-ERR"), "{answers}");
        Ok(answers)
    }
}

/// Starts a server in a folder and waits until it listens.
fn launch(mut command: Command, folder: &TempDir, config: &str) -> Result<Child> {
    command.arg("-").current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().context("redis-server is missing: `cargo xtask test` installs it")?;
    child.stdin.take().context("a pipe")?.write_all(config.as_bytes())?;
    let (socket, started) = (folder.path().join("socket"), Instant::now());
    // Unlike its port, which may be on another network. It is there once the port is.
    while UnixStream::connect(&socket).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("redis-server ended with {status}");
        }
        if started.elapsed() > PATIENCE {
            child.kill()?;
            bail!("redis-server did not listen within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(child)
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
