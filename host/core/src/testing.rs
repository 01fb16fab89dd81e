//! Fixtures for the tests of this crate, built with adjectives: a test writes down only what it is about.
//!
//! The world that [`world`] gives has the namespace `shop`, which opted in, and the class `juicefs`. Nothing here judges: the
//! tests do.

use std::collections::BTreeMap;

use pith_proto::Quantity;
use serde_json::{Value, json};

use crate::admission::{Context, Decision, Verdict, decide};
use crate::binding::{self, Binding, Evaluate, Match, Mode, OnFailure};
use crate::mount_pod_patch;
use crate::object::{
    AccessMode, Claim, Entries, Namespace, Object, Objects, PersistentVolume, SecretRef, StorageClass,
};
use crate::policy::{
    Cache, Change, Exemption, Failure, Hook, Naming, NamingRequest, Quota, QuotaRequest, SidecarFacts, Subject,
    VolumeFacts,
};
use crate::reason::ENABLE_LABEL;
use crate::settings::{Configuration, default_claim_overrides};

pub(crate) const NAMESPACE: &str = "shop";

pub(crate) fn entries(pairs: &[(&str, &str)]) -> Entries {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

pub(crate) fn amounts(pairs: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    pairs.iter().map(|(name, amount)| ((*name).into(), amount.parse().expect(amount))).collect()
}

/// A configuration with one value of each kind and no ceilings.
pub(crate) fn configuration() -> Configuration {
    Configuration {
        driver: "csi.juicefs.com".into(),
        image: "juicefs:1".into(),
        enterprise_image: "juicefs-enterprise:1".into(),
        shape: None,
        complete_jobs: false,
        guard_image: "pith:1".into(),
        requests: amounts(&[("cpu", "1"), ("memory", "1Gi")]),
        limits: amounts(&[("cpu", "2"), ("memory", "5Gi")]),
        cache: Cache::Container,
        ceilings: BTreeMap::new(),
        claim_overrides: default_claim_overrides(),
        file_systems: Vec::new(),
        patches: Vec::new(),
        strict_templates: false,
    }
}

/// An unbound claim of the class `juicefs`.
pub(crate) fn claim(name: &str) -> Claim {
    Claim {
        namespace: NAMESPACE.into(),
        name: name.into(),
        uid: format!("uid-of-{name}"),
        storage_class: Some("juicefs".into()),
        ..Claim::default()
    }
}

/// A class of JuiceFS.
pub(crate) fn class(name: &str) -> StorageClass {
    StorageClass { name: name.into(), provisioner: "csi.juicefs.com".into(), ..StorageClass::default() }
}

/// A volume of JuiceFS.
pub(crate) fn volume(name: &str) -> PersistentVolume {
    PersistentVolume { name: name.into(), driver: Some("csi.juicefs.com".into()), ..PersistentVolume::default() }
}

pub(crate) fn secret(name: &str) -> SecretRef {
    SecretRef { namespace: "kube-system".into(), name: name.into() }
}

/// A pod in the making.
#[derive(Debug, Clone)]
pub(crate) struct PodFixture(pub(crate) Value);

/// A pod with one container, `app`.
pub(crate) fn pod() -> PodFixture {
    PodFixture(json!({"metadata": {"name": "web-0"}, "spec": {"containers": [{"name": "app", "volumeMounts": []}]}}))
}

impl PodFixture {
    /// With a claim's volume that `app` mounts.
    pub(crate) fn mounting(self, volume: &str, claim: &str) -> Self {
        let mut fixture = self.with_volume(json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}));
        push(
            &mut fixture.0["spec"]["containers"][0]["volumeMounts"],
            json!({"name": volume, "mountPath": format!("/{volume}")}),
        );
        fixture
    }

    pub(crate) fn with_volume(mut self, volume: Value) -> Self {
        push(&mut self.0["spec"]["volumes"], volume);
        self
    }

    pub(crate) fn with_init_container(mut self, container: Value) -> Self {
        push(&mut self.0["spec"]["initContainers"], container);
        self
    }

    pub(crate) fn with_container(mut self, container: Value) -> Self {
        push(&mut self.0["spec"]["containers"], container);
        self
    }

    pub(crate) fn labelled(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][key] = json!(value);
        self
    }

    pub(crate) fn annotated(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["annotations"][key] = json!(value);
        self
    }

    pub(crate) fn specifying(mut self, key: &str, value: Value) -> Self {
        self.0["spec"][key] = value;
        self
    }
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}

type Adjust = Box<dyn Fn(&SidecarFacts) -> Result<Change, Failure>>;
type Name = Box<dyn Fn(&NamingRequest, &Value) -> Result<Naming, Failure>>;
type Bound = Box<dyn Fn(&QuotaRequest) -> Result<Option<Quota>, Failure>>;

/// Everything that a decision needs beside the pod.
pub(crate) struct World {
    pub(crate) configuration: Configuration,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) objects: Objects,
    exemptions: BTreeMap<String, Result<Exemption, Failure>>,
    adjustments: BTreeMap<String, Adjust>,
    names: BTreeMap<String, Name>,
    quotas: BTreeMap<String, Bound>,
}

/// A namespace that opted in, a class, no claims, no policies.
pub(crate) fn world() -> World {
    World {
        configuration: configuration(),
        bindings: Vec::new(),
        objects: Objects::default(),
        exemptions: BTreeMap::new(),
        adjustments: BTreeMap::new(),
        names: BTreeMap::new(),
        quotas: BTreeMap::new(),
    }
    .with(Object::Namespace(Namespace {
        name: NAMESPACE.into(),
        labels: entries(&[(ENABLE_LABEL, "true")]),
        ..Namespace::default()
    }))
    .with(Object::StorageClass(class("juicefs")))
}

