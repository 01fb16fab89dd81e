//! The JuiceFS CSI driver's mount pods, which are there beside Pith while a cluster moves, and as long as the driver mounts for
//! nodes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::json::entries;

/// Whether a pod is one.
pub fn is_mount_pod(pod: &Value) -> bool {
    pod["metadata"]["labels"]["app.kubernetes.io/name"] == "juicefs-mount"
}

/// The UIDs of the pods that a mount pod is there for: each has an annotation with the path of its volume.
pub fn users(mount_pod: &Value) -> BTreeSet<String> {
    let annotations = entries(&mount_pod["metadata"]["annotations"]);
    let targets = annotations.iter().filter(|(key, _)| key.starts_with("juicefs-"));
    let uid = |path: &str| path.split_once("/pods/")?.1.split_once('/').map(|(uid, _)| uid.to_string());
    targets.filter_map(|(_, path)| uid(path)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn its_users_are_in_the_paths_that_its_annotations_have() {
        let check = |annotations: Value, expected: &[&str]| {
            let pod = json!({"metadata": {"annotations": annotations}});
            let expected: BTreeSet<String> = expected.iter().map(|it| (*it).to_string()).collect();
            assert_eq!(users(&pod), expected, "{pod}");
        };
        check(Value::Null, &[]);
        check(json!({"juicefs-uniqueid": "pv-1", "other": "/var/lib/kubelet/pods/a/volumes"}), &[]);
        let target = |uid: &str| format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~csi/pv-1/mount");
        check(json!({"juicefs-1f": target("a"), "juicefs-2f": target("b"), "juicefs-3f": target("a")}), &["a", "b"]);
    }
}
