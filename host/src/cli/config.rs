//! `pith config`: the effective configuration with the origin of each value, the schema, the reference.

use anyhow::Result;

use crate::args::{Config as Args, TextOutput};
use crate::config::{Config, effective, reference, schema};

/// Prints what was asked for.
pub fn run(args: &Args) -> Result<()> {
    if args.schema {
        println!("{}", serde_json::to_string_pretty(&schema())?);
    } else if args.reference {
        print!("{}", reference());
    } else if let Some(path) = &args.config {
        // Printing what would be refused helps nobody.
        Config::load(path, &args.overrides)?;
        let rows = effective(path, &args.overrides)?;
        match args.output {
            TextOutput::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
            TextOutput::Text => {
                let width =
                    rows.iter().map(|row| row.key.len() + row.value.to_string().len()).max().unwrap_or_default();
                for row in rows {
                    let text = format!("{}: {}", row.key, row.value);
                    println!("{text:<width$}  # {}", row.origin, width = width + 2);
                }
            }
        }
    }
    Ok(())
}
