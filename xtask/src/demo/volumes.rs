//! Volumes, asked for and deleted as external-provisioner does it: over the CSI socket, with `pith csi`.
//!
//! What came of it is not taken from the answers alone: the directories, their quotas and what a deleted volume left are read
//! from the file system itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::file_system::{FileSystem, Tree};
use super::fixtures::{self, Claim, FileSystemSecret};
use super::kubelet::items;
use super::server::{Metrics, Server};
use super::{Demo, STEPS, rows};
use crate::command::{both, capture, output};
use crate::terminal::{Step, Style, bytes, indented, paint, seconds, table};
use crate::workspace::{relative, root};

/// The claims that get volumes.
const CLAIMS: [(&str, &str); 3] =
    [("storefront", "product-images"), ("reporting", "sales-reports"), ("storefront", "thumbnails")];
/// The claim that a naming policy refuses.
const REFUSED: (&str, &str) = ("reporting", "exports");
/// Parameters with this prefix are for the caller of a driver, and not for the driver.
const CALLERS_OWN: &str = "csi.storage.k8s.io/";
/// Where Pith keeps what deleted volumes left.
const TRASH: &str = "/.pith/trash";

/// Longer commands go on in another line.
const WIDEST_COMMAND: usize = 140;

/// The volumes that were made.
pub(super) struct Volumes(Vec<Volume>);

/// A volume that was made for a claim.
pub(super) struct Volume {
    claim: Claim,
    request: Request,
    answer: Answer,
    /// From the root of the file system.
    pub(super) directory: String,
    took: Duration,
    policies: Vec<(String, Duration)>,
}

/// One item of `pith volumes ls -o json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recorded {
    id: String,
    directory: String,
    capacity_bytes: u64,
    named_by: NamedBy,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum NamedBy {
    Policy(String),
    PathPattern,
    VolumeName,
}

/// What a driver answers to CreateVolume.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    id: String,
    capacity_bytes: u64,
    context: BTreeMap<String, String>,
}

/// What external-provisioner asks for a claim.
struct Request {
    claim: String,
    name: String,
    size: String,
    mode: &'static str,
    parameters: BTreeMap<String, String>,
    mount_options: Vec<String>,
}

/// What became of a call: its answer, or the code and the sentence of its error.
enum Outcome<A> {
    Done(A),
    Refused { code: String, sentence: String },
}

/// A call, with what the server measured meanwhile.
struct Call<A> {
    outcome: Outcome<A>,
    took: Duration,
    /// The naming policies that were asked, and how long each took.
    policies: Vec<(String, Duration)>,
}

/// Asks for volumes, shows what they are in the file system, and what is answered to other questions.
pub(super) fn make(demo: &Demo, server: &Server, file_system: &FileSystem) -> Result<Volumes> {
    let step = Step::start(5, STEPS, "Three volumes, as external-provisioner would ask for them");
    let provisioner = Provisioner { demo, server, secret: &file_system.secret };
    ensure!(server.children()?.is_empty(), "`pith serve` has processes before it was asked for anything");
    let claims = CLAIMS.into_iter().map(|(namespace, name)| Claim::read(namespace, name));
    let volumes = claims.map(|claim| provisioner.make(claim?)).collect::<Result<Vec<_>>>()?;
    provisioner.show(&volumes)?;
    for (claim, folder) in fixtures::files()? {
        if let Some(volume) = volumes.iter().find(|volume| volume.claim.name() == claim.name()) {
            file_system.put(&folder, &volume.directory)?;
            indented(&format!("copied {} to {}, for it to have something in it", relative(&folder), volume.directory));
        }
    }

    show_directories(file_system, &volumes)?;
    provisioner.ask_again(&volumes[0])?;
    provisioner.ask_for_more(&volumes[0])?;
    provisioner.ask_in_vain(file_system, volumes.len())?;
    provisioner.list(&volumes)?;
    step.end();
    Ok(Volumes(volumes))
}

