//! The canary: a word that stands wherever a secret can, and must come out nowhere.
//!
//! Everything runs at the noisiest level of the log. Extend this with every new path a secret can take.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{self, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pith::juicefs::{Depth, FileSystem, Kind, Path, Workers};
use pith::provisioner::{CreateRequest, Secrets};
use pith_core::volume::Asked;
use pith_tests::client::{Client, Protocol, get};
use pith_tests::juicefs::{CLIENT, options};
use pith_tests::provisioner::Site;
use pith_tests::redis::Redis;
use pith_tests::server::{PITH, Server};
use pith_tests::wasm_builds;
use serde_json::{Value, json};

use crate::{SHOP, WEB};

const CANARY: &str = "canary-5e1f0c";

/// Everything but the compiler, which writes gigabytes about modules and sees no request.
pub(crate) const NOISE: &str = "trace,cranelift_codegen=warn,cranelift_frontend=warn,regalloc2=warn,wasmtime_internal_cranelift=warn,\
                     wasmtime_environ=warn,wasmtime=warn,wasmparser=warn";

/// A Secret with the canary in every place that one has, beside the objects that are read.
fn objects() -> String {
    format!(
        "{SHOP}\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: juicefs-shop\n  namespace: pith-system\n  \
         annotations: {{kubectl.kubernetes.io/last-applied-configuration: '{CANARY}'}}\nstringData:\n  name: shop\n  \
         metaurl: redis://:{CANARY}@redis:6379/1\n  storage: s3\n  bucket: https://{CANARY}.example.com\n  \
         access-key: {CANARY}\n  secret-key: {CANARY}\n  token: {CANARY}\n  passphrase: {CANARY}\n  \
         encrypt_rsa_key: {CANARY}\n  envs: '{{\"KEY\": \"{CANARY}\"}}'\n  format-options: session-token={CANARY}\ndata:\n  \
         secretkey: {CANARY}\n"
    )
}

/// The review of a pod with the canary wherever the pod itself may hold a secret.
fn review() -> Value {
    let mut review: Value = serde_json::from_str(WEB).expect("the fixture is JSON");
    let pod = &mut review["request"]["object"];
    pod["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!(CANARY);
    pod["spec"]["containers"][0]["env"][1]["value"] = json!(CANARY);
    pod["spec"]["containers"][0]["command"] = json!(["/srv/web", format!("--token={CANARY}")]);
    pod["spec"]["containers"][1]["args"] = json!([CANARY]);
    review["request"]["userInfo"]["extra"] = json!({"token": [CANARY]});
    review
}

#[track_caller]
fn check(place: &str, text: &str) {
    check_for(CANARY, place, text);
}

#[track_caller]
pub(crate) fn check_for(secret: &str, place: &str, text: &str) {
    // A patch travels in base64, at any of its three alignments.
    let encoded = (0..3).map(|offset| {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &secret.as_bytes()[offset..]);
        encoded[..encoded.len() - 4].to_string()
    });
    for spelling in encoded.chain([secret.to_string()]) {
        if let Some(found) = text.find(&spelling) {
            // A log at its noisiest is too long to be shown.
            let (start, end) = (found.saturating_sub(1000), (found + 1000).min(text.len()));
            let around = &text[text.floor_char_boundary(start)..text.ceil_char_boundary(end)];
            panic!("`{secret}` is in {place} as `{spelling}`: … {around} …");
        }
    }
}

