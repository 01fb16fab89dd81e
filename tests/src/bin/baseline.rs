//! The servers that `pith serve` is measured against, on the same stack: axum, axum-server, rustls, the same kind of certificate.
//!
//! `static` reads the body and answers the same bytes every time: what the stack itself costs. `parse` parses the review into a
//! `serde_json::Value` and allows it: what any webhook in this language must at least do.
#![expect(clippy::print_stdout, reason = "the address is its output")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::post;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use clap::{Parser, ValueEnum};
use pith::config::Tls;
use serde_json::{Value, json};

/// Serves on a free port of loopback, prints the address, and runs until it is killed.
#[derive(Parser)]
struct Args {
    /// What to do with a review.
    kind: Kind,
    /// Where to write the CA certificate (`tls/ca.crt` in it).
    state_dir: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Static,
    Parse,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    pith::install_crypto();
    let names = vec!["localhost".into(), "127.0.0.1".into()];
    let (certificates, _) = pith::tls::load(&Tls::SelfSigned(names), &args.state_dir, None, Arc::default())?;
    let router = match args.kind {
        Kind::Static => Router::new().route("/mutate", post(fixed)),
        Kind::Parse => Router::new().route("/mutate", post(parse)),
    };
    let handle = Handle::<SocketAddr>::new();
    let server = axum_server::bind_rustls(
        SocketAddr::from(([127, 0, 0, 1], 0)),
        RustlsConfig::from_config(certificates.config()),
    );
    let server = tokio::spawn(server.handle(handle.clone()).serve(router.into_make_service()));
    println!("{}", handle.listening().await.context("the listener")?);
    Ok(server.await??)
}

const ALLOWED: &str =
    r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"x","allowed":true}}"#;

async fn fixed(_body: Bytes) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], ALLOWED)
}

async fn parse(body: Bytes) -> impl IntoResponse {
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let response = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], "allowed": review["request"]["object"].is_object()},
    });
    ([(CONTENT_TYPE, "application/json")], response.to_string())
}
