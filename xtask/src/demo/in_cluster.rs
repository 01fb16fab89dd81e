//! `cargo xtask demo --cluster`: the main job in a real Kubernetes, for a team that applies a claim and a Deployment.
//!
//! As with the other demo, nothing that is printed is made up: it is what the API server says. The cluster stays at the end, for
//! looking around; the next run begins with a new one, whatever became of the last.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cluster::{self, Place, Tier, programs};
use crate::command::{POLL, both, capture, output, spawn};
use crate::images;
use crate::terminal::{Step, Style, indented, paint, seconds, table};
use crate::workspace::{relative, root, target};
use crate::{policies, tools};

/// How many steps there are.
const STEPS: usize = 10;
/// The cluster's name.
const NAME: &str = "demo";
/// The namespace of Pith.
const PITH: &str = "pith-system";
/// The namespace of the application team.
const TEAM: &str = "web";
/// The most time for anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// The node's address, at which Redis and the S3 server listen.
const ADDRESS: &str = "10.180.0.1";
/// The password of both, which operator.yaml has too.
const PASSWORD: &str = "only-for-the-demo";

/// The cluster as the steps use it.
struct Demo {
    place: Place,
    /// target/demo-cluster, with the data of Redis and of the S3 server.
    folder: PathBuf,
}

/// Runs the steps.
pub(crate) fn run() -> Result<()> {
    let started = Instant::now();
    println!("Pith in a cluster: a team applies a claim and a Deployment, and its pods have their files on JuiceFS.");
    let archives = prepare()?;
    let demo = start(&archives)?;
    demo.storage()?;
    demo.pith()?;
    demo.operator()?;
    demo.deployment()?;
    demo.more()?;
    demo.reasons()?;
    demo.without_pith()?;
    demo.delete()?;
    demo.look_around();
    println!("\n{}", paint(Style::Good, format!("Done in {}.", seconds(started.elapsed()))));
    Ok(())
}

/// Runs the steps as a test, and leaves nothing.
pub(crate) fn check() -> Result<()> {
    run()?;
    cluster::end(NAME)
}

fn prepare() -> Result<Vec<PathBuf>> {
    let step = Step::start(1, STEPS, "What it needs: policies, images and programs");
    let policies: Vec<String> = policies::build()?.iter().map(|file| relative(file)).collect();
    indented(&policies.join("\n"));
    tools::package("redis-server", "redis-server")?;
    let archives = images::for_pith_on_a_node()?;
    programs::s3()?;
    step.end();
    Ok(archives)
}

fn start(archives: &[PathBuf]) -> Result<Demo> {
    let step = Step::start(2, STEPS, "A Kubernetes of one node, in namespaces of this machine");
    cluster::end(NAME)?;
    let place = cluster::start(NAME, &[Tier::Node], archives)?;
    let folder = target().join("demo-cluster");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("wiping {}", relative(&folder)))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", relative(&folder)))?;
    step.end();
    Ok(Demo { place, folder })
}

impl Demo {
    /// Redis and an S3 server, at the node's address. They are of the cluster's processes and end with it.
    fn storage(&self) -> Result<()> {
        let step = Step::start(3, STEPS, "Redis for metadata and an S3 server for data");
        // The server takes a folder for a bucket.
        for folder in ["redis", "s3/shop"] {
            fs::create_dir_all(self.folder.join(folder)).context("making a folder for data")?;
        }
        let config = self.folder.join("redis.conf");
        // The password stands in the file: a process list shows arguments.
        let text =
            format!("bind {ADDRESS}\nport 6379\nrequirepass {PASSWORD}\ndir {}\n", self.folder.join("redis").display());
        fs::write(&config, text).context("writing the configuration of Redis")?;
        self.background("redis-server", &[&config.display().to_string()], &[])?;
        let credentials = [("ROOT_ACCESS_KEY", "demo"), ("ROOT_SECRET_KEY", PASSWORD)];
        let data = self.folder.join("s3").display().to_string();
        let s3 = programs::s3()?.display().to_string();
        self.background(&s3, &["--port", &format!("{ADDRESS}:7070"), "posix", &data], &credentials)?;
        for port in [6379, 7070] {
            self.until(&format!("a server at {ADDRESS}:{port}"), || Ok(self.answers(port)?.then_some(())))?;
        }
        indented(&table(&[
            vec!["Redis".into(), format!("redis://{ADDRESS}:6379"), relative(&self.folder.join("redis"))],
            vec!["S3".into(), format!("http://{ADDRESS}:7070"), relative(&self.folder.join("s3"))],
        ]));
        step.end();
        Ok(())
    }

