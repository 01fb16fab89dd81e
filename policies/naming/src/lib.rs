//! Directory names from the namespace, the claim and their labels: the first-party policy `naming`.
//!
//! The settings give a template with one item for each level. What a placeholder stands for is in [`template`], what may be
//! part of a name and how a value is made safe in [`value`]. This file decides what happens when a value is missing, unsafe
//! or may meet another volume's.

pub mod template;
pub mod value;

use pith_policy_sdk::prelude::*;

use crate::template::{Component, Field, Piece};

/// The settings of a binding.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// One item for each level below the root of the file system.
    template: Vec<Component>,
    #[serde(default)]
    missing: Missing,
    #[serde(default)]
    unsafe_values: UnsafeValues,
    #[serde(default)]
    on_collision: OnCollision,
}

/// What to do where the object has no such label or annotation.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
enum Missing {
    /// Refuse the volume.
    #[default]
    Deny,
    /// Leave the name to the next binding.
    Pass,
    /// Put this in its place.
    Fallback(String),
}

/// What to do with a value that cannot be part of a directory's name.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
enum UnsafeValues {
    /// Refuse the volume.
    #[default]
    Refuse,
    /// Make a safe name of it, with a digest that keeps it apart from every other value.
    Sanitize,
}

/// What to do where the template gives two volumes the same directory.
#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
enum OnCollision {
    /// It never does: each directory ends in a digest of the volume's own name.
    #[default]
    Suffix,
    /// The host refuses the later one.
    Refuse,
    /// They share it.
    Share,
}

/// Why the template makes no directory.
enum Stop {
    Pass,
    Deny(String),
}

#[policy(schema = "settings.schema.json")]
impl Settings {
    fn name(&self, request: &NamingRequest) -> Result<Naming, Problem> {
        Ok(match self.components(request) {
            Ok(components) => {
                Naming::Directory(Directory { components, shared: self.on_collision == OnCollision::Share })
            }
            Err(Stop::Pass) => Naming::Pass,
            Err(Stop::Deny(sentence)) => Naming::Deny(sentence),
        })
    }

    fn validate(&self) -> Result<(), SettingsProblem> {
        if self.template.is_empty() {
            return Err(SettingsProblem::new("template", "must have at least one component"));
        }
        for (index, component) in self.template.iter().enumerate() {
            self.validate_component(component)
                .map_err(|reason| SettingsProblem::new(format!("template[{index}]"), reason))?;
        }
        match &self.missing {
            Missing::Fallback(fallback) if !value::is_plain(fallback) => Err(SettingsProblem::new(
                "missing.fallback",
                format!("{fallback:?} cannot be part of a directory's name: {}", value::RULE),
            )),
            _ => Ok(()),
        }
    }
}

impl Settings {
    fn components(&self, request: &NamingRequest) -> Result<Vec<String>, Stop> {
        let mut components =
            self.template.iter().map(|component| self.component(component, request)).collect::<Result<Vec<_>, _>>()?;
        if self.on_collision == OnCollision::Suffix
            && !self.names_the_volume()
            && let Some(last) = components.last_mut()
        {
            last.push('-');
            last.push_str(&value::digest(&request.volume_name, SUFFIX_LENGTH));
        }
        match components.iter().find(|component| component.len() > LONGEST_NAME) {
            Some(long) => Err(Stop::Deny(format!(
                "the directory's name would have a component of {} bytes, and a file system takes {LONGEST_NAME}",
                long.len()
            ))),
            None => Ok(components),
        }
    }

    fn component(&self, component: &Component, request: &NamingRequest) -> Result<String, Stop> {
        let mut name = String::new();
        for piece in &component.pieces {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Field(field) => name.push_str(&self.value(field, request)?),
            }
        }
        Ok(name)
    }

    fn value(&self, field: &Field, request: &NamingRequest) -> Result<String, Stop> {
        let Some(found) = field.value(request) else {
            return match &self.missing {
                Missing::Deny => Err(Stop::Deny(format!("the directory's name needs {field}, which is not set"))),
                Missing::Pass => Err(Stop::Pass),
                Missing::Fallback(fallback) => Ok(fallback.clone()),
            };
        };
        match self.unsafe_values {
            UnsafeValues::Refuse if value::is_plain(&found) => Ok(found.into_owned()),
            UnsafeValues::Refuse => Err(Stop::Deny(format!(
                "{field} is {found:?}, which cannot be part of a directory's name: {}",
                value::RULE
            ))),
            UnsafeValues::Sanitize => Ok(value::sanitise(&found)),
        }
    }

    /// True where the template tells volumes apart by itself.
    fn names_the_volume(&self) -> bool {
        self.template.iter().flat_map(|component| &component.pieces).any(|piece| *piece == Piece::Field(Field::Volume))
    }

    fn validate_component(&self, component: &Component) -> Result<(), String> {
        if let Some(Piece::Text(text)) = component.pieces.first()
            && text.starts_with('.')
        {
            return Err("must not begin with a dot".to_owned());
        }
        let fields = component.pieces.iter().filter(|piece| matches!(piece, Piece::Field(_))).count();
        // `{namespace}-{claim}` gives `a-b` and `c` the directory of `a` and `b-c`. The host refuses that unless the
        // directory is shared; then one namespace would see another's files.
        if self.on_collision == OnCollision::Share && fields > 1 {
            return Err(
                "where directories are shared, a component has at most one placeholder, since two side by side can \
                        read the same for different values"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// 32 bits. Volumes that meet here have the same namespace, claim and labels too, and the host refuses the later one.
const SUFFIX_LENGTH: usize = 8;

/// NAME_MAX of Linux, which is also JuiceFS's.
const LONGEST_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_of_the_table_holds() {
        pith_policy_sdk::cases::check::<Settings>(include_str!("../cases.yaml"));
    }
}
