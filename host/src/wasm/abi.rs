//! The records of `proto/policy/policy.wit` and the core types, one into the other. The only file that knows both.
//!
//! Questions borrow from the core types: what a call allocates for its question is the lists' spines. Answers are not
//! trusted: lists and strings have bounds, and sentences for people are cut and escaped. Whether a name or an amount means
//! anything is not checked here.

use std::sync::Arc;

use pith_core::object::{self, Entries};
use pith_core::policy::{
    Cache, Change, Exemption, Failure, Hook, Naming, NamingRequest, OptionChange, PodFacts, Quota, QuotaRequest,
    SidecarFacts, Subject, VolumeFacts,
};
use pith_core::text;
use wasmtime::component::ComponentExportIndex;

use super::bindings::exports::pith::policy::{exemption, naming, quota as quotas, settings, sidecar};
use super::bindings::pith::policy::types::{self, Entry};
use super::call::{Question, ask, check_shape};
use super::exports::Exports;
use super::load::said;
use super::{Asking, LoadError, Module, SettingsProblem};

/// The most items in a list of an answer. A sidecar with more options or a directory that deep is no use to anyone.
const LIST_ITEMS: usize = 64;

/// The most bytes in a name or value of an answer.
const VALUE_BYTES: usize = 4 << 10;

/// Where sentences for people are cut. Cut and not refused: a long reason is still a denial.
const SENTENCE_BYTES: usize = 1 << 10;

/// Checks each function that the policy exports.
pub(super) fn check_shapes(module: &Module) -> Result<(), LoadError> {
    fn check<Q: Question>(module: &Module) -> Result<(), LoadError> {
        let shape = |error: wasmtime::Error| LoadError::Shape { interface: Q::NAME, reason: said(error) };
        check_shape::<Q>(module).map_err(shape)
    }
    check::<Exempt>(module)?;
    check::<Adjust>(module)?;
    check::<Name>(module)?;
    check::<Decide>(module)?;
    check::<Validate>(module)
}

struct Validate;

impl Question for Validate {
    const NAME: &'static str = "settings";
    type Params<'a> = (&'a str,);
    type Raw = Result<(), settings::Problem>;

    fn export(exports: &Exports) -> Option<&ComponentExportIndex> {
        exports.settings.as_ref()
    }
}

pub(super) fn validate(module: &Module, asking: Asking<'_>) -> Result<Result<(), SettingsProblem>, Failure> {
    let answer = ask::<Validate>(module, asking, (asking.settings,), || None, None)?;
    Ok(answer.map_err(|problem| SettingsProblem { field: sentence(&problem.field), reason: sentence(&problem.reason) }))
}

struct Exempt;

impl Question for Exempt {
    const NAME: &'static str = "exemption";
    type Params<'a> = (&'a str, types::Pod<'a>, types::Namespace<'a>, &'a [types::Volume<'a>]);
    type Raw = Result<exemption::Verdict, String>;

    fn export(exports: &Exports) -> Option<&ComponentExportIndex> {
        exports.hook(Hook::Exemption)
    }
}

pub(super) fn exempt(
    module: &Module,
    asking: Asking<'_>,
    subject: &Subject<'_>,
    volumes: &[VolumeFacts],
) -> Result<Exemption, Failure> {
    let namespace = &*subject.namespace;
    let of_subject = [&subject.pod.labels, &subject.pod.annotations, &namespace.labels, &namespace.annotations];
    let lists = Lists::new(of_subject.into_iter().chain(volumes.iter().flat_map(lists_of_volume)));
    let modes: Vec<_> = volumes.iter().map(|volume| modes(&volume.claim)).collect();
    let owners = owners(&subject.pod);
    let mut lists = lists.cutter();
    let pod = pod(&subject.pod, &owners, &mut lists);
    let namespace = namespace_record(namespace, &mut lists);
    let volumes: Vec<_> = volumes.iter().zip(&modes).map(|(facts, modes)| volume(facts, modes, &mut lists)).collect();

    let params = (asking.settings, pod, namespace, &*volumes);
    match ask::<Exempt>(module, asking, params, || Some(text(subject.object)), None)? {
        Ok(exemption::Verdict::Inject) => Ok(Exemption::Inject),
        Ok(exemption::Verdict::Skip(reason)) => Ok(Exemption::Skip(sentence(&reason))),
        Ok(exemption::Verdict::Deny(reason)) => Ok(Exemption::Deny(sentence(&reason))),
        Err(reported) => Err(Failure::Reported(sentence(&reported))),
    }
}

