//! AdmissionReview bytes to what was asked, and a decision to AdmissionReview bytes. The only file that knows the wire shape.
//!
//! Follows `admission.k8s.io/v1`. `v1beta1` is refused: no supported Kubernetes sends it unless it is asked to.

use std::fmt::Display;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pith_core::admission::{Decision, Verdict};
use pith_core::catalogue::Code;
use pith_core::reason::{Refusal, Skip};
use pith_core::validation::{Checked, Problem};
use serde::Deserialize;
use serde_json::{Value, json};

use super::strict_json::Strict;

/// What a review asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// The request's id, which the answer repeats.
    pub uid: String,
    /// What it is about.
    pub subject: Subject,
}

/// What a review is about.
#[derive(Clone, PartialEq)]
pub enum Subject {
    /// The creation of a pod.
    PodCreation {
        /// The namespace of the request; the pod's own metadata may not have it.
        namespace: String,
        /// The Pod.
        pod: Value,
    },
    /// A PersistentVolume that is made.
    PersistentVolume(Value),
    /// A Secret that is written. Nothing of its content may be shown.
    Secret(Value),
    /// The eviction of a pod.
    Eviction {
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// A PolicyBinding that is written, and asks for something else than before.
    PolicyBinding(Value),
    /// Anything else, which is never Pith's business and always allowed.
    Other,
}

impl std::fmt::Debug for Subject {
    /// What it is, and nothing of what is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Subject::PodCreation { .. } => "PodCreation",
            Subject::PersistentVolume(_) => "PersistentVolume",
            Subject::Secret(_) => "Secret",
            Subject::Eviction { .. } => "Eviction",
            Subject::PolicyBinding(_) => "PolicyBinding",
            Subject::Other => "Other",
        })
    }
}

/// Why bytes are no review. The sentence never repeats what was in them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON, not UTF-8, nested too deeply, or a key twice in one object.
    #[error("the body is not usable JSON: {0}")]
    Json(String),
    /// JSON, but no AdmissionReview of the version that is spoken here.
    #[error("the body is no AdmissionReview of admission.k8s.io/v1: {0}")]
    Kind(&'static str),
}

/// Reads a review.
pub fn parse(body: &[u8]) -> Result<Review, ParseError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Strict(mut review) = Strict::deserialize(&mut json).map_err(|error| ParseError::Json(error.to_string()))?;
    json.end().map_err(|error| ParseError::Json(error.to_string()))?;

    if review["kind"] != "AdmissionReview" {
        return Err(ParseError::Kind("`kind` is not AdmissionReview"));
    }
    if review["apiVersion"] != "admission.k8s.io/v1" {
        return Err(ParseError::Kind("`apiVersion` is another one; register with admissionReviewVersions: [v1]"));
    }
    let request = &mut review["request"];
    if !request.is_object() {
        return Err(ParseError::Kind("`request` is missing"));
    }
    let Some(uid) = request["uid"].as_str().filter(|uid| !uid.is_empty()).map(str::to_string) else {
        return Err(ParseError::Kind("`request.uid` is missing"));
    };
    let subject = match core_kind_and_operation(request) {
        None if request["kind"]["kind"] == "Eviction" && request["subResource"] == "eviction" => {
            let text = |key: &str| request[key].as_str().unwrap_or_default().to_string();
            Subject::Eviction { namespace: text("namespace"), pod: text("name") }
        }
        None if asks_for_a_policy(request) => Subject::PolicyBinding(request["object"].take()),
        Some(("Pod", "CREATE")) => {
            let Some(namespace) = request["namespace"].as_str().map(str::to_string) else {
                return Err(ParseError::Kind("`request.namespace` is missing"));
            };
            Subject::PodCreation { namespace, pod: request["object"].take() }
        }
        Some(("PersistentVolume", "CREATE")) => Subject::PersistentVolume(request["object"].take()),
        Some(("Secret", "CREATE" | "UPDATE")) => Subject::Secret(request["object"].take()),
        _ => Subject::Other,
    };
    Ok(Review { uid, subject })
}

/// Whether a PolicyBinding is written that asks for something else than before. Labels of one may always be changed.
fn asks_for_a_policy(request: &Value) -> bool {
    let kind = &request["kind"];
    let is_written = request["operation"] == "CREATE" || request["operation"] == "UPDATE";
    kind["group"] == "pith.dev"
        && kind["kind"] == "PolicyBinding"
        && is_written
        && request["subResource"].as_str().unwrap_or_default().is_empty()
        && request["object"]["spec"] != request["oldObject"]["spec"]
}

