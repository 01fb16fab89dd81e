//! One look at a cluster for `pith check`, with whatever rights the caller has: what may not be read is said, and is no failure.
//!
//! Of Secrets only whether there is one of a name is asked, in a form of answer that has neither content nor annotations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Error as AnyError, Result, anyhow};
use futures_util::{StreamExt, stream};
use hyper::Request;
use hyper::header::ACCEPT;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, Resource};
use kube::{Api, Client, Error};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pith_core::check::Read;
use pith_core::file_system;
use pith_core::json::entries;
use pith_core::object::{Kind, Object, Objects, SecretRef};
use serde_json::Value;

use super::api::{cause, lacks_native_sidecars, read, resource};
use crate::config::ConfigMapRef;

/// How many objects come in one page of a list.
const PAGE: u32 = 100;
/// The most time for one page or object.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many Secrets are asked for at once: the API server has other callers.
const AT_ONCE: usize = 8;
/// What `kubectl get` prints, without the objects.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Who looks.
pub(crate) struct Look(pub(crate) Client);

impl Look {
    /// All objects of a kind that decisions need, in one namespace where it is given: then a right to more is not needed.
    async fn objects(&self, kind: Kind, namespace: Option<&str>) -> Result<Read<Vec<Object>>> {
        let mut objects = Vec::new();
        let keep = |found: DynamicObject| {
            let name = found.metadata.name.clone().unwrap_or_default();
            match read(kind, found) {
                Ok(object) => objects.push(object),
                Err(error) => {
                    tracing::warn!("the {} `{name}` cannot be read, and is left out: {error:#}", kind.name());
                }
            }
        };
        let api = match (kind, namespace) {
            (Kind::Claim, Some(namespace)) => Api::namespaced_with(self.0.clone(), namespace, &resource(kind)),
            _ => Api::all_with(self.0.clone(), &resource(kind)),
        };
        let listed = match (kind, namespace) {
            (Kind::Namespace, Some(name)) => {
                in_time(api.get_opt(name)).await.map(|found| found.into_iter().for_each(keep))
            }
            _ => list(&api, ListParams::default(), keep).await,
        };
        Ok(answered(listed)?.map(|()| objects))
    }

    /// What `keep` keeps of everything of a kind, by its group and name, as JSON: of a cluster's pods most are nobody's business
    /// here, and all of them at once would be large.
    pub(crate) async fn values(
        &self,
        (group, kind): (&str, &str),
        namespace: Option<&str>,
        params: ListParams,
        keep: impl Fn(Value) -> Option<Value>,
    ) -> Result<Read<Vec<Value>>> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let api = match namespace {
            Some(namespace) => Api::<DynamicObject>::namespaced_with(self.0.clone(), namespace, &resource),
            None => Api::all_with(self.0.clone(), &resource),
        };
        let mut values = Vec::new();
        let take = |found: DynamicObject| values.extend(keep(value(found)));
        let listed = list(&api, params, take).await;
        Ok(answered(listed)?.map(|()| values))
    }

    /// Whatever decisions read, as far as it may be read, and why not where it may not. `known` is where it stands what pods must know
    /// of file systems.
    pub(crate) async fn everything(
        &self,
        namespace: Option<&str>,
        known: Option<&ConfigMapRef>,
    ) -> Result<(Objects, BTreeMap<Kind, String>)> {
        let (mut objects, mut unread) = (Objects::default(), BTreeMap::new());
        if let Some(ConfigMapRef { namespace, name }) = known {
            let found = self.value(("", "ConfigMap"), namespace, name).await?;
            let found =
                found.map_err(AnyError::msg).with_context(|| format!("reading the ConfigMap `{namespace}/{name}`"))?;
            objects.know(file_system::read(&entries(&found.unwrap_or_default()["data"])).0);
        }
        objects.lacks_native_sidecars = self.lacks_native_sidecars().await?;
        for kind in Kind::ALL {
            match self.objects(kind, namespace).await? {
                Ok(found) => {
                    for object in found {
                        objects.insert(object);
                    }
                }
                Err(why) => {
                    unread.insert(kind, why);
                }
            }
        }
        Ok((objects, unread))
    }

    /// Whether the cluster has no native sidecars.
    async fn lacks_native_sidecars(&self) -> Result<bool> {
        in_time(lacks_native_sidecars(&self.0))
            .await
            .map_err(|error| anyhow!(cause(&error)))
            .context("asking for the version")
    }

    /// One object of a kind by its group and name; none where there is none.
    pub(crate) async fn value(
        &self,
        (group, kind): (&str, &str),
        namespace: &str,
        name: &str,
    ) -> Result<Read<Option<Value>>> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let api = Api::<DynamicObject>::namespaced_with(self.0.clone(), namespace, &resource);
        let found = answered(in_time(api.get_opt(name)).await)?;
        Ok(found.map(|found| found.map(value)))
    }

    /// Whether each of these Secrets is there.
    pub(crate) async fn secrets(&self, names: BTreeSet<SecretRef>) -> Result<Vec<(SecretRef, Read<bool>)>> {
        let asked = stream::iter(names).map(|name| async move {
            let found = self.secret(&name).await?;
            anyhow::Ok((name, found))
        });
        let answers: Vec<Result<_>> = asked.buffer_unordered(AT_ONCE).collect().await;
        answers.into_iter().collect()
    }

    async fn secret(&self, name: &SecretRef) -> Result<Read<bool>> {
        let encoded = |part: &str| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string();
        let path = Secret::url_path(&(), Some(&encoded(&name.namespace)));
        let request = Request::get(format!("{path}/{}?includeObject=None", encoded(&name.name)));
        let request = request.header(ACCEPT, TABLE).body(Vec::new()).context("asking for a Secret's name")?;
        match in_time(self.0.request::<Value>(request)).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(Ok(false)),
            other => Ok(answered(other)?.map(|_| true)),
        }
    }
}

/// An object as JSON, without what is the largest part of most and read by nobody here.
fn value(mut found: DynamicObject) -> Value {
    found.metadata.managed_fields = None;
    serde_json::to_value(found).unwrap_or_default()
}

/// Hands on everything of a list, page by page.
pub(super) async fn list(
    api: &Api<DynamicObject>,
    params: ListParams,
    mut keep: impl FnMut(DynamicObject),
) -> Result<(), Error> {
    let mut params = params.limit(PAGE);
    loop {
        let page = in_time(api.list(&params)).await?;
        page.items.into_iter().for_each(&mut keep);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(late) => Err(Error::Service(Box::new(late))),
    }
}

/// An API server that refuses has answered; without an answer nothing can be looked at.
fn answered<T>(answer: Result<T, Error>) -> Result<Read<T>> {
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(error @ Error::Api(_)) => Ok(Err(cause(&error))),
        Err(error) => Err(anyhow!(cause(&error))).context("asking the API server"),
    }
}
