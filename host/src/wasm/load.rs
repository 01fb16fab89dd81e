//! From bytes to a module that can be asked, and the reasons why some bytes never become one.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pith_core::policy::Hook;
use pith_core::text::clean;
use sha2::{Digest, Sha256};
use wasmtime::InstanceAllocationStrategy;
use wasmtime::component::Component;
use wit_component::ComponentEncoder;

use super::abi;
use super::apart;
use super::cache::native;
use super::caps::{MEMORIES, TABLE_ELEMENTS, TABLES};
use super::engine::{Engine, EngineOptions, Parts, config};
use super::exports::Exports;
use super::grants::{GRANTED, Grants};
use super::{Code, Form, Loaded, Module};

/// The package whose interfaces the host offers and asks for.
const PACKAGE: &str = "pith:policy";
const VERSION: &str = "0.1.0";

/// The interfaces that anybody may import. The types are records: nothing to call.
const IMPORTS: [&str; 2] = ["log", "origin"];
const TYPES: &str = "types";

/// How much is said of what is wrong with a module. Compilers repeat names that stand in it, which may be of any text and 100 000 bytes long.
const WRONG: usize = 1 << 10;

/// The packages of WASI 0.2 that the closed WASI has.
const WASI: [&str; 6] = ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random", "wasi:sockets"];

/// What this host offers to policies, and asks of them.
#[derive(Debug)]
pub struct Offer {
    /// The package of the contract, with the one version of it.
    pub package: String,
    /// The hooks that are asked.
    pub hooks: [Hook; Hook::ALL.len()],
    /// The interfaces that a policy may import without a grant.
    pub imports: &'static [&'static str],
    /// Those for which its binding needs a grant.
    pub granted: &'static [&'static str],
    /// The packages of WASI 0.2 that are offered, closed.
    pub wasi: &'static [&'static str],
}

/// What this host offers.
pub fn offer() -> Offer {
    Offer {
        package: format!("{PACKAGE}@{VERSION}"),
        hooks: Hook::ALL,
        imports: &IMPORTS,
        granted: &GRANTED,
        wasi: &WASI,
    }
}

/// Why bytes are not a policy. Each is a sentence for whoever made the binding.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not WebAssembly.
    #[error("it is not WebAssembly: a module begins with `\\0asm` and a version that Pith knows")]
    NotWasm,
    /// Larger than the engine compiles.
    #[error("it has {size} bytes; at most {most} are accepted")]
    TooLarge {
        /// What it has.
        size: usize,
        /// What may be.
        most: usize,
    },
    /// A core module that does not describe a component.
    #[error(
        "it is a core module that cannot be made into a component: {0}. Build it with wit-bindgen for \
         wasm32-unknown-unknown, or as a component, for wasm32-wasip2 say"
    )]
    Wrap(String),
    /// Not valid, or beyond what the engine can hold.
    #[error("it cannot be compiled: {0}")]
    Compile(String),
    /// It imports something that nobody offers.
    #[error("it imports `{import}`, which Pith does not offer; a policy can import {offered}")]
    Import {
        /// What it imports.
        import: String,
        /// What there is.
        offered: &'static str,
    },
    /// It imports an offered interface in another shape or an unknown part of it.
    #[error("its imports do not fit what Pith offers: {0}")]
    Link(String),
    /// It imports what its binding does not grant.
    #[error(
        "it imports {imports}, which its binding does not grant; set `grants: {line}` in the binding to let it {words}"
    )]
    NotGranted {
        /// What is missing.
        imports: String,
        /// All that it needs, and what the binding grants already.
        line: Grants,
        /// What is missing, in words.
        words: String,
    },
    /// It was built against another version of the contract.
    #[error(
        "it was built against `{theirs}`; this host has `pith:policy@{VERSION}` and takes only the same minor version"
    )]
    Version {
        /// The interface with the version that it names.
        theirs: String,
    },
    /// There is nothing to ask it.
    #[error(
        "it exports no hook: one of `pith:policy/exemption`, `pith:policy/sidecar`, `pith:policy/naming` and `pith:policy/quota` in \
         version {VERSION}"
    )]
    NoHook,
    /// It exports an interface of the contract with another shape.
    #[error("it exports `pith:policy/{interface}` with another shape than version {VERSION} has: {reason}")]
    Shape {
        /// The interface.
        interface: &'static str,
        /// What differs.
        reason: String,
    },
    /// Instances would not fit into the engine's pool.
    #[error("an instance of it would need {0}")]
    Resources(String),
    /// The compiler gave up in a way that it should not have.
    #[error("the compiler panicked over it: {0}")]
    Panic(String),
}

