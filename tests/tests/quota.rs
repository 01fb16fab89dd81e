//! The size of a volume, as an application meets it: what `df` shows in a mount, and what happens to whoever writes more.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pith_tests::juicefs::{CLIENT, Mount, Scratch};
use pith_tests::provisioner::{Refusal, Site};
use pith_tests::wasm_builds;
use serde_json::{Value, json};

const CONFIG: &str = "csi: {socket: csi.sock, cluster: test}\n";
const NO_QUOTA: &str = "csi: {socket: csi.sock, cluster: test, quota: false}\n";
const MIB: u64 = 1 << 20;

fn ask(site: &Site, arguments: &[&str]) -> Result<Value, Refusal> {
    site.insist(arguments).expect("pith csi runs")
}

/// The size that the client says a directory may have; none where it has no quota.
fn quota(scratch: &Scratch, directory: &str) -> Option<String> {
    let table = scratch.run(&["quota", "list", "META"]);
    let row = table.lines().find_map(|line| line.strip_prefix(&format!("| {directory} "))?.split('|').nth(1));
    row.map(|size| size.trim().to_string()).filter(|size| size != "unchanged")
}

#[test]
fn the_size_that_was_asked_for_is_what_df_shows_and_nobody_writes_past_it() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    // Less than the GiB that the JuiceFS driver wants, and what is no whole number of blocks.
    let made = ask(&site, &["create", "pvc-a", "--size", "8Mi"]).expect("it is made");
    assert_eq!(made["capacityBytes"], 8 * MIB);
    let odd = ask(&site, &["create", "pvc-odd", "--size", "500M"]).expect("it is made");
    assert_eq!(odd["capacityBytes"], 500_002_816);
    assert_eq!(Mount::of(&scratch.meta_url(), "/pvc-odd").size(), 500_002_816);

    let mount = Mount::of(&scratch.meta_url(), "/pvc-a");
    assert_eq!(mount.size(), 8 * MIB);
    mount.write("first", 6 * MIB).expect("there is room");
    let full = mount.write("second", 4 * MIB).expect_err("there is none");
    assert_eq!(full.raw_os_error(), Some(rustix::io::Errno::DQUOT.raw_os_error()), "{full}");

    // A volume never shrinks, and a limit below what it has cannot be kept.
    let shrunk = ask(&site, &["expand", "pvc-a", "--size", "4Mi"]).expect("it has more than that");
    assert_eq!(shrunk["capacityBytes"], 8 * MIB);
    let refusal = ask(&site, &["expand", "pvc-a", "--size", "4Mi", "--limit", "4Mi"]).expect_err("it has more");
    assert_eq!(refusal.code, "OutOfRange", "{refusal:?}");
    assert_eq!(quota(&scratch, "/pvc-a").as_deref(), Some("8.0 MiB"));

    let grown = ask(&site, &["expand", "pvc-a", "--size", "16Mi"]).expect("it grows");
    assert_eq!((&grown["capacityBytes"], &grown["nodeExpansionRequired"]), (&(16 * MIB).into(), &false.into()));
    assert_eq!(quota(&scratch, "/pvc-a").as_deref(), Some("16 MiB"));
    mount.until("the larger size in the same mount", || mount.size() == 16 * MIB);
    mount.write("second", 4 * MIB).expect("there is room");
    assert_eq!(fs::metadata(mount.path().join("first")).expect("it is still there").len(), 6 * MIB);
}

#[test]
fn whatever_a_directory_is_called_its_quota_is_found_again() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    let long = "x".repeat(255);
    let names = ["a|b", "| 1 | 2", "größe 日本", "100%", "--path", "unchanged", "a\\b", "Path", &long];
    for (number, name) in names.into_iter().enumerate() {
        let pattern = format!("pathPattern=q/{name}");
        let made = ask(&site, &["create", &format!("pvc-{number}"), "--size", "8Mi", "--parameter", &pattern]);
        assert_eq!(made.map(|made| made["context"]["subPath"].clone()), Ok(format!("q/{name}").into()));
    }
}

