//! What policies look up where their binding grants it: trimmed objects, out of those that the decision itself reads.
//!
//! Of what is in namespaces, and of namespaces themselves, there is for a policy only what its binding selects; what it does not select
//! cannot be told from what is not there. Secrets are none of the kinds, and references to them are left out of the others.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::object::{
    AccessMode, Claim, Entries, Kind, LAST_APPLIED, Namespace, Objects, PersistentVolume, StorageClass,
};
use crate::selector::LabelSelector;

/// Attributes with this prefix are for the CSI sidecars, and some of them name Secrets.
const SIDECAR_PREFIX: &str = "csi.storage.k8s.io/";

/// What a policy looks up: one object, or all that have these labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What kind of object.
    pub kind: Kind,
    /// Where, for what is in a namespace. PersistentVolumes are where their claims are.
    pub namespace: Option<String>,
    /// Which one; of a PersistentVolume the name of its claim. Absent for a list.
    pub name: Option<String>,
    /// Labels that each of a list must have; of a PersistentVolume those of its claim.
    pub labels: Entries,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.name())?;
        if let Some(name) = &self.name {
            write!(f, " `{name}`")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, " in `{namespace}`")?;
        }
        for (place, (key, value)) in self.labels.iter().enumerate() {
            write!(f, "{} `{key}={value}`", if place == 0 { " with" } else { "," })?;
        }
        Ok(())
    }
}

/// What the look-ups of one call may still take. Counted, and not measured in time: the same call overruns it everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    questions: usize,
    objects: usize,
    bytes: usize,
}

/// More was looked up than a call may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the budget of look-ups is used up")]
pub struct Overrun;

impl Budget {
    /// That of one call. The deadline does not cut the host while it looks, and what is looked up is recorded: a list of 10 000 takes
    /// a few milliseconds, and 128 KiB are some hundred claims.
    pub fn of_call() -> Budget {
        Budget { questions: 1000, objects: 10_000, bytes: 128 << 10 }
    }

    /// Takes off one question.
    pub fn ask(&mut self, question: &Question) -> Result<(), Overrun> {
        take(&mut self.questions, 1)?;
        let parts = question.namespace.iter().chain(&question.name);
        let labels = question.labels.iter().flat_map(|(key, value)| [key, value]);
        take(&mut self.bytes, parts.chain(labels).map(String::len).sum())
    }

    /// Takes off what is answered.
    pub fn tell(&mut self, text: &str) -> Result<(), Overrun> {
        take(&mut self.bytes, text.len())
    }

    fn look_at_one(&mut self) -> Result<(), Overrun> {
        take(&mut self.objects, 1)
    }
}

fn take(left: &mut usize, wanted: usize) -> Result<(), Overrun> {
    *left = left.checked_sub(wanted).ok_or(Overrun)?;
    Ok(())
}

/// The JSON texts of what there is, sorted by name, for a policy whose binding selects these namespaces. The question itself is taken
/// off the budget before.
pub fn answer(
    objects: &Objects,
    selected: &LabelSelector,
    question: &Question,
    budget: &mut Budget,
) -> Result<Vec<String>, Overrun> {
    let wanted = |labels: &Entries| question.labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    let name = question.name.as_deref();
    match question.kind {
        Kind::Namespace => {
            let found = match name {
                Some(name) => one(objects.namespace(name), budget)?,
                None => several(objects.namespaces(), budget, |it| wanted(&it.labels), |it| &it.name)?,
            };
            texts(found.into_iter().filter(|it| selected.matches(&it.labels)).map(namespace), budget)
        }
        Kind::StorageClass => {
            let found = match name {
                Some(name) => one(objects.storage_class(name), budget)?,
                None => several(objects.storage_classes(), budget, |_| true, |it| &it.name)?,
            };
            texts(found.into_iter().map(storage_class), budget)
        }
        kind @ (Kind::Claim | Kind::PersistentVolume) => {
            let within = question.namespace.as_deref().unwrap_or_default();
            if !objects.namespace(within).is_some_and(|it| selected.matches(&it.labels)) {
                return Ok(Vec::new());
            }
            let claims = match name {
                Some(name) => one(objects.claim(within, name), budget)?,
                None => several(objects.claims_in(within), budget, |it| wanted(&it.labels), |it| &it.name)?,
            };
            let value = |it| if kind == Kind::Claim { Some(claim(it)) } else { volume_of(objects, it) };
            texts(claims.into_iter().filter_map(value), budget)
        }
    }
}

/// One after the other, so that no more is made than the budget has room for.
fn texts(values: impl Iterator<Item = Value>, budget: &mut Budget) -> Result<Vec<String>, Overrun> {
    let text = |value: Value| {
        let text = value.to_string();
        budget.tell(&text).map(|()| text)
    };
    values.map(text).collect()
}

fn one<'a, T>(found: Option<&'a Arc<T>>, budget: &mut Budget) -> Result<Vec<&'a T>, Overrun> {
    budget.look_at_one()?;
    Ok(found.map(|it| &**it).into_iter().collect())
}

