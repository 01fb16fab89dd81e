//! `pith-guard`: looks after the mounts of a pod's JuiceFS clients, and unmounts what they leave behind, in whatever state they are.
//!
//! It is a container of each injected pod, started first and so stopped last, and a short-lived pod of the controller's for what
//! the containers of a pod can't do any more. It starts nothing, reads no configuration and touches no mount but those of FUSE.

mod connection;
mod hold;
mod mountinfo;
mod stand_in;
mod unmount;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Component, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;

use crate::connection::{Connections, PATIENCE};
use crate::unmount::{Done, Places};

/// What it is told to do.
#[derive(Debug, PartialEq)]
enum Order {
    /// Look after these paths until SIGTERM or SIGINT, then unmount what is mounted there, and give clients this long to end.
    Hold(Vec<PathBuf>, Duration),
    /// Unmount what is mounted at these directories or below.
    Clean(Vec<PathBuf>),
}

/// Why something may still be mounted.
#[derive(Debug, Error)]
enum Failure {
    #[error(
        "say `pith-guard hold [--patience SECONDS] PATH…`, which looks after these paths and unmounts there once it is told to \
             end, or `pith-guard clean DIR…`, which unmounts at these directories and below"
    )]
    Usage,
    #[error("`{0}` can't be guarded: name an absolute path without `..` that is not the root")]
    Path(PathBuf),
    #[error("SIGTERM can't be waited for: {0}")]
    Signals(nix::Error),
    #[error("/proc/self/mountinfo can't be read, so what is mounted is not known: {0}")]
    Table(io::Error),
    #[error("{} is still mounted: {why}", .at.display())]
    Left { at: PathBuf, why: String },
}

fn main() -> ExitCode {
    let told = Order::read(std::env::args_os().skip(1)).and_then(Order::carry_out);
    // Whoever reads it may be gone first, which changes nothing about what was done.
    match told {
        Ok(done) => {
            let _ = writeln!(io::stdout(), "{done}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

impl Order {
    fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Order, Failure> {
        let mut arguments = arguments.into_iter().peekable();
        let order = arguments.next().ok_or(Failure::Usage)?;
        let mut patience = None;
        if order == "hold" && arguments.next_if(|it| it == "--patience").is_some() {
            let seconds = arguments.next().and_then(|it| it.to_str()?.parse().ok()).ok_or(Failure::Usage)?;
            patience = Some(Duration::from_secs(seconds));
        }
        let paths = arguments.map(PathBuf::from).map(checked).collect::<Result<Vec<_>, _>>()?;
        match order.to_str() {
            _ if paths.is_empty() => Err(Failure::Usage),
            Some("hold") => Ok(Order::Hold(paths, patience.unwrap_or(PATIENCE))),
            Some("clean") => Ok(Order::Clean(paths)),
            _ => Err(Failure::Usage),
        }
    }

    fn carry_out(self) -> Result<Done, Failure> {
        match self {
            Order::Hold(paths, patience) => hold::paths(paths, patience),
            Order::Clean(directories) => unmount::all(Places::Below(directories), Connections::default(), PATIENCE),
        }
    }
}

/// Paths are compared with those of the kernel as they are: to look at one could mean to wait for a client that is gone.
fn checked(path: PathBuf) -> Result<PathBuf, Failure> {
    let mut components = path.components();
    let absolute = components.next() == Some(Component::RootDir);
    let rest: Vec<Component<'_>> = components.collect();
    let plain = !rest.is_empty() && rest.iter().all(|it| matches!(it, Component::Normal(_)));
    if absolute && plain { Ok(path) } else { Err(Failure::Path(path)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_word_and_paths() {
        let read = |words: &[&str]| Order::read(words.iter().map(OsString::from));
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(read(&["hold", "/jfs/a", "/jfs/b"]).unwrap(), Order::Hold(paths(&["/jfs/a", "/jfs/b"]), PATIENCE));
        let patient = read(&["hold", "--patience", "28", "/jfs/a"]).unwrap();
        assert_eq!(patient, Order::Hold(paths(&["/jfs/a"]), Duration::from_secs(28)));
        assert_eq!(read(&["clean", "/pods"]).unwrap(), Order::Clean(paths(&["/pods"])));
        for wrong in [
            &[] as &[&str],
            &["hold"],
            &["clean"],
            &["/jfs/a"],
            &["--help", "/jfs/a"],
            &["hold", "--patience", "x", "/jfs/a"],
            &["hold", "--patience", "5"],
        ] {
            assert!(matches!(read(wrong), Err(Failure::Usage)), "{wrong:?}");
        }
        for path in ["", "/", "jfs", "/jfs/../etc", "./jfs"] {
            assert!(matches!(read(&["clean", path]), Err(Failure::Path(_))), "{path}");
        }
    }
}
