//! Where a new volume lies: the naming policies, else the class's `pathPattern`, else the volume's id, all below
//! `subdir`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::directory::{split, trim};
use super::{Asked, Directory, PathProblem, SizeProblem, quota};
use crate::binding::{self, Binding, Evaluate, Mode};
use crate::monitor::{self, Monitored};
use crate::object::{Claim, Namespace, PersistentVolume};
use crate::policy::{Failure, Hook, Naming, NamingRequest, Origin, Quota, QuotaRequest};
use crate::reason::PolicyFailure;
use crate::template::{self, EXTRA_METADATA, Piece, Templates};

const PATH_PATTERN: &str = "pathPattern";

/// The attribute that says where below `subdir` a volume lies. It is made here and nowhere else.
pub(super) const SUB_PATH: &str = "subPath";

/// The claim that a volume is made for.
#[derive(Debug, Clone)]
pub struct NamingContext<'a> {
    /// The claim.
    pub claim: Arc<Claim>,
    /// Its namespace.
    pub namespace: Arc<Namespace>,
    /// The raw claim, for policies that ask for it.
    pub object: &'a Value,
    /// What the volume starts with.
    pub origin: Option<Origin>,
}

/// Where a volume lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its directory, from the root of the file system.
    pub directory: Directory,
    /// True if other volumes may have the same directory.
    pub shared: bool,
    /// Who named it.
    pub named_by: NamedBy,
    /// Whether its size is enforced, where a policy says so.
    pub quota: Option<Quota>,
    /// What people should know about how it came to be.
    pub warnings: Vec<String>,
    /// What is to be said on the claim: what of it a template asked for in vain.
    pub notes: Vec<String>,
    /// What policies in monitor mode would have decided.
    pub monitored: Vec<Monitored>,
}

/// Who named a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum NamedBy {
    /// A policy, by its binding.
    Policy(String),
    /// The parameter `pathPattern`.
    PathPattern,
    /// The volume's own id.
    VolumeName,
    /// The PersistentVolume of a volume that another provisioner has made: it was adopted.
    PersistentVolume,
}

/// Why a volume is not made. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeRefusal {
    /// What names the directory names none that a volume can have.
    #[error("{origin} cannot name the volume's directory: {problem}")]
    Path {
        /// What names it.
        origin: String,
        /// The rule that it breaks.
        problem: PathProblem,
    },
    /// A policy refuses the volume.
    #[error("policy `{binding}` refuses the volume: {sentence}")]
    Denied {
        /// The binding.
        binding: String,
        /// The policy's sentence.
        sentence: String,
    },
    /// A policy failed, and its binding says that the request fails with it. The one refusal that asks for a retry.
    #[error(transparent)]
    PolicyFailed(#[from] PolicyFailure),
    /// The `pathPattern` cannot be filled in.
    #[error("{PATH_PATTERN} `{pattern}` cannot be filled in: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The reason.
        why: String,
    },
    /// The mount options do not say where volumes lie.
    #[error("the mount option `subdir` is not usable: {0}")]
    Subdir(String),
    /// A parameter has a value that it cannot have.
    #[error("the parameter {name} is `{value}`: {rule}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        rule: &'static str,
    },
    /// A parameter that is to be changed is none that can be.
    #[error(
        "the parameter `{0}` cannot be changed: `inodes`, `onDelete` and `trashDays` can, and a volume grows by the size of its claim"
    )]
    Immutable(String),
    /// The size that is asked cannot be given.
    #[error(transparent)]
    Size(#[from] SizeProblem),
}

impl VolumeRefusal {
    /// The stable word.
    pub fn code(&self) -> &'static str {
        match self {
            VolumeRefusal::Path { .. } => "invalid-path",
            VolumeRefusal::Denied { .. } => "denied-by-policy",
            VolumeRefusal::PolicyFailed(_) => "policy-failed",
            VolumeRefusal::Pattern { .. } => "path-pattern",
            VolumeRefusal::Subdir(_) => "invalid-subdir",
            VolumeRefusal::Parameter { .. } | VolumeRefusal::Immutable(_) => "invalid-parameter",
            VolumeRefusal::Size(_) => "size",
        }
    }
}

