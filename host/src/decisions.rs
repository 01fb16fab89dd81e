//! The decision log: one line of JSON for each decision, for whoever has to say later why it was so.
//!
//! It has names, codes, sentences and what policies answered. Objects are in it only with `capture`, in the questions that policies were
//! asked, so that `pith policy replay` can ask them again; without it the values of variables are left out too.
//!
//! Lines are written by a thread of their own. Who decides never waits for it: where it is behind, lines are lost and counted.

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use pith_core::admission::{Decision, Verdict};
use pith_core::catalogue::Code;
use pith_core::monitor::Monitored;
use pith_core::volume::{Place, VolumeRefusal};
use serde_json::{Value, json};

use crate::config;
use crate::metrics::Metrics;
use crate::policy::{Call, Recorded};

/// So many lines may wait to be written.
const WAITING: usize = 256;
/// A longer line loses the questions that policies were asked.
const LONGEST: usize = 256 << 10;

/// The log.
#[derive(Debug)]
pub struct Decisions {
    lines: SyncSender<Line>,
    writer: Mutex<Option<JoinHandle<()>>>,
    percent: u8,
    recorded: Recorded,
    metrics: Arc<Metrics>,
}

/// What a decision is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The UID of the review, or the id of the volume.
    pub id: &'a str,
    /// Of the pod or the claim.
    pub namespace: &'a str,
    /// Of the pod or the claim; what it begins with, where it has none yet.
    pub name: &'a str,
}

enum Line {
    Text(String),
    End,
}

impl Decisions {
    /// Opens the file, and starts the thread that writes.
    pub fn start(config: &config::Decisions, metrics: Arc<Metrics>) -> Result<Decisions> {
        let config::Decisions { file, max_size, keep, percent, capture } = config.clone();
        let output = match file {
            Some(path) => {
                let place = format!("opening the decision log {}", path.display());
                Output::File(Rotated::open(path, max_size, keep).context(place)?)
            }
            None => Output::Stdout,
        };
        let (lines, waiting) = sync_channel(WAITING);
        let writer = std::thread::Builder::new().name("decision-log".into()).spawn(move || write(&waiting, output));
        let writer = Mutex::new(Some(writer.context("starting the thread that writes the decision log")?));
        let recorded = if capture { Recorded::Questions } else { Recorded::Answers };
        Ok(Decisions { lines, writer, percent, recorded, metrics })
    }

    /// What is to be kept of the calls for this decision; nothing where it is not among those that are recorded.
    pub fn wants(&self, id: &str) -> Option<Recorded> {
        let mut hash = DefaultHasher::new();
        id.hash(&mut hash);
        (hash.finish() % 100 < u64::from(self.percent)).then_some(self.recorded)
    }

    /// Records what became of a pod.
    pub fn pod(&self, about: About<'_>, decision: &Decision, calls: Vec<Call>, took: Duration) {
        let (outcome, sentence) = match &decision.verdict {
            Verdict::Skip { why, .. } => ("skip", Some(why.sentence())),
            Verdict::Inject(_) => ("inject", None),
            Verdict::Refuse(refusal) => ("deny", Some(refusal.to_string())),
            Verdict::Fail(failure) => ("fail", Some(failure.to_string())),
        };
        let code = decision.verdict.code().map(Code::as_str);
        let (warnings, monitored) = (&decision.warnings, &decision.monitored);
        let decided = json!({"outcome": outcome, "reason": code, "sentence": sentence, "warnings": warnings});
        self.record("Pod", about, decided, monitored, calls, took);
    }

    /// Records where a volume is to lie, or why there is to be none.
    pub fn volume(&self, about: About<'_>, place: &Result<Place, VolumeRefusal>, calls: Vec<Call>, took: Duration) {
        let (decided, monitored) = match place {
            Ok(place) => {
                let directory = place.directory.to_string();
                let decided = json!({
                    "outcome": "place", "directory": directory, "shared": place.shared, "namedBy": place.named_by,
                    "quota": place.quota, "warnings": place.warnings,
                });
                (decided, &*place.monitored)
            }
            Err(refusal) => (json!({"outcome": "deny", "sentence": refusal.to_string()}), &[][..]),
        };
        self.record("Volume", about, decided, monitored, calls, took);
    }

