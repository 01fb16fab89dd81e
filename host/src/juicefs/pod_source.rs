//! From the Secret of a file system to what pods get of it: facts that anybody may know, and variables for their own Secrets.

use std::collections::BTreeMap;

use pith_core::object::{FileSystemFacts, Preparation, PreparationOption};
use pith_core::secret_key;

use super::enterprise::{Access, Enterprise};
use super::source::{FileSystem, Secrets, SourceError, check_name};

/// What pods get of a file system's Secret. No Debug: it is secret.
#[derive(Clone)]
pub struct PodSource {
    folders: BTreeMap<String, String>,
    edition: Edition,
}

#[derive(Clone)]
enum Edition {
    Community(FileSystem),
    /// The console makes it, and nobody here.
    Enterprise {
        facts: FileSystemFacts,
        variables: BTreeMap<String, String>,
    },
}

impl PodSource {
    /// Reads a Secret.
    pub fn from_secrets(secrets: &BTreeMap<String, String>) -> Result<PodSource, SourceError> {
        let values = Secrets(secrets);
        let folders = values.folders()?;
        let edition = match values.is_enterprise() {
            true => enterprise(&values)?,
            false => Edition::Community(FileSystem::from_secrets(secrets)?),
        };
        Ok(PodSource { folders, edition })
    }

    /// The file system, where it is one that can be made here; none of the Enterprise Edition.
    pub fn file_system(&self) -> Option<&FileSystem> {
        match &self.edition {
            Edition::Community(file_system) => Some(file_system),
            Edition::Enterprise { .. } => None,
        }
    }

    /// What anybody may know. `in_pods` is whether pods make the file system where it is not there.
    pub fn facts(&self, in_pods: bool) -> FileSystemFacts {
        let facts = match &self.edition {
            Edition::Enterprise { facts, .. } => facts.clone(),
            Edition::Community(file_system) => {
                let name = file_system.name().to_string();
                let known = FileSystemFacts { name, ..FileSystemFacts::default() };
                match file_system.format().filter(|_| in_pods) {
                    None => known,
                    Some(format) => FileSystemFacts {
                        preparation: Some(Preparation::Format(options(&format.options))),
                        rsa_key: format.rsa_key.is_some(),
                        ..known
                    },
                }
            }
        };
        FileSystemFacts { folders: self.folders.clone(), ..facts }
    }

    /// The environment of its clients in pods, but for the directory.
    pub fn variables(&self, in_pods: bool) -> BTreeMap<String, String> {
        let file_system = match &self.edition {
            Edition::Enterprise { variables, .. } => return variables.clone(),
            Edition::Community(file_system) => file_system,
        };
        let mut variables: BTreeMap<String, String> =
            file_system.variables().map(|(name, value)| (name.into(), value.into())).collect();
        if let Some(format) = file_system.format().filter(|_| in_pods) {
            variables.extend(format.environment.clone());
            variables.extend(values(&format.options));
            variables.extend(format.rsa_key.iter().map(|key| (secret_key::RSA_KEY.to_string(), key.clone())));
        }
        // Last, so that nothing in `envs` takes their place.
        variables.insert(secret_key::META_URL.into(), file_system.address().into());
        variables.insert(secret_key::META_PASSWORD.into(), file_system.meta_password().into());
        variables
    }
}

fn enterprise(secrets: &Secrets<'_>) -> Result<Edition, SourceError> {
    let name = secrets.require("name")?;
    check_name(name)?;
    let mut variables = secrets.environment()?;
    let Enterprise { access, rsa_key } = Enterprise::read(secrets, &variables)?;
    let preparation = match access {
        Access::Configured(configuration) => {
            variables.insert(secret_key::CONFIGURATION.into(), configuration);
            Preparation::Configured
        }
        Access::Authenticate(given) => {
            variables.extend(values(&given));
            Preparation::Authenticate(options(&given))
        }
    };
    variables.extend(rsa_key.iter().map(|key| (secret_key::RSA_KEY.to_string(), key.clone())));
    let facts = FileSystemFacts {
        name: name.into(),
        enterprise: true,
        preparation: Some(preparation),
        rsa_key: rsa_key.is_some(),
        folders: BTreeMap::new(),
    };
    Ok(Edition::Enterprise { facts, variables })
}

/// The options of these arguments, each once.
fn options(arguments: &[String]) -> Vec<PreparationOption> {
    let mut options = Vec::new();
    for argument in arguments {
        let (name, value) = parts(argument);
        let option = match value {
            Some(_) => PreparationOption::Secret(name.into()),
            None => PreparationOption::Switch(name.into()),
        };
        if !options.contains(&option) {
            options.push(option);
        }
    }
    options
}

/// Their values, under the keys that a claim's Secret has for them. Of an option that is there twice the last counts, as with the
/// client.
fn values(arguments: &[String]) -> impl Iterator<Item = (String, String)> {
    arguments.iter().filter_map(|argument| {
        let (name, value) = parts(argument);
        Some((secret_key::option(name), value?.to_string()))
    })
}

