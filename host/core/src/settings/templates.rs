//! Templates in the mount options of a class or a volume, in the language of `pathPattern`.
//!
//! csi-provisioner leaves them as they stand, so the volume has them as its class has: they are filled in for each pod, from the claim
//! as it is then. Where a volume lies is not among them: `subdir` is no word of whoever writes a claim.

use super::{Configuration, Origin, Settings};
use crate::object::Claim;
use crate::reason::Refusal;
use crate::template::{Piece, pieces};

/// What fills templates in.
pub(super) struct Templates<'a> {
    claim: &'a Claim,
    /// Whether one without a value refuses the pod.
    strict: bool,
}

impl<'a> Templates<'a> {
    pub(super) fn new(configuration: &Configuration, claim: &'a Claim) -> Templates<'a> {
        Templates { claim, strict: configuration.strict_templates }
    }
}

impl Settings {
    /// Sets the options of lists with commas, whose templates are filled in. A value is part of one option, whatever it says.
    pub(super) fn set_filled_options(
        &mut self,
        lists: &[String],
        templates: &Templates<'_>,
        origin: &Origin,
    ) -> Result<(), Refusal> {
        for option in lists.iter().flat_map(|list| list.split(',')).map(str::trim) {
            let has_template = ["${.pvc.", "${.PVC.", "${.node."].iter().any(|begin| option.contains(begin));
            if !has_template || option.starts_with("subdir=") {
                self.set_options([option].into_iter(), origin)?;
                continue;
            }
            let refuse = |why: String| {
                let (origin, field) = (origin.to_string(), "mountOptions".to_string());
                Refusal::Setting { origin, field, value: option.to_string(), why }
            };
            let filled = self.filled(option, templates).map_err(refuse)?;
            self.set_options([filled.as_str()].into_iter(), origin)?;
        }
        Ok(())
    }

    fn filled(&mut self, option: &str, templates: &Templates<'_>) -> Result<String, String> {
        if option.split('=').next().is_some_and(|name| name.contains('$')) {
            return Err("an option has no template in its name: a claim would choose among all options".into());
        }
        let mut filled = String::new();
        for piece in pieces(option, Some(templates.claim))? {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Value(value) if value.contains(',') => {
                    return Err(format!("a value in it is `{value}`, whose comma would start another option"));
                }
                Piece::Value(value) => filled.push_str(value),
                Piece::Missing(why) if templates.strict => return Err(why),
                Piece::Missing(why) => {
                    let note = format!("the mount option `{option}` has an empty text in it: {why}");
                    // A volume has the options of its class.
                    if !self.notes.contains(&note) {
                        self.notes.push(note);
                    }
                }
            }
        }
        Ok(filled)
    }
}
