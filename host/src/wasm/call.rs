//! One call: a store with every limit, an instance, a question, an answer, and nothing left of any of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pith_core::policy::{Failure, Origin};
use pith_core::text;
use sha2::{Digest, Sha256};
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Lower, TypedFunc};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};

use super::caps::{Caps, Plain, Refused, TABLE_ELEMENTS};
use super::engine::ticks;
use super::exports::Exports;
use super::host_calls::{Host, Stopped};
use super::wasi::Closed;
use super::{Asking, Code, Limits, Module};

/// Bytes that one answer, or one call of a host function, may hand to the host. An answer within the bounds of `abi` is
/// far smaller; without this, a guest could have the host copy 128 MiB at a time.
const BYTES_TO_HOST: usize = 256 << 10;

/// Handles to resources that a guest may hold at once. Only WASI has resources.
const HANDLES: usize = 1024;

/// One function of the contract.
pub(super) trait Question {
    /// The name of the interface.
    const NAME: &'static str;
    /// What is asked.
    type Params<'a>: ComponentNamedList + Lower + fmt::Debug + Send + Sync;
    /// What is answered, before it is checked.
    type Raw: Lift + wasmtime::component::ComponentType + Send + Sync + 'static;

    /// Where the function is, if the guest has it.
    fn export(exports: &Exports) -> Option<&ComponentExportIndex>;
}

/// Asks one question of a fresh instance. `object` and what grants show are called for only where a guest imports them: the store owns
/// its data, so they cannot be made when the guest asks.
pub(super) fn ask<Q: Question>(
    module: &Module,
    asking: Asking<'_>,
    params: Q::Params<'_>,
    object: impl FnOnce() -> Option<Arc<str>>,
    origin: Option<&Origin>,
) -> Result<Q::Raw, Failure> {
    let Asking { limits, world, log, .. } = asking;
    let loaded = &*module.0;
    let Some(export) = Q::export(&loaded.exports) else {
        return Err(Failure::Host(format!("it does not export the interface `{}`", Q::NAME)));
    };
    let mut host = Host { origin: origin.cloned(), ..Host::default() };
    if loaded.needs.object {
        host.object = object();
    }
    if loaded.needs.clock {
        host.now = world.now();
    }
    if !loaded.needs.lookup.is_empty() {
        host.lookups = world.lookups();
    }
    let lines = host.log.clone();
    let answer = match &loaded.code {
        Code::Plain(pre) => ask_plain::<Q>(pre, export, caps(module, limits), host, params),
        Code::Wasi(pre) => {
            let seed = seed(Q::NAME, &params);
            ask_wasi::<Q>(pre, export, caps(module, limits), host, seed, params)
        }
    };
    lines.drain(log);
    answer
}

/// Makes a store and drops it. One without WASI, whatever the module: only the others are measured step by step.
pub(super) fn make_store(module: &Module, limits: Limits) {
    if let Code::Plain(pre) = &module.0.code {
        drop(plain_store(pre, caps(module, limits), Host::default()));
    }
}

/// Makes an instance and drops it.
pub(super) fn instantiate(module: &Module, limits: Limits) -> Result<(), Failure> {
    let caps = caps(module, limits);
    match &module.0.code {
        Code::Plain(pre) => {
            let mut store = plain_store(pre, caps, Host::default());
            let instance = pre.instantiate(&mut store);
            instance.map(drop).map_err(|error| classify(&error, &store.data().caps))
        }
        Code::Wasi(pre) => run_wasi(pre, caps, Host::default(), [0; 32], async |_, _| Ok(())),
    }
}

/// Checks that the function has the shape of the contract. Only an instance can tell, so the guest's start code runs; when
/// that fails, for time or memory say, the shape stays unknown and the first call will tell.
pub(super) fn check_shape<Q: Question>(module: &Module) -> Result<(), wasmtime::Error> {
    let Some(export) = Q::export(&module.0.exports) else { return Ok(()) };
    let caps = caps(module, Limits::default());
    match &module.0.code {
        Code::Plain(pre) => {
            let mut store = plain_store(pre, caps, Host::default());
            let Ok(instance) = pre.instantiate(&mut store) else { return Ok(()) };
            function::<Q, _>(&instance, &mut store, export).map(drop)
        }
        Code::Wasi(pre) => run_wasi(pre, caps, Host::default(), [0; 32], async |instance, store| {
            Ok(function::<Q, _>(&instance, store, export).map(drop))
        })
        .unwrap_or(Ok(())),
    }
}

fn caps(module: &Module, limits: Limits) -> Caps {
    Caps::new(limits, module.0.engine.parts.options.largest_memory_bytes)
}

fn plain_store(pre: &InstancePre<Plain>, caps: Caps, host: Host) -> Store<Plain> {
    let deadline = caps.deadline;
    let mut store = Store::new(pre.engine(), Plain { host, caps });
    store.limiter(|data| &mut data.caps);
    bound(&mut store, deadline);
    store
}

fn bound<T>(store: &mut Store<T>, deadline: Duration) {
    store.set_epoch_deadline(ticks(deadline));
    store.set_hostcall_fuel(BYTES_TO_HOST);
    store.set_max_component_handles(HANDLES);
}

