//! The API server's part: an AdmissionReview for the creation of a pod, sent over TLS.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::fixtures::Pod;
use super::server::Server;

/// The time that an API server gives a webhook at most.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client that trusts one authority only.
pub(crate) struct ApiServer {
    agent: Agent,
    url: String,
}

/// What the webhook answered.
pub(crate) struct Answer {
    /// Whether the pod may be created.
    pub(crate) allowed: bool,
    /// The JSON patch; empty where there is none.
    pub(crate) patch: Value,
    /// `status.message`, which whoever creates the pod reads.
    pub(crate) message: Option<String>,
    /// `warnings`, which whoever creates the pod reads too.
    pub(crate) warnings: Vec<String>,
    /// `auditAnnotations`, by key.
    pub(crate) annotations: Vec<(String, String)>,
    /// From the request to the whole answer.
    pub(crate) duration: Duration,
}

impl ApiServer {
    /// For a running webhook.
    pub(crate) fn new(server: &Server) -> Result<ApiServer> {
        let authority = Certificate::from_pem(&server.authority()?).context("reading the webhook's authority")?;
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[authority])).build();
        // A refusal is an answer: its sentence is in the body, whatever the code.
        let config = Agent::config_builder().tls_config(tls).timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        let url = format!("https://localhost:{}/mutate", server.addresses.webhook.port());
        Ok(ApiServer { agent: config.build().into(), url })
    }

    /// Asks whether a pod may be created, and how.
    pub(crate) fn create(&self, pod: &Pod, uid: &str) -> Result<Answer> {
        let review = review(pod, uid).to_string();
        let started = Instant::now();
        let post = self.agent.post(&self.url).header("content-type", "application/json");
        let mut response = post.send(&review).with_context(|| format!("posting to {}", self.url))?;
        let body = response.body_mut().read_to_string().context("reading the webhook's answer")?;
        let duration = started.elapsed();
        if response.status() != 200 {
            bail!("the webhook answered {} to `{}`: {}", response.status(), pod.name(), body.trim());
        }
        let answer: Value = serde_json::from_str(&body).context("the webhook's answer is no JSON")?;
        if answer["response"]["uid"] != uid {
            bail!("the webhook answered another review than the one asked: {body}");
        }
        parse(&answer["response"], duration)
    }
}

fn parse(response: &Value, duration: Duration) -> Result<Answer> {
    let text = |value: &Value| value.as_str().map(String::from);
    let patch = match response["patch"].as_str() {
        Some(patch) => {
            let patch = BASE64_STANDARD.decode(patch).context("the patch is no base64")?;
            serde_json::from_slice(&patch).context("the patch is no JSON")?
        }
        None => json!([]),
    };
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    Ok(Answer {
        allowed: response["allowed"].as_bool().context("the webhook's answer has no `allowed`")?,
        patch,
        message: text(&response["status"]["message"]),
        warnings: response["warnings"].as_array().into_iter().flatten().filter_map(text).collect(),
        annotations: annotations.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect(),
        duration,
    })
}

/// The review as an API server writes it for a pod that a controller creates.
fn review(pod: &Pod, uid: &str) -> Value {
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "name": pod.object["metadata"]["name"].as_str().unwrap_or_default(),
            "namespace": pod.namespace(),
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
            },
            "object": pod.object,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}
