//! The first-party policies through the real host: the same tables of cases that their own native tests run.

use std::collections::BTreeSet;
use std::sync::Arc;

use pith::wasm::{Engine, EngineOptions, Grants, Level, Limits, Module};
use pith_core::object::{AccessMode, Claim, Entries, Namespace};
use pith_core::policy::{
    Cache, Change, Exemption, Failure, Hook, Naming, NamingRequest, OptionChange, Owner, PodFacts, Quota, QuotaRequest,
    SidecarFacts, Subject, VolumeFacts,
};
use pith_policy_sdk as sdk;
use pith_policy_sdk::cases::{self, Ask, Case};
use pith_tests::{server, wasm_builds};
use serde_json::Value;

/// Every first-party policy, by its folder.
const POLICIES: [(&str, Hook); 3] =
    [("exemption", Hook::Exemption), ("naming", Hook::Naming), ("resources", Hook::Sidecar)];

#[test]
fn every_policy_answers_its_table_in_wasm() {
    let engine = Engine::new(EngineOptions::default()).expect("an engine");
    for (policy, hook) in POLICIES {
        let bytes = std::fs::read(wasm_builds::policy(policy)).expect("the module was built");
        let module = engine.load(&bytes, Grants::default()).expect("a first-party policy needs no grant");
        assert_eq!(*module.hooks(), BTreeSet::from([hook]));
        assert!(module.has_settings());
        let table = cases::load(&server::root().join("policies").join(policy).join("cases.yaml")).expect("a table");
        assert!(table.len() >= 10, "{policy} has only {} cases", table.len());
        for case in &table {
            check(policy, &module, case);
        }
    }
}

#[test]
fn no_policy_folder_is_left_out() {
    let folders = std::fs::read_dir(server::root().join("policies")).expect("a folder");
    let folders = folders.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let known: BTreeSet<String> = POLICIES.iter().map(|(policy, _)| policy.to_string()).collect();
    assert_eq!(folders.collect::<BTreeSet<_>>(), known);
}

fn check(policy: &str, module: &Module, case: &Case) {
    let limits = Limits::default();
    let settings = case.settings_text();
    let log = |_: Level, _: &str| {};
    let object = case.object.clone().unwrap_or(Value::Null);
    let name = format!("{policy}: {}", case.name);
    match &case.ask {
        Ask::Exemption { input, expect } => {
            let subject = subject(&input.pod, &input.namespace, &object);
            let volumes: Vec<VolumeFacts> = input.volumes.iter().map(volume).collect();
            let answer = module.exempt(limits, &settings, &subject, &volumes, &log);
            assert_eq!(reported(answer), expect.clone().map(exemption), "{name}");
        }
        Ask::Sidecar { input, expect } => {
            let subject = subject(&input.pod, &input.namespace, &object);
            let (volume, current) = (volume(&input.volume), sidecar(&input.current));
            let answer = module.adjust(limits, &settings, &subject, &volume, &current, &log);
            assert_eq!(reported(answer), expect.clone().map(change), "{name}");
        }
        Ask::Naming { input, expect } => {
            let answer = module.name(limits, &settings, &naming_request(input), &object, &log);
            assert_eq!(reported(answer), expect.clone().map(naming), "{name}");
        }
        Ask::Quota { input, expect } => {
            let answer = module.quota(limits, &settings, &quota_request(input), &object, &log);
            assert_eq!(reported(answer), expect.clone().map(quota), "{name}");
        }
        Ask::Settings { expect } => {
            let answer = module.validate_settings(limits, &settings, &log).unwrap_or_else(|it| panic!("{name}: {it}"));
            let answer = answer.map_err(|problem| (problem.field, problem.reason));
            assert_eq!(answer, expect.clone().map_err(|problem| (problem.field, problem.reason)), "{name}");
        }
    }
}

/// A failure that the policy itself reported, in its words. Any other failure is never expected in a table.
fn reported<T>(answer: Result<T, Failure>) -> Result<T, String> {
    answer.map_err(|failure| match failure {
        Failure::Reported(words) => words,
        other => panic!("the policy failed: {other}"),
    })
}

// From the records of the SDK, which mirror the contract for guests, to those of the host.

fn subject<'a>(pod: &sdk::Pod, namespace: &sdk::Namespace, object: &'a Value) -> Subject<'a> {
    let owner = |it: &sdk::Owner| Owner {
        api_version: it.api_version.clone(),
        kind: it.kind.clone(),
        name: it.name.clone(),
        controller: it.controller,
    };
    Subject {
        pod: PodFacts {
            name: pod.name.clone(),
            generate_name: pod.generate_name.clone(),
            labels: entries(&pod.labels),
            annotations: entries(&pod.annotations),
            owners: pod.owners.iter().map(owner).collect(),
            service_account: pod.service_account.clone(),
            priority_class: pod.priority_class.clone(),
            priority: pod.priority,
        },
        namespace: Arc::new(self::namespace(namespace)),
        object,
    }
}

