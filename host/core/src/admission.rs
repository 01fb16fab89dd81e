//! The whole decision about one pod: from the pod, the objects and the bindings to a verdict.
//!
//! ```text
//! skip? ─ claims ─ exemption policies ─ for each claim: settings ⊕ sidecar policies ⊕ ceilings ─ sidecars, guard ─ patch
//! ```
//!
//! The same input gives the same answer to the byte: a dry run, a second pass and the offline CLI are this function.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use json_patch::PatchOperation;
use serde_json::{Value, json};

use crate::binding::{self, Binding, Evaluate, Miss, Mode};
use crate::catalogue::Code;
use crate::claim_secret;
use crate::json::list;
use crate::monitor::{self, Monitored};
use crate::object::{
    AccessMode, Claim, FileSystemFacts, Namespace, Objects, PersistentVolume, Reference, StorageClass,
};
use crate::patch::{Patch, Step, contains};
use crate::pod::{ContainerList, Pod, VolumeSource};
use crate::policy::{Change, Exemption, Failure, Hook, Subject, VolumeFacts};
use crate::reason::{
    CLAIM_CLASS_PREFIX, DISABLE_LABEL, DONE_LABEL, POD_SECURITY_LABEL, PolicyFailure, Refusal, SKIPPED_ANNOTATION,
    SKIPPED_LABEL, STATUS_ANNOTATION, Skip, VCI_MOUNTS_ANNOTATION, VCI_PROPAGATION_ANNOTATION,
};
use crate::settings::{self, Configuration, Layers, Origin, Settings, Usage};
use crate::shape::{self, Shape};
use crate::sidecar::{self, Guards, Place, Sidecar};
use crate::status::{self, InjectedClaim, Recorded};

/// What a decision needs beside the pod.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The configuration of sidecars.
    pub configuration: &'a Configuration,
    /// The bindings in order (see [`binding::order`]).
    pub bindings: &'a [Binding],
    /// The objects.
    pub objects: &'a Objects,
    /// The UID of the request, of which names are made that nothing else can give. Empty where nobody asks for a pod to be made:
    /// what comes of that may be the template of many.
    pub request: &'a str,
}

/// What becomes of the pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It gets no sidecar.
    Skip {
        /// Why.
        why: Skip,
        /// The patch that writes a policy's reason onto the pod, where people and the controller look. Empty where that is there,
        /// and where the reason is a label of pod or namespace, which people see.
        patch: Vec<PatchOperation>,
    },
    /// It is patched. An empty patch means that everything is there already.
    Inject(Vec<PatchOperation>),
    /// It is refused.
    Refuse(Refusal),
    /// A policy failed, and the request with it.
    Fail(PolicyFailure),
}

impl Verdict {
    /// The stable word of its reason; none where the pod is injected.
    pub fn code(&self) -> Option<Code> {
        match self {
            Verdict::Skip { why, .. } => Some(why.code()),
            Verdict::Inject(_) => None,
            Verdict::Refuse(refusal) => Some(refusal.code()),
            Verdict::Fail(failure) => Some(failure.code()),
        }
    }

    /// What is to be changed of the pod.
    pub fn patch(&self) -> &[PatchOperation] {
        match self {
            Verdict::Inject(patch) | Verdict::Skip { patch, .. } => patch,
            Verdict::Refuse(_) | Verdict::Fail(_) => &[],
        }
    }
}

/// A verdict and what people should know about how it came to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Sentences for whoever creates the pod.
    pub warnings: Vec<String>,
    /// For each claim that gets a sidecar, where its values came from.
    pub explanations: Vec<Explanation>,
    /// What policies in monitor mode would have decided.
    pub monitored: Vec<Monitored>,
    /// What was looked up and is not there. Where one of these exists after all, the verdict may be another one.
    pub missing: BTreeSet<Reference>,
}

/// Where the values of one sidecar came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The pod's volume.
    pub volume: String,
    /// The claim.
    pub claim: String,
    /// The container.
    pub container: String,
    /// Its values with their origins; `Settings::explain` makes rows of them, which only people need.
    pub settings: Settings,
}

/// A reason to stop before the patch.
enum Stop {
    Skip(Skip),
    Refuse(Refusal),
    Fail(PolicyFailure),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refuse(refusal)
    }
}

impl From<PolicyFailure> for Stop {
    fn from(failure: PolicyFailure) -> Stop {
        Stop::Fail(failure)
    }
}

/// The objects as one decision looks them up: it keeps in mind what is not there.
struct Lookup<'a> {
    objects: &'a Objects,
    missing: BTreeSet<Reference>,
}

