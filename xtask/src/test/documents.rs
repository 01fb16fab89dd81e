//! The commands in README.md, docs and the policies' pages: each is run as it is written, and must succeed.
//!
//! A block of code marked `sh` or `console` is a promise that its lines can be typed; in `console` blocks, those after `$ `.
//!
//! - In most documents the reader is in the checkout. There the lines that start with one of [`PROGRAMS`] are run, each once;
//!   what starts otherwise (`kubectl`, `apt-get`) is for another machine. Of `helm install`, which is for a cluster, it is run what
//!   needs none: everything is rendered, and nothing sent.
//! - A document with `cargo new` is a tutorial, followed in an empty folder beside the checkout: every line is run, and a block
//!   whose paragraph begins with the name of a file is written to that file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::programs;
use crate::command::{POLL, both, output, spawn, wait};
use crate::terminal::seconds;
use crate::workspace::{forget_package, pith, relative, root, target, variable};

/// What a line that is run starts with.
const PROGRAMS: [&str; 4] = ["cargo xtask", "cargo build", "pith", INSTALL];
/// What would change a cluster, and what keeps it from that.
const INSTALL: &str = "helm install";
const DRY_RUN: &str = "--dry-run=client";
/// What is run by running this check: to run it here would never end.
const THIS: &str = "cargo xtask test";
/// The measurements take minutes, and their numbers are no matter of right and wrong.
const MEASURING: &str = "cargo xtask bench";
/// The one command that has no end: it must listen, and end well when it is told to.
const SERVER: &str = "pith serve";
/// What makes a document a tutorial.
const TUTORIAL: &str = "cargo new";

/// What a reader is told to do.
#[derive(Debug, PartialEq)]
enum Part {
    /// To type a line.
    Command(String),
    /// To write a file.
    File(String, String),
}

/// Who follows the documents.
struct Reader {
    /// Where programs are looked for: `pith` is in it, as for someone who has installed it.
    path: String,
    /// What was run in the checkout already.
    typed: BTreeSet<String>,
}

/// Follows every document.
pub(crate) fn check() -> Result<()> {
    let pith = pith()?;
    let installed = pith.parent().unwrap_or(root()).display();
    let helm = programs::helm()?;
    let helm = helm.parent().unwrap_or(root()).display();
    let path = format!("{installed}:{helm}:{}", variable("PATH").unwrap_or_default());
    let mut reader = Reader { path, typed: BTreeSet::new() };
    for document in documents()? {
        let text = fs::read_to_string(&document).with_context(|| format!("reading {}", relative(&document)))?;
        let parts = parts(&text);
        let is_tutorial = parts.iter().any(|part| matches!(part, Part::Command(line) if starts(line, TUTORIAL)));
        let followed = if is_tutorial { reader.follow(&parts) } else { reader.type_each(&parts) };
        followed.with_context(|| format!("following {}", relative(&document)))?;
    }
    ensure!(!reader.typed.is_empty(), "no document has a command: their `sh` and `console` blocks are gone");
    Ok(())
}

impl Reader {
    fn type_each(&mut self, parts: &[Part]) -> Result<()> {
        for part in parts {
            if let Part::Command(line) = part
                && is_run(line)
                && self.typed.insert(line.clone())
            {
                self.execute(line, root())?;
            }
        }
        Ok(())
    }

    fn follow(&self, parts: &[Part]) -> Result<()> {
        // Outside the checkout: cargo would take a package in it for a member of the workspace.
        let start = std::env::temp_dir().join(format!("pith-tutorial-{}", std::process::id()));
        fs::create_dir(&start).with_context(|| format!("making {}", start.display()))?;
        std::os::unix::fs::symlink(root(), start.join("pith")).context("putting the checkout beside the tutorial")?;
        let followed = self.follow_in(parts, start.clone());
        fs::remove_dir_all(&start).with_context(|| format!("removing {}", start.display()))?;
        followed
    }

