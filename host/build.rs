//! Makes Rust of `proto/csi/csi.proto`, without `protoc`.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/csi");
    println!("cargo::rerun-if-changed={}", folder.join("csi.proto").display());
    let descriptor = protox::compile(["csi.proto"], [folder])?;
    tonic_prost_build::configure()
        // For the client, whose channel is made in cli/csi.rs.
        .build_transport(false)
        // A handler hands itself to the task that carries on when its caller has gone.
        .use_arc_self(true)
        // Maps that are the same every time.
        .btree_map(".")
        // Requests carry secrets: what cannot be printed cannot be logged.
        .skip_debug(["."])
        .compile_fds(descriptor)?;
    Ok(())
}
