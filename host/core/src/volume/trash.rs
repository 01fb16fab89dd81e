//! What becomes of a volume that is deleted: what its StorageClass says, how long the trash keeps it, and what may happen to it there.
//!
//! ```text
//!   ready ─ .deleting() ─ fate? ┬─ its time is over ─ .purging() ─► gone
//!                               └─ somebody wants it back ─ .restoring() ─┬─ .restored() ─► ready
//!                                                                        └─ .deleting_after_all() ─► as before
//! ```
//!
//! Each is the next generation of the record. Of two that would be the same generation one is made, so whoever purges and whoever
//! restores cannot both have it.

use super::VolumeRefusal;
use super::record::{Record, RecordProblem, State, Trashed};
use crate::object::Entries;

/// The StorageClass parameter that says what becomes of a deleted volume.
pub(super) const ON_DELETE: &str = "onDelete";
/// The StorageClass parameter that says how long the trash keeps it.
pub(super) const TRASH_DAYS: &str = "trashDays";
/// The longest that the trash keeps anything: a hundred years.
pub const MOST_TRASH_DAYS: u32 = 36_500;
const SECONDS_A_DAY: u64 = 86_400;

/// What becomes of a volume's directory when the volume is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// It goes to the trash, and is purged when it has lain there for as many days; without a number, for as many as the
    /// configuration says.
    Delete(Option<u32>),
    /// It stays where it is. Only the record and the index go.
    Retain,
    /// It is moved aside, and never purged.
    Archive,
}

impl OnDelete {
    /// What the parameters of a StorageClass say.
    pub fn of(parameters: &Entries) -> Result<OnDelete, VolumeRefusal> {
        let refuse = |name, value: &str, rule| Err(VolumeRefusal::Parameter { name, value: value.into(), rule });
        let days = parameters.get(TRASH_DAYS);
        match (parameters.get(ON_DELETE).map_or("delete", String::as_str), days) {
            ("delete", None) => Ok(OnDelete::Delete(None)),
            ("delete", Some(days)) => match whole_days(days) {
                Some(number) => Ok(OnDelete::Delete(Some(number))),
                None => {
                    refuse(TRASH_DAYS, days, "write a whole number of days up to 36500, as in `7`; `0` keeps nothing")
                }
            },
            ("retain" | "archive", Some(days)) => {
                refuse(TRASH_DAYS, days, "it is for `onDelete: delete`, as nothing else is ever purged")
            }
            ("retain", None) => Ok(OnDelete::Retain),
            ("archive", None) => Ok(OnDelete::Archive),
            (other, _) => {
                let rule = "write `delete` (to the trash), `retain` (it stays where it is) or `archive` (moved aside for good)";
                refuse(ON_DELETE, other, rule)
            }
        }
    }
}

/// Digits alone, so that `+7` and ` 7` are not taken for what they may have been meant to be.
fn whole_days(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| plain && *number <= MOST_TRASH_DAYS)
}

/// What is to be done about a place in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its time is over, or it is being purged already.
    Purge,
    /// It stays until then, in seconds since 1970.
    Keep(u64),
    /// It stays: its record does not say since when it lies there, or its class that it is never purged.
    KeepForever,
    /// Somebody is bringing it back, or began to.
    Restoring,
}

impl Record {
    /// What becomes of the volume's directory when it is deleted. A value that a Pith without such parameters let pass is no reason to
    /// remove anything. Where nothing is to be purged, days are said for later.
    pub fn on_delete(&self) -> OnDelete {
        let mut parameters = self.parameters();
        if parameters.get(ON_DELETE).is_some_and(|it| it != "delete") {
            parameters.remove(TRASH_DAYS);
        }
        OnDelete::of(&parameters).unwrap_or(OnDelete::Archive)
    }

    /// The next record, and the last one in its place: it is on its way to this place in the trash, at this time (seconds since 1970).
    pub fn deleting(&self, trash: &str, now: u64) -> Record {
        self.next(|next| next.state = State::Deleting(Trashed { trash: trash.to_string(), at: Some(now) }))
    }

    /// The next and last record: what it left is being removed for good. None where it does not lie in the trash, waiting.
    pub fn purging(&self) -> Option<Record> {
        let State::Deleting(trashed) = &self.state else { return None };
        Some(self.next(|next| next.state = State::Purging(trashed.clone())))
    }

    /// The next record: it is on its way back. None where it does not lie in the trash, waiting.
    pub fn restoring(&self) -> Option<Record> {
        let State::Deleting(trashed) = &self.state else { return None };
        Some(self.next(|next| next.state = State::Restoring(trashed.clone())))
    }

    /// The next record of a volume that was on its way back: it is there.
    pub fn restored(&self) -> Record {
        self.next(|next| next.state = State::Ready)
    }

    /// The next record of a volume that was on its way back and cannot be: it lies in the trash, and for no longer than before. None
    /// where it was not on its way back.
    pub fn deleting_after_all(&self) -> Option<Record> {
        let State::Restoring(trashed) = &self.state else { return None };
        Some(self.next(|next| next.state = State::Deleting(trashed.clone())))
    }

    /// Where it lies in the trash, if that is what the record says.
    pub fn trashed(&self) -> Option<&Trashed> {
        match &self.state {
            State::Creating | State::Ready => None,
            State::Deleting(trashed) | State::Purging(trashed) | State::Restoring(trashed) => Some(trashed),
        }
    }

    /// What is to be done, now (seconds since 1970), about the place in the trash that the record was found in. An error where it does
    /// not say that this very place is its own: whatever lies there is not the business of this record.
    pub fn fate(&self, trash: &str, default_days: u32, now: u64) -> Result<Fate, RecordProblem> {
        let trashed = self.trashed().filter(|trashed| trashed.trash == trash);
        let trashed =
            trashed.ok_or_else(|| RecordProblem::Misplaced { id: self.id.clone(), generation: self.generation })?;
        let days = match (&self.state, self.on_delete()) {
            (State::Restoring(_), _) => return Ok(Fate::Restoring),
            (State::Purging(_), _) => return Ok(Fate::Purge),
            (_, OnDelete::Archive) => return Ok(Fate::KeepForever),
            (_, OnDelete::Retain) => default_days,
            (_, OnDelete::Delete(days)) => days.unwrap_or(default_days),
        };
        let Some(at) = trashed.at else { return Ok(Fate::KeepForever) };
        let until = at.saturating_add(u64::from(days).saturating_mul(SECONDS_A_DAY));
        Ok(if until <= now { Fate::Purge } else { Fate::Keep(until) })
    }
}

#[cfg(test)]
mod tests;
