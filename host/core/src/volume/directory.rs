//! A directory in the file system, as a list of checked components, and who else may lie there.
//!
//! The JuiceFS worker resolves what it is sent, an encoded `..` too. So a path exists only in this form, in which every
//! component is a plain name: the same to the file system, to a URL once it is encoded, and to whoever reads a listing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfc};

const LONGEST_COMPONENT: usize = 255;
const MOST_COMPONENTS: usize = 32;
const LONGEST: usize = 1024;

/// A directory below the root of the file system: one or more checked components. Its text is `/a/b`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Directory(Vec<String>);

/// Why a path is not one of a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// It names no directory.
    #[error("it is the root of the file system, which is never a volume")]
    Root,
    /// One of its components is no plain name.
    #[error("the component {} {reason}", shown(.component))]
    Component {
        /// The component as it was given.
        component: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It has too many components.
    #[error("it has {0} levels, and {MOST_COMPONENTS} are allowed")]
    TooDeep(usize),
    /// It has too many bytes.
    #[error("it has {0} bytes, and {LONGEST} are allowed")]
    TooLong(usize),
}

impl Directory {
    /// The directory of these components, if each is a plain name.
    pub fn new(components: Vec<String>) -> Result<Directory, PathProblem> {
        if components.is_empty() {
            return Err(PathProblem::Root);
        }
        if components.len() > MOST_COMPONENTS {
            return Err(PathProblem::TooDeep(components.len()));
        }
        for component in &components {
            if let Some(reason) = defect(component) {
                return Err(PathProblem::Component { component: component.clone(), reason });
            }
        }
        let bytes = components.iter().map(|component| component.len() + 1).sum();
        if bytes > LONGEST {
            return Err(PathProblem::TooLong(bytes));
        }
        Ok(Directory(components))
    }

    /// The directory that a new volume is to have: of these names none may be another one in disguise.
    pub fn chosen(components: Vec<String>) -> Result<Directory, PathProblem> {
        let directory = Directory::new(components)?;
        for component in &directory.0 {
            if let Some(reason) = disguise(component) {
                return Err(PathProblem::Component { component: component.clone(), reason });
            }
        }
        Ok(directory)
    }

    /// From the root down, never empty.
    pub fn components(&self) -> &[String] {
        &self.0
    }
}

/// What keeps a text from being a plain name. A list of what is refused, on purpose: file names in any script are allowed,
/// as with the JuiceFS driver, and as there `Web` and `web` are two names.
fn defect(component: &str) -> Option<&'static str> {
    let rules = [
        (component.is_empty(), "is empty"),
        (matches!(component, "." | ".."), "leads elsewhere in the tree"),
        (component.contains('/'), "has a `/`: each component is one level"),
        (component.contains(char::is_control), "has a control character"),
        (component.starts_with('.'), "begins with a dot: such names are kept for JuiceFS and Pith"),
        (component.trim() != component, "begins or ends with whitespace, which nobody sees"),
        (component.len() > LONGEST_COMPONENT, "is longer than 255 bytes"),
        (
            !is_nfc(component),
            "is not in Unicode's normal form C: a name that looks the same would be another directory",
        ),
    ];
    rules.into_iter().find(|(broken, _)| *broken).map(|(_, reason)| reason)
}

/// What more keeps a plain name from being that of a new directory. One that is there already may have it, and is what it is.
fn disguise(component: &str) -> Option<&'static str> {
    let rules = [
        (component.contains(is_invisible), "has a character that nobody sees, or one that turns text about"),
        (is_path_in_disguise(component), "is a path for whoever decodes it, or mounts it elsewhere"),
    ];
    rules.into_iter().find(|(broken, _)| *broken).map(|(_, reason)| reason)
}

