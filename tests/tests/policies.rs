//! The first-party policies through the real host: `pith policy test` asks them the same tables of cases as their own native tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use pith_tests::client::{Client, Protocol};
use pith_tests::cluster::static_volume;
use pith_tests::server::{PITH, Server, root};
use pith_tests::wasm_builds;
use serde_json::{Value, json};

use crate::cluster::yaml;
use crate::{SHOP, WEB};

/// The machines of CI are busy, and this is about answers and not about time.
const LONG: &str = "5s";

/// Every first-party policy, by its folder, and the one hook that it has.
const POLICIES: [(&str, &str); 3] = [("exemption", "exemption"), ("naming", "naming"), ("resources", "sidecar")];

/// Runs `pith policy` and gives the exit code, the output and what it complained about.
fn policy(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(&*PITH).arg("policy").args(arguments).output().expect("pith runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

/// What comes of a table of its own.
fn tried(module: &str, table: &str, more: &[&str]) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases.yaml");
    std::fs::write(&cases, table).expect("written");
    let module = wasm_builds::policy(module);
    let (code, report, complaint) =
        policy(&[&["test", text(&module), "--cases", text(&cases), "-o", "json"], more].concat());
    (code, serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {complaint}")))
}

#[test]
fn every_policy_answers_its_table_in_wasm() {
    for (name, hook) in POLICIES {
        let module = wasm_builds::policy(name);
        let (_, inspected, _) = policy(&["inspect", text(&module), "-o", "json"]);
        let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
        assert_eq!((&inspected[0]["hooks"], &inspected[0]["settings"]), (&json!([hook]), &json!(true)));
        let cases = root().join("policies").join(name).join("cases.yaml");
        let (code, said, complaint) = policy(&["test", text(&module), "--deadline", LONG, "--cases", text(&cases)]);
        assert_eq!(code, Some(0), "{name}: {said}{complaint}");
        let asked = said.lines().filter(|line| line.starts_with("ok ")).count();
        assert!(asked >= 10 && said.ends_with(&format!("\n{asked} cases, 0 failed\n")), "{name}: {said}");
    }
}

/// The policy itself says which settings it knows, to whoever gives it one that it does not.
#[test]
fn the_schema_of_a_policy_has_the_settings_that_it_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases.yaml");
    fs::write(&cases, "- { name: unknown, hook: settings, settings: { colour: red }, expect: valid }")
        .expect("written");
    for (name, _) in POLICIES {
        let module = wasm_builds::policy(name);
        let (_, inspected, _) = policy(&["inspect", text(&module), "-o", "json"]);
        let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
        assert_eq!(inspected[0]["contract"], "pith:policy@0.1.0");
        let schema = inspected[0]["settingsSchema"]["properties"].as_object().expect("a schema");
        let (_, said, _) = policy(&["test", text(&module), "--cases", text(&cases)]);
        // As in: unknown field `colour`, expected `a` or `b`.
        let known: BTreeSet<&str> = said.split('`').skip(1).step_by(2).filter(|it| *it != "colour").collect();
        assert_eq!(schema.keys().map(String::as_str).collect::<BTreeSet<_>>(), known, "{name}: {said}");
    }
}

/// They were built when the contract was 0.1.0, and are never built again.
#[test]
fn policies_that_were_built_against_version_0_1_answer_as_they_did() {
    let fixtures = root().join("tests/fixtures/policies-0.1");
    for (name, hook) in POLICIES {
        let module = fixtures.join(format!("{name}.wasm"));
        let (_, inspected, _) = policy(&["inspect", text(&module), "-o", "json"]);
        let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
        let imports = inspected[0]["imports"].as_array().expect("a list");
        assert!(imports.iter().all(|it| it.as_str().is_some_and(|it| it.ends_with("@0.1.0"))), "{inspected}");
        assert_eq!(inspected[0]["hooks"], json!([hook]));
        let (code, said, complaint) = policy(&[
            "test",
            text(&module),
            "--deadline",
            LONG,
            "--cases",
            text(&fixtures.join(format!("{name}.yaml"))),
        ]);
        assert_eq!(code, Some(0), "{name}: {said}{complaint}");
    }
}

#[test]
fn no_policy_folder_is_left_out() {
    let folders = std::fs::read_dir(root().join("policies")).expect("a folder");
    let folders = folders.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let known: BTreeSet<String> = POLICIES.iter().map(|(policy, _)| policy.to_string()).collect();
    assert_eq!(folders.collect::<BTreeSet<_>>(), known);
}

#[test]
fn a_case_that_fails_says_what_was_expected_and_what_was_answered() {
    let check = |case: &str, more: &[&str], answered: Value| {
        let (code, report) = tried("exemption", &format!("- name: it\n  {case}\n"), more);
        assert_eq!((code, &report["failed"]), (Some(1), &json!(1)), "{report:#}");
        assert_eq!(report["cases"][0]["answered"], answered, "{report:#}");
    };
    let asked = "hook: exemption\n  input: { namespace: { name: ops } }\n  expect:";
    check(&format!("{asked} {{ skip: other words }}"), &[], json!("inject"));
    check(&format!("{asked} {{ error: it failed }}"), &[], json!("inject"));
    let refused = "hook: exemption\n  settings: { kindz: [] }\n  expect: inject";
    let (_, report) = tried("exemption", &format!("- name: it\n  {refused}\n"), &[]);
    assert_eq!(report["cases"][0]["answered"]["failure"], "the settings are refused", "{report:#}");
    assert_eq!(report["cases"][0]["answered"]["settings"]["problem"]["field"], "kindz", "{report:#}");
    let other = "hook: naming\n  expect: pass";
    check(other, &[], json!({"failure": "the module has no hook `naming`"}));
    // Less than what a module of Rust has to begin with.
    let (_, report) = tried("exemption", &format!("- name: it\n  {asked} inject\n"), &["--memory", "64Ki"]);
    let failure = report["cases"][0]["answered"].to_string();
    assert!(failure.contains("limit"), "{failure}");
}

#[test]
fn a_table_that_cannot_be_asked_says_why() {
    let module = wasm_builds::policy("exemption");
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases.yaml");
    let check = |table: &str, more: &[&str], sentence: &str| {
        std::fs::write(&cases, table).expect("written");
        let arguments = [&["test", text(&module), "--cases", text(&cases)], more].concat();
        let (code, _, complaint) = policy(&arguments);
        assert_eq!(code, Some(2), "{complaint}");
        assert!(complaint.contains(sentence), "expected `{sentence}` in: {complaint}");
    };
    check("[]", &[], "cases.yaml has no cases");
    check("- name: it\n  hook: exempt\n  expect: inject\n", &[], "the table of cases cannot be read");
    check("- name: it\n  hook: exemption\n  expect: maybe\n", &[], "case \"it\": expect");
    let good = "- name: it\n  hook: exemption\n  expect: inject\n";
    check(good, &["--deadline", "1h"], "a case cannot have limits.deadline outside 1ms to 10s");
    check(good, &["--memory", "1Gi"], "a case cannot have limits.memory outside 64Ki to 64Mi");
}

/// What `pith policy explain` says of these objects, of which it has two bindings.
fn explained(objects: &[Value], percent: u8, more: &[&str]) -> (Option<i32>, String, String) {
    let policies = json!([
        {"name": "sizes", "module": {"file": wasm_builds::policy("resources")}, "mode": "monitor", "percent": percent},
        {"name": "names", "module": {"file": wasm_builds::policy("naming")}, "settings": {"template": ["{claim}"]},
         "match": {"namespaceSelector": {"matchLabels": {"env": "test"}}}},
    ]);
    explained_by(&policies, objects, more)
}

fn explained_by(policies: &Value, objects: &[Value], more: &[&str]) -> (Option<i32>, String, String) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "shop", "labels": {"juicefs.com/enable-injection": "true", "env": "prod"},
    }});
    let [volume, mut claim] = static_volume("shop", "data");
    claim["metadata"]["uid"] = json!("u-1");
    let known = [namespace, volume, claim];
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("known")).expect("a folder");
    std::fs::write(path("known/all.yaml"), yaml(&known)).expect("written");
    std::fs::write(path("given.yaml"), yaml(objects)).expect("written");
    std::fs::write(path("pith.yaml"), format!("stateDir: state\npolicies: {policies}\n")).expect("written");
    let [given, config, known] = ["given.yaml", "pith.yaml", "known"].map(path);
    let arguments = ["explain", "-f", text(&given), "--config", text(&config), "--objects", text(&known)];
    policy(&[&arguments, more].concat())
}

