//! `pith policy`: what modules are.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::print;
use crate::args::{PolicyInspect, TextOutput};
use crate::policy::read_module;
use crate::wasm::{Engine, EngineOptions, Form, Grants, Module};

/// Lists digest, form, hooks and imports of modules.
pub fn inspect(args: &PolicyInspect) -> Result<()> {
    let engine = Engine::new(EngineOptions { compiled_dir: None, ..EngineOptions::default() })?;
    let mut rows = Vec::with_capacity(args.files.len());
    for file in &args.files {
        // With everything granted: to inspect a module is not to run it.
        let module = engine.load(&read_module(file)?, Grants { object: true });
        let module = module.with_context(|| format!("{} is no policy", file.display()))?;
        rows.push((file.display().to_string(), module));
    }
    match args.output {
        TextOutput::Json => {
            let rows: Vec<Value> = rows.iter().map(|(file, module)| describe(file, module)).collect();
            print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
        }
        TextOutput::Text => print(&rows.iter().map(|(file, module)| text(file, module)).collect::<String>())?,
    }
    Ok(())
}

fn text(file: &str, module: &Module) -> String {
    let imports = if module.imports().is_empty() { "none".into() } else { module.imports().join(", ") };
    let settings = if module.has_settings() { "checked by the policy" } else { "not checked" };
    format!(
        "{file}\n  digest    sha256:{}\n  size      {} bytes, {}\n  hooks     {}\n  settings  {settings}\n  imports   {imports}\n",
        module.digest(),
        module.size(),
        form(module),
        hooks(module).join(", "),
    )
}

fn describe(file: &str, module: &Module) -> Value {
    json!({
        "file": file,
        "bytes": module.size(),
        "digest": format!("sha256:{}", module.digest()),
        "form": form(module),
        "hooks": hooks(module),
        "settings": module.has_settings(),
        "imports": module.imports(),
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