fn function<'a, Q: Question, T: 'static>(
    instance: &Instance,
    store: &mut Store<T>,
    export: &ComponentExportIndex,
) -> wasmtime::Result<TypedFunc<Q::Params<'a>, (Q::Raw,)>> {
    instance.get_typed_func::<Q::Params<'a>, (Q::Raw,)>(store, export)
}

fn ask_plain<Q: Question>(
    pre: &InstancePre<Plain>,
    export: &ComponentExportIndex,
    caps: Caps,
    host: Host,
    params: Q::Params<'_>,
) -> Result<Q::Raw, Failure> {
    let mut store = plain_store(pre, caps, host);
    let answer = (|| {
        let instance = pre.instantiate(&mut store)?;
        let (raw,) = function::<Q, _>(&instance, &mut store, export)?.call(&mut store, params)?;
        Ok(raw)
    })();
    answer.map_err(|error| classify(&error, &store.data().caps))
}

fn ask_wasi<Q: Question>(
    pre: &InstancePre<Closed>,
    export: &ComponentExportIndex,
    caps: Caps,
    host: Host,
    seed: [u8; 32],
    params: Q::Params<'_>,
) -> Result<Q::Raw, Failure> {
    run_wasi(pre, caps, host, seed, async |instance, store| {
        let (raw,) = function::<Q, _>(&instance, store, export)?.call_async(store, params).await?;
        Ok(raw)
    })
}

/// Runs a guest with WASI. Unlike others, it can wait, on a clock say, and the epoch does not cut a wait: so it runs as a
/// future under a timeout, on a thread of its own, because the caller may itself be a runtime's thread.
fn run_wasi<R: Send>(
    pre: &InstancePre<Closed>,
    caps: Caps,
    host: Host,
    seed: [u8; 32],
    question: impl AsyncFnOnce(Instance, &mut Store<Closed>) -> wasmtime::Result<R> + Send,
) -> Result<R, Failure> {
    let deadline = caps.deadline;
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(no_thread)?;
        let mut store = Store::new(pre.engine(), Closed::new(host, caps, seed));
        store.limiter(|data| &mut data.caps);
        bound(&mut store, deadline);
        // The timer looks for its runtime when it is made.
        let answer = runtime.block_on(async {
            let call = async {
                let instance = pre.instantiate_async(&mut store).await?;
                question(instance, &mut store).await
            };
            tokio::time::timeout(deadline, call).await
        });
        match answer {
            Ok(answer) => answer.map_err(|error| classify(&error, &store.data().caps)),
            Err(_) => Err(Failure::Deadline(deadline)),
        }
    };
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("policy-wasi".into()).spawn_scoped(scope, run).map_err(no_thread)?;
        thread.join().unwrap_or_else(|_| Err(Failure::Host("the thread of its call panicked".into())))
    })
}

fn no_thread(error: std::io::Error) -> Failure {
    Failure::Host(format!("no thread for a policy with WASI: {error}"))
}

/// What the random numbers of a WASI guest are made from: exactly what the guest is told, so that asking again gives the
/// same numbers.
fn seed(hook: &str, params: &impl fmt::Debug) -> [u8; 32] {
    struct Hash(Sha256);
    impl fmt::Write for Hash {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.update(text);
            Ok(())
        }
    }
    let mut hash = Hash(Sha256::new());
    fmt::write(&mut hash, format_args!("{hook} {params:?}")).expect("a hash takes everything");
    hash.0.finalize().into()
}

/// Says what went wrong in the words of the contract. The order matters: a guest that runs out of memory traps, too.
fn classify(error: &wasmtime::Error, caps: &Caps) -> Failure {
    let trap = error.downcast_ref::<Trap>();
    if trap == Some(&Trap::Interrupt) {
        return Failure::Deadline(caps.deadline);
    }
    if trap == Some(&Trap::StackOverflow) {
        return Failure::Stack;
    }
    match error.downcast_ref::<Stopped>() {
        Some(Stopped::Budget(what)) => return Failure::Budget(what),
        Some(Stopped::Unknown(why)) => return Failure::Host(why.clone()),
        None => {}
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Failure::Host("too many policies run at once".into());
    }
    let cause = text::clean(&error.root_cause().to_string(), 512);
    // The error has no public type.
    if cause.contains("fuel allocated for hostcalls") {
        return Failure::Budget("bytes handed to the host at once");
    }
    match caps.refused {
        Some(Refused::Memory) => return Failure::Memory(bytes(caps.memory_bytes)),
        Some(Refused::Tables) => return Failure::Memory(format!("{TABLE_ELEMENTS} table elements")),
        None => {}
    }
    if trap.is_some() || error.is::<WasmBacktrace>() || error.is::<wasmtime_wasi::I32Exit>() {
        return Failure::Trap(cause.strip_prefix("wasm trap: ").unwrap_or(&cause).to_owned());
    }
    // No guest code was running: the host was reading what the guest had answered.
    Failure::Answer(cause)
}

fn bytes(count: usize) -> String {
    if count.is_multiple_of(1 << 20) { format!("{} MiB", count >> 20) } else { format!("{count} bytes") }
}
