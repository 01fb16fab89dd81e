//! The gRPC server on its Unix socket: who may connect, how it ends.

use std::fs;
use std::future::{Future, pending};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, fchmod};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::Csi;
use super::call::Calls;
use super::controller::Controller;
use super::identity::Identity;
use super::in_flight::InFlight;
use super::node::Node;
use super::proto::controller_server::ControllerServer;
use super::proto::identity_server::IdentityServer;
use super::proto::node_server::NodeServer;
use crate::provisioner::Volumes;

/// Connections that wait to be accepted; a sidecar has one.
const BACKLOG: u32 = 64;
/// Requests that one connection may have open.
const STREAMS: u32 = 256;
/// How long somebody may take to answer on a socket that is in the way.
const PATIENCE: Duration = Duration::from_secs(2);

/// A socket that listens. Its file goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: SocketFile,
}

/// Listens on a path, for the owner only: whoever can write to the socket can have volumes deleted.
///
/// A socket that nobody answers on is what a killed process left, and is replaced. Anything else in the way is an error.
pub async fn bind(path: &Path) -> Result<Listener> {
    remove_stale(path).await?;
    let place = || format!("listening on the socket {}", path.display());
    let socket = UnixSocket::new_stream().with_context(place)?;
    // Before it has a name, so that there is no moment at which others may connect. Linux gives the file this mode.
    fchmod(&socket, Mode::RUSR | Mode::WUSR).with_context(place)?;
    socket.bind(path).with_context(place)?;
    let file = SocketFile::of(path).with_context(place)?;
    Ok(Listener { socket: socket.listen(BACKLOG).with_context(place)?, file })
}

async fn remove_stale(path: &Path) -> Result<()> {
    let shown = path.display();
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.with_context(|| format!("looking at {shown}"))?,
    };
    if !metadata.file_type().is_socket() {
        bail!("{shown} is in the way of the socket, and is none: give csi.socket another path, or remove it");
    }
    match timeout(PATIENCE, refused(path)).await {
        Ok(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("removing the socket {shown}, which nobody answers on"))
        }
        Ok(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(error) => Err(error).with_context(|| format!("asking who listens on {shown}")),
        // Who does not even accept is there all the same.
        Err(_) => bail!("another process listens on {shown}: stop it, or give csi.socket another path"),
    }
}

/// Connects until that fails. What a process has forked when it was killed holds its socket for a moment longer, and closes the
/// connection when it goes.
async fn refused(path: &Path) -> std::io::Error {
    loop {
        match UnixStream::connect(path).await {
            Ok(mut connection) => {
                let mut said = [0; 64];
                while let Ok(1..) = connection.read(&mut said).await {}
            }
            Err(error) => return error,
        }
    }
}

/// The socket's file, removed when dropped unless another process has put its own there meanwhile.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> std::io::Result<SocketFile> {
        Ok(SocketFile { path: path.into(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Serves until `stop`; then for as long as `drain` at most until connections have ended, and as long again until calls have
/// that nobody waits for any more.
pub async fn serve<V: Volumes>(
    listener: Listener,
    csi: Csi<V>,
    stop: impl Future<Output = ()>,
    drain: Duration,
) -> Result<()> {
    let Csi { driver, node_id, volumes, max_calls, metrics } = csi;
    let Listener { socket, file } = listener;
    let calls = Calls::new(&driver, metrics);
    let controller = Controller { volumes, in_flight: InFlight::new(max_calls), calls: calls.clone() };
    let server = Server::builder()
        .max_concurrent_streams(STREAMS)
        .add_service(IdentityServer::new(Identity { driver, calls: calls.clone() }))
        .add_service(ControllerServer::new(controller))
        .add_service(NodeServer::new(Node { node_id, calls: calls.clone() }));

    let (told, telling) = oneshot::channel();
    let stop = async {
        stop.await;
        let _ = told.send(());
    };
    let overdue = async {
        match telling.await {
            Ok(()) => sleep(drain).await,
            // The server has ended by itself, which the other branch sees.
            Err(_) => pending().await,
        }
    };
    tokio::select! {
        ended = server.serve_with_incoming_shutdown(UnixListenerStream::new(socket), stop) => ended.context("serving CSI")?,
        () = overdue => tracing::warn!("CSI connections that did not end are cut"),
    }
    drop(file);
    if timeout(drain, calls.finish()).await.is_err() {
        tracing::warn!("CSI calls that did not end are cut: what they began is carried on when they are repeated");
    }
    Ok(())
}
