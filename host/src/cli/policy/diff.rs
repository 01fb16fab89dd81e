//! `pith policy diff`: what another configuration, or the same with its watched policies put to use, would decide otherwise.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use pith_core::admission::{self, Context};
use pith_core::binding::Mode;
use pith_core::comparison;
use pith_core::monitor::Difference;
use pith_core::object::Entries;
use pith_core::template::Templates;
use pith_core::volume::{self, Asked, NamingContext, Place, VolumeRefusal};
use pith_core::workload::Workload;
use serde_json::{Value, json};

use crate::args::{Overrides, PolicyDiff, TextOutput};
use crate::cli::subjects::Name;
use crate::cli::{print, subjects};
use crate::config::Config;
use crate::config::file::{Log, LogFormat};
use crate::policy::{Moment, Policies};
use crate::telemetry;

/// The most time for one object.
const TIME: Duration = Duration::from_secs(10);

/// What decides.
struct Side {
    config: Config,
    policies: Policies,
}

/// One object, and what of it would be another.
struct Compared {
    name: Name,
    /// Each with the claim that it is about.
    differences: Vec<(Option<String>, Difference)>,
}

/// Compares what both sides decide of each pod, workload and claim; other objects are left out.
pub fn diff(args: &PolicyDiff) -> Result<ExitCode> {
    let mut config = Config::load_or_built_in(args.subjects.config.as_deref())?;
    telemetry::start(&Log { format: LogFormat::Text, filter: "warn".into() })?;
    config.warn();
    let modules = subjects::add_bindings_where_it_runs(&mut config, &args.subjects)?;
    let (other, other_modules) = match &args.to {
        Some(path) => {
            let mut other = Config::load(path, &Overrides::default())?;
            let modules = subjects::add_bindings_where_it_runs(&mut other, &args.subjects)?;
            (other, Some(modules))
        }
        None => (enforced(config.clone()), None),
    };
    let (objects, documents) = subjects::read(&args.subjects, &config, subjects::Kinds::PodsAndClaims)?;
    let before = Side { policies: subjects::policies(&config, &modules)?, config };
    let modules = other_modules.as_ref().unwrap_or(&modules);
    let after = Side { policies: subjects::policies(&other, modules)?, config: other };
    let moment = Moment { objects: &objects, time: args.now.unwrap_or_else(SystemTime::now) };
    let compared = documents
        .iter()
        .filter_map(|document| one(&before, &after, moment, &args.subjects.namespace, document).transpose());
    let compared: Vec<Compared> = compared.collect::<Result<_>>()?;
    let changed = compared.iter().filter(|it| !it.differences.is_empty()).count();
    match args.output {
        TextOutput::Text => {
            let lines: String = compared.iter().map(text).collect();
            print(&format!("{lines}{} objects, {changed} would be decided otherwise\n", compared.len()))?;
        }
        TextOutput::Json => {
            let rows: Vec<Value> = compared.iter().map(describe).collect();
            print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
        }
    }
    Ok(if changed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn enforced(mut config: Config) -> Config {
    for policy in &mut config.policies {
        policy.binding.mode = Mode::Enforce;
    }
    config
}

fn one(
    before: &Side,
    after: &Side,
    moment: Moment<'_>,
    default: &str,
    (place, object): &(PathBuf, Value),
) -> Result<Option<Compared>> {
    let name = Name::of(object, default);
    let of_pod = |pod: &Value| {
        let decide = |side: &Side| {
            let (configuration, bindings) = (&side.config.sidecars, &*side.policies.bindings);
            let context = Context { configuration, bindings, objects: moment.objects, request: "" };
            let evaluator = side.policies.evaluator(Instant::now() + TIME, moment);
            admission::decide(&context, &name.namespace, pod, &evaluator)
        };
        comparison::between(&decide(before), &decide(after))
    };
    let differences = match Workload::read(object) {
        Some(workload) => of_pod(&workload.pod()),
        None if name.kind == "Pod" => of_pod(object),
        None if name.kind == "PersistentVolumeClaim" => {
            let of_side = |side: &Side| of_claim(side, moment, &name.namespace, place, object);
            match (of_side(before)?, of_side(after)?) {
                (Some(before), Some(after)) => {
                    comparison::between_places(&before, &after).into_iter().map(|it| (None, it)).collect()
                }
                _ => return Ok(None),
            }
        }
        None => return Ok(None),
    };
    Ok(Some(Compared { name, differences }))
}

/// Where the volume of a claim would lie if it were made now; nothing where it is for another driver.
fn of_claim(
    side: &Side,
    moment: Moment<'_>,
    namespace: &str,
    place: &Path,
    object: &Value,
) -> Result<Option<Result<Place, VolumeRefusal>>> {
    let Some(claim) = subjects::claim(object, place)? else { return Ok(None) };
    let objects = moment.objects;
    let class = match &claim.storage_class {
        Some(class) => objects.storage_class(class),
        None => objects.default_storage_class(),
    };
    let Some(class) = class.filter(|class| class.provisioner == side.config.sidecars.driver) else {
        return Ok(None);
    };
    // As csi-provisioner calls it.
    let name = claim.volume_name.clone().unwrap_or_else(|| format!("pvc-{}", claim.uid));
    let asked = Asked {
        name: name.clone(),
        required_bytes: claim.requested_bytes,
        limit_bytes: None,
        capabilities: Vec::new(),
        parameters: Entries::clone(&class.parameters),
        mutable_parameters: Entries::default(),
        source: None,
    };
    let context = NamingContext { claim, namespace: subjects::namespace(objects, namespace), object, origin: None };
    let strict = side.config.csi.as_ref().is_some_and(|csi| csi.strict_templates);
    let templates = if strict { Templates::Strict } else { Templates::Lenient };
    let evaluator = side.policies.evaluator(Instant::now() + TIME, moment);
    Ok(Some(volume::place(&asked, &name, Some(&context), templates, &side.policies.bindings, &evaluator)))
}

fn text(it: &Compared) -> String {
    let Name { kind, namespace, name } = &it.name;
    if it.differences.is_empty() {
        return String::new();
    }
    let mut text = format!("{namespace}/{name} ({kind})\n");
    for (claim, difference) in &it.differences {
        let claim = claim.as_ref().map(|claim| format!("claim {claim}  ")).unwrap_or_default();
        let _ = writeln!(text, "  {claim}{difference}");
    }
    text
}

fn describe(it: &Compared) -> Value {
    let Name { kind, namespace, name } = &it.name;
    // The sentence leaves out the values of variables.
    let differences = it.differences.iter().map(
        |(claim, difference)| json!({"claim": claim, "field": difference.field, "difference": difference.to_string()}),
    );
    json!({"kind": kind, "namespace": namespace, "name": name, "differences": differences.collect::<Vec<_>>()})
}
