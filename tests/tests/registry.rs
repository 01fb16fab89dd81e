//! Modules from registries and addresses: on a real registry with TLS and passwords, signed by cosign itself, and from servers that answer
//! whatever they like.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pith::registry::Digest;
use pith_tests::client::{Client, Protocol, get};
use pith_tests::cluster::{self, CLUSTER};
use pith_tests::registry::{Answering, Asked, PASSWORD, Registry, Said, USER};
use pith_tests::server::{PITH, Server, folder};
use pith_tests::wasm_builds;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::yaml;
use crate::{SHOP, WEB};

/// How cosign signs where there is no network: with its own form, and with that from before version 3.
const OFFLINE: [&str; 4] = ["--tlog-upload=false", "--use-signing-config=false", "-y", "--key"];
const OLDER: &str = "--new-bundle-format=false";

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

/// Runs `pith policy` and gives the exit code, and all that it said.
fn policy(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(&*PITH).arg("policy").args(arguments).output().expect("pith runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

/// The same for somebody who is known to a registry, of which nothing but a success is expected.
fn allowed(registry: &Registry, arguments: &[&str]) -> String {
    let (ca, docker) = (registry.ca(), registry.docker_config());
    let (code, said) = policy(&[arguments, &["--ca", text(&ca), "--docker-config", text(&docker)]].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    said.trim().to_string()
}

fn refused(registry: &Registry, arguments: &[&str], expected: &str) {
    let (ca, docker) = (registry.ca(), registry.docker_config());
    let (code, said) = policy(&[arguments, &["--ca", text(&ca), "--docker-config", text(&docker)]].concat());
    assert!(code == Some(2) && said.contains(expected), "{arguments:?}: {said}");
    assert!(!said.contains(PASSWORD), "{said}");
}

fn push(registry: &Registry, module: &str, name: &str) -> String {
    allowed(registry, &["push", text(&wasm_builds::policy(module)), &format!("{}/{name}", registry.host)])
}

/// The same with a key that was made elsewhere.
fn imported(registry: &Registry, kind: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let made =
        Command::new("openssl").current_dir(folder.path()).args(["genpkey", "-out", "key.pem"]).args(kind).output();
    assert!(made.as_ref().is_ok_and(|it| it.status.success()), "{made:?}");
    registry
        .cosign(folder.path(), &["import-key-pair", "--key", "key.pem", "--output-key-prefix", "cosign"])
        .expect("keys");
    folder
}

/// A folder with a pair of keys, `cosign.key` and `cosign.pub`.
fn keys(registry: &Registry) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    registry.cosign(folder.path(), &["generate-key-pair"]).expect("keys");
    folder
}

fn sign(registry: &Registry, keys: &TempDir, pinned: &str, more: &[&str]) {
    let arguments = [&["sign"], &OFFLINE[..], &["cosign.key"], more, &[pinned]].concat();
    registry.cosign(keys.path(), &arguments).expect("a signature");
}

fn pull_with<'a>(reference: &'a str, out: &'a Path, key: &'a Path) -> [&'a str; 6] {
    ["pull", reference, "-o", text(out), "--key", text(key)]
}

/// The digest at the end of a reference that has one.
fn digest(pinned: &str) -> &str {
    pinned.split_once('@').expect("a digest").1
}

#[test]
fn a_module_comes_back_as_it_was_pushed_and_only_to_who_is_known() {
    let registry = &Registry::start().expect("a registry");
    let (module, folder) = (wasm_builds::policy("naming"), tempfile::tempdir().expect("a folder"));
    let reference = format!("{}/pushed/naming:1", registry.host);
    let pinned = push(registry, "naming", "pushed/naming:1");
    assert!(pinned.starts_with(&format!("{reference}@sha256:")), "{pinned}");
    assert_eq!(push(registry, "naming", "pushed/naming:1"), pinned, "the same module has the same digest");
    let out = folder.path().join("out.wasm");
    for reference in [&reference, &pinned, &pinned.replace(":1@", "@")] {
        let pulled = allowed(registry, &["pull", reference, "-o", text(&out)]);
        assert_eq!(digest(&pulled), digest(&pinned));
        assert!(fs::read(&out).expect("a file") == fs::read(&module).expect("a file"), "it is the same module");
        fs::remove_file(&out).expect("removed");
    }
    let inspected = allowed(registry, &["inspect", &format!("oci://{reference}"), "-o", "json"]);
    let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
    assert_eq!((&inspected[0]["file"], &inspected[0]["hooks"]), (&json!(pinned), &json!(["naming"])));

    let (ca, nobody) = (registry.ca(), folder.path().join("nobody.json"));
    let wrong = folder.path().join("wrong.json");
    fs::write(&nobody, "{}").expect("written");
    let auth = STANDARD.encode(format!("{USER}:wrong-{PASSWORD}"));
    fs::write(&wrong, json!({"auths": {&*registry.host: {"auth": auth}}}).to_string()).expect("written");
    let pull = ["pull", &reference, "-o", text(&out)];
    for (more, expected) in [
        (vec!["--ca", text(&ca), "--docker-config", text(&nobody)], "asks for a name and a password"),
        (vec!["--ca", text(&ca), "--docker-config", text(&wrong)], "401 Unauthorized with the credentials for it"),
        (vec!["--docker-config", text(&nobody)], "a certificate of an unknown authority: name its CA"),
    ] {
        let (code, said) = policy(&[&pull[..], &more].concat());
        assert!(code == Some(2) && said.contains(expected) && !said.contains(PASSWORD), "{more:?}: {said}");
    }
    refused(registry, &["pull", &reference.replace(":1", ":2"), "-o", text(&out)], "there is no `2` in it");
    let other = format!("{}@{}", reference, Digest::of(b"other"));
    refused(registry, &["pull", &other, "-o", text(&out)], "there is no `sha256:");
    let no_policy = folder.path().join("no.wasm");
    fs::write(&no_policy, b"\0asm\x01\0\0\0").expect("written");
    refused(registry, &["push", text(&no_policy), &reference], "is no policy");
    assert!(!out.exists(), "nothing is written where something is wrong");
}

#[test]
fn what_cosign_signs_with_a_key_is_taken_and_nothing_else_is() {
    let registry = &Registry::start().expect("a registry");
    let (ours, others) = (keys(registry), keys(registry));
    let out = ours.path().join("out.wasm");
    let (key, wrong) = (ours.path().join("cosign.pub"), others.path().join("cosign.pub"));
    for (name, more) in [("new", &[][..]), ("older", &[OLDER][..])] {
        let pinned = push(registry, "naming", &format!("signed/{name}:1"));
        refused(registry, &pull_with(&pinned, &out, &key), "is not signed");
        sign(registry, &others, &pinned, more);
        refused(registry, &pull_with(&pinned, &out, &key), "none of its 1 signatures is by a key of the binding");
        sign(registry, &ours, &pinned, more);
        allowed(registry, &pull_with(&pinned, &out, &key));
        allowed(registry, &pull_with(&pinned, &out, &wrong));

        // What is signed is this artifact, and not whatever has the signature beside it.
        let stolen = push(registry, "exemption", &format!("signed/{name}:2"));
        let tag =
            |pinned: &str| format!("{}{}", digest(pinned).replace(':', "-"), if more.is_empty() { "" } else { ".sig" });
        let signatures = manifest(registry, &format!("signed/{name}"), &tag(&pinned));
        put_manifest(registry, &format!("signed/{name}"), &tag(&stolen), &signatures);
        refused(registry, &pull_with(&stolen, &out, &key), "it is for");
    }

    // A statement about an artifact is none that it is signed.
    let attested = push(registry, "naming", "signed/attested:1");
    let predicate = ours.path().join("scan.json");
    fs::write(&predicate, r#"{"passed": false}"#).expect("written");
    let attest = [&["attest", "--predicate", text(&predicate)], &OFFLINE[..], &["cosign.key", &attested]].concat();
    registry.cosign(ours.path(), &attest).expect("a statement");
    refused(registry, &pull_with(&attested, &out, &key), "which is no signature");
    let private = ours.path().join("cosign.key");
    refused(registry, &pull_with(&attested, &out, &private), "a private key");
}

#[test]
fn keys_of_other_kinds_are_taken_from_cosign_too() {
    let registry = &Registry::start().expect("a registry");
    let kinds: [(&str, &[&str]); 2] = [
        ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]),
    ];
    for (kind, how) in kinds {
        let keys = imported(registry, how);
        let (key, out) = (keys.path().join("cosign.pub"), keys.path().join("out.wasm"));
        for (name, more) in [("new", &[][..]), ("older", &[OLDER][..])] {
            let pinned = push(registry, "naming", &format!("{kind}/{name}:1"));
            sign(registry, &keys, &pinned, more);
            allowed(registry, &pull_with(&pinned, &out, &key));
        }
    }
}

