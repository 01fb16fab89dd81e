//! Writing down a change of the sidecar, one call for each thing that changes.

use crate::entries::put;
use crate::{Cache, Change, EmptyDir, OptionChange};

impl Change {
    /// Changes nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Sets the request of a resource. The amount is a quantity: text, or anything that displays as one.
    pub fn request(mut self, resource: &str, amount: impl ToString) -> Self {
        put(&mut self.requests, resource, Some(amount.to_string()));
        self
    }

    /// Removes the request of a resource.
    pub fn without_request(mut self, resource: &str) -> Self {
        put(&mut self.requests, resource, None);
        self
    }

    /// Sets the limit of a resource.
    pub fn limit(mut self, resource: &str, amount: impl ToString) -> Self {
        put(&mut self.limits, resource, Some(amount.to_string()));
        self
    }

    /// Removes the limit of a resource: it becomes unlimited, up to the host's ceiling.
    pub fn without_limit(mut self, resource: &str) -> Self {
        put(&mut self.limits, resource, None);
        self
    }

    /// Sets a mount option with a value. The name has no leading dashes.
    pub fn option(mut self, name: &str, value: impl ToString) -> Self {
        put(&mut self.mount_options, name, OptionChange::Set(Some(value.to_string())));
        self
    }

    /// Sets a mount option that takes no value, such as `writeback`.
    pub fn switch(mut self, name: &str) -> Self {
        put(&mut self.mount_options, name, OptionChange::Set(None));
        self
    }

    /// Removes a mount option.
    pub fn without_option(mut self, name: &str) -> Self {
        put(&mut self.mount_options, name, OptionChange::Remove);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        put(&mut self.env, name, Some(value.to_string()));
        self
    }

    /// Removes an environment variable.
    pub fn without_env(mut self, name: &str) -> Self {
        put(&mut self.env, name, None);
        self
    }

    /// Says where the client's cache lies.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = Some(cache);
        self
    }
}

impl Cache {
    /// An emptyDir on the node's disk.
    pub fn on_disk(size_limit: Option<String>) -> Self {
        Self::EmptyDir(EmptyDir { in_memory: false, size_limit })
    }

    /// An emptyDir in memory, which counts against the sidecar's memory limit.
    pub fn in_memory(size_limit: Option<String>) -> Self {
        Self::EmptyDir(EmptyDir { in_memory: true, size_limit })
    }
}

#[allow(clippy::derivable_impls, reason = "the type is made by wit-bindgen, which takes no attribute for a case")]
impl Default for Cache {
    fn default() -> Self {
        Self::Container
    }
}
