//! An S3 server of a test's own over a local folder: versitygw, which xtask builds from its Go module.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::juicefs::cache;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);
const KEYS: [&str; 2] = ["test-access-key", "test-secret-key"];
/// The only bucket. The server keeps buckets as folders.
const BUCKET: &str = "shop";

/// A running server; it is killed when dropped.
#[derive(Debug)]
pub struct S3 {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl S3 {
    /// Starts one with an empty bucket.
    pub fn start() -> Result<S3> {
        let folder = tempfile::tempdir()?;
        fs::create_dir_all(folder.path().join("data").join(BUCKET))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = Command::new(program()?);
        server.args(["--port", &format!("127.0.0.1:{port}"), "posix"]).arg(folder.path().join("data"));
        server.env_clear().envs([("ROOT_ACCESS_KEY", KEYS[0]), ("ROOT_SECRET_KEY", KEYS[1])]);
        let mut child = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("versitygw ended with {status}");
            }
            if started.elapsed() > PATIENCE {
                child.kill()?;
                bail!("versitygw did not listen within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(S3 { child, port, folder })
    }

    /// What a Secret says of it as the storage of a file system.
    pub fn storage(&self) -> [(String, String); 4] {
        let values = [
            ("storage", "s3".to_string()),
            ("bucket", format!("http://127.0.0.1:{}/{BUCKET}", self.port)),
            ("access-key", KEYS[0].into()),
            ("secret-key", KEYS[1].into()),
        ];
        values.map(|(key, value)| (key.to_string(), value))
    }

    /// Whether it has objects.
    pub fn has_objects(&self) -> Result<bool> {
        Ok(fs::read_dir(self.folder.path().join("data").join(BUCKET))?.next().is_some())
    }
}

/// Where xtask keeps what it builds: by a digest, of which an old one may be there too.
fn program() -> Result<PathBuf> {
    let tools = cache().join("pith/tools");
    let built = fs::read_dir(&tools).with_context(|| format!("reading {}", tools.display()))?.flatten();
    let mut built: Vec<_> = built
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("cluster-node-s3-"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path().join("versitygw"))))
        .collect();
    built.sort();
    Ok(built.pop().context("versitygw is missing: `cargo xtask test` builds it")?.1)
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
