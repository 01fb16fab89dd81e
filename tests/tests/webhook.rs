//! The webhook as an API server meets it: over TLS, with good and bad requests.

use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use pith_tests::client::{Client, Protocol, get, tls};
use pith_tests::server::Server;
use pith_tests::wasm_builds;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{SHOP, WEB};

fn start(config: &str) -> Server {
    Server::start(config, SHOP).expect("the server starts")
}

async fn connect(server: &Server, protocol: Protocol) -> Client {
    Client::connect(server.webhook, &server.ca(), protocol).await.expect("the server accepts a connection")
}

/// The review of the web pod, changed.
fn review(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut review: Value = serde_json::from_str(WEB).expect("the fixture is JSON");
    change(&mut review);
    serde_json::to_vec(&review).expect("it is JSON")
}

/// The response of an answer that is a review.
fn response(body: &[u8]) -> Value {
    let mut review: Value = serde_json::from_slice(body).expect("the answer is JSON");
    assert_eq!((&review["apiVersion"], &review["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    review["response"].take()
}

/// The patch of a response.
fn patch(response: &Value) -> json_patch::Patch {
    let patch = response["patch"].as_str().expect("it has a patch");
    let patch = base64::engine::general_purpose::STANDARD.decode(patch).expect("the patch is base64");
    serde_json::from_slice(&patch).expect("the patch is a JSON patch")
}

#[tokio::test]
async fn a_pod_is_injected_alike_over_both_versions_of_http_and_every_time() {
    let server = start("");
    let mut answers = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut client = connect(&server, protocol).await;
        for _ in 0..2 {
            let answer = client.review(WEB).await.expect("an answer");
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            answers.push(answer.body);
        }
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "the same review gave different bytes");

    let response = response(&answers[0]);
    assert_eq!(response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!(response["allowed"], true);
    assert_eq!(response["patchType"], "JSONPatch");
    let mut pod: Value = serde_json::from_str::<Value>(WEB).expect("JSON")["request"]["object"].take();
    json_patch::patch(&mut pod, &patch(&response)).expect("the patch fits the pod");
    for (place, name) in ["pith-guard", "jfs-mount"].into_iter().enumerate() {
        assert_eq!(pod["spec"]["initContainers"][place]["name"], name);
        assert_eq!(pod["spec"]["initContainers"][place]["restartPolicy"], "Always");
    }
    assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["mountPropagation"], "HostToContainer");
    assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "orders");

    let again = review(|review| review["request"]["object"] = pod);
    let answer = connect(&server, Protocol::Http1).await.review(again).await.expect("an answer");
    let response = self::response(&answer.body);
    assert_eq!(
        (&response["allowed"], response.get("patch")),
        (&json!(true), None),
        "the second pass changed something"
    );
}

#[tokio::test]
async fn a_dry_run_is_the_same_run() {
    let server = start("");
    let mut client = connect(&server, Protocol::Http1).await;
    let real = client.review(WEB).await.expect("an answer");
    let dry = client.review(review(|review| review["request"]["dryRun"] = json!(true))).await.expect("an answer");
    assert_eq!(real.body, dry.body);
}

#[tokio::test]
async fn what_is_not_a_pod_creation_is_always_allowed() {
    let server = start("");
    let mut client = connect(&server, Protocol::Http1).await;
    let changes: [fn(&mut Value); 5] = [
        |review| review["request"]["operation"] = json!("UPDATE"),
        |review| review["request"]["operation"] = json!("DELETE"),
        |review| review["request"]["kind"]["kind"] = json!("Deployment"),
        |review| review["request"]["subResource"] = json!("eviction"),
        |review| review["request"]["object"] = Value::Null,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let answer = client.review(review(change)).await.expect("an answer");
        let response = response(&answer.body);
        // A pod that is not there at all is refused: nothing says that it needs no volume.
        assert_eq!(response["allowed"], json!(index != 4), "case {index}: {response}");
    }
}

#[tokio::test]
async fn a_refusal_has_a_code_and_a_sentence() {
    let server = start("");
    let mut client = connect(&server, Protocol::Http1).await;
    let body = review(|review| {
        review["request"]["object"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = json!("nowhere");
    });
    let answer = client.review(body).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::OK);
    let response = response(&answer.body);
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 409);
    assert_eq!(
        response["status"]["message"],
        "volume `orders` names the claim `shop/nowhere`, which does not exist (or is not known to Pith yet): create the \
         claim, then the pod, or name the claim's StorageClass in the pod's annotation claim-class.pith.io/orders (reason: \
         claim-not-found)"
    );
    assert_eq!(response["auditAnnotations"]["reason"], "claim-not-found");
}

