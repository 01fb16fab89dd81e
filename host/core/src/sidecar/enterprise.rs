//! The client of the Enterprise Edition. It is what the JuiceFS CSI driver calls, and was never run by Pith: nobody here has it.

use serde_json::{Value, json};

use super::preparation::RSA_FILE;
use super::{cache_size, escape, from_secret};
use crate::secret_key;
use crate::settings::{self, CacheDirectory, Settings};

/// The helper of mount(8) that its image has.
const MOUNT: &str = "/sbin/mount.juicefs";
/// What tells it that it is not to go into the background or to renew itself.
const ENVIRONMENT: [(&str, &str); 2] = [("JFS_FOREGROUND", "1"), ("JFS_INSIDE_CONTAINER", "1")];

/// All options stand in one argument with commas between them, so no value may have one; see `Settings::changed`.
pub(super) fn command(settings: &Settings, directories: &[CacheDirectory], mount_path: &str) -> Vec<String> {
    let name = settings.file_system.as_ref().map(|facts| facts.name.clone()).unwrap_or_default();
    let mut options = vec!["foreground".to_string(), "no-update".into(), "subdir=$(SUBDIR)".into()];
    if settings.file_system.as_ref().is_some_and(|facts| facts.rsa_key) {
        options.push(format!("rsa-key={RSA_FILE}"));
    }
    options.extend(cache_size(settings).map(|mebibytes| format!("cache-size={mebibytes}")));
    if !directories.is_empty() {
        let paths: Vec<String> = directories.iter().map(|it| escape(&it.path)).collect();
        options.push(format!("cache-dir={}", paths.join(":")));
    }
    let given = settings.mount_options.iter().filter(|(name, _)| match name.as_str() {
        // Of several directories, the option's are among them.
        "cache-dir" => directories.is_empty(),
        "metrics" | "no-update" => false,
        _ => true,
    });
    options.extend(given.map(|(name, option)| {
        let value = option.value.as_deref().map(|value| format!("={}", escape(value))).unwrap_or_default();
        format!("{}{value}", settings::name_for_mount(name))
    }));
    [MOUNT.into(), name, mount_path.into(), "-o".into(), options.join(",")].into()
}

/// What its environment has before what is set.
pub(super) fn env(secret: &str) -> Vec<Value> {
    let own = ENVIRONMENT.iter().map(|(name, value)| json!({"name": name, "value": value}));
    [from_secret(secret, secret_key::SUBDIR)].into_iter().chain(own).collect()
}

/// Whether it has mounted. Its control files are not documented, so the kernel is asked; no other mount has this path.
pub(super) fn probe(mount_path: &str) -> Vec<String> {
    ["grep", "-qF", &format!(" {mount_path} fuse"), "/proc/self/mounts"].map(String::from).into()
}
