//! What a kubelet works out before it starts a container: environment, argv, mounts. Values in, values out.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What containerd sets where the image says nothing else.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The Secrets of the pod's namespace: name, key, value.
pub(crate) type Secrets = BTreeMap<String, BTreeMap<String, String>>;

/// A container, ready to start.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    /// Its name.
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Its whole environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Its volumes.
    pub(crate) mounts: Vec<Mount>,
    /// The user that it runs as.
    pub(crate) user: u32,
    /// Whether it may use the node's devices.
    pub(crate) privileged: bool,
    /// What must succeed before the next container starts.
    pub(crate) startup: Option<Probe>,
    /// What runs before it is told to stop.
    pub(crate) pre_stop: Option<Vec<String>>,
    /// Whether it goes on while the next ones start (`restartPolicy: Always` of an init container).
    pub(crate) sidecar: bool,
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mount {
    /// The pod's volume.
    pub(crate) volume: String,
    /// Where the container sees it.
    pub(crate) path: String,
    /// Which mounts cross between it and the node.
    pub(crate) propagation: Propagation,
    /// Whether writing is refused.
    pub(crate) read_only: bool,
}

/// `mountPropagation`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Propagation {
    /// None.
    None,
    /// The container sees what is mounted on the node later.
    HostToContainer,
    /// And the node sees what the container mounts.
    Bidirectional,
}

/// A `startupProbe` of the form `exec`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Probe {
    /// What is run in the container.
    pub(crate) command: Vec<String>,
    /// How often.
    pub(crate) period: Duration,
    /// How long one run may take.
    pub(crate) timeout: Duration,
    /// After how many failures the container is given up.
    pub(crate) failures: u64,
}

impl Container {
    /// The same container with another program in it.
    pub(crate) fn with_argv(&self, argv: Vec<String>) -> Container {
        Container { argv, ..self.clone() }
    }
}

/// Works out one container of a pod.
pub(crate) fn container(pod: &Value, container: &Value, secrets: &Secrets) -> Result<Container> {
    let name = container["name"].as_str().context("a container has no name")?.to_string();
    let env = environment(container, secrets).with_context(|| format!("the environment of `{name}`"))?;
    let words = [&container["command"], &container["args"]];
    let argv = words.into_iter().flat_map(strings).map(|word| expand(&word, &env)).collect();
    let user = [container, &pod["spec"]].into_iter().find_map(|it| it["securityContext"]["runAsUser"].as_u64());
    let mounts = items(&container["volumeMounts"]).iter().map(mount);
    let probe = &container["startupProbe"];
    let pre_stop = &container["lifecycle"]["preStop"]["exec"]["command"];
    Ok(Container {
        argv,
        mounts: mounts.collect::<Result<_>>().with_context(|| format!("the mounts of `{name}`"))?,
        user: user.unwrap_or(0).try_into().context("runAsUser is no user id")?,
        privileged: container["securityContext"]["privileged"] == true,
        startup: probe
            .is_object()
            .then(|| startup(probe))
            .transpose()
            .with_context(|| format!("the probe of `{name}`"))?,
        pre_stop: pre_stop.is_array().then(|| strings(pre_stop)),
        sidecar: container["restartPolicy"] == "Always",
        name,
        env,
    })
}

fn environment(container: &Value, secrets: &Secrets) -> Result<BTreeMap<String, String>> {
    let mut env = BTreeMap::from([("PATH".to_string(), PATH.to_string())]);
    for source in items(&container["envFrom"]) {
        let name = source["secretRef"]["name"].as_str().context("envFrom has a source that is no Secret")?;
        let secret = secrets.get(name).with_context(|| format!("there is no Secret `{name}`"))?;
        env.extend(secret.clone());
    }
    for entry in items(&container["env"]) {
        let name = entry["name"].as_str().context("an entry has no name")?;
        let value = match &entry["valueFrom"] {
            Value::Null => expand(entry["value"].as_str().unwrap_or_default(), &env),
            source => secret_value(&source["secretKeyRef"], secrets).with_context(|| format!("the value of {name}"))?,
        };
        env.insert(name.into(), value);
    }
    Ok(env)
}

/// A kubelet waits (CreateContainerConfigError) where this is an error.
fn secret_value(reference: &Value, secrets: &Secrets) -> Result<String> {
    let (Some(name), Some(key)) = (reference["name"].as_str(), reference["key"].as_str()) else {
        bail!("it comes from no Secret, and the demo knows no other source");
    };
    let value = secrets.get(name).with_context(|| format!("there is no Secret `{name}`"))?.get(key);
    value.cloned().with_context(|| format!("the Secret `{name}` has no key `{key}`"))
}

/// `$(NAME)` is the value of that variable, or itself where there is none; `$$` is one `$`.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match env.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded + rest
}

fn mount(mount: &Value) -> Result<Mount> {
    Ok(Mount {
        volume: mount["name"].as_str().context("one names no volume")?.into(),
        path: mount["mountPath"].as_str().context("one has no mountPath")?.into(),
        propagation: match mount["mountPropagation"].as_str() {
            None | Some("None") => Propagation::None,
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            Some(other) => bail!("`{other}` is no mountPropagation"),
        },
        read_only: mount["readOnly"] == true,
    })
}

fn startup(probe: &Value) -> Result<Probe> {
    let command = strings(&probe["exec"]["command"]);
    if command.is_empty() {
        bail!("it has no `exec`, and the demo knows no other form");
    }
    let seconds = |key: &str, otherwise| Duration::from_secs(probe[key].as_u64().unwrap_or(otherwise));
    Ok(Probe {
        command,
        period: seconds("periodSeconds", 10),
        timeout: seconds("timeoutSeconds", 1),
        failures: probe["failureThreshold"].as_u64().unwrap_or(3),
    })
}

/// The items of an array; none of anything else.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    items(value).iter().filter_map(|item| item.as_str().map(String::from)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_expanded_as_the_kubelet_does() {
        let env = BTreeMap::from([("DIR".to_string(), "/a".to_string()), ("ODD".to_string(), "$(DIR)".to_string())]);
        for (text, expected) in [
            ("--dir=$(DIR)/b", "--dir=/a/b"),
            ("$(MISSING)", "$(MISSING)"),
            ("$$(DIR)", "$(DIR)"),
            ("$$$(DIR)", "$/a"),
            ("$(ODD)", "$(DIR)"),
            ("$DIR $(DIR", "$DIR $(DIR"),
            ("5$", "5$"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }

    #[test]
    fn a_container_gets_its_secrets_and_its_mounts() {
        let spec = json!({
            "name": "client", "command": ["mount", "$(URL)"],
            "env": [{"name": "URL", "valueFrom": {"secretKeyRef": {"name": "s", "key": "url"}}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}],
            "startupProbe": {"exec": {"command": ["test", "-f", "/v/x"]}, "periodSeconds": 2},
        });
        let secrets = Secrets::from([("s".into(), BTreeMap::from([("url".into(), "redis://r".into())]))]);
        let client = container(&json!({}), &spec, &secrets).unwrap();
        assert_eq!(client.argv, ["mount", "redis://r"]);
        assert_eq!(client.mounts[0].propagation, Propagation::Bidirectional);
        assert_eq!(client.startup.unwrap().period, Duration::from_secs(2));
    }

    #[test]
    fn a_missing_secret_is_named() {
        let spec =
            json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]});
        let error = container(&json!({}), &spec, &Secrets::new()).unwrap_err();
        assert_eq!(format!("{error:#}"), "the environment of `c`: the value of A: there is no Secret `s`");
    }
}
