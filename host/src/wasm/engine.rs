//! The engine: how guests are compiled, where their instances live, and the clock that cuts them.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Inlining, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::cache::{Cache, CacheError};
use super::caps::{CORE_INSTANCES, MEMORIES, Plain, TABLE_ELEMENTS, TABLES};
use super::host_calls;
use super::wasi::{self, Closed};

/// How often guests are asked whether their deadline has passed. A shorter tick wakes an idle host more often, a longer
/// one lets a guest run on for longer than its deadline; at 5 ms the thread costs less than 0.1 % of a core.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// Native stack for a guest. The stack of a tokio worker is 2 MiB, and the host's frames need some of it.
const STACK_BYTES: usize = 512 << 10;

/// The most memory of one call, unless an engine is made with another bound.
pub const LARGEST_MEMORY_BYTES: usize = 64 << 20;

/// The largest module, unless an engine is made with another bound.
pub const LARGEST_MODULE_BYTES: usize = 64 << 20;

/// What an engine is made with.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where compiled code is kept between runs; nowhere if absent. Made if missing; only its owner may have access.
    pub compiled_dir: Option<PathBuf>,
    /// How many calls can run at once. One more fails at once with `Failure::Host`.
    pub concurrent_calls: usize,
    /// The most memory that `Limits::memory_bytes` can give to one call.
    pub largest_memory_bytes: usize,
    /// The largest module that is compiled. Compiling is work that no deadline cuts, so its input has a bound.
    pub largest_module_bytes: usize,
    /// Compiles modules in a process of its own, with limits of time and memory; in this one if absent.
    pub compiler: Option<Compiler>,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            compiled_dir: None,
            concurrent_calls: 64,
            largest_memory_bytes: LARGEST_MEMORY_BYTES,
            largest_module_bytes: LARGEST_MODULE_BYTES,
            compiler: None,
        }
    }
}

/// How a module is compiled in a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// The program `pith`.
    pub program: PathBuf,
    /// The most processor time, of all threads together.
    pub seconds: u64,
    /// The most memory that may be written to.
    pub memory_bytes: u64,
}

impl Compiler {
    /// This very program, with a minute and 2 GiB.
    pub fn this_program() -> Compiler {
        Compiler { program: "/proc/self/exe".into(), seconds: 60, memory_bytes: 2 << 30 }
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The folder for compiled code cannot be trusted or used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// WebAssembly cannot run here with these options.
    #[error("WebAssembly cannot be set up: {0:#}")]
    Wasm(wasmtime::Error),
    /// No thread could be started.
    #[error("the thread that ends overdue policies cannot be started: {0}")]
    Ticker(#[source] std::io::Error),
}

/// Compiles policies and runs them. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) parts: Arc<Parts>,
}

pub(super) struct Parts {
    pub(super) wasm: wasmtime::Engine,
    pub(super) plain: Linker<Plain>,
    wasi: OnceLock<Linker<Closed>>,
    pub(super) cache: Option<Cache>,
    pub(super) options: EngineOptions,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("options", &self.parts.options).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes an engine, and the folder for compiled code if one is named.
    pub fn new(options: EngineOptions) -> Result<Engine, EngineError> {
        let wasm = wasmtime::Engine::new(&config(&options)).map_err(EngineError::Wasm)?;
        let mut plain = Linker::new(&wasm);
        host_calls::add_to_linker(&mut plain).map_err(EngineError::Wasm)?;
        let cache = options.compiled_dir.as_deref().map(|dir| Cache::open(dir, &wasm)).transpose()?;
        start_ticker(&wasm).map_err(EngineError::Ticker)?;
        let parts = Parts { wasm, plain, wasi: OnceLock::new(), cache, options };
        Ok(Engine { parts: Arc::new(parts) })
    }

    /// What components get that import WASI. Made when the first of them is loaded: most engines never see one.
    pub(super) fn wasi_linker(&self) -> wasmtime::Result<&Linker<Closed>> {
        if let Some(linker) = self.parts.wasi.get() {
            return Ok(linker);
        }
        let linker = wasi::linker(&self.parts.wasm)?;
        Ok(self.parts.wasi.get_or_init(|| linker))
    }
}

/// Every setting that differs from wasmtime's defaults, with its reason.
pub(super) fn config(options: &EngineOptions) -> Config {
    let mut config = Config::new();
    // No guest uses component-model async, and a synchronous call costs more where it could.
    config.concurrency_support(false);
    config.epoch_interruption(true);
    // The same input gives the same answer, on every machine.
    config.cranelift_nan_canonicalization(true).relaxed_simd_deterministic(true);
    config.compiler_inlining(Inlining::Yes);
    config.max_wasm_stack(STACK_BYTES).async_stack_size(2 * STACK_BYTES);
    // Explicit checks instead of pages that fault. A memory then keeps its pages from call to call, where it would otherwise
    // be given them when it grows and lose them when it is reset: two changes of the address space for each call, which
    // every other thread of the process waits for: about two fifths of the time of a call. It also needs 64 MiB of address
    // space for a memory instead of 4 GiB, and no signal handlers. The price is slower loads and stores, and that Cranelift
    // has no Spectre mitigations in this mode: a guest that would need them has no clock to measure anything with.
    config.signals_based_traps(false);
    config.memory_reservation(options.largest_memory_bytes as u64).memory_guard_size(0);
    // The memory image of an interpreter is larger than the default of 16 MiB and still worth mapping.
    config.memory_guaranteed_dense_image_size(64 << 20);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options)));
    config
}

fn pool(options: &EngineOptions) -> PoolingAllocationConfig {
    let calls = u32::try_from(options.concurrent_calls.clamp(1, 4096)).expect("it is at most 4096");
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(calls)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        // Not every call at once is of the largest kind; each count still covers one that is.
        .total_core_instances((calls * 4).max(CORE_INSTANCES))
        .total_memories((calls * 2).max(MEMORIES))
        .total_tables((calls * 2).max(TABLES))
        .total_stacks(calls)
        .max_tables_per_module(TABLES)
        .max_memories_per_module(MEMORIES)
        .max_memory_size(options.largest_memory_bytes)
        .table_elements(TABLE_ELEMENTS);
    // What a small policy dirties is set back by writing to it, which costs less than giving pages back to the kernel and
    // faulting them in again. Where the kernel can say which pages are dirty, only those are touched.
    pool.linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10)
        .pagemap_scan(Enabled::Auto)
        .max_unused_warm_slots(calls.min(64));
    pool
}

/// Starts the thread that advances the epoch. It holds the engine weakly and ends within a tick of the last module.
fn start_ticker(wasm: &wasmtime::Engine) -> std::io::Result<()> {
    let wasm = wasm.weak();
    let tick = move || {
        while let Some(wasm) = wasm.upgrade() {
            wasm.increment_epoch();
            drop(wasm);
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new().name("policy-deadline".into()).stack_size(256 << 10).spawn(tick).map(drop)
}

/// The deadline as a number of ticks. One more than fit, because the current tick has already begun.
pub(super) fn ticks(deadline: Duration) -> u64 {
    let ticks = deadline.as_nanos().div_ceil(TICK.as_nanos()).saturating_add(1);
    // Far above any deadline, and far below where the current epoch plus this would overflow.
    u64::try_from(ticks).unwrap_or(u64::MAX).min(1 << 40)
}
