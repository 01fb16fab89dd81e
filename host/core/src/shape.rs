//! Where the containers of clients stand in a pod, and how what they mount reaches the others.
//!
//! On nodes: native sidecars, or plain containers where the cluster has none of those. On the virtual nodes of two clouds, which the
//! JuiceFS CSI driver knows, the cloud carries the mount from one container to the others, and no container is privileged. What
//! these ask for is what that driver writes; neither has been run by Pith.

use serde_json::{Value, json};

use crate::json::list;
use crate::object::Namespace;
use crate::pod::Pod;
use crate::reason::{Refusal, SERVERLESS_LABEL};

/// How a pod gets its clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shape {
    /// Init containers that go on: they are there before every other container, and end after all of them.
    #[default]
    NativeSidecar,
    /// Containers like the application's, for clusters before Kubernetes 1.29.
    Container,
    /// On VCI, the virtual nodes of Volcengine.
    Vci,
    /// On CCI, the virtual nodes of Huawei Cloud.
    Cci,
}

/// The annotation by which a pod is put onto VCI, and its value.
const ON_VCI: (&str, &str) = ("vke.volcengine.com/burst-to-vci", "enforce");
/// The label by which a pod is put onto CCI, and its value.
const ON_CCI: (&str, &str) = ("virtual-kubelet.io/burst-to-cci", "enforce");

/// Where clients mount, each in a folder of its own.
pub(crate) const MOUNT_ROOT: &str = "/jfs";

impl Shape {
    /// The shape of a pod, where nodes have this one.
    pub(crate) fn of(on_nodes: Shape, namespace: &Namespace, pod: Pod<'_>) -> Result<Shape, Refusal> {
        if namespace.labels.get(SERVERLESS_LABEL).is_none_or(|value| value != "true") {
            return Ok(on_nodes);
        }
        let (what, shape) = if pod.annotation(ON_VCI.0) == Some(ON_VCI.1) {
            ("the annotation vke.volcengine.com/burst-to-vci", Shape::Vci)
        } else if pod.label(ON_CCI.0) == Some(ON_CCI.1) {
            ("the label virtual-kubelet.io/burst-to-cci", Shape::Cci)
        } else {
            return Ok(on_nodes);
        };
        match on_nodes {
            Shape::NativeSidecar => Ok(shape),
            _ => Err(Refusal::UnsupportedPod {
                what,
                why: "its containers would not wait for the client: that takes native sidecars, which Kubernetes has from 1.29 on",
            }),
        }
    }

    /// Whether the pod runs on a node that has folders, and that a privileged container can mount for.
    pub(crate) fn has_node(self) -> bool {
        matches!(self, Shape::NativeSidecar | Shape::Container)
    }

    /// What the client's container may do.
    ///
    /// Mounting for the neighbours (Bidirectional) is allowed to privileged containers only, and FUSE needs root; the pod's own
    /// runAsNonRoot would otherwise keep the container from starting.
    pub(crate) fn security_context(self) -> Value {
        match self {
            Shape::NativeSidecar | Shape::Container => {
                json!({"privileged": true, "runAsUser": 0, "runAsNonRoot": false})
            }
            Shape::Vci => json!({"runAsUser": 0, "runAsNonRoot": false}),
            Shape::Cci => {
                json!({"capabilities": {"add": ["SYS_ADMIN", "MKNOD"]}, "runAsUser": 0, "runAsNonRoot": false})
            }
        }
    }

    /// What the client's environment has beside what is set: a client of before 1.2 unmounts before it mounts, which takes the
    /// cloud's own mount away.
    pub(crate) fn env(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Shape::NativeSidecar | Shape::Container => &[],
            Shape::Vci => &[("JFS_NO_UMOUNT", "1")],
            // The cloud's own spelling.
            Shape::Cci => &[
                ("JFS_NO_UMOUNT", "1"),
                ("JUICEFS_CLIENT_SIDERCAR_CONTAINER", "true"),
                ("JUICEFS_CLIENT_PATH", MOUNT_ROOT),
            ],
        }
    }

    /// What the application's mounts lie on, as in `spec.volumes[]` without the name, where the client's mount is the folder of
    /// this name.
    pub(crate) fn mount_source(self, folder: &str) -> Value {
        match self {
            Shape::NativeSidecar | Shape::Container | Shape::Vci => json!({"emptyDir": {}}),
            Shape::Cci => json!({"csi": {
                "driver": "juicefs.csi.everest.io", "fsType": "gpath", "volumeAttributes": {"mountpoint": folder},
            }}),
        }
    }

    /// How the client mounts that volume itself, if it does.
    pub(crate) fn own_mount(self, volume: &str, path: &str) -> Option<Value> {
        match self {
            Shape::NativeSidecar | Shape::Container => {
                Some(json!({"name": volume, "mountPath": path, "mountPropagation": "Bidirectional"}))
            }
            Shape::Vci => Some(json!({"name": volume, "mountPath": path})),
            Shape::Cci => None,
        }
    }

    /// Whether the application sees the client's mount through Kubernetes' own propagation.
    pub(crate) fn propagates(self) -> bool {
        self != Shape::Cci
    }
}

/// What VCI is told: these mounts of ours, as `(container, path)`, before those that the pod's author names. What cannot be read
/// gives way.
pub(crate) fn vci_mounts<'a>(present: Option<&str>, ours: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut mounts: Vec<Value> =
        ours.map(|(container, path)| json!({"container": container, "mountPath": path})).collect();
    let present: Value = present.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let theirs = list(&present).iter().filter(|mount| !mounts.contains(mount)).cloned().collect::<Vec<_>>();
    mounts.extend(theirs);
    Value::Array(mounts).to_string()
}

#[cfg(test)]
mod tests;
