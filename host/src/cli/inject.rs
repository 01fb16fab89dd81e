//! `pith inject`: the webhook's decision on pods and workloads from files, or on pods that run.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use pith_core::admission::{self, Context, Decision, Verdict};
use pith_core::catalogue::Code;
use pith_core::monitor::Monitored;
use pith_core::workload::Workload;
use serde_json::{Value, json};
use similar::TextDiff;

use super::subjects;
use crate::args::{Inject, InjectOutput};
use crate::config::Config;
use crate::config::file::{Log, LogFormat};
use crate::policy::{Call, Moment};
use crate::telemetry;
use crate::webhook::outcome;

/// The most time for one pod: that of a webhook whose configuration says nothing else.
const TIME: Duration = Duration::from_secs(10);

/// One object of the input, in its order.
enum Item {
    /// A pod, or something that has a template of one.
    Injected(Box<Injected>),
    /// What has no pods: it is printed as it came, so that the output can be applied in the place of the input.
    Other(Value),
    /// A Secret, which is not: output ends up in logs.
    Secret,
}

/// One pod or workload, and what was decided about its pod.
struct Injected {
    /// As in `Deployment`.
    kind: String,
    namespace: String,
    name: String,
    before: Value,
    after: Value,
    decision: Decision,
    calls: Vec<Call>,
}

