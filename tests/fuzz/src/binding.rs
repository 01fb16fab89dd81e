//! The text of a binding: as a PolicyBinding, which comes from an API server as JSON, and as a part of the configuration, which is YAML.
//!
//! What is taken means the same when it is written down and read again, has its bounds, and can be compared with objects.

use std::path::Path;
use std::sync::Arc;

use pith::config::file::File;
use pith::config::{PolicyConfig, Resource};
use pith::wasm::Limits;
use pith_core::binding::{order, shadows};
use pith_core::object::{Claim, Entries, Namespace};
use pith_core::policy::{PodFacts, Subject, VolumeFacts};
use serde_json::Value;

pub(crate) fn run(input: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(input).map_err(|_| "it is no text")?;
    // JSON alone, as an API server sends it; YAML would take it too.
    if let Ok(spec) = serde_json::from_str::<Value>(text) {
        return of_resource(spec);
    }
    if let Ok(file) = yaml_serde::from_str::<File>(text) {
        file.policies.iter().for_each(|it| {
            let typed = serde_json::to_value(it).expect("what was read can be written");
            let _ = PolicyConfig::read(typed, Path::new("/")).inspect(check);
        });
        return Ok(format!("a configuration with {} policies", file.policies.len()));
    }
    match yaml_serde::from_str::<Value>(text) {
        Ok(spec) => of_resource(spec),
        Err(_) => Err("it is neither JSON nor YAML".into()),
    }
}

fn of_resource(spec: Value) -> Result<String, String> {
    let resource = Resource { uid: "1".into(), generation: 1, digest: None };
    let config = PolicyConfig::of_resource("team-sizes", spec, resource).map_err(|error| format!("{error:#}"))?;
    assert_eq!(config.binding.name, "team-sizes", "its name is that of the object");
    check(&config);
    Ok(format!("a binding for {} hooks", config.binding.hooks.len()))
}

fn check(config: &PolicyConfig) {
    let Limits { deadline, memory_bytes } = config.limits;
    assert_eq!(Limits::within(deadline, memory_bytes as u64), Ok(config.limits), "its limits");
    assert!(config.binding.percent <= 100, "{} %", config.binding.percent);
    assert!(serde_json::from_str::<Value>(&config.settings).is_ok_and(|it| it.is_object()), "its settings");
    let again = PolicyConfig::read(config.typed.clone(), Path::new("/")).expect("it is as it was taken");
    assert_eq!(PolicyConfig { resource: config.resource.clone(), ..again }, *config, "read again");

    let binding = &config.binding;
    let labels = Entries::from_iter([("team".to_string(), "web".to_string())]);
    let namespace = Arc::new(Namespace { name: "shop".into(), labels: labels.clone(), ..Namespace::default() });
    let claim = Claim { name: "data".into(), storage_class: Some("juicefs".into()), ..Claim::default() };
    let for_claim = binding.meets_claim(&claim, &namespace);
    assert_eq!(binding.meets_claim(&claim, &namespace), for_claim, "the same question");
    let pod = PodFacts { name: Some("web-0".into()), labels, ..PodFacts::default() };
    let volume = VolumeFacts {
        name: "data".into(),
        claim: Arc::new(claim),
        read_only: false,
        class_parameters: Arc::default(),
        volume_attributes: Arc::default(),
    };
    let _ = binding.meets_pod(&Subject { pod, namespace, object: &Value::Null }, [&volume].into_iter());
    assert!(order(binding, binding).is_eq());
    shadows(&[binding.clone(), binding.clone()]);
}
