//! `pith inject`, `pith config` and `pith policy` as a person or a script runs them.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use pith_tests::server::{PITH, folder};
use pith_tests::wasm_builds;
use serde_json::Value;

use crate::{SHOP, WEB};

/// The web pod of the review, as a manifest.
fn pod() -> String {
    let mut review: Value = serde_json::from_str(WEB).expect("the fixture is JSON");
    review["request"]["object"].take().to_string()
}

/// Runs `pith` with standard input, in a folder that has the shop's objects.
fn pith(config: &str, arguments: &[&str], input: &str) -> Output {
    let folder = folder(config, SHOP).expect("a folder");
    std::fs::create_dir(folder.path().join("pods")).expect("a folder");
    std::fs::write(folder.path().join("pods/web.json"), pod()).expect("written");
    let mut child = Command::new(&*PITH)
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("pith runs");
    // A command that does not read its input closes it.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("pith ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn check(arguments: &[&str], input: &str, code: i32, out: &[&str], err: &[&str]) -> String {
    let output = pith("", arguments, input);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout: {stdout}\nstderr: {stderr}");
    for words in out {
        assert!(stdout.contains(words), "expected `{words}` on stdout:\n{stdout}");
    }
    for words in err {
        assert!(stderr.contains(words), "expected `{words}` on stderr:\n{stderr}");
    }
    stdout
}

#[test]
fn pods_come_from_a_file_a_folder_or_standard_input_with_the_same_result() {
    let objects = ["--objects", "objects"];
    let from = |path: &str, input: &str| {
        check(&[&["inject", "-f", path], &objects[..]].concat(), input, 0, &["name: jfs-mount"], &[])
    };
    let file = from("pods/web.json", "");
    assert_eq!(file, from("pods", ""));
    assert_eq!(file, from("-", &pod()));
}

#[test]
fn a_second_pass_over_the_output_changes_nothing() {
    let first = check(&["inject", "-f", "pods", "--objects", "objects"], "", 0, &[], &[]);
    let second = check(&["inject", "-f", "-", "--objects", "objects", "-o", "diff"], &first, 0, &[], &[]);
    assert_eq!(second, "");
}

#[test]
fn an_explanation_says_where_each_value_came_from() {
    let arguments = ["inject", "-f", "pods", "--objects", "objects", "--explain", "-o", "json"];
    let explained: Value = serde_json::from_str(&check(&arguments, "", 0, &[], &[])).expect("JSON");
    assert_eq!(explained[0]["outcome"], "inject");
    let values = explained[0]["volumes"][0]["values"].as_array().expect("values");
    let origin = |field: &str| {
        let row = values.iter().find(|row| row["field"] == field).unwrap_or_else(|| panic!("no {field}"));
        (row["value"].as_str().expect("text"), row["origin"].as_str().expect("text"))
    };
    assert_eq!(origin("resources.limits.cpu"), ("3", "StorageClass juicefs"));
    assert_eq!(origin("resources.requests.cpu"), ("250m", "PersistentVolume pvc-7d1f"));
    assert_eq!(origin("resources.limits.memory"), ("6Gi", "claim orders"));
    assert_eq!(origin("resources.requests.memory"), ("1Gi", "default"));
    assert_eq!(origin("mountOptions.cache-size"), ("2048", "StorageClass juicefs"));
}

#[test]
fn a_refused_pod_is_exit_code_1_and_a_sentence_with_what_to_do() {
    let pod = pod().replace("\"claimName\":\"orders\"", "\"claimName\":\"nowhere\"");
    let said = ["refused: volume `orders` names the claim", "(reason: claim-not-found)"];
    check(&["inject", "-f", "-", "--objects", "objects"], &pod, 1, &[], &said);
    let explained = ["what to do: create the claim, then the pod", "more: docs/reasons.md#claim-not-found"];
    check(&["inject", "-f", "-", "--objects", "objects", "--explain"], &pod, 1, &explained, &[]);
}

#[test]
fn a_code_is_explained_as_denials_and_as_events_have_it() {
    check(
        &["reasons", "claim-not-found"],
        "",
        0,
        &["claim-not-found\n\nA volume", "\n\nWhat to do: Create the claim"],
        &[],
    );
    check(&["reasons", "SecretNotWritten"], "", 0, &["secret-not-written\n\n"], &[]);
    check(&["reasons"], "", 0, &["\n### claim-not-found\n", "\n### pod-missed\n"], &[]);
    check(&["reasons", "claim-lost"], "", 2, &[], &["there is no such code"]);
}

#[test]
fn what_cannot_run_is_exit_code_2_and_a_reason() {
    check(&["inject", "-f", "nowhere.yaml"], "", 2, &[], &["reading nowhere.yaml"]);
    check(&["inject", "-f", "-"], "a: [", 2, &[], &["standard input"]);
    check(&["policy", "inspect", "pith.yaml"], "", 2, &[], &["pith.yaml is no policy"]);
    check(&["config", "--config", "nowhere.yaml"], "", 2, &[], &["reading the configuration nowhere.yaml"]);
}

/// The web pod as the template of a workload, beside a Service.
fn release(kind: &str) -> String {
    let pod: Value = serde_json::from_str(&pod()).expect("JSON");
    let template = serde_json::json!({"metadata": {"labels": {"app": "web"}}, "spec": pod["spec"]});
    let spec = match kind {
        "CronJob" => serde_json::json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}),
        _ => serde_json::json!({"replicas": 2, "template": template}),
    };
    let metadata = serde_json::json!({"name": "web", "namespace": pod["metadata"]["namespace"]});
    let workload = serde_json::json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec});
    format!("# Source: shop/templates/service.yaml\nkind: Service\nmetadata: {{name: web}}\n---\n{workload}\n")
}

