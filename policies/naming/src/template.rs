//! One component of the template: text with placeholders such as `{namespace}` and `{labels.team}`.

use std::borrow::Cow;
use std::fmt;

use pith_policy_sdk::prelude::*;

/// One level of the directory.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub struct Component {
    pub(crate) pieces: Vec<Piece>,
}

/// A part of a component.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    Field(Field),
}

/// What a placeholder stands for.
#[derive(Debug, PartialEq)]
pub(crate) enum Field {
    Namespace,
    Claim,
    Volume,
    Source,
    Label(String),
    Annotation(String),
    NamespaceLabel(String),
}

impl TryFrom<String> for Component {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a component must not be empty".to_owned());
        }
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let Some((plain, after)) = rest.split_once('{') else {
                pieces.push(plain_text(rest)?);
                break;
            };
            if !plain.is_empty() {
                pieces.push(plain_text(plain)?);
            }
            let (name, after) = after.split_once('}').ok_or_else(|| format!("{text:?} has a `{{` without its `}}`"))?;
            pieces.push(Piece::Field(Field::parse(name)?));
            rest = after;
        }
        Ok(Self { pieces })
    }
}

fn plain_text(text: &str) -> Result<Piece, String> {
    if text.contains('}') {
        return Err(format!("{text:?} has a `}}` without its `{{`"));
    }
    if !text.bytes().all(crate::value::is_plain_byte) {
        return Err(format!("{text:?} cannot be part of a directory's name: {}", crate::value::RULE));
    }
    Ok(Piece::Text(text.to_owned()))
}

impl Field {
    fn parse(name: &str) -> Result<Self, String> {
        let keyed = |kind: &str| name.strip_prefix(kind).filter(|key| !key.is_empty()).map(str::to_owned);
        match name {
            "namespace" => Ok(Self::Namespace),
            "claim" => Ok(Self::Claim),
            "volume" => Ok(Self::Volume),
            "source" => Ok(Self::Source),
            _ => keyed("labels.")
                .map(Self::Label)
                .or_else(|| keyed("annotations.").map(Self::Annotation))
                .or_else(|| keyed("namespaceLabels.").map(Self::NamespaceLabel))
                .ok_or_else(|| {
                    format!(
                        "{{{name}}} is no placeholder; there are {{namespace}}, {{claim}}, {{volume}}, {{source}}, \
                         {{labels.KEY}}, {{annotations.KEY}} and {{namespaceLabels.KEY}}"
                    )
                }),
        }
    }

    /// The value for one volume; absent where the label or annotation is not set, or the volume starts with nothing.
    pub(crate) fn value<'a>(&self, request: &'a NamingRequest) -> Option<Cow<'a, str>> {
        let known: Option<&str> = match self {
            Self::Source => {
                return origin().and_then(|origin| origin.directory.into_iter().next_back()).map(Cow::Owned);
            }
            Self::Namespace => Some(&request.namespace.name),
            Self::Claim => Some(&request.claim.name),
            Self::Volume => Some(&request.volume_name),
            Self::Label(key) => request.claim.labels.value(key),
            Self::Annotation(key) => request.claim.annotations.value(key),
            Self::NamespaceLabel(key) => request.namespace.labels.value(key),
        };
        known.map(Cow::Borrowed)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace => f.write_str("the name of the namespace"),
            Self::Claim => f.write_str("the name of the claim"),
            Self::Volume => f.write_str("the name of the volume"),
            Self::Source => f.write_str("the directory of what the volume starts with"),
            Self::Label(key) => write!(f, "the label {key:?} of the claim"),
            Self::Annotation(key) => write!(f, "the annotation {key:?} of the claim"),
            Self::NamespaceLabel(key) => write!(f, "the label {key:?} of the namespace"),
        }
    }
}
