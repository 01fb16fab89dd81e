//! A certificate of this process alone, made at each start.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::make;
use super::pair::Pair;

/// How long it lasts. A process that runs longer than this needs another source.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Makes one, and its CA, which is written to `<state_dir>/tls/ca.crt` for clients to trust.
pub(super) fn make(names: &[String], state_dir: &Path) -> Result<(Pair, String)> {
    let made = make::make(names, LIFETIME)?;
    write_ca(&made.authority, &state_dir.join("tls"))?;
    Ok((Pair::read(made.certificate.as_bytes(), made.key.as_bytes())?, made.authority))
}

fn write_ca(ca: &str, directory: &Path) -> Result<()> {
    let place = || format!("writing the CA certificate to {}", directory.display());
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).with_context(place)?;
    // Written beside and renamed, so that a reader never sees half of it.
    let (path, part) = (directory.join("ca.crt"), directory.join("ca.crt.part"));
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&part).with_context(place)?;
    file.write_all(ca.as_bytes()).with_context(place)?;
    fs::rename(&part, &path).with_context(place)
}