#[tokio::test]
async fn no_secret_comes_out_of_the_webhook() {
    let config = format!(
        "log: {{format: json, filter: '{NOISE}'}}\nwebhook: {{maxBody: 64Ki}}\ndecisions: {{file: decisions.jsonl, capture: true}}\npolicies:\n\
         - {{name: sizes, module: {{file: {}}}, settings: {{teams: {{web: {{change: {{limits: {{memory: 2Gi}}}}}}}}}}}}\n\
         - {{name: panics, module: {{file: {}}}, settings: {{accept: true}}, onFailure: default, priority: 1, hooks: [sidecar]}}\n",
        wasm_builds::policy("resources").display(),
        wasm_builds::guest("panics").display(),
    );
    let mut server = Server::start(&config, &objects()).expect("the server starts");
    let ca = server.ca();
    let connect = |protocol| Client::connect(server.webhook, &ca, protocol);

    let changed = |change: &dyn Fn(&mut Value)| {
        let mut review = review();
        change(&mut review);
        review.to_string()
    };
    let volume = "/request/object/spec/volumes/0";
    let cut = review().to_string();
    let requests = [
        changed(&|_| {}),
        // Refusals.
        changed(&|review| {
            *review.pointer_mut(volume).expect("it") = json!({"name": CANARY, "csi": {"driver": "csi.juicefs.com"}})
        })
        .replace(&format!("\"name\":\"{CANARY}\""), "\"name\":\"orders\""),
        changed(&|review| review["request"]["object"]["spec"]["hostUsers"] = json!(false)),
        changed(&|review| {
            review["request"]["object"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = json!("no")
        }),
        changed(&|review| {
            review["request"]["object"]["spec"]["initContainers"] = json!([{"name": "jfs-mount", "env": [CANARY]}])
        }),
        changed(&|review| review["request"]["object"]["spec"] = json!(CANARY)),
        changed(&|review| review["request"]["object"]["metadata"] = json!(CANARY)),
        changed(&|review| review["request"]["object"]["metadata"]["labels"] = json!(CANARY)),
        // What cannot be read.
        cut[..cut.rfind(CANARY).expect("it is there") + CANARY.len()].to_string(),
        format!("{{\"{CANARY}\": 1, \"{CANARY}\": 2}}"),
        format!("\"{CANARY}\""),
        format!("{{\"kind\": \"{CANARY}\"}}"),
        format!("{{\"kind\": \"AdmissionReview\", \"apiVersion\": \"{CANARY}\"}}"),
        changed(&|review| review["request"]["uid"] = json!([CANARY])),
        changed(&|review| review["padding"] = json!(CANARY.repeat(10_000))),
    ];
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for request in &requests {
            let answer =
                connect(protocol).await.expect("a connection").review(request.clone()).await.expect("an answer");
            check("an answer", &answer.text());
        }
    }

    let metrics = get(server.admin, "/metrics").await.expect("an answer").text();
    assert!(metrics.contains(r#"policy="panics",hook="sidecar",outcome="trap""#), "the policy did not fail: {metrics}");
    check("the metrics", &metrics);
    let log = server.log();
    assert!(log.contains("\"TRACE\""), "the log is not at its noisiest");
    check("the log", &log);
    check("the process list", &processes());
    server.terminate().expect("the signal is sent");
    assert!(server.wait().expect("it stops").success());
    let decisions = std::fs::read_to_string(server.folder.path().join("decisions.jsonl")).expect("a decision log");
    assert!(decisions.contains("\"case\":"), "nothing was captured: {decisions}");
    check("the decision log", &decisions);
}

/// The argv and the environment that any user of the machine can read of `pith`'s own processes.
fn processes() -> String {
    let mut found = String::new();
    for entry in std::fs::read_dir("/proc").expect("a /proc").flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains("pith") {
            found.push_str(&command);
            found.push('\n');
        }
    }
    assert!(found.contains("serve"), "pith serve is not in the process list");
    found
}

#[test]
fn no_secret_comes_out_of_the_offline_commands() {
    let folder = pith_tests::server::folder("", &objects()).expect("a folder");
    std::fs::write(folder.path().join("pod.json"), review()["request"]["object"].to_string()).expect("written");
    let broken = format!("{{\"kind\": \"Pod\", \"{CANARY}\": [");
    std::fs::write(folder.path().join("broken.json"), broken).expect("written");
    let cases: [&[&str]; 4] = [
        &["inject", "-f", "pod.json", "--config", "pith.yaml", "--explain", "-o", "json"],
        &["inject", "-f", "broken.json", "--config", "pith.yaml"],
        &["config", "--config", "pith.yaml"],
        &["inject", "-f", "objects/all.yaml", "--config", "pith.yaml"],
    ];
    for arguments in cases {
        let output = Command::new(&*PITH).args(arguments).current_dir(folder.path()).output().expect("pith runs");
        check(arguments[0], &String::from_utf8_lossy(&output.stdout));
        check(arguments[0], &String::from_utf8_lossy(&output.stderr));
    }
}

/// The command lines of all processes, as any user of the machine can read them.
fn command_lines() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/proc").expect("a /proc").flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

/// Looks at the process list again and again: many a process lives for milliseconds.
struct Watch {
    done: Arc<AtomicBool>,
    looking: JoinHandle<BTreeSet<String>>,
}

impl Watch {
    fn start() -> Watch {
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        let looking = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !told.load(Ordering::Relaxed) {
                seen.extend(command_lines());
                std::thread::sleep(Duration::from_millis(1));
            }
            seen
        });
        Watch { done, looking }
    }

    /// Everything that was seen. What must have been seen is in one command line, all words of it.
    #[track_caller]
    fn end(self, expected: &[&[&str]]) -> String {
        self.done.store(true, Ordering::Relaxed);
        let seen = self.looking.join().expect("no panic");
        for words in expected {
            let found = seen.iter().any(|line| words.iter().all(|word| line.contains(word)));
            assert!(found, "no process with {words:?} was seen: {seen:#?}");
        }
        seen.into_iter().collect::<Vec<_>>().join("\n")
    }
}

