//! `pith volumes check` and `pith volumes repair`: what is wrong with the volumes of a file system, and what is done about it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use pith_core::catalogue::Level;
use pith_core::object::{Kind, Objects, SecretRef};
use pith_core::volume::check::Finding;
use serde::Serialize;

use crate::args::{AnswerOutput, CsiSecrets, Overrides, VolumesCheck};
use crate::cli::{check, csi, print};
use crate::cluster::{self, Look, Mirror};
use crate::config::{Config, ObjectSource};
use crate::install_crypto;
use crate::juicefs::steps::Steps;
use crate::provisioner::{Known, Secrets};

/// Something that was found, and what came of its repair.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    finding: Finding,
    /// Absent where nothing was done.
    outcome: Option<String>,
}

impl Line {
    /// Whether there is still something to be done.
    fn is_wrong(&self) -> bool {
        match self.outcome.as_deref() {
            Some(outcome) => outcome != DONE,
            None => self.finding.found.level != Level::Info,
        }
    }

    fn about_repair(&self) -> Option<String> {
        let repair = self.finding.repair.as_ref()?;
        Some(match &self.outcome {
            None => format!("repairing would {repair}"),
            Some(outcome) => format!("{outcome}: {repair}"),
        })
    }
}

const DONE: &str = "done";

/// Reads, decides, repairs where that is asked, and prints. The exit code is 1 where an error or a warning is left.
pub(super) async fn run(args: &VolumesCheck, apply: bool) -> Result<ExitCode> {
    let config = Config::load(&args.source.config, &Overrides::default())?;
    let (objects, complete) = objects(args, config.objects.as_ref()).await?;
    let secrets = Secrets::from(csi::read(&args.source.secrets)?);
    let mirror = Mirror::fixed(objects.clone().unwrap_or_default());
    let provisioner = super::provisioner(&config, mirror, Steps::default())?;
    let known =
        Known { objects: objects.as_ref().map_err(Clone::clone), complete, secret: secret(&args.source.secrets)? };
    let mut lines = Vec::new();
    let found = provisioner.check(&secrets, known).await;
    for finding in found.as_ref().map(Vec::as_slice).unwrap_or_default() {
        let outcome = match finding.repair.as_ref().filter(|_| apply) {
            None => None,
            Some(repair) => Some(match provisioner.repair(&secrets, repair).await {
                Ok(()) => DONE.to_string(),
                Err(error) => format!("failed, because {error}"),
            }),
        };
        lines.push(Line { finding: finding.clone(), outcome });
    }
    provisioner.stop().await;
    found.context("reading the volumes")?;
    print(&match args.source.output {
        AnswerOutput::Text => check::text(lines.iter().map(|line| (&line.finding.found, line.about_repair()))),
        AnswerOutput::Json => format!("{}\n", serde_json::to_string_pretty(&lines)?),
        AnswerOutput::Yaml => yaml_serde::to_string(&lines)?,
    })?;
    Ok(if lines.iter().any(Line::is_wrong) { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// PersistentVolumes and claims, or why they are not looked at, and whether they are all that there are.
async fn objects(args: &VolumesCheck, source: Option<&ObjectSource>) -> Result<(Result<Objects, String>, bool)> {
    let kubeconfig: Option<&Path> = match (&args.objects, &args.kubeconfig, source) {
        (Some(path), ..) => return Ok((Ok(of_files(path)?), false)),
        (None, None, Some(ObjectSource::Directory(path))) => return Ok((Ok(of_files(path)?), false)),
        (None, None, None) => {
            let why = "no cluster was asked: name one with --kubeconfig, or files with --objects";
            return Ok((Err(why.into()), false));
        }
        (None, Some(path), _) => Some(path),
        (None, None, Some(ObjectSource::Cluster { kubeconfig, .. })) => kubeconfig.as_deref(),
    };
    install_crypto();
    let (objects, unread) = Look(cluster::connect_as_kubectl(kubeconfig).await?).everything(None, None).await?;
    let needed = [Kind::PersistentVolume, Kind::Claim].into_iter().find_map(|kind| Some((kind, unread.get(&kind)?)));
    Ok(match needed {
        Some((kind, why)) => (Err(format!("{} cannot be listed: {why}", kind.plural())), false),
        None => (Ok(objects), true),
    })
}

fn of_files(path: &Path) -> Result<Objects> {
    let mut objects = Objects::default();
    for (file, document) in cluster::documents(path)? {
        if let Some(object) = cluster::object(&document).with_context(|| file.display().to_string())? {
            objects.insert(object);
        }
    }
    Ok(objects)
}

/// What the file with the Secret calls it.
fn secret(args: &CsiSecrets) -> Result<Option<SecretRef>> {
    let Some(path) = &args.secret_file else { return Ok(None) };
    let documents = cluster::documents(path)?;
    let metadata =
        documents.iter().map(|(_, document)| document).find(|it| it["kind"] == "Secret").map(|it| &it["metadata"]);
    let text = |key: &str| Some(metadata?[key].as_str()?.to_string());
    Ok(text("namespace").zip(text("name")).map(|(namespace, name)| SecretRef { namespace, name }))
}
