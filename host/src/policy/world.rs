//! What grants show a policy: the time of the decision and the objects that it reads, or what a record says of both.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pith_core::lookup::{self, Budget, Question};
use pith_core::object::Objects;
use pith_core::selector::LabelSelector;
use pith_core::text;

use crate::wasm::{Lookups, Unanswered, World};

/// What is the same for every policy that one decision asks.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// The objects that the decision reads.
    pub objects: &'a Objects,
    /// When it began.
    pub time: SystemTime,
}

impl Moment<'_> {
    /// Milliseconds since the Unix epoch; before that it is the epoch.
    pub(super) fn milliseconds(&self) -> u64 {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The time as people write it.
pub(super) fn written(milliseconds: u64) -> String {
    // Far behind it, the year has no four digits.
    let latest = Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(milliseconds).min(latest)).to_string()
}

/// A question, and the texts that were found; none where that was more than a call may look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Looked {
    pub(crate) question: Question,
    pub(crate) found: Option<Vec<String>>,
}

/// What was looked up in one call, each question once.
pub(super) type Notes = Arc<Mutex<Vec<Looked>>>;

/// A decision as the policy of one binding sees it.
pub(super) struct View<'a> {
    pub(super) moment: Moment<'a>,
    /// The namespaces that there are for it.
    pub(super) selected: &'a LabelSelector,
    /// Absent for a policy that looks nothing up.
    pub(super) notes: Option<Notes>,
}

impl World for View<'_> {
    fn now(&self) -> Result<u64, &'static str> {
        Ok(self.moment.milliseconds())
    }

    fn lookups(&self) -> Result<Box<dyn Lookups>, &'static str> {
        // A clone is a snapshot, which shares all objects.
        let objects = Some((self.moment.objects.clone(), self.selected.clone()));
        Ok(Box::new(Answers { objects, notes: self.notes.clone().unwrap_or_default() }))
    }
}

/// What a case of a table says of the world.
pub(crate) struct Recorded {
    pub(crate) now: Option<u64>,
    pub(crate) looked: Vec<Looked>,
}

impl World for Recorded {
    fn now(&self) -> Result<u64, &'static str> {
        self.now.ok_or("it asks what time it is, and the case has no `now`")
    }

    fn lookups(&self) -> Result<Box<dyn Lookups>, &'static str> {
        Ok(Box::new(Answers { objects: None, notes: Arc::new(Mutex::new(self.looked.clone())) }))
    }
}

/// Answers what was asked before as then, also in a call that was recorded, and the rest from objects, where there are any.
struct Answers {
    objects: Option<(Objects, LabelSelector)>,
    notes: Notes,
}

impl Lookups for Answers {
    fn answer(&mut self, question: Question, budget: &mut Budget) -> Result<Vec<String>, Unanswered> {
        // What is refused here is not noted, and is refused again in a replay.
        budget.ask(&question)?;
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = notes.iter().find(|it| it.question == question) {
            let found = known.found.clone().ok_or(lookup::Overrun)?;
            found.iter().try_for_each(|text| budget.tell(text))?;
            return Ok(found);
        }
        let Some((objects, selected)) = &self.objects else {
            let why = format!("it looks up {question}, which is not among the `lookups` of the case");
            return Err(Unanswered::Unknown(text::clean(&why, 512)));
        };
        let found = lookup::answer(objects, selected, &question, budget);
        notes.push(Looked { question, found: found.as_ref().ok().cloned() });
        Ok(found?)
    }
}
