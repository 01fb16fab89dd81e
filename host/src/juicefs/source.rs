//! From the Secret of a file system to what the JuiceFS client is called with.
//!
//! The keys are those of the JuiceFS CSI driver. What a command line would show to every user of the machine goes by the
//! environment instead: a password of the metadata engine is taken out of its URL, and the keys of the object storage are only
//! ever given by name. No error repeats a value.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::enterprise::{Enterprise, QUOTA_UNIT};
use super::redact::Redactor;

/// Why a Secret describes no file system that can be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// A key that must be there.
    #[error("the Secret of the file system has no `{0}`")]
    Missing(&'static str),
    /// A value that can't be used.
    #[error("`{key}` in the Secret of the file system {reason}")]
    Unusable {
        /// Of which key.
        key: &'static str,
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },
    /// The Enterprise Edition may keep clients below a directory, and where that leaves volumes is not documented.
    #[error(
        "the Secret of the file system has a `subdir`, and is of the JuiceFS Enterprise Edition: pods can use its volumes, and Pith \
         makes none, because it cannot tell where they would lie"
    )]
    Subdir,
}

/// A JuiceFS file system and how to reach it. Cheap to clone. Its `Debug` shows the name and nothing else.
#[derive(Clone)]
pub struct FileSystem(Arc<Source>, FileSystemKey);

/// Tells two file systems apart, and one from itself with other credentials.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileSystemKey([u8; 32]);

#[derive(Serialize)]
struct Source {
    name: String,
    environment: BTreeMap<String, String>,
    edition: Edition,
}

#[derive(Serialize)]
enum Edition {
    Community {
        /// Without the password.
        meta_url: String,
        /// The address as the client writes it into its log.
        masked_url: String,
        format: Option<Format>,
    },
    Enterprise(Enterprise),
}

/// What it takes to make the file system where there is none.
#[derive(Serialize)]
pub(super) struct Format {
    /// Options of `juicefs format`.
    pub(super) options: Vec<String>,
    /// The keys of the object storage, for this command only: from then on the client reads them from the metadata engine.
    pub(super) environment: BTreeMap<String, String>,
    /// A private key in PEM, which the command wants in a file.
    pub(super) rsa_key: Option<String>,
}

/// Keys that are an option of `juicefs format` of the same name.
const OPTIONS: [&str; 8] =
    ["storage", "bucket", "block-size", "compress", "trash-days", "capacity", "inodes", "shards"];

/// Keys of the object storage: the key, its name before the driver had dashes in it, and the variable that the client reads.
const CREDENTIALS: [(&str, &str, &str); 3] = [
    ("access-key", "accesskey", "ACCESS_KEY"),
    ("secret-key", "secretkey", "SECRET_KEY"),
    ("session-token", "session-token", "SESSION_TOKEN"),
];

/// Engines for which the client reads the password from `META_PASSWORD`.
const WITH_META_PASSWORD: [&str; 5] = ["redis", "rediss", "unix", "mysql", "postgres"];

/// Engines whose addresses are no URLs: a password may have any character, or there is none and an `@` is one of a path.
const WITH_ANY_PASSWORD: [&str; 3] = ["mysql", "sqlite3", "badger"];

