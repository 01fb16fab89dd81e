//! The manifest of a volume that was brought back.

use super::*;
use crate::testing::{claim, entries};
use crate::volume::{Asked, Capability, ClaimName, NamedBy, Place};

const GIB: u64 = 1 << 30;

#[test]
fn a_volume_that_was_brought_back_has_the_handle_and_the_attributes_that_it_had() {
    let asked = Asked {
        name: "pvc-1".into(),
        required_bytes: Some(2 * GIB),
        limit_bytes: None,
        capabilities: vec![Capability {
            access_mode: VolumeAccessMode::MultiNodeMultiWriter,
            mount_flags: vec!["subdir=/t".into()],
        }],
        parameters: entries(&[("trashDays", "3")]),
        mutable_parameters: entries(&[]),
        source: None,
    };
    let directory = "/t/pvc-1".parse().expect("a directory");
    let place = Place {
        directory,
        shared: false,
        named_by: NamedBy::VolumeName,
        quota: None,
        warnings: Vec::new(),
        notes: Vec::new(),
        monitored: Vec::new(),
    };
    let record = Record::begin("blue", "n".into(), asked, Some(ClaimName::from(&claim("data"))), place, 2 * GIB);
    let secret = SecretRef { namespace: "shop".into(), name: "juicefs".into() };
    let claim = record.claim.as_ref().expect("it is there");
    let expected = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "pvc-1", "annotations": {
            "pv.kubernetes.io/provisioned-by": "csi.juicefs.com",
            "volume.kubernetes.io/provisioner-deletion-secret-name": "juicefs",
            "volume.kubernetes.io/provisioner-deletion-secret-namespace": "shop",
        }},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "2Gi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "mountOptions": ["subdir=/t"],
            "claimRef": {"namespace": claim.namespace, "name": "data"},
            "csi": {
                "driver": "csi.juicefs.com",
                "fsType": "juicefs",
                "volumeHandle": "pvc-1",
                "volumeAttributes": {"trashDays": "3", "subPath": "pvc-1", "capacity": "2147483648"},
                "nodePublishSecretRef": {"namespace": "shop", "name": "juicefs"},
            },
        },
    });
    assert_eq!(persistent_volume(&record, "csi.juicefs.com", Some(&secret)), expected);

    for (bytes, size) in [(GIB + GIB / 2, "1536Mi"), (5 << 20, "5Mi"), (3 << 10, "3Ki"), (1500, "1500")] {
        let sized = Record { capacity_bytes: bytes, ..record.clone() };
        assert_eq!(persistent_volume(&sized, "csi.juicefs.com", None)["spec"]["capacity"]["storage"], size);
    }
    let bare = Record { claim: None, capacity_bytes: 0, ..record };
    let bare = persistent_volume(&bare, "csi.juicefs.com", None);
    assert_eq!(bare["spec"]["capacity"]["storage"], "10Pi");
    assert!(bare["spec"].get("claimRef").is_none() && bare["spec"]["csi"].get("nodePublishSecretRef").is_none());
}
