//! A plain HTTP client over TLS, one connection at a time, so that a test or a load says itself what is on the wire.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The version of HTTP to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, which API servers speak to webhooks.
    Http1,
    /// HTTP/2.
    Http2,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    address: SocketAddr,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An answer, with its whole body.
#[derive(Debug)]
pub struct Answer {
    /// The code.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Opens a TLS connection to a server that is called `localhost`, and trusts the CA of this PEM file only.
pub async fn tls(address: SocketAddr, ca: &Path, protocol: Protocol) -> Result<TlsStream<TcpStream>> {
    tls_as(ServerName::try_from("localhost")?, address, ca, protocol).await
}

async fn tls_as(
    name: ServerName<'static>,
    address: SocketAddr,
    ca: &Path,
    protocol: Protocol,
) -> Result<TlsStream<TcpStream>> {
    pith::install_crypto();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).context("reading the CA certificate")?)?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}

impl Client {
    /// Connects to a server that is called `localhost`.
    pub async fn connect(address: SocketAddr, ca: &Path, protocol: Protocol) -> Result<Client> {
        Client::over(tls(address, ca, protocol).await?, address, protocol).await
    }

    /// Connects to a server that is called by its address, as an API server is.
    pub async fn connect_by_address(address: SocketAddr, ca: &Path) -> Result<Client> {
        let name = ServerName::IpAddress(address.ip().into());
        let stream = tls_as(name, address, ca, Protocol::Http1).await?;
        Client::over(stream, address, Protocol::Http1).await
    }

    async fn over(stream: TlsStream<TcpStream>, address: SocketAddr, protocol: Protocol) -> Result<Client> {
        let io = TokioIo::new(stream);
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Client { sender, address })
    }

    /// Posts JSON to `/mutate`.
    pub async fn review(&mut self, body: impl Into<Bytes>) -> Result<Answer> {
        self.send(self.request("POST", "/mutate", "application/json", body.into())?).await
    }

    /// A request to this server.
    pub fn request(&self, method: &str, path: &str, kind: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let builder = Request::builder().method(method).header(CONTENT_TYPE, kind);
        Ok(match self.sender {
            Sender::Http1(_) => builder.uri(path).header("host", self.address.to_string()),
            Sender::Http2(_) => builder.uri(format!("https://localhost{path}")),
        }
        .body(Full::new(body))?)
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let status = response.status();
        Ok(Answer { status, body: response.into_body().collect().await?.to_bytes() })
    }
}

/// Gets a path over plain HTTP/1.1, as a probe or Prometheus does.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    let io = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = http1::handshake(io).await?;
    tokio::spawn(connection);
    let request = Request::builder().uri(path).header("host", address.to_string()).body(Full::new(Bytes::new()))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok(Answer { status, body: response.into_body().collect().await?.to_bytes() })
}