fn several<'a, T>(
    all: impl Iterator<Item = &'a Arc<T>>,
    budget: &mut Budget,
    wanted: impl Fn(&T) -> bool,
    name: impl Fn(&T) -> &str,
) -> Result<Vec<&'a T>, Overrun> {
    let mut found = Vec::new();
    for it in all {
        budget.look_at_one()?;
        if wanted(it) {
            found.push(&**it);
        }
    }
    found.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    Ok(found)
}

fn namespace(it: &Namespace) -> Value {
    let Namespace { name, labels, annotations } = it;
    let metadata = json!({"name": name, "labels": map(labels), "annotations": map(annotations)});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
}

fn storage_class(it: &StorageClass) -> Value {
    let annotations = it.default_since.as_ref().map(|_| ("storageclass.kubernetes.io/is-default-class", "true"));
    let annotations: Map<String, Value> = annotations.into_iter().map(|(key, it)| (key.into(), it.into())).collect();
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": it.name, "annotations": annotations},
        "provisioner": it.provisioner, "parameters": map(&it.parameters), "mountOptions": it.mount_options,
    })
}

fn claim(it: &Claim) -> Value {
    let mut spec = json!({"accessModes": modes(&it.access_modes)});
    if let Some(class) = &it.storage_class {
        spec["storageClassName"] = json!(class);
    }
    if let Some(volume) = &it.volume_name {
        spec["volumeName"] = json!(volume);
    }
    if let Some(bytes) = it.requested_bytes {
        spec["resources"] = json!({"requests": {"storage": bytes.to_string()}});
    }
    let metadata = json!({
        "namespace": it.namespace, "name": it.name, "uid": it.uid, "labels": map(&it.labels), "annotations": map(&it.annotations),
    });
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
}

/// The volume that a claim has. One that it only names, and that is another's, is not its own.
fn volume_of(objects: &Objects, claim: &Claim) -> Option<Value> {
    let it = objects.persistent_volume(claim.volume_name.as_deref()?)?;
    (it.claim_uid.as_deref() == Some(&*claim.uid)).then(|| persistent_volume(it, claim))
}

fn persistent_volume(it: &PersistentVolume, claim: &Claim) -> Value {
    let mut spec = json!({
        "accessModes": modes(&it.access_modes), "mountOptions": it.mount_options,
        "claimRef": {"namespace": claim.namespace, "name": claim.name, "uid": claim.uid},
    });
    if let Some(bytes) = it.capacity_bytes {
        spec["capacity"] = json!({"storage": bytes.to_string()});
    }
    if let Some(driver) = &it.driver {
        let mut attributes = map(&it.volume_attributes);
        attributes.retain(|key, _| !key.starts_with(SIDECAR_PREFIX));
        spec["csi"] = json!({
            "driver": driver, "volumeHandle": it.handle(), "readOnly": it.read_only, "volumeAttributes": attributes,
        });
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": it.name}, "spec": spec})
}

fn modes(modes: &[AccessMode]) -> Vec<&'static str> {
    modes.iter().map(|mode| mode.as_str()).collect()
}