fn agent(registry: &Registry) -> ureq::Agent {
    let ca = fs::read(registry.ca()).expect("a certificate");
    let ca = ureq::tls::Certificate::from_pem(&ca).expect("a certificate");
    let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::new_with_certs(&[ca])).build();
    ureq::Agent::config_builder().tls_config(tls).build().into()
}

fn address(registry: &Registry, repository: &str, tag: &str) -> (String, String) {
    let authorization = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    (format!("https://{}/v2/{repository}/manifests/{tag}", registry.host), authorization)
}

/// A manifest or an index, with its media type.
fn manifest(registry: &Registry, repository: &str, tag: &str) -> Value {
    let (address, authorization) = address(registry, repository, tag);
    let accepted = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
    let asked = agent(registry).get(&address).header("authorization", &authorization).header("accept", accepted);
    let body = asked.call().expect("an answer").body_mut().read_to_string().expect("a manifest");
    serde_json::from_str(&body).expect("JSON")
}

fn put_manifest(registry: &Registry, repository: &str, tag: &str, manifest: &Value) {
    let (address, authorization) = address(registry, repository, tag);
    let media_type = manifest["mediaType"].as_str().expect("a media type");
    let put = agent(registry).put(&address).header("authorization", &authorization).header("content-type", media_type);
    put.send(manifest.to_string()).expect("it is put");
}