    fn pith(&self) -> Result<()> {
        let step = Step::start(4, STEPS, "Helm installs Pith, with the platform team's policies");
        self.kubectl(&["create", "namespace", PITH])?;
        let folder = target().join("policies");
        let files =
            ["exemption", "naming", "resources"].map(|name| format!("--from-file={}/{name}.wasm", folder.display()));
        let mut configmap = vec!["create", "configmap", "pith-policies", "--namespace", PITH];
        configmap.extend(files.iter().map(String::as_str));
        self.kubectl(&configmap)?;
        self.install()?;
        self.show(PITH, "deployments,pods")?;
        indented(self.registered()?.trim());
        step.end();
        Ok(())
    }

    fn install(&self) -> Result<()> {
        let (chart, values) = (root().join("deploy/chart"), demo_file("values.yaml"));
        indented(&paint(
            Style::Faint,
            format!("helm install pith {} --namespace {PITH} --values {} --wait", relative(&chart), relative(&values)),
        ));
        let (chart, values) = (chart.display().to_string(), values.display().to_string());
        let arguments =
            ["install", "pith", &chart, "--namespace", PITH, "--values", &values, "--wait", "--timeout", "120s"];
        let installed = output(self.client("helm").args(arguments))?;
        if !installed.status.success() {
            bail!("helm install failed: {}\n{}", both(&installed), self.describe(PITH)?);
        }
        Ok(())
    }

    /// The webhook's configuration, which Pith applies when it is ready to answer.
    fn registered(&self) -> Result<String> {
        let webhook = || {
            let found = self.kubectl(&["get", "mutatingwebhookconfiguration", "--output=name"])?;
            Ok(Some(found).filter(|found| found.contains("pith")))
        };
        self.until("Pith's registration with the API server", webhook)
    }

    fn operator(&self) -> Result<()> {
        let step = Step::start(5, STEPS, "The platform team: a file system, a class, a namespace");
        self.apply("operator.yaml")?;
        indented(&self.kubectl(&["get", "storageclass", "shop"])?);
        step.end();
        Ok(())
    }

    fn deployment(&self) -> Result<()> {
        let step = Step::start(6, STEPS, "The application team: a claim and a Deployment, nothing else");
        let started = Instant::now();
        self.apply("orders.yaml")?;
        self.wait("jsonpath={.status.phase}=Bound", "pvc/orders")?;
        indented(&format!("bound after {}", seconds(started.elapsed())));
        let directory = self.directory("orders")?;
        ensure!(directory.starts_with("web/orders-"), "the naming policy did not choose {directory}");
        indented(&format!("the policy `folder-of-the-team` chose the directory {directory}"));
        self.wait("condition=Available", "deployment/orders")?;
        indented(&format!("running after {}", seconds(started.elapsed())));
        self.show(TEAM, "pvc,deployments,pods")?;
        let pod = self.pod("app=orders")?;
        let containers = self.get(&["pod", &pod])?;
        let names = containers["spec"]["initContainers"].as_array().context("no init container was injected")?;
        let names: Vec<&str> = names.iter().filter_map(|it| it["name"].as_str()).collect();
        indented(&format!("injected: {}", names.join(", ")));
        let first = self.in_pod(&pod, &["cat", "/orders/first"])?;
        ensure!(first == format!("written by {pod}\n"), "the application wrote `{first}`");
        indented(&format!("/orders/first: {}", first.trim()));
        step.end();
        Ok(())
    }

