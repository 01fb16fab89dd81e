//! `pith-guard`: looks after the mounts of a pod's JuiceFS clients, and unmounts what they leave behind, in whatever state they are.
//!
//! It is a container of each injected pod, started first and so stopped last, and a short-lived pod of the controller's for what
//! the containers of a pod can't do any more. Where the cluster has no native sidecars, it also sees to it that no application
//! takes the bare directory for the file system. It starts nothing, reads no configuration and touches no mount but those of FUSE.

mod connection;
mod hold;
mod mountinfo;
mod stand_in;
mod unmount;
mod wait;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;

use crate::connection::{Connections, PATIENCE};
use crate::hold::Hold;
use crate::unmount::Places;
use crate::wait::Wait;

/// What it is told to do.
#[derive(Debug, PartialEq)]
enum Order {
    /// Look after paths until SIGTERM or SIGINT, then unmount what is mounted there.
    Hold(Hold),
    /// Unmount what is mounted at these directories or below.
    Clean(Vec<PathBuf>),
    /// Put this program into a directory, for containers of other images.
    Copy(PathBuf),
    /// Wait until something is mounted at paths.
    Wait(Wait),
}

/// Why something may still be mounted.
#[derive(Debug, Error)]
enum Failure {
    #[error(
        "say `pith-guard hold [--cover] [--patience SECONDS] [--until FILE] PATH…`, which looks after these paths and unmounts there \
         once it is told to end or the file says `true`, and with --cover keeps everybody from using the directories before a \
         client mounts there, `pith-guard wait [--cover] [--patience SECONDS] PATH…`, which waits for these clients, or for covers, \
         `pith-guard clean DIR…`, which unmounts at these directories and below, or `pith-guard copy DIR`, which copies itself"
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
    #[error("{} can't be covered: {why}", .at.display())]
    Bare { at: PathBuf, why: io::Error },
    #[error("the program can't be copied to {}: {why}", .at.display())]
    Copy { at: PathBuf, why: io::Error },
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
        let (mut cover, mut patience, mut until) = (false, None, None);
        loop {
            if arguments.next_if(|it| it == "--cover").is_some() {
                cover = true;
            } else if arguments.next_if(|it| it == "--patience").is_some() {
                let seconds = arguments.next().and_then(|it| it.to_str()?.parse().ok()).ok_or(Failure::Usage)?;
                patience = Some(Duration::from_secs(seconds));
            } else if arguments.next_if(|it| it == "--until").is_some() {
                until = Some(checked(arguments.next().ok_or(Failure::Usage)?.into())?);
            } else {
                break;
            }
        }
        let mut paths = arguments.map(PathBuf::from).map(checked).collect::<Result<Vec<_>, _>>()?;
        match (order.to_str(), cover, patience, until) {
            _ if paths.is_empty() => Err(Failure::Usage),
            (Some("hold"), cover, patience, until) => {
                Ok(Order::Hold(Hold { paths, cover, patience: patience.unwrap_or(PATIENCE), until }))
            }
            (Some("wait"), cover, patience, None) => {
                Ok(Order::Wait(Wait { paths, cover, patience: patience.unwrap_or(wait::PATIENCE) }))
            }
            (Some("clean"), false, None, None) => Ok(Order::Clean(paths)),
            (Some("copy"), false, None, None) if paths.len() == 1 => Ok(Order::Copy(paths.remove(0))),
            _ => Err(Failure::Usage),
        }
    }

    /// Does it, and says what was done.
    fn carry_out(self) -> Result<String, Failure> {
        match self {
            Order::Hold(hold) => hold.until_told().map(|done| done.to_string()),
            Order::Clean(directories) => {
                unmount::all(Places::Below(directories), Connections::default(), PATIENCE).map(|done| done.to_string())
            }
            Order::Copy(folder) => copy(&folder),
            Order::Wait(wait) => Ok(wait.until_mounted()),
        }
    }
}

/// Puts this program into a folder, under its name and for everybody to run.
fn copy(folder: &Path) -> Result<String, Failure> {
    let at = folder.join(env!("CARGO_PKG_NAME"));
    match std::fs::copy("/proc/self/exe", &at) {
        Ok(_) => Ok(format!("copied to {}", at.display())),
        Err(why) => Err(Failure::Copy { at, why }),
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

/// Paths as they stand in a sentence.
fn named(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_word_and_paths() {
        let read = |words: &[&str]| Order::read(words.iter().map(OsString::from));
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let hold = |named: &[&str], cover, patience, until: Option<&str>| {
            Order::Hold(Hold { paths: paths(named), cover, patience, until: until.map(PathBuf::from) })
        };
        let waiting = |cover, patience| Order::Wait(Wait { paths: paths(&["/jfs/a"]), cover, patience });
        assert_eq!(read(&["hold", "/jfs/a", "/jfs/b"]).unwrap(), hold(&["/jfs/a", "/jfs/b"], false, PATIENCE, None));
        let patient = read(&["hold", "--cover", "--patience", "28", "--until", "/etc/told", "/jfs/a"]).unwrap();
        assert_eq!(patient, hold(&["/jfs/a"], true, Duration::from_secs(28), Some("/etc/told")));
        assert_eq!(read(&["clean", "/pods"]).unwrap(), Order::Clean(paths(&["/pods"])));
        assert_eq!(read(&["copy", "/pith"]).unwrap(), Order::Copy("/pith".into()));
        assert_eq!(read(&["wait", "/jfs/a"]).unwrap(), waiting(false, wait::PATIENCE));
        assert_eq!(
            read(&["wait", "--cover", "--patience", "5", "/jfs/a"]).unwrap(),
            waiting(true, Duration::from_secs(5))
        );
        for wrong in [
            &[] as &[&str],
            &["hold"],
            &["clean"],
            &["copy", "/pith", "/pods"],
            &["/jfs/a"],
            &["--help", "/jfs/a"],
            &["hold", "--patience", "x", "/jfs/a"],
            &["hold", "--patience", "5"],
            &["hold", "--until", "/jfs/a"],
            &["wait", "--until", "/etc/told", "/jfs/a"],
            &["clean", "--patience", "5", "/jfs/a"],
            &["clean", "--cover", "/jfs/a"],
        ] {
            assert!(matches!(read(wrong), Err(Failure::Usage)), "{wrong:?}");
        }
        for path in ["", "/", "jfs", "/jfs/../etc", "./jfs"] {
            assert!(matches!(read(&["clean", path]), Err(Failure::Path(_))), "{path}");
        }
    }
}
