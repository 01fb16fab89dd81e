//! What of a volume can be changed after it was made, beside its size: how many files it may have, and what becomes of it when it is
//! deleted.
//!
//! Three say it, and of each key the last one that does counts: the parameters of the StorageClass, the mutable parameters that the
//! volume was made with, and those that it was changed to since. A key that a change does not name stays as it is.

use super::record::Record;
use super::trash::{ON_DELETE, TRASH_DAYS};
use super::{Asked, OnDelete, Quota, VolumeRefusal};
use crate::object::Entries;

/// The parameter that says how many files and directories a volume may have.
const INODES: &str = "inodes";
/// What a VolumeAttributesClass can say.
const MUTABLE: [&str; 3] = [INODES, ON_DELETE, TRASH_DAYS];

/// Refuses what a new volume cannot have.
pub fn check_parameters(asked: &Asked) -> Result<(), VolumeRefusal> {
    Quota::of(&asked.parameters)?;
    OnDelete::of(&asked.parameters)?;
    inodes(&asked.parameters)?;
    changed(&asked.parameters, &asked.mutable_parameters).map(|_| ())
}

/// Refuses what no volume can be changed to.
pub fn check_mutable(asked: &Entries) -> Result<(), VolumeRefusal> {
    // Whether `trashDays` is for anything depends on the volume.
    let deleted = asked.get(TRASH_DAYS).is_some().then(|| (ON_DELETE.to_string(), "delete".to_string()));
    changed(&deleted.into_iter().collect(), asked).map(|_| ())
}

/// What parameters say once these are changed.
fn changed(parameters: &Entries, asked: &Entries) -> Result<Entries, VolumeRefusal> {
    if let Some(name) = asked.keys().find(|key| !MUTABLE.contains(&key.as_str())) {
        return Err(VolumeRefusal::Immutable(name.clone()));
    }
    let changed = over(parameters, asked);
    inodes(asked)?;
    // Days that were said before are not in the way of a volume that is to be retained: they wait for the next change.
    let mut said = asked.clone();
    if let Some(on_delete) = changed.get(ON_DELETE).filter(|_| asked.get(TRASH_DAYS).is_some()) {
        said.insert(ON_DELETE.into(), on_delete.clone());
    }
    OnDelete::of(&said)?;
    Ok(changed)
}

fn over(parameters: &Entries, changes: &Entries) -> Entries {
    let mut changed = parameters.clone();
    for (key, value) in changes.iter() {
        changed.insert(key.clone(), value.clone());
    }
    changed
}

/// How many files and directories there may be, if that is said; 0 for any number.
fn inodes(parameters: &Entries) -> Result<Option<u64>, VolumeRefusal> {
    let Some(value) = parameters.get(INODES) else { return Ok(None) };
    let plain = value.bytes().all(|byte| byte.is_ascii_digit());
    // The client's number is signed.
    match value.parse().ok().filter(|number| plain && i64::try_from(*number).is_ok()) {
        Some(number) => Ok(Some(number)),
        None => {
            let rule = "write a whole number of files and directories, as in `1000000`; `0` is no bound";
            Err(VolumeRefusal::Parameter { name: INODES, value: value.clone(), rule })
        }
    }
}

impl Record {
    /// What the parameters say of the volume by now.
    pub fn parameters(&self) -> Entries {
        over(&over(&self.asked.parameters, &self.asked.mutable_parameters), &self.modified)
    }

    /// What they say of that which can be changed.
    pub fn mutable(&self) -> Entries {
        let said = self.parameters();
        let mutable = |key: &&str| Some(((*key).to_string(), said.get(*key)?.clone()));
        MUTABLE.iter().filter_map(mutable).collect()
    }

    /// How many files and directories the volume may have, if that is said; 0 for any number.
    pub fn inodes(&self) -> Option<u64> {
        // Nothing that cannot be read has come so far.
        inodes(&self.parameters()).ok().flatten()
    }

