//! One kind of objects as the API server tells it: what each event makes of the objects. No IO, no clock.

use std::collections::HashSet;

use pith_core::object::{Kind, Object, Objects, Reference};

/// What the API server says about the objects of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// It begins to list all of them.
    Listing,
    /// One of them, as it is now.
    Is(Object),
    /// One that is no more, or that cannot be read.
    Gone(Reference),
    /// It has listed all of them.
    Listed,
}

/// One kind, event by event.
#[derive(Debug)]
pub(super) struct Feed {
    /// The kind.
    pub(super) kind: Kind,
    /// What was listed so far, while it is.
    listed: Option<HashSet<Reference>>,
}

impl Feed {
    pub(super) fn of(kind: Kind) -> Feed {
        Feed { kind, listed: None }
    }

    /// Changes the objects by one event. What is listed counts at once, and what was not is removed at the end of the list: a
    /// list that comes in a second time takes no more memory than its names.
    pub(super) fn apply(&mut self, told: Told, objects: &mut Objects) {
        match told {
            Told::Listing => self.listed = Some(HashSet::new()),
            Told::Is(object) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(object.reference());
                }
                objects.insert(object);
            }
            Told::Gone(reference) => {
                if let Some(listed) = &mut self.listed {
                    listed.remove(&reference);
                }
                objects.remove(&reference);
            }
            Told::Listed => {
                let listed = self.listed.take().unwrap_or_default();
                // All that was listed is there, so as many are the same ones.
                if objects.count(self.kind) > listed.len() {
                    for gone in objects.references(self.kind).iter().filter(|it| !listed.contains(it)) {
                        objects.remove(gone);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use pith_core::object::{Claim, Namespace};
    use proptest::prelude::*;

    fn claim(name: &str, uid: &str) -> Object {
        Object::Claim(Claim { namespace: "shop".into(), name: name.into(), uid: uid.into(), ..Claim::default() })
    }

    fn after(events: impl IntoIterator<Item = Told>, mut objects: Objects) -> Objects {
        let mut feed = Feed::of(Kind::Claim);
        events.into_iter().for_each(|told| feed.apply(told, &mut objects));
        objects
    }

    fn holding(objects: impl IntoIterator<Item = Object>) -> Objects {
        let mut held = Objects::default();
        for object in objects {
            held.insert(object);
        }
        held
    }

    #[test]
    fn a_second_list_removes_what_went_away_unseen_and_nothing_of_another_kind() {
        let shop = || Object::Namespace(Namespace { name: "shop".into(), ..Namespace::default() });
        let before = holding([shop(), claim("old", "1"), claim("kept", "2")]);
        let events = [Told::Listing, Told::Is(claim("kept", "3")), Told::Is(claim("new", "4")), Told::Listed];
        assert_eq!(after(events, before), holding([shop(), claim("kept", "3"), claim("new", "4")]));
    }

    #[test]
    fn a_list_that_was_cut_removes_nothing() {
        let before = holding([claim("old", "1")]);
        let events =
            [Told::Listing, Told::Is(claim("new", "2")), Told::Listing, Told::Is(claim("old", "1")), Told::Listed];
        assert_eq!(
            after(events.clone().into_iter().take(2), before.clone()),
            holding([claim("old", "1"), claim("new", "2")])
        );
        assert_eq!(after(events, before), holding([claim("old", "1")]));
    }

    /// What can happen to a claim in the cluster, or to who watches it.
    #[derive(Debug, Clone)]
    enum Step {
        Written(u8, u8),
        Deleted(u8),
        /// The watch loses the events of these steps, and lists again; the list is cut so many times before.
        Missed(Vec<Step>, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let seen = prop_oneof![
            3 => (0..6_u8, any::<u8>()).prop_map(|(name, uid)| Step::Written(name, uid)),
            2 => (0..6_u8).prop_map(Step::Deleted),
        ];
        prop_oneof![4 => seen.clone(), 1 => (prop::collection::vec(seen, 0..6), 0..3_u8).prop_map(|(steps, cut)| Step::Missed(steps, cut))]
    }

    /// Carries out a step in the cluster; the answer is what is told of it.
    fn carry_out(step: Step, cluster: &mut BTreeMap<u8, Object>) -> Vec<Told> {
        match step {
            Step::Written(name, uid) => {
                let object = claim(&name.to_string(), &uid.to_string());
                cluster.insert(name, object.clone());
                vec![Told::Is(object)]
            }
            Step::Deleted(name) => cluster.remove(&name).map(|it| Told::Gone(it.reference())).into_iter().collect(),
            Step::Missed(steps, cut) => {
                let before: Vec<Told> = cluster.values().cloned().map(Told::Is).collect();
                steps.into_iter().for_each(|step| drop(carry_out(step, cluster)));
                let mut told = Vec::new();
                for _ in 0..cut {
                    told.push(Told::Listing);
                    told.extend(before.iter().take(2).cloned());
                }
                told.push(Told::Listing);
                told.extend(cluster.values().cloned().map(Told::Is));
                told.push(Told::Listed);
                told
            }
        }
    }

    proptest! {
        #[test]
        fn after_any_events_the_objects_are_those_of_the_cluster(steps in prop::collection::vec(step(), 0..40)) {
            let (mut cluster, mut feed, mut objects) = (BTreeMap::new(), Feed::of(Kind::Claim), Objects::default());
            for step in steps {
                for told in carry_out(step, &mut cluster) {
                    feed.apply(told, &mut objects);
                }
                prop_assert_eq!(&objects, &holding(cluster.values().cloned()));
            }
        }
    }
}
