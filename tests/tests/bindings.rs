//! PolicyBindings on a real API server, with two replicas of Pith that each answer for a namespace: put to use, changed, watched,
//! broken, mended and taken back while pods are made all the time.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pith_tests::cluster::{CLUSTER, Cluster, Namespace, static_volume};
use pith_tests::server::{PITH, Server, root};
use pith_tests::wasm_builds;
use serde_json::{Value, json};

use crate::cluster::{said, yaml};

/// The ConfigMap with the modules, beside Pith.
const MODULES: &str = "bindings-modules";
/// How often settings change under load, and how often a replica is killed meanwhile.
const CHANGES: usize = 20;
const KILLS: usize = 6;

/// A replica of the webhook, and the namespace that it answers for.
struct Replica {
    name: &'static str,
    server: Server,
    namespace: Namespace,
}

impl Replica {
    fn start(name: &'static str) -> Replica {
        let cluster = &*CLUSTER;
        let label = format!("bindings-{name}");
        let labels = json!({"juicefs.com/enable-injection": "true", "pith.test/webhook": label});
        let namespace = cluster.namespace(&label, &labels).expect("a namespace");
        cluster.apply(&yaml(&static_volume(&namespace.name, "data"))).expect("a volume");
        cluster.wait(&namespace.name, "jsonpath={.status.phase}=Bound", "pvc/data").expect("it is bound");
        let server = started(name);
        let replica = Replica { name, server, namespace };
        replica.register();
        replica
    }

    fn register(&self) {
        CLUSTER.register(&format!("bindings-{}", self.name), &self.server).expect("it is registered");
    }

    /// Ends it at once, and waits until it answers again.
    fn kill(&mut self) {
        self.server.start_again(&CLUSTER).expect("it starts again");
        self.until_ready();
        self.register();
        let pod = self.pod();
        CLUSTER.until_injected(&self.namespace.name, &pod, "pith-guard").expect("it injects again");
    }

    fn until_ready(&self) {
        let ready = || {
            let (code, said) = CLUSTER.http(self.server.admin, "/readyz")?;
            Ok((code == 200).then_some(said))
        };
        CLUSTER.until(&self.namespace.name, "a replica that is ready", ready).expect("it is ready");
    }

    fn pod(&self) -> Value {
        let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": "data"}});
        let mounts = json!([{"name": "data", "mountPath": "/data"}]);
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-", "namespace": self.namespace.name},
            "spec": {"containers": [{"name": "web", "image": "web:1", "volumeMounts": mounts}], "volumes": [claim]},
        })
    }

    /// The CPU that the sidecar of a pod would ask for, which is made for the sake of the answer.
    fn cpu(&self) -> Result<String, String> {
        let dry_run = ["create", "--dry-run=server", "--output=json", "-f", "-"];
        let output = CLUSTER.try_kubectl(&dry_run, &self.pod().to_string()).map_err(|it| it.to_string())?;
        if !output.status.success() {
            return Err(said(&output));
        }
        let pod: Value = serde_json::from_slice(&output.stdout).map_err(|it| it.to_string())?;
        let cpu = pod["spec"]["initContainers"][1]["resources"]["requests"]["cpu"].as_str();
        cpu.map(String::from).ok_or_else(|| format!("no sidecar in {pod}"))
    }
}

fn started(name: &str) -> Server {
    let cluster = &*CLUSTER;
    let config = format!(
        "policyBindings: {}\n",
        json!({"namespace": "pith-system", "replica": format!("bindings-{name}"), "reportEvery": "1s"})
    );
    let kubeconfig = cluster.kubeconfig_of_pith("pith-webhook").expect("a kubeconfig");
    let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
    cluster.show_log(&server.folder.path().join("log"));
    server
}

/// Applies a binding that gives every sidecar this CPU.
fn bind(cluster: &Cluster, name: &str, cpu: &str, more: &Value) {
    cluster.apply(&binding(name, cpu, more).to_string()).expect("it is taken");
}

fn binding(name: &str, cpu: &str, more: &Value) -> Value {
    let mut spec = json!({
        "module": {"configMap": {"name": MODULES, "key": "sizes.wasm"}},
        "settings": {"default": "only", "sizes": {"only": {"requests": {"cpu": cpu}}}},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "pith.dev/v1alpha1", "kind": "PolicyBinding", "metadata": {"name": name}, "spec": spec})
}

/// A table by which every sidecar asks for this CPU.
fn cases(cpu: &str) -> String {
    json!([{
        "name": "every sidecar", "hook": "sidecar", "input": {"namespace": {"name": "shop"}},
        "expect": {"change": {"requests": {"cpu": cpu}}},
    }])
    .to_string()
}

