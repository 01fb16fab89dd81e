//! Pods whose claims come later, on a real node: generic ephemeral volumes, claims that wait for their first consumer, and claims
//! that are made after the pod.
//!
//! Webhook, driver and controller are one server here, with the rights that the chart gives the controller.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pith_tests::cluster::CLUSTER;
use pith_tests::juicefs::CLIENT;
use pith_tests::server::Server;
use serde_json::{Value, json};

use crate::cluster::{driver, driver_of, file_system_for_pods, of_sidecar, yaml};

/// How long a pod may take from its creation to its application, the making of its volume included. Most of it is what the kubelet
/// waits before it looks once more for a Secret that was not there.
const BOUND: Duration = Duration::from_secs(60);

#[test]
fn pods_whose_claims_come_later_start_once_their_volumes_are_made() {
    let cluster = &*CLUSTER;
    let _alone = driver_of(cluster);
    let redis = file_system_for_pods(cluster);
    let labels = json!({"juicefs.com/enable-injection": "true"});
    let namespace = cluster.namespace("later", &labels).expect("a namespace");
    let name = &*namespace.name;
    let mut parameters = json!({});
    for what in ["provisioner", "node-publish"] {
        parameters[format!("csi.storage.k8s.io/{what}-secret-name")] = json!("file-system");
        parameters[format!("csi.storage.k8s.io/{what}-secret-namespace")] = json!(name);
    }
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "csi.juicefs.com", "parameters": parameters, "volumeBindingMode": "WaitForFirstConsumer",
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": name, "name": "file-system"},
        "stringData": {"name": "pods", "metaurl": redis.secrets()["metaurl"]},
    });
    let spec = json!({"accessModes": ["ReadWriteMany"], "storageClassName": name, "resources": {"requests": {"storage": "1Gi"}}});
    let claim = |claim: &str| {
        let metadata = json!({"namespace": name, "name": claim});
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    };
    cluster.apply(&yaml(&[driver(), secret, class, claim("waits")])).expect("objects");

    let sidecar = of_sidecar();
    let csi = json!({"socket": cluster.csi_socket(), "cluster": "test"});
    let config = format!(
        "sidecar: {sidecar}\ncsi: {csi}\ncontroller: {{}}\njuicefs: {{client: {}, startTimeout: 60s, callTimeout: 30s}}\n",
        CLIENT.display()
    );
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
    cluster.show_log(&server.folder.path().join("log"));
    cluster.register(name, &server).expect("a webhook can be registered");
    cluster.kubectl(&["label", "namespace", name, &format!("pith.test/webhook={name}")]).expect("it is labelled");

    let pod = |volume: Value| {
        // What was there before must not be: each has a volume of its own.
        let command = "test -f /data/.config && test ! -e /data/file && hostname > /data/file && exec sleep 3600";
        let mut volume = volume;
        volume["name"] = json!("data");
        json!({
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "app", "image": "docker.io/pith/app:0.1.0", "imagePullPolicy": "Never",
                "command": ["sh", "-c", command], "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [volume],
        })
    };
    let ephemeral =
        json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"of": "web"}}, "spec": spec}}});
    // The pod `early` is made before its claim, and says of which class that will be.
    let single = |pod_name: &str| {
        let annotations = json!({"claim-class.pith.io/data": name});
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": name, "name": pod_name, "annotations": annotations},
            "spec": pod(json!({"persistentVolumeClaim": {"claimName": pod_name}})),
        })
    };
    let web = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": name, "name": "web"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod(ephemeral.clone())},
        },
    });
    cluster.until_injected(name, &single("waits"), "pith-guard").expect("it is asked");

    // One after the other, so that each has the node for itself.
    let timed = |about: &str, objects: &Value, condition: &str, object: &str| {
        let started = Instant::now();
        cluster.apply(&objects.to_string()).expect("it is made");
        cluster.wait(name, condition, object).expect("it starts");
        let took = started.elapsed();
        println!("{about}: ready after {took:.1?}");
        assert!(took < BOUND, "{about}: {took:?}");
    };
    timed("a pod whose claim waits for its first consumer", &single("waits"), "condition=Ready", "pod/waits");
    cluster.apply(&single("early").to_string()).expect("it is made before its claim");
    timed("a claim that its pod waits for", &claim("early"), "condition=Ready", "pod/early");
    timed("two pods with a generic ephemeral volume", &web, "jsonpath={.status.readyReplicas}=2", "deployment/web");

    let pods = cluster.get(&["pods", "--namespace", name, "--selector=app=web"]).expect("pods");
    let pods = pods["items"].as_array().expect("a list");
    let secrets: BTreeSet<&str> = pods
        .iter()
        .map(|pod| {
            pod["spec"]["initContainers"][1]["env"][0]["valueFrom"]["secretKeyRef"]["name"].as_str().expect("a name")
        })
        .collect();
    assert_eq!(secrets.len(), 2, "{pods:#?}");
    for pod in pods {
        let pod = pod["metadata"]["name"].as_str().expect("a name");
        let claim = cluster.get(&["pvc", &format!("{pod}-data"), "--namespace", name]).expect("its claim");
        assert_eq!(claim["metadata"]["labels"]["of"], "web");
        let written =
            cluster.kubectl(&["exec", pod, "--namespace", name, "--container=app", "--", "cat", "/data/file"]);
        assert_eq!(written.expect("it was written"), format!("{pod}\n"));
    }

    // With the pods go their claims, volumes and Secrets.
    cluster.kubectl(&["delete", "deployment/web", "pod/waits", "pod/early", "--namespace", name]).expect("they end");
    cluster.kubectl(&["delete", "pvc", "--all", "--namespace", name]).expect("they go");
    for secret in secrets {
        cluster.wait(name, "delete", &format!("secret/{secret}")).expect("the garbage collector removes it");
    }
    let volumes = || {
        let volumes = cluster.get(&["pv"])?;
        let left =
            volumes["items"].as_array().into_iter().flatten().any(|volume| volume["spec"]["storageClassName"] == *name);
        Ok((!left).then_some(()))
    };
    cluster.until(name, "no volume", volumes).expect("csi-provisioner deletes them");
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", &format!("pith-{name}")]).expect("it is deleted");
    cluster.kubectl(&["delete", "storageclass", name]).expect("it is deleted");
}