impl World {
    pub(crate) fn with(mut self, object: Object) -> Self {
        self.objects.insert(object);
        self
    }

    /// With an unbound claim of the class `juicefs`.
    pub(crate) fn with_claim(self, name: &str) -> Self {
        self.with(Object::Claim(claim(name)))
    }

    /// With a claim and the volume that it is bound to.
    pub(crate) fn with_bound(self, claim: Claim, volume: PersistentVolume) -> Self {
        let claim = Claim { volume_name: Some(volume.name.clone()), ..claim };
        self.with(Object::Claim(claim)).with(Object::PersistentVolume(volume))
    }

    pub(crate) fn caching_in(mut self, in_memory: bool, size_limit: Option<&str>) -> Self {
        self.configuration.cache = Cache::EmptyDir { in_memory, size_limit: size_limit.map(str::to_string) };
        self
    }

    /// With this `mountPodPatch`.
    #[track_caller]
    pub(crate) fn patching(mut self, items: Value) -> Self {
        let read = mount_pod_patch::read(&json!({"mountPodPatch": items})).expect("the items are fine");
        assert_eq!(read.ineffective, Vec::<String>::new());
        self.configuration.patches = read.patches;
        self
    }

    pub(crate) fn with_ceilings(mut self, ceilings: &[(&str, &str)]) -> Self {
        self.configuration.ceilings = amounts(ceilings);
        self
    }

    /// With a policy that gives this answer about exemption.
    pub(crate) fn exempting(mut self, name: &str, answer: Result<Exemption, Failure>) -> Self {
        self.bindings.push(binding(name, Hook::Exemption));
        self.exemptions.insert(name.into(), answer);
        self
    }

    /// With a policy that changes sidecars.
    pub(crate) fn adjusting(
        mut self,
        name: &str,
        answer: impl Fn(&SidecarFacts) -> Result<Change, Failure> + 'static,
    ) -> Self {
        self.bindings.push(binding(name, Hook::Sidecar));
        self.adjustments.insert(name.into(), Box::new(answer));
        self
    }

    /// With a policy that names directories.
    pub(crate) fn naming(
        mut self,
        name: &str,
        answer: impl Fn(&NamingRequest, &Value) -> Result<Naming, Failure> + 'static,
    ) -> Self {
        self.bindings.push(binding(name, Hook::Naming));
        self.names.insert(name.into(), Box::new(answer));
        self
    }

    /// With a policy about quotas.
    pub(crate) fn bounding(
        mut self,
        name: &str,
        answer: impl Fn(&QuotaRequest) -> Result<Option<Quota>, Failure> + 'static,
    ) -> Self {
        self.bindings.push(binding(name, Hook::Quota));
        self.quotas.insert(name.into(), Box::new(answer));
        self
    }

    /// With the last policy only watched.
    pub(crate) fn monitored(self) -> Self {
        self.bound(|binding| binding.mode = Mode::Monitor)
    }

    /// With the last policy's failures passed over.
    pub(crate) fn defaulting(self) -> Self {
        self.bound(|binding| binding.on_failure = OnFailure::Default)
    }

    /// With the last policy's binding changed.
    pub(crate) fn bound(mut self, change: impl FnOnce(&mut Binding)) -> Self {
        change(self.bindings.last_mut().expect("a policy was added"));
        self
    }

    pub(crate) fn decide(&self, pod: &Value) -> Decision {
        let mut bindings = self.bindings.clone();
        bindings.sort_by(binding::order);
        let context = Context {
            configuration: &self.configuration,
            bindings: &bindings,
            objects: &self.objects,
            request: "review",
        };
        decide(&context, NAMESPACE, pod, self)
    }

    /// The pod as the decision makes it. Panics where it is not to be injected, or where the patch does not fit.
    #[track_caller]
    pub(crate) fn inject(&self, pod: &Value) -> Value {
        match self.decide(pod).verdict {
            Verdict::Inject(patch) => {
                let mut patched = pod.clone();
                json_patch::patch(&mut patched, &patch).expect("the patch fits the pod");
                patched
            }
            other => panic!("not injected: {other:?}"),
        }
    }
}

/// A binding of the middle priority that matches everything and fails with its policy.
pub(crate) fn binding(name: &str, hook: Hook) -> Binding {
    Binding {
        name: name.into(),
        hooks: [hook].into(),
        matches: Match::default(),
        percent: 100,
        mode: Mode::Enforce,
        on_failure: OnFailure::Fail,
        priority: 0,
        shape: None,
    }
}

impl Evaluate for World {
    fn exempt(&self, binding: &Binding, _: &Subject<'_>, _: &[VolumeFacts]) -> Result<Exemption, Failure> {
        self.exemptions[&binding.name].clone()
    }

    fn adjust(
        &self,
        binding: &Binding,
        _: &Subject<'_>,
        _: &VolumeFacts,
        current: &SidecarFacts,
    ) -> Result<Change, Failure> {
        self.adjustments[&binding.name](current)
    }

    fn name(&self, binding: &Binding, request: &NamingRequest, object: &Value) -> Result<Naming, Failure> {
        self.names[&binding.name](request, object)
    }

    fn quota(&self, binding: &Binding, request: &QuotaRequest, _: &Value) -> Result<Option<Quota>, Failure> {
        self.quotas[&binding.name](request)
    }
}

/// The access modes of a volume that nobody may write to.
pub(crate) fn only_read() -> Vec<AccessMode> {
    vec![AccessMode::ReadOnlyMany]
}
