//! Sidecar resources by workload, team and namespace: the first-party policy `resources`.
//!
//! The settings name a few sizes. A claim or a pod chooses one by a label; otherwise its team, its namespace or the
//! default does. Teams and namespaces can also change single values. What a size means is in [`size`]; what no policy may
//! pass, the ceilings, belongs to the host's configuration and not here.

pub mod size;

use std::collections::BTreeMap;

use pith_policy_sdk::prelude::*;

use crate::size::Size;

/// The settings of a binding.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    sizes: BTreeMap<String, Size>,
    /// The size of whoever chooses none; without it, such a sidecar is left as it is.
    default: Option<String>,
    /// The label or annotation of a claim or a pod that names a size; `null` takes the choice away.
    size_key: Option<String>,
    /// The label of a pod, or else of its namespace, that names its team.
    team_key: String,
    teams: BTreeMap<String, Group>,
    namespaces: BTreeMap<String, Group>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sizes: BTreeMap::new(),
            default: None,
            size_key: Some("pith.io/size".to_owned()),
            team_key: "team".to_owned(),
            teams: BTreeMap::new(),
            namespaces: BTreeMap::new(),
        }
    }
}

/// What a team or a namespace has of its own.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Group {
    /// The size of whoever in the group chooses none.
    size: Option<String>,
    /// Laid over whatever size it came to be.
    change: Size,
}

#[policy(schema = "settings.schema.json")]
impl Settings {
    fn sidecar(&self, pod: &Pod, namespace: &Namespace, volume: &Volume, _: &Sidecar) -> Result<Change, Problem> {
        let team = self.team(pod, namespace);
        let namespace = self.namespaces.get(&namespace.name);
        let chosen = self.chosen(pod, &volume.claim)?;
        let fallback = [team, namespace].into_iter().flatten().find_map(|group| group.size.as_ref());
        let size = match chosen.or(fallback).or(self.default.as_ref()) {
            Some(name) => Some(self.size(name)?),
            None => None,
        };
        let layers = [size, namespace.map(|group| &group.change), team.map(|group| &group.change)];
        Ok(layers.into_iter().flatten().fold(Change::none(), Size::lay_over))
    }

    fn validate(&self) -> Result<(), SettingsProblem> {
        for (name, size) in &self.sizes {
            size.validate().map_err(|problem| problem.within(name).within("sizes"))?;
        }
        self.validate_reference("default", self.default.as_ref())?;
        for (groups, field) in [(&self.teams, "teams"), (&self.namespaces, "namespaces")] {
            for (name, group) in groups {
                self.validate_reference("size", group.size.as_ref())
                    .and_then(|()| group.change.validate().map_err(|problem| problem.within("change")))
                    .map_err(|problem| problem.within(name).within(field))?;
            }
        }
        Ok(())
    }
}

impl Settings {
    fn team(&self, pod: &Pod, namespace: &Namespace) -> Option<&Group> {
        let name = pod.labels.value(&self.team_key).or_else(|| namespace.labels.value(&self.team_key))?;
        self.teams.get(name)
    }

    /// The size that the workload asks for. What is nearest to the volume is heard first: a pod may have a large volume
    /// beside a small one.
    fn chosen(&self, pod: &Pod, claim: &Claim) -> Result<Option<&String>, Problem> {
        let Some(key) = &self.size_key else { return Ok(None) };
        let places = [
            ("label", "claim", &claim.labels),
            ("annotation", "claim", &claim.annotations),
            ("label", "pod", &pod.labels),
            ("annotation", "pod", &pod.annotations),
        ];
        let Some((place, object, value)) =
            places.into_iter().find_map(|(place, object, entries)| Some((place, object, entries.value(key)?)))
        else {
            return Ok(None);
        };
        match self.sizes.get_key_value(value) {
            Some((name, _)) => Ok(Some(name)),
            None => Err(Problem::new(format!(
                "the {place} {key:?} of the {object} is {value:?}, which is no size; {}",
                self.known_sizes()
            ))),
        }
    }

    /// A size that the settings refer to. `validate` has seen that it exists; a host that did not ask gets an error.
    fn size(&self, name: &str) -> Result<&Size, Problem> {
        self.sizes.get(name).ok_or_else(|| Problem::new(format!("{name:?} is no size; {}", self.known_sizes())))
    }

    fn validate_reference(&self, field: &str, name: Option<&String>) -> Result<(), SettingsProblem> {
        match name {
            Some(name) if !self.sizes.contains_key(name) => {
                Err(SettingsProblem::new(field, format!("{name:?} is no size; {}", self.known_sizes())))
            }
            _ => Ok(()),
        }
    }

    fn known_sizes(&self) -> String {
        if self.sizes.is_empty() {
            return "the settings name no sizes".to_owned();
        }
        let names: Vec<&str> = self.sizes.keys().map(String::as_str).collect();
        format!("the sizes are {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_of_the_table_holds() {
        pith_policy_sdk::cases::check::<Settings>(include_str!("../cases.yaml"));
    }
}