fn parts(argument: &str) -> (&str, Option<&str>) {
    let option = argument.trim_start_matches("--");
    option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(values: &[(&str, &str)]) -> Result<PodSource, SourceError> {
        PodSource::from_secrets(&values.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    fn secret(name: &str) -> PreparationOption {
        PreparationOption::Secret(name.into())
    }

    const COMMUNITY: [(&str, &str); 5] = [
        ("name", "shop"),
        ("metaurl", "redis://:canary@redis:6379/1"),
        ("storage", "s3"),
        ("secret-key", "canary"),
        ("format-options", "trash-days=3,hash-prefix"),
    ];

    #[test]
    fn a_pod_makes_the_file_system_only_where_it_is_told_to() {
        let source = source(&COMMUNITY).expect("it is usable");
        assert_eq!(source.facts(false), FileSystemFacts { name: "shop".into(), ..FileSystemFacts::default() });
        assert_eq!(source.variables(false).keys().collect::<Vec<_>>(), ["METAURL", "META_PASSWORD"]);
        let options = vec![secret("storage"), secret("trash-days"), PreparationOption::Switch("hash-prefix".into())];
        assert_eq!(source.facts(true).preparation, Some(Preparation::Format(options)));
        let variables = source.variables(true);
        let expected = ["METAURL", "META_PASSWORD", "OPTION_STORAGE", "OPTION_TRASH_DAYS", "SECRET_KEY"];
        assert_eq!(variables.keys().collect::<Vec<_>>(), expected);
        assert_eq!(variables["OPTION_TRASH_DAYS"], "3");
    }

    #[test]
    fn nothing_that_is_secret_is_among_the_facts() {
        let enterprise =
            [("name", "shop"), ("token", "canary"), ("secretkey", "canary"), ("encrypt_rsa_key", "canary")];
        let configured = [("name", "shop"), ("initconfig", "canary")];
        for values in [&COMMUNITY[..], &enterprise, &configured] {
            let source = source(values).expect("it is usable");
            for in_pods in [true, false] {
                let said = pith_core::file_system::write(&source.facts(in_pods));
                assert!(!said.contains("canary"), "{said}");
            }
            assert!(source.variables(true).values().any(|value| value.contains("canary")));
        }
    }

    #[test]
    fn the_enterprise_edition_is_authenticated_or_configured() {
        let check = |values: &[(&str, &str)], expected: Preparation, keys: &[&str]| {
            let all: Vec<_> = [("name", "shop")].iter().chain(values).copied().collect();
            let source = source(&all).expect("it is usable");
            let facts = source.facts(true);
            assert!(facts.enterprise && source.file_system().is_none());
            assert_eq!(facts.preparation, Some(expected), "{values:?}");
            assert_eq!(source.variables(true).keys().collect::<Vec<_>>(), keys, "{values:?}");
        };
        let authenticate = Preparation::Authenticate;
        check(&[("token", "t")], authenticate(vec![secret("token")]), &["OPTION_TOKEN"]);
        check(
            &[("token", "t"), ("accesskey", "a"), ("secret-key2", "s"), ("format-options", "debug")],
            authenticate(vec![
                secret("access-key"),
                PreparationOption::Switch("debug".into()),
                secret("secret-key2"),
                secret("token"),
            ]),
            &["OPTION_ACCESS_KEY", "OPTION_SECRET_KEY2", "OPTION_TOKEN"],
        );
        let offline = ("envs", r#"{"JFS_NO_UPDATE_CONFIG": "enabled"}"#);
        check(
            &[("token", "t"), ("bucket", "b"), offline],
            authenticate(vec![secret("bucket"), PreparationOption::Switch("no-update".into()), secret("token")]),
            &["JFS_NO_UPDATE_CONFIG", "OPTION_BUCKET", "OPTION_TOKEN"],
        );
        check(&[("token", "t"), ("initconfig", "{}")], Preparation::Configured, &["CLIENT_CONFIGURATION"]);
        let refused = |values: &[(&str, &str)]| source(values).err().expect("it must be refused").to_string();
        let sentence = refused(&[("name", "shop"), ("token", "canary"), offline]);
        assert!(sentence.contains("no `bucket`") && !sentence.contains("canary"), "{sentence}");
        assert!(refused(&[("name", "../x"), ("token", "t")]).contains("`name`"));
        assert!(refused(&[("name", "shop")]).contains("no `metaurl`"));
    }

    #[test]
    fn folders_are_names_of_secrets_and_absolute_paths() {
        let with = |configs: &str| source(&[&COMMUNITY[..], &[("configs", configs)]].concat());
        let check = |configs: &str, expected: &[(&str, &str)]| {
            let folders = with(configs).expect("it is usable").facts(false).folders;
            let found: Vec<(&str, &str)> = folders.iter().map(|(name, path)| (&**name, &**path)).collect();
            assert_eq!(found, expected, "{configs}");
        };
        check("", &[]);
        check("keys: /etc/keys", &[("keys", "/etc/keys")]);
        check(r#"{"keys": "/etc/keys", "acl": "/root/.acl"}"#, &[("acl", "/root/.acl"), ("keys", "/etc/keys")]);
        for wrong in ["keys: etc/keys", "{", "[]", "keys: 5", "keys: /a:b", "Keys_: /etc/keys", "keys: /etc/../x"] {
            let error = with(wrong).err().expect("it must be refused").to_string();
            assert!(error.contains("`configs`"), "{wrong}: {error}");
        }
    }
}
