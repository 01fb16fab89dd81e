//! Uses the JuiceFS client in each way that Pith does, for the Secret on its standard input (JSON), with the log on standard error
//! at its noisiest. Then it says so with one line, and does nothing until it is killed.

#![expect(clippy::print_stdout, reason = "the line is for the test that started it")]

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use pith::juicefs::{FileSystem, Path, Workers};
use pith_core::volume::Bound;
use pith_tests::juicefs::options;
use tracing_subscriber::filter::LevelFilter;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr).init();
    let secrets: BTreeMap<String, String> = serde_json::from_reader(std::io::stdin()).context("reading the Secret")?;
    let (workers, file_system) = (Workers::new(options())?, FileSystem::from_secrets(&secrets)?);
    let worker = workers.get(&file_system).await?;
    let (there, missing) = (Path::of(["there"])?, Path::of(["missing"])?);
    worker.make_directory(&there).await?;
    worker.make_directory(&there).await?;
    ensure!(worker.read(&missing).await?.is_none());
    let bound = Bound { bytes: Some(1 << 30), inodes: Some(7) };
    workers.set_quota(&file_system, &there, bound).await?;
    ensure!(workers.set_quota(&file_system, &missing, bound).await.is_err());
    println!("done");
    std::future::pending().await
}
