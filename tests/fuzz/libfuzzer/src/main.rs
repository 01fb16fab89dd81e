//! One target of `pith-fuzz` under libFuzzer. `cargo xtask fuzz` says which, and where its seeds go, by the environment: the arguments are
//! libFuzzer's.

#![no_main]

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use pith_fuzz::Target;
use wasm_mutate::WasmMutate;

/// How much work one mutation of a module may be.
const MUTATION_FUEL: u64 = 300;

static TARGET: OnceLock<Target> = OnceLock::new();

fn target() -> Target {
    *TARGET.get().expect("it is chosen before anything runs")
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask fuzz`"))
}

fn begin() {
    let target = Target::named(&variable("PITH_FUZZ_TARGET")).expect("PITH_FUZZ_TARGET is a target");
    TARGET.set(target).expect("it is chosen once");
    let folder = variable("PITH_FUZZ_SEEDS");
    for (name, seed) in target.seeds().into_iter().chain(target.found()) {
        std::fs::write(Path::new(&folder).join(name), seed).expect("a folder for the seeds");
    }
    // The library's own hook ends the process at every panic, also at one that the host is there to catch. One that is not caught ends it
    // all the same, after its words.
    drop(std::panic::take_hook());
}

fuzz_target!(
    init: begin(),
    |input: &[u8]| {
        if target() == Target::ModuleLoad {
            keep(input);
        }
        drop(target().run(input));
    }
);

/// A stack that is full ends the process before libFuzzer can say over what, so that stands in a file of the process before it is tried.
fn keep(input: &[u8]) {
    static LAST: OnceLock<PathBuf> = OnceLock::new();
    let last = LAST.get_or_init(|| Path::new(&variable("PITH_FUZZ_LAST")).join(std::process::id().to_string()));
    std::fs::write(last, input).expect("a folder for the last inputs");
}

// Most changes of a module's bytes make something that is no module any more, and is refused in its first step.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if target() == Target::ModuleLoad && seed % 4 != 0 {
        if let Some(mutated) = mutated(&data[..size], max_size, seed) {
            data[..mutated.len()].copy_from_slice(&mutated);
            return mutated.len();
        }
    }
    fuzzer_mutate(data, size, max_size)
});

/// Another module of nearly the same meaning or none; for core modules only, which the host makes components of.
fn mutated(module: &[u8], max_size: usize, seed: u32) -> Option<Vec<u8>> {
    // It panics over some modules that are no good.
    let mutated = catch_unwind(|| {
        let mut mutate = WasmMutate::default();
        mutate.seed(seed.into()).fuel(MUTATION_FUEL).preserve_semantics(false);
        mutate.run(module).ok()?.next()?.ok()
    });
    let mutated = mutated.ok()??;
    (mutated.len() <= max_size).then_some(mutated)
}
