//! Small records for native tests, built with adjectives: `Pod::named("web-0").labelled("team", "web")`.
//!
//! Everything that is not said is as empty as it can be.

use std::cell::{Cell, RefCell};

use crate::cases::Lookup;
use crate::entries::put;
use crate::{Claim, Namespace, NamingRequest, Origin, Owner, Pod, QuotaRequest, Sidecar, Volume};

thread_local! {
    static OBJECT: RefCell<Option<String>> = const { RefCell::new(None) };
    static ORIGIN: RefCell<Option<Origin>> = const { RefCell::new(None) };
    static NOW: Cell<Option<u64>> = const { Cell::new(None) };
    static LOOKUPS: RefCell<Vec<Lookup>> = const { RefCell::new(Vec::new()) };
}

/// Says what [`object`](crate::object) answers on this thread from now on.
pub fn set_object(json: impl Into<String>) {
    OBJECT.set(Some(json.into()));
}

/// Makes [`object`](crate::object) panic again on this thread, as if nothing had been said.
pub fn clear_object() {
    OBJECT.set(None);
}

pub(crate) fn current_object() -> Option<String> {
    OBJECT.with_borrow(Clone::clone)
}

/// Says what [`origin`](crate::origin()) answers on this thread from now on: nothing, to begin with.
pub fn set_origin(origin: Option<Origin>) {
    ORIGIN.set(origin);
}

pub(crate) fn current_origin() -> Option<Origin> {
    ORIGIN.with_borrow(Clone::clone)
}

/// Says what [`clock::now`](crate::clock::now) answers on this thread from now on, in milliseconds; without one it panics.
pub fn set_now(milliseconds: impl Into<Option<u64>>) {
    NOW.set(milliseconds.into());
}

pub(crate) fn current_now() -> Option<u64> {
    NOW.get()
}

/// Says what [`lookup`](crate::lookup) finds on this thread from now on. Whatever else is looked up panics.
pub fn set_lookups(lookups: Vec<Lookup>) {
    LOOKUPS.set(lookups);
}

pub(crate) fn current_lookups() -> Vec<Lookup> {
    LOOKUPS.with_borrow(Clone::clone)
}

impl Pod {
    /// A pod with a name, of the service account `default`.
    pub fn named(name: &str) -> Self {
        Self { name: Some(name.to_owned()), service_account: "default".to_owned(), ..Self::default() }
    }

    /// A pod whose name the API server makes later.
    pub fn generated(prefix: &str) -> Self {
        Self { generate_name: Some(prefix.to_owned()), service_account: "default".to_owned(), ..Self::default() }
    }

    /// The same pod with a label.
    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        put(&mut self.labels, key, value.to_owned());
        self
    }

    /// The same pod with an annotation.
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        put(&mut self.annotations, key, value.to_owned());
        self
    }

    /// The same pod, managed by an owner.
    pub fn managed_by(mut self, api_version: &str, kind: &str, name: &str) -> Self {
        self.owners.push(Owner {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            controller: true,
        });
        self
    }

    /// The same pod with a PriorityClass and the number worked out from it.
    pub fn prioritised(mut self, class: &str, priority: i32) -> Self {
        self.priority_class = Some(class.to_owned());
        self.priority = Some(priority);
        self
    }
}

impl Namespace {
    /// A namespace with a name.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// The same namespace with a label.
    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        put(&mut self.labels, key, value.to_owned());
        self
    }

    /// The same namespace with an annotation.
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        put(&mut self.annotations, key, value.to_owned());
        self
    }
}

impl Claim {
    /// A claim with a name.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// The same claim with a label.
    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        put(&mut self.labels, key, value.to_owned());
        self
    }

    /// The same claim with an annotation.
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        put(&mut self.annotations, key, value.to_owned());
        self
    }

    /// The same claim of a StorageClass.
    pub fn of_class(mut self, storage_class: &str) -> Self {
        self.storage_class = Some(storage_class.to_owned());
        self
    }
}

impl Volume {
    /// The volume of a claim, called as the claim is.
    pub fn of(claim: Claim) -> Self {
        Self { name: claim.name.clone(), claim, ..Self::default() }
    }
}

impl NamingRequest {
    /// The request to make the volume of a claim.
    pub fn of(volume_name: &str, claim: Claim, namespace: Namespace) -> Self {
        Self { volume_name: volume_name.to_owned(), claim, namespace, ..Self::default() }
    }
}

impl QuotaRequest {
    /// The request to make the volume of a claim, in a directory of its own name.
    pub fn of(volume_name: &str, claim: Claim, namespace: Namespace) -> Self {
        let directory = vec![volume_name.to_owned()];
        Self { volume_name: volume_name.to_owned(), claim, namespace, directory, ..Self::default() }
    }
}

impl Sidecar {
    /// The same sidecar with a request.
    pub fn requesting(mut self, resource: &str, amount: &str) -> Self {
        put(&mut self.requests, resource, amount.to_owned());
        self
    }

    /// The same sidecar with a limit.
    pub fn limited(mut self, resource: &str, amount: &str) -> Self {
        put(&mut self.limits, resource, amount.to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_is_what_the_test_said() {
        set_object("{}");
        assert_eq!(crate::object(), "{}");
        clear_object();
        assert!(std::panic::catch_unwind(crate::object).is_err());
    }

    #[test]
    fn the_time_and_what_is_looked_up_are_what_the_test_said() {
        set_now(7);
        assert_eq!(crate::clock::now(), 7);
        set_now(None);
        assert!(std::panic::catch_unwind(crate::clock::now).is_err());
        let shop = serde_json::json!({"metadata": {"name": "shop"}});
        let one = Lookup {
            kind: "Namespace".to_owned(),
            name: Some("shop".to_owned()),
            found: Some(vec![shop.clone()]),
            ..Lookup::default()
        };
        let labels = [("team".to_owned(), "web".to_owned())].into();
        let list = Lookup { name: None, labels, found: Some(Vec::new()), ..one.clone() };
        set_lookups(vec![one, list]);
        assert_eq!(crate::lookup::namespace("shop"), Some(shop));
        assert_eq!(crate::lookup::namespaces(&[("team", "web")]), Vec::<crate::lookup::Value>::new());
        assert!(std::panic::catch_unwind(|| crate::lookup::namespaces(&[])).is_err());
        assert!(std::panic::catch_unwind(|| crate::lookup::claim("shop", "shop")).is_err());
        set_lookups(Vec::new());
    }
}