/// Deletes a volume whose class says so, and looks for what it held.
pub(super) fn delete(demo: &Demo, server: &Server, file_system: &FileSystem, volumes: &Volumes) -> Result<()> {
    let step = Step::start(8, STEPS, "A volume deleted, and where its data went");
    let provisioner = Provisioner { demo, server, secret: &file_system.secret };
    let goes = volumes.0.iter().find(|volume| volume.claim.storage_class()["reclaimPolicy"] == "Delete");
    let volume = goes.context("no claim of the demo is of a StorageClass with `reclaimPolicy: Delete`")?;
    let id = &volume.answer.id;
    let held = demo.folder.join("held");
    file_system.get(&volume.directory, &held)?;
    let held = contents(&held)?;
    ensure!(!held.is_empty(), "{} holds no file, so that nothing can be found again", volume.directory);

    let took = provisioner.delete(id)?;
    let class = volume.claim.storage_class()["metadata"]["name"].as_str().unwrap_or_default();
    heading(&volume.claim.name(), Style::Good, &format!("deleted in {}", seconds(took)), "");
    indented(&format!(
        "its StorageClass {class} says `reclaimPolicy: Delete`, so external-provisioner calls DeleteVolume"
    ));
    let tree = file_system.tree()?;
    ensure!(tree.find(&volume.directory).is_none(), "{} is still there", volume.directory);
    indented(&format!("{} is gone", volume.directory));
    let trash = format!("{TRASH}/{}/data", in_trash(&tree, id)?);
    let left = demo.folder.join("left");
    file_system.get(&trash, &left)?;
    ensure!(contents(&left)? == held, "{trash} does not hold what the volume held");
    indented(&format!("{trash} has what it held, byte for byte:"));
    for (path, content) in &held {
        indented(&format!("  {path}  {}", bytes(content.len() as u64)));
    }

    let took = provisioner.delete(id)?;
    indented(&format!("deleted once more: OK in {}, as CSI wants it of a volume that is not there", seconds(took)));
    let stay = volumes.0.iter().filter(|other| other.answer.id != *id).collect::<Vec<_>>();
    for volume in &stay {
        ensure!(tree.find(&volume.directory).is_some(), "{} is gone too", volume.directory);
    }
    let directories = stay.iter().map(|volume| volume.directory.as_str()).collect::<Vec<_>>().join(" and ");
    indented(&format!("{directories} stay as they are"));
    step.end();
    Ok(())
}

impl Volumes {
    /// The volume that was made for a claim.
    pub(super) fn of(&self, claim: &Claim) -> Option<&Volume> {
        self.0.iter().find(|volume| volume.claim.name() == claim.name())
    }

    /// Where the data of a claim lies: of the volume that was made for it, else of the one that it is bound to.
    pub(super) fn directory<'a>(&'a self, claim: &'a Claim) -> Result<&'a str> {
        let made = self.of(claim).map(|volume| volume.directory.as_str());
        made.or(claim.bound_directory()).with_context(|| format!("no volume was made for the claim {}", claim.name()))
    }
}

impl Volume {
    /// Its size in bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.answer.capacity_bytes
    }
}

impl Request {
    fn of(claim: &Claim, secret: &FileSystemSecret) -> Result<Request> {
        let class = claim.storage_class();
        let name = claim.name();
        ensure!(class.is_object(), "the claim {name} names no StorageClass");
        let said = |key: &str| &class["parameters"][format!("{CALLERS_OWN}provisioner-secret-{key}")];
        ensure!(
            secret.is(said("namespace"), said("name")),
            "the StorageClass of {name} names another Secret for its provisioner than that in deploy/demo/secrets"
        );
        let parameters = class["parameters"].as_object().into_iter().flatten();
        let parameters = parameters.filter(|(key, _)| !key.starts_with(CALLERS_OWN));
        let text = |value: &Value| value.as_str().map(String::from);
        let modes = items(&claim.spec()["accessModes"]).first().and_then(Value::as_str);
        let size = text(&claim.spec()["resources"]["requests"]["storage"]);
        Ok(Request {
            name: format!("pvc-{}", claim.uid()?),
            size: size.with_context(|| format!("the claim {name} asks for no `storage`, as a text such as 1Gi"))?,
            mode: match modes {
                Some("ReadWriteMany") => "rwx",
                Some("ReadWriteOnce") => "rwo",
                Some("ReadOnlyMany") => "rox",
                Some("ReadWriteOncePod") => "rwop",
                _ => bail!("the claim {name} has no access mode of Kubernetes"),
            },
            parameters: parameters.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect(),
            mount_options: items(&class["mountOptions"]).iter().filter_map(text).collect(),
            claim: name,
        })
    }

