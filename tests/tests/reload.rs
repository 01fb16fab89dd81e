//! Policies that change while a server answers: what is in force, at which moment, and what is left of what cannot be used.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use pith_tests::client::{Answer, Client, Protocol, get};
use pith_tests::server::{PITH, Server, folder};
use pith_tests::wasm_builds;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{SHOP, WEB};

/// How often policies change under load.
const CHANGES: usize = 100;

/// A configuration with these policies.
fn config(policies: &[Value]) -> String {
    format!("policies: {}", Value::from(policies.to_vec()))
}

/// A binding of the policy for resources that gives every sidecar this.
fn sizes(name: &str, module: &Path, size: &Value) -> Value {
    json!({
        "name": name, "module": {"file": module},
        "settings": {"default": "only", "sizes": {"only": size}},
    })
}

/// Two policies that say the same number in two fields of a sidecar.
fn version(module: &Path, number: usize) -> String {
    let (cpu, memory) = (format!("{number}m"), format!("{number}Mi"));
    config(&[
        sizes("cpu", module, &json!({"requests": {"cpu": cpu}})),
        sizes("memory", module, &json!({"requests": {"memory": memory}})),
    ])
}

/// The configuration of a server, whose listeners and objects stay as they are.
fn write(server: &Server, policies: &str) {
    let path = server.folder.path().join("pith.yaml");
    let text = fs::read_to_string(&path).expect("a configuration");
    let kept: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    let part = path.with_extension("part");
    fs::write(&part, format!("{kept}{policies}\n")).expect("written");
    fs::rename(part, path).expect("renamed");
}

fn look_now(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::HUP).expect("it runs");
}

async fn asked(server: &Server) -> Answer {
    let client = Client::connect(server.webhook, &server.ca(), Protocol::Http1).await;
    client.expect("a connection").review(WEB).await.expect("an answer")
}

/// The requests of the sidecar, in what the webhook answered.
fn requests(answer: &Answer) -> Value {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let review: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let patch = review["response"]["patch"].as_str().expect("a patch");
    let patch: json_patch::Patch =
        serde_json::from_slice(&STANDARD.decode(patch).expect("base64")).expect("a JSON patch");
    let mut pod: Value = serde_json::from_str::<Value>(WEB).expect("JSON")["request"]["object"].take();
    json_patch::patch(&mut pod, &patch).expect("the patch fits the pod");
    pod["spec"]["initContainers"][1]["resources"]["requests"].take()
}

/// The number that both policies say.
fn number(answer: &Answer) -> usize {
    let requests = requests(answer);
    let number = |key: &str, unit: &str| requests[key].as_str()?.strip_suffix(unit)?.parse().ok();
    let (cpu, memory): (Option<usize>, Option<usize>) = (number("cpu", "m"), number("memory", "Mi"));
    assert!(cpu.is_some() && cpu == memory, "the answer is of two versions: {requests}");
    cpu.expect("a number")
}

async fn metric(server: &Server, line: &str) -> bool {
    get(server.admin, "/metrics").await.expect("an answer").text().lines().any(|it| it == line)
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..6000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within a minute: {what}");
}

/// Kibibytes that a process has in memory.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it says so");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A module of its own name, so that a test can write to it.
fn copy(folder: &TempDir, module: &Path) -> PathBuf {
    let path = folder.path().join("policy.wasm");
    fs::copy(module, &path).expect("copied");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_under_load_is_of_one_version_and_none_fails() {
    let module = wasm_builds::policy("resources");
    let server = Server::start(&version(&module, 1), SHOP).expect("the server starts");
    let (is_over, answers, shown) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(1));
    let load = async {
        let mut client = Client::connect(server.webhook, &server.ca(), Protocol::Http1).await.expect("a connection");
        let mut before = 1;
        while !is_over.load(Ordering::Relaxed) {
            let now = number(&client.review(WEB).await.expect("an answer"));
            assert!(now >= before, "version {now} was answered after {before}");
            before = now;
            shown.fetch_max(now, Ordering::Relaxed);
            answers.fetch_add(1, Ordering::Relaxed);
        }
    };
    let changes = async {
        let mut early = 0;
        for change in 2..=CHANGES + 1 {
            write(&server, &version(&module, change));
            look_now(server.pid());
            until("the new version answers", async || shown.load(Ordering::Relaxed) >= change).await;
            if change == CHANGES / 5 {
                early = resident(server.pid());
            }
        }
        is_over.store(true, Ordering::Relaxed);
        let late = resident(server.pid());
        assert!(late < early + (32 << 10), "it had {early} KiB after {} changes and has {late} now", CHANGES / 5);
    };
    tokio::join!(changes, load);
    assert!(answers.load(Ordering::Relaxed) > CHANGES, "there was load");
    assert!(metric(&server, &format!("pith_policy_changes_total {CHANGES}")).await, "each change was taken once");
}

