//! What only pods can do: make a file system whose engine nobody else reaches, and speak to one of the Enterprise Edition.
//!
//! Webhook and controller are one server here, of a driver of its own: the controllers of other tests would make the file system. It has
//! no clients, so every file system is the pods' to make. The client of the Enterprise Edition is a stand-in (`tests/cluster/enterprise`), made of what is public about how that one is called.

use pith_tests::cluster::{ADDRESS, CLUSTER, static_volume};
use pith_tests::juicefs::{CLIENT, VERSION};
use pith_tests::redis::Redis;
use pith_tests::server::Server;
use serde_json::{Value, json};

use crate::cluster::{driver, of_sidecar, yaml};

const DRIVER: &str = "in-pods.csi.juicefs.com";

#[test]
fn a_pod_makes_its_file_system_and_one_of_the_enterprise_edition_is_authenticated() {
    let cluster = &*CLUSTER;
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    let redis = Redis::start_on(cluster, ADDRESS).expect("a Redis");
    let namespace =
        cluster.namespace("in-pods", &json!({"juicefs.com/enable-injection": "true"})).expect("a namespace");
    let name = &*namespace.name;
    let secret = |secret: &str, values: &Value| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": name, "name": secret}, "stringData": values,
        })
    };
    let secrets = redis.secrets();
    let community = json!({
        "name": "fresh", "metaurl": secrets["metaurl"], "storage": secrets["storage"], "bucket": secrets["bucket"],
        "format-options": "trash-days=0", "configs": r#"{"motd": "/etc/motd.d"}"#,
    });
    let enterprise = json!({"name": "studio", "token": secrets["metaurl"], "access-key": "key"});
    let mut driver = driver();
    driver["metadata"]["name"] = json!(DRIVER);
    let mut objects = vec![
        driver,
        secret("fresh", &community),
        secret("studio", &enterprise),
        secret("motd", &json!({"motd": "welcome"})),
        // As the chart has it, with the rights that it gives.
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "pith-system", "name": "pith-file-systems"}}),
    ];
    for file_system in ["fresh", "studio"] {
        let [mut volume, claim] = static_volume(name, file_system);
        volume["spec"]["csi"]["driver"] = json!(DRIVER);
        volume["spec"]["csi"]["nodePublishSecretRef"] = json!({"namespace": name, "name": file_system});
        volume["spec"]["csi"]["volumeAttributes"] = json!({"subPath": format!("of-{file_system}")});
        objects.extend([volume, claim]);
    }
    cluster.apply(&yaml(&objects)).expect("objects");

    let mut sidecar = of_sidecar();
    sidecar["enterpriseImage"] = json!(format!("docker.io/pith/enterprise:{}", *VERSION));
    let known = json!({"namespace": "pith-system", "name": "pith-file-systems"});
    let source = json!({"cluster": {"kubeconfig": "kubeconfig.yaml", "fileSystems": known}});
    let config =
        format!("driver: {DRIVER}\nobjects: {source}\nsidecar: {sidecar}\ncontroller: {{sourceInterval: 1s}}\n");
    let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
    cluster.show_log(&server.folder.path().join("log"));
    cluster.register(name, &server).expect("a webhook can be registered");
    cluster.kubectl(&["label", "namespace", name, &format!("pith.test/webhook={name}")]).expect("it is labelled");

    let pod = |pod: &str, command: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": name, "name": pod},
            "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "app", "image": "docker.io/pith/app:0.1.0", "imagePullPolicy": "Never",
                    "command": ["sh", "-c", command], "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": pod}}],
            },
        })
    };
    let prepared = |pod: &Value| {
        let created =
            cluster.kubectl_with(&["create", "--dry-run=server", "--output=json", "-f", "-"], &pod.to_string())?;
        let created: Value = serde_json::from_str(&created)?;
        let init = created["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
        Ok(init.into_iter().find(|it| it["name"] == "pith-prepare"))
    };
    let commands = [
        ("fresh", "test -f /data/.config && echo made > /data/made"),
        // The stand-in's file system is the first one, which the pod before has made.
        ("studio", "test -f /data/.config && echo seen > /data/seen"),
    ];
    for (file_system, command) in commands {
        let pod = pod(file_system, command);
        // The controller has to read the Secret first, and the webhook to hear of it.
        let container = cluster.until(name, "what prepares a client", || prepared(&pod)).expect("it is asked");
        let text = container.to_string();
        assert!(!text.contains(&secrets["metaurl"]) && !text.contains(&secrets["bucket"]), "{text}");
        cluster.apply(&pod.to_string()).expect("a pod");
        cluster
            .wait(name, "jsonpath={.status.phase}=Succeeded", &format!("pod/{file_system}"))
            .expect("it has written");
    }
    let status = cluster.command(&CLIENT).args(["status", &redis.url()]).output().expect("the client runs");
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["Setting"]["TrashDays"], 0, "format-options say so: {status:#}");
    let pod = cluster.get(&["pod", "fresh", "--namespace", name]).expect("it is there");
    let client = &pod["spec"]["initContainers"][2];
    let folder = json!({"name": "pith-config-0-data", "mountPath": "/etc/motd.d", "readOnly": true});
    assert!(client["volumeMounts"].as_array().expect("mounts").contains(&folder), "{client:#}");
    let pod = cluster.get(&["pod", "studio", "--namespace", name]).expect("it is there");
    assert_eq!(pod["spec"]["initContainers"][2]["command"][0], "/sbin/mount.juicefs");
    let said = cluster.get(&["configmap", "pith-file-systems", "--namespace", "pith-system"]).expect("it is there");
    let log = std::fs::read_to_string(server.folder.path().join("log")).expect("its log");
    for text in [said.to_string(), log] {
        assert!(!text.contains(&secrets["metaurl"]) && !text.contains(&secrets["bucket"]), "{text}");
    }
    for file_system in ["fresh", "studio"] {
        assert!(said["data"][format!("{name}.{file_system}")].is_string(), "{said:#}");
    }

    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", &format!("pith-{name}")]).expect("it is deleted");
    cluster.kubectl(&["delete", "pods", "--all", "--namespace", name]).expect("they go");
    for volume in ["fresh", "studio"] {
        cluster.kubectl(&["delete", "pv", &format!("{name}-{volume}"), "--wait=false"]).expect("it is deleted");
    }
}
