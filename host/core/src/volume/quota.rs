//! What bounds a volume: whether its size is enforced, which quota its directory has, and how the client writes that.

use super::{Record, VolumeRefusal};
use crate::object::Entries;

/// The StorageClass parameter that says whether sizes are enforced.
const QUOTA: &str = "quota";

/// Whether a volume's size is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// By a quota on its directory.
    On,
    /// By nothing: the size is what the claim says, and no more.
    Off,
}

impl Quota {
    /// What the parameters of a StorageClass say; none where they say nothing.
    pub fn of(parameters: &Entries) -> Result<Option<Quota>, VolumeRefusal> {
        match parameters.get(QUOTA).map(String::as_str) {
            None => Ok(None),
            Some("on") => Ok(Some(Quota::On)),
            Some("off") => Ok(Some(Quota::Off)),
            Some(value) => {
                let rule = "write `on` (the size is enforced) or `off` (it is not), in quotes: YAML takes both for something else";
                Err(VolumeRefusal::Parameter { name: QUOTA, value: value.into(), rule })
            }
        }
    }
}

impl Record {
    /// How much may be in the volume, in bytes; none for no bound. What its class does not say is as it is by default, and so is
    /// what a Pith without such a parameter let pass.
    pub fn bound(&self, by_default: Quota) -> Option<u64> {
        let quota = Quota::of(&self.asked.parameters).ok().flatten().unwrap_or(by_default);
        (quota == Quota::On && self.capacity_bytes > 0).then_some(self.capacity_bytes)
    }
}

/// How much may be in a directory that these volumes have, in bytes; none for no bound. It is that of the largest of them: one that
/// comes later takes nothing away from those that are there.
pub fn bound<'a>(records: impl IntoIterator<Item = &'a Record>, by_default: Quota) -> Option<u64> {
    let bounds: Option<Vec<u64>> = records.into_iter().map(|record| record.bound(by_default)).collect();
    bounds?.into_iter().max()
}

/// A size in bytes as the client writes it: with one digit behind the point below 10, and in the largest unit that it fills.
pub fn written(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let (bytes, mut unit, mut divisor) = (u128::from(bytes), 0, 1);
    while bytes / divisor >= 1024 && unit + 1 < UNITS.len() {
        divisor *= 1024;
        unit += 1;
    }
    // In tenths, the nearest one.
    let tenths = (bytes * 10 + divisor / 2) / divisor;
    let (whole, tenths) = (tenths / 10, tenths % 10);
    match whole {
        // A half goes to the even one, as C and Go have it.
        10.. => format!("{} {}", whole + u128::from(tenths > 5 || tenths == 5 && whole % 2 == 1), UNITS[unit]),
        _ => format!("{whole}.{tenths} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests;
