//! What people see in `kubectl describe`.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use pith_core::catalogue::Code;
use sha2::{Digest, Sha256};

use super::api::cause;

/// The API server refuses a longer one.
const LONGEST_NOTE: usize = 1024;

/// What happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Happened<'a> {
    /// `Normal` or `Warning`.
    pub(crate) kind: &'static str,
    /// Why, which Kubernetes writes as in `SecretNotWritten`.
    pub(crate) reason: Code,
    /// What Pith was doing, as in `WriteSecret`.
    pub(crate) action: &'static str,
    /// The sentence.
    pub(crate) note: &'a str,
}

/// The object that an event is about.
pub(crate) fn about(kind: &str, namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some(kind.into()),
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        uid: Some(uid.into()),
        ..ObjectReference::default()
    }
}

/// Says it on the object. One sentence is there once, whoever says it and however often: its name follows from it, and the API
/// server forgets it after an hour. Where it cannot be said, the log has it.
pub(crate) async fn tell(client: &Client, object: ObjectReference, happened: Happened<'_>) {
    let namespace = object.namespace.clone().unwrap_or_default();
    let name = object.name.clone().unwrap_or_default();
    let note = &happened.note[..happened.note.floor_char_boundary(LONGEST_NOTE)];
    let reason = happened.reason.event_reason();
    let digest = Sha256::digest(format!("{:?} {reason} {note}", object.uid));
    let event = Event {
        metadata: ObjectMeta {
            // A pod's name may be as long as an event's.
            name: Some(format!("{}.{}", name.get(..200).unwrap_or(&name), &hex::encode(digest)[..16])),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        reporting_controller: Some("pith.io/controller".into()),
        reporting_instance: Some("pith".into()),
        action: Some(happened.action.into()),
        reason: Some(reason),
        regarding: Some(object),
        note: Some(note.into()),
        type_: Some(happened.kind.into()),
        ..Event::default()
    };
    match Api::<Event>::namespaced(client.clone(), &namespace).create(&PostParams::default(), &event).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => {
            let error = cause(&error);
            tracing::warn!(%namespace, object = %name, reason = %happened.reason, %error, "an event cannot be written");
        }
    }
}
