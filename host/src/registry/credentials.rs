//! Who somebody is for a registry: a Docker configuration, as `docker login` writes it and Secrets of the type
//! `kubernetes.io/dockerconfigjson` have it, and how a registry asks for it.
//!
//! Programs that keep passwords elsewhere (`credsStore`, `credHelpers`) are not run.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::reference::Reference;

/// A name and a password, or a token. Neither is ever printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Basic(String),
    Token(String),
}

impl Debug for Credentials {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// The value of an `Authorization` header.
    pub(super) fn header(&self) -> String {
        match self {
            Credentials::Basic(encoded) => format!("Basic {encoded}"),
            Credentials::Token(token) => format!("Bearer {token}"),
        }
    }
}

/// The credentials for registries, by what a Docker configuration calls them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerConfig {
    auths: BTreeMap<String, Credentials>,
    /// It says that passwords are elsewhere.
    elsewhere: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    registrytoken: Option<String>,
}

impl DockerConfig {
    /// Reads one. No error shows any of it.
    pub fn read(bytes: &[u8]) -> Result<DockerConfig> {
        let written: Written = serde_json::from_slice(bytes).map_err(|error| {
            anyhow!("it is no Docker configuration (line {}, column {})", error.line(), error.column())
        })?;
        let mut auths = BTreeMap::new();
        for (name, auth) in written.auths {
            let credentials = auth.read().with_context(|| format!("auths[{}]", super::quoted(&name)))?;
            auths.extend(credentials.map(|it| (plain(&name).to_ascii_lowercase(), it)));
        }
        let elsewhere = written.creds_store.is_some() || written.cred_helpers.is_some_and(|it| !it.is_empty());
        Ok(DockerConfig { auths, elsewhere })
    }

    /// What is known for a repository: the entry that says the most of its name.
    pub(super) fn find(&self, reference: &Reference) -> Option<&Credentials> {
        let Reference { registry, repository, .. } = reference;
        let of = |registry: &str| {
            let name = format!("{registry}/{repository}");
            let fits = |key: &str| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('/') || rest.is_empty());
            let known = self.auths.iter().filter(|(key, _)| fits(key));
            known.max_by_key(|(key, _)| key.len()).map(|(_, credentials)| credentials)
        };
        // What `docker login` writes for its own registry.
        of(registry).or_else(|| if registry == "docker.io" { of("index.docker.io") } else { None })
    }

    /// Why there may be nothing, for a sentence.
    pub(super) fn remark(&self) -> &'static str {
        match self.elsewhere {
            true => "; the Docker configuration names a credential helper, which Pith does not run",
            false => "",
        }
    }
}

/// `https://index.docker.io/v1/` and `ghcr.io` are two ways of one thing.
fn plain(name: &str) -> &str {
    let name = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    let name = name.trim_end_matches('/');
    name.strip_suffix("/v1").or_else(|| name.strip_suffix("/v2")).unwrap_or(name)
}

impl Auth {
    fn read(self) -> Result<Option<Credentials>> {
        let Auth { auth, username, password, registrytoken } = self;
        if let Some(token) = registrytoken.filter(|it| !it.is_empty()) {
            return Ok(Some(Credentials::Token(token)));
        }
        if let Some(auth) = auth.filter(|it| !it.is_empty()) {
            let decoded = STANDARD.decode(&auth).ok().and_then(|it| String::from_utf8(it).ok());
            let decoded = decoded.filter(|it| it.contains(':')).context("auth is no `name:password` in base64")?;
            // As some write a NUL at its end.
            return Ok(Some(basic(decoded.trim_end_matches('\0'))));
        }
        Ok(username.zip(password).map(|(name, password)| basic(&format!("{name}:{password}"))))
    }
}

fn basic(text: &str) -> Credentials {
    Credentials::Basic(STANDARD.encode(text))
}

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A name and a password.
    Basic,
    /// A token.
    Bearer {
        /// The address that gives it out.
        realm: String,
        /// For whom it is.
        service: Option<String>,
    },
}

impl Challenge {
    /// Reads a `WWW-Authenticate`. What it says of the scope is not taken: who asks knows what for.
    pub fn read(header: &str) -> Result<Challenge> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(anyhow!("it asks for `{}`, which is not supported", super::quoted(scheme)));
        }
        let mut parameters = parameters(rest);
        let realm = parameters.remove("realm").context("it asks for a token, and does not say who gives it out")?;
        Ok(Challenge::Bearer { realm, service: parameters.remove("service") })
    }
}

/// `name="value",name=value`.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').map_or((after, ""), |(value, after)| (value, after)),
        };
        found.insert(name.trim_matches([',', ' ']).to_ascii_lowercase(), value.trim().to_string());
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_that_says_most_of_a_name_is_taken() {
        let encoded = |text: &str| STANDARD.encode(text);
        let config = serde_json::json!({"auths": {
            "ghcr.io": {"auth": encoded("all:1")},
            "https://ghcr.io/team": {"auth": encoded("team:2")},
            "https://index.docker.io/v1/": {"username": "hub", "password": "3"},
            "token.example:5000": {"registrytoken": "4"},
            "empty.example": {},
        }});
        let config = DockerConfig::read(config.to_string().as_bytes()).expect("a configuration");
        for (reference, expected) in [
            ("ghcr.io/other/x:1", Some("all:1")),
            ("ghcr.io/team/x:1", Some("team:2")),
            ("ghcr.io/teams/x:1", Some("all:1")),
            ("docker.io/x:1", Some("hub:3")),
            ("empty.example/x:1", None),
            ("ghcr.io.evil.example/x:1", None),
        ] {
            let found = config.find(&reference.parse().expect("a reference"));
            assert_eq!(found, expected.map(basic).as_ref(), "{reference}");
        }
        let token = config.find(&"token.example:5000/x:1".parse().expect("a reference"));
        assert_eq!(token.map(Credentials::header).as_deref(), Some("Bearer 4"));
        assert!(!format!("{config:?}").contains(&encoded("all:1")), "nothing is printed");
    }

    #[test]
    fn an_error_shows_nothing_of_the_configuration() {
        for text in [r#"{"auths": "s3cret"}"#, r#"{"auths": {"a.io": {"auth": "s3cret"}}}"#, "s3cret"] {
            let error = format!("{:#}", DockerConfig::read(text.as_bytes()).expect_err(text));
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn challenges_are_read_and_their_scope_is_not_taken() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(String::from),
        };
        for (header, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://a.io/token?x=1,2\",service=\"a.io\",scope=\"repository:x:push\"",
                Some(bearer("https://a.io/token?x=1,2", Some("a.io"))),
            ),
            ("bearer realm=https://a.io", Some(bearer("https://a.io", None))),
            ("Bearer service=\"a.io\"", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::read(header).ok(), expected, "{header}");
        }
    }
}
