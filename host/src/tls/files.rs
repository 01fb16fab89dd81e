//! A certificate from files, which somebody else renews there.
//!
//! They are looked at every few seconds and not watched: Kubernetes swaps a symbolic link two folders up, which a watch of the file
//! does not see. What counts is what is in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use super::Certificates;
use super::pair::{Pair, certificates};
use crate::seen::{Digest, History, Verdict};

/// How often they are looked at.
const PERIOD: Duration = Duration::from_secs(3);

/// Where they are, and what was made of them.
pub(super) struct Files {
    paths: Arc<Paths>,
    history: History,
}

struct Paths {
    certificate: PathBuf,
    key: PathBuf,
    authority: Option<PathBuf>,
}

type Loaded = Result<(Pair, Option<String>)>;

impl Files {
    pub(super) fn new(certificate: &Path, key: &Path, authority: Option<&Path>) -> Files {
        let paths = Paths {
            certificate: certificate.to_path_buf(),
            key: key.to_path_buf(),
            authority: authority.map(Path::to_path_buf),
        };
        Files { paths: Arc::new(paths), history: History::default() }
    }

    /// Reads them for the first time.
    pub(super) fn load(&mut self) -> Loaded {
        let (digest, loaded) = self.paths.read();
        self.history = History::settled_at(digest);
        loaded
    }

    /// Serves what is in them, whenever that changes and can be used.
    pub(super) async fn keep(mut self, served: &Certificates) {
        loop {
            tokio::time::sleep(PERIOD).await;
            let paths = self.paths.clone();
            let Ok((digest, loaded)) = tokio::task::spawn_blocking(move || paths.read()).await else { continue };
            match (self.history.judge(digest, loaded.is_ok()), loaded) {
                (Verdict::Take, Ok((pair, authority))) => {
                    served.serve(pair, authority);
                    tracing::info!(certificate = %self.paths.certificate.display(), "a new certificate is served");
                }
                (Verdict::Complain, Err(error)) => {
                    tracing::warn!("the new certificate cannot be used, and the one before it is served: {error:#}");
                }
                _ => {}
            }
        }
    }
}

impl Paths {
    fn read(&self) -> (Digest, Loaded) {
        let mut digest = Sha256::new();
        let mut bytes = |what: &str, path: &Path| {
            let bytes = fs::read(path);
            digest.update(bytes.as_ref().map_or(&[][..], Vec::as_slice));
            bytes.with_context(|| format!("reading the {what} {}", path.display()))
        };
        let certificate = bytes("certificate", &self.certificate);
        let key = bytes("private key", &self.key);
        let authority = self.authority.as_deref().map(|path| bytes("CA bundle", path)).transpose();
        let loaded = || {
            let pair = Pair::read(&certificate?, &key?).with_context(|| {
                format!("the certificate {} and its key {}", self.certificate.display(), self.key.display())
            })?;
            let authority = authority?.map(|text| {
                let place = || self.authority.as_deref().unwrap_or(Path::new("")).display().to_string();
                certificates(&text).with_context(|| format!("the CA bundle {}", place()))?;
                String::from_utf8(text).context("the CA bundle is no text")
            });
            Ok((pair, authority.transpose()?))
        };
        let loaded = loaded();
        (digest.finalize().into(), loaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::tls::make::make;

    #[test]
    fn neither_an_error_nor_debug_shows_a_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = ["localhost".to_string()];
        let (made, other) = (
            make(&names, Duration::from_secs(60)).expect("made"),
            make(&names, Duration::from_secs(60)).expect("made"),
        );
        let secret = made.key.lines().nth(1).expect("a line of the key");
        let path = |name: &str| folder.path().join(name);
        let read = |certificate: &str, key: &str| {
            fs::write(path("a.crt"), certificate).expect("written");
            fs::write(path("a.key"), key).expect("written");
            Files::new(&path("a.crt"), &path("a.key"), None).load()
        };
        // As YAML makes of a text whose line ends were folded, for one.
        let folded = made.key.replace('\n', " ");
        for (certificate, key, sentence) in [
            (&*made.certificate, &*folded, "the private key cannot be read: it is no PEM"),
            (&made.certificate, &other.key, "do not fit together"),
            (&made.key, &made.key, "it has no certificate in PEM"),
            (&folded, &made.key, "the certificate cannot be read"),
        ] {
            let error = read(certificate, key).err().expect("it is refused");
            let said = format!("{error:#}{error:?}");
            assert!(said.contains(sentence) && !said.contains(secret), "{said}");
        }
        let (pair, _) = read(&made.certificate, &made.key).expect("it is usable");
        let certificates = Certificates::new(Arc::new(Metrics::new()));
        certificates.serve(pair, None);
        let debug = format!("{certificates:?}");
        assert!(debug.contains("ends") && debug.len() < 200, "{debug}");
    }
}