#[tokio::test]
async fn what_cannot_be_used_leaves_what_could_even_after_a_start() {
    let module = wasm_builds::policy("resources");
    let folder = tempfile::tempdir().expect("a folder");
    let own = copy(&folder, &module);
    let size = json!({"requests": {"cpu": "77m"}});
    let mut server = Server::start(&config(&[sizes("sizes", &own, &size)]), SHOP).expect("the server starts");
    let cpu = |answer: &Answer| requests(answer)["cpu"].clone();
    assert_eq!(cpu(&asked(&server).await), "77m");

    let degraded = "pith_policy_degraded{policy=\"sizes\"} 1";
    fs::write(&own, "no module").expect("written");
    look_now(server.pid());
    until("it says so", async || metric(&server, degraded).await).await;
    let sentence = "loading the policy `sizes`: it is not WebAssembly: a module begins with `\\0asm` and a version that Pith knows: \
                    it stays as it was";
    assert!(server.log().replace("\\\\", "\\").contains(sentence), "{}", server.log());
    assert_eq!(cpu(&asked(&server).await), "77m", "what was in force is");

    let beside = |settings: Value| {
        let new = json!({"name": "new", "module": {"file": module}, "settings": settings});
        config(&[sizes("sizes", &own, &json!({"requests": {"cpu": "99m"}})), new])
    };
    write(&server, &beside(json!({"default": "none"})));
    look_now(server.pid());
    until("it says so", async || metric(&server, "pith_policy_degraded{policy=\"new\"} 1").await).await;
    assert!(server.log().contains("it is not in force"), "{}", server.log());
    assert_eq!(cpu(&asked(&server).await), "77m", "settings come with their module or not at all");

    write(&server, &config(&[sizes("sizes", &own, &size)]));
    server.terminate().expect("the signal is sent");
    assert!(server.wait().expect("it stops").success());
    let place = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
    let kept = place.path().join("state/last-good");
    fs::remove_file(place.path().join("addresses.json")).expect("removed");
    let server = Server::start_in(place, &PITH).expect("it starts with what could be used");
    assert!(server.log().contains("the last that could be used is in force"), "{}", server.log());
    assert_eq!(cpu(&asked(&server).await), "77m");

    write(&server, "policies: [{nme: sizes}]");
    look_now(server.pid());
    until("it says so", async || metric(&server, "pith_policy_degraded{policy=\"\"} 1").await).await;
    assert!(server.log().contains("unknown field `nme`"), "{}", server.log());
    assert_eq!(cpu(&asked(&server).await), "77m");

    fs::copy(&module, &own).expect("copied");
    write(&server, &config(&[sizes("sizes", &own, &json!({"requests": {"cpu": "99m"}}))]));
    // Nobody says anything: it is found by the next look.
    until("the new one is in force", async || cpu(&asked(&server).await) == "99m").await;
    assert!(!get(server.admin, "/metrics").await.expect("an answer").text().contains("pith_policy_degraded{"));
    write(&server, "policies: []");
    look_now(server.pid());
    until("none is in force", async || metric(&server, "pith_policy_changes_total 2").await).await;
    let left: Vec<_> =
        fs::read_dir(kept).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left, ["policies.json"], "nothing is kept that is not in force");
}

/// A table of cases by which a sidecar of the settings of its binding requests this.
fn tests(cpu: &str) -> String {
    format!(
        "- name: the shop's sidecars are small\n  hook: sidecar\n  input: {{ namespace: {{ name: shop }} }}\n  expect: {{ change: {{ \
         requests: {{ cpu: {cpu} }} }} }}\n"
    )
}

