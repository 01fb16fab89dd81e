//! What artifacts are called: `registry.example/team/sizes:1.2`, with or without `@sha256:…`.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use pith_core::text::clean;
use sha2::{Digest as _, Sha256};

use super::quoted;

/// What may stand before a reference.
pub const SCHEME: &str = "oci://";

/// The longest reference. Registries take 255 characters of a repository's name and 128 of a tag.
const LONGEST: usize = 768;

/// A SHA-256, written `sha256:` and 64 hexadecimal digits. What has another algorithm is refused where it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Its digits alone.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl Display for Digest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest> {
        let form = "a digest is `sha256:` and 64 hexadecimal digits in lower case";
        let digits = text.strip_prefix("sha256:").context(form)?;
        let is_lower = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
        ensure!(digits.len() == 64 && digits.bytes().all(is_lower), form);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).context(form)?;
        Ok(Digest(bytes))
    }
}

/// Where an artifact is: a registry, a repository in it, and which one of those there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Its host, with a port where it has one.
    pub registry: String,
    /// The repository.
    pub repository: String,
    /// A name that may be given to another artifact at any time.
    pub tag: Option<String>,
    /// What names one artifact for ever. With a tag beside it, the tag is a remark for people.
    pub digest: Option<Digest>,
}

impl Reference {
    /// What it is asked for by: the digest where there is one.
    pub fn name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_default(),
        }
    }
}

impl Display for Reference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        // A password is not repeated.
        let (before, last) = text.rsplit_once('/').unwrap_or(("", text));
        let is_digest = |it: &str| it.starts_with("sha256:") || it.starts_with("sha512:");
        let names_a_user = before.contains('@') || last.split_once('@').is_some_and(|(_, it)| !is_digest(it));
        ensure!(!names_a_user, "a reference has a user's name in it, which belongs into a Docker configuration");
        parse(text.strip_prefix(SCHEME).unwrap_or(text))
            .with_context(|| format!("`{}` is no reference", clean(text, LONGEST)))
    }
}

fn parse(text: &str) -> Result<Reference> {
    ensure!(text.len() <= LONGEST, "it has more than {LONGEST} characters");
    let (registry, rest) =
        text.split_once('/').context("it is `registry/repository:tag`, with or without `@sha256:…`")?;
    check_registry(registry)?;
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse()?)),
        None => (rest, None),
    };
    let (repository, tag) = match rest.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(tag.to_string())),
        None => (rest, None),
    };
    check_repository(repository)?;
    if let Some(tag) = &tag {
        let fits = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'.' | b'-');
        let begins = tag.bytes().next().is_some_and(|it| it.is_ascii_alphanumeric() || it == b'_');
        ensure!(begins && tag.len() <= 128 && tag.bytes().all(fits), "`{}` is no tag", quoted(tag));
    }
    ensure!(tag.is_some() || digest.is_some(), "it has neither a tag nor a digest, and there is no default");
    // Docker's own names for its registry, which every other tool takes too.
    let repository = match registry {
        "docker.io" if !repository.contains('/') => format!("library/{repository}"),
        _ => repository.into(),
    };
    Ok(Reference { registry: registry.to_ascii_lowercase(), repository, tag, digest })
}

/// Without a dot or a port it could as well be the first part of a name on a registry that other tools take by default.
pub(super) fn check_registry(registry: &str) -> Result<()> {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_name = !host.is_empty() && host.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'-'));
    let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let is_address = inner.is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok());
    ensure!(is_name || is_address, "`{}` is no host", quoted(registry));
    if let Some(port) = port {
        ensure!(port.parse::<u16>().is_ok_and(|it| it > 0), "`{}` is no port", quoted(port));
    }
    if !registry.contains(['.', ':']) && registry != "localhost" {
        bail!(
            "it begins with `{}`, which is no registry: there is no default one, so say which, as in `docker.io/…`",
            quoted(registry)
        );
    }
    Ok(())
}

pub(super) fn check_repository(repository: &str) -> Result<()> {
    let part = |it: &str| {
        let edge = |it: Option<u8>| it.is_some_and(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
        let fits = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, b'.' | b'_' | b'-');
        edge(it.bytes().next()) && edge(it.bytes().last()) && it.bytes().all(fits) && !it.contains("..")
    };
    ensure!(
        repository.len() <= 255 && repository.split('/').all(part),
        "`{}` is no repository: names in lower case, with slashes between them",
        quoted(repository)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_ambiguous_is_refused() {
        let digest = Digest::of(b"").to_string();
        for (text, expected) in [
            ("ghcr.io/team/sizes:1.2", "ghcr.io/team/sizes:1.2".to_string()),
            ("oci://127.0.0.1:5000/a:b", "127.0.0.1:5000/a:b".into()),
            ("[::1]:5000/a:b", "[::1]:5000/a:b".into()),
            ("localhost/a/b/c:v1", "localhost/a/b/c:v1".into()),
            ("docker.io/sizes:1", "docker.io/library/sizes:1".into()),
        ] {
            assert_eq!(text.parse::<Reference>().expect(text).to_string(), expected);
        }
        let both: Reference = format!("a.io/b:1@{digest}").parse().expect("a reference");
        assert_eq!((both.name(), both.tag.as_deref()), (digest.clone(), Some("1")));
        for (text, expected) in [
            ("team/sizes:1", "no registry: there is no default one"),
            ("ghcr.io", "it is `registry/repository:tag`"),
            ("ghcr.io/team/sizes", "neither a tag nor a digest"),
            ("ghcr.io/Team/sizes:1", "no repository"),
            ("ghcr.io/team/../x:1", "no repository"),
            ("ghcr.io/team//x:1", "no repository"),
            ("ghcr.io/team/x:1?y", "no tag"),
            ("ghcr.io:0/x:1", "no port"),
            ("user:pass@ghcr.io/x:1", "a user's name"),
            ("oci://user:1@ghcr.io/x:1", "a user's name"),
            ("oci://user:pass@shared.io/x:1", "a user's name"),
            ("ghcr.io/x@sha512:00", "a digest is `sha256:`"),
            ("ghcr.io/x@sha256:ABCD", "a digest is `sha256:`"),
        ] {
            let error = format!("{:#}", text.parse::<Reference>().expect_err(text));
            assert!(error.contains(expected) && !error.contains("pass@"), "{text}: {error}");
        }
    }
}
