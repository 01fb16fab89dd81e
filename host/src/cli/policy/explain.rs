//! `pith policy explain`: which bindings are asked about an object, and why the others are not.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use pith_core::admission::{self, Context, Meeting};
use pith_core::binding::{Binding, Miss, Mode};
use pith_core::object::{Claim, Namespace};
use pith_core::policy::Hook;
use pith_core::workload::Workload;
use serde_json::{Value, json};

use crate::args::{PolicyExplain, TextOutput};
use crate::cli::inject::message;
use crate::cli::subjects::Name;
use crate::cli::volumes::columns;
use crate::cli::{print, subjects};
use crate::config::Config;
use crate::config::file::{Log, LogFormat};
use crate::telemetry;

/// One object, and the questions about it.
struct Explained<'a> {
    kind: String,
    namespace: String,
    name: String,
    /// The questions, or what is decided without any.
    meetings: Result<Vec<Meeting<'a>>, String>,
}

/// Explains every pod, workload and claim of the input; other objects are left out.
pub fn explain(args: &PolicyExplain) -> Result<()> {
    let mut config = Config::load_or_built_in(args.subjects.config.as_deref())?;
    telemetry::start(&Log { format: LogFormat::Text, filter: "warn".into() })?;
    config.warn();
    // A module says itself which hooks it has.
    let modules = subjects::add_bindings_where_it_runs(&mut config, &args.subjects)?;
    let policies = subjects::policies(&config, &modules)?;
    let (objects, documents) = subjects::read(&args.subjects, &config, subjects::Kinds::PodsAndClaims)?;
    let context =
        Context { configuration: &config.sidecars, bindings: &policies.bindings, objects: &objects, request: "" };
    let explained =
        documents.iter().filter_map(|document| one(&context, &args.subjects.namespace, document).transpose());
    let explained: Vec<Explained<'_>> = explained.collect::<Result<_>>()?;
    match args.output {
        TextOutput::Text => print(&explained.iter().map(text).collect::<Vec<_>>().join("\n"))?,
        TextOutput::Json => {
            let rows: Vec<Value> = explained.iter().map(describe).collect();
            print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
        }
    }
    Ok(())
}

fn one<'a>(context: &Context<'a>, default: &str, (place, object): &(PathBuf, Value)) -> Result<Option<Explained<'a>>> {
    let Name { kind, namespace, name } = Name::of(object, default);
    let meetings = match (Workload::read(object), object["kind"].as_str()) {
        (Some(workload), _) => of_pod(context, &namespace, &workload.pod()),
        (None, Some("Pod")) => of_pod(context, &namespace, object),
        (None, Some("PersistentVolumeClaim")) => Ok(of_claim(context, &namespace, place, object)?),
        _ => return Ok(None),
    };
    Ok(Some(Explained { kind, namespace, name, meetings }))
}

fn of_pod<'a>(context: &Context<'a>, namespace: &str, pod: &Value) -> Result<Vec<Meeting<'a>>, String> {
    admission::meetings(context, namespace, pod).map_err(|verdict| message(&verdict))
}

/// The questions about the volume that a claim is to get.
fn of_claim<'a>(context: &Context<'a>, namespace: &str, place: &Path, object: &Value) -> Result<Vec<Meeting<'a>>> {
    let Some(claim) = subjects::claim(object, place)? else { return Ok(Vec::new()) };
    let namespace = subjects::namespace(context.objects, namespace);
    let questions = context.bindings.iter().flat_map(|binding| {
        [Hook::Naming, Hook::Quota]
            .into_iter()
            .filter(|hook| binding.hooks.contains(hook))
            .map(move |hook| (binding, hook))
    });
    Ok(questions.map(|(binding, hook)| meeting(binding, hook, &claim, &namespace)).collect())
}

fn meeting<'a>(binding: &'a Binding, hook: Hook, claim: &Claim, namespace: &Namespace) -> Meeting<'a> {
    Meeting { binding, hook, claim: Some(claim.name.clone()), miss: binding.meets_claim(claim, namespace).err() }
}

fn text(it: &Explained<'_>) -> String {
    let mut out = format!("{}/{} ({})\n", it.namespace, it.name, it.kind);
    let meetings = match &it.meetings {
        Ok(meetings) if meetings.is_empty() => return out + "  there is no binding for it\n",
        Ok(meetings) => meetings,
        Err(sentence) => return out + "  no binding is asked: " + sentence + "\n",
    };
    let head = ["BINDING", "HOOK", "CLAIM", "ASKED"].map(String::from);
    let rows = meetings.iter().map(|it| {
        let asked = match (&it.miss, it.binding.mode) {
            (Some(Miss::Unknown(failure)), _) => format!("no, it fails: {failure}"),
            (Some(miss), _) => format!("no: {miss}"),
            (None, Mode::Enforce) => "yes".into(),
            (None, Mode::Monitor) => "yes, and its answer has no effect (mode: monitor)".into(),
        };
        [it.binding.name.clone(), it.hook.as_str().into(), it.claim.clone().unwrap_or_else(|| "-".into()), asked]
    });
    let table = columns(&[head].into_iter().chain(rows).collect::<Vec<_>>());
    for line in table.lines() {
        let _ = writeln!(out, "  {line}");
    }
    out
}

fn describe(it: &Explained<'_>) -> Value {
    let meetings = it.meetings.iter().flatten().map(|it| {
        json!({
            "binding": it.binding.name,
            "priority": it.binding.priority,
            "mode": match it.binding.mode { Mode::Enforce => "enforce", Mode::Monitor => "monitor" },
            "hook": it.hook.as_str(),
            "claim": it.claim,
            "asked": it.miss.is_none(),
            "why": it.miss.as_ref().map(ToString::to_string),
        })
    });
    json!({
        "kind": it.kind,
        "namespace": it.namespace,
        "name": it.name,
        "decided": it.meetings.as_ref().err(),
        "bindings": meetings.collect::<Vec<_>>(),
    })
}