impl<'a> Lookup<'a> {
    fn namespace(&mut self, name: &str) -> Option<&'a Arc<Namespace>> {
        self.noted(self.objects.namespace(name), || Reference::Namespace(name.into()))
    }

    fn storage_class(&mut self, name: &str) -> Option<&'a Arc<StorageClass>> {
        self.noted(self.objects.storage_class(name), || Reference::StorageClass(name.into()))
    }

    fn persistent_volume(&mut self, name: &str) -> Option<&'a Arc<PersistentVolume>> {
        self.noted(self.objects.persistent_volume(name), || Reference::PersistentVolume(name.into()))
    }

    fn claim(&mut self, namespace: &str, name: &str) -> Option<&'a Arc<Claim>> {
        let reference = || Reference::Claim { namespace: namespace.into(), name: name.into() };
        self.noted(self.objects.claim(namespace, name), reference)
    }

    fn noted<T>(&mut self, found: Option<T>, reference: impl FnOnce() -> Reference) -> Option<T> {
        if found.is_none() {
            self.missing.insert(reference());
        }
        found
    }
}

/// A JuiceFS claim of the pod, with everything that is known of it.
struct JuiceFsClaim<'a> {
    facts: VolumeFacts,
    /// The pod's volumes that name it, with their `readOnly`.
    volumes: Vec<(&'a str, bool)>,
    storage_class: Option<Arc<StorageClass>>,
    persistent_volume: Option<Arc<PersistentVolume>>,
    injected: InjectedClaim,
}

impl JuiceFsClaim<'_> {
    /// The Secret that the sidecar takes what is secret from.
    fn secret(&self) -> String {
        self.injected.secret().map_or_else(|| sidecar::secret_name(&self.facts.claim), String::from)
    }

    /// Whether it is what a volume gets that names this claim.
    fn names(&self, claim: &str) -> bool {
        match &self.injected {
            InjectedClaim::Present(known) | InjectedClaim::Awaited { claim: known, .. } => known == claim,
            InjectedClaim::Ephemeral { .. } => false,
        }
    }
}

/// Decides about the creation of one pod in a namespace.
pub fn decide(context: &Context<'_>, namespace: &str, pod: &Value, policies: &dyn Evaluate) -> Decision {
    let mut decision = Decision {
        verdict: Verdict::Inject(Vec::new()),
        warnings: Vec::new(),
        explanations: Vec::new(),
        monitored: Vec::new(),
        missing: BTreeSet::new(),
    };
    let mut lookup = Lookup { objects: context.objects, missing: BTreeSet::new() };
    decision.verdict = match inject(context, &mut lookup, namespace, pod, policies, &mut decision) {
        Ok(patch) => Verdict::Inject(patch),
        Err(stop) => stopped(pod, stop),
    };
    decision.missing = lookup.missing;
    if !matches!(decision.verdict, Verdict::Inject(_)) {
        decision.explanations.clear();
    }
    // Two claims of one class have the same thing to say.
    let mut said = BTreeSet::new();
    decision.warnings.retain(|warning| said.insert(warning.clone()));
    decision
}

fn stopped(pod: &Value, stop: Stop) -> Verdict {
    match stop {
        Stop::Skip(why) => Verdict::Skip { patch: note_skip(pod, &why), why },
        Stop::Refuse(refusal) => Verdict::Refuse(refusal),
        Stop::Fail(failure) => Verdict::Fail(failure),
    }
}

/// A question that there could be, and why it is not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting<'a> {
    /// Who would be asked.
    pub binding: &'a Binding,
    /// What.
    pub hook: Hook,
    /// About which claim of a pod; none where it is about all of it.
    pub claim: Option<String>,
    /// Absent where it is asked.
    pub miss: Option<Miss>,
}

/// What the bindings are asked about a pod, in their order, and what not; or what is decided before any is. No policy is asked.
pub fn meetings<'a>(context: &Context<'a>, namespace: &str, object: &Value) -> Result<Vec<Meeting<'a>>, Verdict> {
    let stopped = |stop| stopped(object, stop);
    let pod = Pod::read(object).map_err(|refusal| stopped(refusal.into()))?;
    let mut lookup = Lookup { objects: context.objects, missing: BTreeSet::new() };
    let found = subject(context, &mut lookup, namespace, pod, &Recorded::of(pod));
    let (subject, claims) = found.map_err(stopped)?;
    let mut meetings = Vec::new();
    for binding in context.bindings {
        if binding.hooks.contains(&Hook::Exemption) {
            let miss = binding.meets_pod(&subject, claims.iter().map(|claim| &claim.facts)).err();
            meetings.push(Meeting { binding, hook: Hook::Exemption, claim: None, miss });
        }
        for claim in claims.iter().filter(|_| binding.hooks.contains(&Hook::Sidecar)) {
            let miss = binding.meets_pod(&subject, [&claim.facts].into_iter()).err();
            let claim = Some(claim.facts.claim.name.clone());
            meetings.push(Meeting { binding, hook: Hook::Sidecar, claim, miss });
        }
    }
    Ok(meetings)
}

