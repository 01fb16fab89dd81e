//! The canary: a word that stands wherever a secret can, and must come out nowhere.
//!
//! Everything runs at the noisiest level of the log. Extend this with every new path a secret can take.

use std::process::Command;

use pith_tests::client::{Client, Protocol, get};
use pith_tests::server::{PITH, Server};
use pith_tests::wasm_builds;
use serde_json::{Value, json};

use crate::{SHOP, WEB};

const CANARY: &str = "canary-5e1f0c";

/// Everything but the compiler, which writes gigabytes about modules and sees no request.
const NOISE: &str = "trace,cranelift_codegen=warn,cranelift_frontend=warn,regalloc2=warn,wasmtime_internal_cranelift=warn,\
                     wasmtime_environ=warn,wasmtime=warn,wasmparser=warn";

/// A Secret with the canary in every place that one has, beside the objects that are read.
fn objects() -> String {
    format!(
        "{SHOP}\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: juicefs-shop\n  namespace: pith-system\n  \
         annotations: {{kubectl.kubernetes.io/last-applied-configuration: '{CANARY}'}}\nstringData:\n  name: shop\n  \
         metaurl: redis://:{CANARY}@redis:6379/1\n  storage: s3\n  bucket: https://{CANARY}.example.com\n  \
         access-key: {CANARY}\n  secret-key: {CANARY}\n  token: {CANARY}\n  passphrase: {CANARY}\n  \
         encrypt_rsa_key: {CANARY}\n  envs: '{{\"KEY\": \"{CANARY}\"}}'\n  format-options: session-token={CANARY}\ndata:\n  \
         secretkey: {CANARY}\n"
    )
}

/// The review of a pod with the canary wherever the pod itself may hold a secret.
fn review() -> Value {
    let mut review: Value = serde_json::from_str(WEB).expect("the fixture is JSON");
    let pod = &mut review["request"]["object"];
    pod["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!(CANARY);
    pod["spec"]["containers"][0]["env"][1]["value"] = json!(CANARY);
    pod["spec"]["containers"][0]["command"] = json!(["/srv/web", format!("--token={CANARY}")]);
    pod["spec"]["containers"][1]["args"] = json!([CANARY]);
    review["request"]["userInfo"]["extra"] = json!({"token": [CANARY]});
    review
}

#[track_caller]
fn check(place: &str, text: &str) {
    assert!(!text.contains(CANARY), "the canary is in {place}: {text}");
    // A patch travels in base64, at any of its three alignments.
    for offset in 0..3 {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &CANARY.as_bytes()[offset..]);
        let inner = &encoded[..encoded.len() - 4];
        assert!(!text.contains(inner), "the canary is in {place} as base64: {text}");
    }
}

#[tokio::test]
async fn no_secret_comes_out_of_the_webhook() {
    let config = format!(
        "log: {{format: json, filter: '{NOISE}'}}\nwebhook: {{maxBody: 64Ki}}\npolicies:\n\
         - {{name: sizes, module: {{file: {}}}, settings: {{teams: {{web: {{change: {{limits: {{memory: 2Gi}}}}}}}}}}}}\n\
         - {{name: panics, module: {{file: {}}}, settings: {{accept: true}}, onFailure: default, priority: 1, hooks: [sidecar]}}\n",
        wasm_builds::policy("resources").display(),
        wasm_builds::guest("panics").display(),
    );
    let server = Server::start(&config, &objects()).expect("the server starts");
    let ca = server.ca();
    let connect = |protocol| Client::connect(server.webhook, &ca, protocol);

    let changed = |change: &dyn Fn(&mut Value)| {
        let mut review = review();
        change(&mut review);
        review.to_string()
    };
    let volume = "/request/object/spec/volumes/0";
    let cut = review().to_string();
    let requests = [
        changed(&|_| {}),
        // Refusals.
        changed(&|review| {
            *review.pointer_mut(volume).expect("it") = json!({"name": CANARY, "csi": {"driver": "csi.juicefs.com"}})
        })
        .replace(&format!("\"name\":\"{CANARY}\""), "\"name\":\"orders\""),
        changed(&|review| review["request"]["object"]["spec"]["hostUsers"] = json!(false)),
        changed(&|review| {
            review["request"]["object"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = json!("no")
        }),
        changed(&|review| {
            review["request"]["object"]["spec"]["initContainers"] = json!([{"name": "jfs-mount", "env": [CANARY]}])
        }),
        changed(&|review| review["request"]["object"]["spec"] = json!(CANARY)),
        changed(&|review| review["request"]["object"]["metadata"] = json!(CANARY)),
        changed(&|review| review["request"]["object"]["metadata"]["labels"] = json!(CANARY)),
        // What cannot be read.
        cut[..cut.rfind(CANARY).expect("it is there") + CANARY.len()].to_string(),
        format!("{{\"{CANARY}\": 1, \"{CANARY}\": 2}}"),
        format!("\"{CANARY}\""),
        format!("{{\"kind\": \"{CANARY}\"}}"),
        format!("{{\"kind\": \"AdmissionReview\", \"apiVersion\": \"{CANARY}\"}}"),
        changed(&|review| review["request"]["uid"] = json!([CANARY])),
        changed(&|review| review["padding"] = json!(CANARY.repeat(10_000))),
    ];
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for request in &requests {
            let answer =
                connect(protocol).await.expect("a connection").review(request.clone()).await.expect("an answer");
            check("an answer", &answer.text());
        }
    }

    let metrics = get(server.admin, "/metrics").await.expect("an answer").text();
    assert!(metrics.contains(r#"policy="panics",hook="sidecar",outcome="trap""#), "the policy did not fail: {metrics}");
    check("the metrics", &metrics);
    let log = server.log();
    assert!(log.contains("\"TRACE\""), "the log is not at its noisiest");
    check("the log", &log);
    check("the process list", &processes());
}

/// The argv and the environment that any user of the machine can read of `pith`'s own processes.
fn processes() -> String {
    let mut found = String::new();
    for entry in std::fs::read_dir("/proc").expect("a /proc").flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains("pith") {
            found.push_str(&command);
            found.push('\n');
        }
    }
    assert!(found.contains("serve"), "pith serve is not in the process list");
    found
}

#[test]
fn no_secret_comes_out_of_the_offline_commands() {
    let folder = pith_tests::server::folder("", &objects()).expect("a folder");
    std::fs::write(folder.path().join("pod.json"), review()["request"]["object"].to_string()).expect("written");
    let broken = format!("{{\"kind\": \"Pod\", \"{CANARY}\": [");
    std::fs::write(folder.path().join("broken.json"), broken).expect("written");
    let cases: [&[&str]; 4] = [
        &["inject", "-f", "pod.json", "--config", "pith.yaml", "--explain", "-o", "json"],
        &["inject", "-f", "broken.json", "--config", "pith.yaml"],
        &["config", "--config", "pith.yaml"],
        &["inject", "-f", "objects/all.yaml", "--config", "pith.yaml"],
    ];
    for arguments in cases {
        let output = Command::new(&*PITH).args(arguments).current_dir(folder.path()).output().expect("pith runs");
        check(arguments[0], &String::from_utf8_lossy(&output.stdout));
        check(arguments[0], &String::from_utf8_lossy(&output.stderr));
    }
}