fn namespace(it: &sdk::Namespace) -> Namespace {
    Namespace { name: it.name.clone(), labels: entries(&it.labels), annotations: entries(&it.annotations) }
}

fn claim(it: &sdk::Claim) -> Claim {
    let mode = |mode: &sdk::AccessMode| match mode {
        sdk::AccessMode::ReadWriteOnce => AccessMode::ReadWriteOnce,
        sdk::AccessMode::ReadOnlyMany => AccessMode::ReadOnlyMany,
        sdk::AccessMode::ReadWriteMany => AccessMode::ReadWriteMany,
        sdk::AccessMode::ReadWriteOncePod => AccessMode::ReadWriteOncePod,
    };
    Claim {
        name: it.name.clone(),
        labels: entries(&it.labels),
        annotations: entries(&it.annotations),
        storage_class: it.storage_class.clone(),
        requested_bytes: it.requested_bytes,
        access_modes: it.access_modes.iter().map(mode).collect(),
        ..Claim::default()
    }
}

fn volume(it: &sdk::Volume) -> VolumeFacts {
    VolumeFacts {
        name: it.name.clone(),
        claim: Arc::new(claim(&it.claim)),
        read_only: it.read_only,
        class_parameters: Arc::new(entries(&it.class_parameters)),
        volume_attributes: Arc::new(entries(&it.volume_attributes)),
    }
}

fn sidecar(it: &sdk::Sidecar) -> SidecarFacts {
    SidecarFacts {
        requests: entries(&it.requests),
        limits: entries(&it.limits),
        mount_options: it.mount_options.clone(),
        env: entries(&it.env),
        cache: cache(it.cache.clone()),
    }
}

fn naming_request(it: &sdk::NamingRequest) -> NamingRequest {
    NamingRequest {
        volume_name: it.volume_name.clone(),
        required_bytes: it.required_bytes,
        limit_bytes: it.limit_bytes,
        claim: Arc::new(claim(&it.claim)),
        namespace: Arc::new(namespace(&it.namespace)),
        parameters: entries(&it.parameters),
    }
}

fn quota_request(it: &sdk::QuotaRequest) -> QuotaRequest {
    QuotaRequest {
        volume: NamingRequest {
            volume_name: it.volume_name.clone(),
            required_bytes: it.required_bytes,
            limit_bytes: it.limit_bytes,
            claim: Arc::new(claim(&it.claim)),
            namespace: Arc::new(namespace(&it.namespace)),
            parameters: entries(&it.parameters),
        },
        directory: it.directory.clone(),
        shared: it.shared,
    }
}

fn entries(list: &[(String, String)]) -> Entries {
    list.iter().cloned().collect()
}

// From the answers of the SDK to those of the host.

fn cache(it: sdk::Cache) -> Cache {
    match it {
        sdk::Cache::Container => Cache::Container,
        sdk::Cache::EmptyDir(it) => Cache::EmptyDir { in_memory: it.in_memory, size_limit: it.size_limit },
    }
}

fn exemption(it: sdk::Exemption) -> Exemption {
    match it {
        sdk::Exemption::Inject => Exemption::Inject,
        sdk::Exemption::Skip(reason) => Exemption::Skip(reason),
        sdk::Exemption::Deny(sentence) => Exemption::Deny(sentence),
    }
}

fn change(it: sdk::Change) -> Change {
    let option = |(name, change)| match change {
        sdk::OptionChange::Set(value) => (name, OptionChange::Set(value)),
        sdk::OptionChange::Remove => (name, OptionChange::Remove),
    };
    Change {
        requests: it.requests,
        limits: it.limits,
        mount_options: it.mount_options.into_iter().map(option).collect(),
        env: it.env,
        cache: it.cache.map(cache),
    }
}

fn quota(it: sdk::Quota) -> Option<Quota> {
    match it {
        sdk::Quota::Pass => None,
        sdk::Quota::On => Some(Quota::On),
        sdk::Quota::Off => Some(Quota::Off),
    }
}

fn naming(it: sdk::Naming) -> Naming {
    match it {
        sdk::Naming::Pass => Naming::Pass,
        sdk::Naming::Directory(it) => Naming::Directory { components: it.components, shared: it.shared },
        sdk::Naming::Deny(sentence) => Naming::Deny(sentence),
    }
}