struct Adjust;

impl Question for Adjust {
    const NAME: &'static str = "sidecar";
    type Params<'a> = (&'a str, types::Pod<'a>, types::Namespace<'a>, types::Volume<'a>, sidecar::Sidecar<'a>);
    type Raw = Result<sidecar::Change, String>;

    fn export(exports: &Exports) -> Option<&ComponentExportIndex> {
        exports.hook(Hook::Sidecar)
    }
}

pub(super) fn adjust(
    module: &Module,
    asking: Asking<'_>,
    subject: &Subject<'_>,
    facts: &VolumeFacts,
    current: &SidecarFacts,
) -> Result<Change, Failure> {
    let namespace = &*subject.namespace;
    let of_subject = [&subject.pod.labels, &subject.pod.annotations, &namespace.labels, &namespace.annotations];
    let of_sidecar = [&current.requests, &current.limits, &current.env];
    let lists = Lists::new(of_subject.into_iter().chain(lists_of_volume(facts)).chain(of_sidecar));
    let modes = modes(&facts.claim);
    let owners = owners(&subject.pod);
    let options: Vec<_> = current.mount_options.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
    let mut lists = lists.cutter();
    let pod = pod(&subject.pod, &owners, &mut lists);
    let namespace = namespace_record(namespace, &mut lists);
    let volume = volume(facts, &modes, &mut lists);
    let sidecar = sidecar::Sidecar {
        requests: lists.cut(&current.requests),
        limits: lists.cut(&current.limits),
        env: lists.cut(&current.env),
        mount_options: &options,
        cache: match &current.cache {
            Cache::Container => sidecar::CacheParam::Container,
            Cache::EmptyDir { in_memory, size_limit } => sidecar::CacheParam::EmptyDir(sidecar::EmptyDirParam {
                in_memory: *in_memory,
                size_limit: size_limit.as_deref(),
            }),
        },
    };

    let params = (asking.settings, pod, namespace, volume, sidecar);
    match ask::<Adjust>(module, asking, params, || Some(text(subject.object)), None)? {
        Ok(raw) => change(raw),
        Err(reported) => Err(Failure::Reported(sentence(&reported))),
    }
}

struct Name;

impl Question for Name {
    const NAME: &'static str = "naming";
    type Params<'a> = (&'a str, naming::Request<'a>);
    type Raw = Result<naming::Verdict, String>;

    fn export(exports: &Exports) -> Option<&ComponentExportIndex> {
        exports.hook(Hook::Naming)
    }
}

pub(super) fn name(
    module: &Module,
    asking: Asking<'_>,
    request: &NamingRequest,
    object: &serde_json::Value,
) -> Result<Naming, Failure> {
    let lists = Lists::new(lists_of_request(request).into_iter());
    let modes = modes(&request.claim);
    let mut lists = lists.cutter();
    let record = naming::Request {
        volume_name: &request.volume_name,
        required_bytes: request.required_bytes,
        limit_bytes: request.limit_bytes,
        claim: claim(&request.claim, &modes, &mut lists),
        namespace: namespace_record(&request.namespace, &mut lists),
        parameters: lists.cut(&request.parameters),
    };

    let params = (asking.settings, record);
    match ask::<Name>(module, asking, params, || Some(text(object)), request.origin.as_ref())? {
        Ok(naming::Verdict::Pass) => Ok(Naming::Pass),
        Ok(naming::Verdict::Directory(naming::Directory { components, shared })) => {
            bounded("components", &components)?;
            for component in &components {
                short("a component of the directory", component)?;
            }
            Ok(Naming::Directory { components, shared })
        }
        Ok(naming::Verdict::Deny(reason)) => Ok(Naming::Deny(sentence(&reason))),
        Err(reported) => Err(Failure::Reported(sentence(&reported))),
    }
}