fn status(cluster: &Cluster, name: &str) -> Value {
    cluster.get(&["policybinding", name]).expect("it is there")["status"].take()
}

/// Waits until a condition of the present generation has this status; the answer is its reason and message.
fn until(cluster: &Cluster, name: &str, kind: &str, wanted: &str) -> (String, String) {
    let look = || {
        let object = cluster.get(&["policybinding", name])?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|it| {
            it["type"] == kind
                && it["status"] == wanted
                && it["observedGeneration"] == object["metadata"]["generation"]
                && object["status"]["replicas"].as_array().is_some_and(|it| it.len() >= 2)
        });
        let text = |it: &Value| it.as_str().unwrap_or_default().to_string();
        Ok(found.map(|it| (text(&it["reason"]), text(&it["message"]))))
    };
    cluster.until("default", &format!("{kind}={wanted} of {name}"), look).unwrap_or_else(|error| {
        panic!("{error:#}\n{:#}", cluster.get(&["policybinding", name]).unwrap_or_default());
    })
}

/// What was answered under load, per replica: each number once, in order.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    answers: AtomicUsize,
    seen: Mutex<Vec<String>>,
}

impl Load {
    fn run(&self, replica: &Replica) {
        while !self.is_over.load(Ordering::Relaxed) {
            let cpu = replica.cpu().unwrap_or_else(|why| panic!("{}: {why}", replica.name));
            self.answers.fetch_add(1, Ordering::Relaxed);
            let mut seen = self.seen.lock().expect("nobody panicked");
            if seen.last() != Some(&cpu) {
                seen.push(cpu);
            }
        }
    }

    fn until(&self, cpu: &str) {
        let shown =
            || Ok((self.seen.lock().expect("nobody panicked").last().map(String::as_str) == Some(cpu)).then_some(()));
        CLUSTER.until("default", &format!("pods whose sidecar asks for {cpu}"), shown).expect("it is answered");
    }
}