    fn follow_in(&self, parts: &[Part], mut folder: PathBuf) -> Result<()> {
        for part in parts {
            match part {
                Part::File(name, text) => {
                    fs::write(folder.join(name), text).with_context(|| format!("writing {name}"))?
                }
                Part::Command(line) => match line.strip_prefix("cd ") {
                    Some(next) => {
                        folder.push(next.trim());
                        // What the package is built from does not change from run to run.
                        let built = target().join("tutorial");
                        fs::create_dir_all(&built).context("making target/tutorial")?;
                        std::os::unix::fs::symlink(built, folder.join("target"))
                            .context("linking the tutorial's target")?;
                    }
                    None => self.execute(line, &folder)?,
                },
            }
        }
        Ok(())
    }

    /// In a shell, because a reader types it into one.
    fn execute(&self, command: &str, folder: &Path) -> Result<()> {
        let started = Instant::now();
        if starts(command, SERVER) {
            self.execute_server(command, folder).with_context(|| format!("`{command}`"))?;
        } else {
            let dry = if starts(command, INSTALL) { format!("{command} {DRY_RUN}") } else { command.to_string() };
            let said = output(&mut self.shell(&dry, folder))?;
            ensure!(said.status.success(), "`{command}` failed ({})\n{}", said.status, both(&said));
        }
        println!("{command}  [{}]", seconds(started.elapsed()));
        Ok(())
    }

    fn execute_server(&self, command: &str, folder: &Path) -> Result<()> {
        let addresses = target().join("documented-addresses.json");
        if addresses.exists() {
            fs::remove_file(&addresses).context("removing the addresses of an earlier run")?;
        }
        let ports = "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0";
        let command = format!("exec {command} {ports} --addresses-file {}", addresses.display());
        let mut server = spawn(self.shell(&command, folder).stdout(Stdio::null()).stderr(Stdio::null()))?;
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

    fn shell(&self, command: &str, folder: &Path) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(folder).env("PATH", &self.path).env_remove("CARGO_TARGET_DIR");
        forget_package(&mut shell);
        shell
    }
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
    documents.sort();
    Ok(documents)
}

fn is_run(line: &str) -> bool {
    PROGRAMS.into_iter().any(|program| starts(line, program))
        && ![THIS, MEASURING].into_iter().any(|it| starts(line, it))
}

fn starts(line: &str, program: &str) -> bool {
    line.strip_prefix(program).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// What a document asks for, in its order. Lines that go on behind a `\` are one.
fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut lines = text.lines();
    let mut paragraph = "";
    while let Some(line) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            if !line.trim().is_empty() {
                paragraph = line;
            }
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| !line.trim_start().starts_with("```")).collect();
        match language.trim() {
            "sh" => parts.extend(commands(&block)),
            "console" => {
                let typed = block.iter().filter_map(|line| line.strip_prefix("$ ").or(line.strip_prefix("> ")));
                parts.extend(commands(&typed.collect::<Vec<_>>()));
            }
            _ => {
                let name = paragraph.strip_prefix('`').and_then(|rest| rest.split_once('`'));
                parts.extend(name.map(|(name, _)| Part::File(name.into(), block.join("\n") + "\n")));
            }
        }
        paragraph = "";
    }
    parts
}

fn commands(lines: &[&str]) -> Vec<Part> {
    let joined = lines.join("\n").replace("\\\n", " ");
    let lines = joined.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Part::Command).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_files_are_found_in_their_blocks() {
        let text = "pith a\n```sh\npith b \\\n  --c\n# a comment\nls\n```\n\n`a.yaml`, a file:\n\n```yaml\nd: 1\n```\n\
                    A sentence with `code`:\n```json\n{}\n```\n```console\n$ pith e\npith f\n```\n";
        let command = |line: &str| Part::Command(line.into());
        let file = Part::File("a.yaml".into(), "d: 1\n".into());
        assert_eq!(parts(text), [command("pith b --c"), command("ls"), file, command("pith e")]);
    }

    #[test]
    fn this_very_command_is_not_run_again() {
        for (line, expected) in [
            ("cargo xtask demo", true),
            ("cargo xtask test unit", false),
            ("pith config --schema", true),
            ("pithy", false),
            ("kubectl get pods", false),
            ("helm install pith deploy/chart", true),
            ("helm uninstall pith", false),
        ] {
            assert_eq!(is_run(line), expected, "{line}");
        }
    }
}