    /// The next record: it is changed to this. None where it is so already.
    pub fn modified(&self, asked: &Entries) -> Result<Option<Record>, VolumeRefusal> {
        let before = self.parameters();
        let after = changed(&before, asked)?;
        Ok((after != before).then(|| self.next(|next| next.modified = over(&next.modified, asked))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::entries;
    use crate::volume::{NamedBy, Place, State};

    /// A volume of a class with these parameters, made with those mutable ones.
    fn volume(parameters: &[(&str, &str)], mutable: &[(&str, &str)]) -> Record {
        let asked = Asked {
            name: "pvc-1".into(),
            required_bytes: None,
            limit_bytes: None,
            capabilities: Vec::new(),
            parameters: entries(parameters),
            mutable_parameters: entries(mutable),
            source: None,
        };
        check_parameters(&asked).expect("it can be made");
        let directory = "/pvc-1".parse().expect("a directory");
        let place = Place {
            directory,
            shared: false,
            named_by: NamedBy::VolumeName,
            quota: None,
            warnings: Vec::new(),
            notes: Vec::new(),
            monitored: Vec::new(),
        };
        Record::begin("blue", "n".into(), asked, None, place, 0).ready()
    }

    #[test]
    fn of_each_key_the_last_one_that_says_it_counts_and_what_is_not_named_stays() {
        let made = volume(&[("trashDays", "7"), ("pool", "fast")], &[("inodes", "5")]);
        assert_eq!(made.mutable(), entries(&[("inodes", "5"), ("trashDays", "7")]));
        assert_eq!((made.on_delete(), made.inodes()), (OnDelete::Delete(Some(7)), Some(5)));
        let change = |record: &Record, asked: &[(&str, &str)]| {
            record.modified(&entries(asked)).expect("it can be changed").expect("it is something else")
        };
        let fewer = change(&made, &[("inodes", "3")]);
        assert_eq!((fewer.generation, fewer.inodes(), fewer.on_delete()), (2, Some(3), OnDelete::Delete(Some(7))));
        assert_eq!(fewer, Record { generation: 2, modified: entries(&[("inodes", "3")]), ..made.clone() });
        // The days wait until something is to be purged again.
        let kept = change(&fewer, &[("onDelete", "retain")]);
        assert_eq!((kept.inodes(), kept.on_delete()), (Some(3), OnDelete::Retain));
        let again = change(&kept, &[("onDelete", "delete"), ("inodes", "0")]);
        assert_eq!((again.generation, again.inodes(), again.on_delete()), (4, Some(0), OnDelete::Delete(Some(7))));
        assert_eq!(change(&again, &[("trashDays", "0")]).on_delete(), OnDelete::Delete(Some(0)));
        // What a volume has for ever, and what a node is told, is what it was made with.
        assert_eq!((&again.asked, again.volume_context()), (&made.asked, made.volume_context()));
        assert_eq!(again.deleting("pvc-1.x", 9).state, made.deleting("pvc-1.x", 9).state);
    }

    #[test]
    fn a_change_to_what_is_so_already_is_none() {
        let made = volume(&[("onDelete", "archive")], &[("inodes", "5")]);
        for same in [&[][..], &[("onDelete", "archive")], &[("inodes", "5"), ("onDelete", "archive")]] {
            assert_eq!(made.modified(&entries(same)), Ok(None), "{same:?}");
        }
    }

    #[test]
    fn what_cannot_be_says_why() {
        let check = |parameters: &[(&str, &str)], asked: &[(&str, &str)], expected: &str| {
            let record = volume(parameters, &[]);
            let refusal = record.modified(&entries(asked)).expect_err("it is refused").to_string();
            assert_eq!(refusal, expected, "{parameters:?} to {asked:?}");
            // A new volume neither.
            let asked = Asked { mutable_parameters: entries(asked), ..record.asked };
            assert_eq!(check_parameters(&asked).map_err(|refusal| refusal.to_string()), Err(expected.into()));
        };
        let immutable = "the parameter `pool` cannot be changed: `inodes`, `onDelete` and `trashDays` can, and a volume grows by the \
                         size of its claim";
        check(&[], &[("pool", "slow")], immutable);
        check(&[("pool", "fast")], &[("inodes", "5"), ("pool", "fast")], immutable);
        for value in ["", "-1", "+1", "1.5", "1k", "9223372036854775808"] {
            let rule = "write a whole number of files and directories, as in `1000000`; `0` is no bound";
            check(&[], &[("inodes", value)], &format!("the parameter inodes is `{value}`: {rule}"));
        }
        let rule = "write `delete` (to the trash), `retain` (it stays where it is) or `archive` (moved aside for good)";
        check(&[], &[("onDelete", "keep")], &format!("the parameter onDelete is `keep`: {rule}"));
        let days = "the parameter trashDays is `3`: it is for `onDelete: delete`, as nothing else is ever purged";
        check(&[("onDelete", "retain")], &[("trashDays", "3")], days);
        check(&[], &[("onDelete", "archive"), ("trashDays", "3")], days);
    }

    #[test]
    fn what_no_volume_can_be_changed_to_is_known_without_one() {
        let check = |asked: &[(&str, &str)], is_possible: bool| {
            assert_eq!(check_mutable(&entries(asked)).is_ok(), is_possible, "{asked:?}");
        };
        check(&[("inodes", "5"), ("trashDays", "3")], true);
        check(&[("onDelete", "retain")], true);
        check(&[("onDelete", "retain"), ("trashDays", "3")], false);
        check(&[("onDelete", "keep")], false);
        check(&[("capacity", "5Gi")], false);
    }

    #[test]
    fn a_state_is_no_business_of_a_change() {
        let made = volume(&[], &[]);
        let changed = made.modified(&entries(&[("inodes", "5")])).expect("it can be changed").expect("it is another");
        assert_eq!(changed.state, State::Ready);
    }
}
