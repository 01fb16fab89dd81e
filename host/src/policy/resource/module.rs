//! The module that was in force last for a PolicyBinding, in an object of its own: a PolicyModule (decisions/0041).
//!
//! Where a module comes from may have another one by now. A replica that starts then has it from here.

use k8s_openapi::ByteString;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cluster::in_time;

/// The largest module that is kept: no ConfigMap has a larger one, and an API server takes no much larger object.
pub(super) const LARGEST: usize = 1 << 20;
/// As whom it is written.
const WRITER: &str = "pith";

/// The spec of a PolicyModule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Spec {
    /// The SHA-256 of the module, in hexadecimal.
    pub(super) digest: String,
    /// The module, in Base64.
    #[schemars(with = "String", length(max = LARGEST.div_ceil(3) * 4))]
    pub(super) module: ByteString,
}

/// The PolicyModules of a cluster. One has the name of the PolicyBinding that owns it.
pub(super) fn api(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("pith.dev", "v1alpha1", "PolicyModule");
    Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, "policymodules"))
}

/// Reads one; nothing where there is none. An error is a sentence.
pub(super) async fn read(api: &Api<DynamicObject>, name: &str) -> Result<Option<Spec>, String> {
    let Some(found) = in_time(api.get_opt(name)).await? else { return Ok(None) };
    let spec = serde_json::from_value(found.data["spec"].clone());
    spec.map(Some).map_err(|error| format!("the PolicyModule `{name}` is not one of this version of Pith: {error}"))
}

/// Writes the one of the PolicyBinding with this name and uid, with which it ends.
pub(super) async fn write(api: &Api<DynamicObject>, name: &str, uid: &str, spec: &Spec) -> Result<(), String> {
    let owner = json!({"apiVersion": "pith.dev/v1alpha1", "kind": "PolicyBinding", "name": name, "uid": uid});
    let patch = json!({
        "apiVersion": "pith.dev/v1alpha1", "kind": "PolicyModule",
        "metadata": {"name": name, "ownerReferences": [owner]}, "spec": spec,
    });
    let params = PatchParams::apply(WRITER).force();
    in_time(api.patch(name, &params, &Patch::Apply(patch))).await.map(|_| ())
}