#[test]
fn it_is_explained_which_bindings_are_asked_and_why_the_others_are_not() {
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    let spec = json!({"containers": [{"name": "app", "image": "app"}], "volumes": volumes});
    let web = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"template": {"spec": spec}},
    });
    let bare = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "bare"},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    let claim = static_volume("shop", "data")[1].clone();
    let expected = "shop/web (Deployment)\n  \
                    BINDING  HOOK     CLAIM  ASKED\n  \
                    sizes    sidecar  data   yes, and its answer has no effect (mode: monitor)\n\n\
                    shop/bare (Pod)\n  \
                    no binding is asked: skipped: no volume of the pod names a claim (reason: no-claims)\n\n\
                    shop/data (PersistentVolumeClaim)\n  \
                    BINDING  HOOK    CLAIM  ASKED\n  \
                    names    naming  data   no: its namespaceSelector does not fit the labels of the namespace\n";
    let objects = [web, bare, claim];
    assert_eq!(explained(&objects, 100, &[]), (Some(0), expected.into(), String::new()));

    let (_, said, _) = explained(&objects[..1], 0, &["-o", "json"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let binding = &said[0]["bindings"][0];
    assert_eq!((&binding["binding"], &binding["asked"]), (&json!("sizes"), &json!(false)));
    let why = binding["why"].as_str().expect("a reason");
    assert!(why.starts_with("it is put to 0 % of what it fits, and this is number "), "{why}");

    let (code, _, complaint) = explained(&objects[..1], 101, &[]);
    assert_eq!(code, Some(2));
    assert!(complaint.contains("policy `sizes` has percent 101: at most 100"), "{complaint}");
}

/// What the webhook answers about the web pod with this label of its team, where a policy has this condition.
async fn conditioned(expression: &str, on_failure: &str, team: Option<&str>) -> (StatusCode, Value) {
    let policies = json!([{
        "name": "sizes", "module": {"file": wasm_builds::policy("resources")}, "onFailure": on_failure,
        "settings": {"default": "s", "sizes": {"s": {"requests": {"cpu": "77m"}}}},
        "match": {"conditions": [{"name": "team", "expression": expression}]},
    }]);
    let server = Server::start(&format!("policies: {policies}\n"), SHOP).expect("the server starts");
    let mut review: Value = serde_json::from_str(WEB).expect("JSON");
    review["request"]["object"]["metadata"]["labels"] = team.map_or(json!({}), |team| json!({"team": team}));
    let mut client = Client::connect(server.webhook, &server.ca(), Protocol::Http1).await.expect("a connection");
    let answer = client.review(review.to_string()).await.expect("an answer");
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_else(|_| json!(answer.text())))
}

