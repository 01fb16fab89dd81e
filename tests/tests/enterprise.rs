//! Volumes in file systems of the Enterprise Edition. Nobody here has its client: it is a stand-in (`tests/cluster/enterprise`), made of
//! what is public about how that one is called, in front of the real client of the Community Edition.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pith_tests::juicefs::{CLIENT, Scratch};
use pith_tests::provisioner::{Refusal, Serving, Site};
use pith_tests::server::PITH;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::secrets::NOISE;

const STAND_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/enterprise/juicefs");
const KEY: &str = "canary-of-a-key";
const GIB: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(30);

/// A file system that a console knows, and a site whose client can ask it.
struct Studio {
    scratch: Scratch,
    site: Site,
    folder: tempfile::TempDir,
}

impl Studio {
    /// Calls have this in their Secret.
    fn with(access: &[(&str, &str)], client: Option<&str>) -> Studio {
        let scratch = Scratch::new();
        let bucket = format!("--bucket={}", scratch.secrets()["bucket"]);
        scratch.run(&["--no-agent", "format", "--storage=file", &bucket, "META", "studio"]);
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "csi: {{socket: csi.sock, cluster: test, secretFiles: [secret.yaml]}}\nlog: {{format: json, filter: '{NOISE}'}}\n"
        );
        let client = client.map(|client| format!(", enterpriseClient: {client}")).unwrap_or_default();
        let timeouts = format!("startTimeout: 60s, callTimeout: 30s{client}");
        let site = Site::timed(&config, "", &BTreeMap::new(), &timeouts).expect("a site");
        let studio = Studio { scratch, site, folder };
        studio.give(access);
        studio
    }

    fn give(&self, access: &[(&str, &str)]) {
        let envs = json!({"COMMUNITY_CLIENT": CLIENT.display().to_string(), "CALLS": self.calls_file()});
        let mut secrets = BTreeMap::from([("name".into(), "studio".into()), ("envs".into(), envs.to_string())]);
        let engine = self.scratch.meta_url();
        secrets.extend(access.iter().map(|(key, value)| (key.to_string(), value.replace("ENGINE", &engine))));
        self.site.give(&secrets).expect("written");
    }

    fn calls_file(&self) -> PathBuf {
        self.folder.path().join("calls")
    }

    /// How the client was called, one line each.
    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.calls_file()).unwrap_or_default().lines().map(String::from).collect()
    }

    /// A server whose temporary files are where they can be looked for.
    fn serve(&self) -> Serving {
        let homes = self.homes();
        fs::create_dir_all(&homes).expect("a folder");
        let mut command = Command::new(&*PITH);
        command.env("TMPDIR", &homes);
        self.site.serve_as(command, &[]).expect("it serves")
    }

    fn homes(&self) -> PathBuf {
        self.folder.path().join("homes")
    }

    fn ask(&self, arguments: &[&str]) -> Result<Value, Refusal> {
        self.site.ask(arguments).expect("pith csi runs")
    }

    fn quota(&self, directory: &str) -> Option<String> {
        let table = self.scratch.run(&["--no-agent", "quota", "list", "META"]);
        let row = table.lines().find_map(|line| line.strip_prefix(&format!("| {directory} "))?.split('|').nth(1));
        row.map(|size| size.trim().to_string())
    }
}

/// Ends it as a cluster would.
fn end(mut serving: Serving) {
    let process = Pid::from_raw(serving.id().cast_signed()).expect("a process");
    rustix::process::kill_process(process, Signal::TERM).expect("it runs");
    assert!(serving.wait().expect("it ends").success());
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("a folder").next().is_none()
}