/// Finds the place of a new volume, and asks policies about both. Its directory is that of the first policy that names one, else what `pathPattern`
/// gives, else the id.
///
/// The mount option `subdir`, in the mount flags or in the parameter `mountOptions`, is the root of all of them:
/// nothing here leads out of it. A directory of `pathPattern` may be had by several volumes, as with the JuiceFS
/// driver.
///
/// Policies are asked only where the claim is known: they decide by its names and labels. Without one (the caller of
/// CreateVolume sent no `csi.storage.k8s.io/pvc/…`) none is asked, also none that is bound to the class alone, and
/// where there are naming policies a warning says so.
pub fn place(
    asked: &Asked,
    id: &str,
    naming: Option<&NamingContext<'_>>,
    templates: Templates,
    bindings: &[Binding],
    policies: &dyn Evaluate,
) -> Result<Place, VolumeRefusal> {
    let prefix = prefix(asked)?;
    let (mut warnings, mut notes) = (Vec::new(), Vec::new());
    if asked.parameters.contains_key(SUB_PATH) {
        warnings.push(format!("the parameter {SUB_PATH} has no effect: each volume has its own"));
    }
    let request = naming.map(|context| request(asked, context));
    let mut answers = Vec::new();
    let named = match naming.zip(request.as_ref()) {
        Some((context, request)) => {
            by_policy(request, &prefix, context, bindings, policies, (&mut warnings, &mut answers))?
        }
        None => {
            for hook in [Hook::Naming, Hook::Quota] {
                if bindings.iter().any(|binding| binding.hooks.contains(&hook)) {
                    let (hook, why) = (hook.as_str(), "because the caller names no claim");
                    warnings.push(format!("no {hook} policy was asked, {why}: {EXTRA_METADATA}"));
                }
            }
            None
        }
    };
    let (directory, shared, named_by) = match named {
        Some(named) => named,
        None => by_default(asked, &prefix, id, naming.map(|context| &*context.claim), templates, &mut notes)?,
    };
    let enforced = monitor::of_directory(&directory, shared);
    let mut monitored: Vec<Monitored> = (answers.into_iter())
        .map(|(binding, answer)| {
            let fields = answer.map(|answer| match answer {
                Answer::Pass => None,
                Answer::Directory(directory, shared) => Some(monitor::of_directory(&directory, shared)),
                Answer::Deny(sentence) => Some(monitor::of_denial(&sentence)),
            });
            Monitored::of(binding, Hook::Naming, None, &enforced, fields)
        })
        .collect();
    let quota = match naming.zip(request) {
        Some((context, volume)) => {
            let request = QuotaRequest { volume, directory: directory.components().to_vec(), shared };
            quota::by_policy(&request, context, bindings, policies, (&mut warnings, &mut monitored))?
        }
        None => None,
    };
    Ok(Place { directory, shared, named_by, quota, warnings, notes, monitored })
}

/// A directory, whether it is shared, and who named it.
type Named = (Directory, bool, NamedBy);

fn by_default(
    asked: &Asked,
    prefix: &[String],
    id: &str,
    claim: Option<&Claim>,
    templates: Templates,
    notes: &mut Vec<String>,
) -> Result<Named, VolumeRefusal> {
    let refuse = |origin| move |problem| VolumeRefusal::Path { origin, problem };
    let Some(pattern) = asked.parameters.get(PATH_PATTERN).filter(|pattern| !pattern.is_empty()) else {
        let directory = below(prefix, vec![id.to_string()]).map_err(refuse(format!("the id `{id}`")))?;
        return Ok((directory, false, NamedBy::VolumeName));
    };
    let components = fill_in(pattern, claim, templates, notes)
        .map_err(|why| VolumeRefusal::Pattern { pattern: pattern.clone(), why })?;
    let directory = below(prefix, components).map_err(refuse(format!("{PATH_PATTERN} `{pattern}`")))?;
    Ok((directory, true, NamedBy::PathPattern))
}

/// What a policy's answer comes to, once its directory is one.
enum Answer {
    Pass,
    Directory(Directory, bool),
    Deny(String),
}

/// What bindings in monitor mode have answered.
type Answers<'a> = Vec<(&'a Binding, Result<Answer, Failure>)>;

/// What policies are told of a new volume.
fn request(asked: &Asked, context: &NamingContext<'_>) -> NamingRequest {
    NamingRequest {
        volume_name: asked.name.clone(),
        required_bytes: asked.required_bytes,
        limit_bytes: asked.limit_bytes,
        claim: context.claim.clone(),
        namespace: context.namespace.clone(),
        parameters: asked.parameters.clone(),
        origin: context.origin.clone(),
    }
}

fn by_policy<'a>(
    request: &NamingRequest,
    prefix: &[String],
    context: &NamingContext<'_>,
    bindings: &'a [Binding],
    policies: &dyn Evaluate,
    (warnings, monitored): (&mut Vec<String>, &mut Answers<'a>),
) -> Result<Option<Named>, VolumeRefusal> {
    let mut named = None;
    for chosen in binding::for_volume(bindings, Hook::Naming, &context.claim, &context.namespace) {
        let binding = chosen.binding;
        if named.is_some() && binding.mode == Mode::Enforce {
            continue;
        }
        // A directory that cannot be had is the same to `onFailure` as no answer.
        let answer = chosen.ask(policies, |it| policies.name(it, request, context.object));
        let answer = answer.and_then(|naming| match naming {
            Naming::Pass => Ok(Answer::Pass),
            Naming::Deny(sentence) => Ok(Answer::Deny(sentence)),
            Naming::Directory { components, shared } => match below(prefix, components) {
                Ok(directory) => Ok(Answer::Directory(directory, shared)),
                Err(problem) => Err(Failure::Answer(format!("the directory that it names cannot be had: {problem}"))),
            },
        });
        if binding.mode == Mode::Monitor {
            monitored.push((binding, answer));
            continue;
        }
        let name = binding.name.clone();
        match binding::enforced(binding, answer, warnings)? {
            None | Some(Answer::Pass) => {}
            Some(Answer::Deny(sentence)) => return Err(VolumeRefusal::Denied { binding: name, sentence }),
            Some(Answer::Directory(directory, shared)) => {
                named = Some((directory, shared, NamedBy::Policy(name)));
            }
        }
    }
    Ok(named)
}