#[tokio::test]
async fn a_condition_says_whether_a_policy_is_asked_and_one_that_cannot_be_evaluated_is_its_failure() {
    let asked = |answer: &Value| {
        let patch = answer["response"]["patch"].as_str().expect("a patch");
        let patch = String::from_utf8(STANDARD.decode(patch).expect("base64")).expect("text");
        (patch.contains("\"77m\""), answer["response"]["warnings"][0].as_str().unwrap_or_default().to_string())
    };
    let is_data = "pod.labels.team == 'data' && namespaceObject.name == 'shop' && claim.name.startsWith('o')";
    let (_, answer) = conditioned(is_data, "fail", Some("data")).await;
    assert_eq!(asked(&answer), (true, String::new()), "{answer}");
    let (_, answer) = conditioned(is_data, "fail", Some("web")).await;
    assert_eq!(asked(&answer), (false, String::new()), "{answer}");
    let sentence = "its condition `team` cannot be evaluated: there is no `team`: ask for it first, with has() or `in`";
    let (status, answer) = conditioned(is_data, "fail", None).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{answer}");
    let said = answer.to_string();
    assert!(said.contains(&format!("policy `sizes` failed, and its onFailure is `fail`: {sentence}")), "{said}");
    let (_, answer) = conditioned(is_data, "default", None).await;
    let said = format!("policy `sizes` failed (reason: condition), and Pith decided without it: {sentence}");
    assert_eq!(asked(&answer), (false, said), "{answer}");
    let (_, answer) = conditioned("has(pod.labels.team) && pod.labels.team == 'data'", "fail", None).await;
    assert_eq!(asked(&answer), (false, String::new()), "{answer}");
}

#[test]
fn it_is_explained_which_condition_did_not_hold_or_could_not_be_evaluated() {
    let claim = static_volume("shop", "data")[1].clone();
    let said = |conditions: Value| {
        let names = json!({
            "name": "names", "module": {"file": wasm_builds::policy("naming")}, "settings": {"template": ["{claim}"]},
            "match": {"conditions": conditions},
        });
        explained_by(&json!([names]), std::slice::from_ref(&claim), &[])
    };
    let (code, text, complaint) = said(json!([
        {"name": "known", "expression": "claim.name == 'data'"},
        {"name": "gold", "expression": "'tier' in claim.labels && claim.labels.tier == 'gold'"},
    ]));
    assert!(code == Some(0) && text.contains("no: its condition `gold` does not hold"), "{text}{complaint}");
    let (_, text, _) = said(json!([{"name": "app", "expression": "pod.labels.app == 'web'"}]));
    let sentence = "no, it fails: its condition `app` cannot be evaluated: ";
    assert!(text.contains(sentence) && text.contains("where a volume is made there is no pod"), "{text}");
    let (code, _, complaint) = said(json!([{"name": "app", "expression": "claim.lables.app == 'web'"}]));
    assert_eq!(code, Some(2));
    let sentence =
        "policy `names` has the condition `app`, which cannot be used: line 1, column 6: `claim` has no field `lables`";
    assert!(complaint.contains(sentence), "{complaint}");
}

