//! Whoever moves from the JuiceFS CSI driver: what its users have written works unchanged.

use std::fs;

use pith_tests::cluster::{ADDRESS, CLUSTER, static_volume};
use pith_tests::juicefs::CLIENT;
use pith_tests::redis::Redis;
use pith_tests::server::Server;
use serde_json::{Value, json};

use crate::cluster::{Injecting, pod, yaml};

/// A `config.yaml` as its users write it: for all claims, for some by label, with a share of the application's resources.
const DRIVER_CONFIG: &str = r#"
enableNativeSidecar: true
mountPodPatch:
  - ceMountImage: IMAGE
    imagePullPolicy: Never
    env:
      - { name: TZ, value: UTC }
      - { name: NODE, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
    livenessProbe:
      exec: { command: [stat, "${MOUNT_POINT}/.config"] }
      failureThreshold: 3
      periodSeconds: 5
    volumes:
      - { name: settings, configMap: { name: settings } }
    volumeMounts:
      - { name: settings, mountPath: /etc/settings, readOnly: true }
  - pvcSelector: { matchStorageClassName: gold }
    mountOptions: [read-only]
  - pvcSelector: { matchName: data }
    resourcePercentages:
      requests: { cpu: "30%", memory: "30%" }
      limits: { cpu: "60%", memory: "60%" }
      minLimits: { memory: 128Mi }
    mountOptions: [buffer-size=25%]
    cacheDirs:
      - { type: EmptyDir, medium: Memory, sizeLimit: 32Mi }
      - { type: HostPath, path: "FOLDER/${VOLUME_NAME}" }
"#;

/// Scenarios 10 to 14 of the driver, on a real node.
#[test]
fn the_drivers_configuration_shapes_a_sidecar_that_runs() {
    let cluster = &*CLUSTER;
    let folder = tempfile::tempdir().expect("a folder");
    let image = format!("docker.io/pith/juicefs:{}", *pith_tests::juicefs::VERSION);
    let file = folder.path().join("config.yaml");
    let text = DRIVER_CONFIG.replace("IMAGE", &image).replace("FOLDER", &folder.path().display().to_string());
    fs::write(&file, text).expect("it is written");
    // The image and its requests come from the driver's configuration alone.
    let nothing = json!({"image": "nowhere.example/juicefs:0", "resources": null});
    let injecting = Injecting::start("driver-config", &nothing, &format!("driverConfig: {}\n", file.display()));
    let name = &*injecting.namespace.name;
    let settings = json!({"namespace": name, "name": "settings"});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": settings, "data": {"colour": "green"}});
    cluster.apply(&map.to_string()).expect("a ConfigMap");

    let command = "test -f /data/.config && echo written > /data/file && exec sleep 3600";
    let mut app = pod(name, command, &json!([{"name": "data", "mountPath": "/data"}]));
    app["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}});
    let created = injecting.run(&app);
    let client = &created["spec"]["initContainers"][1];
    assert_eq!(client["image"], image);
    assert_eq!(
        client["resources"],
        json!({"requests": {"cpu": "30m", "memory": "30Mi"}, "limits": {"cpu": "600m", "memory": "154Mi"}})
    );
    let argv: Vec<&str> = client["command"].as_array().expect("argv").iter().filter_map(Value::as_str).collect();
    let cache = format!("--cache-dir=/var/jfsCache-emptyDir:{}/{name}-data", folder.path().display());
    assert!(argv.contains(&cache.as_str()) && argv.contains(&"--buffer-size=39"), "{argv:?}");
    assert!(!argv.contains(&"--read-only"), "the item of another class: {argv:?}");

    // The API server has filled in defaults, and a second pass over them changes nothing.
    let mut again = created.clone();
    let metadata = again["metadata"].as_object_mut().expect("metadata");
    for key in ["uid", "creationTimestamp", "managedFields", "resourceVersion", "generation"] {
        metadata.remove(key);
    }
    metadata.insert("name".into(), json!("again"));
    again.as_object_mut().expect("a pod").remove("status");
    let passed = cluster.kubectl_with(&["create", "-f", "-", "--dry-run=server", "--output=json"], &again.to_string());
    let passed: Value = serde_json::from_str(&passed.expect("it is created")).expect("JSON");
    assert_eq!(passed["spec"], again["spec"]);

    assert_eq!(injecting.exec("jfs-mount", &["cat", "/etc/settings/colour"]), "green");
    let environment = injecting.exec("jfs-mount", &["env"]);
    assert!(environment.contains("TZ=UTC\n") && environment.contains("NODE=pith-node\n"), "{environment}");
    // The client has made its cache in both directories.
    let cached = |directory: &str| injecting.exec("jfs-mount", &["ls", directory]);
    let on_node = format!("{}/{name}-data", folder.path().display());
    let both = (cached("/var/jfsCache-emptyDir"), cached(&on_node));
    assert!(!both.0.is_empty() && both.0 == both.1, "{both:?}");
    injecting.end();
}

/// Scenario 25, its first half: what the driver's validating webhooks refuse is refused, in words that name the mistake.
#[test]
fn a_volume_and_a_secret_that_cannot_be_right_are_refused_when_they_are_written() {
    let cluster = &*CLUSTER;
    let namespace = cluster.namespace("validation", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let server =
        Server::start_following(cluster, "", &cluster.kubeconfig_of_pith("pith-webhook").expect("a kubeconfig"))
            .expect("it serves");
    cluster.register(name, &server).expect("a webhook can be registered");
    // As the chart registers it, for objects of this test alone.
    let registered = format!("pith-{name}");
    let mut configuration = cluster.get(&["mutatingwebhookconfiguration", &registered]).expect("it is registered");
    let of_pods = configuration["webhooks"][0].clone();
    let about = |resource: &str, operations: Value, scope: &str| {
        let mut webhook = of_pods.clone();
        webhook["name"] = json!(format!("{resource}.pith.dev"));
        webhook["rules"] = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": operations, "resources": [resource], "scope": scope}]);
        webhook["namespaceSelector"] = json!({});
        webhook["matchConditions"] =
            json!([{"name": "mine", "expression": format!("object.metadata.name.startsWith('{name}-')")}]);
        webhook
    };
    configuration["webhooks"] = json!([
        about("persistentvolumes", json!(["CREATE"]), "Cluster"),
        about("secrets", json!(["CREATE", "UPDATE"]), "Namespaced"),
    ]);
    cluster.apply(&configuration.to_string()).expect("it is registered for more");

    // A run that failed may have left volumes.
    let handle = format!("{name}-handle");
    let volume = |own: &str, class: &str| {
        let mut volume = static_volume(name, own)[0].clone();
        volume["spec"]["csi"]["volumeHandle"] = json!(handle);
        volume["spec"]["storageClassName"] = json!(class);
        volume.to_string()
    };
    let create = |object: &str| {
        let output = cluster.try_kubectl(&["create", "-f", "-"], object).expect("kubectl runs");
        (output.status.success(), crate::cluster::said(&output))
    };
    assert!(create(&volume("first", "")).0);
    // The API server hears of the webhook, and Pith of the volume, in a moment.
    let refused = cluster.until(name, "the second volume to be refused", || {
        let (created, said) = create(&volume("second", ""));
        cluster.kubectl(&["delete", "pv", &format!("{name}-second"), "--ignore-not-found"])?;
        Ok((!created).then_some(said))
    });
    let refused = refused.expect("it is refused");
    let sentence = format!("the PersistentVolume `{name}-first` has the volumeHandle `{handle}` already");
    assert!(refused.contains(&sentence), "{refused}");
    assert!(create(&volume("third", "gold")).0, "one of a class is the provisioner's");

    let secret = |own: &str, values: Value| {
        let metadata = json!({"namespace": name, "name": format!("{name}-{own}")});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}).to_string()
    };
    let good = json!({"name": "shop", "metaurl": "redis://:canary-password@redis:6379/1"});
    assert!(create(&secret("good", good)).0);
    let bad = json!({"name": "shop", "metaurl": "redis://redis:6379/1", "configs": "{keys: relative-canary}"});
    let (created, said) = create(&secret("bad", bad));
    assert!(
        !created && said.contains("`configs` in the Secret of the file system has a path that is not absolute"),
        "{said}"
    );
    let (created, said) = create(&secret("enterprise", json!({"name": "shop", "token": "canary-token"})));
    assert!(created && said.contains("of the JuiceFS Enterprise Edition: pods can use its volumes"), "{said}");
    let log = server.log();
    assert!(log.contains("object looked at") && !log.contains("canary"), "{log}");

    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", &registered]).expect("it is deleted");
    for own in ["first", "third"] {
        cluster.kubectl(&["delete", "pv", &format!("{name}-{own}"), "--wait=false"]).expect("it is deleted");
    }
}

/// While a cluster moves, the driver's mount pods are there and its webhook is not.
#[test]
fn a_mount_pod_that_is_used_is_not_evicted() {
    let cluster = &*CLUSTER;
    let server =
        Server::start_following(cluster, "", &cluster.kubeconfig_of_pith("pith-webhook").expect("a kubeconfig"))
            .expect("it serves");
    let namespace = cluster.namespace("evictions", &json!({})).expect("a namespace");
    let (name, mount_pod) = (&*namespace.name, format!("juicefs-{}", namespace.name));
    let labels = json!({"app.kubernetes.io/name": "juicefs-mount"});
    let target = "/var/lib/kubelet/pods/0b5e/volumes/kubernetes.io~csi/pv-1/mount";
    let metadata = json!({
        "namespace": "kube-system", "name": mount_pod, "labels": labels, "annotations": {"juicefs-1f": target},
    });
    // No node is asked to run it.
    let spec = json!({"nodeSelector": {"nowhere": "true"}, "containers": [{"name": "mount", "image": "none"}]});
    cluster
        .apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string())
        .expect("a pod");

    cluster.register(name, &server).expect("a webhook can be registered");
    let registered = format!("pith-{name}");
    let mut configuration = cluster.get(&["mutatingwebhookconfiguration", &registered]).expect("it is registered");
    configuration["metadata"]["managedFields"] = Value::Null;
    let webhook = &mut configuration["webhooks"][0];
    webhook["name"] = json!("evictions.pith.dev");
    webhook["rules"][0]["resources"] = json!(["pods/eviction"]);
    webhook["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}});
    webhook["matchConditions"] = json!([{"name": "mine", "expression": format!("request.name == '{mount_pod}'")}]);
    cluster.apply(&configuration.to_string()).expect("it is registered for evictions");

    let path = format!("/api/v1/namespaces/kube-system/pods/{mount_pod}/eviction");
    let metadata = json!({"namespace": "kube-system", "name": mount_pod});
    let evict = |options: &Value| {
        let eviction =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": options});
        let output = cluster.try_kubectl(&["create", "--raw", &path, "-f", "-"], &eviction.to_string())?;
        anyhow::Ok((output.status.success(), crate::cluster::said(&output)))
    };
    let refused = cluster.until(name, "a refusal", || {
        let (evicted, said) = evict(&json!({"dryRun": ["All"]}))?;
        Ok((!evicted).then_some(said))
    });
    let refused = refused.expect("the API server asks about evictions");
    assert!(
        refused.contains("it is a mount pod of the JuiceFS CSI driver, and 1 of the pods")
            && refused.contains("mount-pod-in-use"),
        "{refused}"
    );
    assert!(!evict(&json!({})).expect("it is asked").0);
    cluster
        .kubectl(&["annotate", "pod", &mount_pod, "--namespace", "kube-system", "juicefs-1f-"])
        .expect("the last volume is unmounted");
    let (evicted, said) = evict(&json!({})).expect("it is asked");
    assert!(evicted, "{said}");
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", &registered]).expect("it is deleted");
}

/// The driver makes a file system when it is first mounted, so nobody else was asked to.
#[test]
fn a_file_system_whose_volumes_are_made_by_hand_is_made_once_a_claim_is_bound() {
    let cluster = &*CLUSTER;
    let redis = Redis::start_on(cluster, ADDRESS).expect("a Redis");
    let labels = json!({"juicefs.com/enable-injection": "true"});
    let namespace = cluster.namespace("formatted", &labels).expect("a namespace");
    let name = &*namespace.name;
    let csi = json!({"socket": "csi.sock", "cluster": "test"});
    let config = format!("csi: {csi}\ncontroller: {{}}\njuicefs: {{client: {}}}\n", CLIENT.display());
    let kubeconfig = cluster.kubeconfig_of_pith("pith-controller").expect("a kubeconfig");
    let server = Server::start_following(cluster, &config, &kubeconfig).expect("it serves");
    cluster.show_log(&server.folder.path().join("log"));

    let status = || cluster.command(&CLIENT).args(["status", &redis.url()]).output().expect("the client runs");
    assert!(crate::cluster::said(&status()).contains("please run `juicefs format"), "nobody has made it");
    let metadata = json!({"namespace": name, "name": "file-system"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": redis.secrets()});
    let mut volume = static_volume(name, "data");
    volume[0]["spec"]["csi"]["nodePublishSecretRef"] = metadata.clone();
    cluster.apply(&yaml(&[&[secret][..], &volume].concat())).expect("objects");
    let made = cluster.until(name, "the file system", || {
        let status = status();
        Ok(status.status.success().then(|| serde_json::from_slice::<Value>(&status.stdout)).transpose()?)
    });
    assert_eq!(made.expect("it is made")["Setting"]["Name"], redis.secrets()["name"]);
    cluster.kubectl(&["delete", "pvc", "data", "--namespace", name]).expect("it is deleted");
    cluster.kubectl(&["delete", "pv", &format!("{name}-data"), "--wait=false"]).expect("it is deleted");
}