    /// The directory that mount options put in front of every other.
    fn subdir(&self) -> &str {
        let listed = self.parameters.get("mountOptions").into_iter().flat_map(|list| list.split(','));
        let mut options = self.mount_options.iter().map(String::as_str).chain(listed);
        options.find_map(|option| option.trim().strip_prefix("subdir=")).unwrap_or_default().trim_matches('/')
    }
}

/// external-provisioner's part.
struct Provisioner<'a> {
    demo: &'a Demo,
    server: &'a Server,
    secret: &'a FileSystemSecret,
}

impl Provisioner<'_> {
    fn make(&self, claim: Claim) -> Result<Volume> {
        let request = Request::of(&claim, self.secret)?;
        let Call { outcome, took, policies } = self.create(&request, &request.size)?;
        let answer = match outcome {
            Outcome::Done(answer) => answer,
            Outcome::Refused { code, sentence } => bail!("no volume for {}: {code}: {sentence}", request.claim),
        };
        let below = answer.context.get("subPath").context("the answer to CreateVolume has no `subPath`")?;
        let directory = format!("/{}/{below}", request.subdir()).replace("//", "/");
        Ok(Volume { claim, request, answer, directory, took, policies })
    }

    /// What was asked, answered and recorded.
    fn show(&self, volumes: &[Volume]) -> Result<()> {
        indented(&paint(Style::Heading, "the first is asked for with"));
        indented(&typed(&self.create_command(&volumes[0].request, &volumes[0].request.size)));
        println!();
        let mut list = self.list_command();
        let records = capture(list.args(["--output", "json"]))?;
        let records: Vec<Recorded> = serde_json::from_str(&records).context("reading what `pith volumes ls` says")?;
        let mut shown = rows([["claim", "volume", "directory", "size", "named by", "made in"]]);
        for volume in volumes {
            let record = records.iter().find(|record| record.id == volume.answer.id);
            let record = record.with_context(|| format!("there is no record of the volume {}", volume.answer.id))?;
            let agrees = record.directory == volume.directory && record.capacity_bytes == volume.answer.capacity_bytes;
            ensure!(agrees, "the record of the volume {} says something else than its answer", record.id);
            shown.push(row(volume, record));
        }
        indented(&table(&shown));
        let workers = self.server.children()?;
        let [worker] = workers[..] else { bail!("one worker was to serve the file system, and there are {workers:?}") };
        let started = format!("a JuiceFS client that the first call started (process {worker})");
        indented(&format!("all through one worker for the file system, {started}"));
        Ok(())
    }

    /// The same request, as after an answer that was lost.
    fn ask_again(&self, volume: &Volume) -> Result<()> {
        let call = self.create(&volume.request, &volume.request.size)?;
        let Outcome::Done(answer) = call.outcome else { bail!("the same request was refused the second time") };
        ensure!(answer == volume.answer, "the same request gave another volume: {answer:?}, not {:?}", volume.answer);
        ensure!(call.policies.is_empty(), "the same request asked the policy {:?} again", call.policies);
        heading(
            &volume.request.claim,
            Style::Good,
            &format!("asked for again: the same volume in {}", seconds(call.took)),
            "",
        );
        indented("id, size and context are equal, and no policy was asked a second time");
        Ok(())
    }

    /// Another request under the same name.
    fn ask_for_more(&self, volume: &Volume) -> Result<()> {
        let more = volume.answer.capacity_bytes * 2;
        let call = self.create(&volume.request, &more.to_string())?;
        let what = format!("asked for again with {} instead of {}", bytes(more), bytes(volume.answer.capacity_bytes));
        self.refused(&volume.request.claim, &what, call, "AlreadyExists", "")
    }

    /// A claim that a policy finds no name for.
    fn ask_in_vain(&self, file_system: &FileSystem, before: usize) -> Result<()> {
        let (namespace, name) = REFUSED;
        let claim = Claim::read(namespace, name)?;
        let request = Request::of(&claim, self.secret)?;
        let call = self.create(&request, &request.size)?;
        self.refused(&request.claim, "asked for", call, "PermissionDenied", &relative(&claim.file))?;
        let tree = file_system.tree()?;
        let records = tree.find("/.pith/volumes").map_or(0, |volumes| volumes.entries.len());
        ensure!(records == before, "there are records of {records} volumes, and {before} were made");
        Ok(())
    }

    fn refused(&self, claim: &str, what: &str, call: Call<Answer>, expected: &str, file: &str) -> Result<()> {
        let Outcome::Refused { code, sentence } = call.outcome else {
            bail!("{claim}, {what}, was to be refused, and was not")
        };
        ensure!(code == expected, "{claim}, {what}, was refused with {code} and not {expected}: {sentence}");
        heading(claim, Style::Bad, &format!("{what}: refused in {}", seconds(call.took)), file);
        indented(&table(&[vec![code, sentence]]));
        Ok(())
    }

    /// What the records say, read by another process.
    fn list(&self, volumes: &[Volume]) -> Result<()> {
        let mut list = self.list_command();
        let said = capture(&mut list)?;
        for volume in volumes {
            let id = &volume.answer.id;
            ensure!(said.contains(id), "`pith volumes ls` does not know the volume {id}:\n{said}");
        }
        println!();
        indented(&paint(Style::Heading, "the records, which lie in the file system too"));
        indented(&typed(&list));
        indented(&said);
        Ok(())
    }

    fn list_command(&self) -> Command {
        let mut list = Command::new(&self.demo.pith);
        list.args(["volumes", "ls", "--config"]).arg(fixtures::configuration());
        list.arg("--secret-file").arg(&self.secret.file);
        list
    }

    fn create(&self, request: &Request, size: &str) -> Result<Call<Answer>> {
        self.call(self.create_command(request, size), "CreateVolume")
    }

    fn create_command(&self, request: &Request, size: &str) -> Command {
        let mut create = self.csi("create", &request.name);
        create.args(["--claim", &request.claim, "--size", size, "--mode", request.mode]);
        for (key, value) in &request.parameters {
            create.arg("--parameter").arg(format!("{key}={value}"));
        }
        for option in &request.mount_options {
            create.arg("--mount-flag").arg(option);
        }
        create
    }

    fn delete(&self, id: &str) -> Result<Duration> {
        let call = self.call::<Value>(self.csi("delete", id), "DeleteVolume")?;
        match call.outcome {
            Outcome::Done(_) => Ok(call.took),
            Outcome::Refused { code, sentence } => bail!("the volume {id} was not deleted: {code}: {sentence}"),
        }
    }

    fn csi(&self, command: &str, volume: &str) -> Command {
        let mut csi = Command::new(&self.demo.pith);
        csi.arg("csi").arg("--endpoint").arg(format!("unix://{}", self.server.socket.display()));
        csi.args(["--output", "json", command, volume]).arg("--secret-file").arg(&self.secret.file);
        csi
    }

    /// The time is the server's own: a process more, as here, is not what external-provisioner pays.
    fn call<A: DeserializeOwned>(&self, mut command: Command, method: &str) -> Result<Call<A>> {
        let before = self.server.metrics()?;
        let said = output(&mut command)?;
        let after = self.server.metrics()?;
        let outcome = match said.status.code() {
            Some(0) => {
                let answer = serde_json::from_slice(&said.stdout);
                Outcome::Done(answer.with_context(|| format!("`pith csi` said:\n{}", both(&said)))?)
            }
            Some(1) => {
                let error = both(&said);
                let (code, sentence) = error.split_once(": ").unwrap_or_default();
                Outcome::Refused { code: code.into(), sentence: sentence.into() }
            }
            _ => bail!("`pith csi` failed ({})\n{}", said.status, both(&said)),
        };
        let passed = |series, label| Metrics::passed(&before, &after, series, label);
        let method = format!("/csi.v1.Controller/{method}");
        let took = passed("csi_plugin_operations_seconds_sum", ("method_name", method.as_str()));
        let policies = passed("pith_policy_call_duration_seconds_sum", ("hook", "naming"));
        let duration = |(_, seconds): &(_, f64)| Duration::from_secs_f64(*seconds);
        Ok(Call {
            outcome,
            took: took.iter().map(duration).sum(),
            policies: policies.iter().map(|it| (it.0["policy"].clone(), duration(it))).collect(),
        })
    }
}