#[test]
fn other_tools_forms_are_read_too() {
    let registry = &Registry::start().expect("a registry");
    let out = tempfile::tempdir().expect("a folder");
    let out = out.path().join("out.wasm");
    let pinned = push(registry, "naming", "forms/naming:1");
    let ours = manifest(registry, "forms/naming", "1");
    let put = |tag: &str, change: &dyn Fn(&mut Value)| {
        let mut manifest = ours.clone();
        change(&mut manifest);
        put_manifest(registry, "forms/naming", tag, &manifest);
    };
    // `oras push naming.wasm:application/wasm`: another config, a kind, and the file's name.
    put("oras", &|it| {
        it["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json");
        it["artifactType"] = json!("application/vnd.unknown.artifact.v1");
        it["layers"][0]["annotations"] = json!({"org.opencontainers.image.title": "naming.wasm"});
    });
    put("older", &|it| it["layers"][0]["mediaType"] = json!("application/vnd.wasm.content.layer.v1+wasm"));
    for tag in ["oras", "older"] {
        allowed(
            registry,
            &[
                "pull",
                &pinned.replace(":1@", &format!(":{tag}@")).replace(digest(&pinned), &digest_of(registry, tag)),
                "-o",
                text(&out),
            ],
        );
    }
    put("image", &|it| it["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip"));
    refused(
        registry,
        &["pull", &format!("{}/forms/naming:image", registry.host), "-o", text(&out)],
        "none of its layers is a module",
    );
}

/// What a tag in `forms/naming` leads to.
fn digest_of(registry: &Registry, tag: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.wasm");
    let pulled = allowed(registry, &["pull", &format!("{}/forms/naming:{tag}", registry.host), "-o", text(&out)]);
    digest(&pulled).to_string()
}

#[test]
fn a_folder_takes_the_place_of_the_registry_with_the_signatures() {
    let registry = &Registry::start().expect("a registry");
    let keys = keys(registry);
    let (bundle, out, key) = (keys.path().join("bundle"), keys.path().join("out.wasm"), keys.path().join("cosign.pub"));
    let elsewhere = |arguments: &[&str]| policy(&[arguments, &["--layout", text(&bundle)]].concat());
    for (name, more) in [("new", &[][..]), ("older", &[OLDER][..])] {
        let pinned = push(registry, "naming", &format!("bundled/{name}:1"));
        sign(registry, &keys, &pinned, more);
        let tagged = pinned.split('@').next().expect("a tag").to_string();
        assert_eq!(allowed(registry, &["pull", &tagged, "--bundle", text(&bundle), "--key", text(&key)]), pinned);
        for reference in [&pinned, &tagged] {
            let (code, said) = elsewhere(&["pull", reference, "-o", text(&out), "--key", text(&key)]);
            assert!(code == Some(0) && said.trim() == pinned, "{name}: {said}");
        }
        assert!(fs::read(&out).expect("a file") == fs::read(wasm_builds::policy("naming")).expect("a file"));
    }
    let unsigned = push(registry, "exemption", "bundled/unsigned:2");
    allowed(registry, &["pull", &unsigned, "--bundle", text(&bundle)]);
    let (code, said) = elsewhere(&["pull", &unsigned, "-o", text(&out), "--key", text(&key)]);
    assert!(code == Some(2) && said.contains("is not signed"), "{said}");

    // Whoever can write there gains nothing by it.
    let (_, inspected) = policy(&["inspect", text(&wasm_builds::policy("exemption")), "-o", "json"]);
    let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
    let module = inspected[0]["digest"].as_str().and_then(|it| it.strip_prefix("sha256:")).expect("a digest");
    let blob = bundle.join("blobs/sha256").join(module);
    let mut bytes = fs::read(&blob).expect("the module");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&blob, bytes).expect("written");
    let (code, said) = elsewhere(&["pull", &unsigned, "-o", text(&out)]);
    assert!(code == Some(2) && said.contains("what it has under sha256:"), "{said}");
}