#[test]
fn volumes_live_in_a_file_system_that_a_console_knows() {
    let studio = Studio::with(&[("token", "ENGINE"), ("secretkey", KEY)], Some(STAND_IN));
    let serving = studio.serve();
    let made = studio.ask(&["create", "pvc-a", "--size", "1Gi"]).expect("it is made");
    assert_eq!((&made["capacityBytes"], &made["context"]["subPath"]), (&json!(GIB), &json!("pvc-a")));
    assert_eq!(studio.ask(&["create", "pvc-a", "--size", "1Gi"]), Ok(made));
    assert_eq!(studio.quota("/pvc-a").as_deref(), Some("1.0 GiB"));
    // What is no whole GiB has room for the next one.
    let odd = studio.ask(&["create", "pvc-odd", "--size", "1536Mi"]).expect("it is made");
    assert_eq!(odd["capacityBytes"], 3 * GIB / 2);
    assert_eq!(studio.quota("/pvc-odd").as_deref(), Some("2.0 GiB"));
    let grown = studio.ask(&["expand", "pvc-a", "--size", "3Gi"]).expect("it grows");
    assert_eq!(grown["capacityBytes"], 3 * GIB);
    assert_eq!(studio.quota("/pvc-a").as_deref(), Some("3.0 GiB"));
    let listed = studio.ask(&["list"]).expect("a list");
    let ids: Vec<&Value> = listed["volumes"].as_array().expect("volumes").iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, ["pvc-a", "pvc-odd"]);
    let check = studio.site.run_volumes(&["check", "-o", "json"]).expect("pith volumes runs");
    assert_eq!(serde_json::from_slice::<Value>(&check.stdout).expect("JSON"), json!([]), "{check:?}");

    // The first server has asked the console once, and `pith volumes` for itself. Nothing but that has seen a secret.
    let calls = studio.calls();
    let (asked, others): (Vec<&String>, Vec<&String>) = calls.iter().partition(|call| call.starts_with("auth "));
    let engine = studio.scratch.meta_url();
    assert_eq!(asked.len(), 2, "{calls:#?}");
    let call = format!("auth studio --secret-key={KEY} --token={engine} --conf-dir=");
    assert!(asked.iter().all(|it| it.starts_with(&call)), "{asked:?}");
    assert!(others.iter().all(|it| !it.contains(KEY) && !it.contains(&engine)), "{others:#?}");
    for beginning in ["webdav studio 127.0.0.1:", "quota set studio --path /pvc-odd --capacity 2 "] {
        assert!(others.iter().any(|it| it.starts_with(beginning)), "{beginning}: {others:#?}");
    }

    // Another process knows it by what lies there, and what it kept goes with it.
    assert!(!is_empty(&studio.homes()));
    end(serving);
    assert!(is_empty(&studio.homes()));
    let _serving = studio.serve();
    studio.ask(&["delete", "pvc-odd"]).expect("it is deleted");
    let left = studio.site.volumes().expect("the records can be read");
    assert_eq!(left.keys().collect::<Vec<_>>(), ["pvc-a"]);
    let restored = studio.site.run_volumes(&["restore-from-trash", "pvc-odd"]).expect("pith volumes runs");
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(studio.quota("/pvc-odd").as_deref(), Some("2.0 GiB"));

    // A token that the console does not know.
    studio.give(&[("token", "unknown-token"), ("secretkey", KEY)]);
    let refusal = studio.ask(&["create", "pvc-b", "--size", "1Gi"]).expect_err("nobody opens it");
    assert_eq!(refusal.code, "FailedPrecondition", "{refusal:?}");
    assert!(refusal.sentence.contains("the console does not know the token ***"), "{refusal:?}");
    let log = studio.site.log();
    assert!(log.contains("worker started") && log.contains("the console does not know the token"), "{log}");
    for secret in [KEY, &engine, "unknown-token"] {
        assert!(!log.contains(secret), "the log has {secret}");
    }
}

#[test]
fn a_configuration_that_the_secret_brings_is_used_and_no_console_asked() {
    let studio = Studio::with(&[("initconfig", "ENGINE"), ("encrypt_rsa_key", KEY)], Some(STAND_IN));
    let serving = studio.serve();
    studio.ask(&["create", "pvc-a", "--size", "1Gi"]).expect("it is made");
    let calls = studio.calls();
    assert!(calls.iter().all(|call| !call.starts_with("auth ") && !call.contains(KEY)), "{calls:#?}");
    let homes = studio.homes();
    let home = fs::read_dir(&homes).expect("a folder").next().expect("a home").expect("it can be read").path();
    let worker = calls.iter().find(|call| call.starts_with("webdav ")).expect("a worker");
    assert!(worker.ends_with(&format!(" --rsa-key={}", home.join("rsa-key.pem").display())), "{worker}");
    // A Secret that changes has a worker and a home of its own, and those of the old one go in time.
    studio.give(&[("initconfig", "ENGINE"), ("encrypt_rsa_key", "another")]);
    studio.ask(&["expand", "pvc-a", "--size", "2Gi"]).expect("it grows");
    assert_eq!(fs::read_dir(&homes).expect("a folder").count(), 2);
    serving.kill().expect("it can be killed");
    // Whatever ends the server ends its clients.
    let started = Instant::now();
    while !studio.scratch.processes().is_empty() {
        assert!(started.elapsed() < PATIENCE, "{:?}", studio.scratch.processes());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!studio.site.log().contains(KEY) && !studio.site.log().contains(&studio.scratch.meta_url()));
}

#[test]
fn where_pith_cannot_tell_where_volumes_would_lie_or_has_no_client_it_makes_none() {
    let studio = Studio::with(&[("token", "ENGINE")], None);
    let serving = studio.serve();
    let refusal = studio.ask(&["create", "pvc-a", "--size", "1Gi"]).expect_err("there is no client");
    assert_eq!(refusal.code, "FailedPrecondition", "{refusal:?}");
    assert!(refusal.sentence.contains("`juicefs.enterpriseClient` names the client of that edition"), "{refusal:?}");
    // Nothing of it is missing in a list.
    assert_eq!(studio.ask(&["list"]).map(|listed| listed["volumes"].clone()), Ok(json!([])));
    serving.kill().expect("it can be killed");

    let studio = Studio::with(&[("token", "ENGINE"), ("subdir", "/team")], Some(STAND_IN));
    let _serving = studio.serve();
    let refusal = studio.ask(&["create", "pvc-a", "--size", "1Gi"]).expect_err("it is below a directory");
    assert_eq!(refusal.code, "FailedPrecondition", "{refusal:?}");
    assert!(refusal.sentence.contains("has a `subdir`"), "{refusal:?}");
    assert_eq!(studio.calls(), Vec::<String>::new());
}
