//! What the directory of a new volume is called, on the real client: by a policy, by a `pathPattern`, or by the volume.

use std::collections::BTreeSet;

use pith_tests::cluster::CLUSTER;
use pith_tests::juicefs::{CLIENT, Scratch};
use pith_tests::provisioner::{Refusal, Site};
use pith_tests::server::Server;
use pith_tests::wasm_builds;
use serde_json::{Value, json};

use crate::cluster::{driver_of, yaml};
use crate::volumes::{directories, tree};

const CSI: &str = "csi: {socket: csi.sock, cluster: test, quota: false}\n";

/// The claims `data` and `bare` of the namespace `shop`, of which the first has a label.
fn claims() -> String {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"unit": "retail"}}});
    let claim = |name: &str, labels: Value| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"namespace": "shop", "name": name, "uid": format!("u-{name}"), "labels": labels},
            "spec": {
                "accessModes": ["ReadWriteMany"], "storageClassName": "juicefs",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        })
    };
    yaml(&[namespace, claim("data", json!({"team": "web"})), claim("bare", json!({}))])
}

/// A configuration with the first-party policy, which names directories by the unit and the claim.
fn by_claim(csi: &str, on_collision: &str) -> String {
    let policy = json!({
        "name": "by-claim", "module": {"file": wasm_builds::policy("naming")},
        "settings": {"template": ["{namespaceLabels.unit}", "{claim}"], "onCollision": on_collision},
    });
    format!("{csi}policies: [{policy}]\n")
}

fn create(site: &Site, name: &str, more: &[&str]) -> Result<String, Refusal> {
    let made = site.insist(&[&["create", name, "--size", "1Gi"], more].concat()).expect("pith csi runs")?;
    Ok(made["context"]["subPath"].as_str().expect("a directory").to_string())
}

fn delete(site: &Site, name: &str) {
    site.insist(&["delete", name]).expect("pith csi runs").expect("it is deleted");
}

/// The directories right below a path.
fn below(scratch: &Scratch, path: &[&str]) -> BTreeSet<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut found = directories(&runtime.block_on(tree(&scratch.secrets())), path);
    found.remove(".pith");
    found
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_string()).collect()
}

#[test]
fn a_policy_says_what_becomes_of_two_volumes_of_one_name() {
    let claim = ["--claim", "shop/data"];
    for (on_collision, second, left) in [
        // 8 hexadecimal digits of the SHA-256 of the volume's name.
        ("suffix", Ok("retail/data-02309f4c"), names(&["data-02309f4c"])),
        ("share", Ok("retail/data"), names(&["data"])),
        (
            "refuse",
            Err("the directory /retail/data is there already, and volume `pvc-2` does not share it"),
            names(&[]),
        ),
    ] {
        let scratch = Scratch::new();
        let site = Site::new(&by_claim(CSI, on_collision), &claims(), &scratch.secrets()).expect("a site");
        let _serving = site.serve(&[]).expect("it serves");
        let first = create(&site, "pvc-1", &claim).expect("nobody has it");
        assert_eq!(first, if on_collision == "suffix" { "retail/data-f2868e1a" } else { "retail/data" });
        match (create(&site, "pvc-2", &claim), second) {
            (Ok(made), Ok(expected)) => assert_eq!(made, expected),
            (Err(refusal), Err(sentence)) => {
                assert_eq!(refusal.code, "FailedPrecondition", "{refusal:?}");
                assert!(refusal.sentence.starts_with(sentence), "{refusal:?}");
            }
            (answer, _) => panic!("{on_collision}: {answer:?}"),
        }
        // The one takes along what is its own, and nothing of the other's.
        delete(&site, "pvc-1");
        assert_eq!(below(&scratch, &["retail"]), left, "{on_collision}");
        delete(&site, "pvc-2");
        assert_eq!(below(&scratch, &["retail"]), names(&[]), "{on_collision}");
    }
}

