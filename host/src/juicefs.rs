//! The file systems that volumes lie in.

pub mod record_key;
pub mod volumes;