/// An artifact that a server has, and what it answers in its stead.
struct Artifact {
    module: Vec<u8>,
    manifest: Value,
}

impl Artifact {
    fn new() -> Artifact {
        let module = fs::read(wasm_builds::policy("naming")).expect("a module");
        let layer =
            json!({"mediaType": "application/wasm", "digest": Digest::of(&module).to_string(), "size": module.len()});
        let config = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}").to_string(), "size": 2});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer],
        });
        Artifact { module, manifest }
    }

    /// As a registry that means well answers.
    fn answer(&self, asked: &Asked) -> Said {
        match asked.path.as_str() {
            path if path.contains("/blobs/") => Said::ok(self.module.clone()),
            path if path.ends_with("/manifests/1") || path.contains("/manifests/sha256:") => {
                Said::ok(self.manifest.to_string())
            }
            _ => Said::nothing(),
        }
    }
}

/// One thing that a server may try: what it answers, if not what is right, and what is said of that.
type Trick = (&'static str, fn(&str, &Asked, &Artifact) -> Option<Said>, &'static str);

fn about_blob(asked: &Asked) -> Option<()> {
    asked.path.contains("/blobs/").then_some(())
}

fn about_manifest(asked: &Asked) -> Option<()> {
    asked.path.contains("/manifests/").then_some(())
}

fn changed(asked: &Asked, of: &Artifact, change: fn(&mut Value)) -> Option<Said> {
    about_manifest(asked)?;
    let mut manifest = of.manifest.clone();
    change(&mut manifest);
    Some(Said::ok(manifest.to_string()))
}

const TRICKS: [Trick; 18] = [
    (
        "other bytes of the same length",
        |_, asked, of| {
            about_blob(asked)?;
            Some(Said::ok(vec![0; of.module.len()]))
        },
        "what it has under sha256:",
    ),
    (
        "fewer bytes",
        |_, asked, of| {
            about_blob(asked)?;
            Some(Said::ok(&of.module[1..]))
        },
        "where its manifest says",
    ),
    (
        "more bytes",
        |_, asked, of| {
            about_blob(asked)?;
            Some(Said::ok([&of.module[..], b"x"].concat()))
        },
        "the answer has more than",
    ),
    (
        "a size that is too large",
        |_, asked, of| changed(asked, of, |it| it["layers"][0]["size"] = json!(65 << 20)),
        "at most 67108864",
    ),
    (
        "another size",
        |_, asked, of| changed(asked, of, |it| it["layers"][0]["size"] = json!(7)),
        "the answer has more than 7 bytes",
    ),
    (
        "another media type",
        |_, asked, of| {
            changed(asked, of, |it| it["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar"))
        },
        "none of its layers is a module",
    ),
    (
        "another digest's algorithm",
        |_, asked, of| changed(asked, of, |it| it["layers"][0]["digest"] = json!("sha1:00")),
        "a digest is",
    ),
    (
        "a path for a digest",
        |_, asked, of| changed(asked, of, |it| it["layers"][0]["digest"] = json!("sha256:../../../../etc/passwd")),
        "a digest is",
    ),
    (
        "a manifest without an end",
        |_, asked, _| about_manifest(asked).map(|()| Said::Endless),
        "more than 4194304 bytes",
    ),
    ("a module without an end", |_, asked, _| about_blob(asked).map(|()| Said::Endless), "the answer has more than"),
    (
        "a manifest that is deep",
        |_, asked, _| about_manifest(asked).map(|()| Said::ok("[".repeat(1 << 20))),
        "no manifest",
    ),
    (
        "a module that hardly comes",
        |_, asked, of| about_blob(asked).map(|()| Said::Slow(of.module.len())),
        "does not come in time",
    ),
    (
        "a manifest that hardly comes",
        |_, asked, _| about_manifest(asked).map(|()| Said::Slow(1000)),
        "does not come in time",
    ),
    (
        "a cloud's metadata",
        |_, asked, _| about_blob(asked).map(|()| Said::elsewhere("https://169.254.169.254/latest/meta-data/")),
        "169.254.169.254 is refused",
    ),
    (
        "loopback by a name",
        |_, asked, _| about_blob(asked).map(|()| Said::elsewhere("https://localhost:1/")),
        "localhost:1 is refused: a server sends clients to 127.0.0.1",
    ),
    (
        "no TLS",
        |_, asked, _| about_blob(asked).map(|()| Said::elsewhere("http://example.com/s3cret")),
        "to example.com without TLS",
    ),
    (
        "a circle",
        |host, asked, _| about_blob(asked).map(|()| Said::elsewhere(format!("https://{host}/blobs/"))),
        "more than 5 times",
    ),
    (
        "a password for whoever it says",
        |_, asked, _| {
            let challenge = "Bearer realm=\"https://169.254.169.254/token\",service=\"it\"";
            about_manifest(asked).map(|()| Said::This(401, vec![("www-authenticate", challenge.into())], Vec::new()))
        },
        "169.254.169.254 is refused",
    ),
];

