//! Compiled code on disk, so that a restart does not compile every policy again.
//!
//! What is read here is run as native code. The folder must therefore belong to this user alone, and a file must carry a
//! digest over everything in it. A file that does not fit, for whatever reason, is as good as none: the policy is compiled
//! and the file replaced.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

/// Begins every file. To be counted up when the layout of the file or the way core modules are wrapped changes.
const MAGIC: &[u8; 16] = b"pith compiled 1\n";
const HEADER_BYTES: usize = MAGIC.len() + 32;

/// No compiled policy is larger; a file that is was not written here.
const LARGEST_BYTES: u64 = 1 << 30;

/// Why a folder is not used. Running what lies in it would be trusting whoever can write there.
#[derive(Debug, thiserror::Error)]
#[error("compiled policies cannot be kept in {}: {why}", folder.display())]
pub struct CacheError {
    folder: PathBuf,
    why: String,
}

/// The folder. Held open, so that a swap of the path changes nothing.
#[derive(Debug)]
pub(super) struct Cache {
    folder: OwnedFd,
    engine: u64,
}

impl Cache {
    /// Opens the folder, which is made if it is missing, and checks whose it is.
    pub(super) fn open(path: &Path, wasm: &wasmtime::Engine) -> Result<Cache, CacheError> {
        let refuse = |why: String| CacheError { folder: path.to_owned(), why };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| refuse(error.to_string()))?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(refuse(error.to_string())),
            _ => {}
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
            rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP => {
                refuse("it is not a folder, or a link to one".into())
            }
            other => refuse(other.to_string()),
        })?;
        let stat = rustix::fs::fstat(&folder).map_err(|error| refuse(error.to_string()))?;
        check_owner(&stat).map_err(refuse)?;
        let mut hasher = std::hash::DefaultHasher::new();
        wasm.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Cache { folder, engine: hasher.finish() })
    }

    /// The compiled code of the module with this digest, if it is there and can be trusted.
    pub(super) fn get(&self, wasm: &wasmtime::Engine, digest: &[u8; 32]) -> Option<Component> {
        let file = self.read(digest)?;
        let (header, code) = file.split_at_checked(HEADER_BYTES)?;
        if header != self.header(digest, code) {
            return None;
        }
        // A process of this user wrote these bytes and nobody else could: the folder and the file belong to this user and no one
        // else can write to them, and the digest in the header shows that they are whole and are for this module and this
        // engine.
        native(wasm, code).ok()
    }

    /// Keeps compiled code. Without it the next start is slower, which is no reason to fail this one.
    pub(super) fn put(&self, digest: &[u8; 32], component: &Component) {
        let written = component
            .serialize()
            .map_err(|error| format!("{error:#}"))
            .and_then(|code| self.write(digest, &self.header(digest, &code), &code).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::warn!(error, "compiled policy not kept");
        }
    }

    /// Magic number, then a digest that binds the code to the module and to the engine that can run it.
    fn header(&self, digest: &[u8; 32], code: &[u8]) -> [u8; HEADER_BYTES] {
        let sum =
            Sha256::new().chain_update(digest).chain_update(self.engine.to_le_bytes()).chain_update(code).finalize();
        let mut header = [0; HEADER_BYTES];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[MAGIC.len()..].copy_from_slice(&sum);
        header
    }

    fn read(&self, digest: &[u8; 32]) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, name(digest), flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let size = u64::try_from(stat.st_size).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || check_owner(&stat).is_err()
            || size > LARGEST_BYTES
        {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).ok()?);
        File::from(file).take(LARGEST_BYTES).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Writes under another name first, so that no reader and no crash ever meets half a file.
    fn write(&self, digest: &[u8; 32], header: &[u8], code: &[u8]) -> std::io::Result<()> {
        let name = name(digest);
        // Two threads that write the same module at once write the same bytes; each needs its own file all the same.
        let temporary = format!("{name}.{}.{:?}", std::process::id(), std::thread::current().id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.folder, &temporary, flags, Mode::RUSR | Mode::WUSR)?);
        let written = file.write_all(header).and_then(|()| file.write_all(code)).and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| Ok(rustix::fs::renameat(&self.folder, &temporary, &self.folder, &name)?));
        if renamed.is_err() {
            // The error of the write is the one to report.
            let _ = rustix::fs::unlinkat(&self.folder, &temporary, AtFlags::empty());
        }
        renamed
    }
}

/// Native code that is known to be Cranelift's: compiled a moment ago, or kept by an earlier run and checked.
pub(super) fn native(wasm: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    #[expect(unsafe_code, reason = "native code is run that comes as bytes: the one place")]
    // SAFETY: both callers, here and in `load`, hand over what `precompile_component` or `serialize` made, unchanged.
    unsafe {
        Component::deserialize(wasm, code)
    }
}

fn name(digest: &[u8; 32]) -> String {
    format!("{}.compiled", hex::encode(digest))
}

