//! What was fetched, on disk and by digest, so that a restart does not need a registry: a folder that is bounded by size.
//!
//! Everything here is found by what it is, and is checked when it is read. What does not fit is as if it were not there.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use super::reference::Digest;

/// The most bytes that are kept, two of the largest modules or some hundreds of usual ones.
pub const LARGEST_CACHE: u64 = 128 << 20;

/// The folder.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    largest: u64,
}

impl Cache {
    /// Opens the folder, which is made if it is missing, for this user alone.
    pub fn open(folder: PathBuf, largest: u64) -> Result<Cache> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.with_context(|| format!("making the folder {}", folder.display()))?;
        Ok(Cache { folder, largest })
    }

    /// The bytes with this digest, if they are there.
    pub fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let file = File::open(&path).ok()?;
        let mut bytes = Vec::new();
        (&file).take(self.largest + 1).read_to_end(&mut bytes).ok()?;
        if Digest::of(&bytes) != *digest {
            tracing::warn!(path = %path.display(), "a module that was kept is broken, and is fetched again");
            let _ = fs::remove_file(&path);
            return None;
        }
        // What was used last goes last. That it cannot be said is no reason to do without.
        let _ = file.set_modified(SystemTime::now());
        Some(bytes)
    }

    /// Whether there are bytes under this digest, which are looked at once they are read.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Keeps these bytes. Without them the next start asks again, which is no reason to fail this one.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) {
        if bytes.len() as u64 > self.largest || self.has(digest) {
            return;
        }
        if let Err(error) = self.write(digest, bytes).and_then(|()| self.bound()) {
            tracing::warn!(folder = %self.folder.display(), %error, "a module that was fetched is not kept");
        }
    }

    /// Under another name first, so that no reader and no crash ever meets half a file.
    fn write(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.folder)?;
        file.write_all(bytes)?;
        file.persist(self.path(digest))?;
        Ok(())
    }

    /// Removes what was used longest ago, until the rest is small enough. What a crash left half written is here too.
    fn bound(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another thread may have removed it meanwhile.
            if let Ok(it) = entry.metadata() {
                files.push((it.modified()?, it.len(), entry.path()));
            }
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in files {
            if bytes <= self.largest {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => bytes -= size,
            }
        }
        Ok(())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first_and_what_is_broken_is_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path().join("modules"), 250).expect("a cache");
        let bytes: Vec<Vec<u8>> = (0..4).map(|it| vec![it; 100]).collect();
        let digests: Vec<Digest> = bytes.iter().map(|it| Digest::of(it)).collect();
        let there = || digests.iter().map(|it| cache.path(it).exists()).collect::<Vec<_>>();
        for (age, (digest, bytes)) in [30, 20].into_iter().zip(digests.iter().zip(&bytes)) {
            cache.put(digest, bytes);
            let file = File::options().write(true).open(cache.path(digest)).expect("a file");
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("its time");
        }
        assert_eq!(cache.get(&digests[0]).as_ref(), Some(&bytes[0]), "the older one, which is used now");
        cache.put(&digests[2], &bytes[2]);
        assert_eq!(there(), [true, false, true, false]);

        fs::write(cache.path(&digests[2]), b"something else").expect("written");
        assert_eq!(cache.get(&digests[2]), None);
        assert_eq!(there(), [true, false, false, false], "what is broken is removed");
        cache.put(&Digest::of(&[9; 300]), &[9; 300]);
        assert!(!cache.path(&Digest::of(&[9; 300])).exists(), "what is larger than all of it");
    }
}