#[test]
fn a_suffix_is_the_same_in_every_try_on_every_replica() {
    for step in ["record-written", "directory-made"] {
        let scratch = Scratch::new();
        let first = Site::new(&by_claim(CSI, "suffix"), &claims(), &scratch.secrets()).expect("a site");
        let mut dying = first.serve(&["--die-at", step]).expect("it serves");
        first
            .ask(&["create", "pvc-1", "--size", "1Gi", "--claim", "shop/data"])
            .expect("pith csi runs")
            .expect_err("it is cut");
        dying.wait().expect("it ends");
        let key = first.path().join("state/record.key");
        let csi = format!("csi: {{socket: csi.sock, cluster: test, quota: false, recordKey: {}}}\n", key.display());
        let second = Site::new(&by_claim(&csi, "suffix"), &claims(), &scratch.secrets()).expect("a site");
        let _serving = second.serve(&[]).expect("it serves");
        for _ in 0..2 {
            let made = create(&second, "pvc-1", &["--claim", "shop/data"]).expect("it is made");
            assert_eq!(made, "retail/data-f2868e1a", "{step}");
        }
        assert_eq!(below(&scratch, &["retail"]), names(&["data-f2868e1a"]), "{step}");
    }
}

#[test]
fn names_are_directories_as_they_are_written_and_paths_in_disguise_are_none() {
    let scratch = Scratch::new();
    let site = Site::new(CSI, &claims(), &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    let pattern = |name: &str| format!("pathPattern={name}");
    let long = "ä".repeat(127) + "x";
    let plain = ["Web", "web", "100%", "%zz", "a%20b", "two words", "größe", "日本", "a\\b", "#?&=+", &long];
    for (number, name) in plain.iter().enumerate() {
        let made = create(&site, &format!("pvc-{number}"), &["--parameter", &pattern(name)]);
        assert_eq!(made.as_deref(), Ok(*name));
    }
    assert_eq!(below(&scratch, &[]), names(&plain));

    let leading = "leads elsewhere in the tree";
    let disguised = "is a path for whoever decodes it, or mounts it elsewhere";
    let longer = "x".repeat(256);
    for (name, reason) in [
        ("..", leading),
        ("a/../../b", leading),
        ("/../a", leading),
        ("//a", "is empty"),
        ("%2e%2e", disguised),
        ("a/%252E%252e/b", disguised),
        ("a%2f..%2fb", disguised),
        ("\u{ff0e}\u{ff0e}", disguised),
        (".pith", "begins with a dot: such names are kept for JuiceFS and Pith"),
        (".trash/a", "begins with a dot: such names are kept for JuiceFS and Pith"),
        ("e\u{301}", "is not in Unicode's normal form C: a name that looks the same would be another directory"),
        ("web\u{200b}", "has a character that nobody sees, or one that turns text about"),
        ("a\tb", "has a control character"),
        (&longer, "is longer than 255 bytes"),
    ] {
        let refusal = create(&site, "pvc-x", &["--parameter", &pattern(name)]).expect_err("it is no name");
        assert_eq!(refusal.code, "InvalidArgument", "{refusal:?}");
        assert!(refusal.sentence.ends_with(reason), "{name}: {refusal:?}");
    }
    let root = create(&site, "pvc-x", &["--parameter", &pattern("/")]).expect_err("it is no name");
    assert!(root.sentence.ends_with("it is the root of the file system, which is never a volume"), "{root:?}");
    assert_eq!(site.volumes().expect("the records can be read").len(), plain.len());
    // Each is found again by its name, and is taken along by its own volume alone.
    delete(&site, "pvc-0");
    assert_eq!(below(&scratch, &[]), names(&plain[1..]));
}

#[test]
fn a_label_that_a_claim_lacks_is_empty_text_unless_templates_are_strict() {
    const PATTERN: &str = "pathPattern=${.pvc.namespace}/team-${.pvc.labels.team}";
    let missing = "the claim `shop/bare` has no label `team`, or an empty one";
    let scratch = Scratch::new();
    let site = Site::new(CSI, &claims(), &scratch.secrets()).expect("a site");
    let serving = site.serve(&[]).expect("it serves");
    let named = |site: &Site, name: &str, claim: &str, pattern: &str| {
        create(site, name, &["--claim", claim, "--parameter", pattern])
    };
    assert_eq!(named(&site, "pvc-1", "shop/data", PATTERN).as_deref(), Ok("shop/team-web"));
    assert!(!site.log().contains("has an empty text in it"), "{}", site.log());
    assert_eq!(named(&site, "pvc-2", "shop/bare", PATTERN).as_deref(), Ok("shop/team-"));
    assert!(site.log().contains(&format!("has an empty text in it: {missing}")), "{}", site.log());
    // Where nothing else is there, a volume would be the directory of all.
    for pattern in ["pathPattern=${.pvc.labels.team}", "pathPattern=shop/${.pvc.labels.team}"] {
        let refusal = named(&site, "pvc-3", "shop/bare", pattern).expect_err("a level has no name");
        assert_eq!(refusal.code, "InvalidArgument", "{refusal:?}");
        let sentence = format!("{missing}, and a level of the directory has no other text");
        assert!(refusal.sentence.ends_with(&sentence), "{refusal:?}");
    }
    serving.kill().expect("it can be killed");

    let key = site.path().join("state/record.key");
    let strict = format!(
        "csi: {{socket: csi.sock, cluster: test, quota: false, strictTemplates: true, recordKey: {}}}\n",
        key.display()
    );
    let strict = Site::new(&strict, &claims(), &scratch.secrets()).expect("a site");
    let _serving = strict.serve(&[]).expect("it serves");
    let refusal = named(&strict, "pvc-4", "shop/bare", PATTERN).expect_err("the label is missing");
    assert_eq!(refusal.code, "InvalidArgument", "{refusal:?}");
    assert!(refusal.sentence.ends_with(missing), "{refusal:?}");
    // What was named before stays what it is.
    assert_eq!(named(&strict, "pvc-2", "shop/bare", PATTERN).as_deref(), Ok("shop/team-"));
    assert_eq!(below(&scratch, &["shop"]), names(&["team-web", "team-"]));
}

#[test]
fn in_a_cluster_a_pattern_and_names_of_secrets_are_filled_in_and_what_is_missing_is_an_event_on_the_claim() {
    let cluster = &*CLUSTER;
    let _alone = driver_of(cluster);
    let scratch = Scratch::new();
    let namespace = cluster.namespace("patterns", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    // As csi-provisioner fills them in: each team has the Secret of its own namespace.
    let mut parameters = json!({"pathPattern": "${.pvc.namespace}/team-${.pvc.labels.team}/${.pvc.name}"});
    for (what, secret) in [
        ("provisioner", "of-${pvc.name}"),
        ("node-publish", "of-${pvc.annotations['team']}"),
        ("controller-expand", "of-${pvc.name}"),
    ] {
        parameters[format!("csi.storage.k8s.io/{what}-secret-name")] = json!(secret);
        parameters[format!("csi.storage.k8s.io/{what}-secret-namespace")] = json!("${pvc.namespace}");
    }
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "csi.juicefs.com", "parameters": parameters, "reclaimPolicy": "Delete", "allowVolumeExpansion": true,
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": name, "name": "of-orders"}, "stringData": scratch.secrets(),
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": name, "name": "orders", "annotations": {"team": "web"}},
        "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": name, "resources": {"requests": {"storage": "1Gi"}}},
    });
    cluster.apply(&yaml(&[class, secret, claim])).expect("objects");

    let config = format!(
        "csi: {}\njuicefs: {}\n",
        json!({"socket": cluster.csi_socket(), "cluster": "test"}),
        json!({"client": *CLIENT, "startTimeout": "60s", "callTimeout": "30s"}),
    );
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
    cluster.show_log(&server.folder.path().join("log"));
    cluster.wait(name, "jsonpath={.status.phase}=Bound", "pvc/orders").expect("csi-provisioner calls Pith");
    let bound = cluster.get(&["pvc", "orders", "--namespace", name]).expect("the claim");
    let volume = bound["spec"]["volumeName"].as_str().expect("a volume");
    let made = cluster.get(&["pv", volume]).expect("the volume");
    let csi = &made["spec"]["csi"];
    assert_eq!(csi["volumeAttributes"]["subPath"], format!("{name}/team-/orders"));
    assert_eq!(csi["nodePublishSecretRef"], json!({"namespace": name, "name": "of-web"}));
    assert_eq!(csi["controllerExpandSecretRef"], json!({"namespace": name, "name": "of-orders"}));
    let sentence = format!(
        "pathPattern `${{.pvc.namespace}}/team-${{.pvc.labels.team}}/${{.pvc.name}}` has an empty text in it: the claim \
         `{name}/orders` has no label `team`, or an empty one"
    );
    let told = || Ok(cluster.events(name, "orders")?.contains(&sentence).then_some(()));
    cluster.until(name, "an event about the missing label", told).expect("it is said on the claim");

    cluster.kubectl(&["delete", "pvc", "orders", "--namespace", name]).expect("it is deleted");
    cluster
        .wait(name, "delete", &format!("pv/{volume}"))
        .expect("csi-provisioner calls Pith, with the Secret of the class");
    assert_eq!(below(&scratch, &[name, "team-"]), names(&[]));
    cluster.kubectl(&["delete", "storageclass", name]).expect("it is deleted");
}
