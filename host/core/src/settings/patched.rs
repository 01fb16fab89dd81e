//! The layer of `mountPodPatch`, and what needs the resources that come out of all layers: the client's buffer.
//!
//! Of items that are for the same claim, a later one replaces each field that it has as a whole; volumes add up.

use std::collections::BTreeSet;

use pith_proto::Quantity;
use serde_json::{Map, Value};

use super::{Configuration, ExtraVolume, Layers, Origin, Settings, Sourced, Usage};
use crate::cache::CacheVolume;
use crate::json::{entries, list};
use crate::mount_pod_patch::{MountPodPatch, Percentages};
use crate::object::AmountByName;
use crate::reason::Refusal;
use crate::sidecar;

/// What there can be a share of: what it is rounded up to, and the least that a limit becomes, unless an item says otherwise.
const SHARED: [(&str, Quantity, Quantity); 2] = [
    ("cpu", Quantity::from_millis(1), Quantity::from_millis(100)),
    ("memory", Quantity::from_bytes(MIB), Quantity::from_bytes(300 * MIB)),
];
const MIB: u64 = 1 << 20;

impl Settings {
    pub(super) fn apply_patches(
        &mut self,
        configuration: &Configuration,
        layers: &Layers<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<(), Refusal> {
        let patches = &configuration.patches;
        if patches.is_empty() {
            return Ok(());
        }
        let node = entries(&layers.usage.pod.spec["nodeSelector"]);
        let fitting: Vec<(usize, &MountPodPatch)> =
            patches.iter().enumerate().filter(|(_, patch)| patch.matches(layers.claim, &node)).collect();
        let template = Template::new(layers);
        // The last one that says something about a field.
        fn last<'p, T>(
            fitting: &[(usize, &'p MountPodPatch)],
            field: impl Fn(&'p MountPodPatch) -> Option<&'p T>,
        ) -> Option<(Origin, &'p T)> {
            fitting.iter().rev().find_map(|(index, patch)| Some((Origin::MountPodPatch(*index), field(patch)?)))
        }
        let image = match self.is_enterprise() {
            true => last(&fitting, |it| it.enterprise_image.as_ref()),
            false => last(&fitting, |it| it.image.as_ref()),
        };
        if let Some((origin, image)) = image {
            self.image = Sourced { value: template.text(image), origin };
        }
        if let Some((origin, policy)) = last(&fitting, |it| it.image_pull_policy.as_ref()) {
            self.image_pull_policy = Some(Sourced { value: policy.clone(), origin });
        }
        if let Some((origin, (requests, limits))) = last(&fitting, |it| it.resources.as_ref()) {
            for (own, of_patch) in [(&mut self.requests, requests), (&mut self.limits, limits)] {
                let sourced = |(name, amount): (&String, &Quantity)| {
                    (name.clone(), Sourced { value: *amount, origin: origin.clone() })
                };
                *own = of_patch.iter().map(sourced).collect();
            }
        }
        if let Some((origin, percentages)) = last(&fitting, |it| it.percentages.as_ref()) {
            self.apply_percentages(percentages, layers.usage, &origin);
        }
        for name in ["livenessProbe", "readinessProbe"] {
            if let Some((origin, probe)) = last(&fitting, |it| it.probes.get(name)) {
                self.fields.insert(name.into(), Sourced { value: template.for_kubelet(probe), origin });
            }
        }
        if let Some((origin, env)) = last(&fitting, |it| it.env.as_ref()) {
            self.apply_env(env, &template, &origin);
        }
        if let Some((origin, options)) = last(&fitting, |it| it.mount_options.as_ref()) {
            let options: Vec<String> = options.iter().map(|option| template.text(option)).collect();
            self.set_options(options.iter().map(String::as_str), &origin)?;
        }
        if let Some((origin, caches)) = last(&fitting, |it| it.caches.as_ref()) {
            self.add_caches(caches.iter().map(|cache| template.cache(cache)), &origin);
        }
        for (index, patch) in &fitting {
            self.add_volumes(patch, &template, &Origin::MountPodPatch(*index));
        }
        let unknown = template.unknown.into_inner();
        if let Some(name) = unknown.first().filter(|_| configuration.strict_templates) {
            return Err(Refusal::Setting {
                origin: "mountPodPatch".into(),
                field: "a template".into(),
                value: (*name).into(),
                why: format!("the claim `{}` has no such value yet: make the pod once it is bound", layers.claim.name),
            });
        }
        let why = "mountPodPatch has it, and the claim has no such value yet: it is empty";
        let notes = unknown.into_iter().map(|name| format!("{name}: {why}"));
        for note in notes {
            warnings.push(note.clone());
            self.notes.push(note);
        }
        Ok(())
    }

    fn apply_percentages(&mut self, percentages: &Percentages, usage: Usage<'_>, origin: &Origin) {
        let (requests, limits) = of_application(usage);
        for (name, step, least) in SHARED {
            // Of nothing there is no share: what the layers below say stays.
            let share = |sums: &AmountByName, shares: &[(String, u64)]| {
                let (_, share) = shares.iter().find(|(of, _)| of == name)?;
                Some(sums.get(name)?.share(*share, step))
            };
            let least = percentages.least.get(name).copied().unwrap_or(least);
            let limit = share(&limits, &percentages.limits).map(|limit| limit.max(least));
            for (own, value) in
                [(&mut self.requests, share(&requests, &percentages.requests)), (&mut self.limits, limit)]
            {
                own.extend(value.map(|value| (name.to_string(), Sourced { value, origin: origin.clone() })));
            }
        }
    }

    fn apply_env(&mut self, env: &[Value], template: &Template, origin: &Origin) {
        for variable in env {
            let name = variable["name"].as_str().unwrap_or_default().to_string();
            let origin = origin.clone();
            match variable["value"].as_str().map(|value| template.text(value)) {
                // To the kubelet too it is a text and nothing else, so policies may see and change it.
                Some(value) if !value.contains('$') => {
                    self.env.insert(name, Sourced { value, origin });
                }
                _ => {
                    self.env.remove(&name);
                    self.env_sources.insert(name, Sourced { value: template.for_kubelet(variable), origin });
                }
            }
        }
    }

    fn add_volumes(&mut self, patch: &MountPodPatch, template: &Template, origin: &Origin) {
        for volume in &patch.volumes {
            let of_volume = |items: &[Value]| -> Vec<Value> {
                let items = items.iter().filter(|it| it["name"] == volume["name"]);
                items.map(|it| template.value(it)).collect()
            };
            // The first of a name counts, as with the driver.
            if self.volumes.iter().any(|known| known.value.volume["name"] == volume["name"]) {
                continue;
            }
            let value = ExtraVolume {
                volume: template.value(volume),
                mounts: of_volume(&patch.mounts),
                devices: of_volume(&patch.devices),
            };
            self.volumes.push(Sourced { value, origin: origin.clone() });
        }
    }

    /// Brings `buffer-size` into MiB, as the client takes it, and below the memory limit: above it, the container would be killed
    /// for using what it was told to use. Comes after the ceilings, which lower limits.
    pub fn fit_buffer_size(&mut self, warnings: &mut Vec<String>) {
        let Some(place) = self.mount_options.iter().position(|(name, _)| name == "buffer-size") else { return };
        let (_, option) = &self.mount_options[place];
        let text = option.value.clone().unwrap_or_default();
        let limit = self.limits.get("memory").and_then(|limit| limit.value.bytes()).filter(|bytes| *bytes > 0);
        let origin = option.origin.clone();
        let said = |what: &str| format!("{origin} has the mount option buffer-size={text}, {what}");
        let most = limit.map(|limit| (limit / MIB).max(1));
        let mebibytes = match (buffer(&text), limit) {
            (None, _) => return,
            (Some(Buffer::Share(_)), None) => {
                warnings.push(said("and there is no memory limit that it could be a share of: it has no effect"));
                self.mount_options.remove(place);
                return;
            }
            (Some(Buffer::Share(share)), Some(limit)) => {
                (limit.saturating_mul(share.min(10_000)) / 10_000).div_ceil(MIB)
            }
            (Some(Buffer::Mebibytes(mebibytes)), _) => {
                let above = most.filter(|most| mebibytes > *most);
                warnings.extend(above.map(|most| said(&format!("which is above its memory limit: it is {most} MiB"))));
                mebibytes
            }
        };
        let fitting = most.map_or(mebibytes, |most| mebibytes.min(most));
        let origin = if fitting < mebibytes { Origin::Limit { was: text, from: Box::new(origin) } } else { origin };
        self.mount_options[place].1 = Sourced { value: Some(fitting.to_string()), origin };
    }
}

enum Buffer {
    /// In ten-thousandths of the memory limit.
    Share(u64),
    Mebibytes(u64),
}

/// `300`, which are MiB, `1G` or `30%`; what is none of these is left to the client.
fn buffer(text: &str) -> Option<Buffer> {
    if let Some(share) = text.strip_suffix('%') {
        let share: u64 = share.trim().parse().ok()?;
        return Some(Buffer::Share(share.saturating_mul(100)));
    }
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    // The client's units are powers of 1024, with or without an `i` or a `B`.
    let bytes = match text[digits.len()..].trim_end_matches('B').trim_end_matches('i') {
        "" | "M" => return Some(Buffer::Mebibytes(number)),
        "K" => number << 10,
        "G" => number.checked_mul(1 << 30)?,
        "T" => number.checked_mul(1 << 40)?,
        _ => return None,
    };
    Some(Buffer::Mebibytes(bytes.div_ceil(MIB)))
}

/// The sums of what the application's containers request, and of their limits, of those that mount the claim. A container that
/// says nothing of a request has its limit, as in Kubernetes.
fn of_application(usage: Usage<'_>) -> (AmountByName, AmountByName) {
    let (mut requests, mut limits) = (AmountByName::new(), AmountByName::new());
    // After an earlier pass the mounts have another name.
    let injected = sidecar::mount_volume(usage.volumes[0].0);
    let mounts = |container: &Value| {
        list(&container["volumeMounts"])
            .iter()
            .filter_map(|mount| mount["name"].as_str())
            .any(|name| name == injected || usage.volumes.iter().any(|(volume, _)| *volume == name))
    };
    for (_, _, container) in usage.pod.all_containers() {
        if !mounts(container) || container["name"].as_str().is_some_and(sidecar::is_own_name) {
            continue;
        }
        let amount =
            |kind: &str, name: &str| container["resources"][kind][name].as_str().and_then(|it| it.parse().ok());
        for (name, ..) in SHARED {
            let limit: Option<Quantity> = amount("limits", name);
            for (sums, amount) in [(&mut requests, amount("requests", name).or(limit)), (&mut limits, limit)] {
                if let Some(amount) = amount {
                    sums.entry(name.to_string()).and_modify(|sum| *sum = sum.plus(amount)).or_insert(amount);
                }
            }
        }
    }
    (requests, limits)
}

/// The driver's variables in texts of an item.
struct Template {
    values: [(&'static str, Option<String>); 4],
    /// What was asked for and is not known.
    unknown: std::cell::RefCell<BTreeSet<&'static str>>,
}

impl Template {
    fn new(layers: &Layers<'_>) -> Template {
        let volume = layers.persistent_volume;
        let attribute = |key: &str| volume.and_then(|volume| volume.volume_attributes.get(key).cloned());
        Template {
            values: [
                ("${MOUNT_POINT}", Some(sidecar::mount_path(layers.usage.volumes[0].0))),
                ("${VOLUME_ID}", volume.map(|volume| volume.handle().to_string())),
                ("${VOLUME_NAME}", volume.map(|volume| volume.name.clone())),
                ("${SUB_PATH}", attribute("subPath")),
            ],
            unknown: std::cell::RefCell::default(),
        }
    }

    fn text(&self, text: &str) -> String {
        self.filled(text, &|value| value.to_string())
    }

    fn filled(&self, text: &str, write: &dyn Fn(&str) -> String) -> String {
        let mut text = text.to_string();
        for (name, value) in &self.values {
            if text.contains(name) {
                if value.is_none() {
                    self.unknown.borrow_mut().insert(name);
                }
                text = text.replace(name, &write(value.as_deref().unwrap_or_default()));
            }
        }
        text
    }

    fn cache(&self, cache: &CacheVolume) -> CacheVolume {
        match cache {
            CacheVolume::Claim(name) => CacheVolume::Claim(self.text(name)),
            CacheVolume::HostPath(path) => CacheVolume::HostPath(self.text(path)),
            other => other.clone(),
        }
    }

    fn value(&self, value: &Value) -> Value {
        map_texts(value, &|text| self.text(text))
    }

    /// For where the kubelet expands `$(NAME)`: an administrator may mean that, and who named a directory may not.
    fn for_kubelet(&self, value: &Value) -> Value {
        map_texts(value, &|text| self.filled(text, &sidecar::escape))
    }
}

fn map_texts(value: &Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(items) => items.iter().map(|it| map_texts(it, change)).collect(),
        Value::Object(object) => {
            object.iter().map(|(key, value)| (key.clone(), map_texts(value, change))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
