//! A registry of a test's own with TLS and passwords (CNCF's distribution), cosign, and a server that answers whatever a test says. xtask
//! builds the programs from their Go modules.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::juicefs::cache;

/// How long a program may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who may use the registry.
pub const USER: &str = "pith";
/// Their password.
pub const PASSWORD: &str = "s3cret-of-the-registry";
/// The two, by bcrypt at its lowest cost.
const HTPASSWD: &str = "pith:$2a$04$kzWgeNWI4GBSUC7MNPuUKeWyHLfJapRwv3XTxSxNqQ3ORx/B/bJeK\n";

/// A certificate for loopback, and the authority that it is of.
#[derive(Debug)]
struct Pair {
    ca: String,
    certificate: String,
    key: String,
    der: (Vec<u8>, Vec<u8>),
}

fn pair() -> Result<Pair> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = vec!["127.0.0.1".to_string(), "localhost".to_string()];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let der = (certificate.der().to_vec(), key.serialize_der());
    Ok(Pair { ca: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem(), der })
}

/// A running registry; it is killed when dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// `127.0.0.1:` and its port.
    pub host: String,
    folder: TempDir,
}

impl Registry {
    /// Starts one without anything in it.
    pub fn start() -> Result<Registry> {
        let mut command = Command::new(program("registry")?);
        command.env_clear();
        let mut registry = Registry::started(command)?;
        registry.wait()?;
        Ok(registry)
    }

    /// Starts one on the network of a cluster, where programs of the cluster's find it. It may take a moment to listen.
    pub fn start_on(cluster: &Cluster) -> Result<Registry> {
        Registry::started(cluster.command(&program("registry")?))
    }

    fn started(mut command: Command) -> Result<Registry> {
        let folder = tempfile::tempdir()?;
        let path = folder.path();
        let Pair { ca, certificate, key, .. } = pair()?;
        let host = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let config = json!({
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": path.join("data")}, "delete": {"enabled": true}},
            "http": {
                "addr": host, "secret": "of the test",
                "tls": {"certificate": path.join("tls.crt"), "key": path.join("tls.key")},
            },
            "auth": {"htpasswd": {"realm": "pith", "path": path.join("htpasswd")}},
        });
        fs::create_dir(path.join("docker"))?;
        let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let docker = json!({"auths": {(host.as_str()): {"auth": auth}}});
        for (name, text) in [
            ("ca.crt", &ca),
            ("tls.crt", &certificate),
            ("tls.key", &key),
            ("htpasswd", &HTPASSWD.into()),
            ("config.json", &config.to_string()),
            ("docker/config.json", &docker.to_string()),
        ] {
            fs::write(path.join(name), text)?;
        }
        // JSON is YAML.
        command.arg("serve").arg(path.join("config.json"));
        let log = fs::File::create(path.join("log"))?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        Ok(Registry { child: child.context("starting the registry")?, host, folder })
    }

    fn wait(&mut self) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect(&self.host).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the registry ended with {status}: {}", fs::read_to_string(self.folder.path().join("log"))?);
            }
            ensure!(started.elapsed() < PATIENCE, "the registry did not listen within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Ends it, with everything that is in it left as it is.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The authority of its certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// The Docker configuration with its password.
    pub fn docker_config(&self) -> PathBuf {
        self.folder.path().join("docker/config.json")
    }

    /// cosign, as somebody who is known to the registry, and who keeps keys in this folder.
    pub fn cosign(&self, folder: &Path, arguments: &[&str]) -> Result<()> {
        let mut cosign = Command::new(program("cosign")?);
        cosign.current_dir(folder).args(arguments).env_clear();
        cosign.env("DOCKER_CONFIG", self.folder.path().join("docker")).env("SSL_CERT_FILE", self.ca());
        let output = cosign.env("COSIGN_PASSWORD", "").env("HOME", folder).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "cosign {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where xtask keeps what it builds: by a digest, of which an old one may be there too.
fn program(name: &str) -> Result<PathBuf> {
    let tools = cache().join("pith/tools");
    let built = fs::read_dir(&tools).with_context(|| format!("reading {}", tools.display()))?.flatten();
    let mut built: Vec<_> = built
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("cluster-node-{name}-")))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path().join(name))))
        .collect();
    built.sort();
    Ok(built.pop().with_context(|| format!("{name} is missing: `cargo xtask test` builds it"))?.1)
}

/// What a server was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The path with its query.
    pub path: String,
    /// Who was asking.
    pub authorization: Option<String>,
}

/// What it answers.
#[derive(Debug, Clone)]
pub enum Said {
    /// A status, headers and a body.
    This(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// A body without an end.
    Endless,
    /// A body of this length, of which a byte comes now and then.
    Slow(usize),
}

impl Said {
    /// Something that is there.
    pub fn ok(body: impl Into<Vec<u8>>) -> Said {
        Said::This(200, Vec::new(), body.into())
    }

    /// Something that is not.
    pub fn nothing() -> Said {
        Said::This(404, Vec::new(), Vec::new())
    }

    /// Something that is elsewhere.
    pub fn elsewhere(location: impl Into<String>) -> Said {
        Said::This(307, vec![("location", location.into())], Vec::new())
    }
}

/// A server on loopback that answers what it is told to. It ends with the process.
#[derive(Debug)]
pub struct Answering {
    /// `127.0.0.1:` and its port.
    pub host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    folder: TempDir,
}

impl Answering {
    /// Starts one, with a certificate of an authority of its own.
    pub fn start(answer: impl Fn(&str, &Asked) -> Said + Send + Sync + 'static) -> Result<Answering> {
        let Pair { ca, der: (certificate, key), .. } = pair()?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![certificate.into()], key)?);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (host, asked) = (listener.local_addr()?.to_string(), Arc::<Mutex<Vec<Asked>>>::default());
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("ca.crt"), ca)?;
        let (answer, its_host, heard) = (Arc::new(answer), host.clone(), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, answer, host, heard) = (config.clone(), answer.clone(), its_host.clone(), heard.clone());
                // What a client does not like to hear ends its connection, and nothing else.
                thread::spawn(move || one(stream, config, &|asked| answer(&host, asked), &heard));
            }
        });
        Ok(Answering { host, asked, folder })
    }

    /// The authority of its certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One request of a connection, which ends with its answer.
fn one(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    answer: &dyn Fn(&Asked) -> Said,
    heard: &Mutex<Vec<Asked>>,
) -> Result<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head)?;
    let path = head.split(' ').nth(1).context("a path")?.to_string();
    let header = |line: &str| {
        line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization")).map(|it| it.1.to_string())
    };
    let asked = Asked { path, authorization: head.lines().find_map(header) };
    heard.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
    match answer(&asked) {
        Said::This(status, headers, body) => {
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head =
                format!("HTTP/1.1 {status} It\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body)?;
        }
        Said::Endless => {
            stream.write_all(b"HTTP/1.1 200 It\r\nconnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 64 << 10])?;
            }
        }
        Said::Slow(length) => {
            stream.write_all(format!("HTTP/1.1 200 It\r\ncontent-length: {length}\r\n\r\n").as_bytes())?;
            for _ in 0..length {
                thread::sleep(Duration::from_millis(100));
                stream.write_all(b" ")?;
                stream.flush()?;
            }
        }
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}
