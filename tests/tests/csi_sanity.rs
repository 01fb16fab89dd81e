//! The conformance suite of CSI, `csi-sanity`, against `pith serve` on the real JuiceFS client.

use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use pith_tests::go_tools::CSI_SANITY;
use pith_tests::juicefs::Scratch;
use pith_tests::provisioner::Site;
use serde_json::json;

/// The three cases of the node service that need a node which mounts; Pith has none yet. Everything else of what is declared
/// must pass.
const NODE_THAT_MOUNTS: &str =
    "Node Service (should work|should be idempotent|NodeUnpublishVolume should remove target path)";

/// One Pith with a file system of its own, whose volumes it lists.
fn site(scratch: &Scratch) -> Site {
    let site = Site::new("csi: {socket: csi.sock, secretFiles: [secret.yaml]}\n", "", &scratch.secrets());
    let site = site.expect("a site");
    // One Secret for every call that takes one.
    let calls = [
        "CreateVolumeSecret",
        "DeleteVolumeSecret",
        "ControllerValidateVolumeCapabilitiesSecret",
        "ControllerExpandVolumeSecret",
        "ControllerModifyVolumeSecret",
        "CreateSnapshotSecret",
        "DeleteSnapshotSecret",
        "ListSnapshotsSecret",
        "GetSnapshotSecret",
    ];
    let secrets: serde_json::Value = calls.iter().map(|call| (call.to_string(), json!(scratch.secrets()))).collect();
    // JSON is YAML.
    std::fs::write(site.path().join("sanity-secrets.yaml"), secrets.to_string()).expect("written");
    let mutable = json!({"inodes": "1000", "trashDays": "3"}).to_string();
    std::fs::write(site.path().join("sanity-mutable.yaml"), mutable).expect("written");
    site
}

/// All cases in the order that the seed gives them. The answer is what the suite says of them.
#[track_caller]
fn check(site: &Site, seed: u64) -> String {
    let path = |name: &str| site.path().join(name).display().to_string();
    let output = Command::new(&*CSI_SANITY)
        .arg(format!("--csi.endpoint=unix://{}", site.socket().display()))
        .arg(format!("--csi.secrets={}", path("sanity-secrets.yaml")))
        .arg(format!("--csi.testvolumemutableparameters={}", path("sanity-mutable.yaml")))
        .arg(format!("--csi.mountdir={}", path("mount")))
        .arg(format!("--csi.stagingdir={}", path("staging")))
        .args(["--csi.testvolumesize=1073741824", "--csi.testvolumeexpandsize=2147483648", "--ginkgo.no-color"])
        .args([format!("--ginkgo.seed={seed}"), "--ginkgo.randomize-all".into()])
        .arg(format!("--ginkgo.skip={NODE_THAT_MOUNTS}"))
        .current_dir(site.path())
        .stdin(Stdio::null())
        .output()
        .expect("csi-sanity runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "seed {seed}: {said}\nthe log of pith serve:\n{}", site.log());
    let summary = said.lines().find(|line| line.starts_with("Ran ")).expect("a summary");
    let passed = said.lines().find(|line| line.contains(" Passed | ")).expect("a result");
    // Pending is what the suite has switched off.
    assert!(passed.contains("| 0 Failed | 0 Pending |"), "{passed}");
    // Nothing is left of what it made.
    assert!(site.volumes().expect("the records can be read").is_empty());
    format!("seed {seed}: {summary}\n{passed}")
}

/// Another one each time; a failure says it, and `check` with it replays the order.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    u64::from(now.subsec_nanos()) + 1
}

#[test]
fn csi_sanity_passes_three_times_in_random_order() {
    let scratch = Scratch::new();
    let site = site(&scratch);
    let _serving = site.serve(&[]).expect("it serves");
    for _ in 0..3 {
        // Shown by `cargo test -- --nocapture`, and quoted in the documents.
        println!("{}", check(&site, seed()));
    }
}

#[test]
fn csi_sanity_passes_against_two_at_once_with_a_file_system_each() {
    let seed = seed();
    std::thread::scope(|scope| {
        for offset in 0..2 {
            scope.spawn(move || {
                let scratch = Scratch::new();
                let site = site(&scratch);
                let _serving = site.serve(&[]).expect("it serves");
                println!("{}", check(&site, seed + offset));
            });
        }
    });
}
