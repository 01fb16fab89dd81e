//! What differs between two decisions about the same object, field by field.

use std::collections::BTreeMap;

use crate::admission::{Decision, Verdict};
use crate::monitor::{Difference, Fields, differences, of_directory, of_quota, of_settings};
use crate::volume::{Place, VolumeRefusal};

/// What differs between two decisions about the same pod: by claim, and for no claim the verdict.
pub fn between(before: &Decision, after: &Decision) -> Vec<(Option<String>, Difference)> {
    let verdict = |it: &Decision| -> Fields {
        let words = match &it.verdict {
            Verdict::Skip { why, .. } => format!("skip: {}", why.sentence()),
            Verdict::Inject(_) => "inject".into(),
            Verdict::Refuse(refusal) => format!("deny: {refusal}"),
            Verdict::Fail(failure) => format!("fail: {failure}"),
        };
        vec![("verdict".into(), words)]
    };
    let sidecars = |it: &Decision| -> BTreeMap<String, Fields> {
        it.explanations.iter().map(|it| (it.claim.clone(), of_settings(&it.settings))).collect()
    };
    let (was, is) = (sidecars(before), sidecars(after));
    let of_verdict = differences(&verdict(before), &verdict(after)).into_iter().map(|it| (None, it));
    // A claim that has no sidecar on one side has the verdict to say so.
    let of_claims = was.iter().filter_map(|(claim, was)| Some((claim, differences(was, is.get(claim)?))));
    of_verdict.chain(of_claims.flat_map(|(claim, list)| list.into_iter().map(|it| (Some(claim.clone()), it)))).collect()
}

/// What differs between two decisions about where the same new volume is to lie.
pub fn between_places(before: &Result<Place, VolumeRefusal>, after: &Result<Place, VolumeRefusal>) -> Vec<Difference> {
    let fields = |it: &Result<Place, VolumeRefusal>| match it {
        Ok(place) => [of_directory(&place.directory, place.shared), of_quota(place.quota)].concat(),
        Err(refusal) => vec![("verdict".into(), format!("deny: {refusal}"))],
    };
    differences(&fields(before), &fields(after))
}
