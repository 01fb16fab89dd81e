//! A Redis server of a test's own, on a free port of loopback, with a password or without.

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

impl Redis {
    /// Starts one that keeps nothing on disk. Its password, empty for none, is not in its command line.
    pub fn start(password: &str) -> Result<Redis> {
        Redis::started(Command::new("redis-server"), "127.0.0.1", password, false)
    }

    /// Starts one for the pods of a cluster, at its node's address. Data of the file system is in it too.
    pub fn start_on(cluster: &Cluster, address: &str) -> Result<Redis> {
        Redis::started(cluster.command(Path::new("redis-server")), address, "", true)
    }

    fn started(mut command: Command, host: &str, password: &str, keeps_data: bool) -> Result<Redis> {
        let folder = tempfile::tempdir()?;
        // Free a moment ago: should somebody else take it, Redis says so and ends.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        command.arg("-").current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().context("redis-server is missing: `cargo xtask test` installs it")?;
        let socket = folder.path().join("socket");
        // Nobody but the tests is on a cluster's network, where a client is never local.
        let mut config = format!(
            "protected-mode no\nbind {host}\nport {port}\nunixsocket {}\nsave \"\"\nappendonly no\n",
            socket.display()
        );
        if !password.is_empty() {
            config.push_str(&format!("requirepass {password}\n"));
        }
        child.stdin.take().context("a pipe")?.write_all(config.as_bytes())?;
        let started = Instant::now();
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
        Ok(Redis { child, host: host.into(), port, password: password.into(), keeps_data, folder })
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

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
