//! `pith csi`: the questions of Kubernetes' sidecars to a CSI driver, asked by hand.
//!
//! The one place besides the server that knows the protobuf: it is the other end of the same wire.

mod snapshots;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use pith_core::object::SecretRef;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::print;
use super::volumes::columns;
use crate::args::{AnswerOutput, Csi, CsiCommand, CsiCreate, CsiMode, CsiSecrets, CsiUsage};
use crate::cluster;
use crate::csi::proto::controller_client::ControllerClient;
use crate::csi::proto::identity_client::IdentityClient;
use crate::csi::proto::node_client::NodeClient;
use crate::csi::proto::volume_capability::access_mode::Mode;
use crate::csi::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use crate::csi::proto::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerGetCapabilitiesRequest, ControllerGetVolumeRequest,
    ControllerModifyVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest, GetPluginCapabilitiesRequest,
    GetPluginInfoRequest, ListVolumesRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest, ProbeRequest,
    ValidateVolumeCapabilitiesRequest, Volume, VolumeCapability, controller_service_capability,
    node_service_capability, plugin_capability,
};

/// What a driver answered.
enum Answer {
    Yes(Value),
    No(Value),
}

/// Asks and prints. The exit code is 1 for an error that the driver answered with, and for a no.
pub fn run(args: &Csi) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    match runtime.block_on(ask(args)) {
        Ok(Answer::Yes(answer)) => {
            print(&render(&answer, args.output)?).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Ok(Answer::No(answer)) => print(&render(&answer, args.output)?).map(|()| ExitCode::from(1)).map_err(Into::into),
        Err(error) => {
            let status = error.downcast::<Status>()?;
            eprintln!("{}: {}", crate::csi::code_name(status.code()), status.message());
            Ok(ExitCode::from(1))
        }
    }
}

/// What the command line says is read before anybody is asked.
async fn ask(args: &Csi) -> Result<Answer> {
    let secrets = match &args.command {
        CsiCommand::Info | CsiCommand::Capabilities | CsiCommand::List { .. } | CsiCommand::Get { .. } => {
            BTreeMap::new()
        }
        CsiCommand::Create(CsiCreate { secrets, .. })
        | CsiCommand::Delete { secrets, .. }
        | CsiCommand::Expand { secrets, .. }
        | CsiCommand::Modify { secrets, .. }
        | CsiCommand::Validate { secrets, .. } => read(secrets)?,
        CsiCommand::Snapshot(command) => read(snapshots::secrets(command))?,
    };
    Driver { channel: connect(&args.endpoint).await?, timeout: args.timeout }.ask(&args.command, secrets).await
}

async fn connect(endpoint: &str) -> Result<Channel> {
    ensure!(
        endpoint.starts_with("unix:/"),
        "the endpoint is `{endpoint}`: a CSI driver listens on a Unix socket, unix:///PATH"
    );
    let reading = Endpoint::from_shared(endpoint.to_string()).context("reading the endpoint")?;
    reading.connect().await.map_err(|error| {
        // The layers between say nothing, and the last one says it three times.
        let error = anyhow::Error::from(error);
        anyhow!("{}", error.root_cause())
            .context(format!("connecting to {endpoint}: is the driver running, and may you use its socket?"))
    })
}

struct Driver {
    channel: Channel,
    timeout: Duration,
}