/// What policies are told of a pod that is to be injected, and its claims.
fn subject<'a>(
    context: &Context<'_>,
    lookup: &mut Lookup<'_>,
    namespace: &str,
    pod: Pod<'a>,
    recorded: &Recorded,
) -> Result<(Subject<'a>, Vec<JuiceFsClaim<'a>>), Stop> {
    let namespace = opted_in(lookup, namespace, pod)?;
    let claims = juicefs_claims(context, lookup, &namespace.name, pod, recorded)?;
    if claims.is_empty() {
        return Err(Stop::Skip(Skip::NoJuiceFsClaims));
    }
    Ok((Subject { pod: pod.facts(), namespace, object: pod.object }, claims))
}

fn inject(
    context: &Context<'_>,
    lookup: &mut Lookup<'_>,
    namespace: &str,
    object: &Value,
    policies: &dyn Evaluate,
    decision: &mut Decision,
) -> Result<Vec<PatchOperation>, Stop> {
    let pod = Pod::read(object)?;
    let recorded = Recorded::of(pod);
    let (subject, claims) = subject(context, lookup, namespace, pod, &recorded)?;
    exempt(context.bindings, &subject, &claims, policies, decision)?;
    // After the exemption: a pod that is left alone may have whatever it likes.
    check_pod(pod)?;
    let of_cluster = if context.objects.lacks_native_sidecars { Shape::Container } else { Shape::NativeSidecar };
    let of_binding = {
        let volumes = claims.iter().map(|claim| &claim.facts);
        binding::shape(context.bindings, &subject, volumes, &mut decision.warnings)?
    };
    let on_nodes = of_binding.or(context.configuration.shape).unwrap_or(of_cluster);
    let shape = Shape::of(on_nodes, &subject.namespace, pod)?;

    let mut sidecars = Vec::with_capacity(claims.len());
    let mut notes = BTreeSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let mut settings = settle(context, pod, &subject, claim, policies, decision)?;
        if !shape.has_node() {
            settings.leave_node(&mut decision.warnings);
        }
        notes.extend(settings.notes.iter().cloned());
        let secret = claim.secret();
        let (name, volume) = (&*claim.facts.claim.name, &*claim.facts.name);
        let sidecar = sidecar::build(&settings, Place { shape, secret: &secret, claim: name, volume, index });
        decision.explanations.push(Explanation {
            volume: claim.facts.name.clone(),
            claim: claim.facts.claim.name.clone(),
            container: sidecar.container_name.clone(),
            settings,
        });
        sidecars.push(sidecar);
    }
    let finishes = context.configuration.complete_jobs;
    let mut guards = sidecar::guards(shape, pod, &context.configuration.guard_image, &sidecars, finishes);
    if shape == Shape::Container && pod.runs_to_completion() && !finishes {
        let warning = "the JuiceFS client is a container like the others here, and keeps the pod from completing: \
                       `sidecar.completeJobs` lets Pith end it, or set the label disable.sidecar.juicefs.com/inject";
        decision.warnings.push(warning.into());
    }
    leave_port_names(pod, &mut sidecars);
    let token = pod.token_mount();
    for container in sidecars.iter_mut().flat_map(Sidecar::containers_mut).chain(guards.containers_mut()) {
        share_resources(pod, container);
        // The API server would give it to every container that lacks it, and then ask all webhooks once more.
        token.into_iter().for_each(|token| sidecar::mount(container, token.clone()));
    }
    if ["limits", "requests"].iter().any(|kind| pod.has_resources(kind)) {
        let warning =
            "the pod has resources for all its containers together: the JuiceFS client asks for none of its own";
        decision.warnings.push(warning.into());
    }
    if shape.has_node() {
        decision.warnings.extend(pod_security(&subject.namespace));
    }
    let status = status::write(claims.iter().map(|claim| &claim.injected).zip(&sidecars), &guards, &notes);
    Ok(patch(pod, (shape, status), &claims, &sidecars, &guards, &recorded)?)
}

/// A warning where Pod Security admission is about to refuse the pod: its own sentence says what is wrong with our containers, and not
/// why they are there.
fn pod_security(namespace: &Namespace) -> Option<String> {
    let level = namespace.labels.get(POD_SECURITY_LABEL).filter(|level| *level != "privileged")?;
    Some(format!(
        "JuiceFS is mounted by a privileged sidecar, which the label {POD_SECURITY_LABEL}={level} of namespace `{}` refuses: an \
         administrator can set it to `privileged`",
        namespace.name
    ))
}