/// As an object also where it is empty, and without the copy that kubectl keeps.
fn map(of: &Entries) -> Map<String, Value> {
    of.iter().filter(|(key, _)| *key != LAST_APPLIED).map(|(key, value)| (key.clone(), value.as_str().into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Object, SecretRef};
    use crate::testing::{claim, class, entries, volume};

    /// Two namespaces, of which the binding selects `shop`, with a claim and a volume each; and a volume that nobody has.
    fn objects() -> Objects {
        let mut objects = Objects::default();
        for (namespace, name) in [("shop", "orders"), ("bank", "ledger")] {
            let labels = entries(&[("team", namespace)]);
            let annotations = entries(&[(LAST_APPLIED, "{}"), ("owner", "o")]);
            objects.insert(Object::Namespace(Namespace { name: namespace.into(), labels, annotations }));
            let held = format!("pv-{name}");
            objects.insert(Object::Claim(Claim {
                namespace: namespace.into(),
                labels: entries(&[("app", name)]),
                volume_name: Some(held.clone()),
                requested_bytes: Some(1 << 30),
                ..claim(name)
            }));
            objects.insert(Object::PersistentVolume(PersistentVolume {
                claim_uid: Some(format!("uid-of-{name}")),
                secret: Some(SecretRef { namespace: "vault".into(), name: "canary".into() }),
                volume_attributes: Arc::new(entries(&[
                    ("subdir", name),
                    ("csi.storage.k8s.io/provisioner-secret-name", "canary"),
                ])),
                ..volume(&held)
            }));
        }
        objects.insert(Object::PersistentVolume(volume("free")));
        // It names a volume that another claim has.
        objects.insert(Object::Claim(Claim { volume_name: Some("pv-ledger".into()), ..claim("thief") }));
        objects.insert(Object::StorageClass(StorageClass {
            secret: Some(SecretRef { namespace: "vault".into(), name: "canary".into() }),
            ..class("juicefs")
        }));
        objects
    }

    fn question(kind: Kind, namespace: &str, name: &str, labels: &[(&str, &str)]) -> Question {
        let some = |text: &str| Some(text.to_string()).filter(|it| !it.is_empty());
        Question { kind, namespace: some(namespace), name: some(name), labels: entries(labels) }
    }

    /// The names of what is found by a binding that selects the team `shop`.
    #[track_caller]
    fn check(question: &Question, expected: &[&str]) {
        let selected = LabelSelector { labels: entries(&[("team", "shop")]), expressions: Vec::new() };
        let texts = answer(&objects(), &selected, question, &mut Budget::of_call()).expect("it is within the budget");
        let values: Vec<Value> = texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
        let names: Vec<&str> = values.iter().map(|it| it["metadata"]["name"].as_str().expect("a name")).collect();
        assert_eq!(names, expected, "{question}");
        assert!(values.iter().all(|it| it["kind"] == question.kind.name()), "{values:?}");
        let text = texts.concat();
        assert!(!text.contains("canary") && !text.contains(LAST_APPLIED), "{text}");
    }

    #[test]
    fn a_policy_finds_what_its_binding_selects_and_nothing_else() {
        use Kind::{Namespace, PersistentVolume, StorageClass};
        let of = question;
        check(&of(Namespace, "", "shop", &[]), &["shop"]);
        check(&of(Namespace, "", "bank", &[]), &[]);
        check(&of(Namespace, "", "absent", &[]), &[]);
        check(&of(Namespace, "", "", &[]), &["shop"]);
        check(&of(Namespace, "", "", &[("team", "bank")]), &[]);
        check(&of(Kind::Claim, "shop", "orders", &[]), &["orders"]);
        check(&of(Kind::Claim, "bank", "ledger", &[]), &[]);
        check(&of(Kind::Claim, "absent", "ledger", &[]), &[]);
        check(&of(Kind::Claim, "", "orders", &[]), &[]);
        check(&of(Kind::Claim, "shop", "", &[]), &["orders", "thief"]);
        check(&of(Kind::Claim, "shop", "", &[("app", "orders")]), &["orders"]);
        check(&of(Kind::Claim, "bank", "", &[]), &[]);
        check(&of(PersistentVolume, "shop", "orders", &[]), &["pv-orders"]);
        check(&of(PersistentVolume, "shop", "", &[]), &["pv-orders"]);
        check(&of(PersistentVolume, "shop", "thief", &[]), &[]);
        check(&of(PersistentVolume, "bank", "ledger", &[]), &[]);
        check(&of(PersistentVolume, "", "free", &[]), &[]);
        check(&of(StorageClass, "", "juicefs", &[]), &["juicefs"]);
        check(&of(StorageClass, "", "", &[]), &["juicefs"]);
    }

    #[test]
    fn an_object_has_the_form_that_it_has_in_kubernetes() {
        let found = |kind, namespace: &str, name: &str| {
            let question = question(kind, namespace, name, &[]);
            let everything = LabelSelector::default();
            answer(&objects(), &everything, &question, &mut Budget::of_call())
                .expect("it is within the budget")
                .concat()
        };
        let expected = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "labels": {"team": "shop"}, "annotations": {"owner": "o"}},
        });
        assert_eq!(found(Kind::Namespace, "", "shop"), expected.to_string());
        let claim: Value = serde_json::from_str(&found(Kind::Claim, "shop", "orders")).expect("JSON");
        let spec = json!({
            "accessModes": [], "storageClassName": "juicefs", "volumeName": "pv-orders",
            "resources": {"requests": {"storage": "1073741824"}},
        });
        assert_eq!(claim["spec"], spec);
        let volume: Value = serde_json::from_str(&found(Kind::PersistentVolume, "shop", "orders")).expect("JSON");
        assert_eq!(volume["spec"]["claimRef"]["name"], "orders");
        assert_eq!(volume["spec"]["csi"]["volumeAttributes"], json!({"subdir": "orders"}));
    }

    #[test]
    fn more_than_the_budget_is_no_short_list() {
        let check = |budget: Budget, question: &Question, expected: Result<usize, Overrun>| {
            let mut budget = budget;
            let found = budget.ask(question);
            let found = found.and_then(|()| answer(&objects(), &LabelSelector::default(), question, &mut budget));
            assert_eq!(found.map(|it| it.len()), expected, "{question}");
        };
        let all = question(Kind::Namespace, "", "", &[]);
        let plenty = Budget::of_call();
        check(plenty.clone(), &all, Ok(2));
        check(Budget { objects: 2, ..plenty.clone() }, &all, Ok(2));
        check(Budget { objects: 1, ..plenty.clone() }, &all, Err(Overrun));
        check(Budget { questions: 0, ..plenty.clone() }, &all, Err(Overrun));
        check(Budget { bytes: 200, ..plenty.clone() }, &all, Err(Overrun));
        check(Budget { bytes: 7, ..plenty }, &question(Kind::Namespace, "", "a long name", &[]), Err(Overrun));
    }
}