fn check_owner(stat: &Stat) -> Result<(), String> {
    let us = rustix::process::geteuid().as_raw();
    if stat.st_uid != us {
        return Err(format!("it belongs to user {} and not to {us}, who runs this", stat.st_uid));
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(format!("others than its owner have access (mode {:o}); it must be 700", stat.st_mode & 0o7777));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// An empty component.
    const BYTES: &[u8] = b"\0asm\x0d\0\x01\0";
    const DIGEST: [u8; 32] = [7; 32];

    struct Kept {
        folder: tempfile::TempDir,
        wasm: wasmtime::Engine,
        cache: Cache,
    }

    /// A cache that holds one component.
    fn kept() -> Kept {
        let folder = tempfile::tempdir().unwrap();
        let wasm = wasmtime::Engine::default();
        let cache = Cache::open(&folder.path().join("compiled"), &wasm).unwrap();
        cache.put(&DIGEST, &Component::from_binary(&wasm, BYTES).unwrap());
        Kept { folder, wasm, cache }
    }

    impl Kept {
        fn file(&self) -> PathBuf {
            self.folder.path().join("compiled").join(name(&DIGEST))
        }

        fn found(&self) -> bool {
            self.cache.get(&self.wasm, &DIGEST).is_some()
        }
    }

    /// What is wrong with the file is as good as no file, and keeping the code again mends it.
    #[track_caller]
    fn check_broken(break_file: impl FnOnce(&Path)) {
        let kept = kept();
        assert!(kept.found());
        break_file(&kept.file());
        assert!(!kept.found());
        kept.cache.put(&DIGEST, &Component::from_binary(&kept.wasm, BYTES).unwrap());
        assert!(kept.found());
    }

    fn edit(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        edit(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn broken_file_is_none_and_is_replaced() {
        check_broken(|file| edit(file, |bytes| *bytes.last_mut().unwrap() ^= 1));
        check_broken(|file| edit(file, |bytes| bytes[0] ^= 1));
        check_broken(|file| edit(file, |bytes| bytes[HEADER_BYTES - 1] ^= 1));
        check_broken(|file| edit(file, |bytes| bytes.truncate(HEADER_BYTES)));
        check_broken(|file| edit(file, |bytes| bytes.truncate(3)));
        check_broken(|file| edit(file, Vec::clear));
        check_broken(|file| edit(file, |bytes| bytes.push(0)));
        check_broken(|file| std::fs::remove_file(file).unwrap());
    }

    #[test]
    fn file_that_others_can_read_or_that_is_a_link_is_not_run() {
        check_broken(|file| std::fs::set_permissions(file, PermissionsExt::from_mode(0o644)).unwrap());
        check_broken(|file| {
            let elsewhere = file.with_extension("elsewhere");
            std::fs::rename(file, &elsewhere).unwrap();
            std::os::unix::fs::symlink(&elsewhere, file).unwrap();
        });
    }

    #[test]
    fn code_of_another_engine_or_another_module_is_not_run() {
        let mut kept = kept();
        let other = [8; 32];
        std::fs::copy(kept.file(), kept.folder.path().join("compiled").join(name(&other))).unwrap();
        assert!(kept.cache.get(&kept.wasm, &other).is_none());
        kept.cache.engine ^= 1;
        assert!(!kept.found());
    }

    #[test]
    fn nothing_but_the_code_is_left_in_the_folder() {
        let kept = kept();
        let files: Vec<_> = std::fs::read_dir(kept.folder.path().join("compiled")).unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        let mode = std::fs::metadata(kept.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[track_caller]
    fn check_refused(prepare: impl FnOnce(&Path), expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("compiled");
        prepare(&path);
        let error = Cache::open(&path, &wasmtime::Engine::default()).unwrap_err().to_string();
        assert_eq!(error, format!("compiled policies cannot be kept in {}: {expected}", path.display()));
    }

    #[test]
    fn folder_that_others_can_use_is_refused() {
        let folder = |path: &Path, mode| {
            std::fs::create_dir(path).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let sentence = |mode| format!("others than its owner have access (mode {mode}); it must be 700");
        check_refused(|path| folder(path, 0o755), &sentence(755));
        check_refused(|path| folder(path, 0o770), &sentence(770));
        check_refused(|path| folder(path, 0o1777), &sentence(1777));
    }

    #[test]
    fn path_that_is_no_folder_is_refused() {
        check_refused(|path| std::fs::write(path, "").unwrap(), "it is not a folder, or a link to one");
        check_refused(
            |path| std::os::unix::fs::symlink(path.parent().unwrap(), path).unwrap(),
            "it is not a folder, or a link to one",
        );
    }

    #[test]
    fn folder_of_another_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let mut stat = rustix::fs::stat(folder.path()).unwrap();
        assert_eq!(check_owner(&stat), Ok(()));
        let us = stat.st_uid;
        stat.st_uid += 1;
        let refused = check_owner(&stat).unwrap_err();
        assert_eq!(refused, format!("it belongs to user {} and not to {us}, who runs this", us + 1));
    }
}
