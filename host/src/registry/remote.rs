//! A registry, as the OCI distribution specification has it.

use std::cell::RefCell;

use anyhow::{Context, Result, anyhow, bail, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::Body;
use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use ureq::http::{Method, Response, StatusCode, Uri};

use super::credentials::{Challenge, Credentials, DockerConfig};
use super::http::{self, Http};
use super::manifest::{Descriptor, MANIFEST, READABLE, read_index};
use super::reference::{Digest, Reference};
use super::{LARGEST_MANIFEST, Store, fallback_tag};

/// The largest answer to a question for a token.
const LARGEST_TOKEN: u64 = 64 << 10;
/// How much of the sentence is kept that a registry refuses with.
const LARGEST_REFUSAL: u64 = 16 << 10;
/// Docker's own registry is at another host than its name says.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// A repository of a registry, for one pull or push.
#[derive(Debug)]
pub(super) struct Remote<'a> {
    http: Http,
    reference: &'a Reference,
    config: &'a DockerConfig,
    actions: &'static str,
    /// What the registry asked for, once it did.
    authorization: RefCell<Option<HeaderValue>>,
}

impl<'a> Remote<'a> {
    pub(super) fn new(
        reference: &'a Reference,
        config: &'a DockerConfig,
        ca: Option<&[u8]>,
        until: std::time::Instant,
        actions: &'static str,
    ) -> Result<Remote<'a>> {
        let host = if reference.registry == HUB.0 { HUB.1 } else { &reference.registry };
        let (http, authorization) = (Http::new(host, ca, until)?, RefCell::default());
        Ok(Remote { http, reference, config, actions, authorization })
    }

    fn at(&self, rest: &str) -> Result<Uri> {
        self.http.at(&format!("/v2/{}/{rest}", self.reference.repository))
    }

    /// Asks, and says who it is where that is asked for.
    fn ask(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &[(HeaderName, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response<Body>> {
        let send = || {
            let mut all = HeaderMap::new();
            for (name, value) in headers {
                all.append(name, HeaderValue::from_str(value).context("a header")?);
            }
            all.extend(self.authorization.borrow().clone().map(|it| (AUTHORIZATION, it)));
            self.http.ask(method, uri, &all, body)
        };
        let answer = send()?;
        if answer.status() != StatusCode::UNAUTHORIZED || self.authorization.borrow().is_some() {
            return self.allowed(answer);
        }
        let challenge = Challenge::read(&Http::header(&answer, &WWW_AUTHENTICATE)?)?;
        let mut value = HeaderValue::from_str(&self.answer_to(&challenge)?.header()).context("a token")?;
        value.set_sensitive(true);
        *self.authorization.borrow_mut() = Some(value);
        self.allowed(send()?)
    }

    fn answer_to(&self, challenge: &Challenge) -> Result<Credentials> {
        let known = self.config.find(self.reference);
        match (challenge, known) {
            (Challenge::Basic, Some(basic @ Credentials::Basic(_))) => Ok(basic.clone()),
            (Challenge::Bearer { .. }, Some(token @ Credentials::Token(_))) => Ok(token.clone()),
            (Challenge::Basic, _) => bail!(
                "{} asks for a name and a password, and there are none for it{}",
                self.reference.registry,
                self.config.remark()
            ),
            (Challenge::Bearer { realm, service }, known) => self.token(realm, service.as_deref(), known),
        }
    }

    /// Has a token given out, for this repository and no more.
    fn token(&self, realm: &str, service: Option<&str>, known: Option<&Credentials>) -> Result<Credentials> {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let scope = format!("repository:{}:{}", self.reference.repository, self.actions);
        let joined = if realm.contains('?') { '&' } else { '?' };
        let mut address = format!("{realm}{joined}scope={}", encoded(&scope));
        if let Some(service) = service {
            address.push_str(&format!("&service={}", encoded(service)));
        }
        let uri: Uri = address.parse().map_err(|_| anyhow!("the address that gives out tokens is none"))?;
        ensure!(uri.scheme_str() == Some("https"), "{} gives out tokens without TLS", http::host(&uri));
        let mut headers = HeaderMap::new();
        // It goes to whom the registry names, as with every client: the registry could ask for it itself.
        if let Some(known) = known {
            let mut value = HeaderValue::from_str(&known.header()).context("a password")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let answer = self.http.ask_as(&http::host(&uri), &Method::GET, &uri, &headers, None)?;
        ensure!(
            answer.status() == StatusCode::OK,
            "{} gives out no token: {}{}",
            http::host(&uri),
            answer.status(),
            self.config.remark()
        );
        let token: Token = serde_json::from_slice(&Http::body(answer, LARGEST_TOKEN)?)
            .map_err(|_| anyhow!("what {} gives out is no token", http::host(&uri)))?;
        let token = token.token.or(token.access_token).filter(|it| !it.is_empty());
        Ok(Credentials::Token(token.with_context(|| format!("{} gives out an empty token", http::host(&uri)))?))
    }

    fn allowed(&self, answer: Response<Body>) -> Result<Response<Body>> {
        if ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status()) {
            return Ok(answer);
        }
        let (status, known) = (answer.status(), self.config.find(self.reference).is_some());
        let who = if known { "with the credentials for it" } else { "without credentials for it" };
        bail!("{} answers {status} {who}{}", self.reference.registry, self.config.remark())
    }

    /// Puts bytes under their digest, if they are not there.
    pub(super) fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let there = self.ask(&Method::HEAD, &self.at(&format!("blobs/{digest}"))?, &[], None)?;
        if there.status() == StatusCode::OK {
            return Ok(());
        }
        let begin = self.at("blobs/uploads/")?;
        let begun = self.ask(&Method::POST, &begin, &[], Some(&[]))?;
        let begun = expect(begun, &[StatusCode::ACCEPTED], "beginning an upload")?;
        let place = http::location(&begin, &begun)?.to_string();
        let joined = if place.contains('?') { '&' } else { '?' };
        let place: Uri =
            format!("{place}{joined}digest={}", utf8_percent_encode(&digest.to_string(), NON_ALPHANUMERIC))
                .parse()
                .map_err(|_| anyhow!("the address for an upload is none"))?;
        let put = self.ask(&Method::PUT, &place, &[(CONTENT_TYPE, "application/octet-stream")], Some(bytes))?;
        expect(put, &[StatusCode::CREATED], "uploading")?;
        Ok(())
    }

    /// Puts a manifest under a tag, or its digest.
    pub(super) fn put_manifest(&self, name: &str, manifest: &[u8]) -> Result<()> {
        let at = self.at(&format!("manifests/{name}"))?;
        let put = self.ask(&Method::PUT, &at, &[(CONTENT_TYPE, MANIFEST)], Some(manifest))?;
        expect(put, &[StatusCode::CREATED], "putting the manifest")?;
        Ok(())
    }
}

impl Store for Remote<'_> {
    fn manifest(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let headers = READABLE.map(|it| (ACCEPT, it));
        let answer = self.ask(&Method::GET, &self.at(&format!("manifests/{name}"))?, &headers, None)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = expect(answer, &[StatusCode::OK], "asking for the manifest")?;
        Http::body(answer, LARGEST_MANIFEST).context("the manifest").map(Some)
    }

    fn blob(&self, of: &Descriptor) -> Result<Vec<u8>> {
        let answer = self.ask(&Method::GET, &self.at(&format!("blobs/{}", of.digest))?, &[], None)?;
        let answer = expect(answer, &[StatusCode::OK], "asking for it")?;
        Http::body(answer, of.size)
    }

    fn referrers(&self, of: &Digest) -> Result<Vec<Descriptor>> {
        let answer = self.ask(&Method::GET, &self.at(&format!("referrers/{of}"))?, &[], None)?;
        let index = match answer.status() {
            StatusCode::OK => Some(Http::body(answer, LARGEST_MANIFEST)?),
            // A registry from before there was this question, to which clients keep the list under a tag.
            _ => self.manifest(&fallback_tag(of))?,
        };
        index.map_or(Ok(Vec::new()), |it| read_index(&it)).context("the list of what refers to it")
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    errors: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    code: String,
    #[serde(default)]
    message: String,
}

/// An answer with a status that is expected. Of another one, what the registry says is said, in one line and of a bounded length.
fn expect(answer: Response<Body>, statuses: &[StatusCode], doing: &str) -> Result<Response<Body>> {
    let status = answer.status();
    if statuses.contains(&status) {
        return Ok(answer);
    }
    let body = Http::body(answer, LARGEST_REFUSAL).unwrap_or_default();
    let said = serde_json::from_slice::<Refusal>(&body).ok().and_then(|it| it.errors.into_iter().next());
    let said = said.map(|it| format!(" ({}: {})", it.code, it.message)).unwrap_or_default();
    let said: String = said.chars().filter(|it| !it.is_control()).take(300).collect();
    bail!("{doing}: the registry answers {status}{said}")
}
