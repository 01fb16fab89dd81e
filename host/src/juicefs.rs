//! The file systems that volumes lie in.

pub mod volumes;
