//! What bindings grant to policies, end to end: the clock and look-ups in the webhook, in CreateVolume, in commands and in replays.

use std::fs;
use std::path::Path;
use std::process::Command;

use pith_tests::client::{Client, Protocol};
use pith_tests::juicefs::Scratch;
use pith_tests::provisioner::Site;
use pith_tests::server::{PITH, Server};
use pith_tests::wasm_builds::{example, guest};
use serde_json::{Value, json};

use crate::{SHOP, WEB};

/// Beside the shop: a namespace that no binding here selects, and a claim and its volume in each.
const MORE: &str = "---
apiVersion: v1
kind: Namespace
metadata: { name: bank, labels: { team: bank } }
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { namespace: bank, name: ledger, uid: u-2 }
spec: { volumeName: pv-2 }
---
apiVersion: v1
kind: PersistentVolume
metadata: { name: pv-2 }
spec: { claimRef: { uid: u-2 }, csi: { driver: csi.juicefs.com, volumeHandle: pv-2 } }
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { namespace: shop, name: data, uid: u-1 }
spec: { volumeName: pv-1 }
---
apiVersion: v1
kind: PersistentVolume
metadata: { name: pv-1 }
spec:
  claimRef: { uid: u-1 }
  csi:
    driver: csi.juicefs.com
    volumeHandle: pv-1
    volumeAttributes: { csi.storage.k8s.io/provisioner-secret-name: canary }
";

/// What `looks_up` says where its binding selects the team of the shop: the bank is as if it were not there.
const SEEN: &str = "shop 2 1 4, bank 0 0 0, nowhere 0 0 0, lists [1, 0, 1], class true";

const EVERY_KIND: &str = "{lookup: [Namespace, StorageClass, PersistentVolume, PersistentVolumeClaim]}";