/// Keeps a container within what the pod has for all of them together: the API server refuses a pod whose containers ask for more.
/// Where the pod has a limit, the container needs none; of anything else that the API server counts, it asks for nothing.
fn share_resources(pod: Pod<'_>, container: &mut Value) {
    // As good as always.
    if pod.spec.get("resources").is_none() {
        return;
    }
    let of_pod = |kind: &str, name: &str| pod.spec["resources"][kind].get(name).is_some();
    // With any limit of its own, a pod is taken to ask for as much of these as its containers do, but not as ours.
    let limited = pod.has_resources("limits");
    let counted = |name: &str| of_pod("requests", name) || limited && matches!(name, "cpu" | "memory");
    let Some(own) = container.get_mut("resources").and_then(Value::as_object_mut) else { return };
    for amounts in own.values_mut().filter_map(Value::as_object_mut) {
        amounts.retain(|name, _| !of_pod("limits", name));
    }
    let names: Vec<String> = own.values().filter_map(Value::as_object).flat_map(|it| it.keys().cloned()).collect();
    for name in names.into_iter().filter(|name| counted(name)) {
        // A zero, because the API server takes a limit for a request where there is none.
        own.entry("requests").or_insert_with(|| json!({}))[&name] = json!("0");
    }
    // The API server keeps no empty object; with one here, a second pass would see a change.
    own.retain(|_, amounts| *amounts != json!({}));
}

/// Takes from the clients' ports the names that a container of the application has for one of its own. A Service or a monitor that
/// looks for a port by its name would find both, and ours first where the other is a native sidecar's.
fn leave_port_names(pod: Pod<'_>, sidecars: &mut [Sidecar]) {
    let theirs = pod.all_containers().map(|(.., container)| container);
    let theirs = theirs.filter(|container| sidecars.iter().all(|sidecar| container["name"] != sidecar.container_name));
    let taken: Vec<&Value> = theirs.flat_map(|container| list(&container["ports"])).map(|port| &port["name"]).collect();
    let ports = sidecars.iter_mut().filter_map(|sidecar| sidecar.container.get_mut("ports")?.as_array_mut());
    for port in ports.flatten().filter(|port| taken.contains(&&port["name"])) {
        port.as_object_mut().and_then(|port| port.remove("name"));
    }
}

/// The namespace, if the pod is to be looked at further.
fn opted_in(lookup: &mut Lookup<'_>, namespace: &str, pod: Pod<'_>) -> Result<Arc<Namespace>, Stop> {
    if !pod.names_claims() {
        return Err(Stop::Skip(Skip::NoClaims));
    }
    if pod.label(DISABLE_LABEL) == Some("true") {
        return Err(Stop::Skip(Skip::DisabledByLabel));
    }
    let known = lookup.namespace(namespace).ok_or_else(|| Refusal::NamespaceUnknown(namespace.into()))?;
    if !claim_secret::opted_in(known) {
        return Err(Stop::Skip(Skip::NamespaceNotEnabled));
    }
    Ok(known.clone())
}

/// The pod's JuiceFS claims, each once, in the order of the pod's volumes.
fn juicefs_claims<'a>(
    context: &Context<'_>,
    lookup: &mut Lookup<'_>,
    namespace: &str,
    pod: Pod<'a>,
    recorded: &Recorded,
) -> Result<Vec<JuiceFsClaim<'a>>, Refusal> {
    let driver = &*context.configuration.driver;
    let mut found: Vec<JuiceFsClaim<'a>> = Vec::new();
    // A cache that an earlier pass injected may be a claim too.
    let is_ours = |volume: &str| sidecar::is_cache(volume) && recorded.names.contains(volume);
    for (volume, source) in pod.volumes().filter(|(volume, _)| !is_ours(volume)) {
        let juicefs = match source {
            VolumeSource::Claim { name, read_only } => {
                if let Some(known) = found.iter_mut().find(|known| known.names(name)) {
                    known.volumes.push((volume, read_only));
                    continue;
                }
                let (claim, injected) = match lookup.claim(namespace, name) {
                    Some(claim) => (claim.clone(), InjectedClaim::Present(name.into())),
                    None => {
                        let claim = awaited(lookup, namespace, pod, volume, name)?;
                        let secret = pod_secret(
                            context,
                            recorded,
                            volume,
                            |known| matches!(known, InjectedClaim::Awaited { claim: known, .. } if known == name),
                        );
                        (claim, InjectedClaim::Awaited { claim: name.into(), secret })
                    }
                };
                juicefs_claim(driver, lookup, (volume, read_only), claim, injected)?
            }
            VolumeSource::Ephemeral { template } => {
                let Some(claim) = ephemeral(driver, lookup, namespace, pod, volume, template)? else { continue };
                let secret = pod_secret(
                    context,
                    recorded,
                    volume,
                    |known| matches!(known, InjectedClaim::Ephemeral { volume: known, .. } if known == volume),
                );
                let injected = InjectedClaim::Ephemeral { volume: volume.into(), secret };
                juicefs_claim(driver, lookup, (volume, false), claim, injected)?
            }
            VolumeSource::InlineCsi { driver: inline } if inline == driver => {
                return Err(Refusal::UnsupportedVolume { volume: volume.into(), form: "an inline CSI volume" });
            }
            VolumeSource::InlineCsi { .. } | VolumeSource::Other => None,
        };
        found.extend(juicefs);
    }
    for claim in &mut found {
        claim.facts.read_only |= claim.volumes.iter().all(|(_, read_only)| *read_only);
    }
    Ok(found)
}

