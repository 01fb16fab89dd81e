//! The key that records are sealed with, in a file that only Pith can read.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use pith_core::volume::RecordKey;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::config::KeyFile;

/// How it is written: a line of hexadecimal digits.
const DIGITS: usize = 64;

/// Reads the key. Our own is made at the first start; one that the configuration names must be there, because a second key
/// would make every record of the first one worthless.
pub fn load(file: &KeyFile) -> Result<RecordKey> {
    let path = match file {
        KeyFile::Named(path) => path,
        KeyFile::Own(path) => {
            if !path.exists() {
                make(path).with_context(|| format!("making the record key {}", path.display()))?;
            }
            path
        }
    };
    read(path).with_context(|| format!("reading the record key {}", path.display()))
}

fn read(path: &Path) -> Result<RecordKey> {
    let text = fs::read_to_string(path)?;
    let text = text.trim_end();
    ensure!(text.len() == DIGITS, "it has {} characters instead of {DIGITS} hexadecimal digits", text.len());
    let mut key = [0; DIGITS / 2];
    // The error would show a digit.
    ensure!(hex::decode_to_slice(text, &mut key).is_ok(), "it has something else than hexadecimal digits");
    Ok(RecordKey::from(key))
}

/// Whole or not at all, and never over another one: two processes may start at once.
fn make(path: &Path) -> Result<()> {
    let mut key = [0; DIGITS / 2];
    let filled = getrandom(&mut key, GetRandomFlags::empty()).context("asking the kernel for random bytes")?;
    ensure!(filled == key.len(), "the kernel gave too few random bytes");
    let folder = path.parent().context("it has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    // A temporary file is the owner's alone from the start.
    let mut part = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(part, "{}", hex::encode(key))?;
    part.as_file().sync_all()?;
    match part.persist_noclobber(path) {
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error.into()),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    use pith_core::object::Entries;
    use pith_core::volume::{Asked, Directory, NamedBy, Place, Record};

    /// What a key seals tells it from others, without showing it.
    fn same(a: &RecordKey, b: &RecordKey) -> bool {
        let asked = Asked {
            name: "a".into(),
            required_bytes: None,
            limit_bytes: None,
            capabilities: Vec::new(),
            parameters: Entries::new(),
            mutable_parameters: Entries::new(),
            source: None,
        };
        let directory = Directory::new(vec!["a".into()]).expect("a plain name");
        let place = Place {
            directory,
            shared: false,
            named_by: NamedBy::VolumeName,
            quota: None,
            warnings: Vec::new(),
            notes: Vec::new(),
            monitored: Vec::new(),
        };
        let record = Record::begin("test", "n-1".into(), asked, None, place, 0);
        record.seal(a) == record.seal(b)
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record.key");
        fs::write(&path, text).expect("written");
        let error = format!("{:#}", load(&KeyFile::Own(path)).expect_err("it is refused"));
        assert!(error.ends_with(expected), "expected `{expected}` in: {error}");
    }

    #[test]
    fn it_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::Own(folder.path().join("state/record.key"));
        let KeyFile::Own(path) = &file else { unreachable!() };
        let first = load(&file).expect("it is made");
        assert_eq!(fs::metadata(path).expect("it is there").mode() & 0o777, 0o600);
        assert!(same(&first, &load(&file).expect("it is read")));
        let elsewhere = KeyFile::Own(folder.path().join("elsewhere/record.key"));
        assert!(!same(&first, &load(&elsewhere).expect("it is made")));
    }

    #[test]
    fn one_that_the_configuration_names_is_never_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record.key");
        load(&KeyFile::Named(path.clone())).expect_err("it is not there");
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        let key = "ab".repeat(32);
        check_refused("", "it has 0 characters instead of 64 hexadecimal digits");
        check_refused(&key.replace('a', "x"), "it has something else than hexadecimal digits");
    }
}