    fn record(
        &self,
        kind: &str,
        about: About<'_>,
        decided: Value,
        monitored: &[Monitored],
        calls: Vec<Call>,
        took: Duration,
    ) {
        let mut calls: Vec<Value> = calls.into_iter().map(described).collect();
        let monitored: Vec<Value> = monitored.iter().map(watched).collect();
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let mut record = json!({
            "time": time, "kind": kind, "id": about.id, "namespace": about.namespace, "name": about.name,
            "decided": decided, "monitored": monitored, "microseconds": micros(took),
        });
        let mut line = |calls: Vec<Value>| {
            record["policies"] = calls.into();
            format!("{record}\n")
        };
        let mut text = line(calls.clone());
        if text.len() > LONGEST {
            for call in calls.iter_mut().filter_map(Value::as_object_mut) {
                call.remove("case");
            }
            text = line(calls);
        }
        if self.lines.try_send(Line::Text(text)).is_err() {
            self.metrics.decisions_lost.inc();
        }
    }

    /// Waits until everything that was recorded is written.
    pub fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // An error of either means that the thread is gone already.
            let _ = self.lines.send(Line::End);
            let _ = writer.join();
        }
    }
}

fn described(call: Call) -> Value {
    let Call { binding, hook, outcome, took, told } = call;
    let mut described = json!({
        "policy": binding, "hook": hook.as_str(), "outcome": outcome, "microseconds": micros(took),
    });
    if let Some(told) = told {
        described["digest"] = told.digest.into();
        described["answer"] = told.answer;
        if let Some(case) = told.case {
            described["case"] = case;
        }
    }
    described
}

fn watched(it: &Monitored) -> Value {
    let differences: Vec<String> = it.outcome.iter().flatten().map(ToString::to_string).collect();
    json!({"policy": it.binding, "hook": it.hook.as_str(), "claim": it.claim, "outcome": it.word(), "differences": differences})
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

enum Output {
    Stdout,
    File(Rotated),
}

fn write(lines: &Receiver<Line>, mut output: Output) {
    let mut has_complained = false;
    while let Ok(Line::Text(line)) = lines.recv() {
        let written = match &mut output {
            Output::Stdout => io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush()),
            Output::File(file) => file.write(line.as_bytes()),
        };
        match written {
            Ok(()) => has_complained = false,
            Err(error) if !has_complained => {
                tracing::error!(%error, "the decision log cannot be written; this is said once until it can be");
                has_complained = true;
            }
            Err(_) => {}
        }
    }
}

/// A file that is renamed to `<name>.1` when it is full, and what had that name to `<name>.2`, up to a number.
struct Rotated {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: u64,
    keep: u32,
}

impl Rotated {
    fn open(path: PathBuf, max_size: u64, keep: u32) -> io::Result<Rotated> {
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Rotated { path, file, size, max_size, keep })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.size > 0 && self.size.saturating_add(length) > self.max_size {
            self.turn()?;
        }
        self.file.write_all(line)?;
        self.size += length;
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let older = |number: u32| match number {
            0 => self.path.clone(),
            number => PathBuf::from(format!("{}.{number}", self.path.display())),
        };
        for number in (0..self.keep).rev() {
            match fs::rename(older(number), older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        }
        (self.file, self.size) = (append(&self.path)?, 0);
        Ok(())
    }
}

/// For its owner only: with `capture` it has what only those may see who may read the objects.
fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_becomes_an_older_one_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
        let mut file = Rotated::open(path.clone(), 4, 2).expect("opened");
        for line in ["1\n", "2\n", "3\n", "4\n", "5\n", "6\n", "7\n"] {
            file.write(line.as_bytes()).expect("written");
        }
        let found = [read("log"), read("log.1"), read("log.2"), read("log.3")];
        assert_eq!(found, [Some("7\n".into()), Some("5\n6\n".into()), Some("3\n4\n".into()), None]);
        let mut file = Rotated::open(path.clone(), 4, 0).expect("opened");
        file.write(b"too long for a file\n").expect("written");
        file.write(b"8\n").expect("written");
        assert_eq!(read("log"), Some("8\n".into()), "none older is kept, and what was there goes on");
    }
}
