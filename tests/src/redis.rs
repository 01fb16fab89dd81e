//! A Redis server of a test's own, on a free port of loopback, with a password or without.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; it is killed when dropped.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
    password: String,
    folder: TempDir,
}

impl Redis {
    /// Starts one that keeps nothing on disk. Its password, empty for none, is not in its command line.
    pub fn start(password: &str) -> Result<Redis> {
        let folder = tempfile::tempdir()?;
        // Free a moment ago: should somebody else take it, Redis says so and ends.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.arg("-").current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().context("redis-server is missing: `cargo xtask test` installs it")?;
        let mut config = format!("bind 127.0.0.1\nport {port}\nsave \"\"\nappendonly no\n");
        if !password.is_empty() {
            config.push_str(&format!("requirepass {password}\n"));
        }
        child.stdin.take().context("a pipe")?.write_all(config.as_bytes())?;
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("redis-server ended with {status}");
            }
            if started.elapsed() > PATIENCE {
                child.kill()?;
                bail!("redis-server did not listen within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(Redis { child, port, password: password.into(), folder })
    }

    /// The address as a metadata engine, without the password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/1", self.port)
    }

    /// The Secret of a file system in it, with its data in a local folder.
    pub fn secrets(&self) -> BTreeMap<String, String> {
        let url = match self.password.as_str() {
            "" => self.url(),
            password => self.url().replacen("redis://", &format!("redis://:{password}@"), 1),
        };
        let bucket = self.folder.path().join("data").display().to_string();
        let values = [("name", "scratch".into()), ("metaurl", url), ("storage", "file".into()), ("bucket", bucket)];
        values.map(|(key, value): (&str, String)| (key.to_string(), value)).into()
    }

    /// Lets it stand still (SIGSTOP) or go on (SIGCONT).
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
