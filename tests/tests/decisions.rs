//! The decision log: what its lines say, and what `pith policy replay` makes of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use pith_tests::client::{Client, Protocol, get};
use pith_tests::juicefs::Scratch;
use pith_tests::provisioner::Site;
use pith_tests::server::{PITH, Server};
use pith_tests::wasm_builds;
use serde_json::{Value, json};

use crate::{SHOP, WEB};

/// The lines of a decision log.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("a decision log");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// What a server records of these reviews. The log stays in its folder.
async fn recorded(config: &str, reviews: &[Value]) -> (Server, Vec<Value>) {
    let mut server = Server::start(config, SHOP).expect("the server starts");
    let mut client = Client::connect(server.webhook, &server.ca(), Protocol::Http1).await.expect("a connection");
    for review in reviews {
        client.review(review.to_string()).await.expect("an answer");
    }
    drop(client);
    server.terminate().expect("the signal is sent");
    assert!(server.wait().expect("it stops").success());
    let lines = lines(&log(&server));
    (server, lines)
}

fn log(server: &Server) -> std::path::PathBuf {
    server.folder.path().join("decisions.jsonl")
}

fn web() -> Value {
    serde_json::from_str(WEB).expect("the fixture is JSON")
}

/// Without what is another thing every time.
fn timeless(record: &Value) -> Value {
    let mut record = record.clone();
    for key in ["time", "microseconds"] {
        assert!(record.as_object_mut().expect("a map").remove(key).is_some(), "there is no {key}: {record}");
    }
    for call in record["policies"].as_array_mut().expect("a list") {
        assert!(call.as_object_mut().expect("a map").remove("microseconds").is_some(), "{call}");
    }
    record
}

/// Runs `pith policy replay`: exit code, output, and what it complained about.
fn replay(module: &Path, log: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(&*PITH);
    command.args(["policy", "replay"]).arg(module).arg("--decisions").arg(log).args(more);
    let output = command.output().expect("pith runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn each_decision_has_a_line_and_its_questions_can_be_asked_again() {
    let sizes = wasm_builds::policy("resources");
    let inspected =
        Command::new(&*PITH).args(["policy", "inspect", "-o", "json"]).arg(&sizes).output().expect("pith runs");
    let inspected: Value = serde_json::from_slice(&inspected.stdout).expect("JSON");
    let digest = inspected[0]["digest"].as_str().and_then(|it| it.strip_prefix("sha256:")).expect("a digest");
    let config = format!(
        "decisions: {{file: decisions.jsonl, capture: true}}\npolicies:\n\
         - {{name: sizes, module: {{file: {sizes}}}, settings: {{default: s, sizes: {{s: {{requests: {{cpu: 77m}}}}}}}}}}\n\
         - {{name: wider, module: {{file: {sizes}}}, mode: monitor, priority: 1, settings: {{default: s, sizes: {{s: {{requests: {{cpu: 99m}}}}}}}}}}\n",
        sizes = sizes.display(),
    );
    let mut refused = web();
    refused["request"]["object"]["spec"]["hostUsers"] = json!(false);
    let (server, lines) = recorded(&config, &[web(), web(), refused]).await;
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert_eq!(timeless(&lines[0]), timeless(&lines[1]), "the same review has the same line");

    let record = &lines[0];
    assert_eq!((&record["kind"], &record["id"]), (&json!("Pod"), &web()["request"]["uid"]));
    assert_eq!((&record["namespace"], &record["decided"]["outcome"]), (&json!("shop"), &json!("inject")));
    let call = &record["policies"][0];
    assert_eq!(
        (&call["policy"], &call["hook"], &call["outcome"]),
        (&json!("sizes"), &json!("sidecar"), &json!("changed"))
    );
    assert_eq!((&call["digest"], &call["answer"]), (&json!(digest), &json!({"change": {"requests": {"cpu": "77m"}}})));
    let watched = &record["monitored"][0];
    assert_eq!((&watched["policy"], &watched["outcome"]), (&json!("wider"), &json!("different")));
    assert_eq!(watched["differences"], json!(["resources.requests.cpu: `99m` instead of `77m`"]));
    let decided = &lines[2]["decided"];
    assert_eq!((&decided["outcome"], &decided["reason"]), (&json!("deny"), &json!("unsupported-pod")));
    assert!(decided["sentence"].as_str().is_some_and(|it| it.contains("hostUsers")), "{decided}");

    let log = log(&server);
    let (code, said, complaint) = replay(&sizes, &log, &["--policy", "sizes"]);
    assert_eq!((code, &*said), (Some(0), "2 questions, 0 answered otherwise\n"), "{complaint}");
    let settings = server.folder.path().join("settings.yaml");
    fs::write(&settings, "default: s\nsizes: { s: { requests: { cpu: 78m } } }\n").expect("written");
    let with = ["--policy", "sizes", "--settings", settings.to_str().expect("text")];
    let (code, said, complaint) = replay(&sizes, &log, &with);
    let name = web()["request"]["object"]["metadata"]["name"].as_str().map_or_else(
        || web()["request"]["object"]["metadata"]["generateName"].as_str().expect("a name").to_string(),
        String::from,
    );
    let one = format!(
        "Pod shop/{name} (sidecar)\n  then  {{\"change\":{{\"requests\":{{\"cpu\":\"77m\"}}}}}}\n  now   \
         {{\"change\":{{\"requests\":{{\"cpu\":\"78m\"}}}}}}\n"
    );
    assert_eq!((code, said), (Some(1), format!("{one}{one}2 questions, 2 answered otherwise\n")), "{complaint}");
    let (code, said, _) = replay(&sizes, &log, &["--policy", "sizes", "-o", "json"]);
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (code, report),
        (Some(0), json!({"digest": format!("sha256:{digest}"), "questions": 2, "otherwise": []}))
    );

    let (code, _, complaint) = replay(&sizes, &log, &[]);
    assert_eq!(code, Some(2));
    assert!(complaint.contains("say with --policy of which one (sizes, wider)"), "{complaint}");
    let (code, _, complaint) = replay(&sizes, &log, &["--policy", "nobody"]);
    assert_eq!(code, Some(2));
    assert!(complaint.contains("has no question to `nobody`"), "{complaint}");
}

