//! `pith config`: the effective configuration with the origin of each value, the schema, the reference, the custom resource.

use anyhow::Result;

use super::print;
use crate::args::{Config as Args, TextOutput};
use crate::config::{Config, Effective, effective, reference, schema};
use crate::policy::custom_resource_definitions;

/// Prints what was asked for.
pub fn run(args: &Args) -> Result<()> {
    if args.schema {
        print(&format!("{}\n", serde_json::to_string_pretty(&schema())?))?;
    } else if args.reference {
        print(&reference())?;
    } else if args.crd {
        let all = custom_resource_definitions().map(|it| yaml_serde::to_string(&it));
        print(&all.into_iter().collect::<Result<Vec<_>, _>>()?.join("---\n"))?;
    } else if let Some(path) = &args.config {
        // Printing what would be refused helps nobody.
        Config::load(path, &args.overrides)?;
        let rows = effective(path, &args.overrides)?;
        match args.output {
            TextOutput::Json => print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?,
            TextOutput::Text => {
                // Aligned where it is short; one long value must not push every origin off the screen.
                let line =
                    |row: &Effective| format!("{:<60}  # {}\n", format!("{}: {}", row.key, row.value), row.origin);
                print(&rows.iter().map(line).collect::<String>())?;
            }
        }
    }
    Ok(())
}
