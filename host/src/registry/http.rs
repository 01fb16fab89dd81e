//! HTTPS with bounds: on time, on bodies, and on where a server may send its clients.
//!
//! Who runs a registry, or stands in its place, answers what it likes. A redirect to an address that only this machine can reach would
//! make Pith ask that, so redirects go nowhere but to where anybody could ask. There is no plain HTTP, and proxies of the environment are
//! not used: nothing but `config.rs` reads that.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustls::crypto::ring;
use ureq::http::header::{AUTHORIZATION, HeaderMap, HeaderName, LOCATION};
use ureq::http::{Method, Request, Response, StatusCode, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, AsSendBody, Body};

/// How often one request may be sent on.
const MOST_REDIRECTS: usize = 5;
/// How long one connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// The most bytes of headers.
const LARGEST_HEAD: usize = 32 << 10;

/// Why nothing was fetched, for a reason that may be gone later: a server that is not there, is busy, or does not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub(super) String);

/// What one fetch asks with.
#[derive(Debug)]
pub(super) struct Http {
    open: Agent,
    guarded: Agent,
    /// The server that an operator named.
    home: String,
    until: Instant,
}

impl Http {
    /// For a server (`host` or `host:port`), which may be anywhere. Its certificate is of one of these authorities, and of Mozilla's list where
    /// there are none.
    pub(super) fn new(home: &str, ca: Option<&[u8]>, until: Instant) -> Result<Http> {
        let roots = match ca {
            None => RootCerts::WebPki,
            Some(pem) => {
                let blocks =
                    pem::parse_many(pem).map_err(|error| anyhow!("the CA certificates are no PEM: {error}"))?;
                let of_certificates = blocks.iter().filter(|it| it.tag() == "CERTIFICATE");
                let certificates: Vec<_> =
                    of_certificates.map(|it| Certificate::from_der(it.contents()).to_owned()).collect();
                ensure!(!certificates.is_empty(), "the CA certificates are none: the PEM text has no `CERTIFICATE`");
                RootCerts::new_with_certs(&certificates)
            }
        };
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(std::sync::Arc::new(ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT))
            .max_response_header_size(LARGEST_HEAD)
            .user_agent(concat!("pith/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        let guarded = Agent::with_parts(config.clone(), DefaultConnector::default(), Guarded::default());
        Ok(Http { open: Agent::new_with_config(config), guarded, home: authority(home), until })
    }

    /// Asks the server, and follows where it is sent to. The header that names somebody goes to the server itself alone.
    pub(super) fn ask(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> Result<Response<Body>> {
        self.ask_as(&self.home, method, uri, headers, body)
    }

    /// The same, where that header is for a host that the server names.
    pub(super) fn ask_as(
        &self,
        trusted: &str,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> Result<Response<Body>> {
        let mut uri = uri.clone();
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.ask_once(trusted, method, &uri, headers, body)?;
            // What was sent is not sent again to somewhere else.
            let is_redirect = answer.status().is_redirection() && answer.headers().contains_key(LOCATION);
            if !is_redirect || body.is_some() {
                return Ok(answer);
            }
            uri = location(&uri, &answer)?;
        }
        bail!("{} sends clients on more than {MOST_REDIRECTS} times", self.home)
    }

    fn ask_once(
        &self,
        trusted: &str,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> Result<Response<Body>> {
        let place = host(uri);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers.iter().filter(|(name, _)| place == trusted || *name != AUTHORIZATION) {
            request = request.header(name, value);
        }
        let agent = if place == self.home { &self.open } else { &self.guarded };
        let sent = match body {
            None => self.run(agent, request.body(())?),
            Some(body) => self.run(agent, request.body(body)?),
        };
        let answer = sent.map_err(|error| said(&place, &error))?;
        let status = answer.status();
        if status.is_server_error() || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status) {
            return Err(Unavailable(format!("{place} answers {status}")).into());
        }
        Ok(answer)
    }

    fn run<B: AsSendBody>(&self, agent: &Agent, request: Request<B>) -> Result<Response<Body>, ureq::Error> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ureq::Error::Timeout(ureq::Timeout::Global));
        }
        agent.run(agent.configure_request(request).timeout_global(Some(left)).build())
    }

    /// The address of something on the server.
    pub(super) fn at(&self, path: &str) -> Result<Uri> {
        format!("https://{}{path}", self.home).parse().with_context(|| format!("{path} is no path"))
    }

    /// A header whose absence is an error.
    pub(super) fn header(answer: &Response<Body>, name: &HeaderName) -> Result<String> {
        let value = answer.headers().get(name).with_context(|| format!("its answer has no `{name}`"))?;
        Ok(value.to_str().with_context(|| format!("its `{name}` is no text"))?.to_string())
    }

    /// The body of an answer, of which no more is read than it may have.
    pub(super) fn body(answer: Response<Body>, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = answer.into_body().into_reader().take(most + 1).read_to_end(&mut bytes);
        read.map_err(|error| match ureq::Error::from(error) {
            ureq::Error::Timeout(_) => Unavailable("the answer does not come in time".into()),
            error => Unavailable(format!("reading the answer: {error}")),
        })?;
        ensure!(bytes.len() as u64 <= most, "the answer has more than {most} bytes");
        Ok(bytes)
    }
}