#[tokio::test]
async fn a_failure_is_recorded_and_a_better_module_shows_what_it_answers() {
    let (traps, answers) = (wasm_builds::guest("traps"), wasm_builds::guest("answers_plainly"));
    let config = format!(
        "decisions: {{file: decisions.jsonl, capture: true}}\npolicies:\n\
         - {{name: it, module: {{file: {}}}, hooks: [sidecar], settings: {{accept: true}}, onFailure: default}}\n",
        traps.display(),
    );
    let (server, lines) = recorded(&config, &[web()]).await;
    let call = &lines[0]["policies"][0];
    let failure = call["answer"]["failure"].as_str().expect("a failure");
    assert!(failure.starts_with("it trapped"), "{call}");
    assert!(
        lines[0]["decided"]["warnings"][0].as_str().is_some_and(|it| it.contains("policy `it` failed")),
        "{lines:?}"
    );
    let (code, said, complaint) = replay(&answers, &log(&server), &[]);
    assert_eq!(code, Some(1), "{complaint}");
    assert!(said.contains("\n  then  {\"failure\":\"it trapped") && said.contains("\n  now   {\"change\":{"), "{said}");
}

#[tokio::test]
async fn without_capture_there_are_no_questions_and_of_no_percent_no_lines() {
    let check = async |options: &str| {
        let sizes = wasm_builds::policy("resources");
        let policy = format!("policies: [{{name: sizes, module: {{file: {}}}}}]", sizes.display());
        let config = format!("decisions: {{file: decisions.jsonl{options}}}\n{policy}\n");
        recorded(&config, &[web()]).await
    };
    let (server, lines) = check("").await;
    assert_eq!(lines[0]["policies"][0]["answer"], json!({"change": {}}));
    assert!(lines[0]["policies"][0].get("case").is_none(), "{lines:?}");
    let (code, _, complaint) = replay(&wasm_builds::policy("resources"), &log(&server), &[]);
    assert_eq!(code, Some(2));
    assert!(complaint.contains("questions are in it with `decisions.capture`"), "{complaint}");
    assert!(check(", percent: 0").await.1.is_empty());
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_the_start_and_later_only_itself() {
    let error = Server::start("decisions: {file: nowhere/decisions.jsonl}\n", SHOP).expect_err("it is refused");
    assert!(error.to_string().contains("opening the decision log"), "{error:#}");
    // Whatever is written there is lost.
    let server = Server::start("decisions: {file: /dev/full}\n", SHOP).expect("the server starts");
    let mut client = Client::connect(server.webhook, &server.ca(), Protocol::Http1).await.expect("a connection");
    for _ in 0..3 {
        assert!(client.review(WEB).await.expect("an answer").status.is_success());
    }
    while !server.log().contains("the decision log cannot be written") {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let metrics = get(server.admin, "/metrics").await.expect("an answer").text();
    assert!(metrics.contains("pith_decisions_lost_total 0"), "{metrics}");
}

#[test]
fn a_new_volume_has_a_line_and_its_questions_can_be_asked_again() {
    let scratch = Scratch::new();
    let objects = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {unit: retail}}\n---\napiVersion: v1\nkind: \
                   PersistentVolumeClaim\nmetadata: {namespace: shop, name: data, uid: u-1, labels: {tier: hot}}\nspec: {accessModes: \
                   [ReadWriteMany], storageClassName: juicefs, resources: {requests: {storage: 1Gi}}}\n";
    let naming = wasm_builds::policy("naming");
    let config = format!(
        "csi: {{socket: csi.sock, cluster: test, quota: false}}\ndecisions: {{file: decisions.jsonl, capture: \
         true}}\npolicies:\n- name: by-unit\n  module: {{file: {}}}\n  settings: {{template: ['{{namespaceLabels.unit}}', \
         '{{claim}}-{{labels.tier}}'], onCollision: refuse}}\n",
        naming.display()
    );
    let site = Site::new(&config, objects, &scratch.secrets()).expect("a site");
    let serving = site.serve(&[]).expect("it serves");
    site.ask(&["create", "pvc-1", "--size", "1Gi", "--claim", "shop/data"])
        .expect("pith csi runs")
        .expect("it is made");
    site.ask(&["create", "pvc-1", "--size", "1Gi", "--claim", "shop/data"])
        .expect("pith csi runs")
        .expect("it is found");
    drop(serving);
    let log = site.path().join("decisions.jsonl");
    let lines = lines(&log);
    assert_eq!(lines.len(), 1, "a retry decides nothing: {lines:#?}");
    assert_eq!(
        (&lines[0]["kind"], &lines[0]["id"], &lines[0]["name"]),
        (&json!("Volume"), &json!("pvc-1"), &json!("data"))
    );
    let decided = &lines[0]["decided"];
    assert_eq!((&decided["outcome"], &decided["directory"]), (&json!("place"), &json!("/retail/data-hot")));
    assert_eq!(decided["namedBy"], json!({"policy": "by-unit"}));
    let (code, said, complaint) = replay(&naming, &log, &[]);
    assert_eq!((code, &*said), (Some(0), "1 questions, 0 answered otherwise\n"), "{complaint}");
}
