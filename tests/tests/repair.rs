//! `pith volumes check` and `pith volumes repair` on the real client: whatever is wrong with the volumes of a file system is found, and
//! put right without the loss of any data.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use pith::juicefs::{Path, Worker};
use pith_tests::juicefs::Scratch;
use pith_tests::provisioner::Site;
use pith_tests::server::PITH;
use serde_json::Value;

use crate::volumes::{tree, with_worker};

const CONFIG: &str = "csi: {socket: csi.sock, cluster: test}\n";
/// A claim that waits for its volume, and the PersistentVolume of a volume that the driver has made.
const OBJECTS: &str = "
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {namespace: shop, name: half, uid: half}, spec: {}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: pvc-00000000-0000-4000-8000-00000000001d, annotations: {pv.kubernetes.io/provisioned-by: csi.juicefs.com}}
spec:
  capacity: {storage: 1Gi}
  csi:
    driver: csi.juicefs.com
    volumeHandle: pvc-00000000-0000-4000-8000-00000000001d
    volumeAttributes: {subPath: team/old}
    nodePublishSecretRef: {namespace: kube-system, name: one}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: pvc-fine, annotations: {pv.kubernetes.io/provisioned-by: csi.juicefs.com}}
spec:
  capacity: {storage: 1Gi}
  csi:
    driver: csi.juicefs.com
    volumeHandle: pvc-fine
    volumeAttributes: {subPath: pvc-fine}
    nodePublishSecretRef: {namespace: kube-system, name: one}
";

fn path(text: &str) -> Path {
    Path::of(text.split('/')).expect("it is a path")
}

fn volumes(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new(&*PITH);
    command.arg("volumes").args(arguments).arg("--config").arg(site.path().join("pith.yaml"));
    command.arg("--secret-file").arg(site.path().join("secret.yaml"));
    command.stdin(Stdio::null()).output().expect("pith runs")
}