/// Where an answer sends its client.
pub(super) fn location(from: &Uri, answer: &Response<Body>) -> Result<Uri> {
    let location = Http::header(answer, &LOCATION)?;
    next(from, &location).with_context(|| format!("{} sends clients on", host(from)))
}

/// Of what is refused only the host is said: a query may have a password in it.
fn next(from: &Uri, location: &str) -> Result<Uri> {
    let is_path = location.starts_with('/') && !location.starts_with("//");
    let location = if is_path { format!("https://{}{location}", host(from)) } else { location.to_string() };
    let uri: Uri = location.parse().map_err(|_| anyhow!("to something that is no address"))?;
    let host = host(&uri);
    ensure!(uri.scheme_str() == Some("https"), "to {host} without TLS");
    ensure!(uri.authority().is_some_and(|it| !it.as_str().contains('@')), "to an address with a user's name");
    Ok(uri)
}

/// A host in one form, without the port that is meant anyway.
fn authority(of: &str) -> String {
    let of = of.to_ascii_lowercase();
    of.strip_suffix(":443").map(String::from).unwrap_or(of)
}

/// The host of an address, with its port.
pub(super) fn host(uri: &Uri) -> String {
    uri.authority().map(|it| authority(it.as_str())).unwrap_or_default()
}

/// An error without anything of the address that was asked, which may be a secret.
fn said(place: &str, error: &ureq::Error) -> anyhow::Error {
    match error {
        ureq::Error::Other(inner) if inner.is::<Refused>() => anyhow!("{place} is refused: {inner}"),
        ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_) => anyhow!("{place} is no address that can be asked"),
        ureq::Error::Io(io) if io.to_string().contains("UnknownIssuer") => {
            anyhow!("{place} has a certificate of an unknown authority: name its CA with `ca` (or --ca)")
        }
        ureq::Error::Timeout(_) => Unavailable(format!("{place} does not answer in time")).into(),
        error => Unavailable(format!("{place} cannot be asked: {error}")).into(),
    }
}

/// Finds addresses, and refuses those that only this machine, or its cloud, could be reached at. It is what is connected to that is
/// looked at, so a name that first leads elsewhere gains nothing.
#[derive(Debug, Default)]
struct Guarded(DefaultResolver);

#[derive(Debug, thiserror::Error)]
#[error("a server sends clients to {0}, which no server has a reason to")]
struct Refused(IpAddr);

impl Resolver for Guarded {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.0.resolve(uri, config, timeout)?;
        match found.iter().map(|it| it.ip()).find(|it| is_inner(*it)) {
            Some(inner) => Err(ureq::Error::Other(Box::new(Refused(inner)))),
            None => Ok(found),
        }
    }
}

/// Loopback, link-local, and where clouds tell machines their secrets. Private networks are not: registries keep their blobs there.
fn is_inner(address: IpAddr) -> bool {
    const ALIBABA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    const AZURE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
    const AWS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address.to_canonical() {
        IpAddr::V4(it) => {
            // All of 0.0.0.0/8 means this machine.
            let is_this = it.octets()[0] == 0 || it.is_loopback() || it.is_link_local();
            is_this || it.is_broadcast() || it.is_multicast() || [ALIBABA, AZURE].contains(&it)
        }
        IpAddr::V6(it) => {
            // Addresses of IPv4 within IPv6: what they lead to is what counts.
            let inner = match it.segments() {
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] if (high, low) != (0, 1) => {
                    is_inner(IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))))
                }
                _ => false,
            };
            inner
                || it.is_loopback()
                || it.is_unspecified()
                || it.is_unicast_link_local()
                || it.is_multicast()
                || it == AWS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_machine_or_its_cloud_can_reach_is_inner() {
        for (address, inner) in [
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("0.0.0.0", true),
            ("169.254.169.254", true),
            ("100.100.100.200", true),
            ("168.63.129.16", true),
            ("224.0.0.1", true),
            ("::1", true),
            ("::", true),
            ("fe80::1", true),
            ("fd00:ec2::254", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("::127.0.0.1", true),
            ("64:ff9b::169.254.169.254", true),
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("fd00::1", false),
            ("140.82.121.34", false),
            ("2606:50c0:8000::154", false),
        ] {
            assert_eq!(is_inner(address.parse().expect(address)), inner, "{address}");
        }
    }

    #[test]
    fn clients_are_sent_on_by_https_only_and_no_query_is_said() {
        let from: Uri = "https://Registry.example:443/v2/".parse().expect("an address");
        for (location, expected) in [
            ("/v2/a/blobs/uploads/1?_state=x", Ok("https://registry.example/v2/a/blobs/uploads/1?_state=x")),
            ("https://cdn.example/blob?signature=s3cret", Ok("https://cdn.example/blob?signature=s3cret")),
            ("http://cdn.example/blob?signature=s3cret", Err("to cdn.example without TLS")),
            ("//cdn.example/blob", Err("without TLS")),
            ("https://user:s3cret@cdn.example/", Err("with a user's name")),
            ("file:///etc/passwd", Err("no address")),
            ("blob?signature=s3cret", Err("")),
        ] {
            match (next(&from, location), expected) {
                (Ok(uri), Ok(expected)) => assert_eq!(uri.to_string(), expected),
                (Err(error), Err(words)) => {
                    let error = format!("{error:#}");
                    assert!(error.contains(words) && !error.contains("s3cret"), "{location}: {error}");
                }
                (next, _) => panic!("{location}: {next:?}"),
            }
        }
    }
}