#[test]
fn a_hostile_server_costs_one_load_and_says_what_is_wrong() {
    let artifact = Artifact::new();
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.wasm");
    let pull = |server: &Answering, name: &str, more: &[&str]| {
        let docker = folder.path().join("docker.json");
        let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        fs::write(&docker, json!({"auths": {&*server.host: {"auth": auth}}}).to_string()).expect("written");
        let (ca, reference) = (server.ca(), format!("{}/x{name}", server.host));
        let access = ["--ca", text(&ca), "--docker-config", text(&docker), "--timeout", "3s"];
        let begun = Instant::now();
        let (code, said) = policy(&[&["pull", &reference, "-o", text(&out)], &access[..], more].concat());
        assert!(begun.elapsed() < Duration::from_secs(20), "{said}");
        assert!(!said.contains(PASSWORD) && !said.contains("s3cret"), "{said}");
        (code, said)
    };
    for (what, trick, expected) in TRICKS {
        let of = Artifact::new();
        let answer = move |host: &str, asked: &Asked| trick(host, asked, &of).unwrap_or_else(|| of.answer(asked));
        let server = Answering::start(answer).expect("a server");
        let (code, said) = pull(&server, ":1", &[]);
        assert!(code == Some(2) && said.contains(expected), "{what}: {said}");
        assert!(!out.exists(), "{what}");
    }
    // One that means well, and is asked for what it does not have.
    let of = Artifact::new();
    let server = Answering::start(move |_, asked| of.answer(asked)).expect("a server");
    let (code, said) = pull(&server, ":1", &[]);
    assert_eq!(code, Some(0), "{said}");
    fs::remove_file(&out).expect("removed");
    let (code, said) = pull(&server, &format!("@{}", Digest::of(b"other")), &[]);
    assert!(
        code == Some(2) && said.contains(&format!("is {}", Digest::of(artifact.manifest.to_string().as_bytes()))),
        "{said}"
    );
    assert!(server.asked().iter().all(|it| it.authorization.is_none()), "nobody asked for a password");

    // Where it sends clients is never asked, whatever it is.
    let inner = Answering::start(|_, _| Said::ok("secrets of this machine")).expect("a server");
    let (of, host) = (Artifact::new(), inner.host.clone());
    let server = Answering::start(move |_, asked| match about_blob(asked) {
        Some(()) => Said::elsewhere(format!("https://{host}/")),
        None => of.answer(asked),
    });
    let (code, said) = pull(&server.expect("a server"), ":1", &[]);
    assert!(code == Some(2) && said.contains("is refused"), "{said}");
    assert_eq!(inner.asked(), []);
}