/// The Secret of a file system on a Redis whose password is the canary, as are all keys that stand beside it.
fn redis_secrets(redis: &Redis) -> BTreeMap<String, String> {
    let mut secrets = redis.secrets();
    for key in ["access-key", "secret-key", "session-token", "token", "passphrase", "meta-password", "anything"] {
        secrets.insert(key.into(), CANARY.into());
    }
    secrets.insert("envs".into(), json!({"KEY": CANARY, "AWS_SECRET_ACCESS_KEY": CANARY}).to_string());
    secrets.insert("format-options".into(), format!("trash-days=0,session-token={CANARY}"));
    secrets
}

#[test]
fn no_secret_comes_out_of_the_provisioner() {
    let redis = Redis::start(CANARY).expect("a Redis");
    let address = redis.url().replace("redis://", "");
    let good = redis_secrets(&redis);
    let config = format!(
        "csi: {{socket: csi.sock, cluster: test, secretFiles: [secret.yaml]}}\nlog: {{format: json, filter: '{NOISE}'}}\n"
    );
    let site = Site::new(&config, "", &good).expect("a site");
    let changed = |key: &str, value: Option<&str>| {
        let mut secrets = good.clone();
        match value {
            Some(value) => secrets.insert(key.into(), value.into()),
            None => secrets.remove(key),
        };
        secrets
    };
    let write = |name: &str, secrets: &BTreeMap<String, String>| {
        let secret = json!({"kind": "Secret", "stringData": secrets}).to_string();
        std::fs::write(site.path().join(name), secret).expect("written");
    };

    // Runs `pith` with a Secret; what it prints is looked through at once.
    let pith = |arguments: &[&str], secret: &str, code: i32, says: &str| {
        let mut command = Command::new(&*PITH);
        command.args(arguments).current_dir(site.path()).stdin(Stdio::null());
        if !secret.is_empty() {
            command.args(["--secret-file", secret]);
        }
        let output = command.output().expect("pith runs");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let place = format!("what `pith {}` with {secret} says", arguments.join(" "));
        said.iter().for_each(|text| check(&place, text));
        assert_eq!(output.status.code(), Some(code), "{place}: {said:?}");
        assert!(said.iter().any(|text| text.contains(says)), "{place}: expected `{says}` in {said:?}");
    };
    let endpoint = format!("unix://{}", site.socket().display());
    let csi = |arguments: &[&str], secret: &str, code: i32, says: &str| {
        pith(&[&["csi", "--endpoint", &endpoint, "--timeout", "100s"], arguments].concat(), secret, code, says);
    };
    let volumes = |arguments: &[&str], secret: &str, code: i32, says: &str| {
        pith(&[&["volumes"], arguments, &["--config", "pith.yaml"]].concat(), secret, code, says);
    };

    let watch = Watch::start();
    let create = ["create", "pvc-a", "--size", "1Gi"];

    // An engine that cannot be reached. The client would try for a minute.
    let patient = std::fs::read_to_string(site.path().join("pith.yaml")).expect("it is there");
    let impatient = patient.replace("startTimeout: 60s", "startTimeout: 2s");
    std::fs::write(site.path().join("pith.yaml"), impatient).expect("written");
    let serving = site.serve(&[]).expect("it serves");
    write("absent.json", &changed("metaurl", Some(&format!("redis://:{CANARY}@127.0.0.1:1/1"))));
    csi(&create, "absent.json", 1, "FailedPrecondition");
    volumes(&["ls"], "absent.json", 2, "connection refused");
    serving.kill().expect("it can be killed");
    std::fs::write(site.path().join("pith.yaml"), patient).expect("written");
    let serving = site.serve(&[]).expect("it serves");

    // Secrets that open nothing: what is said of them, and by whom.
    let other = format!("other-{CANARY}");
    let bad: [(Option<String>, &str); 11] = [
        (None, "of the JuiceFS Enterprise Edition"),
        (Some(format!("redis://:{other}@{address}")), "WRONGPASS"),
        (Some(format!("redis://:{CANARY}@{address}x")), "the JuiceFS client for `scratch` ended"),
        (Some(format!("redis://:{CANARY}@127.0.0.1:none/1")), "the JuiceFS client for `scratch` ended"),
        (Some(format!("{CANARY}://host")), "is no URL of a metadata engine"),
        (Some(format!("redis://:{CANARY}%@{address}")), "must be percent-encoded"),
        (Some(format!("redis://:{CANARY}/1@{address}")), "has an `@` behind its host"),
        (Some(format!("redis://:{CANARY}?1@{address}")), "has an `@` behind its host"),
        (Some(format!("redis://{address}?password={CANARY}")), "has a password among its parameters"),
        (Some(format!("tikv://user:{CANARY}@{address}")), "on its command line only"),
        (Some(format!("redis://:{CANARY}\n@{address}")), "has a line break"),
    ];
    for (index, (url, says)) in bad.iter().enumerate() {
        let name = format!("bad-{index}.json");
        let mut secrets = changed("metaurl", url.as_deref());
        // What is known as a secret from another key would be masked for that.
        if url.is_some() {
            secrets.retain(|key, _| ["name", "metaurl", "storage", "bucket"].contains(&key.as_str()));
        }
        write(&name, &secrets);
        csi(&create, &name, 1, says);
        volumes(&["ls"], &name, 2, says);
    }
    for (index, (key, value, says)) in [
        ("encrypt_rsa_key", CANARY, "the JuiceFS client for `scratch` ended"),
        ("bucket", &*format!("https://user:{CANARY}@host/bucket"), "has a password in its URL"),
        ("envs", &*format!("[{CANARY}"), "is no JSON object"),
        ("envs", &*json!({"META_PASSWORD": CANARY}).to_string(), "which Pith keeps to itself"),
        ("envs", &*json!({CANARY: CANARY}).to_string(), "has a name that no variable can have"),
        ("format-options", &*format!("={CANARY}"), "has an item that is neither"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("odd-{index}.json");
        write(&name, &changed(key, Some(value)));
        csi(&create, &name, 1, says);
    }
    std::fs::write(site.path().join("broken.json"), format!("{{\"stringData\": {{\"{CANARY}\": [")).expect("written");
    csi(&create, "broken.json", 2, "reading the Secret");
    write("empty.json", &BTreeMap::new());
    csi(&create, "empty.json", 1, "has no `name`");

    // The life of a volume.
    csi(&create, "secret.yaml", 0, "pvc-a");
    csi(&create, "secret.yaml", 0, "pvc-a");
    csi(&["create", "pvc-a", "--size", "2Gi"], "secret.yaml", 1, "AlreadyExists");
    csi(&["create", "pvc-b", "--size", "1Gi"], "secret.yaml", 0, "pvc-b");
    csi(&["expand", "pvc-a", "--size", "3Gi"], "secret.yaml", 0, "3221225472");
    csi(&["validate", "pvc-a"], "secret.yaml", 0, "confirmed");
    csi(&["validate", "pvc-c"], "secret.yaml", 1, "NotFound");
    csi(&["delete", "pvc-b"], "secret.yaml", 0, "deleted");
    // Snapshots and clones.
    csi(&["snapshot", "create", "s-1", "--volume", "pvc-a"], "secret.yaml", 0, "s-1");
    csi(&["snapshot", "create", "s-2", "--volume", "pvc-z"], "secret.yaml", 1, "NotFound");
    csi(&["create", "pvc-d", "--from-snapshot", "s-1"], "secret.yaml", 0, "pvc-d");
    csi(&["create", "pvc-e", "--from-volume", "pvc-a", "--size", "1Gi"], "secret.yaml", 1, "OutOfRange");
    for output in ["text", "json", "yaml"] {
        csi(&["snapshot", "list", "-o", output], "", 0, "s-1");
        csi(&["snapshot", "get", "s-1", "-o", output], "secret.yaml", 0, "s-1");
        volumes(&["snapshots", "-o", output], "secret.yaml", 0, "s-1");
    }
    for arguments in
        [&["snapshot", "delete", "s-1"][..], &["snapshot", "list"], &["create", "pvc-f", "--from-snapshot", "s-1"]]
    {
        csi(arguments, "bad-1.json", 1, "WRONGPASS");
        csi(arguments, "bad-0.json", 1, "Enterprise");
    }
    csi(&["snapshot", "delete", "s-1"], "secret.yaml", 0, "deleted");
    // Secrets that the driver reads itself.
    for output in ["text", "json", "yaml"] {
        csi(&["list", "-o", output], "", 0, "pvc-a");
        csi(&["get", "pvc-a", "-o", output], "", 0, "pvc-a");
    }
    let own = std::fs::read_to_string(site.path().join("secret.yaml")).expect("it is there");
    for (secret, says) in
        [("bad-1.json", "WRONGPASS"), ("bad-5.json", "percent-encoded"), ("broken.json", "the Secret in")]
    {
        std::fs::copy(site.path().join(secret), site.path().join("secret.yaml")).expect("it is written");
        csi(&["list"], "", 1, says);
        csi(&["get", "pvc-a"], "", 1, says);
    }
    std::fs::write(site.path().join("secret.yaml"), own).expect("it is written");
    // The engine is the same, and the password is not.
    for arguments in [&["delete", "pvc-a"][..], &["expand", "pvc-a", "--size", "4Gi"], &["validate", "pvc-a"]] {
        csi(arguments, "bad-1.json", 1, "WRONGPASS");
        csi(arguments, "bad-0.json", 1, "Enterprise");
    }
    for output in ["text", "json", "yaml"] {
        volumes(&["ls", "-o", output], "secret.yaml", 0, "pvc-a");
        volumes(&["show", "pvc-a", "-o", output], "secret.yaml", 0, "pvc-a");
    }
    volumes(&["show", "pvc-b"], "secret.yaml", 2, "there is no volume `pvc-b`");

    // What lies in the file system.
    let file_system = FileSystem::from_secrets(&good).expect("the Secret is well formed");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let records = runtime.block_on(read_everything(&file_system));
    assert!(records.contains("/.pith/volumes/pvc-a/2/record: "), "{records}");
    assert!(records.contains("/.pith/trash/pvc-b."), "{records}");
    check("the file system", &records);
    let metrics = runtime.block_on(get(site.admin().expect("an address"), "/metrics")).expect("an answer").text();
    assert!(metrics.contains("csi_plugin_operations_seconds_count"), "{metrics}");
    check("the metrics", &metrics);

    // The engine goes away beneath a worker.
    let worker_password = webdav_password(serving.id());
    drop(redis);
    csi(&["validate", "pvc-a"], "secret.yaml", 1, "Unavailable");
    drop(serving);

    let processes = watch.end(&[
        &["serve", "--config"],
        &["csi", "create"],
        &["volumes", "show"],
        &["juicefs", " format "],
        &["juicefs", " quota set "],
        &["juicefs", " webdav "],
        &["juicefs", " mount ", " /dev/fd/"],
    ]);
    check("the process list", &processes);
    let log = site.log();
    for part in ["\"level\":\"TRACE\"", "\"target\":\"juicefs\"", "pith::csi::call", "WRONGPASS", "worker started"] {
        assert!(log.contains(part), "the log has no {part}");
    }
    check("the log", &log);
    check_for(&worker_password, "the log", &log);
    check_for(&worker_password, "the process list", &processes);

    // What a log or an error could show of the types that hold it.
    let secrets = Secrets::from(good);
    let asked = Asked {
        name: "pvc-a".into(),
        required_bytes: Some(1),
        limit_bytes: None,
        parameters: Default::default(),
        mutable_parameters: Default::default(),
        source: None,
        capabilities: Vec::new(),
    };
    let request = CreateRequest { asked, claim: None, secrets: secrets.clone() };
    check("Debug", &format!("{secrets:#?} {request:#?} {file_system:#?} {:#?}", file_system.key()));
}

/// Every file of a file system with its content, and every directory.
async fn read_everything(file_system: &FileSystem) -> String {
    let workers = Workers::new(options()).expect("a thread can be started");
    let worker = workers.get(file_system).await.expect("a worker");
    let root = Path::of::<&str>([]).expect("the root");
    let mut text = String::new();
    for entry in worker.list(&root, Depth::Infinity).await.expect("listed").expect("it is there") {
        text.push_str(&format!("{}: ", entry.path));
        if entry.kind == Kind::File {
            let content = worker.read(&entry.path).await.expect("read").expect("it is there");
            text.push_str(&String::from_utf8_lossy(&content));
        }
        text.push('\n');
    }
    drop(worker);
    workers.stop().await;
    text
}

/// The environment of a process, which its own user alone can read.
fn environment(process: u32) -> BTreeMap<String, String> {
    let bytes = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.split('\0').filter_map(|it| it.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

/// The processes that a process has started, and those that they have.
fn descendants(process: u32) -> Vec<u32> {
    let mut found = vec![process];
    let mut next = 0;
    while let Some(process) = found.get(next) {
        for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|it| it.parse::<u32>().ok()));
        }
        next += 1;
    }
    found.split_off(1)
}