const OFFERED: &str = "`pith:policy/log` and `pith:policy/origin`; where the binding grants them `object`, `clock`, `namespaces`, `storage-classes`, `claims` \
                       and `persistent-volumes`; and the cli, clocks, filesystem, io, random and sockets packages of WASI 0.2, all closed";

impl Engine {
    /// Makes bytes into a policy: compiles them, or takes the compiled code of an earlier run, and checks what it imports
    /// and exports. Its start code runs once, under the limits of any call.
    pub fn load(&self, bytes: &[u8], grants: &Grants) -> Result<Module, LoadError> {
        caught(|| load(self, bytes, grants))
    }
}

/// Some torn modules make `wit-component` panic. That costs the module and not the process.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(LoadError::Panic(said(words)))
    })
}

/// Words about a module, made fit for a sentence.
pub(super) fn said(words: impl Display) -> String {
    clean(&format!("{words:#}"), WRONG)
}

fn load(engine: &Engine, bytes: &[u8], grants: &Grants) -> Result<Module, LoadError> {
    let form = form(bytes)?;
    let most = engine.parts.options.largest_module_bytes;
    if bytes.len() > most {
        return Err(LoadError::TooLarge { size: bytes.len(), most });
    }
    let digest = Sha256::digest(bytes);
    let (component, from_cache) = compiled(engine, bytes, &digest.into())?;

    let kind = component.component_type();
    let mut imports: Vec<String> = kind.imports(&engine.parts.wasm).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<&str> = kind.exports(&engine.parts.wasm).map(|(name, _)| name).collect();
    let needs = check_imports(&imports, grants)?;
    // People read the list to see what a policy can reach, and records reach nothing.
    imports.retain(|import| !Interface::parse(import).is(PACKAGE, "types"));
    check_exports(&exports)?;
    let version = exports.iter().map(|export| Interface::parse(export)).find(|it| it.package == PACKAGE);
    let contract = format!("{PACKAGE}@{}", version.map_or(VERSION, |it| it.version));
    check_resources(engine, &component)?;
    let exports = Exports::find(&component);
    let hooks: BTreeSet<Hook> = Hook::ALL.into_iter().filter(|hook| exports.hook(*hook).is_some()).collect();
    if hooks.is_empty() {
        return Err(LoadError::NoHook);
    }

    let code = link(engine, &component, &imports)?;
    let digest = hex::encode(digest);
    let size = bytes.len();
    let image = component.image_range();
    let module = Module(Arc::new(Loaded {
        engine: engine.clone(),
        digest,
        size,
        form,
        hooks,
        contract,
        imports,
        from_cache,
        compiled_size: (image.end as usize).saturating_sub(image.start as usize),
        needs,
        exports,
        code,
    }));
    abi::check_shapes(&module)?;
    Ok(module)
}

/// The magic number is the same for both; then a core module says version 1, layer 0, and a component has layer 1.
fn form(bytes: &[u8]) -> Result<Form, LoadError> {
    match bytes.get(..8) {
        Some([b'\0', b'a', b's', b'm', 1, 0, 0, 0]) => Ok(Form::CoreModule),
        Some([b'\0', b'a', b's', b'm', _, _, 1, 0]) => Ok(Form::Component),
        _ => Err(LoadError::NotWasm),
    }
}

fn compiled(engine: &Engine, bytes: &[u8], digest: &[u8; 32]) -> Result<(Component, bool), LoadError> {
    let Parts { wasm, cache, options, .. } = &*engine.parts;
    if let Some(component) = cache.as_ref().and_then(|cache| cache.get(wasm, digest)) {
        return Ok((component, true));
    }
    let code = match &options.compiler {
        Some(compiler) => apart::compile(compiler, bytes)?,
        None => translate(options, bytes)?,
    };
    let component = native(wasm, &code).map_err(|error| LoadError::Compile(said(error)))?;
    if let Some(cache) = cache {
        cache.put(digest, &component);
    }
    Ok((component, false))
}

