//! The keys of a claim's Secret, which the controller writes and the sidecar reads.
//!
//! They are names of variables, because all of it is the client's environment: beside these, it holds what the file system's Secret
//! says in `envs`.

/// The metadata engine's URL, without a password.
pub const META_URL: &str = "METAURL";
/// The metadata engine's password; empty where it has none.
pub const META_PASSWORD: &str = "META_PASSWORD";
/// The volume's directory, from the root of the file system.
pub const SUBDIR: &str = "SUBDIR";

/// The private key of a file system, where a pod needs it.
pub const RSA_KEY: &str = "ENCRYPT_RSA_KEY";
/// The configuration of the Enterprise Edition's client, where the file system's Secret brings it.
pub const CONFIGURATION: &str = "CLIENT_CONFIGURATION";

/// The key of the value of an option of the command that prepares a client in the pod: `OPTION_TRASH_DAYS`.
pub fn option(name: &str) -> String {
    format!("OPTION_{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// Those of every claim: what the sidecar itself uses, and nobody else may set.
pub const ALL: [&str; 3] = [META_URL, META_PASSWORD, SUBDIR];
