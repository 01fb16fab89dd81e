//! Compiling in a process of its own, which has limits of time and memory and whose end costs nobody else anything.
//!
//! A module's bytes decide what its compilation takes, and no deadline cuts it within a process: a small module can keep the compiler
//! busy for minutes, or make it ask for gigabytes. The server therefore compiles in a child, this very program, which is given bytes and
//! gives code; what it is limited by it asks for itself, before it reads the first byte.

use std::io::{Read, Write, stdin, stdout};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};
use std::thread::scope;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use super::engine::{Compiler, EngineOptions};
use super::load::{LoadError, caught, said, translate};

/// The command of this program that compiles: standard input to standard output.
pub const COMMAND: &str = "compile-policy";
/// What a child says begins with one of these where it is about the module.
const WRAP: &str = "wrap: ";
const COMPILE: &str = "compile: ";
const PANIC: &str = "panic: ";
/// What the runtime says before it ends a process whose stack is full.
const OVERFLOW: &str = "has overflowed its stack";
/// How much of what a child says is read.
const LONGEST_COMPLAINT: u64 = 64 << 10;

/// Compiles bytes in a child. The code is for an engine whose calls have the memory of the default options.
pub(super) fn compile(compiler: &Compiler, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let failed =
        |error: std::io::Error| LoadError::Compile(format!("the process that compiles cannot be run: {error}"));
    let Compiler { program, seconds, memory_bytes } = compiler;
    let mut child = Command::new(program)
        .arg(COMMAND)
        .args([seconds.to_string(), memory_bytes.to_string()])
        .env_clear()
        // Or the allocator would have a gigabyte at once, which counts as if it was used.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (input, output, complaint) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut code, mut words) = (Vec::new(), String::new());
    scope(|threads| {
        // It ends early where it finds the bytes to be no module, and then reads no more of them.
        threads.spawn(move || input.map(|mut input| input.write_all(bytes)));
        let listener = threads.spawn(move || {
            let mut said = String::new();
            let _ = complaint.map(|it| it.take(LONGEST_COMPLAINT).read_to_string(&mut said));
            said
        });
        let read = output.map(|mut output| output.read_to_end(&mut code)).transpose();
        words = listener.join().unwrap_or_default();
        read
    })
    .map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(code);
    }
    let words = words.trim_end();
    Err(match (words.strip_prefix(WRAP), words.strip_prefix(COMPILE), status.signal()) {
        (Some(words), ..) => LoadError::Wrap(said(words)),
        (_, Some(words), _) => LoadError::Compile(said(words)),
        (.., Some(signal)) if signal == Signal::XCPU.as_raw() => {
            LoadError::Compile(format!("compiling it takes more than {seconds} s of processor time"))
        }
        // A description whose packages refer to each other in a circle keeps `wit-parser` going in it.
        (.., Some(signal)) if signal == Signal::ABORT.as_raw() && words.contains(OVERFLOW) => LoadError::Compile(
            "the compiler runs out of stack over it: it nests too deeply, or is described in a circle".into(),
        ),
        (.., Some(signal)) if signal == Signal::ABORT.as_raw() || signal == Signal::KILL.as_raw() => {
            let mebibytes = memory_bytes >> 20;
            LoadError::Compile(format!("compiling it takes more than {mebibytes} MiB of memory, or more than there is"))
        }
        _ => LoadError::Panic(said(words.strip_prefix(PANIC).unwrap_or(words))),
    })
}

/// Compiles what comes on standard input, as the child, within these limits.
pub fn run(seconds: u64, memory_bytes: u64) -> ExitCode {
    let limit = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    // Whoever started it may be gone before it is done. Where there is too little memory for both, this one is to go.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // Soft alone for the time: the signal of the hard limit says nothing about time.
    let time = setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds.saturating_add(1)) });
    let limited = time.and(limit(Resource::Data, memory_bytes)).and(limit(Resource::Core, 0));
    let mut bytes = Vec::new();
    let done = limited.map_err(std::io::Error::from).and_then(|()| stdin().read_to_end(&mut bytes));
    if let Err(error) = done {
        return complain("", &error.to_string());
    }
    // What it says is in the answer.
    std::panic::set_hook(Box::new(|_| {}));
    match caught(|| translate(&EngineOptions::default(), &bytes)) {
        Ok(code) => match stdout().write_all(&code) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain("", &error.to_string()),
        },
        Err(LoadError::Wrap(words)) => complain(WRAP, &words),
        Err(LoadError::Compile(words)) => complain(COMPILE, &words),
        Err(LoadError::Panic(words)) => complain(PANIC, &words),
        Err(error) => complain("", &error.to_string()),
    }
}

#[expect(clippy::print_stderr, reason = "the parent reads it")]
fn complain(kind: &str, words: &str) -> ExitCode {
    eprint!("{kind}{words}");
    ExitCode::from(1)
}