#[tokio::test]
async fn what_does_not_pass_its_own_tests_changes_nothing_even_after_a_start() {
    let module = wasm_builds::policy("resources");
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases.yaml");
    let tested = |cpu: &str| {
        let mut policy = sizes("sizes", &module, &json!({"requests": {"cpu": cpu}}));
        policy["tests"] = json!(cases);
        config(&[policy])
    };
    fs::write(&cases, tests("99m")).expect("written");
    let error = Server::start(&tested("77m"), SHOP).expect_err("it never passed").to_string();
    let sentence = "its case `the shop's sidecars are small` (sidecar) does not hold: \
                    expected {\"change\":{\"requests\":{\"cpu\":\"99m\"}}}, answered {\"change\":{\"requests\":{\"cpu\":\"77m\"}}}";
    assert!(error.contains("loading the policy `sizes`") && error.contains(sentence), "{error}");

    fs::write(&cases, tests("77m")).expect("written");
    let mut server = Server::start(&tested("77m"), SHOP).expect("the server starts");
    let cpu = |answer: &Answer| requests(answer)["cpu"].clone();
    assert_eq!(cpu(&asked(&server).await), "77m");
    let degraded = async |server: &Server| metric(server, "pith_policy_degraded{policy=\"sizes\"} 1").await;
    // Other settings, for which the tests do not hold; then tests that do.
    write(&server, &tested("99m"));
    look_now(server.pid());
    until("it says so", async || degraded(&server).await).await;
    assert!(server.log().replace('\\', "").contains("does not hold: expected"), "{}", server.log());
    assert_eq!(cpu(&asked(&server).await), "77m", "what was in force is");
    fs::write(&cases, tests("99m")).expect("written");
    look_now(server.pid());
    until("the new one is in force", async || cpu(&asked(&server).await) == "99m").await;
    assert!(!degraded(&server).await);
    // The same binding and module, and tests that do not hold or cannot be read.
    for (table, why) in [
        (tests("1m"), "answered {"),
        ("- name: it".into(), "its tests cannot be read: "),
        ("[]".into(), "its tests have no cases"),
    ] {
        fs::write(&cases, table).expect("written");
        look_now(server.pid());
        until(why, async || degraded(&server).await && server.log().contains(why)).await;
        assert_eq!(cpu(&asked(&server).await), "99m");
    }

    server.terminate().expect("the signal is sent");
    assert!(server.wait().expect("it stops").success());
    let place = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
    let kept = place.path().join("state/last-good");
    fs::remove_file(place.path().join("addresses.json")).expect("removed");
    let server = Server::start_in(place, &PITH).expect("it starts with what passed");
    assert!(server.log().contains("the last that could be used is in force"), "{}", server.log());
    assert_eq!(cpu(&asked(&server).await), "99m");
    write(&server, "policies: []");
    look_now(server.pid());
    until("none is in force", async || fs::read_dir(&kept).expect("a folder").count() == 1).await;
}

#[tokio::test]
async fn a_start_without_anything_to_fall_back_on_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("policy.wasm");
    fs::write(&own, "no module").expect("written");
    let error = Server::start(&config(&[sizes("sizes", &own, &json!({}))]), SHOP).expect_err("it is refused");
    assert!(error.to_string().contains("loading the policy `sizes`"), "{error:#}");
    assert!(error.to_string().contains("exit status: 2"), "{error:#}");
}