/// Makes code of bytes, with an engine of its own, which ends here: the compiler keeps its working memory, hundreds of megabytes for an
/// ordinary policy, for as long as its engine lives.
pub(super) fn translate(options: &EngineOptions, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let component = match form(bytes)? {
        Form::Component => Cow::Borrowed(bytes),
        Form::CoreModule => Cow::Owned(wrap(bytes)?),
    };
    let mut config = config(options);
    // Nothing runs in it, and so it needs no room for instances.
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    let code = wasmtime::Engine::new(&config).and_then(|compiler| compiler.precompile_component(&component));
    code.map_err(|error| LoadError::Compile(said(error)))
}

/// What `wasm-tools component new` does, so that the output of a plain `cargo build` is a policy.
fn wrap(module: &[u8]) -> Result<Vec<u8>, LoadError> {
    let encoder = ComponentEncoder::default().validate(true).module(module);
    encoder.and_then(|mut encoder| encoder.encode()).map_err(|error| LoadError::Wrap(said(error)))
}

/// What a binding must grant for these, where it does.
fn check_imports(imports: &[String], grants: &Grants) -> Result<Grants, LoadError> {
    for import in imports {
        let interface = Interface::parse(import);
        if interface.package == PACKAGE {
            interface.check_version(import)?;
        }
        match (interface.package, interface.name) {
            (PACKAGE, name) if name == TYPES || IMPORTS.contains(&name) || GRANTED.contains(&name) => {}
            (package, _) if WASI.contains(&package) => {}
            _ => return Err(LoadError::Import { import: said(import), offered: OFFERED }),
        }
    }
    let of_contract = || imports.iter().filter(|import| Interface::parse(import).package == PACKAGE);
    let needed = |import: &String| Grants::needed(Interface::parse(import).name);
    let missing: Vec<&String> = of_contract().filter(|import| !grants.cover(&needed(import))).collect();
    if missing.is_empty() {
        return Ok(Grants::all(of_contract().map(needed)));
    }
    let lacking = Grants::all(missing.iter().map(|import| needed(import)));
    let words = lacking.words();
    let line = Grants::all([grants.clone(), lacking].into_iter());
    let imports = missing.iter().map(|import| format!("`{import}`")).collect::<Vec<_>>().join(", ");
    let imports = said(imports);
    Err(LoadError::NotGranted { imports, line, words })
}

/// Other exports than those of the contract do no harm: nobody calls them.
fn check_exports(exports: &[&str]) -> Result<(), LoadError> {
    let of_contract = exports.iter().map(|export| (export, Interface::parse(export)));
    for (export, interface) in of_contract.filter(|(_, interface)| interface.package == PACKAGE) {
        interface.check_version(export)?;
    }
    Ok(())
}

fn check_resources(engine: &Engine, component: &Component) -> Result<(), LoadError> {
    let refuse = |what: String| Err(LoadError::Resources(what));
    let Some(required) = component.resources_required() else {
        return refuse("other modules, given at instantiation".into());
    };
    let most = engine.parts.options.largest_memory_bytes as u64;
    if required.num_memories > MEMORIES {
        return refuse(format!("{} memories; at most {MEMORIES} are possible", required.num_memories));
    }
    if required.num_tables > TABLES {
        return refuse(format!("{} tables; at most {TABLES} are possible", required.num_tables));
    }
    if let Some(pages) = required.max_initial_memory_size
        && pages.saturating_mul(64 << 10) > most
    {
        return refuse(format!("{pages} pages of memory from the start; at most {} are possible", most >> 16));
    }
    if let Some(elements) = required.max_initial_table_size
        && elements > TABLE_ELEMENTS as u64
    {
        return refuse(format!("a table of {elements} elements; at most {TABLE_ELEMENTS} are possible"));
    }
    Ok(())
}

fn link(engine: &Engine, component: &Component, imports: &[String]) -> Result<Code, LoadError> {
    let failed = |error: wasmtime::Error| LoadError::Link(said(error));
    if imports.iter().any(|import| import.starts_with("wasi:")) {
        let linker = engine.wasi_linker().map_err(failed)?;
        return linker.instantiate_pre(component).map(Code::Wasi).map_err(failed);
    }
    engine.parts.plain.instantiate_pre(component).map(Code::Plain).map_err(failed)
}

