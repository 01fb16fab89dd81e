//! The commands in README.md and docs: each is run as it is written, from the checkout's root, and must succeed.
//!
//! A block of code marked `sh` or `console` is a promise that its lines can be typed. Of these, the lines that start with one of
//! [`PROGRAMS`] are run, each once; in `console` blocks, the lines after `$ `. What starts otherwise (`kubectl`, `apt-get`, the
//! output of a command) is not run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{POLL, both, output, spawn, wait};
use crate::terminal::seconds;
use crate::workspace::{pith, relative, root, target, variable};

/// What a line that is run starts with.
const PROGRAMS: [&str; 3] = ["cargo xtask", "cargo build", "pith"];
/// What is run by running this check: to run it here would never end.
const THIS: &str = "cargo xtask test";
/// The one command that has no end: it must listen, and end well when it is told to.
const SERVER: &str = "pith serve";

/// Runs every command.
pub(crate) fn check() -> Result<()> {
    let mut commands = BTreeSet::new();
    for document in documents()? {
        let text = fs::read_to_string(&document).with_context(|| format!("reading {}", relative(&document)))?;
        let found = lines(&text).into_iter().filter(|line| is_run(line));
        commands.extend(found.map(|line| (line, relative(&document))));
    }
    ensure!(!commands.is_empty(), "README.md and docs have no command: their `sh` and `console` blocks are gone");
    let mut last = String::new();
    for (command, document) in commands {
        if command == last {
            continue;
        }
        let started = Instant::now();
        execute(&command).with_context(|| format!("`{command}` of {document}"))?;
        println!("{command}  [{}]", seconds(started.elapsed()));
        last = command;
    }
    Ok(())
}

fn documents() -> Result<Vec<PathBuf>> {
    let mut documents = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs"), root().join("policies")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", relative(&folder)))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    Ok(documents)
}

/// The commands in the blocks of a document, those that go on behind a `\` in one line.
fn lines(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut block = None;
    let mut command = String::new();
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = match block {
                Some(_) => None,
                None => Some(language.trim().to_string()),
            };
            continue;
        }
        let typed = match block.as_deref() {
            Some("sh") => Some(line),
            Some("console") if command.is_empty() => line.trim_start().strip_prefix("$ "),
            Some("console") => Some(line.trim_start().trim_start_matches("> ")),
            _ => None,
        };
        let Some(typed) = typed else { continue };
        command.push_str(typed.trim());
        if let Some(begun) = command.strip_suffix('\\') {
            command = format!("{} ", begun.trim_end());
        } else {
            commands.push(std::mem::take(&mut command));
        }
    }
    commands
}

fn is_run(line: &str) -> bool {
    let starts =
        |program: &str| line.strip_prefix(program).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    PROGRAMS.into_iter().any(starts) && !starts(THIS)
}

/// In a shell, because a reader types it into one.
fn execute(command: &str) -> Result<()> {
    if command.starts_with(SERVER) {
        return execute_server(command);
    }
    let said = output(&mut shell(command)?)?;
    ensure!(said.status.success(), "it failed ({})\n{}", said.status, both(&said));
    Ok(())
}

fn execute_server(command: &str) -> Result<()> {
    let addresses = target().join("documented-addresses.json");
    let _ = fs::remove_file(&addresses);
    let ports = "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0";
    let command = format!("exec {command} {ports} --addresses-file {}", addresses.display());
    let mut server = spawn(shell(&command)?.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let ready = wait_for(&addresses);
    kill_process(Pid::from_child(&server), Signal::TERM).context("stopping it")?;
    match wait(&mut server, Duration::from_secs(10))? {
        Some(status) if status.success() => ready,
        Some(status) => bail!("it ended with {status}"),
        None => {
            server.kill().context("ending it")?;
            bail!("it does not end on SIGTERM")
        }
    }
}

fn wait_for(file: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if file.exists() {
            return Ok(());
        }
        sleep(POLL);
    }
    bail!("it did not listen within a minute")
}

/// With `pith` in the path, as for someone who has installed it.
fn shell(command: &str) -> Result<Command> {
    let folder = pith()?.parent().map(Path::to_path_buf).unwrap_or_default();
    let path = format!("{}:{}", folder.display(), variable("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(root()).env("PATH", path);
    Ok(shell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_their_blocks_only() {
        let text =
            "pith a\n```sh\npith b \\\n  --c\nls\n```\n```yaml\npith d\n```\n```console\n$ pith e\npith f\n```\n";
        let found: Vec<_> = lines(text).into_iter().filter(|line| is_run(line)).collect();
        assert_eq!(found, ["pith b --c", "pith e"]);
    }

    #[test]
    fn this_very_command_is_not_run_again() {
        for (line, expected) in [("cargo xtask test unit", false), ("cargo xtask testing", true), ("pithy", false)] {
            assert_eq!(is_run(line), expected, "{line}");
        }
    }
}
