//! Policies in operation: many bindings, changes under load, many modules.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pith_tests::client::{Client, Protocol};
use pith_tests::server::{self, Server};
use pith_tests::wasm_builds;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::process::kibibytes;
use crate::webhook::{Target, Turn, load, pith, policies, starts};
use crate::{Args, gather, median, time};

const SHOP: &str = include_str!("../../../fixtures/objects/shop.yaml");
const WEB: &str = include_str!("../../../fixtures/reviews/web.json");
/// How many bindings there are, all but one of which their selectors drop.
const BINDINGS: [usize; 5] = [0, 1, 3, 10, 50];
/// How often policies change under load.
const CHANGES: usize = 100;
/// How many connections ask meanwhile.
const CONNECTIONS: usize = 4;
/// How many modules are loaded at a start.
const MODULES: usize = 100;

/// Measures and prints its sections.
pub(crate) fn run(args: &Args, runtime: &Runtime) -> Result<()> {
    runtime.block_on(bindings(args))?;
    runtime.block_on(changes(&args.pith))?;
    modules(&args.pith, runtime)
}

/// So many bindings of one policy, of which the last one is asked.
fn config(bindings: usize) -> String {
    let module = wasm_builds::policy("resources").display().to_string();
    let mut config = String::from("log: {format: json}\npolicies:\n");
    for index in 0..bindings {
        let matches = match index + 1 == bindings {
            true => "",
            false => ", match: {namespaceSelector: {matchLabels: {team: other}}}",
        };
        let _ = writeln!(config, "- {{name: p{index}, module: {{file: {module}}}, settings: {{}}{matches}}}");
    }
    if bindings == 0 { config.replace("policies:\n", "policies: []\n") } else { config }
}

async fn bindings(args: &Args) -> Result<()> {
    println!(
        "## Many bindings\n\nOne connection, one policy that is asked, and the others dropped by their namespaceSelector; {} rounds of \
         {} s each, in turns, medians.\n\n| bindings | requests/s | p50 | p99 | server CPU per request |\n|---|---|---|---|---|",
        args.rounds, args.seconds
    );
    let targets = BINDINGS.map(|count| pith(&args.pith, "", &config(count)));
    let targets = targets.into_iter().collect::<Result<Vec<Target>>>()?;
    let mut turns: Vec<Vec<Turn>> = targets.iter().map(|_| Vec::new()).collect();
    for round in 0..=args.rounds {
        for (target, turns) in targets.iter().zip(&mut turns) {
            let turn = load(target, 1, Duration::from_secs(args.seconds)).await?;
            // The first round warms up.
            if round > 0 {
                turns.push(turn);
            }
        }
    }
    for (count, turns) in BINDINGS.into_iter().zip(&turns) {
        println!(
            "| {count} | {:.0} | {} | {} | {:.0} µs |",
            median(turns.iter().map(|turn| turn.per_second).collect()),
            time(median(turns.iter().map(|turn| turn.p50.as_secs_f64()).collect())),
            time(median(turns.iter().map(|turn| turn.p99.as_secs_f64()).collect())),
            median(turns.iter().map(|turn| turn.cpu_micros).collect()),
        );
    }
    println!();
    Ok(())
}

/// One policy that gives every sidecar this memory, by a module that is one of two.
fn version(modules: &[String; 2], number: usize, module: usize) -> String {
    let module = &modules[module];
    format!(
        "log: {{format: json}}\npolicies: [{{name: sizes, module: {{file: {module}}}, settings: {{default: s, sizes: {{s: \
         {{requests: {{memory: {number}Mi}}}}}}}}}}]\n"
    )
}

