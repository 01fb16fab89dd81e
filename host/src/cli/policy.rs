//! `pith policy`: what modules are, and what they answer.

mod diff;
mod explain;
mod registry;
mod replay;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use pith_core::policy::Hook;
use pith_policy_sdk::cases as table;
use serde_json::{Value, json};

use super::print;
use crate::args::{CaseLimits, PolicyInspect, PolicyTest, TextOutput};
use crate::policy::{cases, read_module};
use crate::registry::SCHEME;
use crate::wasm::{
    self, Compiler, Engine, EngineOptions, Form, Grants, LARGEST_MEMORY_BYTES, LARGEST_MODULE_BYTES, Limits, Module,
};

pub use diff::diff;
pub use explain::explain;
pub use registry::{pull, push};
pub use replay::replay;

/// Lists digest, form, hooks and imports of modules.
pub fn inspect(args: &PolicyInspect) -> Result<()> {
    if args.host {
        return host(args.output);
    }
    let engine = engine()?;
    let mut rows = Vec::with_capacity(args.files.len());
    for file in &args.files {
        // With everything granted: to inspect a module is not to run it.
        let granted = Grants::everything();
        let (place, bytes) = match file.to_str().filter(|it| it.starts_with(SCHEME)) {
            None => (file.display().to_string(), read_module(file)?),
            Some(reference) => registry::fetch(reference, &args.from)?,
        };
        let module = engine.load(&bytes, &granted).with_context(|| format!("{place} is no policy"))?;
        rows.push((place, module, wasm::settings_schema(&bytes)));
    }
    match args.output {
        TextOutput::Json => {
            let rows: Vec<Value> = rows.iter().map(|(file, module, schema)| describe(file, module, schema)).collect();
            print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
        }
        TextOutput::Text => {
            print(&rows.iter().map(|(file, module, schema)| text(file, module, schema.as_ref())).collect::<String>())?;
        }
    }
    Ok(())
}

/// Prints what this host offers to policies.
fn host(output: TextOutput) -> Result<()> {
    let offer = wasm::offer();
    let hooks = offer.hooks.map(Hook::as_str);
    let limits = Limits::default();
    match output {
        TextOutput::Json => {
            let offer = json!({
                "package": offer.package, "hooks": hooks, "imports": offer.imports, "granted": offer.granted, "grants": Grants::everything().describe(),
                "wasi": offer.wasi, "largestModuleBytes": LARGEST_MODULE_BYTES, "largestMemoryBytes": LARGEST_MEMORY_BYTES,
                "defaultLimits": {"deadlineMilliseconds": limits.deadline.as_millis(), "memoryBytes": limits.memory_bytes},
            });
            print(&format!("{}\n", serde_json::to_string_pretty(&offer)?))?;
        }
        TextOutput::Text => print(&format!(
            "contract  {}\nhooks     {}\nimports   {}\ngranted   {}\ngrants    {}\nWASI 0.2  {}; all closed\nmodules   up to {} MiB\nmemory    {} MiB, or \
             up to {} by limits.memory\ntime      {} ms, or as limits.deadline says\n",
            offer.package,
            hooks.join(", "),
            offer.imports.join(", "),
            offer.granted.join(", "),
            Grants::everything(),
            offer.wasi.join(", "),
            LARGEST_MODULE_BYTES >> 20,
            limits.memory_bytes >> 20,
            LARGEST_MEMORY_BYTES >> 20,
            limits.deadline.as_millis(),
        ))?,
    }
    Ok(())
}

/// Asks a module every case of a table. The exit code is 1 where an answer differs.
pub fn test(args: &PolicyTest) -> Result<ExitCode> {
    let table = table::load(&args.cases).map_err(|error| anyhow!("the table of cases cannot be read: {error}"))?;
    ensure!(!table.is_empty(), "{} has no cases", args.cases.display());
    let limits = limits(&args.limits)?;
    let module = load(&engine()?, &args.file, &grants(&args.limits))?;
    let results: Vec<cases::Tried> = table.iter().map(|case| cases::ask(&module, limits, case)).collect();
    let failed = results.iter().filter(|result| !result.passed()).count();
    match args.output {
        TextOutput::Json => {
            let cases: Vec<Value> = results.iter().map(cases::Tried::describe).collect();
            let (file, digest) = (args.file.display().to_string(), format!("sha256:{}", module.digest()));
            let report = json!({"file": file, "digest": digest, "failed": failed, "cases": cases});
            print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
        }
        TextOutput::Text => {
            let lines: String = results.iter().map(cases::Tried::text).collect();
            print(&format!("{lines}{} cases, {failed} failed\n", results.len()))?;
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn limits(args: &CaseLimits) -> Result<Limits> {
    let memory = args.memory.bytes().with_context(|| format!("--memory {} is too large", args.memory))?;
    Limits::within(args.deadline, memory).map_err(|problem| anyhow!("a case cannot have {problem}"))
}

/// What the module of a case may import. What it learns by that is in the case, so there is nothing to keep from it.
fn grants(args: &CaseLimits) -> Grants {
    let lookup = if args.grant_lookup { Grants::everything().lookup } else { BTreeSet::new() };
    Grants { object: args.grant_object, clock: args.grant_clock, lookup }
}

fn engine() -> Result<Engine> {
    Ok(Engine::new(EngineOptions { compiler: Some(Compiler::this_program()), ..EngineOptions::default() })?)
}

fn load(engine: &Engine, file: &Path, grants: &Grants) -> Result<Module> {
    engine.load(&read_module(file)?, grants).with_context(|| format!("{} is no policy", file.display()))
}

fn text(file: &str, module: &Module, schema: Option<&Value>) -> String {
    let imports = if module.imports().is_empty() { "none".into() } else { module.imports().join(", ") };
    let mut settings = if module.has_settings() { "checked by the policy" } else { "not checked" }.to_string();
    if let Some(properties) = schema.and_then(|it| it["properties"].as_object()) {
        let names: Vec<&str> = properties.keys().map(String::as_str).collect();
        settings += &format!(": {} (-o json has the schema)", names.join(", "));
    }
    let grants = if *module.needs() == Grants::default() { "none".into() } else { module.needs().to_string() };
    format!(
        "{file}\n  digest    sha256:{}\n  size      {} bytes, {}\n  contract  {}\n  hooks     {}\n  settings  {settings}\n  imports   {imports}\n  \
         grants    {grants}\n",
        module.digest(),
        module.size(),
        form(module),
        module.contract(),
        hooks(module).join(", "),
    )
}

fn describe(file: &str, module: &Module, schema: &Option<Value>) -> Value {
    json!({
        "file": file,
        "bytes": module.size(),
        "digest": format!("sha256:{}", module.digest()),
        "form": form(module),
        "hooks": hooks(module),
        "contract": module.contract(),
        "settings": module.has_settings(),
        "settingsSchema": schema,
        "imports": module.imports(),
        "grants": module.needs().describe(),
    })
}

fn form(module: &Module) -> &'static str {
    match module.form() {
        Form::Component => "component",
        Form::CoreModule => "core module",
    }
}

fn hooks(module: &Module) -> Vec<&'static str> {
    module.hooks().iter().map(|hook| hook.as_str()).collect()
}