/// What is found, as `code object`, with the outcome behind it where something was done; and the exit code.
#[track_caller]
fn found(site: &Site, arguments: &[&str]) -> (BTreeSet<String>, Option<i32>) {
    let output = volumes(site, &[arguments, &["-o", "json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let line = |line: &Value| {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_string();
        let outcome = if line["repair"].is_null() { "by hand".to_string() } else { text("outcome") };
        format!("{} {} {outcome}", text("code"), text("name")).trim_end().to_string()
    };
    (lines.iter().map(line).collect(), output.status.code())
}

fn set(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(ToString::to_string).collect()
}

/// Makes a call that dies at a step.
#[track_caller]
fn cut(site: &Site, step: &str, call: &[&str]) {
    let mut dying = site.serve(&["--die-at", step]).expect("it serves");
    site.ask(call).expect("pith csi runs").expect_err("it is cut");
    dying.wait().expect("it ends");
}

#[test]
fn whatever_is_wrong_is_found_and_put_right_and_no_data_is_lost() {
    let scratch = Scratch::new();
    let secrets = scratch.secrets();
    let site = Site::new(CONFIG, OBJECTS, &secrets).expect("a site");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let serving = site.serve(&[]).expect("it serves");
    const VOLUMES: [&str; 7] =
        ["pvc-fine", "pvc-quota", "pvc-more", "pvc-unentered", "pvc-gone", "pvc-torn", "pvc-deleted"];
    for id in VOLUMES {
        site.ask(&["create", id, "--size", "1Gi"]).expect("pith csi runs").expect("it is made");
    }
    serving.kill().expect("it can be killed");
    assert_eq!(
        found(&site, &["check"]),
        (set(&["volume-unrecorded pvc-00000000-0000-4000-8000-00000000001d by hand"]), Some(0))
    );

    // Another cluster's volume, half made, in the same file system.
    let key = site.path().join("state/record.key");
    let config = format!("csi: {{socket: csi.sock, cluster: other, recordKey: {}}}\n", key.display());
    let other = Site::new(&config, "", &secrets).expect("a site");
    cut(&other, "index-made", &["create", "pvc-other", "--size", "1Gi"]);
    cut(&other, "record-written", &["create", "pvc-staged", "--size", "1Gi"]);
    // And ours, cut off.
    cut(&site, "directory-made", &["create", "pvc-half", "--size", "1Gi"]);
    cut(&site, "record-written", &["create", "pvc-never", "--size", "1Gi"]);
    cut(&site, "trash-made", &["delete", "pvc-deleted"]);
    scratch.run(&["quota", "delete", "META", "--path", "/pvc-quota"]);
    scratch.run(&["quota", "set", "META", "--path", "/pvc-more", "--capacity", "1537"]);
    runtime.block_on(with_worker(&secrets, async |worker: &Worker| {
        for directory in [".pith/paths/team/.below/lost/pvc-lost", "stray", "team/old", ".pith/staging/empty"] {
            worker.make_directories(&path(directory)).await.expect("it is made");
        }
        for file in ["pvc-fine/data", "pvc-half/data", "pvc-deleted/data", "team/old/data", "stray/data"] {
            worker.write(&path(file), b"data".into()).await.expect("it is written");
        }
        worker.write(&path(".pith/volumes/pvc-torn/record"), b"pith-rec".into()).await.expect("it is written");
        for gone in ["pvc-gone", ".pith/paths/pvc-unentered/pvc-unentered"] {
            assert_eq!(worker.remove(&path(gone)).await, Ok(true), "{gone}");
        }
    }));

    let before = runtime.block_on(tree(&secrets));
    let staged: Vec<String> = crate::volumes::directories(&before, &[".pith", "staging"]).into_iter().collect();
    let of_others = |outcome: &str| -> BTreeSet<String> {
        // Two of them have a record, and only one is ours.
        let of = |name: &String| {
            let output = volumes(&site, &["check", "-o", "json"]);
            let lines: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
            let place = format!("/.pith/staging/{name}");
            let line = lines.into_iter().find(|line| line["name"] == *place)?;
            let outcome = if line["repair"].is_null() { "by hand" } else { outcome };
            Some(format!("staged-record-left {place} {outcome}").trim_end().to_string())
        };
        staged.iter().filter_map(of).collect()
    };
    let expected = |outcome: &str| {
        let repaired = [
            "volume-unfinished pvc-half",
            "volume-deletion-unfinished pvc-deleted",
            "volume-quota-wrong pvc-quota",
            "volume-quota-wrong pvc-more",
            "volume-not-entered pvc-unentered",
            "volume-entry-stale pvc-lost",
        ];
        let repaired = repaired.map(|line| format!("{line} {outcome}").trim_end().to_string());
        repaired.into_iter().collect::<BTreeSet<String>>()
    };
    let by_hand = set(&[
        "volume-record-unusable pvc-torn by hand",
        "volume-directory-missing pvc-gone by hand",
        "volume-unrecorded pvc-00000000-0000-4000-8000-00000000001d by hand",
        "directory-unrecorded /stray by hand",
    ]);
    let all = |outcome: &str| -> BTreeSet<String> {
        expected(outcome).into_iter().chain(by_hand.clone()).chain(of_others(outcome)).collect()
    };
    let with_staged = of_others("");
    assert_eq!(staged.len(), 3, "{staged:?}");
    assert_eq!(with_staged.iter().filter(|line| line.ends_with("by hand")).count(), 1, "{with_staged:?}");
    assert_eq!(found(&site, &["check"]), (all(""), Some(1)));
    assert_eq!(found(&site, &["repair"]), (all(""), Some(1)));
    let text = volumes(&site, &["repair"]);
    let text = String::from_utf8_lossy(&text.stdout).to_string();
    assert!(text.contains("=> repairing would set the quota of volume `pvc-more` again"), "{text}");
    assert!(text.contains("the quota of /pvc-more is 1.5 TiB, and it is to be 1.0 GiB"), "{text}");
    assert_eq!(runtime.block_on(tree(&secrets)), before, "without --apply nothing is changed");

    let done = all("done");
    assert_eq!(found(&site, &["repair", "--apply"]), (done, Some(1)));
    let left = found(&site, &["check"]);
    let others: BTreeSet<String> = with_staged.iter().filter(|line| line.ends_with("by hand")).cloned().collect();
    assert_eq!(left, (by_hand.union(&others).cloned().collect(), Some(1)));

    let after: BTreeSet<String> = runtime.block_on(tree(&secrets)).iter().map(|entry| entry.path.to_string()).collect();
    for file in ["/pvc-fine/data", "/pvc-half/data", "/team/old/data", "/stray/data", "/.pith/volumes/pvc-other/record"]
    {
        assert!(after.contains(file), "{file} is gone");
    }
    let in_trash = |path: &String| path.starts_with("/.pith/trash/pvc-deleted.") && path.ends_with("/data/data");
    assert!(after.iter().any(in_trash), "{after:?}");
    assert!(!after.contains("/pvc-deleted"));
    for (path, size) in [("/pvc-quota", "1.0 GiB"), ("/pvc-more", "1.0 GiB"), ("/pvc-half", "1.0 GiB")] {
        let quota = scratch.run(&["quota", "get", "META", "--path", path]);
        assert!(quota.contains(size), "{path}: {quota}");
    }
    assert_eq!(site.volumes().expect("the records can be read")["pvc-half"]["state"], "ready");
    let other_volume = serde_json::json!({"id": "pvc-other", "cluster": "other"});
    assert_eq!(site.volumes().expect("the records can be read")["pvc-other"], other_volume);
    // The other cluster goes on as if nothing had been.
    let _serving = other.serve(&[]).expect("it serves");
    other.ask(&["create", "pvc-other", "--size", "1Gi"]).expect("pith csi runs").expect("it is made");
}

#[test]
fn what_was_not_looked_at_is_said() {
    let scratch = Scratch::new();
    let site = Site::new(CONFIG, "", &scratch.secrets()).expect("a site");
    let config = site.path().join("pith.yaml");
    let text = std::fs::read_to_string(&config).expect("it is there").replace("objects: {directory: objects}\n", "");
    std::fs::write(&config, text.replace("cluster: test", "cluster: test, quota: false")).expect("it is written");
    let expected = set(&["not-looked-at  by hand"]);
    assert_eq!(found(&site, &["check"]), (expected, Some(0)));
    let text = String::from_utf8_lossy(&volumes(&site, &["check"]).stdout).to_string();
    for sentence in ["no cluster was asked: name one with --kubeconfig, or files with --objects", "`csi.quota: false`"]
    {
        assert!(text.contains(sentence), "{text}");
    }
}

#[test]
fn records_that_an_application_put_back_or_copied_destroy_nothing() {
    let scratch = Scratch::new();
    let secrets = scratch.secrets();
    let site = Site::new(CONFIG, "", &secrets).expect("a site");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _serving = site.serve(&[]).expect("it serves");
    for id in ["pvc-a", "pvc-b", "pvc-c", "pvc-d"] {
        site.ask(&["create", id, "--size", "1Gi"]).expect("pith csi runs").expect("it is made");
    }
    site.ask(&["expand", "pvc-d", "--size", "2Gi"]).expect("pith csi runs").expect("it grows");
    site.ask(&["delete", "pvc-a"]).expect("pith csi runs").expect("it is deleted");
    let trash: Vec<String> =
        crate::volumes::directories(&runtime.block_on(tree(&secrets)), &[".pith", "trash"]).into_iter().collect();
    runtime.block_on(with_worker(&secrets, async |worker: &Worker| {
        for id in ["pvc-b", "pvc-c", "pvc-d"] {
            worker.write(&path(&format!("{id}/data")), b"data".into()).await.expect("it is written");
        }
        // The sealed record of a volume that is deleted, with other volumes' directories entered as its own.
        let old = path(&format!(".pith/trash/{}/record", trash[0]));
        let moved = worker.move_exclusive(&old, &path(".pith/volumes/pvc-a")).await;
        assert_eq!(moved, Ok(pith::juicefs::Moved::Moved));
        for other in ["pvc-b", "pvc-c"] {
            worker.make_directories(&path(&format!(".pith/paths/{other}/pvc-a"))).await.expect("it is made");
        }
        // One volume's record in the place of another's, and a size that is taken back.
        let copied = worker.read(&path(".pith/volumes/pvc-b/record")).await.expect("it can be read").expect("a record");
        worker.write(&path(".pith/volumes/pvc-c/record"), copied.to_vec()).await.expect("it is written");
        assert_eq!(worker.remove(&path(".pith/volumes/pvc-d/2")).await, Ok(true));
    }));
    let expected = set(&[
        "volume-deletion-unfinished pvc-a",
        "volume-entry-stale pvc-a",
        "volume-record-unusable pvc-c by hand",
        "volume-quota-wrong pvc-d",
    ]);
    assert_eq!(found(&site, &["check"]), (expected, Some(1)));
    let refusal = site.ask(&["delete", "pvc-c"]).expect("pith csi runs").expect_err("it is another volume's record");
    assert!(
        refusal.sentence.contains("it is generation 1 of volume `pvc-b`, and does not belong there"),
        "{refusal:?}"
    );
    let (_, code) = found(&site, &["repair", "--apply"]);
    assert_eq!(code, Some(1));
    site.ask(&["delete", "pvc-a"]).expect("pith csi runs").expect("it is deleted");
    assert_eq!(found(&site, &["check"]), (set(&["volume-record-unusable pvc-c by hand"]), Some(1)));
    let after: BTreeSet<String> = runtime.block_on(tree(&secrets)).iter().map(|entry| entry.path.to_string()).collect();
    for file in ["/pvc-b/data", "/pvc-c/data", "/pvc-d/data"] {
        assert!(after.contains(file), "{file} is gone: {after:?}");
    }
    // The other volumes go on as before.
    site.ask(&["delete", "pvc-b"]).expect("pith csi runs").expect("it is deleted");
}