async fn changes(binary: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first = wasm_builds::policy("resources");
    let second = folder.path().join("other.wasm");
    let modules = [first.display().to_string(), second.display().to_string()];
    let server = Server::start_in(server::folder(&version(&modules, 1, 0), SHOP)?, binary)?;
    println!(
        "## Changes of a policy\n\nFrom SIGHUP, with the file written, to the first answer by the new policy, {CHANGES} times each, while \
         {CONNECTIONS} connections ask without a pause; every answer was of one version, and none failed.\n\n\
         | what changes | p50 | p99 | requests meanwhile | p50 of those | p99 |\n|---|---|---|---|---|---|"
    );
    let is_over = Arc::new(AtomicBool::new(false));
    let shown = Arc::new(AtomicUsize::new(1));
    let mut number = 1;
    for what in ["nothing", "settings", "settings and module, which is compiled"] {
        is_over.store(false, Ordering::Relaxed);
        let callers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (is_over, shown) = (is_over.clone(), shown.clone());
                let (address, ca) = (server.webhook, server.ca());
                tokio::spawn(async move {
                    let mut client = Client::connect(address, &ca, Protocol::Http1).await?;
                    let mut latencies = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        let answer = client.review(WEB).await?;
                        latencies.push(asked.elapsed());
                        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
                        shown.fetch_max(memory_of(&answer.body)?, Ordering::Relaxed);
                    }
                    anyhow::Ok(latencies)
                })
            })
            .collect();
        let mut took = Vec::new();
        for change in 0..CHANGES {
            if what == "nothing" {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            number += 1;
            let module = if what == "settings" { 0 } else { 1 };
            if module == 1 {
                let mut bytes = fs::read(&first)?;
                // A custom section makes it another module.
                bytes.extend([0, 3, 1, b'n', u8::try_from(change)?]);
                fs::write(&second, bytes)?;
            }
            write(&server, &version(&modules, number, module))?;
            let started = Instant::now();
            let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw).context("a process id")?;
            kill_process(pid, Signal::HUP)?;
            while shown.load(Ordering::Relaxed) < number {
                ensure!(started.elapsed() < Duration::from_secs(30), "{what}: not taken within 30 s");
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            took.push(started.elapsed());
        }
        is_over.store(true, Ordering::Relaxed);
        let mut latencies = gather(callers).await?;
        latencies.sort_unstable();
        took.sort_unstable();
        let at = |times: &[Duration], percent: usize| match times.len() {
            0 => "-".to_string(),
            count => time(times[(count * percent / 100).min(count - 1)].as_secs_f64()),
        };
        println!(
            "| {what} | {} | {} | {} | {} | {} |",
            at(&took, 50),
            at(&took, 99),
            latencies.len(),
            at(&latencies, 50),
            at(&latencies, 99)
        );
    }
    println!();
    Ok(())
}

/// The number that the policy gave.
fn memory_of(answer: &[u8]) -> Result<usize> {
    let review: Value = serde_json::from_slice(answer)?;
    let patch = review["response"]["patch"].as_str().context("a patch")?;
    let patch = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, patch)?;
    let patch: Value = serde_json::from_slice(&patch)?;
    let memory = client_of(&patch).and_then(|client| client["resources"]["requests"]["memory"].as_str());
    Ok(memory.and_then(|memory| memory.strip_suffix("Mi")).context("no memory in the patch")?.parse()?)
}

/// The container of the client, wherever in the patch it is.
fn client_of(value: &Value) -> Option<&Value> {
    match value {
        Value::Object(_)
            if value["name"].as_str().is_some_and(|name| name.starts_with("jfs-mount"))
                && value.get("image").is_some() =>
        {
            Some(value)
        }
        Value::Object(fields) => fields.values().find_map(client_of),
        Value::Array(items) => items.iter().find_map(client_of),
        _ => None,
    }
}

/// The listeners and objects stay as they are.
fn write(server: &Server, config: &str) -> Result<()> {
    let path = server.folder.path().join("pith.yaml");
    let kept: String = fs::read_to_string(&path)?.lines().take(2).map(|line| format!("{line}\n")).collect();
    let part = path.with_extension("part");
    fs::write(&part, format!("{kept}{config}"))?;
    Ok(fs::rename(part, path)?)
}

fn modules(binary: &Path, runtime: &Runtime) -> Result<()> {
    let (cold, warm) = starts(binary, MODULES, 3)?;
    println!(
        "## {MODULES} policies\n\nEach a module of its own. Memory is what is resident after a start with everything compiled; calls in \
         flight are those of 64 connections, each of which asks without a pause.\n\n| what | |\n|---|---|\n\
         | start to ready, nothing compiled | {:.2} s |\n| start to ready, everything compiled | {:.3} s |",
        median(cold),
        median(warm)
    );
    let folder = tempfile::tempdir()?;
    let resident = |config: &str| -> Result<f64> {
        let first = Server::start_in(server::folder(config, SHOP)?, binary)?;
        let again = crate::webhook::folder_again(&first.folder)?;
        drop(first);
        kibibytes(Server::start_in(again, binary)?.pid(), "Rss:")
    };
    let (none, all) = (resident(&config(0))?, resident(&policies(folder.path(), MODULES)?)?);
    #[expect(clippy::cast_precision_loss, reason = "a hundred")]
    let each = (all - none) / MODULES as f64;
    println!(
        "| resident without policies | {:.1} MiB |\n| with {MODULES} | {:.1} MiB |\n| a module | {each:.0} KiB |",
        none / 1024.0,
        all / 1024.0
    );
    let server = pith(binary, "", &config(1))?;
    let mut peaks = Vec::new();
    for connections in [1, 64] {
        runtime.block_on(load(&server, connections, Duration::from_secs(2)))?;
        peaks.push(crate::process::largest_resident(server.pid())?);
    }
    println!("| a call in flight, at most | {:.0} KiB |", (peaks[1] - peaks[0]) / 63.0);
    Ok(())
}
