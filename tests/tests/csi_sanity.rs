//! The conformance suite of CSI, `csi-sanity`, against `pith serve` on the real JuiceFS client.

use std::process::{Command, Stdio};

use pith_tests::go_tools::csi_sanity;
use pith_tests::juicefs::Scratch;
use pith_tests::provisioner::Site;
use serde_json::json;

/// The three cases of the node service that need a node which mounts; Pith has none yet. Everything else of what is declared
/// must pass.
const NODE_THAT_MOUNTS: &str =
    "Node Service (should work|should be idempotent|NodeUnpublishVolume should remove target path)";

#[test]
fn csi_sanity_passes_on_a_real_file_system() {
    let scratch = Scratch::new();
    let site = Site::new("csi: {socket: csi.sock}\n", "", &scratch.secrets()).expect("a site");
    let _serving = site.serve(&[]).expect("it serves");
    // One Secret for every call that takes one.
    let calls = [
        "CreateVolumeSecret",
        "DeleteVolumeSecret",
        "ControllerValidateVolumeCapabilitiesSecret",
        "ControllerExpandVolumeSecret",
    ];
    let secrets: serde_json::Value = calls.iter().map(|call| (call.to_string(), json!(scratch.secrets()))).collect();
    let file = site.path().join("sanity-secrets.yaml");
    // JSON is YAML.
    std::fs::write(&file, secrets.to_string()).expect("written");
    let sanity = csi_sanity().expect("csi-sanity can be built");
    let output = Command::new(sanity)
        .arg(format!("--csi.endpoint=unix://{}", site.socket().display()))
        .arg(format!("--csi.secrets={}", file.display()))
        .args(["--csi.testvolumesize=1073741824", "--csi.testvolumeexpandsize=2147483648", "--ginkgo.no-color"])
        .arg(format!("--ginkgo.skip={NODE_THAT_MOUNTS}"))
        .current_dir(site.path())
        .stdin(Stdio::null())
        .output()
        .expect("csi-sanity runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\nthe log of pith serve:\n{}", site.log());
    let summary = said.lines().find(|line| line.starts_with("Ran ")).expect("a summary");
    let passed = said.lines().find(|line| line.contains(" Passed | ")).expect("a result");
    // Shown by `cargo test -- --nocapture`, and quoted in the documents.
    println!("{summary}\n{passed}");
    assert!(passed.contains("| 0 Failed |"), "{passed}");
    // Nothing is left of what it made.
    assert!(site.volumes().expect("the records can be read").is_empty());
}
