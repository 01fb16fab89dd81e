//! The Container Storage Interface.

/// Made from `proto/csi/csi.proto` by `build.rs`. Nothing in it can be printed: a request carries secrets.
pub mod proto {
    #![expect(clippy::allow_attributes_without_reason, reason = "the generator has a style of its own")]
    tonic::include_proto!("csi.v1");
}