/// Bad requests: what is sent, and the code and words of the answer.
#[tokio::test]
async fn a_request_that_cannot_be_read_gets_its_code_and_a_sentence() {
    let server = start("webhook: {maxBody: 64Ki}\n");
    let mut client = connect(&server, Protocol::Http1).await;
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let large =
        review(|review| review["request"]["object"]["metadata"]["annotations"]["x"] = json!("x".repeat(70_000)));
    let twice = WEB.replacen("\"operation\":", "\"operation\":\"UPDATE\",\"operation\":", 1);
    let mut not_utf8 = WEB.as_bytes().to_vec();
    let place = WEB.find("web-6d5f").expect("the name");
    not_utf8[place] = 0xff;
    let beta = review(|review| review["apiVersion"] = json!("admission.k8s.io/v1beta1"));
    let kind = review(|review| review["kind"] = json!("Pod"));
    let no_uid = review(|review| review["request"]["uid"] = json!(""));
    let no_namespace = review(|review| review["request"]["namespace"] = Value::Null);
    let trailing = format!("{WEB} {{}}");

    let json = "application/json";
    let cases: Vec<(&str, &str, Vec<u8>, StatusCode, &str)> = vec![
        ("POST", json, b"{".to_vec(), StatusCode::BAD_REQUEST, "not usable JSON"),
        ("POST", json, Vec::new(), StatusCode::BAD_REQUEST, "not usable JSON"),
        ("POST", json, deep.into_bytes(), StatusCode::BAD_REQUEST, "recursion limit"),
        ("POST", json, twice.into_bytes(), StatusCode::BAD_REQUEST, "the same key twice"),
        ("POST", json, not_utf8, StatusCode::BAD_REQUEST, "unicode"),
        ("POST", json, trailing.into_bytes(), StatusCode::BAD_REQUEST, "trailing characters"),
        ("POST", json, beta, StatusCode::BAD_REQUEST, "admissionReviewVersions: [v1]"),
        ("POST", json, kind, StatusCode::BAD_REQUEST, "`kind` is not AdmissionReview"),
        ("POST", json, no_uid, StatusCode::BAD_REQUEST, "`request.uid` is missing"),
        ("POST", json, no_namespace, StatusCode::BAD_REQUEST, "`request.namespace` is missing"),
        (
            "POST",
            json,
            large,
            StatusCode::PAYLOAD_TOO_LARGE,
            "more than 65536 bytes (webhook.maxBody) (reason: unreadable-body)",
        ),
        ("POST", "text/plain", WEB.into(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "must be application/json"),
        ("GET", json, Vec::new(), StatusCode::METHOD_NOT_ALLOWED, ""),
    ];
    for (method, kind, body, status, words) in cases {
        // A new connection where the last body was not read to its end.
        if client.review(WEB).await.is_err() {
            client = connect(&server, Protocol::Http1).await;
        }
        let request: Request<Full<Bytes>> = client.request(method, "/mutate", kind, body.into()).expect("a request");
        let answer = client.send(request).await.expect("an answer");
        assert_eq!(answer.status, status, "{words}: {}", answer.text());
        assert!(answer.text().contains(words), "expected `{words}`: {}", answer.text());
    }
    let answer = connect(&server, Protocol::Http2).await.review(WEB).await.expect("the server still answers");
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_just_under_the_bound_is_read() {
    let server = start("webhook: {maxBody: 64Ki}\n");
    let fill = 65_536 - review(|review| review["request"]["object"]["metadata"]["annotations"]["x"] = json!("")).len();
    for (extra, status) in [(0, StatusCode::OK), (1, StatusCode::PAYLOAD_TOO_LARGE)] {
        let body = review(|review| {
            review["request"]["object"]["metadata"]["annotations"]["x"] = json!("x".repeat(fill + extra));
        });
        let answer = connect(&server, Protocol::Http1).await.review(body).await.expect("an answer");
        assert_eq!(answer.status, status, "{extra} bytes over");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_costs_only_its_time() {
    let server = start("webhook: {timeout: 200ms}\n");
    let mut stream = tls(server.webhook, &server.ca(), Protocol::Http1).await.expect("a connection");
    let head = "POST /mutate HTTP/1.1\r\nhost: pith\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("the head is sent");
    let mut answer = vec![0; 1024];
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut answer)).await;
    let read = read.expect("the server answers before the client gives up").expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn one_request_more_than_may_be_in_hand_is_turned_away() {
    let server = start("webhook: {maxInFlight: 1}\n");
    let mut stream = tls(server.webhook, &server.ca(), Protocol::Http1).await.expect("a connection");
    let head = "POST /mutate HTTP/1.1\r\nhost: pith\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("the head is sent");
    let mut client = connect(&server, Protocol::Http2).await;
    let answer = loop {
        let answer = client.review(WEB).await.expect("an answer");
        // Until the server has the first one in hand, there is room.
        if answer.status != StatusCode::OK {
            break answer;
        }
    };
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().contains("webhook.maxInFlight"), "{}", answer.text());
    drop(stream);
    while client.review(WEB).await.expect("an answer").status != StatusCode::OK {}
}

/// One binding of a hostile guest, and what the review of the web pod then gets.
async fn with_policy(guest: &str, binding: &str) -> (StatusCode, String, String) {
    let module = wasm_builds::guest(guest);
    let server = start(&format!(
        "policies: [{{name: it, module: {{file: {}}}, settings: {{accept: true}}, {binding}}}]\n",
        module.display()
    ));
    let answer = connect(&server, Protocol::Http1).await.review(WEB).await.expect("an answer");
    let metrics = get(server.admin, "/metrics").await.expect("an answer").text();
    (answer.status, answer.text(), metrics)
}

#[tokio::test]
async fn a_policy_that_fails_follows_its_binding() {
    let (status, body, metrics) = with_policy("traps", "hooks: [exemption]").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let sentence = "policy `it` failed, and its onFailure is `fail`: it trapped";
    assert!(body.starts_with(sentence) && body.ends_with(" (reason: trap)\n"), "{body}");
    assert!(metrics.contains(r#"pith_policy_calls_total{policy="it",hook="exemption",outcome="trap"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"pith_admissions_total{outcome="fail",reason="trap"} 1"#), "{metrics}");

    let slow = "hooks: [sidecar], limits: {deadline: 20ms}, onFailure: default";
    let (status, body, _) = with_policy("spins_forever", slow).await;
    let response = response(body.as_bytes());
    assert_eq!((status, &response["allowed"]), (StatusCode::OK, &json!(true)));
    assert!(response["patch"].is_string(), "it is injected all the same");
    let warning =
        "policy `it` failed (reason: deadline), and Pith decided without it: it ran longer than its deadline of 20 ms";
    assert_eq!(response["warnings"], json!([warning]));

    let (status, _, metrics) = with_policy("traps", "hooks: [sidecar], mode: monitor").await;
    assert_eq!(status, StatusCode::OK);
    assert!(metrics.contains(r#"pith_policy_calls_total{policy="it",hook="sidecar",outcome="trap"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_stop_finishes_what_was_begun_and_readiness_ends_first() {
    let mut server = start("");
    assert_eq!(get(server.admin, "/readyz").await.expect("an answer").status, StatusCode::OK);
    assert_eq!(get(server.admin, "/livez").await.expect("an answer").status, StatusCode::OK);

    let mut stream = tls(server.webhook, &server.ca(), Protocol::Http1).await.expect("a connection");
    let head = format!(
        "POST /mutate HTTP/1.1\r\nhost: pith\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        WEB.len()
    );
    let (first, rest) = WEB.as_bytes().split_at(100);
    stream.write_all(head.as_bytes()).await.expect("the head is sent");
    stream.write_all(first).await.expect("the body begins");
    // The server has begun the request once it sits on a body that does not go on: nothing else shows it from outside.
    stream.flush().await.expect("sent");
    wait_for(&server, "/metrics", |answer| answer.status == StatusCode::OK).await;

    server.terminate().expect("the signal is sent");
    wait_for(&server, "/readyz", |answer| answer.status == StatusCode::SERVICE_UNAVAILABLE).await;
    stream.write_all(rest).await.expect("the body ends");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(server.wait().expect("it stops").success());
    assert!(server.log().contains("\"stopped\""), "{}", server.log());
}

/// Asks until the answer is the expected one; the runner's own bound ends a wait without end.
async fn wait_for(server: &Server, path: &str, expected: impl Fn(&pith_tests::client::Answer) -> bool) {
    loop {
        let answer = get(server.admin, path).await.expect("an answer");
        if expected(&answer) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn metrics_count_requests_by_outcome_and_reason() {
    let server = start("");
    let mut client = connect(&server, Protocol::Http1).await;
    client.review(WEB).await.expect("an answer");
    client.review(review(|review| review["request"]["namespace"] = json!("quiet"))).await.expect("an answer");
    client.review("{").await.expect("an answer");
    let metrics = get(server.admin, "/metrics").await.expect("an answer").text();
    for line in [
        r#"pith_admissions_total{outcome="inject",reason=""} 1"#,
        r#"pith_admissions_total{outcome="skip",reason="namespace-not-enabled"} 1"#,
        r#"pith_admissions_total{outcome="invalid",reason="unreadable-review"} 1"#,
        r#"pith_objects{kind="persistentvolumeclaims"} 2"#,
        r#"pith_admission_duration_seconds_count{outcome="inject"} 1"#,
    ] {
        assert!(metrics.lines().any(|it| it == line), "no line `{line}` in:\n{metrics}");
    }
}

#[tokio::test]
async fn a_broken_configuration_stops_the_start_with_its_reason() {
    for (config, words) in [
        ("webhooks: {}\n", "unknown field `webhooks`"),
        ("webhook: {tls: {files: {certificate: no.crt, key: no.key}}}\n", "reading the certificate"),
        ("policies: [{name: sizes, module: {file: no.wasm}}]\n", "loading the policy `sizes`"),
    ] {
        let error = Server::start(config, SHOP).expect_err("it must not start").to_string();
        assert!(error.contains(words), "expected `{words}` in: {error}");
    }
    let twice = format!("{SHOP}\n---\n{SHOP}");
    let error = Server::start("", &twice).expect_err("it must not start").to_string();
    assert!(error.contains("is there twice"), "{error}");
}
