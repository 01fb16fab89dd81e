//! Database servers of a test's own as metadata engines, on free ports of loopback.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who runs a server that refuses to be root's, on every Debian.
const NOBODY: u32 = 65534;
const PASSWORD: &str = "s3cret/with:odd@characters";

/// A running server; it is killed when dropped.
#[derive(Debug)]
pub struct Database {
    child: Child,
    url: String,
    folder: TempDir,
}

impl Database {
    /// Starts a PostgreSQL with an empty database `juicefs`. Its password is not in the URL.
    pub fn postgres() -> Result<Database> {
        let (folder, port) = prepared()?;
        let place = folder.path().join("data");
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD)?;
        chown(&password, Some(NOBODY), Some(NOBODY))?;
        let programs = postgres_programs()?;
        let mut init = as_nobody(&programs.join("initdb"), &folder);
        init.arg("--pgdata").arg(&place).args([
            "--username",
            "jfs",
            "--auth",
            "scram-sha-256",
            "--no-sync",
            "--pwfile",
        ]);
        succeed(init.arg(password))?;
        let mut server = as_nobody(&programs.join("postgres"), &folder);
        server.arg("-D").arg(&place).args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c"]);
        server.arg(format!("unix_socket_directories={}", folder.path().display())).args(["-p", &port.to_string()]);
        let child = listening(server, &folder, port)?;
        let url = format!("postgres://jfs@127.0.0.1:{port}/postgres?sslmode=disable");
        Ok(Database { child, url, folder })
    }

    /// Starts a MariaDB with an empty database `juicefs`.
    pub fn mariadb() -> Result<Database> {
        let (folder, port) = prepared()?;
        let place = folder.path().join("data");
        let setup = folder.path().join("setup.sql");
        let statements = format!(
            "CREATE DATABASE juicefs;\nCREATE USER 'jfs'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n\
             GRANT ALL ON juicefs.* TO 'jfs'@'127.0.0.1';\n"
        );
        fs::write(&setup, statements)?;
        // In its own folder it finds neither the configuration of the machine nor its data.
        let mut init = Command::new("mariadb-install-db");
        init.arg("--no-defaults").arg(format!("--datadir={}", place.display()));
        succeed(init.args(["--user=root", "--skip-test-db", "--auth-root-authentication-method=normal"]))?;
        let mut server = Command::new("/usr/sbin/mariadbd");
        server.arg("--no-defaults").arg(format!("--datadir={}", place.display())).arg("--user=root");
        server.args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"]);
        server.arg(format!("--port={port}")).arg(format!("--socket={}", folder.path().join("socket").display()));
        server.arg(format!("--init-file={}", setup.display()));
        let child = listening(server, &folder, port)?;
        Ok(Database { child, url: format!("mysql://jfs@(127.0.0.1:{port})/juicefs"), folder })
    }

    /// The Secret of a file system in it, with its data in a local folder.
    pub fn secrets(&self) -> std::collections::BTreeMap<String, String> {
        let bucket = self.folder.path().join("objects").display().to_string();
        let values = [
            ("name", "scratch".to_string()),
            ("metaurl", self.url.clone()),
            ("meta-password", PASSWORD.into()),
            ("storage", "file".into()),
            ("bucket", bucket),
        ];
        values.map(|(key, value)| (key.to_string(), value)).into()
    }
}

/// A folder that every user may go through, and a port that was free a moment ago.
fn prepared() -> Result<(TempDir, u16)> {
    let folder = tempfile::tempdir()?;
    chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok((folder, port))
}

/// Where Debian keeps the programs of PostgreSQL, whatever its version.
fn postgres_programs() -> Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is missing: `cargo xtask test` installs it")?;
    let mut folders =
        versions.flatten().map(|entry| entry.path().join("bin")).filter(|it| it.join("postgres").exists());
    folders.next().context("no version of PostgreSQL is there")
}

fn as_nobody(program: &Path, folder: &TempDir) -> Command {
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY).current_dir(folder.path());
    command
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{command:?}: `cargo xtask test` installs it"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn listening(mut server: Command, folder: &TempDir, port: u16) -> Result<Child> {
    let log = fs::File::create(folder.path().join("log"))?;
    let mut child = server.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let said = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        if let Some(status) = child.try_wait()? {
            bail!("{server:?} ended with {status}: {}", said());
        }
        if started.elapsed() > PATIENCE {
            child.kill()?;
            bail!("{server:?} did not listen within {PATIENCE:?}: {}", said());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