/// A claim that is to come, as far as the pod says what it will be: of which class. What the claim's volume says counts then.
fn awaited(
    lookup: &mut Lookup<'_>,
    namespace: &str,
    pod: Pod<'_>,
    volume: &str,
    claim: &str,
) -> Result<Arc<Claim>, Refusal> {
    let annotation = format!("{CLAIM_CLASS_PREFIX}{volume}");
    let class = pod.annotation(&annotation).ok_or_else(|| Refusal::ClaimNotFound {
        volume: volume.into(),
        namespace: namespace.into(),
        claim: claim.into(),
    })?;
    if lookup.storage_class(class).is_none() {
        return Err(Refusal::Setting {
            origin: "the pod".into(),
            field: annotation,
            value: class.into(),
            why: "there is no StorageClass of that name (or it is not known to Pith yet)".into(),
        });
    }
    Ok(Arc::new(Claim {
        namespace: namespace.into(),
        name: claim.into(),
        storage_class: Some(class.into()),
        ..Claim::default()
    }))
}

/// The claim that Kubernetes will make for a generic ephemeral volume; none where its class is not of the driver, and whatever is
/// wrong with it is somebody else's business.
fn ephemeral(
    driver: &str,
    lookup: &mut Lookup<'_>,
    namespace: &str,
    pod: Pod<'_>,
    volume: &str,
    template: &Value,
) -> Result<Option<Arc<Claim>>, Refusal> {
    // An empty name declines a class; none at all is the default's, which the claim gets when it is made.
    let class = match template["spec"]["storageClassName"].as_str() {
        Some("") => None,
        Some(name) => lookup.storage_class(name),
        None => lookup.objects.default_storage_class(),
    };
    let Some(class) = class.filter(|class| class.provisioner == driver) else { return Ok(None) };
    let metadata = &pod.object["metadata"];
    // The API server completes the pod's name when the webhooks are through.
    let name = match metadata["name"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => name.to_string(),
        None => format!("{}*", metadata["generateName"].as_str().unwrap_or_default()),
    };
    let claim = Claim::read(template).map_err(|problem| {
        Refusal::Malformed(format!("the volumeClaimTemplate of its volume `{volume}`: {problem}"))
    })?;
    let name = status::ephemeral_claim(&name, volume);
    let storage_class = Some(class.name.clone());
    Ok(Some(Arc::new(Claim { namespace: namespace.into(), name, storage_class, ..claim })))
}

/// The name of the Secret of the pod's own for a claim that is not there yet: what an earlier pass chose, else a new one. What was
/// chosen without a request is chosen again, because a template may have given it to many pods.
fn pod_secret(
    context: &Context<'_>,
    recorded: &Recorded,
    volume: &str,
    is_same: impl Fn(&InjectedClaim) -> bool,
) -> String {
    let of_template = sidecar::pod_secret_name("", volume);
    let known = recorded.claims.iter().find(|claim| is_same(claim)).and_then(InjectedClaim::secret);
    let known = known.filter(|secret| *secret != of_template);
    known.map_or_else(|| sidecar::pod_secret_name(context.request, volume), String::from)
}

/// A claim with what is known of it; none where it is not for JuiceFS.
fn juicefs_claim<'a>(
    driver: &str,
    lookup: &mut Lookup<'_>,
    (volume, read_only): (&'a str, bool),
    claim: Arc<Claim>,
    injected: InjectedClaim,
) -> Result<Option<JuiceFsClaim<'a>>, Refusal> {
    let persistent_volume = match &claim.volume_name {
        Some(bound) => Some(lookup.persistent_volume(bound).ok_or_else(|| Refusal::PersistentVolumeUnknown {
            claim: claim.name.clone(),
            persistent_volume: bound.clone(),
        })?),
        None => None,
    };
    // A bound claim is what its volume is, whatever its class.
    if persistent_volume.is_some_and(|bound| bound.driver.as_deref() != Some(driver)) {
        return Ok(None);
    }
    // An empty name declines a class.
    let class = claim.storage_class.as_deref().filter(|class| !class.is_empty());
    let storage_class = class.and_then(|class| lookup.storage_class(class));
    // One that is not bound yet is what its class will make of it, so that a claim that waits for its first consumer can be used.
    if persistent_volume.is_none() && storage_class.is_none_or(|class| class.provisioner != driver) {
        return Ok(None);
    }
    let never_written = AccessMode::only_read(&claim.access_modes)
        || persistent_volume.is_some_and(|bound| bound.read_only || AccessMode::only_read(&bound.access_modes));
    Ok(Some(JuiceFsClaim {
        facts: VolumeFacts {
            name: volume.into(),
            claim,
            read_only: never_written,
            class_parameters: storage_class.map(|class| class.parameters.clone()).unwrap_or_default(),
            volume_attributes: persistent_volume.map(|bound| bound.volume_attributes.clone()).unwrap_or_default(),
        },
        volumes: vec![(volume, read_only)],
        storage_class: storage_class.cloned(),
        persistent_volume: persistent_volume.cloned(),
        injected,
    }))
}