    fn more(&self) -> Result<()> {
        let step = Step::start(7, STEPS, "A Job with the same claim, a StatefulSet, and a larger volume");
        self.apply("report.yaml")?;
        self.wait("condition=Complete", "job/report")?;
        let read = self.kubectl(&["logs", "--namespace", TEAM, "job/report", "--container", "app"])?;
        ensure!(read.starts_with("written by orders-"), "the Job read `{read}`");
        let phase = self.get(&["pod", &self.pod("batch.kubernetes.io/job-name=report")?])?["status"]["phase"].clone();
        ensure!(phase == "Succeeded", "the Job's pod is {phase}");
        indented(&format!("the Job read: {}; its pod has ended: {}", read.trim(), phase.as_str().unwrap_or_default()));

        self.apply("carts.yaml")?;
        self.wait("jsonpath={.status.readyReplicas}=2", "statefulset/carts")?;
        let directories = [self.directory("carts-carts-0")?, self.directory("carts-carts-1")?];
        ensure!(directories[0] != directories[1], "both replicas have {}", directories[0]);
        for (index, directory) in directories.iter().enumerate() {
            let owner = self.in_pod(&format!("carts-{index}"), &["cat", "/carts/owner"])?;
            ensure!(owner.trim() == format!("carts-{index}"), "/carts/owner of carts-{index} says {owner}");
            indented(&format!("carts-{index} has {directory}"));
        }

        let pod = self.pod("app=orders")?;
        let fill = |gibibytes: u32| {
            let length = (u64::from(gibibytes) << 30) - (64 << 20);
            let fill = ["fallocate", "-l", &length.to_string(), "/orders/large"].map(String::from);
            let fill: Vec<&str> = fill.iter().map(String::as_str).collect();
            self.try_in_pod(&pod, &fill)
        };
        ensure!(!fill(2)?.status.success(), "the quota of 1 GiB did not stop the application");
        indented("a file of almost 2 GiB is refused: the volume has 1 GiB");
        let larger = r#"{"spec": {"resources": {"requests": {"storage": "2Gi"}}}}"#;
        self.kubectl(&["patch", "pvc", "orders", "--namespace", TEAM, "--patch", larger])?;
        self.wait("jsonpath={.status.capacity.storage}=2Gi", "pvc/orders")?;
        // A client asks for quotas every few seconds.
        self.until("room for 2 GiB", || Ok(fill(2)?.status.success().then_some(())))?;
        ensure!(!fill(3)?.status.success(), "the quota of 2 GiB did not stop the application");
        indented(&format!(
            "expanded: {}",
            self.in_pod(&pod, &["df", "-h", "/orders"])?.lines().last().unwrap_or_default()
        ));
        step.end();
        Ok(())
    }

    fn reasons(&self) -> Result<()> {
        let step = Step::start(8, STEPS, "A pod that a policy exempts, and one that a policy refuses");
        self.apply("legacy.yaml")?;
        let exempt = self.get(&["pod", "legacy"])?;
        ensure!(exempt["spec"]["initContainers"].is_null(), "the exempt pod was injected");
        let reason = exempt["metadata"]["annotations"]["pith.io/skipped"].as_str().context("no reason on the pod")?;
        indented(&format!("legacy: {reason}"));
        self.apply("batch.yaml")?;
        let denied = || {
            let events = self.get(&["events", "--field-selector=reason=FailedCreate"])?;
            let events = events["items"].as_array().cloned().unwrap_or_default();
            let mut messages = events.iter().filter_map(|event| event["message"].as_str());
            Ok(messages.find(|message| message.contains("policy `who-is-exempt` refuses")).map(String::from))
        };
        let message = self.until("the event of a refused pod", denied)?;
        indented(&format!("batch: {message}"));
        step.end();
        Ok(())
    }

