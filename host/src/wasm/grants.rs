//! What a binding lets its policy import: which interfaces that is, and what is said where one is missing.

use std::collections::BTreeSet;
use std::fmt;

use pith_core::object::Kind;
use serde_json::{Value, json};

/// The interfaces for which a binding needs a grant.
pub(super) const GRANTED: [&str; 6] =
    ["object", "clock", "namespaces", "storage-classes", "claims", "persistent-volumes"];

/// Those of them that look a kind up.
const LOOKUPS: [(&str, Kind); 4] = [
    ("namespaces", Kind::Namespace),
    ("storage-classes", Kind::StorageClass),
    ("claims", Kind::Claim),
    ("persistent-volumes", Kind::PersistentVolume),
];

/// What a binding lets its policy import beyond `log` and `origin`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// `pith:policy/object`: the raw Pod or PersistentVolumeClaim.
    pub object: bool,
    /// `pith:policy/clock`: the time.
    pub clock: bool,
    /// The interfaces that look objects of these kinds up.
    pub lookup: BTreeSet<Kind>,
}

impl Grants {
    /// All there are: to look at a module is not to run it.
    pub fn everything() -> Grants {
        Grants { object: true, clock: true, lookup: Kind::ALL.into() }
    }

    /// What an interface of the contract needs.
    pub(super) fn needed(interface: &str) -> Grants {
        let kind = LOOKUPS.iter().find(|(name, _)| *name == interface).map(|(_, kind)| *kind);
        Grants { object: interface == "object", clock: interface == "clock", lookup: kind.into_iter().collect() }
    }

    /// Several together.
    pub(super) fn all(several: impl Iterator<Item = Grants>) -> Grants {
        several.fold(Grants::default(), |mut all, one| {
            all.object |= one.object;
            all.clock |= one.clock;
            all.lookup.extend(one.lookup);
            all
        })
    }

    /// Whether these have all of others.
    pub(super) fn cover(&self, needed: &Grants) -> bool {
        (self.object || !needed.object) && (self.clock || !needed.clock) && needed.lookup.is_subset(&self.lookup)
    }

    /// What they let a policy do, in words.
    pub(super) fn words(&self) -> String {
        let words = [
            self.object.then(|| "read the raw object".to_string()),
            self.clock.then(|| "read the time".to_string()),
            (!self.lookup.is_empty()).then(|| format!("look up {}", self.kinds())),
        ];
        words.into_iter().flatten().collect::<Vec<_>>().join(" and ")
    }

    /// As a binding has them.
    pub fn describe(&self) -> Value {
        let kinds: Vec<&str> = self.lookup.iter().map(|kind| kind.name()).collect();
        let grants = [
            self.object.then(|| json!("object")),
            self.clock.then(|| json!("clock")),
            (!kinds.is_empty()).then(|| json!({"lookup": kinds})),
        ];
        grants.into_iter().flatten().collect()
    }

    fn kinds(&self) -> String {
        self.lookup.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
    }
}

/// As the line of a binding has them: `[object, {lookup: [Namespace]}]`.
impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = [
            self.object.then(|| "object".to_string()),
            self.clock.then(|| "clock".to_string()),
            (!self.lookup.is_empty()).then(|| format!("{{lookup: [{}]}}", self.kinds())),
        ];
        write!(f, "[{}]", items.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_needs_its_own_grant_and_is_named_in_the_line() {
        let everything = Grants::all(GRANTED.into_iter().map(Grants::needed));
        assert_eq!(everything, Grants::everything());
        let line = "[object, clock, {lookup: [Namespace, StorageClass, PersistentVolume, PersistentVolumeClaim]}]";
        assert_eq!(everything.to_string(), line);
        for interface in GRANTED {
            let needed = Grants::needed(interface);
            assert!(everything.cover(&needed) && !Grants::default().cover(&needed), "{interface}");
            for other in GRANTED.into_iter().filter(|other| *other != interface) {
                assert!(!Grants::needed(other).cover(&needed), "{other} grants {interface}");
            }
        }
        assert_eq!(Grants::needed("log"), Grants::default());
    }
}