#[test]
fn a_workload_gets_in_its_template_what_its_pod_would_get_and_other_kinds_stay_as_they_are() {
    let inject = |input: &str| -> Value {
        let arguments = ["inject", "-f", "-", "--objects", "objects", "-o", "json"];
        serde_json::from_str(&check(&arguments, input, 0, &[], &[])).expect("JSON")
    };
    let of_pod = inject(&pod())["items"][0]["spec"].clone();
    for (kind, template) in [
        ("Deployment", "/spec/template"),
        ("StatefulSet", "/spec/template"),
        ("DaemonSet", "/spec/template"),
        ("Job", "/spec/template"),
        ("CronJob", "/spec/jobTemplate/spec/template"),
    ] {
        let items = inject(&release(kind))["items"].take();
        assert_eq!(items[0], serde_json::json!({"kind": "Service", "metadata": {"name": "web"}}));
        let template = items[1].pointer(template).expect("a template");
        assert_eq!(template["spec"], of_pod, "{kind}");
        assert_eq!(template["metadata"]["labels"]["done.sidecar.juicefs.com/inject"], "true", "{kind}");
        assert_eq!(items[1]["metadata"].as_object().expect("metadata").len(), 2, "{kind}");
        let list = serde_json::json!({"kind": "List", "items": items});
        assert_eq!(inject(&list.to_string())["items"], list["items"], "{kind}, once more");
    }
}

#[test]
fn what_differs_from_pod_to_pod_is_left_to_the_webhook_with_a_word() {
    let release =
        release("StatefulSet").replace(r#""replicas":2"#, r#""volumeClaimTemplates":[{"metadata":{"name":"own"}}]"#);
    let said = "web (StatefulSet): warning: each pod has a claim of its own from the volumeClaimTemplate `own`";
    check(&["inject", "-f", "-", "--objects", "objects"], &release, 0, &["kind: Service", "jfs-mount"], &[said]);
    let changed = check(&["inject", "-f", "-", "--objects", "objects", "-o", "diff"], &release, 0, &["jfs-mount"], &[]);
    assert!(!changed.contains("kind: Service"), "{changed}");
}

#[test]
fn a_claim_of_the_pod_s_own_comes_into_the_template_once() {
    let template = serde_json::json!({"spec": {"storageClassName": "juicefs", "accessModes": ["ReadWriteOnce"]}});
    let volume = serde_json::json!({"name": "orders", "ephemeral": {"volumeClaimTemplate": template}});
    let release = release("Deployment");
    let mut own: Value = yaml_serde::from_str(release.rsplit("---").next().expect("a document")).expect("YAML");
    own["spec"]["template"]["spec"]["volumes"] = serde_json::json!([volume]);
    let arguments = ["inject", "-f", "-", "--objects", "objects", "-o", "json"];
    let printed = check(&arguments, &own.to_string(), 0, &["jfs-mount", "pith-pod-"], &[]);
    assert_eq!(check(&arguments, &own.to_string(), 0, &[], &[]), printed, "the same each time");
    assert_eq!(check(&arguments, &printed, 0, &[], &[]), printed, "once more");
}

#[test]
fn a_secret_is_not_printed_and_the_user_is_told() {
    let secret = r#"{"kind": "Secret", "metadata": {"name": "shop"}, "stringData": {"token": "canary"}}"#;
    let input = format!(r#"{{"kind": "List", "items": [{secret}, {}]}}"#, pod());
    let said = "standard input: the Secret `shop` is not printed";
    for output in ["yaml", "json", "diff"] {
        let arguments = ["inject", "-f", "-", "--objects", "objects", "-o", output];
        let printed = check(&arguments, &input, 0, &["jfs-mount"], &[said]);
        assert!(!printed.contains("canary"), "{printed}");
    }
}

#[test]
fn the_effective_configuration_names_origins() {
    let arguments = ["config", "--config", "pith.yaml", "--listen", "127.0.0.1:1", "-o", "json"];
    let rows: Value = serde_json::from_str(&check(&arguments, "", 0, &[], &[])).expect("JSON");
    let origin = |key: &str| {
        let row = rows.as_array().expect("rows").iter().find(|row| row["key"] == key);
        row.unwrap_or_else(|| panic!("no {key}"))["origin"].clone()
    };
    assert_eq!(origin("webhook.listen"), "flag");
    assert_eq!(origin("admin.listen"), "file");
    assert_eq!(origin("driver"), "default");
}

#[test]
fn a_module_is_described() {
    let module = wasm_builds::policy("resources");
    let module = module.to_str().expect("a path");
    let rows: Value =
        serde_json::from_str(&check(&["policy", "inspect", module, "-o", "json"], "", 0, &[], &[])).expect("JSON");
    assert_eq!(rows[0]["hooks"], serde_json::json!(["sidecar"]));
    assert_eq!(rows[0]["form"], "core module");
    assert_eq!(rows[0]["settings"], true);
    assert!(rows[0]["digest"].as_str().expect("text").starts_with("sha256:"));
    check(&["policy", "inspect", module], "", 0, &["hooks     sidecar"], &[]);
}

#[test]
fn a_policy_whose_settings_are_wrong_is_named_with_the_field() {
    let config = format!(
        "policies: [{{name: sizes, module: {{file: {}}}, settings: {{sizes: {{small: {{limits: {{cpu: lots}}}}}}}}}}]",
        wasm_builds::policy("resources").display()
    );
    let output = pith(&config, &["inject", "-f", "pods", "--config", "pith.yaml"], "");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("loading the policy `sizes`") && stderr.contains("settings.sizes.small.limits.cpu"),
        "{stderr}"
    );
}