#[test]
fn the_host_says_what_it_supports() {
    let (code, said, _) = policy(&["inspect", "--host", "-o", "json"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &said["package"]), (Some(0), &json!("pith:policy@0.1.0")));
    assert_eq!(said["hooks"], json!(["exemption", "sidecar", "naming", "quota"]));
    // Everything that the contract has for policies to import, and nothing else.
    let contract = std::fs::read_to_string(root().join("proto/policy/policy.wit")).expect("the contract");
    let imports = contract.split("world imports {").nth(1).and_then(|rest| rest.split('}').next()).expect("the world");
    let imports: BTreeSet<&str> =
        imports.lines().filter_map(|line| line.trim().strip_prefix("import ")?.strip_suffix(';')).collect();
    let offered = [&said["imports"], &said["granted"]].map(|list| list.as_array().expect("a list").iter());
    assert_eq!(offered.into_iter().flatten().map(|it| it.as_str().expect("a name")).collect::<BTreeSet<_>>(), imports);
    let (_, text, _) = policy(&["inspect", "--host"]);
    assert!(text.starts_with("contract  pith:policy@0.1.0\nhooks     exemption, sidecar, naming, quota\n"), "{text}");
}

/// What `pith policy diff` says of a Deployment and a claim, by these policies and with these flags.
fn differing(policies: &Value, more: &[&str]) -> (Option<i32>, String, String) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "shop", "labels": {"juicefs.com/enable-injection": "true", "unit": "retail"},
    }});
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "juicefs"},
        "provisioner": "csi.juicefs.com", "parameters": {
            "csi.storage.k8s.io/provisioner-secret-name": "s", "csi.storage.k8s.io/provisioner-secret-namespace": "n",
        },
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "shop", "name": "fresh", "uid": "u-2"},
        "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "juicefs", "resources": {"requests": {"storage": "1Gi"}}},
    });
    let [volume, mut data] = static_volume("shop", "data");
    data["metadata"]["uid"] = json!("u-1");
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    let web = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"template": {"spec": {"containers": [{"name": "app", "image": "app"}], "volumes": volumes}}},
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("known")).expect("a folder");
    std::fs::write(path("known/all.yaml"), yaml(&[namespace, class, volume, data])).expect("written");
    std::fs::write(path("given.yaml"), yaml(&[web, claim])).expect("written");
    std::fs::write(path("pith.yaml"), format!("stateDir: state\npolicies: {policies}\n")).expect("written");
    std::fs::write(path("none.yaml"), "stateDir: state\n").expect("written");
    let none = path("none.yaml");
    let more: Vec<&str> = more.iter().map(|it| if *it == "NONE" { text(&none) } else { *it }).collect();
    let [given, config, known] = ["given.yaml", "pith.yaml", "known"].map(path);
    let arguments = ["diff", "-f", text(&given), "--config", text(&config), "--objects", text(&known)];
    policy(&[&arguments, &*more].concat())
}

#[test]
fn it_is_said_what_watched_policies_or_another_configuration_would_change() {
    let policies = |mode: &str| {
        json!([
            {"name": "sizes", "module": {"file": wasm_builds::policy("resources")}, "mode": mode,
             "settings": {"default": "s", "sizes": {"s": {"requests": {"cpu": "77m"}}}}},
            {"name": "names", "module": {"file": wasm_builds::policy("naming")}, "mode": mode,
             "settings": {"template": ["{namespaceLabels.unit}", "{claim}"], "onCollision": "refuse"}},
        ])
    };
    let otherwise = "shop/web (Deployment)\n  claim data  resources.requests.cpu: `77m` instead of `1`\n\
                     shop/fresh (PersistentVolumeClaim)\n  directory: `/retail/fresh` instead of `/pvc-u-2`\n\
                     2 objects, 2 would be decided otherwise\n";
    assert_eq!(differing(&policies("monitor"), &[]), (Some(1), otherwise.into(), String::new()));
    let same = "2 objects, 0 would be decided otherwise\n";
    assert_eq!(differing(&policies("enforce"), &[]), (Some(0), same.into(), String::new()));
    let (code, said, _) = differing(&policies("enforce"), &["--to", "NONE", "-o", "json"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(code, Some(1));
    let expected = json!([{"claim": null, "field": "directory", "difference": "directory: `/pvc-u-2` instead of `/retail/fresh`"}]);
    assert_eq!(said[1]["differences"], expected);
}
