//! What guests can call: `log` and `origin`, and where they are granted `object`, `clock` and what looks objects up. All are bounded here.

use std::sync::{Arc, Mutex, PoisonError};

use pith_core::lookup::{Budget, Question};
use pith_core::object::{Entries, Kind};
use pith_core::policy::Origin;
use pith_core::text;
use pith_core::volume::Source;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentNamedList, Lift, Linker, LinkerInstance};

use super::bindings::pith::policy::log::Level as LogLevel;
use super::bindings::pith::policy::origin;
use super::{Level, Log, Lookups, Unanswered, World};

/// Calls of these functions in one call of a policy. The deadline would end a loop of them too, but by then it has
/// moved gigabytes.
const HOST_CALLS: u32 = 10_000;

/// The budget of the log: what a person reads of one decision, not a trace of it.
const LOG_LINES: usize = 32;
const LOG_BYTES: usize = 8 << 10;
const LOG_LINE_BYTES: usize = 1 << 10;

/// The state of one call that host functions share.
pub(super) struct Host {
    pub(super) log: LogBuffer,
    /// The text of the object under decision; absent where the guest does not import it.
    pub(super) object: Option<Arc<str>>,
    /// What the volume under decision starts with.
    pub(super) origin: Option<Origin>,
    /// What time it is.
    pub(super) now: Result<u64, &'static str>,
    /// Who answers look-ups.
    pub(super) lookups: Result<Box<dyn Lookups>, &'static str>,
    pub(super) budget: Budget,
    pub(super) calls: u32,
}

/// What a guest has that imports nothing, and every guest where there is no decision.
impl Default for Host {
    fn default() -> Host {
        Host {
            log: LogBuffer::default(),
            object: None,
            origin: None,
            now: ().now(),
            lookups: ().lookups(),
            budget: Budget::of_call(),
            calls: 0,
        }
    }
}

/// Data of a store that has a [`Host`].
pub(super) trait HasHost: 'static {
    fn host(&mut self) -> &mut Host;
}

/// Why a call of the host ends the guest.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// The guest called the host more often, or for more, than it may.
    #[error("the budget of {0} is used up")]
    Budget(&'static str),
    /// The host does not know.
    #[error("{0}")]
    Unknown(String),
}

impl Host {
    fn count(&mut self) -> Result<(), Stopped> {
        self.calls += 1;
        if self.calls > HOST_CALLS { Err(Stopped::Budget("host calls")) } else { Ok(()) }
    }

    fn look_up(&mut self, question: Question) -> Result<Vec<String>, Stopped> {
        self.count()?;
        let lookups = self.lookups.as_mut().map_err(|why| Stopped::Unknown((*why).into()))?;
        lookups.answer(question, &mut self.budget).map_err(|why| match why {
            Unanswered::Overrun(_) => Stopped::Budget("look-ups"),
            Unanswered::Unknown(why) => Stopped::Unknown(why),
        })
    }
}

/// Offers them all. What a guest may have is checked when it is loaded.
pub(super) fn add_to_linker<T: HasHost>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker.instance("pith:policy/log@0.1.0")?.func_wrap(
        "log",
        |mut store: StoreContextMut<'_, T>, (level, message): (LogLevel, String)| {
            let host = store.data_mut().host();
            host.count()?;
            host.log.push(Level::from(level), &message);
            Ok(())
        },
    )?;
    linker.instance("pith:policy/object@0.1.0")?.func_wrap("json", |mut store: StoreContextMut<'_, T>, (): ()| {
        let host = store.data_mut().host();
        host.count()?;
        Ok((host.object.clone().unwrap_or_default(),))
    })?;
    linker.instance("pith:policy/origin@0.1.0")?.func_wrap(
        "starts-with",
        |mut store: StoreContextMut<'_, T>, (): ()| {
            let host = store.data_mut().host();
            host.count()?;
            Ok((host.origin.as_ref().map(origin::Origin::from),))
        },
    )?;
    linker.instance("pith:policy/clock@0.1.0")?.func_wrap("now", |mut store: StoreContextMut<'_, T>, (): ()| {
        let host = store.data_mut().host();
        host.count()?;
        Ok((host.now.map_err(|why| Stopped::Unknown(why.into()))?,))
    })?;
    let mut namespaces = linker.instance("pith:policy/namespaces@0.1.0")?;
    offer_one(&mut namespaces, "get", |(name,): (String,)| one(Kind::Namespace, None, name))?;
    offer_list(&mut namespaces, "list", |(labels,): (Labels,)| several(Kind::Namespace, None, labels))?;
    let mut classes = linker.instance("pith:policy/storage-classes@0.1.0")?;
    offer_one(&mut classes, "get", |(name,): (String,)| one(Kind::StorageClass, None, name))?;
    offer_list(&mut classes, "list", |(): ()| several(Kind::StorageClass, None, Vec::new()))?;
    for (interface, kind, get, list) in [
        ("pith:policy/claims@0.1.0", Kind::Claim, "get", "list"),
        ("pith:policy/persistent-volumes@0.1.0", Kind::PersistentVolume, "of-claim", "of-claims"),
    ] {
        let mut interface = linker.instance(interface)?;
        offer_one(&mut interface, get, move |(within, name): (String, String)| one(kind, Some(within), name))?;
        offer_list(&mut interface, list, move |(within, labels): (String, Labels)| {
            several(kind, Some(within), labels)
        })?;
    }
    Ok(())
}

