//! The watch of a single object, by its name: a right to more is not needed.

use std::fmt::Debug;
use std::time::Instant;

use futures_util::{Stream, StreamExt, stream};
use kube::Api;
use kube::core::Resource;
use kube::runtime::watcher::watch_object;
use serde::de::DeserializeOwned;

use super::api::cause;
use super::pauses::Pauses;

/// The object of this name as it is, and again whenever it changes; none where there is none. It never ends.
pub(crate) fn object_by_name<K>(api: Api<K>, kind: &'static str, name: &str) -> impl Stream<Item = Option<K>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = Box::pin(watch_object(api, name));
    let name = name.to_string();
    stream::unfold((events, Pauses::default()), move |(mut events, mut pauses)| {
        let name = name.clone();
        async move {
            loop {
                match events.next().await? {
                    Ok(object) => return Some((object, (events, pauses))),
                    Err(error) => {
                        tracing::warn!(kind, %name, error = %cause(&error), "a watch failed, and begins again");
                        tokio::time::sleep(pauses.next(Instant::now())).await;
                    }
                }
            }
        }
    })
}