/// Injects and prints. The exit code is 1 if a pod was refused or a policy failed.
pub fn run(args: &Inject) -> Result<ExitCode> {
    let mut config = Config::load_or_built_in(args.subjects.config.as_deref())?;
    // What policies log belongs to a look at their decision; how they were loaded does not.
    telemetry::start(&Log { format: LogFormat::Text, filter: "warn,policy=info".into() })?;
    config.warn();
    let modules = subjects::add_bindings_where_it_runs(&mut config, &args.subjects)?;
    let policies = subjects::policies(&config, &modules)?;
    let (objects, documents) = subjects::read(&args.subjects, &config, subjects::Kinds::Pods)?;
    let context =
        Context { configuration: &config.sidecars, bindings: &policies.bindings, objects: &objects, request: "" };

    let moment = Moment { objects: &objects, time: args.now.unwrap_or_else(SystemTime::now) };
    let decide = |namespace: &str, pod: &Value| {
        let evaluator = policies.evaluator(Instant::now() + TIME, moment);
        (admission::decide(&context, namespace, pod, &evaluator), evaluator.into_calls())
    };
    let items = documents.into_iter().map(|(place, it)| inject(&decide, &args.subjects.namespace, it, &place));
    let mut items: Vec<Item> = items.collect::<Result<_>>()?;
    if args.subjects.filename.is_none() {
        for it in &mut items {
            if let Item::Injected(it) = it {
                subjects::fill_in(&mut it.after, &it.before);
            }
        }
    }
    print(args, &items)?;
    let refused = |it: &Item| match it {
        Item::Injected(it) => matches!(it.decision.verdict, Verdict::Refuse(_) | Verdict::Fail(_)),
        Item::Other(_) | Item::Secret => false,
    };
    Ok(if items.iter().any(refused) { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// How a pod of a namespace is decided about, with what policies were asked for it.
type Decide<'a> = dyn Fn(&str, &Value) -> (Decision, Vec<Call>) + 'a;

fn inject(decide: &Decide<'_>, default: &str, object: Value, place: &Path) -> Result<Item> {
    let workload = Workload::read(&object);
    let pod = match workload {
        Some(workload) => workload.pod(),
        None if object["kind"] == "Pod" => object.clone(),
        None if object["kind"] == "Secret" => {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            eprintln!("{}: the Secret `{name}` is not printed: apply it from where it came", place.display());
            return Ok(Item::Secret);
        }
        None => return Ok(Item::Other(object)),
    };
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or(default).to_string();
    let name = metadata["name"].as_str().or_else(|| metadata["generateName"].as_str()).unwrap_or_default().to_string();
    let (mut decision, calls) = decide(&namespace, &pod);
    let mut after = pod;
    json_patch::patch(&mut after, decision.verdict.patch())
        .with_context(|| format!("patching the pod `{name}` of {}", place.display()))?;
    if let Some(workload) = workload {
        after = workload.with(&after);
        decision.warnings.extend(workload.claim_templates().map(|template| {
            format!(
                "each pod has a claim of its own from the volumeClaimTemplate `{template}`: that is left to the webhook"
            )
        }));
    }
    let kind = object["kind"].as_str().unwrap_or_default().to_string();
    Ok(Item::Injected(Box::new(Injected { kind, namespace, name, before: object, after, decision, calls })))
}

fn print(args: &Inject, items: &[Item]) -> Result<()> {
    let mut out = String::new();
    match args.output {
        InjectOutput::Json if args.explain => {
            let injected = items.iter().filter_map(|it| match it {
                Item::Injected(it) => Some(explain_json(it)),
                Item::Other(_) | Item::Secret => None,
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&injected.collect::<Vec<Value>>())?)?;
        }
        InjectOutput::Json => {
            let objects = items.iter().filter_map(|it| match it {
                Item::Injected(it) => Some(&it.after),
                Item::Other(object) => Some(object),
                Item::Secret => None,
            });
            let list = json!({"apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<&Value>>()});
            writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
        }
        InjectOutput::Yaml | InjectOutput::Diff => {
            for it in items {
                match it {
                    Item::Injected(it) => print_text(args, it, &mut out)?,
                    Item::Other(object) if args.output == InjectOutput::Yaml => {
                        write!(out, "---\n{}", yaml_serde::to_string(object)?)?;
                    }
                    Item::Other(_) | Item::Secret => {}
                }
            }
        }
    }
    Ok(super::print(&out)?)
}

impl Injected {
    /// How people are told which one is meant: `shop/web`, and of what kind unless it is a pod.
    fn title(&self) -> String {
        match self.kind.as_str() {
            "Pod" => format!("{}/{}", self.namespace, self.name),
            kind => format!("{}/{} ({kind})", self.namespace, self.name),
        }
    }
}

fn print_text(args: &Inject, it: &Injected, out: &mut String) -> Result<()> {
    let (before, after) = (yaml_serde::to_string(&it.before)?, yaml_serde::to_string(&it.after)?);
    if args.output == InjectOutput::Diff {
        let name = it.title();
        write!(
            out,
            "{}",
            TextDiff::from_lines(&before, &after).unified_diff().header(&name, &format!("{name} (injected)"))
        )?;
    } else {
        write!(out, "---\n{after}")?;
    }
    // Comments keep the YAML usable, whatever is asked for beside it.
    if args.explain {
        for line in explain_text(it) {
            writeln!(out, "# {line}")?;
        }
    } else {
        if !matches!(it.decision.verdict, Verdict::Inject(_)) {
            eprintln!("{}: {}", it.title(), message(&it.decision.verdict));
        }
        it.decision.warnings.iter().for_each(|warning| eprintln!("{}: warning: {warning}", it.title()));
    }
    Ok(())
}

/// What was decided, in a sentence.
pub(super) fn message(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Skip { why, .. } => format!("skipped: {}", why.code().behind(why.sentence())),
        Verdict::Refuse(refusal) => format!("refused: {}", refusal.code().behind(refusal)),
        Verdict::Fail(failure) => format!("failed: {}", failure.code().behind(failure)),
        Verdict::Inject(patch) if patch.is_empty() => "already injected".into(),
        Verdict::Inject(_) => "injected".into(),
    }
}

fn explain_text(it: &Injected) -> Vec<String> {
    let mut lines = vec![format!("{}: {}", it.title(), message(&it.decision.verdict))];
    if let Some(code) = it.decision.verdict.code() {
        lines.push(format!("what to do: {}", code.entry().action));
        lines.push(format!("more: {}", code.page()));
    }
    lines.extend(it.decision.warnings.iter().map(|warning| format!("warning: {warning}")));
    for sidecar in &it.decision.explanations {
        lines.push(format!("{} for volume {} (claim {}):", sidecar.container, sidecar.volume, sidecar.claim));
        let rows = sidecar.settings.explain();
        let width = |column: fn(&(String, String, String)) -> usize| rows.iter().map(column).max().unwrap_or(0);
        let (fields, values) = (width(|row| row.0.chars().count()), width(|row| row.1.chars().count()));
        lines.extend(
            rows.iter().map(|(field, value, origin)| format!("  {field:<fields$}  {value:<values$}  from {origin}")),
        );
    }
    lines.extend(it.decision.monitored.iter().flat_map(monitored));
    lines.extend(it.calls.iter().map(|call| {
        format!("policy {} ({}): {} in {} µs", call.binding, call.hook.as_str(), call.outcome, call.took.as_micros())
    }));
    lines
}

/// What would be if a binding in monitor mode were enforced.
fn monitored(it: &Monitored) -> Vec<String> {
    let claim = it.claim.as_ref().map(|claim| format!(", claim {claim}")).unwrap_or_default();
    let head = format!("if {} were enforced ({}{claim})", it.binding, it.hook.as_str());
    match &it.outcome {
        Ok(differences) if differences.is_empty() => vec![format!("{head}: the same")],
        Ok(differences) => differences.iter().map(|difference| format!("{head}: {difference}")).collect(),
        Err(failure) => vec![format!("{head}: it failed: {failure}")],
    }
}

fn monitored_json(it: &Monitored) -> Value {
    let differences = it
        .outcome
        .iter()
        .flatten()
        .map(|it| json!({"field": it.field, "enforced": it.enforced, "monitored": it.monitored}));
    json!({
        "binding": it.binding,
        "hook": it.hook.as_str(),
        "claim": it.claim,
        "outcome": it.word(),
        "differences": differences.collect::<Vec<_>>(),
        "failure": it.outcome.as_ref().err().map(ToString::to_string),
    })
}

fn explain_json(it: &Injected) -> Value {
    let reason = it.decision.verdict.code();
    let sidecars = it.decision.explanations.iter().map(|sidecar| {
        let values = sidecar.settings.explain().into_iter();
        json!({
            "volume": sidecar.volume,
            "claim": sidecar.claim,
            "container": sidecar.container,
            "values": values.map(|(field, value, origin)| json!({"field": field, "value": value, "origin": origin}))
                .collect::<Vec<_>>(),
        })
    });
    let calls = it.calls.iter().map(|call| {
        let micros = u64::try_from(call.took.as_micros()).unwrap_or(u64::MAX);
        json!({"binding": call.binding, "hook": call.hook.as_str(), "outcome": call.outcome, "micros": micros})
    });
    json!({
        "kind": it.kind,
        "namespace": it.namespace,
        "name": it.name,
        "outcome": outcome(&it.decision),
        "reason": reason.map_or("", Code::as_str),
        "message": message(&it.decision.verdict),
        "action": reason.map(|code| code.entry().action),
        "page": reason.map(Code::page),
        "patch": it.decision.verdict.patch(),
        "volumes": sidecars.collect::<Vec<_>>(),
        "policies": calls.collect::<Vec<_>>(),
        "monitored": it.decision.monitored.iter().map(monitored_json).collect::<Vec<_>>(),
        "warnings": it.decision.warnings,
    })
}
