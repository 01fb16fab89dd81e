//! What is known of the client of the Enterprise Edition, from its public documentation and from how the JuiceFS CSI driver calls it.
//! Pith has never run it: nobody here has it.
//!
//! Its file systems have names, and a console knows the rest. `juicefs auth NAME` asks it, and leaves what the other commands need in
//! `$HOME/.juicefs/NAME.conf`, in the clear. So each file system has a home of its own here, which nobody else can enter and which goes
//! when Pith forgets the file system, or ends; what two Secrets of one file system say is kept apart by it too. That command takes the token and
//! the keys as arguments, for which the documentation names no other way. A Secret with an `initconfig` has the file itself: then
//! nobody is asked, and nothing secret is an argument.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use super::source::{Secrets, SourceError, argument};

/// Options of `juicefs auth` of the same name: the key, and its name before the driver had dashes in it.
const AUTHENTICATION: [(&str, &str); 9] = [
    ("access-key", "accesskey"),
    ("access-key2", "accesskey2"),
    ("bucket", "bucket"),
    ("bucket2", "bucket2"),
    ("passphrase", "passphrase"),
    ("secret-key", "secretkey"),
    ("secret-key2", "secretkey2"),
    ("subdir", "subdir"),
    ("token", "token"),
];
/// The variable of `envs` that keeps `juicefs auth` from asking the console, and its value.
const NO_UPDATE: (&str, &str) = ("JFS_NO_UPDATE_CONFIG", "enabled");

/// Options of a worker: those that the documentation of its WebDAV server and of its cache names. Of blocks, which never change, it
/// keeps a few in memory.
pub(super) const OPTIONS: [&str; 3] = ["--cache-dir=memory", "--cache-size=32", "--buffer-size=32"];
/// The least quota of a directory, in bytes, and what each is a multiple of: the client counts in GiB.
pub(super) const QUOTA_UNIT: u64 = 1 << 30;
/// Where what the client calls is looked for: it is a script in some of its releases.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What its client needs to know of a file system beside the name.
#[derive(Clone, Serialize)]
pub(super) struct Enterprise {
    pub(super) access: Access,
    /// A private key in PEM, with which data is encrypted.
    pub(super) rsa_key: Option<String>,
}

/// How the client gets its configuration.
#[derive(Clone, Serialize)]
pub(super) enum Access {
    /// From the console: these are the options of `juicefs auth`.
    Authenticate(Vec<String>),
    /// It is this one.
    Configured(String),
}

impl Enterprise {
    /// Reads a Secret, of which these are the variables.
    pub(super) fn read(secrets: &Secrets<'_>, variables: &BTreeMap<String, String>) -> Result<Enterprise, SourceError> {
        let rsa_key = secrets.text("encrypt_rsa_key").map(String::from);
        if let Some(configuration) = secrets.text("initconfig") {
            return Ok(Enterprise { access: Access::Configured(configuration.into()), rsa_key });
        }
        let mut given = BTreeMap::new();
        for (key, old) in AUTHENTICATION {
            given.extend(secrets.line(key)?.or(secrets.line(old)?).map(|value| (key, Some(value))));
        }
        given.extend(secrets.format_options()?);
        if variables.get(NO_UPDATE.0).is_some_and(|value| value == NO_UPDATE.1) {
            secrets.require("bucket")?;
            given.insert("no-update", None);
        }
        let given = given.into_iter().map(|(key, value)| argument(key, value)).collect();
        Ok(Enterprise { access: Access::Authenticate(given), rsa_key })
    }

    /// The options of `juicefs auth`; none where it is not run.
    pub(super) fn authentication(&self) -> Option<&[String]> {
        match &self.access {
            Access::Authenticate(options) => Some(options),
            Access::Configured(_) => None,
        }
    }

