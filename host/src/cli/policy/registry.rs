//! `pith policy push` and `pith policy pull`: modules to and from OCI registries.

use std::fs;

use anyhow::{Context, Result};

use crate::args::{PolicyPull, PolicyPush, RegistryAccess, RegistryRead};
use crate::cli::print;
use crate::config;
use crate::policy::read_module;
use crate::registry::{self, Access, Digest, DockerConfig, Key, Reference};
use crate::wasm::{Form, Grants};

/// Puts a module into a registry, if it is a policy.
pub fn push(args: &PolicyPush) -> Result<()> {
    let reference: Reference = args.reference.parse()?;
    let module = super::load(&super::engine()?, &args.file, &Grants::everything())?;
    let is_component = module.form() == Form::Component;
    let digest = registry::push(&reference, &access(&args.access)?, &read_module(&args.file)?, is_component)?;
    Ok(print(&format!("{}\n", pinned(reference, digest)))?)
}

/// Fetches a module, with everything that is known of it where that is asked for.
pub fn pull(args: &PolicyPull) -> Result<()> {
    let reference: Reference = args.reference.parse()?;
    let (access, keys) = (access_to_read(&args.from)?, keys(&args.from)?);
    let mut digest = None;
    if let Some(folder) = &args.bundle {
        digest = Some(registry::copy(&reference, &access, &keys, folder)?);
    }
    if let Some(file) = &args.output {
        // The very artifact that was copied, whatever has its tag by now.
        let reference = Reference { digest: digest.or(reference.digest), ..reference.clone() };
        let pulled = registry::pull(&reference, &access, &keys, None)?;
        fs::write(file, &pulled.bytes).with_context(|| format!("writing {}", file.display()))?;
        digest = Some(pulled.manifest);
    }
    let digest = digest.context("there is something to be done")?;
    Ok(print(&format!("{}\n", pinned(reference, digest)))?)
}

/// The bytes of a module, with the reference that pins it.
pub(super) fn fetch(reference: &str, from: &RegistryRead) -> Result<(String, Vec<u8>)> {
    let reference: Reference = reference.parse()?;
    let pulled = registry::pull(&reference, &access_to_read(from)?, &keys(from)?, None)?;
    Ok((pinned(reference, pulled.manifest), pulled.bytes))
}

fn pinned(reference: Reference, digest: Digest) -> String {
    Reference { digest: Some(digest), ..reference }.to_string()
}

fn keys(from: &RegistryRead) -> Result<Vec<Key>> {
    let keys: Vec<Vec<Key>> = from.key.iter().map(|it| registry::read_keys(it)).collect::<Result<_>>()?;
    Ok(keys.concat())
}

fn access_to_read(from: &RegistryRead) -> Result<Access> {
    let mirrors = from.mirror.iter().map(|it| it.parse()).collect::<Result<_>>()?;
    Ok(Access { mirrors, layout: from.layout.clone(), ..access(&from.access)? })
}

fn access(args: &RegistryAccess) -> Result<Access> {
    let credentials = match args.docker_config.clone().or_else(config::docker_config) {
        None => DockerConfig::default(),
        Some(path) => {
            DockerConfig::read(&registry::read_small(&path)?).with_context(|| format!("{}", path.display()))?
        }
    };
    let ca = args.ca.as_deref().map(registry::read_small).transpose()?;
    Ok(Access { credentials, ca, mirrors: Vec::new(), layout: None, timeout: args.timeout })
}