/// Of a whole object of the core group: subresources (eviction, binding, ephemeralcontainers) come with the kind Pod or their own.
fn core_kind_and_operation(request: &Value) -> Option<(&str, &str)> {
    let kind = &request["kind"];
    let of_core = kind["version"] == "v1" && kind["group"].as_str().unwrap_or_default().is_empty();
    let whole = request["subResource"].as_str().unwrap_or_default().is_empty();
    (of_core && whole).then_some(())?;
    Some((kind["kind"].as_str()?, request["operation"].as_str()?))
}

/// The answer to a review, or the failure that the cluster's `failurePolicy` decides about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// HTTP 200 with this AdmissionReview.
    Review(Vec<u8>),
    /// HTTP 500 with this sentence: no answer, so that a policy's failure is not a denial.
    Failure(String),
}

/// Writes the answer.
pub fn render(uid: &str, decision: &Decision) -> Answer {
    let mut response = match &decision.verdict {
        Verdict::Fail(failure) => return Answer::Failure(failure.code().behind(failure)),
        Verdict::Skip { why, .. } => allowed(uid, "skip", Some(why.code()), Some(&why.sentence())),
        Verdict::Refuse(refusal) => denied(uid, status(refusal), refusal.code(), refusal),
        Verdict::Inject(_) => allowed(uid, "inject", None, None),
    };
    let patch = decision.verdict.patch();
    if !patch.is_empty() {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(STANDARD.encode(serde_json::to_vec(patch).expect("operations are plain JSON")));
    }
    if !decision.warnings.is_empty() {
        response["warnings"] = warnings(&decision.warnings);
    }
    Answer::Review(review(&response))
}

/// The answer about an object that is only looked at.
pub fn render_checked(uid: &str, checked: &Checked) -> Vec<u8> {
    match checked {
        Ok(sentences) => {
            let mut response = allowed(uid, "allow", None, None);
            if !sentences.is_empty() {
                response["warnings"] = warnings(sentences);
            }
            review(&response)
        }
        Err(problem) => {
            let status = match problem {
                // What evicts tries again then, and gives up on any other answer.
                Problem::MountPodInUse { .. } => (429, "TooManyRequests"),
                Problem::DuplicateHandle { .. } | Problem::Secret(_) | Problem::Binding(_) => INVALID,
            };
            review(&denied(uid, status, problem.code(), problem))
        }
    }
}

/// The answer to what is not Pith's business.
pub fn render_other(uid: &str) -> Vec<u8> {
    let skip = Skip::NotAPodCreation;
    review(&allowed(uid, "skip", Some(skip.code()), Some(&skip.sentence())))
}

fn review(response: &Value) -> Vec<u8> {
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    serde_json::to_vec(&review).expect("a Value is plain JSON")
}

/// The API server puts the webhook's name before each key of the audit annotations.
fn allowed(uid: &str, outcome: &str, reason: Option<Code>, message: Option<&str>) -> Value {
    let mut annotations = json!({"outcome": outcome});
    if let Some(reason) = reason {
        annotations["reason"] = json!(reason);
    }
    if let Some(message) = message {
        annotations["message"] = json!(message);
    }
    json!({"uid": uid, "allowed": true, "auditAnnotations": annotations})
}

/// People see the message and nothing else of it.
fn denied(uid: &str, (status, of_status): Status, reason: Code, sentence: impl Display) -> Value {
    json!({
        "uid": uid,
        "allowed": false,
        "status": {"code": status, "reason": of_status, "message": reason.behind(sentence)},
        "auditAnnotations": {"outcome": "deny", "reason": reason},
    })
}

/// The HTTP code and the `metav1.StatusReason` of a denial.
type Status = (u16, &'static str);

/// Something must be changed first.
const INVALID: Status = (422, "Invalid");

/// The status of a refusal: 403 for a decision, 409 for what may well work in a moment, 422 for
/// what must be changed first.
fn status(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::Policy { .. } => (403, "Forbidden"),
        Refusal::NamespaceUnknown(_) | Refusal::ClaimNotFound { .. } | Refusal::PersistentVolumeUnknown { .. } => {
            (409, "Conflict")
        }
        Refusal::Malformed(_)
        | Refusal::UnsupportedVolume { .. }
        | Refusal::UnsupportedPod { .. }
        | Refusal::Setting { .. }
        | Refusal::ForeignContainer { .. }
        | Refusal::ForeignVolume { .. } => INVALID,
    }
}

/// The API server cuts a warning at 256 bytes and drops all of them past 4096.
fn warnings(sentences: &[String]) -> Value {
    const ONE: usize = 256;
    const ALL: usize = 4096;
    let mut left = ALL;
    let mut kept = Vec::new();
    for sentence in sentences {
        let cut = &sentence[..sentence.floor_char_boundary(ONE)];
        let Some(rest) = left.checked_sub(cut.len()) else { break };
        left = rest;
        kept.push(cut);
    }
    json!(kept)
}
