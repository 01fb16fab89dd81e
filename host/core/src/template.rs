//! The template language of the JuiceFS driver's provisioner, in texts of a StorageClass: `${.pvc.name}`, `${.pvc.namespace}`,
//! `${.pvc.labels.KEY}`, `${.pvc.annotations.KEY}` and `${.node.name}`, where `.PVC` is the same as `.pvc`.
//!
//! All that follows the third dot is the key, with its dots, dashes and slashes. What a value says is not read again. What is no
//! template of the language is an error here, as it is the same mistake for every claim; the driver leaves it as it stands.

use crate::object::Claim;

/// What to do where CreateVolume names no claim.
pub(crate) const EXTRA_METADATA: &str = "run external-provisioner with --extra-create-metadata";
/// Where the scheduler writes on a claim which node its first pod goes to.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Whether a template that has no value is an error. Else it is empty text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Templates {
    /// It is empty, and somebody is told.
    Lenient,
    /// It is an error.
    Strict,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// What is written there.
    Text(&'a str),
    /// What a template stands for.
    Value(&'a str),
    /// What the claim lacks for a template to have a value.
    Missing(String),
}

/// Takes a text apart. Without a claim no template has a value, which is an error.
pub(crate) fn pieces<'a>(text: &'a str, claim: Option<&'a Claim>) -> Result<Vec<Piece<'a>>, String> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let (template, after) = after.split_once('}').ok_or("a `${` in it has no `}`")?;
        pieces.push(Piece::Text(before));
        pieces.push(value(template, claim)?);
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

/// What a template asks of a claim.
enum Field<'a> {
    Name,
    Namespace,
    Label(&'a str),
    Annotation(&'a str),
}

impl Field<'_> {
    fn of(template: &str) -> Option<Field<'_>> {
        if template == ".node.name" {
            return Some(Field::Annotation(SELECTED_NODE));
        }
        let field = template.strip_prefix(".pvc.").or_else(|| template.strip_prefix(".PVC."))?;
        match field.split_once('.') {
            None if field == "name" => Some(Field::Name),
            None if field == "namespace" => Some(Field::Namespace),
            Some(("labels", key)) => Some(Field::Label(key)),
            Some(("annotations", key)) => Some(Field::Annotation(key)),
            _ => None,
        }
    }
}

/// What one `${template}` stands for.
fn value<'a>(template: &str, claim: Option<&'a Claim>) -> Result<Piece<'a>, String> {
    let field = Field::of(template).ok_or_else(|| {
        format!(
            "`${{{template}}}` is not known here; what is: ${{.pvc.name}}, ${{.pvc.namespace}}, ${{.pvc.labels.KEY}}, \
             ${{.pvc.annotations.KEY}} and ${{.node.name}}"
        )
    })?;
    let claim = claim
        .ok_or_else(|| format!("`${{{template}}}` needs the claim, and the caller names none: {EXTRA_METADATA}"))?;
    let (kind, entries, key) = match field {
        Field::Name => return Ok(Piece::Value(&claim.name)),
        Field::Namespace => return Ok(Piece::Value(&claim.namespace)),
        Field::Label(key) => ("label", &claim.labels, key),
        Field::Annotation(key) => ("annotation", &claim.annotations, key),
    };
    Ok(match entries.get(key).filter(|value| !value.is_empty()) {
        Some(value) => Piece::Value(value),
        None => {
            let (namespace, name) = (&claim.namespace, &claim.name);
            Piece::Missing(format!("the claim `{namespace}/{name}` has no {kind} `{key}`, or an empty one"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{claim, entries};

    #[test]
    fn a_text_is_taken_apart_and_no_value_is_read_again() {
        let labels = entries(&[("a", "${.pvc.name}"), ("none", "")]);
        let claim = Claim { labels, ..claim("orders") };
        let missing = "the claim `shop/orders` has no label `none`, or an empty one".to_string();
        for (text, expected) in [
            ("plain $ {x} }", vec![Piece::Text("plain $ {x} }")]),
            (
                "${.pvc.labels.a}/${.PVC.name}",
                vec![
                    Piece::Text(""),
                    Piece::Value("${.pvc.name}"),
                    Piece::Text("/"),
                    Piece::Value("orders"),
                    Piece::Text(""),
                ],
            ),
            ("x${.pvc.labels.none}", vec![Piece::Text("x"), Piece::Missing(missing), Piece::Text("")]),
        ] {
            assert_eq!(pieces(text, Some(&claim)), Ok(expected), "{text}");
        }
        assert!(pieces("a", None).is_ok() && pieces("${.pvc.name}", None).is_err());
    }
}