#[test]
fn a_class_may_leave_sizes_to_themselves_or_enforce_them_alone() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    let serving = site.serve(&[]).expect("it serves");
    let create = |site: &Site, name: &str, quota: &str| {
        ask(site, &["create", name, "--size", "8Mi", "--parameter", &format!("quota={quota}")])
    };
    assert_eq!(create(&site, "pvc-off", "off").expect("it is made")["capacityBytes"], 8 * MIB);
    assert_eq!(quota(&scratch, "/pvc-off"), None);
    // An expansion is what it says on the claim, and nothing more.
    let grown = ask(&site, &["expand", "pvc-off", "--size", "16Mi"]).expect("it grows");
    assert_eq!(grown["capacityBytes"], 16 * MIB);
    assert_eq!(quota(&scratch, "/pvc-off"), None);
    assert!(site.log().contains("nothing enforces the size of the volume"), "{}", site.log());
    let mount = Mount::of(&scratch.meta_url(), "/pvc-off");
    mount.write("file", 20 * MIB).expect("nothing bounds it");
    drop(mount);
    let refusal = create(&site, "pvc-maybe", "maybe").expect_err("it is neither");
    assert_eq!(refusal.code, "InvalidArgument", "{refusal:?}");
    assert!(refusal.sentence.starts_with("the parameter quota is `maybe`: write `on`"), "{refusal:?}");
    serving.kill().expect("it can be killed");

    let scratch = Scratch::new();
    let site = Site::new(NO_QUOTA, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    create(&site, "pvc-on", "on").expect("it is made");
    ask(&site, &["create", "pvc-default", "--size", "8Mi"]).expect("it is made");
    assert_eq!(quota(&scratch, "/pvc-on").as_deref(), Some("8.0 MiB"));
    assert_eq!(quota(&scratch, "/pvc-default"), None);
}

#[test]
fn a_policy_says_whose_size_is_enforced_and_is_asked_once_for_each_volume() {
    let claim = |name: &str, labels: Value| {
        let metadata = json!({"namespace": "shop", "name": name, "uid": name, "labels": labels});
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {}}).to_string()
    };
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}).to_string();
    let objects = [namespace, claim("labelled", json!({"scratch": ""})), claim("plain", json!({}))].join("\n---\n");
    let policy = json!({
        "name": "scratch", "module": {"file": wasm_builds::example("scratch")}, "settings": {"label": "scratch"},
    });
    let scratch = Scratch::new();
    let site = Site::new(&format!("{CONFIG}policies: [{policy}]\n"), &objects, &scratch.secrets()).expect("a site");
    let serving = site.serve(&[]).expect("it serves");
    let create = |name: &str, more: &[&str]| ask(&site, &[&["create", name, "--size", "8Mi"], more].concat());
    assert_eq!(create("pvc-off", &["--claim", "shop/labelled"]).expect("it is made")["capacityBytes"], 8 * MIB);
    create("pvc-plain", &["--claim", "shop/plain"]).expect("it is made");
    // A policy is above the class, and nobody is asked for a volume whose claim is not known.
    create("pvc-above", &["--claim", "shop/labelled", "--parameter", "quota=on"]).expect("it is made");
    create("pvc-unknown", &[]).expect("it is made");
    assert!(site.log().contains("no quota policy was asked, because the caller names no claim"), "{}", site.log());
    let quotas = ["/pvc-off", "/pvc-above", "/pvc-plain", "/pvc-unknown"].map(|directory| quota(&scratch, directory));
    let bound = Some("8.0 MiB".to_string());
    assert_eq!(quotas, [None, None, bound.clone(), bound]);
    let record = site.volumes().expect("the records can be read");
    assert_eq!((&record["pvc-off"]["quota"], &record["pvc-plain"]["quota"]), (&json!("off"), &Value::Null));

    // Without the policy, what it said holds for what it was asked about.
    serving.kill().expect("it can be killed");
    let config = site.path().join("pith.yaml");
    let without = fs::read_to_string(&config).expect("it is there").replace(&format!("policies: [{policy}]"), "");
    fs::write(&config, without).expect("written");
    let _serving = site.serve(&[]).expect("it serves");
    create("pvc-off", &["--claim", "shop/labelled"]).expect("it is there");
    assert_eq!(ask(&site, &["expand", "pvc-off", "--size", "16Mi"]).expect("it grows")["capacityBytes"], 16 * MIB);
    assert_eq!(quota(&scratch, "/pvc-off"), None);
    create("pvc-new", &["--claim", "shop/labelled"]).expect("it is made");
    assert_eq!(quota(&scratch, "/pvc-new").as_deref(), Some("8.0 MiB"));
}