/// Refuses what a FUSE sidecar cannot live with.
fn check_pod(pod: Pod<'_>) -> Result<(), Refusal> {
    if pod.spec["hostUsers"] == false {
        let why = "mounting with FUSE for the other containers is not possible in a user namespace";
        return Err(Refusal::UnsupportedPod { what: "hostUsers: false", why });
    }
    if pod.spec["os"]["name"] == "windows" {
        return Err(Refusal::UnsupportedPod { what: "os.name: windows", why: "JuiceFS is mounted with Linux FUSE" });
    }
    Ok(())
}

/// Asks the exemption policies: any deny, else any skip, else go on.
fn exempt(
    bindings: &[Binding],
    subject: &Subject<'_>,
    claims: &[JuiceFsClaim<'_>],
    policies: &dyn Evaluate,
    decision: &mut Decision,
) -> Result<(), Stop> {
    let volumes: Vec<VolumeFacts> = claims.iter().map(|claim| claim.facts.clone()).collect();
    let (mut skip, mut deny, mut monitored) = (None, None, Vec::new());
    for chosen in binding::for_exemption(bindings, subject, &volumes) {
        let binding = chosen.binding;
        let ask = || chosen.ask(policies, |it| policies.exempt(it, subject, &volumes));
        if binding.mode == Mode::Monitor {
            monitored.push((binding, ask()));
            continue;
        }
        // Nothing that counts comes after a denial.
        if deny.is_some() {
            continue;
        }
        let answer = binding::enforced(binding, ask(), &mut decision.warnings)?;
        match answer {
            None | Some(Exemption::Inject) => {}
            Some(Exemption::Skip(reason)) => {
                skip.get_or_insert((binding, reason));
            }
            Some(Exemption::Deny(sentence)) => deny = Some((binding, sentence)),
        }
    }
    if !monitored.is_empty() {
        let enforced = match (&deny, &skip) {
            (Some((_, sentence)), _) => Exemption::Deny(sentence.clone()),
            (None, Some((_, reason))) => Exemption::Skip(reason.clone()),
            (None, None) => Exemption::Inject,
        };
        let enforced = monitor::of_exemption(&enforced);
        decision.monitored.extend(monitored.into_iter().map(|(binding, answer)| {
            let fields = answer.map(|exemption| Some(monitor::of_exemption(&exemption)));
            Monitored::of(binding, Hook::Exemption, None, &enforced, fields)
        }));
    }
    match (deny, skip) {
        (Some((binding, sentence)), _) => {
            Err(Stop::Refuse(Refusal::Policy { binding: binding.name.clone(), sentence }))
        }
        (None, Some((binding, reason))) => Err(Stop::Skip(Skip::Policy { binding: binding.name.clone(), reason })),
        (None, None) => Ok(()),
    }
}

/// The settings of one claim's sidecar: the layers, then the policies in order, then the ceilings.
fn settle(
    context: &Context<'_>,
    pod: Pod<'_>,
    subject: &Subject<'_>,
    claim: &JuiceFsClaim<'_>,
    policies: &dyn Evaluate,
    decision: &mut Decision,
) -> Result<Settings, Stop> {
    let warnings = &mut decision.warnings;
    let layers = Layers {
        claim: &claim.facts.claim,
        storage_class: claim.storage_class.as_deref(),
        persistent_volume: claim.persistent_volume.as_deref(),
        file_system: of_file_system(context.objects, claim),
        usage: Usage { pod, volumes: &claim.volumes },
    };
    let mut settings = settings::resolve(context.configuration, &layers, claim.facts.read_only, warnings)?;
    for chosen in binding::for_sidecar(context.bindings, subject, &claim.facts) {
        let binding = chosen.binding;
        let answer = chosen.ask(policies, |it| policies.adjust(it, subject, &claim.facts, &settings.facts()));
        // A change that cannot be applied is the same to `onFailure` as one that was never answered.
        let applied = answer.and_then(|change| apply(&settings, &change, binding));
        if binding.mode == Mode::Monitor {
            let fields = applied.map(|next| next.map(|next| monitor::of_settings(&next)));
            let (enforced, name) = (monitor::of_settings(&settings), Some(&*claim.facts.claim.name));
            decision.monitored.push(Monitored::of(binding, Hook::Sidecar, name, &enforced, fields));
            continue;
        }
        if let Some(Some(next)) = binding::enforced(binding, applied, warnings)? {
            settings = next;
        }
    }
    if subject.object["spec"]["hostNetwork"] == true && !settings.is_enterprise() {
        // On the node's network a fixed port would be taken by the first such pod: the client picks a free one.
        settings.default_option("metrics", "0.0.0.0:0", &Origin::Pod);
    }
    settings.apply_ceilings(&context.configuration.ceilings);
    settings.fit_buffer_size(warnings);
    Ok(settings)
}

/// What is known of a claim's file system.
fn of_file_system<'a>(objects: &'a Objects, claim: &JuiceFsClaim<'_>) -> Option<&'a Arc<FileSystemFacts>> {
    objects.file_system(settings::secret(claim.persistent_volume.as_deref(), claim.storage_class.as_deref())?)
}

/// The settings after a change; none where the policy changes nothing.
fn apply(settings: &Settings, change: &Change, binding: &Binding) -> Result<Option<Settings>, Failure> {
    if *change == Change::default() {
        return Ok(None);
    }
    settings.changed(change, &binding.name).map(Some)
}

/// The operations that bring the pod to what it should be. Empty where it already is.
fn patch(
    pod: Pod<'_>,
    (shape, status): (Shape, Value),
    claims: &[JuiceFsClaim<'_>],
    sidecars: &[Sidecar],
    guards: &Guards,
    recorded: &Recorded,
) -> Result<Vec<PatchOperation>, Refusal> {
    let mut patch = Patch::default();
    patch_metadata(&mut patch, pod, shape, sidecars, &status);
    for volume in sidecars.iter().flat_map(|sidecar| &sidecar.volumes).chain(&guards.volumes) {
        patch_volume(&mut patch, pod, volume, &recorded.names)?;
    }
    patch_mounts(&mut patch, pod, shape, claims, sidecars)?;
    // Last, because inserting at the front moves the positions that the mounts were found at.
    let preparations = sidecars.iter().filter_map(|sidecar| sidecar.preparation.as_ref());
    let (init, main): (Vec<&Value>, Vec<&Value>) = if shape == Shape::Container {
        let clients = sidecars.iter().map(|sidecar| &sidecar.container);
        (guards.init.iter().chain(preparations).collect(), guards.guard.iter().chain(clients).collect())
    } else {
        let clients = sidecars.iter().flat_map(|it| it.preparation.iter().chain([&it.container]));
        (guards.guard.iter().chain(clients).collect(), Vec::new())
    };
    patch_containers(&mut patch, pod, ContainerList::Init, &init, &recorded.names)?;
    patch_containers(&mut patch, pod, ContainerList::Main, &main, &recorded.names)?;
    Ok(patch.into_operations())
}

fn patch_metadata(patch: &mut Patch, pod: Pod<'_>, shape: Shape, sidecars: &[Sidecar], status: &Value) {
    annotate(patch, pod.object, "labels", &[(DONE_LABEL, "true".to_string())]);
    let mut annotations = vec![(STATUS_ANNOTATION, status.to_string())];
    if shape == Shape::Vci {
        let present = pod.annotation(VCI_MOUNTS_ANNOTATION);
        let ours = sidecars.iter().map(|it| (it.container_name.as_str(), it.mount_path.as_str()));
        annotations.push((VCI_PROPAGATION_ANNOTATION, VCI_PROPAGATION_ANNOTATION.into()));
        annotations.push((VCI_MOUNTS_ANNOTATION, shape::vci_mounts(present, ours)));
    }
    annotate(patch, pod.object, "annotations", &annotations);
}

/// Writes a policy's reason into the pod's annotations, and the label by which the controller finds it: API servers look for labels
/// only.
fn note_skip(pod: &Value, why: &Skip) -> Vec<PatchOperation> {
    let mut patch = Patch::default();
    if let Skip::Policy { .. } = why {
        annotate(&mut patch, pod, "labels", &[(SKIPPED_LABEL, "true".to_string())]);
        annotate(&mut patch, pod, "annotations", &[(SKIPPED_ANNOTATION, why.code().behind(why.sentence()))]);
    }
    patch.into_operations()
}

/// Sees to entries of the pod's metadata.
fn annotate(patch: &mut Patch, pod: &Value, key: &str, entries: &[(&str, String)]) {
    let metadata = pod.get("metadata");
    if metadata.is_none() && patch.is_empty() {
        patch.add(&[Step::Key("metadata")], json!({}));
    }
    let parent = metadata.and_then(|metadata| metadata.get(key));
    patch.ensure_entries(&[Step::Key("metadata"), Step::Key(key)], parent, entries);
}

fn patch_volume(patch: &mut Patch, pod: Pod<'_>, volume: &Value, recorded: &BTreeSet<String>) -> Result<(), Refusal> {
    let name = volume["name"].as_str().unwrap_or_default();
    let path = [Step::Key("spec"), Step::Key("volumes")];
    match pod.volume(name) {
        None => patch.add(&[&path[..], &[Step::End]].concat(), volume.clone()),
        Some((_, present)) if contains(present, volume) => {}
        Some((index, _)) if recorded.contains(name) => {
            patch.replace(&[&path[..], &[Step::At(index)]].concat(), volume.clone());
        }
        Some(_) => {
            return Err(Refusal::ForeignVolume { volume: name.into() });
        }
    }
    Ok(())
}

/// Points every mount of a claim's volume to the directory that the sidecar fills. The volume itself stays in the pod under
/// its own name, so that the claim stays protected and the scheduler sees its consumer.
fn patch_mounts(
    patch: &mut Patch,
    pod: Pod<'_>,
    shape: Shape,
    claims: &[JuiceFsClaim<'_>],
    sidecars: &[Sidecar],
) -> Result<(), Refusal> {
    // A map, because a pod may have thousands of volumes and of mounts.
    let mut targets = BTreeMap::new();
    for (claim, sidecar) in claims.iter().zip(sidecars) {
        for (volume, read_only) in &claim.volumes {
            targets.entry(*volume).or_insert((sidecar, *read_only || claim.facts.read_only));
        }
    }
    for (containers, index, container) in pod.all_containers() {
        let raw = list(&container["volumeDevices"]).iter().filter_map(|device| device["name"].as_str());
        if let Some(volume) = raw.into_iter().find(|name| targets.contains_key(name)) {
            return Err(Refusal::UnsupportedVolume { volume: volume.into(), form: "used as a raw block device" });
        }
        for (place, mount) in list(&container["volumeMounts"]).iter().enumerate() {
            let Some((sidecar, read_only)) = mount["name"].as_str().and_then(|name| targets.get(name)) else {
                continue;
            };
            if shape == Shape::Container && containers == ContainerList::Init {
                let why = "there the client is a container like the application's, and starts after the init containers; native \
                           sidecars, which Kubernetes has from 1.29 on, start before them";
                return Err(Refusal::UnsupportedPod { what: "an init container that mounts a JuiceFS claim", why });
            }
            if matches!(mount["recursiveReadOnly"].as_str(), Some("Enabled" | "IfPossible")) {
                let why =
                    "Kubernetes allows such a mount no mount propagation, without which it would not see the client's";
                return Err(Refusal::UnsupportedPod { what: "`recursiveReadOnly` on a JuiceFS mount", why });
            }
            let path = [
                Step::Key("spec"),
                Step::Key(containers.key()),
                Step::At(index),
                Step::Key("volumeMounts"),
                Step::At(place),
            ];
            patch.replace(&[&path[..], &[Step::Key("name")]].concat(), json!(sidecar.mount_volume));
            // Bidirectional includes HostToContainer; without either, the container would see the bare directory once the
            // client was restarted.
            let sees = matches!(mount["mountPropagation"].as_str(), Some("HostToContainer" | "Bidirectional"));
            if !sees && shape.propagates() {
                patch.add(&[&path[..], &[Step::Key("mountPropagation")]].concat(), json!("HostToContainer"));
            }
            if *read_only && mount["readOnly"] != true {
                patch.add(&[&path[..], &[Step::Key("readOnly")]].concat(), json!(true));
            }
        }
    }
    Ok(())
}

/// Whether a container is still what Pith made. `args` would stand behind its argv, so they are no mere addition.
fn is_intact(present: &Value, wanted: &Value) -> bool {
    list(&present["args"]).is_empty() && contains(present, wanted)
}

/// Puts these containers to the front of a list in this order. The kubelet stops init containers in the opposite one.
fn patch_containers(
    patch: &mut Patch,
    pod: Pod<'_>,
    containers: ContainerList,
    ours: &[&Value],
    recorded: &BTreeSet<String>,
) -> Result<(), Refusal> {
    if ours.is_empty() {
        return Ok(());
    }
    let path = [Step::Key("spec"), Step::Key(containers.key())];
    if !pod.spec[containers.key()].is_array() {
        patch.add(&path, json!([]));
    }
    // The names as the operations so far leave them: each missing one goes behind the one before it, the first to the front.
    let mut names: Vec<&str> =
        pod.containers(containers).iter().map(|it| it["name"].as_str().unwrap_or_default()).collect();
    let mut next = 0;
    for wanted in ours.iter().copied() {
        let name = wanted["name"].as_str().unwrap_or_default();
        let place = names.iter().position(|known| *known == name).unwrap_or(next);
        let at = [&path[..], &[Step::At(place)]].concat();
        match pod.all_containers().find(|(_, _, container)| container["name"] == name) {
            None => {
                names.insert(place, name);
                patch.add(&at, wanted.clone());
            }
            Some((list, _, present)) if list == containers && is_intact(present, wanted) => {}
            Some((list, ..)) if list == containers && recorded.contains(name) => patch.replace(&at, wanted.clone()),
            Some(_) => return Err(Refusal::ForeignContainer { container: name.into() }),
        }
        next = place + 1;
    }
    Ok(())
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
