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

    /// What these interfaces of the contract need.
    pub(super) fn needed<'a>(interfaces: impl Iterator<Item = &'a str>) -> Grants {
        let mut needed = Grants::default();
        for interface in interfaces {
            match interface {
                "object" => needed.object = true,
                "clock" => needed.clock = true,
                _ => needed.lookup.extend(LOOKUPS.iter().find(|(name, _)| *name == interface).map(|(_, kind)| kind)),
            }
        }
        needed
    }

    /// Whether these have all of others.
    pub(super) fn cover(&self, needed: &Grants) -> bool {
        (self.object || !needed.object)
            && (self.clock || !needed.clock)
            && needed.lookup.iter().all(|kind| self.lookup.contains(kind))
    }

    /// These and others.
    pub(super) fn and(&self, others: &Grants) -> Grants {
        Grants {
            object: self.object || others.object,
            clock: self.clock || others.clock,
            lookup: self.lookup.union(&others.lookup).copied().collect(),
        }
    }

    /// What they let a policy do, in words.
    pub(super) fn words(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.object.then(|| "read the raw object".to_string()));
        words.extend(self.clock.then(|| "read the time".to_string()));
        words.extend((!self.lookup.is_empty()).then(|| format!("look up {}", self.kinds())));
        words.join(" and ")
    }

    /// As a binding has them.
    pub fn describe(&self) -> Value {
        let kinds: Vec<&str> = self.lookup.iter().map(|kind| kind.name()).collect();
        let one = |granted: bool, value: Value| granted.then_some(value);
        let grants = [
            one(self.object, json!("object")),
            one(self.clock, json!("clock")),
            one(!kinds.is_empty(), json!({"lookup": kinds})),
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
        let mut items = Vec::new();
        items.extend(self.object.then(|| "object".to_string()));
        items.extend(self.clock.then(|| "clock".to_string()));
        items.extend((!self.lookup.is_empty()).then(|| format!("{{lookup: [{}]}}", self.kinds())));
        write!(f, "[{}]", items.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_needs_its_own_grant_and_is_named_in_the_line() {
        let everything = Grants::needed(GRANTED.into_iter());
        assert_eq!(everything, Grants::everything());
        let line = "[object, clock, {lookup: [Namespace, StorageClass, PersistentVolume, PersistentVolumeClaim]}]";
        assert_eq!(everything.to_string(), line);
        for interface in GRANTED {
            let needed = Grants::needed([interface].into_iter());
            assert!(everything.cover(&needed) && !Grants::default().cover(&needed), "{interface}");
            for other in GRANTED.into_iter().filter(|other| *other != interface) {
                assert!(!Grants::needed([other].into_iter()).cover(&needed), "{other} grants {interface}");
            }
        }
        assert_eq!(Grants::needed(["log"].into_iter()), Grants::default());
    }
}