/// A binding of this guest for exemption, with these grants.
fn binding(name: &str, module: &str, grants: &str) -> String {
    let module = guest(module);
    format!(
        "- name: {name}\n  module: {{file: {}}}\n  hooks: [exemption]\n  settings: {{accept: true}}\n  grants: {grants}\n  \
         match: {{namespaceSelector: {{matchLabels: {{team: web}}}}}}\n  onFailure: default\n",
        module.display()
    )
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

/// Runs `pith` and gives the exit code, the output and what it complained about.
fn pith(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(&*PITH).args(arguments).output().expect("pith runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The lines of the decision log of a server with these policies that is asked the same review twice.
async fn recorded(policies: &str) -> (Server, Vec<Value>) {
    let config = format!("decisions: {{file: decisions.jsonl, capture: true}}\npolicies:\n{policies}");
    let mut server = Server::start(&config, &format!("{SHOP}{MORE}")).expect("the server starts");
    let mut client = Client::connect(server.webhook, &server.ca(), Protocol::Http1).await.expect("a connection");
    for _ in 0..2 {
        client.review(WEB).await.expect("an answer");
    }
    drop(client);
    server.terminate().expect("the signal is sent");
    assert!(server.wait().expect("it stops").success());
    let lines = fs::read_to_string(server.folder.path().join("decisions.jsonl")).expect("a decision log");
    (server, lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect())
}

/// What `pith policy replay` makes of a policy's questions, asked of this guest.
fn replayed(server: &Server, policy: &str, module: &str) -> (Option<i32>, String, String) {
    let log = server.folder.path().join("decisions.jsonl");
    let grants = ["--grant-clock", "--grant-lookup"];
    pith(
        &[&["policy", "replay", text(&guest(module)), "--decisions", text(&log), "--policy", policy], &grants[..]]
            .concat(),
    )
}

#[tokio::test]
async fn what_a_grant_shows_is_recorded_and_a_replay_answers_with_it() {
    let policies = [
        binding("time", "asks_clock", "[clock]"),
        binding("again", "asks_clock", "[clock]"),
        binding("objects", "looks_up", &format!("[{EVERY_KIND}]")),
        binding("flood", "looks_up_forever", "[{lookup: [Namespace]}]"),
        binding("long", "looks_up_at_length", "[{lookup: [PersistentVolumeClaim]}]"),
        binding("plain", "answers_plainly", "[]"),
    ];
    let (server, lines) = recorded(&policies.concat()).await;
    let call = |line: usize, policy: &str| {
        let calls = lines[line]["policies"].as_array().expect("calls");
        calls.iter().find(|call| call["policy"] == policy).cloned().unwrap_or_else(|| panic!("{calls:?}"))
    };

    let skip = |text: &str| json!({"skip": text});
    let now = |call: &Value| humantime::parse_rfc3339(call["case"]["now"].as_str().expect("a time")).expect("a time");
    let one = call(0, "time");
    let milliseconds = now(&one).duration_since(std::time::UNIX_EPOCH).expect("it is later").as_millis();
    assert!(now(&one).elapsed().is_ok_and(|it| it.as_secs() < 600), "{one}");
    assert_eq!(one["answer"], skip(&format!("{milliseconds} 0")), "it stands still");
    assert_eq!(call(0, "again")["answer"], one["answer"], "one review has one time");
    assert!(now(&call(1, "time")) >= now(&one), "another review has its own");
    assert!(one["case"].get("lookups").is_none(), "{one}");

    let objects = call(0, "objects");
    assert_eq!(objects["answer"], skip(SEEN));
    assert!(objects["case"].get("now").is_none(), "{objects}");
    let lookups = objects["case"]["lookups"].as_array().expect("look-ups");
    assert_eq!(lookups.len(), 19, "each question once: {lookups:#?}");
    let found = |kind: &str, namespace: &str, name: &str| {
        let same = |it: &&Value| it["kind"] == kind && it["namespace"] == namespace && it["name"] == name;
        lookups.iter().find(same).unwrap_or_else(|| panic!("{lookups:#?}"))["found"].clone()
    };
    assert_eq!(found("PersistentVolume", "shop", "data")[0]["spec"]["csi"]["volumeHandle"], "pv-1");
    assert_eq!(found("PersistentVolume", "bank", "ledger"), json!([]));
    assert!(!objects.to_string().contains("canary"), "{objects}");

    let flood = call(0, "flood");
    assert_eq!(flood["answer"], json!({"failure": "it used up its budget of look-ups"}));
    assert_eq!(flood["case"]["lookups"].as_array().map(Vec::len), Some(1), "{flood}");
    let long = call(0, "long").to_string();
    assert!(long.len() < 300_000, "{} bytes", long.len());
    assert_eq!(call(0, "plain")["answer"], json!("inject"));

    for (policy, module) in [
        ("time", "asks_clock"),
        ("objects", "looks_up"),
        ("flood", "looks_up_forever"),
        ("long", "looks_up_at_length"),
        ("plain", "answers_plainly"),
    ] {
        let (code, said, complaint) = replayed(&server, policy, module);
        assert_eq!((code, &*said), (Some(0), "2 questions, 0 answered otherwise\n"), "{policy}: {complaint}");
    }
    let (code, said, _) = replayed(&server, "time", "looks_up");
    assert_eq!(code, Some(1));
    assert!(said.contains("it looks up Namespace `shop`, which is not among the `lookups` of the case"), "{said}");
    let (code, said, _) = replayed(&server, "plain", "asks_clock");
    assert_eq!(code, Some(1));
    assert!(said.contains("it asks what time it is, and the case has no `now`"), "{said}");
}

#[test]
fn a_command_answers_from_files_and_tells_the_time_that_it_is_given() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, content).expect("written");
        path
    };
    let objects = write("objects/all.yaml", &format!("{SHOP}{MORE}"));
    let review: Value = serde_json::from_str(WEB).expect("JSON");
    let mut pod = review["request"]["object"].clone();
    (pod["apiVersion"], pod["kind"]) = (json!("v1"), json!("Pod"));
    pod["metadata"]["namespace"] = json!("shop");
    let pod = write("pod.json", &pod.to_string());
    let inject = |policies: &str, more: &[&str]| {
        let config = write("pith.yaml", &format!("stateDir: {}/state\npolicies:\n{policies}", folder.path().display()));
        let objects = objects.parent().expect("a folder");
        let arguments = [
            "inject",
            "-f",
            text(&pod),
            "--config",
            text(&config),
            "--objects",
            text(objects),
            "--explain",
            "-o",
            "json",
        ];
        pith(&[&arguments, more].concat())
    };
    let at = ["--now", "2025-11-27T18:00:00Z"];
    let clock = binding("time", "asks_clock", "[clock]");
    let (code, said, complaint) = inject(&clock, &at);
    assert_eq!(code, Some(0), "{complaint}");
    assert!(said.contains("1764266400000 0"), "{said}");
    let (_, without, _) = inject(&clock, &[]);
    assert!(!without.contains("1764266400000 0"), "{without}");
    let (_, said, complaint) = inject(&binding("objects", "looks_up", &format!("[object, {EVERY_KIND}]")), &at);
    assert!(said.contains(SEEN), "{said}{complaint}");

    let refused = |policies: &str, sentence: &str| {
        let (code, _, complaint) = inject(policies, &[]);
        assert_eq!(code, Some(2), "{complaint}");
        assert!(complaint.contains(sentence), "expected `{sentence}` in: {complaint}");
    };
    let missing = binding("objects", "looks_up", "[object, {lookup: [Namespace, StorageClass]}]");
    refused(&missing, "loading the policy `objects`");
    let line = format!("set `grants: [object, {EVERY_KIND}]` in the binding to let it look up");
    refused(&missing, &line);
    refused(&binding("time", "asks_clock", "[]"), "set `grants: [clock]` in the binding to let it read the time");
    refused(
        &binding("no", "asks_clock", "[{lookup: [Secret]}]"),
        "unknown variant `Secret`, expected one of `Namespace`",
    );
    refused(&binding("no", "asks_clock", "[{lookup: []}]"), "grants has a `lookup` of no kind");
    refused(&binding("no", "asks_clock", "[network]"), "unknown variant `network`");
}