#[test]
fn a_token_is_asked_for_with_the_password_and_the_registry_sees_only_the_token() {
    let of = Artifact::new();
    let server = Answering::start(move |host, asked| {
        let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        match (asked.path.split('?').next(), asked.authorization.as_deref()) {
            (Some("/token"), Some(it)) if it == basic => Said::ok(r#"{"token": "of-today"}"#),
            (Some("/token"), _) => Said::This(403, Vec::new(), Vec::new()),
            (_, Some("Bearer of-today")) => of.answer(asked),
            _ => {
                let challenge = format!(
                    "Bearer realm=\"https://{host}/token\",service=\"it self\",scope=\"repository:all:delete\""
                );
                Said::This(401, vec![("www-authenticate", challenge)], Vec::new())
            }
        }
    });
    let server = server.expect("a server");
    let folder = tempfile::tempdir().expect("a folder");
    let (ca, out, docker) = (server.ca(), folder.path().join("out.wasm"), folder.path().join("docker.json"));
    let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    fs::write(&docker, json!({"auths": {&*server.host: {"auth": auth}}}).to_string()).expect("written");
    let reference = format!("{}/team/x:1", server.host);
    let (code, said) =
        policy(&["pull", &reference, "-o", text(&out), "--ca", text(&ca), "--docker-config", text(&docker)]);
    assert_eq!(code, Some(0), "{said}");
    let asked = server.asked();
    let tokens: Vec<&Asked> = asked.iter().filter(|it| it.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1, "{asked:?}");
    assert_eq!(tokens[0].path, "/token?scope=repository%3Ateam%2Fx%3Apull&service=it%20self");
    let rest = asked.iter().filter(|it| !it.path.starts_with("/token"));
    assert!(rest.clone().all(|it| it.authorization.as_deref().is_none_or(|it| it == "Bearer of-today")), "{asked:?}");
}

/// A configuration with the policy for resources from a module that this says, by which sidecars ask for so much.
fn sizes(name: &str, module: &Value, cpu: &str) -> Value {
    json!({"name": name, "module": module, "settings": {"default": "only", "sizes": {"only": {"requests": {"cpu": cpu}}}}})
}

fn config_of(policies: &[Value]) -> String {
    format!("policies: {}", Value::from(policies.to_vec()))
}

fn write(server: &Server, policies: &[Value]) {
    let path = server.folder.path().join("pith.yaml");
    let text = fs::read_to_string(&path).expect("a configuration");
    let kept: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    let part = path.with_extension("part");
    fs::write(&part, format!("{kept}{}\n", config_of(policies))).expect("written");
    fs::rename(part, path).expect("renamed");
}

/// What sidecars ask for now.
async fn cpu(server: &Server) -> Option<String> {
    let client = Client::connect(server.webhook, &server.ca(), Protocol::Http1).await;
    let answer = client.expect("a connection").review(WEB).await.expect("an answer");
    let review: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let patch = STANDARD.decode(review["response"]["patch"].as_str().expect("a patch")).expect("base64");
    let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a JSON patch");
    let mut pod: Value = serde_json::from_str::<Value>(WEB).expect("JSON")["request"]["object"].take();
    json_patch::patch(&mut pod, &patch).expect("the patch fits the pod");
    Some(pod["spec"]["initContainers"][1]["resources"]["requests"]["cpu"].as_str()?.to_string())
}

async fn until(server: &Server, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within a minute: {what}\n{}", server.log());
}

async fn metrics(server: &Server) -> String {
    get(server.admin, "/metrics").await.expect("an answer").text().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_tag_is_followed_and_what_is_there_outlives_the_registry() {
    let mut registry = Registry::start().expect("a registry");
    let keys = keys(&registry);
    let first = push(&registry, "resources", "team/sizes:1");
    sign(&registry, &keys, &first, &[]);
    let tag = first.split('@').next().expect("a tag");
    let ca = keys.path().join("ca.crt");
    fs::copy(registry.ca(), &ca).expect("copied");
    let key = fs::read_to_string(keys.path().join("cosign.pub")).expect("a key");
    let of = |reference: &str, keys: &[&str]| json!({"oci": {"reference": reference, "keys": keys, "dockerConfig": registry.docker_config(), "ca": ca}});
    let policies = [sizes("tag", &of(tag, &[&key]), "7m"), sizes("z-digest", &of(&first, &[]), "8m")];
    let server = Server::start(&config_of(&policies), SHOP).expect("the server starts");
    assert_eq!(cpu(&server).await.as_deref(), Some("8m"));

    // Another artifact under the tag that is not signed, and is no policy for these settings either.
    push(&registry, "naming", "team/sizes:1");
    let look_now = || fs::copy(registry.ca(), &ca).expect("copied");
    look_now();
    until(&server, "the tag is refused", async || {
        metrics(&server).await.contains("pith_policy_degraded{policy=\"tag\"} 1")
    })
    .await;
    until(&server, "the log says why", async || server.log().contains("is not signed")).await;
    assert_eq!(cpu(&server).await.as_deref(), Some("8m"), "what was in force stays");
    push(&registry, "resources", "team/sizes:1");
    look_now();
    until(&server, "the tag is taken", async || {
        metrics(&server).await.contains("pith_policy_degraded{policy=\"tag\"} 0")
            || !metrics(&server).await.contains("pith_policy_degraded{policy=\"tag\"}")
    })
    .await;

    // Without the registry, what is pinned is in the cache, and of the tag the last good one is kept.
    registry.stop();
    let Server { folder: state, .. } = &server;
    let copied = folder(&config_of(&policies), SHOP).expect("a folder");
    let copy = Command::new("cp").arg("-a").arg(state.path().join("state")).arg(copied.path()).status();
    assert!(copy.is_ok_and(|it| it.success()));
    let again = Server::start_in(copied, &PITH).expect("the server starts without its registry");
    assert_eq!(cpu(&again).await.as_deref(), Some("8m"));
    assert!(again.log().contains("the last that could be used is in force"), "{}", again.log());
    assert!(!again.log().contains(PASSWORD) && !server.log().contains(PASSWORD), "no password is in a log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_hangs_holds_up_no_other_change() {
    let module = wasm_builds::policy("resources");
    let server =
        Server::start(&config_of(&[sizes("file", &json!({"file": module}), "1m")]), SHOP).expect("the server starts");
    assert_eq!(cpu(&server).await.as_deref(), Some("1m"));
    let hanging = Answering::start(|_, _| Said::Slow(1 << 20)).expect("a server");
    let of = json!({"oci": {"reference": format!("{}/x@{}", hanging.host, Digest::of(b"x")), "ca": hanging.ca(), "timeout": "40s"}});
    let begun = Instant::now();
    write(&server, &[sizes("file", &json!({"file": module}), "2m"), sizes("hangs", &of, "3m")]);
    until(&server, "the other change is taken", async || cpu(&server).await.as_deref() == Some("2m")).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "it waited for the registry: {:?}", begun.elapsed());
    assert!(server.log().contains("its module is still being fetched"), "{}", server.log());
    write(&server, &[sizes("file", &json!({"file": module}), "4m"), sizes("hangs", &of, "3m")]);
    until(&server, "and the next", async || cpu(&server).await.as_deref() == Some("4m")).await;
    assert_eq!(hanging.asked().len(), 1, "one fetch runs at a time");
    until(&server, "the log says of it what is wrong", async || {
        server.log().contains("the answer does not come in time: it is not in force")
    })
    .await;
}

#[test]
fn a_pull_secret_is_read_by_its_name_with_the_right_that_the_chart_gives() {
    let cluster = &*CLUSTER;
    let namespace = cluster.namespace("registry", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let registry = Registry::start_on(cluster).expect("a registry");
    let push = || {
        let mut push = cluster.command(&PITH);
        push.args(["policy", "push"])
            .arg(wasm_builds::policy("resources"))
            .arg(format!("{}/team/sizes:1", registry.host));
        push.arg("--ca").arg(registry.ca()).arg("--docker-config").arg(registry.docker_config());
        let output = push.output()?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string()))
    };
    let pinned = cluster.until(name, "a registry that takes a module", push).expect("it is pushed");
    let config = STANDARD.encode(fs::read(registry.docker_config()).expect("a file"));
    let secret = |called: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"namespace": name, "name": called}, "data": {".dockerconfigjson": config},
        })
    };
    cluster.apply(&yaml(&[secret("registry"), secret("other")])).expect("Secrets");
    let rights = cluster::rights("limited", "pith-webhook").expect("the rights");
    let rights = rights.replace("pith-system", name).replace("pith-webhook", name);
    cluster.apply(&rights).expect("rights");
    // As of a pod, its namespace is the one that Secrets are looked for in.
    let kubeconfig = cluster.kubeconfig(name, name).expect("a kubeconfig");
    let mut kubeconfig: Value = serde_json::from_str(&kubeconfig).expect("JSON");
    kubeconfig["contexts"][0]["context"]["namespace"] = json!(name);

    let of = |secret: &str| json!({"oci": {"reference": pinned, "pullSecret": secret, "ca": registry.ca()}});
    let policies = config_of(&[sizes("it", &of("registry"), "1m")]);
    let server = Server::start_following(cluster, &policies, &kubeconfig.to_string());
    let server = server.expect("the server starts");
    let metric = |wanted: &str| {
        let (_, metrics) = cluster.http(server.admin, "/metrics")?;
        Ok(metrics.contains(wanted).then_some(()))
    };
    cluster.until(name, "the policy in force", || metric("pith_policy_info{policy=\"it\"")).expect("it is in force");
    let path = server.folder.path().join("pith.yaml");
    let text = fs::read_to_string(&path).expect("a configuration");
    let both = [sizes("it", &of("registry"), "1m"), sizes("other", &of("other"), "2m")];
    let kept: String = text.lines().filter(|it| !it.starts_with("policies:")).map(|it| format!("{it}\n")).collect();
    fs::write(&path, format!("{kept}{}\n", config_of(&both))).expect("written");
    let said = || Ok(server.log().contains("the pull Secret").then_some(()));
    cluster.until(name, "a sentence about the other Secret", said).expect("it is said");
    assert!(server.log().contains(&format!("`{name}/other` cannot be read")), "{}", server.log());
    assert!(!server.log().contains(&config) && !server.log().contains(PASSWORD), "no credentials are in a log");
}