/// A command as a reader would type it in the checkout.
fn typed(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut lines = vec![String::new()];
    let here = root().display().to_string();
    for word in words.map(|word| relative(Path::new(word)).replace(&here, "$PWD")) {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            *line = word;
        } else if line.len() + word.len() < WIDEST_COMMAND {
            *line += &format!(" {word}");
        } else {
            *line += " \\";
            lines.push(format!("  {word}"));
        }
    }
    lines.join("\n")
}

fn row(volume: &Volume, record: &Recorded) -> Vec<String> {
    let named_by = match &record.named_by {
        NamedBy::Policy(policy) => {
            let took = volume.policies.iter().filter(|(asked, _)| asked == policy).map(|(_, took)| *took).sum();
            format!("policy {policy}, in {}", micros(took))
        }
        NamedBy::PathPattern => "pathPattern of its class".to_string(),
        NamedBy::VolumeName => "its id".to_string(),
    };
    vec![
        volume.request.claim.clone(),
        volume.answer.id.clone(),
        volume.directory.clone(),
        bytes(volume.answer.capacity_bytes),
        named_by,
        seconds(volume.took),
    ]
}

fn micros(duration: Duration) -> String {
    format!("{:.0} µs", duration.as_secs_f64() * 1e6)
}

/// The directories with their quotas, which must be what the answers say.
fn show_directories(file_system: &FileSystem, volumes: &[Volume]) -> Result<()> {
    let tree = file_system.tree()?;
    let mut shown = rows([["directory", "rights", "quota"]]);
    for volume in volumes {
        let entry = tree.find(&volume.directory).with_context(|| format!("{} is not there", volume.directory))?;
        let quota = tree.quota(entry).with_context(|| format!("{} has no quota", volume.directory))?;
        ensure!(quota == volume.capacity(), "{} has a quota of {quota} bytes", volume.directory);
        shown.push(vec![volume.directory.clone(), entry.mode(), bytes(quota)]);
    }
    println!();
    indented(&paint(Style::Heading, "the directories in the file system, as `juicefs dump` finds them"));
    indented(&table(&shown));
    Ok(())
}

/// The name of what a volume left in the trash.
fn in_trash(tree: &Tree, id: &str) -> Result<String> {
    let trash = tree.find(TRASH).with_context(|| format!("{TRASH} is not there"))?;
    let mut found = trash.entries.keys().filter(|name| name.rsplit_once('.').is_some_and(|(whose, _)| whose == id));
    match (found.next(), found.next()) {
        (Some(name), None) => Ok(name.clone()),
        (None, _) => bail!("{TRASH} has nothing of the volume {id}"),
        (Some(_), Some(_)) => bail!("{TRASH} has the volume {id} more than once"),
    }
}

/// The files below a folder, by path.
fn contents(folder: &PathBuf) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut contents = BTreeMap::new();
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("reading {}", relative(&next)))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                contents.insert(name, fs::read(&path).with_context(|| format!("reading {}", relative(&path)))?);
            }
        }
    }
    Ok(contents)
}

fn heading(claim: &str, style: Style, outcome: &str, file: &str) {
    println!("\n{}", format!("     {}  {}  {file}", paint(Style::Heading, claim), paint(style, outcome)).trim_end());
}