/// A list of entries as guests hand it over.
type Labels = Vec<(String, String)>;

fn one(kind: Kind, namespace: Option<String>, name: String) -> Question {
    Question { kind, namespace, name: Some(name), labels: Entries::new() }
}

fn several(kind: Kind, namespace: Option<String>, labels: Labels) -> Question {
    Question { kind, namespace, name: None, labels: labels.into_iter().collect() }
}

fn offer_one<T: HasHost, P>(
    interface: &mut LinkerInstance<'_, T>,
    name: &str,
    question: impl Fn(P) -> Question + Send + Sync + 'static,
) -> wasmtime::Result<()>
where
    P: ComponentNamedList + Lift + 'static,
{
    interface.func_wrap(name, move |mut store: StoreContextMut<'_, T>, params: P| {
        Ok((store.data_mut().host().look_up(question(params))?.pop(),))
    })
}

fn offer_list<T: HasHost, P>(
    interface: &mut LinkerInstance<'_, T>,
    name: &str,
    question: impl Fn(P) -> Question + Send + Sync + 'static,
) -> wasmtime::Result<()>
where
    P: ComponentNamedList + Lift + 'static,
{
    interface.func_wrap(name, move |mut store: StoreContextMut<'_, T>, params: P| {
        Ok((store.data_mut().host().look_up(question(params))?,))
    })
}

impl From<&Origin> for origin::Origin {
    fn from(it: &Origin) -> origin::Origin {
        let kind = match it.source {
            Source::Volume(_) => origin::Kind::Volume,
            Source::Snapshot(_) => origin::Kind::Snapshot,
        };
        origin::Origin { kind, id: it.source.id().to_owned(), directory: it.directory.clone() }
    }
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Level {
        match level {
            LogLevel::Debug => Level::Debug,
            LogLevel::Info => Level::Info,
            LogLevel::Warn => Level::Warn,
            LogLevel::Error => Level::Error,
        }
    }
}

/// The lines of one call. Shared, because the standard output of a WASI guest belongs to a stream that the guest owns.
#[derive(Clone, Default)]
pub(super) struct LogBuffer(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    kept: Vec<(Level, String)>,
    bytes: usize,
    dropped: u64,
}

impl LogBuffer {
    /// Keeps the line if the budget allows, else counts it.
    pub(super) fn push(&self, level: Level, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.kept.len() >= LOG_LINES || lines.bytes >= LOG_BYTES {
            lines.dropped += 1;
            return;
        }
        let line = text::clean(line, LOG_LINE_BYTES.min(LOG_BYTES - lines.bytes));
        // An empty line costs something too.
        lines.bytes += line.len().max(1);
        lines.kept.push((level, line));
    }

    /// Hands every line to `log`, and at last how many there would have been.
    pub(super) fn drain(&self, log: &dyn Log) {
        let lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (level, line) in &lines.kept {
            log.line(*level, line);
        }
        if lines.dropped > 0 {
            let dropped = lines.dropped;
            let sentence =
                format!("{dropped} more lines dropped; a call may log {LOG_LINES} lines and {} KiB", LOG_BYTES >> 10);
            log.line(Level::Warn, &sentence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_beyond_the_budget_is_counted() {
        let buffer = LogBuffer::default();
        for number in 0..100 {
            buffer.push(Level::Info, &format!("line {number}"));
        }
        let lines = std::cell::RefCell::new(Vec::new());
        buffer.drain(&|_: Level, line: &str| lines.borrow_mut().push(line.to_owned()));
        let lines = lines.into_inner();
        assert_eq!(lines.len(), LOG_LINES + 1);
        assert_eq!(lines.last().map(String::as_str), Some("68 more lines dropped; a call may log 32 lines and 8 KiB"));
    }

    #[test]
    fn long_lines_use_up_the_budget_of_bytes() {
        let buffer = LogBuffer::default();
        for _ in 0..20 {
            buffer.push(Level::Info, &"x".repeat(2 << 10));
        }
        let bytes = std::cell::Cell::new(0);
        buffer.drain(&|_: Level, line: &str| bytes.set(bytes.get() + line.len()));
        assert!(bytes.get() <= LOG_BYTES + 100, "{} bytes", bytes.get());
    }
}