impl FileSystem {
    /// Reads a Secret. Keys that have no meaning here are left alone, as the driver does.
    pub fn from_secrets(secrets: &BTreeMap<String, String>) -> Result<FileSystem, SourceError> {
        let secrets = Secrets(secrets);
        let name = secrets.require("name")?;
        check_name(name)?;
        let (environment, edition) = if secrets.is_enterprise() { enterprise(&secrets)? } else { community(&secrets)? };
        let source = Source { name: name.into(), environment, edition };
        let everything = serde_json::to_vec(&source).expect("strings are plain JSON");
        Ok(FileSystem(Arc::new(source), FileSystemKey(Sha256::digest(everything).into())))
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The same for two Secrets only if a client can't tell them apart.
    pub fn key(&self) -> FileSystemKey {
        self.1
    }

    /// What commands of its client call it: its metadata engine, without the password, or its name in the Enterprise Edition.
    pub(super) fn address(&self) -> &str {
        match &self.0.edition {
            Edition::Community { meta_url, .. } => meta_url,
            Edition::Enterprise(_) => &self.0.name,
        }
    }

    /// Whether both are one file system, as far as their Secrets tell: the credentials may differ. A name is one for each console, which
    /// is said by variables.
    pub fn is(&self, other: &FileSystem) -> bool {
        let is_known_alike = self.enterprise().is_none() || self.0.environment == other.0.environment;
        self.address() == other.address() && is_known_alike
    }

    /// What the client of the Enterprise Edition needs to know of it; none of the Community Edition.
    pub(super) fn enterprise(&self) -> Option<&Enterprise> {
        match &self.0.edition {
            Edition::Community { .. } => None,
            Edition::Enterprise(enterprise) => Some(enterprise),
        }
    }

    /// What the space of a quota is a multiple of, in bytes, as its client counts.
    pub fn quota_unit(&self) -> u64 {
        match &self.0.edition {
            Edition::Community { .. } => 1,
            Edition::Enterprise(_) => QUOTA_UNIT,
        }
    }

    /// The password of the metadata engine; empty where it has none.
    pub fn meta_password(&self) -> &str {
        self.0.environment.get("META_PASSWORD").map(String::as_str).unwrap_or_default()
    }

    /// The variables of `envs`.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let of_envs = self.0.environment.iter().filter(|(name, _)| *name != "META_PASSWORD");
        of_envs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The variables of every client of this file system, the engine's password among them.
    pub(super) fn environment(&self) -> &BTreeMap<String, String> {
        &self.0.environment
    }

    /// How to make it; none where the Secret names no storage, and where only its console can.
    pub(super) fn format(&self) -> Option<&Format> {
        match &self.0.edition {
            Edition::Community { format, .. } => format.as_ref(),
            Edition::Enterprise(_) => None,
        }
    }

    /// Knows everything about it that must not be in a log or in an error.
    pub(super) fn redactor(&self) -> Redactor {
        let Source { environment, edition, .. } = &*self.0;
        // A short value, such as `1` or `UTC`, is a setting: to mask it would make every line unreadable.
        let long = |(name, value): &(&String, &String)| value.len() > 3 || *name == "META_PASSWORD";
        let mut secrets: Vec<String> = environment.iter().filter(long).map(|(_, value)| value.clone()).collect();
        match edition {
            Edition::Community { meta_url, masked_url, format } => {
                secrets.extend([meta_url, masked_url].map(String::clone));
                let given = format.iter().flat_map(|it| it.environment.values().chain(&it.rsa_key));
                secrets.extend(given.cloned());
            }
            Edition::Enterprise(enterprise) => secrets.extend(enterprise.secrets()),
        }
        Redactor::new(secrets)
    }
}

fn community(secrets: &Secrets<'_>) -> Result<(BTreeMap<String, String>, Edition), SourceError> {
    let url = MetaUrl::parse(secrets.require("metaurl")?)?;
    let mut environment = secrets.environment()?;
    let beside = secrets.line("meta-password")?.map(String::from);
    // The client, too, prefers the one in the URL.
    if let Some(password) = url.password.or(beside) {
        environment.insert("META_PASSWORD".into(), password);
    }
    let edition = Edition::Community { meta_url: url.plain, masked_url: url.masked, format: secrets.format()? };
    Ok((environment, edition))
}

fn enterprise(secrets: &Secrets<'_>) -> Result<(BTreeMap<String, String>, Edition), SourceError> {
    let environment = secrets.environment()?;
    let enterprise = Enterprise::read(secrets, &environment)?;
    let mut options = enterprise.authentication().into_iter().flatten();
    if options.any(|option| option.starts_with("--subdir=")) {
        return Err(SourceError::Subdir);
    }
    Ok((environment, Edition::Enterprise(enterprise)))
}

impl Debug for FileSystem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSystem").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl Debug for FileSystemKey {
    /// Not even the digest is shown: a short password could be found from it by trying.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSystemKey").finish_non_exhaustive()
    }
}

/// The values of a Secret; an empty one is as good as none.
pub(super) struct Secrets<'a>(pub(super) &'a BTreeMap<String, String>);