    fn without_pith(&self) -> Result<()> {
        let step = Step::start(9, STEPS, "Pith is uninstalled, and installed again: the pods do not notice");
        let pod = self.pod("app=orders")?;
        let uninstalled = output(self.client("helm").args(["uninstall", "pith", "--namespace", PITH, "--wait"]))?;
        ensure!(uninstalled.status.success(), "helm uninstall failed: {}", both(&uninstalled));
        self.until("the end of the webhook's configuration", || {
            let found = self.kubectl(&["get", "mutatingwebhookconfiguration", "--output=name"])?;
            Ok((!found.contains("pith")).then_some(()))
        })?;
        indented(self.kubectl(&["get", "all", "--namespace", PITH])?.trim());
        self.in_pod(&pod, &["sh", "-c", "echo written without Pith > /orders/second"])?;
        indented(&format!("{pod} goes on, and writes: {}", self.in_pod(&pod, &["cat", "/orders/second"])?.trim()));
        self.install()?;
        self.registered()?;
        step.end();
        Ok(())
    }

    fn delete(&self) -> Result<()> {
        let step = Step::start(10, STEPS, "Everything is deleted; the data is in the trash");
        let started = Instant::now();
        for file in ["batch.yaml", "legacy.yaml", "carts.yaml", "report.yaml", "orders.yaml"] {
            self.kubectl(&["delete", "--filename", &demo_file(file).display().to_string(), "--timeout=120s"])?;
        }
        self.kubectl(&["wait", "--for=delete", "pvc", "--all", "--namespace", TEAM, "--timeout=120s"])?;
        let nothing = |kind: &str| self.kubectl(&["get", kind, "--all-namespaces", "--output=name"]);
        self.until("the end of the volumes", || Ok(nothing("persistentvolumes")?.is_empty().then_some(())))?;
        self.until("the end of the pods", || {
            Ok(self.kubectl(&["get", "pods,secrets", "--namespace", TEAM, "--output=name"])?.is_empty().then_some(()))
        })?;
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", self.place.running()?.process))?;
        // Others on this machine may have JuiceFS mounted too.
        let of_pods = |line: &&str| line.contains("/pods/") && line.contains("fuse.juicefs");
        let left: Vec<&str> = mounts.lines().filter(of_pods).collect();
        ensure!(left.is_empty(), "mounts are left on the node: {left:?}");
        indented(&format!("no pod, claim, volume, Secret or mount is left after {}", seconds(started.elapsed())));
        indented(&self.trash()?);
        step.end();
        Ok(())
    }

    /// What lies in the trash of the file system, as Pith itself sees it.
    fn trash(&self) -> Result<String> {
        let client = tools::juicefs()?;
        let mut dump = self.place.inside(&client)?;
        dump.args(["dump", &format!("redis://{ADDRESS}:6379/1"), "--fast"]).env("META_PASSWORD", PASSWORD);
        let dump: Value = serde_json::from_str(&capture(&mut dump)?).context("reading what `juicefs dump` says")?;
        let trash = &dump["FSTree"]["entries"][".pith"]["entries"]["trash"]["entries"];
        let names: Vec<&String> = trash.as_object().context("there is no trash")?.keys().collect();
        ensure!(names.len() == 3, "the trash has {names:?}, and three volumes were deleted");
        Ok(names.iter().map(|name| format!("/.pith/trash/{name}")).collect::<Vec<_>>().join("\n"))
    }

    fn look_around(&self) {
        println!("\nThe cluster still runs. To look around:");
        indented(&format!("eval \"$(cargo xtask cluster env --name {NAME})\""));
        indented(&format!("kubectl logs --namespace {PITH} deployment/pith-controller --container pith"));
        indented("kubectl apply --filename deploy/demo/cluster/orders.yaml");
        indented(&format!("cargo xtask cluster down --name {NAME}"));
    }

