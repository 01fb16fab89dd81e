//! What the end-to-end tests and the benchmarks share: a running `pith`, a client for it, and the `.wasm` files.
//!
//! Everything here is real: the binary, TLS, the modules. Servers listen on free ports of loopback.

pub mod client;
pub mod cluster;
pub mod juicefs;
pub mod model;
pub mod go_tools;
pub mod provisioner;
pub mod proxy;
pub mod redis;
pub mod registry;
pub mod s3;
pub mod server;
pub mod sql;
pub mod wasm_builds;