impl<'a> Secrets<'a> {
    /// A value that may have several lines.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A value of one line, which can be an argument or a variable of a process.
    pub(super) fn line(&self, key: &'static str) -> Result<Option<&'a str>, SourceError> {
        let value = self.text(key);
        if value.is_some_and(|value| value.contains(char::is_control)) {
            let reason = "has a line break or another control character, perhaps at its end: take it out";
            return Err(SourceError::Unusable { key, reason });
        }
        Ok(value)
    }

    /// Whether it is of the Enterprise Edition.
    pub(super) fn is_enterprise(&self) -> bool {
        self.text("metaurl").is_none() && self.text("token").or(self.text("initconfig")).is_some()
    }

    pub(super) fn require(&self, key: &'static str) -> Result<&'a str, SourceError> {
        self.line(key)?.ok_or(SourceError::Missing(key))
    }

    /// The variables of `envs`.
    pub(super) fn environment(&self) -> Result<BTreeMap<String, String>, SourceError> {
        let unusable = |reason| SourceError::Unusable { key: "envs", reason };
        let Some(text) = self.text("envs") else { return Ok(BTreeMap::new()) };
        // YAML, as with the driver; JSON is a part of it.
        let variables: BTreeMap<String, String> =
            yaml_serde::from_str(text).map_err(|_| unusable("is no JSON object of names and strings"))?;
        for (name, value) in &variables {
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(unusable("has a name that no variable can have: letters, digits and `_` are allowed"));
            }
            if value.contains('\0') {
                return Err(unusable("has a value with a NUL character"));
            }
            if is_reserved(name) {
                return Err(unusable(
                    "sets PATH, HOME, or a variable that begins with LD_, META_PASSWORD or WEBDAV_, which Pith keeps to \
                     itself (the engine's password goes into `meta-password`)",
                ));
            }
        }
        Ok(variables)
    }

    /// Secrets that clients in pods have as folders: `configs`. YAML, as with the driver, whose errors could repeat what is in it.
    pub(super) fn folders(&self) -> Result<BTreeMap<String, String>, SourceError> {
        let unusable = |reason| SourceError::Unusable { key: "configs", reason };
        let Some(text) = self.text("configs") else { return Ok(BTreeMap::new()) };
        let folders: BTreeMap<String, String> =
            yaml_serde::from_str(text).map_err(|_| unusable("is no map of names of Secrets and paths"))?;
        let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        for (name, path) in &folders {
            if name.is_empty() || !name.bytes().all(in_name) {
                return Err(unusable("has a name that no Secret can have"));
            }
            if !path.starts_with('/') || path.contains([':', '\0']) || path.split('/').any(|it| it == "..") {
                return Err(unusable("has a path that is not absolute, or has a `:` or `..` in it"));
            }
        }
        Ok(folders)
    }

    /// The items of `format-options`.
    pub(super) fn format_options(&self) -> Result<Vec<(&'a str, Option<&'a str>)>, SourceError> {
        let mut options = Vec::new();
        for item in self.line("format-options")?.unwrap_or_default().split(',').map(str::trim) {
            let (key, value) = item.split_once('=').map_or((item, None), |(key, value)| (key, Some(value)));
            if item.is_empty() {
                continue;
            }
            if !is_option(key) || value == Some("") {
                let reason = "has an item that is neither `key` nor `key=value`";
                return Err(SourceError::Unusable { key: "format-options", reason });
            }
            options.push((key, value));
        }
        Ok(options)
    }

    /// What `juicefs format` is called with.
    fn format(&self) -> Result<Option<Format>, SourceError> {
        let mut options = Vec::new();
        let mut environment = BTreeMap::new();
        for key in OPTIONS {
            options.extend(self.line(key)?.map(|value| argument(key, Some(value))));
        }
        for (key, value) in self.format_options()? {
            let credential = CREDENTIALS.iter().find(|(name, ..)| *name == key);
            match (credential, value) {
                (Some((.., variable)), Some(value)) => {
                    environment.insert(variable.to_string(), value.to_string());
                }
                _ => options.push(argument(key, value)),
            }
        }
        for (key, old, variable) in CREDENTIALS {
            let value = self.line(key)?.or(self.line(old)?);
            environment.extend(value.map(|value| (variable.to_string(), value.to_string())));
        }
        if self.text("bucket").is_some_and(has_password) {
            let reason = "has a password in its URL: put it into `access-key` and `secret-key`";
            return Err(SourceError::Unusable { key: "bucket", reason });
        }
        let named = self.text("storage").or(self.text("bucket")).is_some();
        let rsa_key = self.text("encrypt_rsa_key").map(String::from);
        Ok(named.then_some(Format { options, environment, rsa_key }))
    }
}

/// An option as an argument.
pub(super) fn argument(name: &str, value: Option<&str>) -> String {
    value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}"))
}

/// Whether it can be the name of an option, without its dashes.
fn is_option(key: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !key.is_empty() && !key.starts_with('-') && key.bytes().all(allowed)
}

/// The rule of `juicefs format`.
pub(super) fn check_name(name: &str) -> Result<(), SourceError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let well_formed = (3..=63).contains(&name.len()) && name.bytes().all(allowed);
    if !well_formed || name.starts_with('-') || name.ends_with('-') {
        let reason =
            "is no name of a file system: 3 to 63 lowercase letters, digits and dashes, none of these at an end";
        return Err(SourceError::Unusable { key: "name", reason });
    }
    Ok(())
}