impl Driver {
    async fn ask(&self, command: &CsiCommand, secrets: BTreeMap<String, String>) -> Result<Answer> {
        let mut controller = ControllerClient::new(self.channel.clone());
        Ok(Answer::Yes(match command {
            CsiCommand::Info => self.info().await?,
            CsiCommand::Capabilities => self.capabilities().await?,
            CsiCommand::Create(args) => {
                let answer = controller.create_volume(self.request(create(args, secrets))).await?.into_inner();
                described(answer.volume)?
            }
            CsiCommand::Delete { id, .. } => {
                let request = DeleteVolumeRequest { volume_id: id.clone(), secrets };
                controller.delete_volume(self.request(request)).await?;
                json!({"id": id, "deleted": true})
            }
            CsiCommand::Expand { id, size, limit, .. } => {
                let request = ControllerExpandVolumeRequest {
                    volume_id: id.clone(),
                    capacity_range: range(Some(*size), *limit),
                    secrets,
                    volume_capability: None,
                };
                let answer = controller.controller_expand_volume(self.request(request)).await?.into_inner();
                let on_node = answer.node_expansion_required;
                json!({"id": id, "capacityBytes": answer.capacity_bytes, "nodeExpansionRequired": on_node})
            }
            CsiCommand::Modify { id, parameters, .. } => {
                let mutable_parameters: BTreeMap<String, String> = parameters.iter().cloned().collect();
                let request = ControllerModifyVolumeRequest { volume_id: id.clone(), secrets, mutable_parameters };
                controller.controller_modify_volume(self.request(request)).await?;
                json!({"id": id, "modified": true})
            }
            CsiCommand::Validate { id, usage, .. } => {
                let request = ValidateVolumeCapabilitiesRequest {
                    volume_id: id.clone(),
                    volume_capabilities: vec![capability(usage)],
                    secrets,
                    ..ValidateVolumeCapabilitiesRequest::default()
                };
                let answer = controller.validate_volume_capabilities(self.request(request)).await?.into_inner();
                if answer.confirmed.is_none() {
                    return Ok(Answer::No(json!({"id": id, "confirmed": false, "message": answer.message})));
                }
                json!({"id": id, "confirmed": true})
            }
            CsiCommand::List { max_entries, starting_token } => {
                self.list(*max_entries, starting_token.clone().unwrap_or_default()).await?
            }
            CsiCommand::Get { id } => {
                let request = ControllerGetVolumeRequest { volume_id: id.clone() };
                described(controller.controller_get_volume(self.request(request)).await?.into_inner().volume)?
            }
            CsiCommand::Snapshot(command) => self.ask_about_snapshots(command, secrets).await?,
        }))
    }

    /// One page, or all of them where nobody says how long one is to be.
    async fn list(&self, max_entries: Option<i32>, mut starting_token: String) -> Result<Value> {
        let mut controller = ControllerClient::new(self.channel.clone());
        let mut volumes = Vec::new();
        loop {
            let request = ListVolumesRequest { max_entries: max_entries.unwrap_or_default(), starting_token };
            let page = controller.list_volumes(self.request(request)).await?.into_inner();
            let described = page.entries.into_iter().map(|entry| described(entry.volume));
            volumes.extend(described.collect::<Result<Vec<_>>>()?);
            if max_entries.is_some() || page.next_token.is_empty() {
                let next = Some(page.next_token).filter(|token| !token.is_empty());
                return Ok(json!({"volumes": volumes, "nextToken": next}));
            }
            starting_token = page.next_token;
        }
    }

    async fn info(&self) -> Result<Value> {
        let mut identity = IdentityClient::new(self.channel.clone());
        let info = identity.get_plugin_info(self.request(GetPluginInfoRequest {})).await?.into_inner();
        // Absent means yes.
        let ready = identity.probe(self.request(ProbeRequest {})).await?.into_inner().ready.unwrap_or(true);
        let node = NodeClient::new(self.channel.clone()).node_get_info(self.request(NodeGetInfoRequest {})).await?;
        let node = node.into_inner().node_id;
        Ok(json!({"name": info.name, "version": info.vendor_version, "ready": ready, "node": node}))
    }

