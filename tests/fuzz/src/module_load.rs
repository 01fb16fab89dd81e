//! From bytes to a policy, with everything that `Engine::load` does in the process itself: in production a child compiles.
//!
//! The seeds are the hostile guests that are written as text: each a few hundred bytes with every hook, as the core module that it is and
//! as the component that the host makes of it.

use std::path::Path;
use std::sync::LazyLock;

use pith::wasm::{Engine, EngineOptions, Form, Grants, LoadError};
use wit_component::{ComponentEncoder, StringEncoding};

use crate::{files, here};

/// Small, so that a run has many of them.
const LARGEST_MODULE: usize = 64 << 10;

/// The contract, which says what a component of it exports.
const CONTRACT: &str = include_str!("../../../proto/policy/policy.wit");

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let options = EngineOptions {
        concurrent_calls: 1,
        largest_memory_bytes: 4 << 20,
        largest_module_bytes: LARGEST_MODULE,
        ..EngineOptions::default()
    };
    Engine::new(options).expect("an engine")
});

pub(crate) fn run(input: &[u8]) -> Result<String, String> {
    match ENGINE.load(input, &Grants::everything()) {
        Ok(module) => {
            assert!(!module.hooks().is_empty(), "it is loaded and cannot be asked anything");
            assert_eq!(module.size(), input.len(), "its size");
            let form = match module.form() {
                Form::Component => "component",
                Form::CoreModule => "core module",
            };
            Ok(format!("{form} with {} hooks", module.hooks().len()))
        }
        // It costs the module and not the process, but a fuzzer that sees no panic would never say so.
        Err(LoadError::Panic(words)) => Err(format!("panic: {words}")),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let guests = files(&here("../guests/wat"));
    let both = guests.into_iter().flat_map(|(name, text)| {
        let module = described(&text);
        let component = wrapped(&module);
        [(format!("{name}.module"), module), (format!("{name}.component"), component)]
    });
    let written = files(&here("seeds/module_load"));
    both.chain(written.into_iter().map(|(name, text)| (name, assembled(&text)))).collect()
}

fn assembled(text: &[u8]) -> Vec<u8> {
    wat::parse_bytes(text).expect("a seed is valid text").into_owned()
}

/// What `wasm-tools component embed` makes of a core module: the description of the world is added to it.
pub(crate) fn described(text: &[u8]) -> Vec<u8> {
    let mut module = assembled(text);
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str(Path::new("policy.wit"), CONTRACT).expect("the contract");
    let world = resolve.select_world(&[package], Some("complete-policy")).expect("the world with every hook");
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("a section");
    module
}

fn wrapped(module: &[u8]) -> Vec<u8> {
    let mut encoder = ComponentEncoder::default().module(module).expect("a core module");
    encoder.encode().expect("a component")
}