#[test]
fn a_module_at_an_address_is_the_one_with_the_digest() {
    let module = fs::read(wasm_builds::policy("resources")).expect("a module");
    let sha256 = Digest::of(&module).hex();
    let bytes = module.clone();
    let server = Answering::start(move |host, asked| match asked.path.as_str() {
        "/there.wasm" => Said::ok(bytes.clone()),
        "/moved.wasm" => Said::elsewhere(format!("https://{host}/there.wasm")),
        "/other.wasm" => Said::ok("something else"),
        "/endless.wasm" => Said::Endless,
        "/slow.wasm" => Said::Slow(1000),
        "/inner.wasm" => Said::elsewhere("https://[fd00:ec2::254]/latest"),
        _ => Said::nothing(),
    });
    let server = server.expect("a server");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"containers": []}});
    for (path, expected) in [
        ("there", None),
        ("moved", None),
        ("other", Some("where sha256:")),
        ("missing", Some("it answers 404")),
        ("endless", Some("more than 67108864 bytes")),
        ("slow", Some("does not come in time")),
        ("inner", Some("is refused")),
    ] {
        let of = json!({"https": {
            "url": format!("https://{}/{path}.wasm", server.host), "sha256": sha256, "ca": server.ca(), "timeout": "5s",
        }});
        let folder = folder(&config_of(&[sizes("it", &of, "1m")]), SHOP).expect("a folder");
        fs::write(folder.path().join("pod.yaml"), pod.to_string()).expect("written");
        let mut inject = Command::new(&*PITH);
        inject
            .args(["inject", "-f"])
            .arg(folder.path().join("pod.yaml"))
            .arg("--config")
            .arg(folder.path().join("pith.yaml"));
        let output = inject.output().expect("pith runs");
        let said = String::from_utf8_lossy(&output.stderr);
        match expected {
            None => assert_eq!(output.status.code(), Some(0), "{path}: {said}"),
            Some(words) => assert!(output.status.code() == Some(2) && said.contains(words), "{path}: {said}"),
        }
    }
}

#[test]
fn a_mirror_is_asked_first_and_one_that_has_something_else_is_passed_over() {
    let registry = &Registry::start().expect("a registry");
    let out = tempfile::tempdir().expect("a folder");
    let out = out.path().join("out.wasm");
    // The mirror has it under a prefix, and the registry of the reference has nothing.
    let pinned = push(registry, "naming", "mirrored/team/naming:1");
    let named = format!("{}/team/naming@{}", registry.host, digest(&pinned));
    let mirror = format!("{}/mirrored", registry.host);
    allowed(registry, &["pull", &named, "-o", text(&out), "--mirror", &mirror]);
    // The registry has it, and the mirrors something else, or nothing at all.
    push(registry, "exemption", "elsewhere/mirrored/team/naming:1");
    let empty = format!("{}/nothing", registry.host);
    let other = format!("{}/elsewhere", registry.host);
    allowed(registry, &["pull", &pinned, "-o", text(&out), "--mirror", &empty, "--mirror", &other]);
    refused(registry, &["pull", &named, "-o", text(&out), "--mirror", &empty], "fetching");
}