/// The components below a prefix. They are checked by themselves first: no name is the prefix itself, as none is the
/// root.
fn below(prefix: &[String], components: Vec<String>) -> Result<Directory, PathProblem> {
    let own = Directory::chosen(components)?;
    Directory::new([prefix, own.components()].concat())
}

/// The directory that the mount option `subdir` names, where every volume that is asked so lies; empty without one.
pub(super) fn prefix(asked: &Asked) -> Result<Vec<String>, VolumeRefusal> {
    let flags = asked.capabilities.iter().flat_map(|capability| &capability.mount_flags);
    subdir(flags.chain(asked.parameters.get("mountOptions")))
}

/// What these mount options have as `subdir`; empty without one.
///
/// Options are read as the sidecar reads them: lists with commas, the name before the first `=`.
fn subdir<'a>(lists: impl Iterator<Item = &'a String>) -> Result<Vec<String>, VolumeRefusal> {
    let mut found: Option<(&str, Vec<String>)> = None;
    for value in subdirs(lists) {
        let components = split(value);
        if value.contains("${") {
            let why = "has a template, which the volume would keep as it stands: name directories with pathPattern";
            return Err(VolumeRefusal::Subdir(format!("`{value}` {why}")));
        }
        if !components.is_empty() {
            let problem =
                |problem| VolumeRefusal::Path { origin: format!("the mount option `subdir={value}`"), problem };
            Directory::new(components.clone()).map_err(problem)?;
        }
        match &found {
            // Which of them the client would take is the client's business; where data lies must not be.
            Some((other, known)) if *known != components => {
                return Err(VolumeRefusal::Subdir(format!("it is given twice, as `{other}` and as `{value}`")));
            }
            _ => found = Some((value, components)),
        }
    }
    Ok(found.map(|(_, components)| components).unwrap_or_default())
}

/// Every value that these mount options have for `subdir`, as it is written.
pub(super) fn subdirs<'a>(lists: impl Iterator<Item = &'a String>) -> BTreeSet<&'a str> {
    lists.flat_map(|list| list.split(',')).filter_map(|option| option.trim().strip_prefix("subdir=")).collect()
}

/// Where an existing volume lies, from the root of the file system: what its attribute `subPath` says, below its mount option
/// `subdir`. Without either it is the whole file system, as with the JuiceFS driver.
pub fn whereabouts(volume: &PersistentVolume) -> Result<String, VolumeRefusal> {
    let attributes = &volume.volume_attributes;
    let options = volume.mount_options.iter().chain(attributes.get("mountOptions"));
    let mut components = subdir(options)?;
    let below = attributes.get(SUB_PATH).map(|path| split(path)).unwrap_or_default();
    if !below.is_empty() {
        let problem = |problem| VolumeRefusal::Path { origin: format!("the attribute `{SUB_PATH}`"), problem };
        Directory::new(below.clone()).map_err(problem)?;
        components.extend(below);
    }
    Ok(format!("/{}", components.join("/")))
}

/// One level of a directory that a pattern names.
#[derive(Default)]
struct Level {
    text: String,
    /// What the claim lacks for a template in it.
    missing: Option<String>,
}

/// The components of a pattern with its templates filled in. A template that has no value is empty text, as with the JuiceFS
/// driver, and a note says so.
///
/// Where the driver then leaves a level out, this refuses: a volume that is to lie in `teams/…` would become `teams`, with the
/// volumes of every team in it. And only the pattern parts levels: a value with a `/` makes a component that is refused.
fn fill_in(
    pattern: &str,
    claim: Option<&Claim>,
    templates: Templates,
    notes: &mut Vec<String>,
) -> Result<Vec<String>, String> {
    let path = trim(pattern);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let (mut levels, mut level) = (Vec::new(), Level::default());
    for piece in template::pieces(path, claim)? {
        match piece {
            Piece::Text(text) => {
                for (index, part) in text.split('/').enumerate() {
                    if index > 0 {
                        levels.push(std::mem::take(&mut level));
                    }
                    level.text.push_str(part);
                }
            }
            Piece::Value(value) => level.text.push_str(value),
            Piece::Missing(why) if templates == Templates::Strict => return Err(why),
            Piece::Missing(why) => {
                notes.push(format!("{PATH_PATTERN} `{pattern}` has an empty text in it: {why}"));
                level.missing = Some(why);
            }
        }
    }
    levels.push(level);
    let component = |level: Level| match level.missing {
        Some(why) if level.text.is_empty() => Err(format!("{why}, and a level of the directory has no other text")),
        _ => Ok(level.text),
    };
    levels.into_iter().map(component).collect()
}

#[cfg(test)]
mod tests;
