//! Which volumes a list has, and where its pages begin.

use std::fmt;

use super::is_id;
use super::record::{Record, State};

/// What a token begins with. No id has a slash, so nothing else that CSI names is taken for a token.
const AFTER: &str = "after/";

/// Where a page of a list begins: behind this id, in the order of ids. There need not be a volume of it any more, and where there is a
/// new one meanwhile, every page has its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After(String);

impl After {
    /// Behind this volume.
    pub fn volume(record: &Record) -> After {
        After(record.id.clone())
    }

    /// Reads what an earlier page said; none of anything else.
    pub fn parse(token: &str) -> Option<After> {
        token.strip_prefix(AFTER).filter(|id| is_id(id)).map(|id| After(id.to_string()))
    }

    /// Whether a volume of this id comes later.
    pub fn has(&self, id: &str) -> bool {
        *id > *self.0
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{AFTER}{}", self.0)
    }
}

impl Record {
    /// Whether there is such a volume for whoever asks: it was made and is not deleted. One that was adopted was there before its record.
    pub fn is_there(&self) -> bool {
        match self.state {
            State::Ready => true,
            State::Creating => self.is_adopted(),
            State::Deleting(_) | State::Purging(_) | State::Restoring(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is_one() {
        let check = |token: &str, expected: Option<&str>| {
            let read = After::parse(token);
            assert_eq!(read, expected.map(|id| After(id.to_string())), "{token}");
            assert_eq!(read.map(|it| it.to_string()), expected.map(|_| token.to_string()));
        };
        check("after/pvc-1", Some("pvc-1"));
        check("pvc-1", None);
        check("invalid-token", None);
        check("after/", None);
        check("after/../x", None);
        check("after/a/b", None);
        check(" after/a", None);
        check("3", None);
    }

    #[test]
    fn a_page_begins_behind_an_id_whether_it_is_there_or_not() {
        let after = After::parse("after/pvc-2").expect("a token");
        let later: Vec<&str> = ["pvc-1", "pvc-2", "pvc-20", "pvc-3"].into_iter().filter(|id| after.has(id)).collect();
        assert_eq!(later, ["pvc-20", "pvc-3"]);
    }
}