    async fn capabilities(&self) -> Result<Value> {
        use plugin_capability::{Type, service, volume_expansion};
        let mut identity = IdentityClient::new(self.channel.clone());
        let plugin = identity.get_plugin_capabilities(self.request(GetPluginCapabilitiesRequest {})).await?;
        let plugin = plugin.into_inner().capabilities.into_iter().filter_map(|it| match it.r#type? {
            Type::Service(it) => {
                Some(name(it.r#type, service::Type::try_from(it.r#type).ok().map(|it| it.as_str_name())))
            }
            Type::VolumeExpansion(it) => {
                let kind = volume_expansion::Type::try_from(it.r#type).ok();
                Some(format!("VOLUME_EXPANSION_{}", name(it.r#type, kind.map(|it| it.as_str_name()))))
            }
        });
        let plugin: Vec<String> = plugin.collect();

        let mut controller = ControllerClient::new(self.channel.clone());
        let declared =
            controller.controller_get_capabilities(self.request(ControllerGetCapabilitiesRequest {})).await?;
        let declared = declared.into_inner().capabilities.into_iter().filter_map(|it| {
            let controller_service_capability::Type::Rpc(rpc) = it.r#type?;
            let known = controller_service_capability::rpc::Type::try_from(rpc.r#type).ok();
            Some(name(rpc.r#type, known.map(|it| it.as_str_name())))
        });
        let declared: Vec<String> = declared.collect();

        let mut node = NodeClient::new(self.channel.clone());
        let on_node = node.node_get_capabilities(self.request(NodeGetCapabilitiesRequest {})).await?;
        let on_node = on_node.into_inner().capabilities.into_iter().filter_map(|it| {
            let node_service_capability::Type::Rpc(rpc) = it.r#type?;
            let known = node_service_capability::rpc::Type::try_from(rpc.r#type).ok();
            Some(name(rpc.r#type, known.map(|it| it.as_str_name())))
        });
        let on_node: Vec<String> = on_node.collect();
        Ok(json!({"plugin": plugin, "controller": declared, "node": on_node}))
    }

    /// With the deadline, which the driver is told.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }
}

fn described(volume: Option<Volume>) -> Result<Value> {
    let volume = volume.context("the driver answered without a volume")?;
    let mut described =
        json!({"id": volume.volume_id, "capacityBytes": volume.capacity_bytes, "context": volume.volume_context});
    if let Some(source) = volume.content_source.and_then(|source| source.r#type) {
        described["source"] = snapshots::source(&source);
    }
    Ok(described)
}

/// The name of a capability, or its number where it is newer than this program.
fn name(number: i32, known: Option<&str>) -> String {
    known.map_or_else(|| number.to_string(), str::to_string)
}

fn create(args: &CsiCreate, secrets: BTreeMap<String, String>) -> CreateVolumeRequest {
    let mut parameters: BTreeMap<String, String> = args.parameters.iter().cloned().collect();
    if let Some((namespace, name)) = &args.claim {
        parameters.insert("csi.storage.k8s.io/pvc/namespace".into(), namespace.clone());
        parameters.insert("csi.storage.k8s.io/pvc/name".into(), name.clone());
        parameters.insert("csi.storage.k8s.io/pv/name".into(), args.name.clone());
    }
    CreateVolumeRequest {
        name: args.name.clone(),
        capacity_range: range(args.size, args.limit),
        volume_capabilities: vec![capability(&args.usage)],
        parameters,
        mutable_parameters: args.mutable_parameters.iter().cloned().collect(),
        volume_content_source: snapshots::content_source(args),
        secrets,
        ..CreateVolumeRequest::default()
    }
}

fn range(required: Option<i64>, limit: Option<i64>) -> Option<CapacityRange> {
    required.or(limit)?;
    let (required_bytes, limit_bytes) = (required.unwrap_or_default(), limit.unwrap_or_default());
    Some(CapacityRange { required_bytes, limit_bytes })
}

/// The modes that external-provisioner sends to a driver with the capability SINGLE_NODE_MULTI_WRITER.
fn capability(usage: &CsiUsage) -> VolumeCapability {
    let mode = match usage.mode {
        CsiMode::Rwx => Mode::MultiNodeMultiWriter,
        CsiMode::Rwo => Mode::SingleNodeMultiWriter,
        CsiMode::Rox => Mode::MultiNodeReaderOnly,
        CsiMode::Rwop => Mode::SingleNodeSingleWriter,
    };
    let mount = MountVolume { mount_flags: usage.mount_flags.clone(), ..MountVolume::default() };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(mount)),
    }
}

/// The Secret that the arguments name. No error shows any of it.
pub(super) fn read(args: &CsiSecrets) -> Result<BTreeMap<String, String>> {
    let mut content = match &args.secret_file {
        Some(path) => cluster::secret_in(path).with_context(|| format!("reading the Secret in {}", path.display()))?,
        None => BTreeMap::new(),
    };
    for argument in &args.secrets {
        let (key, path) =
            argument.split_once("=@").context("a --secret is not KEY=@FILE: values come from files only")?;
        let value = std::fs::read_to_string(path).with_context(|| format!("reading the secret `{key}` from {path}"))?;
        // What an editor puts at the end of a file is no part of a password.
        content.insert(key.into(), value.strip_suffix('\n').unwrap_or(&value).into());
    }
    Ok(content)
}

/// What the Secret of the file is called in its cluster, where the file says so.
pub(super) fn secret_name(args: &CsiSecrets) -> Result<Option<SecretRef>> {
    let Some(path) = &args.secret_file else { return Ok(None) };
    cluster::secret_name_in(path)
}

fn render(answer: &Value, output: AnswerOutput) -> Result<String> {
    Ok(match output {
        AnswerOutput::Json => format!("{}\n", serde_json::to_string_pretty(answer)?),
        AnswerOutput::Yaml => yaml_serde::to_string(answer)?,
        AnswerOutput::Text if answer["volumes"].is_array() => table(answer),
        AnswerOutput::Text if answer["snapshots"].is_array() => snapshots::table(answer),
        AnswerOutput::Text => {
            let mut rows = Vec::new();
            flatten("", answer, &mut rows);
            let width = rows.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
            let mut text = String::new();
            for (key, value) in rows {
                writeln!(text, "{key:<width$}  {value}")?;
            }
            text
        }
    })
}

/// One line for each volume of a list, and where it goes on.
fn table(list: &Value) -> String {
    let mut rows = vec![["ID", "BYTES", "DIRECTORY"].map(String::from)];
    for volume in list["volumes"].as_array().into_iter().flatten() {
        let directory = volume["context"]["subPath"].as_str().unwrap_or("-");
        rows.push([plain(&volume["id"]), plain(&volume["capacityBytes"]), directory.into()]);
    }
    if let Some(token) = list["nextToken"].as_str() {
        rows.push([format!("… --starting-token {token}"), String::new(), String::new()]);
    }
    columns(&rows)
}

/// One row for each value, under the path of its keys.
fn flatten(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, rows);
            }
        }
        Value::Array(items) if items.is_empty() => rows.push((path.into(), "none".into())),
        Value::Array(items) => rows.extend(items.iter().map(|item| (path.into(), plain(item)))),
        value => rows.push((path.into(), plain(value))),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use clap::Parser;
    use tonic::Code;

    use crate::args::{Args, Command};
    use crate::csi::tests::Running;

    const CANARY: &str = "canary-5e1f0c";

    /// `pith csi` with these arguments, asked of a server, as text.
    async fn ask_with(socket: &Path, arguments: &[&str]) -> Result<Answer> {
        let endpoint = format!("unix://{}", socket.display());
        let command = ["pith", "csi", "--endpoint", &endpoint];
        let Command::Csi(args) = Args::try_parse_from(command.iter().chain(arguments))?.command else {
            unreachable!("it is csi")
        };
        ask(&args).await
    }

    async fn text(socket: &Path, arguments: &[&str]) -> String {
        match ask_with(socket, arguments).await.expect("an answer") {
            Answer::Yes(answer) => render(&answer, AnswerOutput::Text).expect("text"),
            Answer::No(answer) => format!("no\n{}", render(&answer, AnswerOutput::Text).expect("text")),
        }
    }

    fn secret(folder: &Path, content: &str) -> PathBuf {
        let path = folder.join("secret.yaml");
        std::fs::write(&path, content).expect("written");
        path
    }

    #[tokio::test]
    async fn a_volume_has_a_life() {
        let server = Running::start().await;
        let socket = server.socket();
        let file = server.folder.path().join("metaurl");
        std::fs::write(&file, format!("redis://:{CANARY}@host\n")).expect("written");
        let secret = format!("metaurl=@{}", file.display());

        let info = text(&socket, &["info"]).await;
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(info, format!("name     csi.juicefs.com\nnode     node-1\nready    true\nversion  {version}\n"));
        let capabilities = "controller  CREATE_DELETE_VOLUME\ncontroller  EXPAND_VOLUME\ncontroller  SINGLE_NODE_MULTI_WRITER\n\
                            controller  MODIFY_VOLUME\ncontroller  CREATE_DELETE_SNAPSHOT\ncontroller  CLONE_VOLUME\n\
                            controller  LIST_VOLUMES\ncontroller  GET_VOLUME\n\
                            controller  LIST_SNAPSHOTS\ncontroller  GET_SNAPSHOT\n\
                            node        none\nplugin      CONTROLLER_SERVICE\nplugin      VOLUME_EXPANSION_ONLINE\n";
        assert_eq!(text(&socket, &["capabilities"]).await, capabilities);

        let create =
            ["create", "pvc-1", "--size", "1Gi", "--parameter", "a=b=c", "--claim", "shop/data", "--secret", &secret];
        let made = "capacityBytes     1073741824\ncontext.a         b=c\ncontext.capacity  1073741824\ncontext.subPath   pvc-1\n\
                    id                pvc-1\n";
        assert_eq!(text(&socket, &create).await, made);
        let grown = text(&socket, &["expand", "pvc-1", "--size", "2Gi", "--secret", &secret]).await;
        assert_eq!(
            grown,
            "capacityBytes          2147483648\nid                     pvc-1\nnodeExpansionRequired  false\n"
        );
        let modified = text(&socket, &["modify", "pvc-1", "--set", "inodes=5", "--secret", &secret]).await;
        assert_eq!(modified, "id        pvc-1\nmodified  true\n");
        assert_eq!(
            text(&socket, &["get", "pvc-1"]).await,
            made.replace("1073741824\ncontext.a", "2147483648\ncontext.a")
        );
        text(&socket, &["create", "pvc-10", "--secret", &secret]).await;
        let all = "ID      BYTES       DIRECTORY\npvc-1   2147483648  pvc-1\npvc-10  0           pvc-10\n";
        assert_eq!(text(&socket, &["list"]).await, all);
        let page = "ID                              BYTES       DIRECTORY\npvc-1                           2147483648  pvc-1\n\
                    … --starting-token after/pvc-1\n";
        assert_eq!(text(&socket, &["list", "--max-entries", "1"]).await, page);
        let snapshot =
            "bytes    2147483648\ncreated  2027-01-15T08:00:00Z\nid       s-1\nready    true\nvolume   pvc-1\n";
        let cut = ["snapshot", "create", "s-1", "--volume", "pvc-1", "--secret", &secret];
        assert_eq!(text(&socket, &cut).await, snapshot);
        assert_eq!(text(&socket, &["snapshot", "get", "s-1"]).await, snapshot);
        let copy = ["create", "pvc-11", "--from-snapshot", "s-1", "--secret", &secret];
        assert!(text(&socket, &copy).await.ends_with("source.snapshot  s-1\n"));
        let list = "ID   VOLUME  BYTES       CREATED\ns-1  pvc-1   2147483648  2027-01-15T08:00:00Z\n";
        assert_eq!(text(&socket, &["snapshot", "list", "--volume", "pvc-1"]).await, list);
        let removed = ["snapshot", "delete", "s-1", "--secret", &secret];
        assert_eq!(text(&socket, &removed).await, "deleted  true\nid       s-1\n");
        assert_eq!(text(&socket, &["validate", "pvc-1", "--mode", "rox"]).await, "confirmed  true\nid         pvc-1\n");
        assert_eq!(text(&socket, &["delete", "pvc-1", "--secret", &secret]).await, "deleted  true\nid       pvc-1\n");

        let error = ask_with(&socket, &["validate", "pvc-1"]).await.err().expect("an error");
        assert_eq!(error.downcast::<Status>().expect("the driver's").code(), Code::NotFound);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_driver_that_is_not_there_is_no_answer_of_it() {
        let error = ask_with(Path::new("/nowhere/csi.sock"), &["info"]).await.err().expect("an error");
        assert!(error.downcast_ref::<Status>().is_none());
        assert!(
            error.to_string().starts_with("connecting to unix:///nowhere/csi.sock: is the driver running"),
            "{error}"
        );
        let error = connect("/nowhere/csi.sock").await.expect_err("no address").to_string();
        assert_eq!(error, "the endpoint is `/nowhere/csi.sock`: a CSI driver listens on a Unix socket, unix:///PATH");
    }

    #[test]
    fn a_secret_is_read_as_kubernetes_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let encoded = STANDARD.encode("redis://h");
        let path = secret(
            folder.path(),
            &format!("kind: Secret\ndata: {{metaurl: {encoded}, name: eA==}}\nstringData: {{name: shop}}\n"),
        );
        let token = folder.path().join("token");
        std::fs::write(&token, "two\nlines\n").expect("written");
        let secrets = vec![format!("token=@{}", token.display())];
        let content = read(&CsiSecrets { secret_file: Some(path), secrets }).expect("it is well formed");
        let expected = [("metaurl", "redis://h"), ("name", "shop"), ("token", "two\nlines")];
        assert_eq!(content, expected.map(|(key, value)| (key.to_string(), value.to_string())).into());
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let check = |secrets: CsiSecrets, expected: &str| {
            let error = format!("{:#}", read(&secrets).expect_err("it is refused"));
            assert!(error.contains(expected), "expected `{expected}` in: {error}");
            assert!(!error.contains(CANARY), "the secret is in: {error}");
        };
        let typed = |text: String| CsiSecrets { secret_file: None, secrets: vec![text] };
        check(typed(format!("metaurl={CANARY}")), "a --secret is not KEY=@FILE");
        check(typed(CANARY.to_string()), "a --secret is not KEY=@FILE");
        check(typed("metaurl=@/nowhere/file".into()), "reading the secret `metaurl` from /nowhere/file");
        let file = |text: &str| CsiSecrets { secret_file: Some(secret(folder.path(), text)), secrets: Vec::new() };
        check(file(&format!("kind: ConfigMap\ndata: {{a: {CANARY}}}")), "it must have exactly one Secret");
        check(file(&format!("kind: Secret\ndata: {{a: '{CANARY}!'}}")), "data.a is no text in base64");
        check(file(&format!("kind: Secret\nstringData: {{a: [{CANARY}]}}")), "stringData.a is no text");
        check(file(&format!("kind: Secret\nstringData: {{a: {CANARY}")), "reading the Secret in");
    }

    #[test]
    fn sizes_are_quantities() {
        let check = |text: &str, expected: Result<i64, &str>| {
            let parsed = Args::try_parse_from(["pith", "csi", "expand", "a", "--size", text]);
            let size = parsed.map(|args| match args.command {
                Command::Csi(Csi { command: CsiCommand::Expand { size, .. }, .. }) => size,
                _ => unreachable!("it is expand"),
            });
            match (size, expected) {
                (Ok(size), Ok(expected)) => assert_eq!(size, expected),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (size, _) => panic!("{text}: {size:?}"),
            }
        };
        check("10Gi", Ok(10 << 30));
        check("1", Ok(1));
        check("0", Err("it is no size of a volume"));
        check("16Ei", Err("it is no size of a volume"));
        check("much", Err("invalid value"));
    }
}
