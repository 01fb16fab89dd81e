//! What is fuzzed of Pith: parts that read what somebody else wrote, each as a function of bytes.
//!
//! Two programs call them. `cargo xtask fuzz` (the workspace in `libfuzzer`) calls one of them with millions of inputs that libFuzzer makes
//! from the seeds. The tests of this crate call each with its seeds, and with every input in `found/<target>`, which are those
//! that once found something: they need no fuzzer and take seconds.
//!
//! An input may be taken or refused. It may not panic, take longer or say more than it should: that is what a target asserts.

mod binding;
mod lift_answer;
mod module_load;
mod oci_manifest;

use std::path::{Path, PathBuf};

/// The most bytes of a sentence about what somebody else wrote. It may quote that, but not all of it.
const SENTENCE_BYTES: usize = 2 << 10;

/// What is fuzzed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Bytes that are to become a policy.
    ModuleLoad,
    /// What a policy leaves in its memory as its answer.
    LiftAnswer,
    /// The text of a binding, in a configuration or in a PolicyBinding.
    Binding,
    /// What registries answer.
    OciManifest,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 4] = [Target::ModuleLoad, Target::LiftAnswer, Target::Binding, Target::OciManifest];

    /// What it is called in commands and folders.
    pub fn name(self) -> &'static str {
        match self {
            Target::ModuleLoad => "module_load",
            Target::LiftAnswer => "lift_answer",
            Target::Binding => "binding",
            Target::OciManifest => "oci_manifest",
        }
    }

    /// The target of that name.
    pub fn named(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Gives it an input, and says what was made of that: the answer, or the sentence with which it was refused.
    ///
    /// # Panics
    ///
    /// Where the input finds something.
    pub fn run(self, input: &[u8]) -> Result<String, String> {
        let outcome = match self {
            Target::ModuleLoad => module_load::run(input),
            Target::LiftAnswer => lift_answer::run(input),
            Target::Binding => binding::run(input),
            Target::OciManifest => oci_manifest::run(input),
        };
        if let Err(sentence) = &outcome {
            assert_fit_for_people(sentence);
        }
        outcome
    }

    /// The inputs to begin with, by name.
    pub fn seeds(self) -> Vec<(String, Vec<u8>)> {
        match self {
            Target::ModuleLoad => module_load::seeds(),
            Target::LiftAnswer => lift_answer::seeds(),
            Target::Binding => files(&here("seeds/binding")),
            Target::OciManifest => oci_manifest::seeds(),
        }
    }

    /// The inputs that once found something, by name.
    pub fn found(self) -> Vec<(String, Vec<u8>)> {
        files(&here("found").join(self.name()))
    }
}

/// A sentence ends in a log, a status or an API server's answer: it is one line, and not long.
fn assert_fit_for_people(sentence: &str) {
    assert!(sentence.len() <= SENTENCE_BYTES, "a sentence of {} bytes: {sentence:.300}", sentence.len());
    assert!(!sentence.contains(|it: char| it.is_control()), "a control character in {sentence:?}");
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The files of a folder, in order; none where there is no folder.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|it| it.expect("an entry of the repository").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, std::fs::read(&path).expect("a file of the repository"))
    };
    paths.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests;