    /// The directory of a claim's volume.
    fn directory(&self, claim: &str) -> Result<String> {
        let claim = self.get(&["pvc", claim])?;
        let volume = self.get(&["pv", claim["spec"]["volumeName"].as_str().context("the claim is not bound")?])?;
        Ok(volume["spec"]["csi"]["volumeAttributes"]["subPath"].as_str().context("the volume has no directory")?.into())
    }

    /// The only pod with this label.
    fn pod(&self, label: &str) -> Result<String> {
        let pods = self.get(&["pods", "--selector", label])?;
        Ok(pods["items"][0]["metadata"]["name"].as_str().with_context(|| format!("no pod has {label}"))?.into())
    }

    fn try_in_pod(&self, pod: &str, command: &[&str]) -> Result<std::process::Output> {
        let exec = [&["exec", "--namespace", TEAM, pod, "--container", "app", "--"], command].concat();
        output(self.client("kubectl").args(exec))
    }

    fn in_pod(&self, pod: &str, command: &[&str]) -> Result<String> {
        let done = self.try_in_pod(pod, command)?;
        ensure!(done.status.success(), "`{}` in {pod}: {}", command.join(" "), both(&done));
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// A program of the cluster's folder, on its network.
    fn client(&self, name: &str) -> Command {
        Command::new(self.place.folder().join("bin").join(name))
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        capture(self.client("kubectl").args(arguments))
    }

    fn apply(&self, file: &str) -> Result<()> {
        let file = demo_file(file);
        indented(&paint(Style::Faint, format!("kubectl apply --filename {}", relative(&file))));
        self.kubectl(&["apply", "--filename", &file.display().to_string()]).map(drop)
    }

    /// An object of the team's namespace, or of none.
    fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "--namespace", TEAM, "--output=json"], arguments].concat())?;
        serde_json::from_str(&text).context("reading what kubectl says")
    }

    fn show(&self, namespace: &str, kinds: &str) -> Result<()> {
        indented(self.kubectl(&["get", kinds, "--namespace", namespace])?.trim());
        Ok(())
    }

    /// Waits with `kubectl wait`; the error says how everything is.
    fn wait(&self, condition: &str, object: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        let waited = self.kubectl(&["wait", "--namespace", TEAM, &format!("--for={condition}"), object, &timeout]);
        match waited {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(self.describe(TEAM)?)),
        }
    }

    fn describe(&self, namespace: &str) -> Result<String> {
        let described = self.kubectl(&["describe", "pods,pvc", "--namespace", namespace])?;
        let logs = self.kubectl(&[
            "logs",
            "--namespace",
            PITH,
            "--selector",
            "app.kubernetes.io/name=pith",
            "--all-containers",
        ]);
        Ok(format!("{described}\n{}", logs.unwrap_or_default()))
    }

    /// Waits for an answer.
    fn until<T>(&self, what: &str, look: impl Fn() -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("{what}: not within {}\n{}", seconds(PATIENCE), self.describe(TEAM)?);
            }
            sleep(POLL);
        }
    }

    /// Starts a program among the cluster's processes, and leaves it there.
    fn background(&self, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        let name = Path::new(program).file_name().unwrap_or_default().display().to_string();
        let log = fs::File::create(self.folder.join(format!("{name}.log"))).context("making a log")?;
        let mut inside = self.place.inside("setsid")?;
        inside.arg("--fork").arg(program).args(arguments).envs(environment.iter().copied());
        inside.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let status = spawn(&mut inside)?.wait().with_context(|| format!("starting {name}"))?;
        ensure!(status.success(), "{name} did not start ({status})");
        Ok(())
    }

    /// Whether something accepts connections at the node's address.
    fn answers(&self, port: u16) -> Result<bool> {
        let connect = format!("exec 3<>/dev/tcp/{ADDRESS}/{port}");
        Ok(output(self.place.inside("bash")?.args(["-c", &connect]))?.status.success())
    }
}

fn demo_file(name: &str) -> PathBuf {
    root().join("deploy/demo/cluster").join(name)
}