#[tokio::test]
async fn only_policies_are_taken_before_the_next_start() {
    let server = Server::start("policies: []", SHOP).expect("the server starts");
    write(&server, "policies: []\nwebhook: { listen: 127.0.0.1:0, maxInFlight: 7 }");
    look_now(server.pid());
    until("it says so", async || {
        let log = server.log();
        log.contains("the rest of the configuration has changed for the next start only")
            && log.contains("webhook.maxInFlight")
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_fails_for_everybody_is_left_alone_until_a_better_one_comes() {
    let (bad, good) = (wasm_builds::guest("traps"), wasm_builds::guest("answers_plainly"));
    let folder = tempfile::tempdir().expect("a folder");
    let own = copy(&folder, &bad);
    let policy = json!({
        "name": "it", "module": {"file": own}, "hooks": ["sidecar"], "settings": {"accept": true}, "onFailure": "default",
    });
    let server = Server::start(&config(&[policy]), SHOP).expect("the server starts");
    let mut client = Client::connect(server.webhook, &server.ca(), Protocol::Http1).await.expect("a connection");
    let mut warning = async |name: usize| {
        let mut review: Value = serde_json::from_str(WEB).expect("JSON");
        review["request"]["object"]["metadata"]["name"] = json!(format!("web-{name}"));
        let answer = client.review(review.to_string()).await.expect("an answer");
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
        answer["response"]["warnings"][0].as_str().map(String::from)
    };
    for failure in 0..10 {
        let said = warning(failure % 3).await.expect("a warning");
        assert!(said.contains("(reason: trap)"), "{said}");
    }
    let said = warning(0).await.expect("a warning");
    assert!(said.contains("policy `it` failed (reason: paused)") && said.contains("is asked again in"), "{said}");
    assert!(metric(&server, "pith_policy_paused{policy=\"it\"} 1").await);
    assert!(server.log().contains("a policy fails too often and is left alone for a while"), "{}", server.log());

    fs::copy(&good, &own).expect("copied");
    look_now(server.pid());
    until("the better one is asked", async || warning(0).await.is_none()).await;
    assert!(!get(server.admin, "/metrics").await.expect("an answer").text().contains("pith_policy_paused{"));
}

#[tokio::test]
async fn a_policy_beyond_what_it_has_in_a_second_is_not_asked_until_some_of_it_is_back() {
    let policy = |guest: &str, limits: Value| {
        config(&[json!({
            "name": "it", "module": {"file": wasm_builds::guest(guest)}, "hooks": ["sidecar"], "settings": {"accept": true},
            "limits": limits, "onFailure": "default",
        })])
    };
    let check = async |guest: &str, limits: Value, first: Option<&str>, spent: &str| {
        let server = Server::start(&policy(guest, limits), SHOP).expect("the server starts");
        let mut client = Client::connect(server.webhook, &server.ca(), Protocol::Http1).await.expect("a connection");
        let mut count = 0;
        let mut warning = async || {
            count += 1;
            let mut review: Value = serde_json::from_str(WEB).expect("JSON");
            review["request"]["object"]["metadata"]["name"] = json!(format!("web-{}", count % 3));
            let answer = client.review(review.to_string()).await.expect("an answer");
            let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(answer["response"]["allowed"], true, "{answer}");
            answer["response"]["warnings"][0].as_str().map(String::from)
        };
        let is_first = |said: &Option<String>| match (said, first) {
            (None, None) => true,
            (Some(said), Some(words)) => said.contains(words),
            _ => false,
        };
        let sentence = format!(
            "policy `it` failed (reason: rate), and Pith decided without it: it has used up its {spent}, and is asked again in "
        );
        let started = Instant::now();
        let (mut asked, mut refused) = (0, 0);
        // More often, and for more objects, than what pauses a policy that fails.
        while refused < 12 {
            match warning().await {
                said if is_first(&said) => asked += 1,
                said => {
                    let said = said.expect("a warning");
                    assert!(asked > 0 && said.starts_with(&sentence), "{said}");
                    refused += 1;
                }
            }
            assert!(asked <= 1 + started.elapsed().as_secs(), "asked {asked} times in {:?}", started.elapsed());
        }
        let metrics = get(server.admin, "/metrics").await.expect("an answer").text();
        let refused = "pith_policy_calls_total{policy=\"it\",hook=\"sidecar\",outcome=\"rate\"} 12";
        assert!(metrics.contains(refused) && !metrics.contains("pith_policy_paused{"), "{metrics}");
        until("it is asked again", async || is_first(&warning().await)).await;
    };
    check("answers_plainly", json!({"callsPerSecond": 1}), None, "limits.callsPerSecond").await;
    let cut = Some("(reason: deadline)");
    check("spins_forever", json!({"deadline": "300ms", "timePerSecond": "100ms"}), cut, "limits.timePerSecond").await;
}

#[tokio::test]
async fn a_server_killed_while_policies_change_starts_again() {
    let module = wasm_builds::policy("resources");
    let mut place = folder(&version(&module, 1), SHOP).expect("a folder");
    let mut pauses = [0, 1, 3, 7, 15, 31, 63, 127].into_iter().cycle();
    for round in 2..18 {
        let mut server = Server::start_in(place, &PITH).expect("it starts");
        assert!(number(&asked(&server).await) <= round);
        write(&server, &version(&module, round));
        look_now(server.pid());
        tokio::time::sleep(Duration::from_millis(pauses.next().expect("without end"))).await;
        let killed = i32::try_from(server.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(killed, Signal::KILL).expect("it runs");
        server.wait().expect("it ends");
        place = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
        fs::remove_file(place.path().join("addresses.json")).expect("removed");
        if round % 4 == 0 {
            // The module of the next start is broken, so that what was kept must be whole.
            let broken = place.path().join("broken.wasm");
            fs::write(&broken, "no module").expect("written");
            let text = fs::read_to_string(place.path().join("pith.yaml")).expect("a configuration");
            let text = text.replace(module.to_str().expect("text"), broken.to_str().expect("text"));
            fs::write(place.path().join("pith.yaml"), text).expect("written");
        }
    }
}
