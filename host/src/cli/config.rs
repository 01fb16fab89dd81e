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
                for row in rows {
                    // Aligned where it is short; one long value must not push every origin off the screen.
                    let text = format!("{}: {}", row.key, row.value);
                    println!("{text:<60}  # {}", row.origin);
                }
            }
        }
    }
    Ok(())
}