/// What decides how a worker runs and how it is reached is not for a Secret to choose.
fn is_reserved(variable: &str) -> bool {
    matches!(variable, "PATH" | "HOME") || ["LD_", "META_PASSWORD", "WEBDAV_"].iter().any(|it| variable.starts_with(it))
}

/// The address of a metadata engine, and the password that was in it.
struct MetaUrl {
    /// The address without the password, as the client takes it beside `META_PASSWORD`.
    plain: String,
    /// The address as the client writes it into its log.
    masked: String,
    password: Option<String>,
}

impl MetaUrl {
    fn parse(text: &str) -> Result<MetaUrl, SourceError> {
        let unusable = |reason| SourceError::Unusable { key: "metaurl", reason };
        // As the client does it.
        let (engine, rest) = text.split_once("://").unwrap_or(("redis", text));
        let in_engine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if engine.is_empty() || !engine.bytes().all(in_engine) || rest.is_empty() {
            return Err(unusable("is no URL of a metadata engine, such as redis://host:6379/1"));
        }
        if !WITH_ANY_PASSWORD.contains(&engine) && password_is_cut(rest) {
            return Err(unusable(
                "has an `@` behind its host: a `/`, `?` or `#` in a password must be percent-encoded, as must an `@` of anything \
                 else, or the client takes the password for an address",
            ));
        }
        if query_has_password(rest) {
            return Err(unusable("has a password among its parameters: put it into `meta-password`"));
        }
        let (user, password, rest) = match split_password(engine, rest) {
            Some((user, password, rest)) if !password.is_empty() => (user, password, rest),
            _ => {
                let plain = format!("{engine}://{rest}");
                return Ok(MetaUrl { masked: plain.replacen(":@", ":****@", 1), plain, password: None });
            }
        };
        if !WITH_META_PASSWORD.contains(&engine) {
            return Err(unusable(
                "has a password, which the JuiceFS client takes for this engine on its command line only, where every user of \
                 the machine can read it: use an engine account without one, such as one with a client certificate",
            ));
        }
        let decoded = match decode(password) {
            Some(decoded) => decoded,
            // The client, too, takes what isn't percent-encoded as it stands, for MySQL only.
            None if engine == "mysql" => password.to_string(),
            None => return Err(unusable("has a password with characters that must be percent-encoded")),
        };
        Ok(MetaUrl {
            plain: format!("{engine}://{user}:@{rest}"),
            masked: format!("{engine}://{user}:****@{rest}"),
            password: Some(decoded),
        })
    }
}

/// The user, the password and what follows the `@`.
fn split_password<'a>(engine: &str, rest: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let authority = match engine {
        // Its addresses are no URLs: the password may have any character, and the last slash begins the database.
        "mysql" => rest.rfind('/').unwrap_or(rest.len()),
        _ => rest.find(['/', '?', '#']).unwrap_or(rest.len()),
    };
    let at = rest[..authority].rfind('@')?;
    let (user, password) = rest[..at].split_once(':')?;
    Some((user, password, &rest[at + 1..]))
}

fn has_password(url: &str) -> bool {
    let (is_url, rest) = url.split_once("://").map_or((false, url), |(_, rest)| (true, rest));
    split_password("", rest).is_some_and(|(_, password, _)| !password.is_empty()) || is_url && password_is_cut(rest)
}

/// Whether a character that ends the host stands in what may be a password: `:one/two@host`. By the rules of URLs `one` is a port
/// then; what the client says of it would show a part of the password, and its command line would show all.
fn password_is_cut(rest: &str) -> bool {
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    authority.contains(':') && !authority.contains('@') && behind.contains('@')
}

fn query_has_password(rest: &str) -> bool {
    let parameters = rest.split_once('?').map_or("", |(_, query)| query).split('&');
    parameters
        .filter_map(|parameter| parameter.split_once('='))
        .any(|(name, _)| name == "password" || name == "sslpassword")
}

/// A password of a URL, by the rules of the client's URL parser: none where they are broken.
fn decode(password: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%".contains(&byte);
    let escapes = password.split('%').skip(1);
    let complete = |escape: &str| escape.len() > 1 && escape.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !password.bytes().all(allowed) || !escapes.into_iter().all(complete) {
        return None;
    }
    let decoded = percent_decode_str(password).decode_utf8().ok()?;
    (!decoded.contains('\0')).then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests;
