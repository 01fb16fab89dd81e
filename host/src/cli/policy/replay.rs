//! `pith policy replay`: what a module answers now to the questions of a decision log.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use pith_policy_sdk::cases::{self as table, Case};
use serde_json::{Value, json};

use super::{grants, limits, load};
use crate::args::{PolicyReplay, TextOutput};
use crate::cli::print;
use crate::policy::cases::{self, Tried};

/// A question that was asked once, and what was answered.
struct Asked {
    policy: String,
    case: Case,
    answered: Value,
}

/// Asks every question of the log again, and prints what is answered otherwise.
pub fn replay(args: &PolicyReplay) -> Result<ExitCode> {
    let settings = args.settings.as_deref().map(read_settings).transpose()?;
    let name = args.decisions.display();
    let lines: Box<dyn BufRead> = match args.decisions == Path::new("-") {
        true => Box::new(stdin().lock()),
        false => Box::new(BufReader::new(File::open(&args.decisions).with_context(|| format!("opening {name}"))?)),
    };
    let mut asked = Vec::new();
    for (number, line) in lines.lines().enumerate() {
        let place = || format!("{name}, line {}", number + 1);
        let record: Value = serde_json::from_str(&line.with_context(place)?).with_context(place)?;
        asked.extend(questions(&record, args.policy.as_deref(), settings.as_ref()).with_context(place)?);
    }
    let policies: BTreeSet<&str> = asked.iter().map(|it| &*it.policy).collect();
    ensure!(
        policies.len() <= 1,
        "{name} has the questions of several policies: say with --policy of which one ({})",
        policies.into_iter().collect::<Vec<_>>().join(", ")
    );
    if asked.is_empty() {
        let of = args.policy.as_ref().map(|policy| format!(" to `{policy}`")).unwrap_or_default();
        bail!("{name} has no question{of}: questions are in it with `decisions.capture`");
    }
    let limits = limits(&args.limits)?;
    let module = load(&super::engine()?, &args.file, &grants(&args.limits))?;
    let tried: Vec<Tried> = asked.into_iter().map(|it| cases::replay(&module, limits, &it.case, it.answered)).collect();
    let differ: Vec<&Tried> = tried.iter().filter(|it| !it.passed()).collect();
    match args.output {
        TextOutput::Text => {
            let lines: String = differ.iter().map(|it| it.difference()).collect();
            print(&format!("{lines}{} questions, {} answered otherwise\n", tried.len(), differ.len()))?;
        }
        TextOutput::Json => {
            let differ: Vec<Value> = differ.iter().map(|it| it.describe()).collect();
            let digest = format!("sha256:{}", module.digest());
            let report = json!({"digest": digest, "questions": tried.len(), "otherwise": differ});
            print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
        }
    }
    Ok(if differ.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn read_settings(path: &Path) -> Result<Value> {
    let place = || format!("reading the settings {}", path.display());
    let settings: Value =
        yaml_serde::from_str(&std::fs::read_to_string(path).with_context(place)?).with_context(place)?;
    ensure!(settings.is_object(), "the settings {} are not a map", path.display());
    Ok(settings)
}

/// The questions in a line of the log, to this policy or to all.
fn questions(record: &Value, policy: Option<&str>, settings: Option<&Value>) -> Result<Vec<Asked>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let mut found = Vec::new();
    for call in record["policies"].as_array().context("it is no line of a decision log: it has no `policies`")? {
        let name = text(&call["policy"]);
        let mut case = call["case"].clone();
        if case.is_null() || policy.is_some_and(|wanted| wanted != name) {
            continue;
        }
        let about = format!("{} {}/{}", text(&record["kind"]), text(&record["namespace"]), text(&record["name"]));
        case["name"] = about.into();
        if let Some(settings) = settings {
            case["settings"] = settings.clone();
        }
        // A failure is no answer that a table can have; what is compared is what was recorded.
        let answered = std::mem::replace(&mut case["expect"], json!({"error": ""}));
        // A table may be JSON, too.
        let cases = table::parse(&Value::from(vec![case]).to_string());
        for case in cases.map_err(|error| anyhow!("its question to `{name}` cannot be read: {error}"))? {
            found.push(Asked { policy: name.clone(), case, answered: answered.clone() });
        }
    }
    Ok(found)
}