/// Whether a character is written nowhere, or writes others in another order: with one, two names look the same. Those that join
/// letters or keep them apart are part of how some scripts are written.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether a plain name is none any more for somebody who reads it otherwise than Linux does, who decodes it say, however often:
/// `%2e%2e`, `%252e`, `a%2fb`, dots and slashes of another width, or `a\..\b`. Nothing here does; gateways, tools and scripts that are
/// given it may. The name is short by now.
fn is_path_in_disguise(name: &str) -> bool {
    let leads_elsewhere =
        |text: &str| text.starts_with('.') || text.contains(['/', '\0']) || text.split('\\').any(|part| part == "..");
    let folded: String = name.nfkc().collect();
    if leads_elsewhere(name) || leads_elsewhere(&folded) {
        return true;
    }
    match decoded(name).map(String::from_utf8) {
        None => false,
        Some(Ok(text)) => is_path_in_disguise(&text),
        // What is no text may be dots to a decoder that takes more than it should, as `%c0%ae`.
        Some(Err(_)) => true,
    }
}

/// A text with each `%` and two digits replaced by what they stand for; none where there is nothing to decode.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let mut byte = [0];
        let is_encoded = digits.is_some_and(|digits| hex::decode_to_slice(digits, &mut byte).is_ok());
        bytes.push(if is_encoded { byte[0] } else { *first });
        rest = if is_encoded { &after[2..] } else { after };
    }
    (bytes.len() < text.len()).then_some(bytes)
}

/// A text from elsewhere for a sentence: quoted, escaped, and not longer than a line.
fn shown(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A path as people write it, without the slash that may stand at either end.
pub(super) fn trim(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.strip_suffix('/').unwrap_or(path)
}

/// The components of a path as people write it; none for the root. Not yet checked.
pub(super) fn split(path: &str) -> Vec<String> {
    match trim(path) {
        "" => Vec::new(),
        path => path.split('/').map(String::from).collect(),
    }
}

impl TryFrom<Vec<String>> for Directory {
    type Error = PathProblem;

    fn try_from(components: Vec<String>) -> Result<Directory, PathProblem> {
        Directory::new(components)
    }
}

impl FromStr for Directory {
    type Err = PathProblem;

    fn from_str(path: &str) -> Result<Directory, PathProblem> {
        Directory::new(split(path))
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|component| write!(f, "/{component}"))
    }
}

/// Where the directory of another volume lies, seen from ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// It is the same.
    Same,
    /// It is above: ours would lie in it.
    Ancestor,
    /// It is below: it would lie in ours.
    Descendant,
}

/// A volume that holds a directory of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub id: String,
    /// Where its directory lies.
    pub relation: Relation,
    /// True if it is meant to be shared.
    pub shared: bool,
}

/// A directory that a volume cannot have, because of another volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the directory {directory} cannot be the volume's: {}", self.reason())]
pub struct Conflict {
    /// The directory that was to be.
    pub directory: Directory,
    /// The volume in the way.
    pub holder: Holder,
}

impl Conflict {
    fn reason(&self) -> String {
        let id = &self.holder.id;
        match self.holder.relation {
            Relation::Same if self.holder.shared => {
                format!("volume `{id}` has it, and shares it only with volumes that share it too")
            }
            Relation::Same => format!("volume `{id}` has it, and does not share it"),
            Relation::Ancestor => {
                format!("it would lie inside the directory of volume `{id}`, and volumes do not nest")
            }
            Relation::Descendant => format!("the directory of volume `{id}` lies inside it, and volumes do not nest"),
        }
    }
}

/// Whether a volume may have a directory beside those who hold it, or one above or below it. It may share the same one
/// where both sides say so; one inside another is refused always, because the outer volume would expose and delete the
/// inner one.
///
/// The volume itself may be among the holders. Of several in the way, the same one is named every time.
pub fn conflict(own_id: &str, directory: &Directory, shared: bool, holders: &[Holder]) -> Option<Conflict> {
    let in_the_way =
        |holder: &&Holder| holder.id != own_id && !(holder.relation == Relation::Same && shared && holder.shared);
    let holder = holders.iter().filter(in_the_way).min_by_key(|holder| (holder.relation, &holder.id))?;
    Some(Conflict { directory: directory.clone(), holder: holder.clone() })
}

#[cfg(test)]
mod tests;
