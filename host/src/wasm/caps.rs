//! What bounds one instance while it runs.

use std::time::Duration;

use wasmtime::ResourceLimiter;

use super::Limits;
use super::host_calls::{HasHost, Host};

/// Core instances, memories and tables of one component. What `wasm32-wasip2` makes has four core instances, one memory
/// and two tables; a scripting language in a component has a few more.
pub(super) const CORE_INSTANCES: u32 = 16;
pub(super) const MEMORIES: u32 = 4;
pub(super) const TABLES: u32 = 8;

/// Table elements of one instance, all tables together. CPython in a component needs 6000.
pub(super) const TABLE_ELEMENTS: usize = 20_000;

/// What the host functions of a guest without WASI work on.
pub(super) struct Plain {
    pub(super) host: Host,
    pub(super) caps: Caps,
}

impl HasHost for Plain {
    fn host(&mut self) -> &mut Host {
        &mut self.host
    }
}

/// The bounds of one instance, and what it was refused.
pub(super) struct Caps {
    pub(super) deadline: Duration,
    pub(super) memory_bytes: usize,
    memory_used: usize,
    table_used: usize,
    pub(super) refused: Option<Refused>,
}

#[derive(Clone, Copy)]
pub(super) enum Refused {
    Memory,
    Tables,
}

impl Caps {
    /// The bounds that `limits` sets, within what the engine can give to one call.
    pub(super) fn new(limits: Limits, largest_memory_bytes: usize) -> Caps {
        Caps {
            deadline: limits.deadline,
            memory_bytes: limits.memory_bytes.min(largest_memory_bytes),
            memory_used: 0,
            table_used: 0,
            refused: None,
        }
    }
}

impl ResourceLimiter for Caps {
    /// Growth is refused and not a trap: a guest may cope. What it was refused explains a trap that follows.
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.memory_used.saturating_add(desired.saturating_sub(current));
        if used > self.memory_bytes {
            self.refused = Some(Refused::Memory);
            return Ok(false);
        }
        self.memory_used = used;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.table_used.saturating_add(desired.saturating_sub(current));
        if used > TABLE_ELEMENTS {
            self.refused = Some(Refused::Tables);
            return Ok(false);
        }
        self.table_used = used;
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES as usize + 1
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }
}
