//! Files that somebody else writes again while they are in use: which contents are taken, and which are complained about.
//!
//! They are looked at every few seconds and not watched: Kubernetes swaps a symbolic link two folders up, which a watch of the file
//! does not see.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A digest of everything that was read.
pub(crate) type Digest = [u8; 32];

/// What changes when a file does, behind every link.
pub(crate) fn stat(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(it) => {
            let (modified, changed) = ((it.mtime(), it.mtime_nsec()), (it.ctime(), it.ctime_nsec()));
            format!("{}:{}:{}:{}:{modified:?}:{changed:?}", path.display(), it.dev(), it.ino(), it.size())
        }
        Err(error) => format!("{}:{error}", path.display()),
    }
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// What was taken last, or complained about.
    settled: Digest,
    /// What could not be used when it was seen for the first time: half of it may have been written since.
    doubtful: Option<Digest>,
}

/// What follows from a look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new, and can be used.
    Take,
    /// It cannot be used, and stays so.
    Complain,
    /// It is what it was, or may be half of what it is going to be.
    Nothing,
}

impl History {
    /// As if this was taken, or complained about.
    pub(crate) fn settled_at(digest: Digest) -> History {
        History { settled: digest, doubtful: None }
    }

    /// Whether nothing follows from it, whatever is in it.
    pub(crate) fn is_settled(&self, seen: Digest) -> bool {
        seen == self.settled
    }

    /// What follows from what is seen now, and whether it can be used.
    pub(crate) fn judge(&mut self, seen: Digest, usable: bool) -> Verdict {
        if self.is_settled(seen) {
            return Verdict::Nothing;
        }
        if !usable && self.doubtful != Some(seen) {
            self.doubtful = Some(seen);
            return Verdict::Nothing;
        }
        self.settled = seen;
        if usable { Verdict::Take } else { Verdict::Complain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_complained_about_once_and_only_when_it_stays_so() {
        let mut history = History::settled_at([1; 32]);
        for (seen, usable, verdict) in [
            (1, true, Verdict::Nothing),
            // The certificate was written and the key not yet.
            (2, false, Verdict::Nothing),
            (3, true, Verdict::Take),
            (3, true, Verdict::Nothing),
            (4, false, Verdict::Nothing),
            (4, false, Verdict::Complain),
            (4, false, Verdict::Nothing),
            (3, true, Verdict::Take),
        ] {
            assert_eq!(history.judge([seen; 32], usable), verdict, "{seen}");
        }
    }
}