struct Decide;

impl Question for Decide {
    const NAME: &'static str = "quota";
    type Params<'a> = (&'a str, quotas::Request<'a>);
    type Raw = Result<quotas::Verdict, String>;

    fn export(exports: &Exports) -> Option<&ComponentExportIndex> {
        exports.hook(Hook::Quota)
    }
}

pub(super) fn quota(
    module: &Module,
    asking: Asking<'_>,
    request: &QuotaRequest,
    object: &serde_json::Value,
) -> Result<Option<Quota>, Failure> {
    let volume = &request.volume;
    let lists = Lists::new(lists_of_request(volume).into_iter());
    let modes = modes(&volume.claim);
    let directory: Vec<&str> = request.directory.iter().map(String::as_str).collect();
    let mut lists = lists.cutter();
    let record = quotas::Request {
        volume_name: &volume.volume_name,
        required_bytes: volume.required_bytes,
        limit_bytes: volume.limit_bytes,
        claim: claim(&volume.claim, &modes, &mut lists),
        namespace: namespace_record(&volume.namespace, &mut lists),
        parameters: lists.cut(&volume.parameters),
        directory: &directory,
        shared: request.shared,
    };

    let params = (asking.settings, record);
    match ask::<Decide>(module, asking, params, || Some(text(object)), volume.origin.as_ref())? {
        Ok(quotas::Verdict::Pass) => Ok(None),
        Ok(quotas::Verdict::On) => Ok(Some(Quota::On)),
        Ok(quotas::Verdict::Off) => Ok(Some(Quota::Off)),
        Err(reported) => Err(Failure::Reported(sentence(&reported))),
    }
}

/// The entries of every list in a question, one after the other in one allocation.
struct Lists<'a>(Vec<Entry<'a>>);

impl<'a> Lists<'a> {
    fn new(maps: impl Iterator<Item = &'a Entries> + Clone) -> Lists<'a> {
        let mut entries = Vec::with_capacity(maps.clone().map(Entries::len).sum());
        entries.extend(maps.flatten().map(|(key, value)| (&**key, &**value)));
        Lists(entries)
    }

    fn cutter(&self) -> Cutter<'_> {
        Cutter(&self.0)
    }
}

/// Cuts the lists off again, in the order in which they were put in.
struct Cutter<'a>(&'a [Entry<'a>]);

impl<'a> Cutter<'a> {
    fn cut(&mut self, map: &Entries) -> &'a [Entry<'a>] {
        let (list, rest) = self.0.split_at(map.len());
        self.0 = rest;
        debug_assert!(list.iter().map(|(key, _)| *key).eq(map.keys()), "lists are cut in the order of Lists::new");
        list
    }
}

fn lists_of_volume(volume: &VolumeFacts) -> [&Entries; 4] {
    [&volume.claim.labels, &volume.claim.annotations, &volume.class_parameters, &volume.volume_attributes]
}

fn lists_of_request(request: &NamingRequest) -> [&Entries; 5] {
    let (claim, namespace) = (&request.claim, &request.namespace);
    [&claim.labels, &claim.annotations, &namespace.labels, &namespace.annotations, &request.parameters]
}

fn modes(claim: &object::Claim) -> Vec<types::AccessMode> {
    let mode = |mode: &object::AccessMode| match mode {
        object::AccessMode::ReadWriteOnce => types::AccessMode::ReadWriteOnce,
        object::AccessMode::ReadOnlyMany => types::AccessMode::ReadOnlyMany,
        object::AccessMode::ReadWriteMany => types::AccessMode::ReadWriteMany,
        object::AccessMode::ReadWriteOncePod => types::AccessMode::ReadWriteOncePod,
    };
    claim.access_modes.iter().map(mode).collect()
}

fn owners(pod: &PodFacts) -> Vec<types::Owner<'_>> {
    let owners = pod.owners.iter().map(|owner| types::Owner {
        api_version: &owner.api_version,
        kind: &owner.kind,
        name: &owner.name,
        controller: owner.controller,
    });
    owners.collect()
}

