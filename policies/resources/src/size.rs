//! One size of sidecar: resources, mount options and cache, of which every part may be left out.

use std::collections::BTreeMap;
use std::fmt;

use pith_policy_sdk::prelude::*;
use serde::de::{Deserializer, Error, Visitor};

/// A named size, or what a team or a namespace lays over one.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Size {
    /// By resource name; `null` removes the request.
    requests: BTreeMap<String, Option<Amount>>,
    /// By resource name; `null` removes the limit.
    limits: BTreeMap<String, Option<Amount>>,
    mount_options: BTreeMap<String, OptionSetting>,
    cache: Option<CacheSetting>,
}

/// Where the cache lies, as the settings say it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum CacheSetting {
    Container,
    Disk(EmptyDirSetting),
    Memory(EmptyDirSetting),
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct EmptyDirSetting {
    size_limit: Option<Amount>,
}

impl Size {
    /// The change with this size's values in place of what it says about the same things.
    pub(crate) fn lay_over(mut change: Change, size: &Self) -> Change {
        for (resource, amount) in &size.requests {
            change = match amount {
                Some(amount) => change.request(resource, amount),
                None => change.without_request(resource),
            };
        }
        for (resource, amount) in &size.limits {
            change = match amount {
                Some(amount) => change.limit(resource, amount),
                None => change.without_limit(resource),
            };
        }
        for (name, OptionSetting(option)) in &size.mount_options {
            change = match option {
                OptionChange::Set(Some(value)) => change.option(name, value),
                OptionChange::Set(None) => change.switch(name),
                OptionChange::Remove => change.without_option(name),
            };
        }
        match &size.cache {
            Some(cache) => change.cache(cache.to_cache()),
            None => change,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), SettingsProblem> {
        for (amounts, field) in [(&self.requests, "requests"), (&self.limits, "limits")] {
            for (resource, amount) in amounts {
                if amount.is_some_and(|Amount(quantity)| quantity.is_negative()) {
                    return Err(SettingsProblem::new(format!("{field}.{resource}"), "must not be negative"));
                }
            }
        }
        self.validate_requests_fit()?;
        for name in self.mount_options.keys() {
            if name.is_empty() || name.starts_with('-') || name.contains(['=', ',', ' ']) {
                let reason = "a mount option is named without leading dashes, and has its value after the colon";
                return Err(SettingsProblem::new(format!("mountOptions.{name}"), reason));
            }
        }
        self.cache.as_ref().map_or(Ok(()), CacheSetting::validate)
    }

    /// Kubernetes refuses a container that requests more than its limit, and would do so with the application's pod.
    fn validate_requests_fit(&self) -> Result<(), SettingsProblem> {
        for (resource, request) in &self.requests {
            if let (Some(request), Some(Some(limit))) = (request, self.limits.get(resource))
                && request > limit
            {
                let reason = format!("{request} is more than the limit, {limit}");
                return Err(SettingsProblem::new(format!("requests.{resource}"), reason));
            }
        }
        Ok(())
    }
}

impl CacheSetting {
    fn to_cache(&self) -> Cache {
        let text = |dir: &EmptyDirSetting| dir.size_limit.map(|amount| amount.to_string());
        match self {
            Self::Container => Cache::Container,
            Self::Disk(dir) => Cache::on_disk(text(dir)),
            Self::Memory(dir) => Cache::in_memory(text(dir)),
        }
    }

    fn validate(&self) -> Result<(), SettingsProblem> {
        let (field, dir) = match self {
            Self::Container => return Ok(()),
            Self::Disk(dir) => ("cache.disk.sizeLimit", dir),
            Self::Memory(dir) => ("cache.memory.sizeLimit", dir),
        };
        match dir.size_limit {
            // To Kubernetes, an emptyDir's size limit of zero is none at all.
            Some(Amount(limit)) if limit.is_zero() || limit.is_negative() => {
                Err(SettingsProblem::new(field, "must be more than zero; leave it out for no limit"))
            }
            _ => Ok(()),
        }
    }
}

/// A mount option in settings: a text or a whole number sets it, `true` sets one that takes no value, `false` removes it.
struct OptionSetting(OptionChange);

impl<'de> Deserialize<'de> for OptionSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OptionVisitor).map(Self)
    }
}

struct OptionVisitor;

impl Visitor<'_> for OptionVisitor {
    type Value = OptionChange;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the option's value as text, `true` for a switch, or `false` to remove it")
    }

    fn visit_bool<E: Error>(self, present: bool) -> Result<OptionChange, E> {
        Ok(if present { OptionChange::Set(None) } else { OptionChange::Remove })
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<OptionChange, E> {
        Ok(OptionChange::Set(Some(value.to_owned())))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<OptionChange, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<OptionChange, E> {
        self.visit_str(&value.to_string())
    }
}