/// The name of an import or export, as in `pith:policy/log@0.1.0`.
struct Interface<'a> {
    package: &'a str,
    name: &'a str,
    version: &'a str,
}

impl<'a> Interface<'a> {
    fn parse(full: &'a str) -> Interface<'a> {
        let (path, version) = full.split_once('@').unwrap_or((full, ""));
        let (package, name) = path.split_once('/').unwrap_or((path, ""));
        Interface { package, name, version }
    }

    fn is(&self, package: &str, name: &str) -> bool {
        self.package == package && self.name == name
    }

    /// Until 1.0.0, versions fit each other if major and minor number are the same.
    fn check_version(&self, full: &str) -> Result<(), LoadError> {
        let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
        if minor(self.version) == minor(VERSION) {
            return Ok(());
        }
        Err(LoadError::Version { theirs: said(full) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wasm::EngineOptions;

    fn engine() -> Engine {
        let options = EngineOptions { concurrent_calls: 1, largest_module_bytes: 1 << 10, ..EngineOptions::default() };
        Engine::new(options).unwrap()
    }

    /// Loads bytes and compares the sentence; one that ends in `…` is a beginning.
    #[track_caller]
    fn check_refused(bytes: &[u8], expected: &str) {
        let sentence = engine().load(bytes, &Grants::default()).unwrap_err().to_string();
        match expected.strip_suffix('…') {
            Some(beginning) => assert!(sentence.starts_with(beginning), "{sentence}"),
            None => assert_eq!(sentence, expected),
        }
    }

    const NOT_WASM: &str = "it is not WebAssembly: a module begins with `\\0asm` and a version that Pith knows";

    #[test]
    fn bytes_that_are_no_policy_are_refused_with_a_sentence() {
        check_refused(b"", NOT_WASM);
        check_refused(b"\0asm", NOT_WASM);
        check_refused(b"(module)", NOT_WASM);
        check_refused(b"\0asm\x02\0\0\0", NOT_WASM);
        check_refused(b"\0asm\x0d\0\x02\0", NOT_WASM);
        check_refused(&[0; 2000], NOT_WASM);
        check_refused(b"\0asm\x01\0\0\0", "it exports no hook: …");
        check_refused(b"\0asm\x01\0\0\0\x7f", "it is a core module that cannot be made into a component: …");
        check_refused(b"\0asm\x0c\0\x01\0", "it cannot be compiled: …");
        check_refused(b"\0asm\x0d\0\x01\0\xff", "it cannot be compiled: …");
        check_refused(b"\0asm\x0d\0\x01\0", "it exports no hook: …");
    }

    #[test]
    fn module_beyond_the_largest_is_refused_before_it_is_compiled() {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        bytes.resize(1025, 0);
        check_refused(&bytes, "it has 1025 bytes; at most 1024 are accepted");
    }

    #[test]
    fn versions_fit_if_major_and_minor_number_do() {
        let fits = |version: &str| Interface { package: PACKAGE, name: "log", version }.check_version("").is_ok();
        let versions = ["0.1.0", "0.1.7", "0.2.0", "1.1.0", "0.1", "", "0.1.0.0"];
        assert_eq!(versions.map(fits), [true, true, false, false, false, false, false]);
    }

    #[test]
    fn names_of_interfaces_fall_into_their_parts() {
        let parts = |full| {
            let Interface { package, name, version } = Interface::parse(full);
            [package, name, version]
        };
        assert_eq!(parts("pith:policy/log@0.1.0"), ["pith:policy", "log", "0.1.0"]);
        assert_eq!(parts("run"), ["run", "", ""]);
        assert_eq!(parts(""), ["", "", ""]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// A core module or a component with a header and noise is refused; it neither panics nor loads.
        #[test]
        fn noise_is_refused(component: bool, noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let header: &[u8] = if component { b"\0asm\x0d\0\x01\0" } else { b"\0asm\x01\0\0\0" };
            let refused = engine().load(&[header, &noise].concat(), &Grants::default()).unwrap_err();
            prop_assert!(!matches!(refused, LoadError::Panic(_)), "{refused}");
        }
    }
}