#[test]
fn a_policy_is_bound_watched_promoted_broken_mended_and_rolled_back_while_pods_are_made() {
    let cluster = &*CLUSTER;
    let definition = fs::read_to_string(root().join("deploy/chart/crds/policies.yaml")).expect("a file");
    cluster.apply(&definition).expect("the API server takes the schema");
    for kind in ["policybindings", "policymodules"] {
        let definition = format!("crd/{kind}.pith.dev");
        cluster.wait("default", "condition=Established", &definition).expect("it is served");
    }
    // One of a run that was killed would ask somebody who is gone.
    let left = ["delete", "validatingwebhookconfiguration", "pith-bindings", "--ignore-not-found"];
    cluster.kubectl(&left).expect("it is deleted");
    for name in ["sizes", "sizes-next"] {
        cluster.kubectl(&["delete", "policybinding", name, "--ignore-not-found"]).expect("it is deleted");
    }
    cluster.kubeconfig_of_pith("pith-webhook").expect("a namespace for Pith");
    let module = wasm_builds::policy("resources");
    let file = format!("--from-file=sizes.wasm={}", module.display());
    let cases = format!("--from-literal=cases.yaml={}", cases("777m"));
    let write_modules = |file: &str| {
        let create =
            ["create", "configmap", MODULES, "-n", "pith-system", file, &cases, "--dry-run=client", "--output=json"];
        let config_map = cluster.kubectl(&create).expect("a ConfigMap");
        cluster.apply(&config_map).expect("it is taken");
    };
    write_modules(&file);
    // What is there when a replica starts is in force before it answers.
    bind(cluster, "sizes", "101m", &json!({}));
    let mut one = Replica::start("one");
    let two = Replica::start("two");
    for replica in [&one, &two] {
        replica.until_ready();
        let pod = replica.pod();
        cluster.until_injected(&replica.namespace.name, &pod, "pith-guard").expect("it injects");
        assert_eq!(replica.cpu().as_deref(), Ok("101m"), "{}", replica.name);
    }
    validate(cluster, &one.server);
    until(cluster, "sizes", "Ready", "True");
    let shown = cluster.kubectl(&["get", "policybinding", "sizes"]).expect("it is shown");
    let words: Vec<&str> = shown.lines().flat_map(str::split_whitespace).collect();
    assert_eq!(words[..8], ["NAME", "MODE", "PERCENT", "READY", "DEGRADED", "ASKED", "FAILED", "AGE"], "{shown}");
    assert_eq!(words[8..13], ["sizes", "enforce", "100", "True", "False"], "{shown}");

    let load = [Load::default(), Load::default()];
    let over = || load.iter().for_each(|it| it.is_over.store(true, Ordering::Relaxed));
    let until_all = |cpu: &str| load.iter().for_each(|it| it.until(cpu));
    std::thread::scope(|scope| {
        let threads = [scope.spawn(|| load[0].run(&one)), scope.spawn(|| load[1].run(&two))];
        let story = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // Reloads: every change is answered by, in order, on both.
            for change in 102..102 + CHANGES {
                bind(cluster, "sizes", &format!("{change}m"), &json!({}));
                until_all(&format!("{change}m"));
            }
            let last = format!("{}m", 101 + CHANGES);
            until(cluster, "sizes", "Ready", "True");

            // Watched: another one is asked beside it, and nothing follows.
            bind(cluster, "sizes-next", "500m", &json!({"mode": "monitor", "priority": 10}));
            until(cluster, "sizes-next", "Monitoring", "True");
            let asked = || Ok((status(cluster, "sizes-next")["calls"].as_u64() > Some(2)).then_some(()));
            cluster.until("default", "calls of what is watched", asked).expect("it is asked");
            until_all(&last);
            let (_, metrics) = cluster.http(two.server.admin, "/metrics").expect("metrics");
            let counted = "pith_policy_monitored_total{policy=\"sizes-next\",hook=\"sidecar\",outcome=\"different\"}";
            assert!(metrics.contains(counted), "{metrics}");

            explains(&two.namespace.name);

            // Promoted, at first for a share of nothing.
            bind(cluster, "sizes-next", "500m", &json!({"priority": 10, "percent": 0}));
            until(cluster, "sizes-next", "Ready", "True");
            until_all(&last);
            bind(cluster, "sizes-next", "500m", &json!({"priority": 10}));
            until_all("500m");

            // Broken: the webhook refuses it, and where that does not look, what was in force stays.
            let broken = json!({"settings": {"default": "missing", "sizes": {}}, "priority": 10});
            let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
            let text = binding("sizes-next", "500m", &broken).to_string();
            let refused = cluster.try_kubectl(&apply, &text).expect("kubectl runs");
            assert!(!refused.status.success() && said(&refused).contains("unusable-binding"), "{}", said(&refused));
            assert!(said(&refused).contains("settings"), "{}", said(&refused));
            // Beside its module lies what must hold of it.
            let tested = json!({"module": {"configMap": {"name": MODULES, "key": "sizes.wasm", "tests": "cases.yaml"}}, "priority": 10});
            let otherwise = binding("sizes-next", "500m", &tested).to_string();
            let refused = cluster.try_kubectl(&apply, &otherwise).expect("kubectl runs");
            assert!(said(&refused).contains("its case `every sidecar` (sidecar) does not hold"), "{}", said(&refused));
            let two = json!({"file": "/a.wasm", "configMap": {"name": MODULES, "key": "sizes.wasm"}});
            let of_schema = binding("sizes-next", "500m", &json!({"module": two})).to_string();
            let refused = cluster.try_kubectl(&apply, &of_schema).expect("kubectl runs");
            assert!(said(&refused).contains("exactly one of"), "{}", said(&refused));
            cluster.kubectl(&["delete", "validatingwebhookconfiguration", "pith-bindings"]).expect("deleted");
            let taken = || Ok(cluster.try_kubectl(&apply, &text)?.status.success().then_some(()));
            cluster.until("default", "an API server that asks nobody", taken).expect("it is stored");
            let (reason, message) = until(cluster, "sizes-next", "Degraded", "True");
            assert_eq!(reason, "Unusable");
            assert!(message.contains("settings") && message.contains("is in force"), "{message}");
            until(cluster, "sizes-next", "Ready", "False");
            until_all("500m");
            let good = || {
                let status = status(cluster, "sizes-next");
                let (good, replica) = (&status["lastGood"], &status["replicas"][0]);
                Ok((good["generation"] == replica["inForce"]).then(|| good.clone()))
            };
            let last_good = cluster.until("default", "what is in force, in the sum", good).expect("it is there");
            assert_eq!(last_good["spec"]["settings"]["sizes"]["only"]["requests"]["cpu"], "500m");
            assert_eq!(last_good["spec"]["percent"], 100);

            // Even the module is there no more.
            for name in ["sizes", "sizes-next"] {
                let good = status(cluster, name)["lastGood"]["digest"].take();
                let it_is = |it: Value| it["spec"]["digest"] == good;
                let kept = || Ok(cluster.get(&["policymodule", name]).is_ok_and(it_is).then_some(()));
                cluster.until("default", "the module that is in force, in the cluster", kept).expect("it is kept");
            }
            write_modules("--from-literal=sizes.wasm=no module");
            until(cluster, "sizes", "Degraded", "True");

            // A replica that starts now has what the others have.
            let third = started("three");
            let ready = || Ok((cluster.http(third.admin, "/readyz")?.0 == 200).then_some(()));
            cluster.until("default", "a third replica", ready).expect("it is ready");
            let (_, report) = cluster.http(third.admin, "/policies").expect("a report");
            let report: Value = serde_json::from_str(&report).expect("JSON");
            let next = report["policies"].as_array().expect("a list").iter().find(|it| it["name"] == "sizes-next");
            let next = next.expect("it is in force");
            assert!(next["problem"].is_string(), "{next}");
            assert_eq!(
                (&next["inForce"], &next["module"]["digest"]),
                (&last_good["generation"], &last_good["digest"]),
                "{next}"
            );
            until_all("500m");
            drop(third);
            let gone = || {
                let status = status(cluster, "sizes");
                let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
                Ok(replicas.iter().all(|it| it["name"] != "bindings-three").then_some(()))
            };
            cluster.until("default", "the end of what a replica said that is gone", gone).expect("it is removed");

            // Mended, and then taken back.
            write_modules(&file);
            until(cluster, "sizes", "Degraded", "False");
            bind(cluster, "sizes-next", "501m", &json!({"priority": 10}));
            until_all("501m");
            until(cluster, "sizes-next", "Ready", "True");
            until(cluster, "sizes-next", "Degraded", "False");
            cluster.kubectl(&["delete", "policybinding", "sizes-next"]).expect("it is deleted");
            until_all(&last);
            let gone = ["wait", "--for=delete", "policymodule/sizes-next", "--timeout=120s"];
            cluster.kubectl(&gone).expect("its module goes with it");
        }));
        over();
        for thread in threads {
            thread.join().expect("no answer failed");
        }
        story.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let expected: Vec<String> = (101..102 + CHANGES)
        .map(|it| format!("{it}m"))
        .chain(["500m".into(), "501m".into(), format!("{}m", 101 + CHANGES)])
        .collect();
    for (load, replica) in load.iter().zip([&one, &two]) {
        let mut seen = load.seen.lock().expect("nobody panicked").clone();
        // The load may have begun after the first change.
        if seen.first().map(String::as_str) != Some("101m") {
            seen.insert(0, "101m".into());
        }
        assert_eq!(seen, expected, "{}: every version in its order, and no other answer", replica.name);
        assert!(load.answers.load(Ordering::Relaxed) > CHANGES, "there was load");
    }

    // Killed at random while policies change: the other one goes on, and who comes back has what is asked for.
    let load = Load::default();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| load.run(&two));
        for change in 0..KILLS {
            bind(cluster, "sizes", &format!("{}m", 200 + change), &json!({}));
            if change % 2 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(50 * change as u64));
            }
            one.kill();
            let back = || Ok((one.cpu().as_deref() == Ok(&format!("{}m", 200 + change))).then_some(()));
            cluster.until("default", "what is asked for, after a kill", back).expect("it is in force");
        }
        load.until(&format!("{}m", 199 + KILLS));
        load.is_over.store(true, Ordering::Relaxed);
        thread.join().expect("no answer failed");
    });
    until(cluster, "sizes", "Ready", "True");
    cluster.kubectl(&["delete", "policybinding", "sizes"]).expect("it is deleted");
}

