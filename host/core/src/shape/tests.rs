//! Which pods get which shape, and what VCI is told.

use super::*;
use crate::object::Entries;
use crate::testing::{entries, pod};

fn namespace(labels: Entries) -> Namespace {
    Namespace { name: "shop".into(), labels, ..Namespace::default() }
}

#[test]
fn a_pod_for_virtual_nodes_gets_their_shape_where_the_namespace_is_for_such() {
    let serverless = || namespace(entries(&[(SERVERLESS_LABEL, "true")]));
    let check = |namespace: Namespace, pod: crate::testing::PodFixture, expected: Shape| {
        let read = Pod::read(&pod.0).expect("a pod");
        assert_eq!(Shape::of(Shape::NativeSidecar, &namespace, read), Ok(expected), "{}", pod.0);
        let on_nodes = Shape::of(Shape::Container, &namespace, read);
        // These clouds have no way to make an application wait.
        assert_eq!(on_nodes.ok(), (expected == Shape::NativeSidecar).then_some(Shape::Container));
    };
    let vci = || pod().annotated(ON_VCI.0, "enforce");
    let cci = || pod().labelled(ON_CCI.0, "enforce");
    check(serverless(), vci(), Shape::Vci);
    check(serverless(), cci(), Shape::Cci);
    check(serverless(), pod(), Shape::NativeSidecar);
    check(serverless(), pod().annotated(ON_VCI.0, "auto"), Shape::NativeSidecar);
    check(serverless(), pod().labelled(ON_VCI.0, "enforce"), Shape::NativeSidecar);
    check(serverless(), pod().annotated(ON_CCI.0, "enforce"), Shape::NativeSidecar);
    check(namespace(entries(&[("juicefs.com/enable-injection", "true")])), vci(), Shape::NativeSidecar);
    check(namespace(entries(&[(SERVERLESS_LABEL, "yes")])), cci(), Shape::NativeSidecar);
}

#[test]
fn vci_is_told_of_our_mounts_before_the_authors() {
    let check = |present: Option<&str>, expected: &str| {
        let told = vci_mounts(present, [("jfs-mount-a", "/jfs/data")].into_iter());
        assert_eq!(told, expected, "{present:?}");
        assert_eq!(vci_mounts(Some(&told), [("jfs-mount-a", "/jfs/data")].into_iter()), told, "a second pass");
    };
    let ours = r#"{"container":"jfs-mount-a","mountPath":"/jfs/data"}"#;
    check(None, &format!("[{ours}]"));
    check(
        Some(r#"[{"container": "s3", "mountPath": "/s3"}]"#),
        &format!(r#"[{ours},{{"container":"s3","mountPath":"/s3"}}]"#),
    );
    for unreadable in ["", "{}", "[", "x"] {
        check(Some(unreadable), &format!("[{ours}]"));
    }
}
