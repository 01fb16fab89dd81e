//! Pods that run to completion, with clients that are plain containers: the controller tells the guard of each that its application
//! has ended, and the guard ends the clients.
//!
//! Webhook and controller are one server here, with the rights that the chart gives the controller.

use pith_tests::cluster::{CLUSTER, rights, static_volume};
use pith_tests::server::Server;
use serde_json::json;

use crate::cluster::{driver, file_system_for_pods, of_sidecar, yaml};

#[test]
fn a_job_completes_although_its_client_is_a_plain_container() {
    let cluster = &*CLUSTER;
    let redis = file_system_for_pods(cluster);
    let labels = json!({"juicefs.com/enable-injection": "true"});
    let namespace = cluster.namespace("jobs", &labels).expect("a namespace");
    let name = &*namespace.name;
    let [mut volume, claim] = static_volume(name, "data");
    volume["spec"]["csi"]["nodePublishSecretRef"] = json!({"namespace": name, "name": "file-system"});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": name, "name": "file-system"},
        "stringData": {"name": "pods", "metaurl": redis.secrets()["metaurl"]},
    });
    cluster.apply(&yaml(&[driver(), secret, volume, claim])).expect("objects");

    let mut sidecar = of_sidecar();
    sidecar["shape"] = json!("container");
    sidecar["completeJobs"] = json!(true);
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    cluster.apply(&rights("cert-manager", "pith-controller-jobs").expect("they are rendered")).expect("its rights");
    let config = format!("sidecar: {sidecar}\ncontroller: {{}}\n");
    let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
    cluster.show_log(&server.folder.path().join("log"));
    cluster.register(name, &server).expect("a webhook can be registered");
    cluster.kubectl(&["label", "namespace", name, &format!("pith.test/webhook={name}")]).expect("it is labelled");

    let job = |job: &str, policy: &str, command: &str| {
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": name, "name": job},
            "spec": {
                // Where a container is started again, that counts too.
                "backoffLimit": if policy == "Never" { 0 } else { 3 },
                "template": {"metadata": {"labels": {"of": job}}, "spec": {
                    "restartPolicy": policy,
                    "containers": [{
                        "name": "app", "image": "docker.io/pith/app:0.1.0", "imagePullPolicy": "Never",
                        "command": ["sh", "-c", command], "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }],
                    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                }},
            },
        })
    };
    let probe = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": name, "name": "probe"},
        "spec": job("probe", "Never", "true")["spec"]["template"]["spec"],
    });
    cluster.until_injected(name, &probe, "pith-init").expect("it is asked");

    let jobs = [
        ("done", "Never", "test -f /data/.config && echo done > /data/done", "condition=Complete"),
        ("failed", "Never", "test -f /data/.config && exit 3", "condition=Failed"),
        // A container that is started again has not ended.
        ("again", "OnFailure", "test -f /data/again || { touch /data/again; exit 3; }", "condition=Complete"),
    ];
    cluster.apply(&yaml(&jobs.map(|(it, policy, command, _)| job(it, policy, command)))).expect("they are made");
    for (job, _, _, condition) in jobs {
        cluster.wait(name, condition, &format!("job/{job}")).expect("it ends");
        let pods = cluster.get(&["pods", "--namespace", name, &format!("--selector=of={job}")]).expect("its pod");
        let [pod] = &pods["items"].as_array().expect("a list")[..] else { panic!("{job} has one pod: {pods:#?}") };
        let statuses = pod["status"]["containerStatuses"].as_array().expect("a list");
        for status in statuses {
            let expected = if job == "failed" && status["name"] == "app" { 3 } else { 0 };
            assert_eq!(status["state"]["terminated"]["exitCode"], expected, "{job}: {status}");
        }
        let uid = pod["metadata"]["uid"].as_str().expect("a uid");
        let mounts = cluster.mounts().expect("the node's mounts");
        let left = mounts.lines().find(|line| line.contains(uid) && line.contains(" - fuse"));
        assert_eq!(left, None, "{job} has left a mount");
    }
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", &format!("pith-{name}")]).expect("it is deleted");
    cluster.kubectl(&["delete", "jobs", "--all", "--namespace", name]).expect("they go");
    cluster.kubectl(&["delete", "pv", &format!("{name}-data"), "--wait=false"]).expect("it is deleted");
}