fn pod<'a>(pod: &'a PodFacts, owners: &'a [types::Owner<'a>], lists: &mut Cutter<'a>) -> types::Pod<'a> {
    types::Pod {
        name: pod.name.as_deref(),
        generate_name: pod.generate_name.as_deref(),
        labels: lists.cut(&pod.labels),
        annotations: lists.cut(&pod.annotations),
        owners,
        service_account: &pod.service_account,
        priority_class: pod.priority_class.as_deref(),
        priority: pod.priority,
    }
}

fn namespace_record<'a>(namespace: &'a object::Namespace, lists: &mut Cutter<'a>) -> types::Namespace<'a> {
    types::Namespace {
        name: &namespace.name,
        labels: lists.cut(&namespace.labels),
        annotations: lists.cut(&namespace.annotations),
    }
}

fn claim<'a>(claim: &'a object::Claim, modes: &'a [types::AccessMode], lists: &mut Cutter<'a>) -> types::Claim<'a> {
    types::Claim {
        name: &claim.name,
        labels: lists.cut(&claim.labels),
        annotations: lists.cut(&claim.annotations),
        storage_class: claim.storage_class.as_deref(),
        requested_bytes: claim.requested_bytes,
        access_modes: modes,
    }
}

fn volume<'a>(volume: &'a VolumeFacts, modes: &'a [types::AccessMode], lists: &mut Cutter<'a>) -> types::Volume<'a> {
    types::Volume {
        name: &volume.name,
        claim: claim(&volume.claim, modes, lists),
        read_only: volume.read_only,
        class_parameters: lists.cut(&volume.class_parameters),
        volume_attributes: lists.cut(&volume.volume_attributes),
    }
}

/// The text of the raw object.
fn text(object: &serde_json::Value) -> Arc<str> {
    object.to_string().into()
}

fn change(raw: sidecar::Change) -> Result<Change, Failure> {
    checked("requests", &raw.requests, Option::as_deref)?;
    checked("limits", &raw.limits, Option::as_deref)?;
    checked("mount-options", &raw.mount_options, |change| match change {
        sidecar::OptionChange::Set(value) => value.as_deref(),
        sidecar::OptionChange::Remove => None,
    })?;
    checked("env", &raw.env, Option::as_deref)?;
    let option = |(name, change)| match change {
        sidecar::OptionChange::Set(value) => (name, OptionChange::Set(value)),
        sidecar::OptionChange::Remove => (name, OptionChange::Remove),
    };
    Ok(Change {
        requests: raw.requests,
        limits: raw.limits,
        mount_options: raw.mount_options.into_iter().map(option).collect(),
        env: raw.env,
        cache: raw.cache.map(cache).transpose()?,
    })
}

fn cache(raw: sidecar::CacheResult) -> Result<Cache, Failure> {
    match raw {
        sidecar::CacheResult::Container => Ok(Cache::Container),
        sidecar::CacheResult::EmptyDir(sidecar::EmptyDirResult { in_memory, size_limit }) => {
            short("the size limit of the cache", size_limit.as_deref().unwrap_or_default())?;
            Ok(Cache::EmptyDir { in_memory, size_limit })
        }
    }
}

fn checked<V>(list: &str, items: &[(String, V)], value: impl Fn(&V) -> Option<&str>) -> Result<(), Failure> {
    bounded(list, items)?;
    for (name, change) in items {
        short(list, name)?;
        short(list, value(change).unwrap_or_default())?;
    }
    Ok(())
}

fn bounded<T>(list: &str, items: &[T]) -> Result<(), Failure> {
    if items.len() > LIST_ITEMS {
        let items = items.len();
        return Err(Failure::Answer(format!("`{list}` has {items} items; at most {LIST_ITEMS} are allowed")));
    }
    Ok(())
}

fn short(what: &str, text: &str) -> Result<(), Failure> {
    if text.len() > VALUE_BYTES {
        let bytes = text.len();
        return Err(Failure::Answer(format!(
            "a name or value in `{what}` has {bytes} bytes; at most {VALUE_BYTES} are allowed"
        )));
    }
    Ok(())
}

fn sentence(text: &str) -> String {
    text::clean(text, SENTENCE_BYTES)
}
