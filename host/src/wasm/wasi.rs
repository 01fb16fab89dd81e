//! The WASI of guests that import it, as most toolchains make them do: closed, and the same every time.
//!
//! There are no arguments, no environment, no files, no network and no names to look up. Clocks stand still at the epoch.
//! Random numbers come from what the guest is asked. What it prints goes to the policy's log, under the log's budget.
//! Sleeping works in real time and therefore only until the deadline.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::AsyncWrite;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::{Deterministic, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use super::Level;
use super::caps::Caps;
use super::host_calls::{self, HasHost, Host, LogBuffer};

/// Resources that one guest can make the host hold. A guest that leaks pollables in a loop is stopped by it.
const RESOURCES: usize = 1024;

/// Blocks of 32 random bytes before the sequence repeats. Toolchains seed a generator of their own from a few of them.
const RANDOM_BLOCKS: u8 = 32;

/// The most random bytes in one call.
const RANDOM_CALL_BYTES: u64 = 64 << 10;

/// What the host functions of a guest with WASI work on.
pub(super) struct Closed {
    host: Host,
    pub(super) caps: Caps,
    wasi: WasiCtx,
    resources: ResourceTable,
}

impl Closed {
    pub(super) fn new(host: Host, caps: Caps, seed: [u8; 32]) -> Closed {
        let random = expand(seed);
        let mut builder = WasiCtx::builder();
        builder
            .stdout(Printed { level: Level::Info, log: host.log.clone() })
            .stderr(Printed { level: Level::Warn, log: host.log.clone() })
            .wall_clock(Still)
            .monotonic_clock(Still)
            .secure_random(Deterministic::new(random.clone()))
            .insecure_random(Deterministic::new(random))
            .insecure_random_seed(u128::from_le_bytes(std::array::from_fn(|place| seed[place])))
            .max_random_size(RANDOM_CALL_BYTES)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES);
        Closed { host, caps, wasi: builder.build(), resources }
    }
}

impl HasHost for Closed {
    fn host(&mut self) -> &mut Host {
        &mut self.host
    }
}

impl WasiView for Closed {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}

/// Everything that a guest with WASI can import.
pub(super) fn linker(wasm: &wasmtime::Engine) -> wasmtime::Result<Linker<Closed>> {
    let mut linker = Linker::new(wasm);
    host_calls::add_to_linker(&mut linker)?;
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    Ok(linker)
}

fn expand(seed: [u8; 32]) -> Vec<u8> {
    (0..RANDOM_BLOCKS).flat_map(|block| Sha256::new().chain_update(seed).chain_update([block]).finalize()).collect()
}

/// A clock that stands still, so that the same input gives the same answer.
struct Still;

impl HostWallClock for Still {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Still {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}

/// Standard output or standard error.
#[derive(Clone)]
struct Printed {
    level: Level,
    log: LogBuffer,
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Lines::new(self.clone()))
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Lines::new(self.clone()))
    }
}

/// Cuts what is printed into lines.
struct Lines {
    to: Printed,
    begun: Vec<u8>,
}

impl Lines {
    /// A line without end is logged in pieces of this size, so that it takes no more memory than that.
    const PIECE_BYTES: usize = 1 << 10;

    fn new(to: Printed) -> Lines {
        Lines { to, begun: Vec::new() }
    }

    fn take(&mut self, printed: &[u8]) {
        for byte in printed {
            if *byte != b'\n' {
                self.begun.push(*byte);
            }
            if *byte == b'\n' || self.begun.len() >= Lines::PIECE_BYTES {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        self.to.log.push(self.to.level, &String::from_utf8_lossy(&self.begun));
        self.begun.clear();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.begun.is_empty() {
            self.end();
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Lines {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(64 << 10)
    }
}

impl AsyncWrite for Lines {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