#[test]
fn a_module_says_what_its_binding_must_grant() {
    let check = |module: &Path, grants: Value, line: &str| {
        let (code, said, complaint) = pith(&["policy", "inspect", text(module), "-o", "json"]);
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!((code, &said[0]["grants"]), (Some(0), &grants), "{complaint}");
        let (_, said, _) = pith(&["policy", "inspect", text(module)]);
        assert!(said.ends_with(&format!("  grants    {line}\n")), "{said}");
    };
    check(&guest("asks_object"), json!(["object"]), "[object]");
    check(&guest("asks_clock"), json!(["clock"]), "[clock]");
    let claims = json!([{"lookup": ["PersistentVolumeClaim"]}]);
    check(&example("most"), claims, "[{lookup: [PersistentVolumeClaim]}]");
    check(&example("minimal"), json!([]), "none");
}

#[test]
fn a_case_of_a_table_says_what_is_looked_up_and_what_time_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases.yaml");
    let asked = "hook: naming\n  settings: { most: 1 }\n  input: { namespace: { name: shop } }\n";
    let claims = |spec: &str| {
        format!("  lookups: [{{ kind: PersistentVolumeClaim, namespace: shop, found: [{{ spec: {spec} }}] }}]\n")
    };
    let table = format!(
        "- name: a claim without a volume leaves room\n  {asked}{}  expect: pass\n\
         - name: a claim with one takes it\n  {asked}{}  expect: {{ deny: '`shop` has 1 volumes, and may have 1' }}\n",
        claims("{}"),
        claims("{ volumeName: pv-1 }")
    );
    fs::write(&cases, table).expect("written");
    let most = example("most");
    let arguments = ["policy", "test", text(&most), "--cases", text(&cases)];
    let (code, said, complaint) = pith(&[&arguments[..], &["--grant-lookup"]].concat());
    assert_eq!(code, Some(0), "{said}{complaint}");
    let (code, _, complaint) = pith(&arguments);
    assert_eq!(code, Some(2));
    assert!(complaint.contains("set `grants: [{lookup: [PersistentVolumeClaim]}]`"), "{complaint}");
    let failing = |table: &str, sentence: &str| {
        fs::write(&cases, table).expect("written");
        let (code, said, complaint) = pith(&[&arguments[..], &["--grant-lookup"]].concat());
        assert_eq!(code, Some(1), "{complaint}");
        assert!(said.contains(sentence), "expected `{sentence}` in: {said}");
    };
    let unsaid = format!("- name: nothing is said\n  {asked}  expect: pass\n");
    failing(&unsaid, "it looks up PersistentVolumeClaim in `shop`, which is not among the `lookups` of the case");
    let much = "  lookups: [{ kind: PersistentVolumeClaim, namespace: shop, found: null }]\n";
    failing(&format!("- name: too much\n  {asked}{much}  expect: pass\n"), "it used up its budget of look-ups");
    let secret = "  lookups: [{ kind: Secret, namespace: shop, found: [] }]\n";
    failing(
        &format!("- name: a Secret\n  {asked}{secret}  expect: pass\n"),
        "the kind `Secret`, which nobody can look up",
    );
}

#[test]
fn a_new_volume_is_decided_by_what_its_policy_looks_up() {
    let scratch = Scratch::new();
    let claim = |name: &str, uid: &str, volume: &str| {
        format!(
            "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{namespace: shop, name: {name}, uid: {uid}}}\nspec: \
             {{accessModes: [ReadWriteMany], storageClassName: juicefs{volume}, resources: {{requests: {{storage: 1Gi}}}}}}\n"
        )
    };
    let objects = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n{}{}",
        claim("data", "u-1", ""),
        claim("there", "u-2", ", volumeName: pv-2")
    );
    let most = example("most");
    let config = |most_volumes: usize| {
        format!(
            "csi: {{socket: csi.sock, cluster: test, quota: false}}\ndecisions: {{file: decisions.jsonl, capture: true}}\npolicies:\n\
             - name: most\n  module: {{file: {}}}\n  settings: {{most: {most_volumes}}}\n  grants: [{{lookup: \
             [PersistentVolumeClaim]}}]\n",
            most.display()
        )
    };
    let create = |most_volumes: usize| {
        let site = Site::new(&config(most_volumes), &objects, &scratch.secrets()).expect("a site");
        let serving = site.serve(&[]).expect("it serves");
        let created = site.ask(&["create", "pvc-1", "--size", "1Gi", "--claim", "shop/data"]).expect("pith csi runs");
        drop(serving);
        let log = site.path().join("decisions.jsonl");
        let (code, said, complaint) =
            pith(&["policy", "replay", text(&most), "--decisions", text(&log), "--grant-lookup"]);
        assert_eq!((code, &*said), (Some(0), "1 questions, 0 answered otherwise\n"), "{complaint}");
        created.map(drop).map_err(|refusal| refusal.sentence)
    };
    let refused = create(1).expect_err("there is no room");
    assert!(refused.contains("`shop` has 1 volumes, and may have 1"), "{refused}");
    create(2).expect("there is room");
}
