//! What bounds a volume: whether its size is enforced, which quota its directory has, and how the client writes that.

use super::place::NamingContext;
use super::{Record, VolumeRefusal};
use crate::binding::{self, Binding, Evaluate, Mode};
use crate::monitor::{self, Monitored};
use crate::object::Entries;
use crate::policy::{Hook, QuotaRequest};

pub use crate::policy::Quota;

/// The StorageClass parameter that says whether sizes are enforced.
const QUOTA: &str = "quota";

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

/// What the first policy that says it says of a new volume's quota.
pub(super) fn by_policy(
    request: &QuotaRequest,
    context: &NamingContext<'_>,
    bindings: &[Binding],
    policies: &dyn Evaluate,
    (warnings, monitored): (&mut Vec<String>, &mut Vec<Monitored>),
) -> Result<Option<Quota>, VolumeRefusal> {
    let (mut decided, mut answers) = (None, Vec::new());
    for chosen in binding::for_volume(bindings, Hook::Quota, &context.claim, &context.namespace) {
        let binding = chosen.binding;
        let ask = || chosen.ask(policies, |it| policies.quota(it, request, context.object));
        if binding.mode == Mode::Monitor {
            answers.push((binding, ask()));
        } else if decided.is_none() {
            decided = binding::enforced(binding, ask(), warnings)?.flatten();
        }
    }
    let enforced = monitor::of_quota(decided);
    monitored.extend(answers.into_iter().map(|(binding, answer)| {
        let fields = answer.map(|quota| quota.map(|quota| monitor::of_quota(Some(quota))));
        Monitored::of(binding, Hook::Quota, None, &enforced, fields)
    }));
    Ok(decided)
}

/// How much may be in a directory. Of the two at least one is bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bound {
    /// The space of its files.
    pub bytes: Option<u64>,
    /// How many files and directories.
    pub inodes: Option<u64>,
}

impl Bound {
    fn of(bytes: Option<u64>, inodes: Option<u64>) -> Option<Bound> {
        (bytes.is_some() || inodes.is_some()).then_some(Bound { bytes, inodes })
    }

    /// The least bound whose space is a multiple of so many bytes, and that leaves room for this one.
    pub fn whole(self, unit: u64) -> Bound {
        Bound { bytes: self.bytes.map(|bytes| bytes.checked_next_multiple_of(unit).unwrap_or(bytes)), ..self }
    }

    /// A sentence's words for a bound of which the client says these two; none where it says neither.
    pub fn words(bytes: Option<&str>, inodes: Option<&str>) -> Option<String> {
        match (bytes, inodes) {
            (None, None) => None,
            (Some(bytes), None) => Some(bytes.to_string()),
            (None, Some(inodes)) => Some(format!("{inodes} inodes")),
            (Some(bytes), Some(inodes)) => Some(format!("{bytes}, {inodes} inodes")),
        }
    }

    /// The same words, of the two as the client writes them.
    pub fn written(&self) -> String {
        let (bytes, inodes) = (self.bytes.map(written), self.inodes.map(grouped));
        Bound::words(bytes.as_deref(), inodes.as_deref()).unwrap_or_default()
    }
}

impl Record {
    /// How much may be in the volume; none for no bound. What neither a policy nor its class says is as it is by default, and so is
    /// what a Pith without such a parameter let pass.
    pub fn bound(&self, by_default: Quota) -> Option<Bound> {
        let of_class = || Quota::of(&self.asked.parameters).ok().flatten();
        let quota = self.quota.or_else(of_class).unwrap_or(by_default);
        let bound = |number: u64| Some(number).filter(|number| quota == Quota::On && *number > 0);
        Bound::of(bound(self.capacity_bytes), self.inodes().and_then(bound))
    }
}

/// How much may be in a directory that these volumes have; none for no bound. It is what the largest of them may have: one that comes
/// later takes nothing away from those that are there.
pub fn bound<'a>(records: impl IntoIterator<Item = &'a Record>, by_default: Quota) -> Option<Bound> {
    let bounds = records.into_iter().map(|record| record.bound(by_default).unwrap_or_default());
    // Where one has no bound, there is none.
    let larger = |one: Option<u64>, other: Option<u64>| Some(one?.max(other?));
    let both = |one: Bound, other: Bound| Bound {
        bytes: larger(one.bytes, other.bytes),
        inodes: larger(one.inodes, other.inodes),
    };
    let largest = bounds.reduce(both)?;
    Bound::of(largest.bytes, largest.inodes)
}

/// A size in bytes as the client writes it: with one digit behind the point below 10, and in the largest unit that it fills.
fn written(bytes: u64) -> String {
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

/// As in `1,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