/// What people ask at a terminal takes the PolicyBindings of the cluster into account.
fn explains(namespace: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let of_pith = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let kubeconfig = of_pith("kubeconfig.yaml", &CLUSTER.kubeconfig_of_pith("pith-webhook").expect("a kubeconfig"));
    let config = of_pith(
        "pith.yaml",
        "objects: {cluster: {kubeconfig: kubeconfig.yaml}}\npolicyBindings: {namespace: pith-system}\n",
    );
    let explain = |command: &[&str]| {
        let mut pith = CLUSTER.command(&PITH);
        pith.args(command).args(["--config", &config, "--kubeconfig", &kubeconfig, "--namespace", namespace]);
        let output = pith.arg("pvc/data").output().expect("pith runs");
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let found = explain(&["policy", "explain"]);
    assert!(found.contains("data"), "{found}");
    let found = explain(&["policy", "diff"]);
    assert!(found.contains("0 would be decided otherwise"), "{found}");
}

/// Has the API server ask this replica about PolicyBindings.
fn validate(cluster: &Cluster, server: &Server) {
    use base64::Engine;
    let ca = fs::read(server.ca()).expect("a certificate");
    let ca = base64::engine::general_purpose::STANDARD.encode(ca);
    let rules = json!([{
        "apiGroups": ["pith.dev"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["policybindings"],
    }]);
    let webhook = json!({
        "name": "policybindings.pith.dev", "rules": rules, "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": format!("https://{}/mutate", server.webhook), "caBundle": ca},
        "failurePolicy": "Fail", "timeoutSeconds": 30,
    });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "pith-bindings"}, "webhooks": [webhook],
    });
    cluster.apply(&configuration.to_string()).expect("it is registered");
}