/// The password of a server's worker.
fn webdav_password(server: u32) -> String {
    let workers = descendants(server).into_iter();
    let mut passwords = workers.filter_map(|it| environment(it).remove("WEBDAV_PASSWORD"));
    passwords.next().expect("a worker runs")
}

/// A sidecar that runs as its container would, in namespaces of its own: where its first process ends, all of them do, and what
/// they have mounted is gone. That happens when this is dropped.
struct Sidecar {
    namespaces: Child,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.namespaces.kill();
        let _ = self.namespaces.wait();
    }
}

/// `$(NAME)`, as the kubelet expands it.
fn expand(text: &str, environment: &BTreeMap<String, String>) -> String {
    let (mut expanded, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let reference = after.strip_prefix('(').and_then(|it| it.split_once(')'));
        let value = reference.and_then(|(name, behind)| Some((environment.get(name)?, behind)));
        rest = match (value, after.strip_prefix('$')) {
            (Some((value, behind)), _) => {
                expanded.push_str(value);
                behind
            }
            (None, escaped) => {
                expanded.push('$');
                escaped.unwrap_or(after)
            }
        };
    }
    expanded + rest
}

#[test]
fn no_secret_is_in_the_process_list_while_the_client_runs() {
    let redis = Redis::start(CANARY).expect("a Redis");
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let file_system = FileSystem::from_secrets(&redis_secrets(&redis)).expect("the Secret is well formed");
        let workers = Workers::new(options()).expect("a thread can be started");
        let worker = workers.get(&file_system).await.expect("a worker");
        let directory = Path::of(["volume"]).expect("a path");
        worker.make_directory(&directory).await.expect("made");
        worker.write(&directory.join("here").expect("a path"), b"here".to_vec()).await.expect("written");
        drop(worker);
        workers.stop().await;
    });

    // The container of the injected pod. Its cache and its port are its pod's; here they are the machine's.
    let own = format!("[cache-dir={}, metrics=127.0.0.1:0, no-usage-report]", at("cache").display());
    let shop = SHOP.replace("[cache-size=2048]", &own);
    assert_ne!(shop, SHOP, "the class has other options");
    std::fs::create_dir(at("objects")).expect("made");
    std::fs::write(at("objects/all.yaml"), shop).expect("written");
    let review: Value = serde_json::from_str(WEB).expect("the fixture is JSON");
    std::fs::write(at("pod.json"), review["request"]["object"].to_string()).expect("written");
    let mut command = Command::new(&*PITH);
    command.args(["inject", "-f", "pod.json", "--objects", "objects", "-o", "json"]).current_dir(folder.path());
    let output = command.output().expect("pith runs");
    let pods: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let containers = pods["items"][0]["spec"]["initContainers"].as_array().expect("containers");
    let container = containers.iter().find(|it| it["name"] == "jfs-mount").expect("it is injected");

    // What the kubelet makes of it.
    let secret = BTreeMap::from([
        ("METAURL", redis.url()),
        ("META_PASSWORD", CANARY.to_string()),
        ("SUBDIR", "volume".to_string()),
    ]);
    let mut environment_of_it = BTreeMap::new();
    for variable in container["env"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("a name").to_string();
        let value = match variable["valueFrom"]["secretKeyRef"]["key"].as_str() {
            Some(key) => secret.get(key).unwrap_or_else(|| panic!("the Secret has no {key}")).clone(),
            None => expand(variable["value"].as_str().unwrap_or_default(), &environment_of_it),
        };
        environment_of_it.insert(name, value);
    }
    assert!(environment_of_it.values().any(|value| value == CANARY), "it does not get the password");
    let mount = at("mount");
    let place = container["volumeMounts"][0]["mountPath"].as_str().expect("a path");
    let words = |words: &Value| -> Vec<String> {
        let words = words.as_array().expect("a command").iter().map(|word| word.as_str().expect("text"));
        words.map(|word| expand(word, &environment_of_it).replace(place, mount.to_str().expect("text"))).collect()
    };
    let command = words(&container["command"]);
    assert_eq!(command[0], "/usr/local/bin/juicefs");
    std::fs::create_dir(&mount).expect("made");
    let said = std::fs::File::create(at("said")).expect("made");

    let watch = Watch::start();
    let mut namespaces = Command::new("unshare");
    namespaces.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    namespaces.arg(&*CLIENT).args(&command[1..]).env_clear().envs(&environment_of_it);
    namespaces.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", folder.path()).env("TMPDIR", folder.path());
    namespaces.stdin(Stdio::null()).stdout(said.try_clone().expect("a file")).stderr(said);
    let mut sidecar = Sidecar { namespaces: namespaces.spawn().expect("unshare runs") };
    let process = sidecar.namespaces.id();
    // The path as the sidecar sees it.
    let inside = |path: &path::Path| -> PathBuf {
        PathBuf::from(format!("/proc/{process}/root")).join(path.strip_prefix("/").expect("it is absolute"))
    };
    let probe = words(&container["startupProbe"]["exec"]["command"]);
    let control = inside(path::Path::new(&probe[2]));
    let started = Instant::now();
    while !control.is_file() {
        let said = || std::fs::read_to_string(at("said")).unwrap_or_default();
        let ended = sidecar.namespaces.try_wait().expect("it can be asked");
        assert!(ended.is_none(), "the client ended: {}", said());
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is mounted: {}", said());
        std::thread::sleep(Duration::from_millis(5));
    }
    let passwords = descendants(process).into_iter().filter_map(|it| environment(it).remove("META_PASSWORD"));
    assert!(passwords.into_iter().any(|it| it == CANARY), "the client does not have the password");
    assert_eq!(std::fs::read_to_string(inside(&mount.join("here"))).expect("read"), "here");

    // What applications and other users see.
    check("the container", &container.to_string());
    // The client itself shows the name of the key there, and takes out the key that belongs to it.
    let settings = std::fs::read_to_string(&control).expect("read");
    let name = format!("\"AccessKey\": \"{CANARY}\"");
    assert!(settings.contains(&name), "{settings}");
    check("the control file", &settings.replace(&name, ""));
    check("the mounts", &std::fs::read_to_string(format!("/proc/{process}/mounts")).expect("read"));

    // As the pod ends: its mount goes, as the guard sees to, then all that is left.
    let mut stop = Command::new("nsenter");
    stop.args(["--mount", "--pid", "--target", &descendants(process)[0].to_string()]);
    stop.args(["umount", "--lazy"]).arg(&mount);
    assert!(stop.status().expect("nsenter runs").success());
    assert!(!control.exists(), "it is still mounted");
    drop(sidecar);
    check("the process list", &watch.end(&[&["juicefs", " mount "]]));
    let said = std::fs::read_to_string(at("said")).expect("read");
    assert!(said.contains("mount"), "the client said nothing: {said}");
    check("what the client said", &said);
    check("the machine's mounts", &std::fs::read_to_string("/proc/self/mounts").expect("read"));
}
