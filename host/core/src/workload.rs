//! Workloads: the kinds whose controllers make pods from a template, and the pod that one would make.

use serde_json::{Map, Value, json};

/// A kind with a template: its name, where its template is, and the kind that owns the pods if it is another.
type Kind = (&'static str, &'static str, Option<(&'static str, &'static str)>);

/// Pods of a Deployment belong to a ReplicaSet that it makes, those of a CronJob to a Job.
const KINDS: [Kind; 8] = [
    ("CronJob", "/spec/jobTemplate/spec/template", Some(("batch/v1", "Job"))),
    ("DaemonSet", "/spec/template", None),
    ("Deployment", "/spec/template", Some(("apps/v1", "ReplicaSet"))),
    ("Job", "/spec/template", None),
    ("PodTemplate", "/template", None),
    ("ReplicaSet", "/spec/template", None),
    ("ReplicationController", "/spec/template", None),
    ("StatefulSet", "/spec/template", None),
];

/// A workload, known to have a template.
#[derive(Debug, Clone, Copy)]
pub struct Workload<'a> {
    object: &'a Value,
    kind: Kind,
    template: &'a Value,
}

impl<'a> Workload<'a> {
    /// Reads an object; nothing for one of another kind, or without its template.
    pub fn read(object: &'a Value) -> Option<Workload<'a>> {
        let kind = KINDS.into_iter().find(|(kind, ..)| object["kind"] == *kind)?;
        let template = object.pointer(kind.1).filter(|template| template.is_object())?;
        Some(Workload { object, kind, template })
    }

    /// The pod as the API server would be asked for it, except what depends on chance or on a place among others: the name, the
    /// labels that controllers add, and the claims of a StatefulSet's `volumeClaimTemplates`, which are others for each pod.
    pub fn pod(self) -> Value {
        let (kind, _, owner) = self.kind;
        let metadata = &self.object["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {}});
        let parts = [("metadata", &self.template["metadata"]), ("spec", &self.template["spec"])];
        for (key, part) in parts.into_iter().filter(|(_, part)| !part.is_null()) {
            pod[key] = part.clone();
        }
        let Some(of_pod) = pod["metadata"].as_object_mut() else { return pod };
        let (api_version, owner, owner_name) = match owner {
            // The real one ends in a hash, or in a time.
            Some((api_version, owner)) => (api_version.into(), owner, format!("{name}-0")),
            None => (self.object["apiVersion"].clone(), kind, name.to_string()),
        };
        of_pod.insert("generateName".into(), format!("{owner_name}-").into());
        if let Some(namespace) = metadata["namespace"].as_str() {
            of_pod.insert("namespace".into(), namespace.into());
        }
        if kind != "PodTemplate" {
            let owner = json!({"apiVersion": api_version, "kind": owner, "name": owner_name, "controller": true});
            of_pod.insert("ownerReferences".into(), json!([owner]));
        }
        pod
    }

    /// The workload with what was made of its pod: the labels, the annotations and the spec of the template.
    pub fn with(self, pod: &Value) -> Value {
        let mut object = self.object.clone();
        let Some(template) = object.pointer_mut(self.kind.1) else { return object };
        template["spec"] = pod["spec"].clone();
        for key in ["labels", "annotations"] {
            let Some(entries) = pod["metadata"].get(key) else { continue };
            // A template without metadata is a template.
            let metadata = template.as_object_mut().map(|it| it.entry("metadata").or_insert_with(|| Map::new().into()));
            if let Some(Value::Object(metadata)) = metadata {
                metadata.insert(key.into(), entries.clone());
            }
        }
        object
    }

    /// The names of `volumeClaimTemplates`: their claims differ from pod to pod, so no template can have a sidecar for one.
    pub fn claim_templates(self) -> impl Iterator<Item = &'a str> {
        let templates = self.object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
        templates.filter_map(|template| template["metadata"]["name"].as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Pod;

    fn workload(kind: &str, template_at: &str) -> Value {
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"replicas": 2, "jobTemplate": {"spec": {}}},
        });
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app"}]}});
        let (parent, key) = template_at.rsplit_once('/').expect("a path");
        object.pointer_mut(parent).expect("there")[key] = template;
        object
    }

    #[test]
    fn a_pod_is_the_template_with_its_owner() {
        for (kind, template, owner) in [
            ("CronJob", "/spec/jobTemplate/spec/template", Some(("Job", "web-0"))),
            ("DaemonSet", "/spec/template", Some(("DaemonSet", "web"))),
            ("Deployment", "/spec/template", Some(("ReplicaSet", "web-0"))),
            ("Job", "/spec/template", Some(("Job", "web"))),
            ("PodTemplate", "/template", None),
            ("StatefulSet", "/spec/template", Some(("StatefulSet", "web"))),
        ] {
            let object = workload(kind, template);
            let pod = Workload::read(&object).expect(kind).pod();
            let facts = Pod::read(&pod).expect("a pod").facts();
            let owners: Vec<_> = facts.owners.iter().map(|it| (it.kind.as_str(), it.name.as_str())).collect();
            assert_eq!(owners, Vec::from_iter(owner), "{kind}");
            assert_eq!(facts.labels.get("app").map(String::as_str), Some("web"), "{kind}");
            assert_eq!(pod["metadata"]["namespace"], "shop", "{kind}");
        }
    }

    #[test]
    fn what_was_made_of_the_pod_comes_into_the_template_and_nothing_else_changes() {
        for (kind, template) in [("Deployment", "/spec/template"), ("CronJob", "/spec/jobTemplate/spec/template")] {
            let object = workload(kind, template);
            let workload = Workload::read(&object).expect("a template");
            let mut pod = workload.pod();
            assert_eq!(workload.with(&pod), object, "{kind}");
            pod["metadata"]["annotations"] = json!({"a": "b"});
            pod["spec"]["initContainers"] = json!([{"name": "first"}]);
            let mut expected = object.clone();
            let changed = expected.pointer_mut(template).expect("a template");
            changed["metadata"]["annotations"] = json!({"a": "b"});
            changed["spec"]["initContainers"] = json!([{"name": "first"}]);
            assert_eq!(workload.with(&pod), expected, "{kind}");
        }
    }

    #[test]
    fn a_template_may_have_no_metadata() {
        let object = json!({"kind": "Job", "metadata": {"name": "once"}, "spec": {"template": {"spec": {}}}});
        let workload = Workload::read(&object).expect("a template");
        let mut pod = workload.pod();
        assert_eq!(workload.with(&pod), object);
        pod["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(workload.with(&pod)["spec"]["template"]["metadata"], json!({"labels": {"a": "b"}}));
    }

    #[test]
    fn other_kinds_and_workloads_without_a_template_are_none() {
        for object in [json!({"kind": "Pod"}), json!({"kind": "Service"}), json!({"kind": "Deployment"}), json!(null)] {
            assert!(Workload::read(&object).is_none(), "{object}");
        }
    }
}