    /// Everything that must not be in a log or in an error.
    pub(super) fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<String> = self.rsa_key.iter().cloned().collect();
        match &self.access {
            Access::Authenticate(options) => {
                let values = options.iter().filter_map(|option| option.split_once('=').map(|(_, value)| value));
                secrets.extend(values.map(String::from));
            }
            Access::Configured(configuration) => {
                // The lines of what is no JSON are known, too.
                secrets.push(configuration.clone());
                texts(&serde_json::from_str(configuration).unwrap_or_default(), &mut secrets);
            }
        }
        // A short value is a setting, such as `s3`: to mask it would make every line unreadable.
        secrets.retain(|secret| secret.len() > 3);
        secrets
    }
}

/// Every text in a value.
fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
        Value::Object(fields) => fields.values().for_each(|field| texts(field, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The home of the processes of one file system. It goes when it is dropped.
#[derive(Debug)]
pub(super) struct Home(TempDir);

impl Home {
    /// A home that this user alone can enter, with what the Secret has for it.
    pub(super) fn furnished(name: &str, enterprise: &Enterprise) -> io::Result<Home> {
        let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir()?;
        folder.path().to_str().ok_or_else(|| io::Error::other("the folder for temporary files is no text"))?;
        let home = Home(folder);
        let configurations = home.configurations();
        std::fs::create_dir(&configurations)?;
        if let Access::Configured(configuration) = &enterprise.access {
            std::fs::write(Path::new(&configurations).join(format!("{name}.conf")), configuration)?;
        }
        if let Some(key) = &enterprise.rsa_key {
            std::fs::write(home.rsa_key(), key)?;
        }
        Ok(home)
    }

    /// The variables of the processes that live there.
    pub(super) fn variables(&self) -> [(&str, &str); 2] {
        [("HOME", self.path()), ("PATH", PATH)]
    }

    /// Where the client keeps what it got from the console.
    pub(super) fn configurations(&self) -> String {
        format!("{}/.juicefs", self.path())
    }

    /// Where the private key lies, if there is one.
    pub(super) fn rsa_key(&self) -> String {
        format!("{}/rsa-key.pem", self.path())
    }

    fn path(&self) -> &str {
        self.0.path().to_str().expect("nothing else is furnished")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[(&str, &str)]) -> Enterprise {
        let values: BTreeMap<String, String> =
            values.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Enterprise::read(&Secrets(&values), &BTreeMap::new()).expect("it is usable")
    }

    #[test]
    fn whatever_of_it_may_be_secret_is_known_as_that() {
        #[track_caller]
        fn check(values: &[(&str, &str)], expected: &[&str]) {
            let mut secrets = read(values).secrets();
            secrets.sort();
            assert_eq!(secrets, expected, "{values:?}");
        }
        check(&[("token", "token-1"), ("bucket", "s3"), ("secretkey", "key-2")], &["key-2", "token-1"]);
        check(&[("token", "token-1"), ("format-options", "session-token=st-1,debug")], &["st-1", "token-1"]);
        check(&[("token", "token-1"), ("encrypt_rsa_key", "-----BEGIN\nMII")], &["-----BEGIN\nMII", "token-1"]);
        let text = r#"{"storage":"s3","master":["10.0.0.1"],"a":{"password":"pw-1"},"tested":1}"#;
        check(&[("initconfig", text)], &["10.0.0.1", "pw-1", text]);
        check(&[("initconfig", "password: pw-1")], &["password: pw-1"]);
    }

    #[test]
    fn a_home_is_for_its_user_alone_and_goes() {
        let enterprise = read(&[("initconfig", "{}"), ("encrypt_rsa_key", "MII")]);
        let home = Home::furnished("shop", &enterprise).expect("a home");
        let folder = home.0.path().to_path_buf();
        let mode = std::fs::metadata(&folder).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let written = |path: &str| std::fs::read_to_string(folder.join(path)).expect("it is there");
        assert_eq!((written(".juicefs/shop.conf").as_str(), written("rsa-key.pem").as_str()), ("{}", "MII"));
        assert_eq!(home.variables()[0], ("HOME", folder.to_str().expect("text")));
        drop(home);
        assert!(!folder.exists());
    }
}