#[test]
fn a_volume_whose_quota_is_not_there_afterwards_is_none_that_anybody_is_told_of() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    // A client that says that it has set a quota, and has not.
    let liar = site.path().join("juicefs");
    let script =
        format!("#!/bin/sh\ncase \" $* \" in *' quota set '*) exit 0 ;; esac\nexec {} \"$@\"\n", CLIENT.display());
    fs::write(&liar, script).expect("written");
    fs::set_permissions(&liar, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let config = site.path().join("pith.yaml");
    let honest = fs::read_to_string(&config).expect("it is there");
    let dishonest = honest.replace(&format!("client: {}", CLIENT.display()), &format!("client: {}", liar.display()));
    assert_ne!(honest, dishonest);
    fs::write(&config, dishonest).expect("written");

    let serving = site.serve(&[]).expect("it serves");
    let create = ["create", "pvc-a", "--size", "8Mi"];
    let refusal = site.ask(&create).expect("pith csi runs").expect_err("it has no bound");
    assert_eq!(refusal.code, "Unavailable", "{refusal:?}");
    assert_eq!(site.volumes().expect("the records can be read")["pvc-a"]["state"], "creating");
    serving.kill().expect("it can be killed");

    fs::write(&config, honest).expect("written");
    let _serving = site.serve(&[]).expect("it serves");
    ask(&site, &create).expect("it is made");
    assert_eq!(quota(&scratch, "/pvc-a").as_deref(), Some("8.0 MiB"));
    assert!(Path::new(&site.socket()).exists());
}

#[test]
fn a_directory_of_several_volumes_is_as_large_as_the_largest_of_them_whoever_comes_last() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    let create = |name: &str, size: &str, more: &[&str]| {
        let call = [&["create", name, "--size", size, "--parameter", "pathPattern=team"], more].concat();
        ask(&site, &call).expect("it is made")
    };
    create("pvc-a", "8Mi", &[]);
    create("pvc-b", "4Mi", &[]);
    assert_eq!(quota(&scratch, "/team").as_deref(), Some("8.0 MiB"));
    ask(&site, &["expand", "pvc-b", "--size", "6Mi"]).expect("it grows");
    assert_eq!(quota(&scratch, "/team").as_deref(), Some("8.0 MiB"));
    ask(&site, &["expand", "pvc-b", "--size", "12Mi"]).expect("it grows");
    assert_eq!(quota(&scratch, "/team").as_deref(), Some("12 MiB"));
    // One that nothing bounds is bound by no other.
    create("pvc-c", "4Mi", &["--parameter", "quota=off"]);
    assert_eq!(quota(&scratch, "/team"), None);
    ask(&site, &["delete", "pvc-c"]).expect("it is deleted");
    ask(&site, &["expand", "pvc-a", "--size", "10Mi"]).expect("it grows");
    assert_eq!(quota(&scratch, "/team").as_deref(), Some("12 MiB"));

    std::thread::scope(|scope| {
        for size in [40, 20, 30, 16] {
            let create = &create;
            scope.spawn(move || create(&format!("pvc-{size}"), &format!("{size}Mi"), &[]));
        }
        scope.spawn(|| ask(&site, &["expand", "pvc-a", "--size", "50Mi"]).expect("it grows"));
    });
    assert_eq!(quota(&scratch, "/team").as_deref(), Some("50 MiB"));
}
