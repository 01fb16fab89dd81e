//! Secrets in, what the client is called with out.

use super::*;

fn secrets(values: &[(&str, &str)]) -> BTreeMap<String, String> {
    values.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// A Secret that is complete, with these on top.
fn with(values: &[(&str, &str)]) -> Result<FileSystem, SourceError> {
    let mut all = secrets(&[("name", "shop"), ("metaurl", "redis://redis:6379/1")]);
    all.extend(secrets(values));
    FileSystem::from_secrets(&all)
}

#[track_caller]
fn check_url(url: &str, plain: &str, password: Option<&str>) {
    let file_system = with(&[("metaurl", url)]).expect("it is usable");
    assert_eq!(file_system.address(), plain);
    assert_eq!(file_system.environment().get("META_PASSWORD").map(String::as_str), password, "{url}");
}

#[test]
fn the_password_of_the_engine_is_taken_out_of_its_url() {
    check_url("redis://:pw@host/1", "redis://:@host/1", Some("pw"));
    check_url(
        "rediss://default:p%40s%3As%2Fw%25rd%231@host:6379/1",
        "rediss://default:@host:6379/1",
        Some("p@s:s/w%rd#1"),
    );
    check_url("host:6379/1", "redis://host:6379/1", None);
    check_url(":pw@host/1", "redis://:@host/1", Some("pw"));
    check_url("redis://:pw@master,a,b:26379/2", "redis://:@master,a,b:26379/2", Some("pw"));
    check_url("redis://user:@host/1", "redis://user:@host/1", None);
    check_url("redis://user@host/1", "redis://user@host/1", None);
    check_url("postgres://u:p@ss@h:5432/db?sslmode=disable", "postgres://u:@h:5432/db?sslmode=disable", Some("p@ss"));
    check_url("postgres://u:p+q@h/db", "postgres://u:@h/db", Some("p+q"));
    check_url("mysql://u:pw@(h:3306)/db", "mysql://u:@(h:3306)/db", Some("pw"));
    check_url("mysql://u:a%40b@(h:3306)/db", "mysql://u:@(h:3306)/db", Some("a@b"));
    check_url("mysql://u:a/b%40?c@(h:3306)/db?charset=utf8", "mysql://u:@(h:3306)/db?charset=utf8", Some("a/b%40?c"));
    check_url("mysql://u:100%@(h:3306)/db", "mysql://u:@(h:3306)/db", Some("100%"));
    check_url("mysql://u:@(h:3306)/db", "mysql://u:@(h:3306)/db", None);
    check_url("sqlite3:///var/lib/shop.db", "sqlite3:///var/lib/shop.db", None);
    check_url("tikv://a:2379,b:2379/shop?ca=/x", "tikv://a:2379,b:2379/shop?ca=/x", None);
}

#[test]
fn the_password_in_the_url_wins_as_it_does_with_the_client() {
    let both = with(&[("metaurl", "redis://:inside@host/1"), ("meta-password", "beside")]).expect("it is usable");
    assert_eq!(both.environment()["META_PASSWORD"], "inside");
    let beside = with(&[("meta-password", "beside")]).expect("it is usable");
    assert_eq!(beside.environment()["META_PASSWORD"], "beside");
}

#[track_caller]
fn check_refused(values: &[(&str, &str)], expected: &str) {
    let error = with(values).expect_err("it must be refused").to_string();
    assert!(error.contains(expected), "expected `{expected}` in: {error}");
    assert!(!error.contains("canary"), "a value is repeated in: {error}");
}

#[test]
fn what_cannot_be_used_is_refused_with_its_key_and_without_its_value() {
    check_refused(&[("name", "")], "has no `name`");
    check_refused(&[("metaurl", "")], "has no `metaurl`");
    check_refused(
        &[("metaurl", ""), ("token", "canary"), ("subdir", "/canary")],
        "has a `subdir`, and is of the JuiceFS Enterprise Edition",
    );
    check_refused(
        &[("metaurl", ""), ("token", "canary\n")],
        "`token` in the Secret of the file system has a line break",
    );
    for name in ["ab", "Canary", "-canary", "canary-", "canary_1", &"c".repeat(64)] {
        check_refused(&[("name", name)], "`name` in the Secret of the file system is no name");
    }
    check_refused(&[("name", "canary\n")], "`name` in the Secret of the file system has a line break");
    check_refused(&[("metaurl", "redis://canary\n")], "`metaurl` in the Secret of the file system has a line break");
    check_refused(&[("metaurl", "--canary://x")], "is no URL of a metadata engine");
    check_refused(&[("metaurl", "redis://")], "is no URL of a metadata engine");
    check_refused(&[("metaurl", "redis://:canary 1@host/1")], "must be percent-encoded");
    check_refused(&[("metaurl", "redis://:canary%1@host/1")], "must be percent-encoded");
    check_refused(&[("metaurl", "redis://:canary%00@host/1")], "must be percent-encoded");
    check_refused(&[("metaurl", "postgres://u:%ff@host/canary")], "must be percent-encoded");
    check_refused(&[("metaurl", "redis://:canary/1@host/1")], "has an `@` behind its host");
    check_refused(&[("metaurl", "postgres://u:canary?1@host/db")], "has an `@` behind its host");
    check_refused(&[("metaurl", ":canary#1@host")], "has an `@` behind its host");
    check_refused(&[("bucket", "https://user:canary/1@bucket.example.com")], "put it into `access-key`");
    check_refused(&[("metaurl", "postgres://host/db?user=u&password=canary")], "put it into `meta-password`");
    check_refused(&[("metaurl", "etcd://u:canary@host/1")], "on its command line only");
    check_refused(&[("bucket", "https://user:canary@bucket.example.com")], "put it into `access-key`");
    check_refused(&[("format-options", "trash-days=")], "neither `key` nor `key=value`");
    check_refused(&[("format-options", "--canary")], "neither `key` nor `key=value`");
    check_refused(&[("format-options", "canary canary=1")], "neither `key` nor `key=value`");
    check_refused(&[("envs", "canary")], "is no JSON object");
    check_refused(&[("envs", "{\"A\": [\"canary\"]}")], "is no JSON object");
    check_refused(&[("envs", "{\"canary=1\": \"\"}")], "a name that no variable can have");
    check_refused(&[("envs", "{\"A\": \"canary\\u0000\"}")], "NUL");
    for name in ["PATH", "HOME", "LD_PRELOAD", "META_PASSWORD", "META_PASSWORD_FILE", "WEBDAV_USER", "WEBDAV_PASSWORD"]
    {
        check_refused(&[("envs", &format!("{{\"{name}\": \"canary\"}}"))], "which Pith keeps to itself");
    }
}

#[track_caller]
fn check_format(values: &[(&str, &str)], options: &[&str], environment: &[(&str, &str)]) {
    let file_system = with(values).expect("it is usable");
    let format = file_system.format().expect("it names a storage");
    assert_eq!(format.options, options);
    assert_eq!(format.environment, secrets(environment));
}

#[test]
fn the_storage_is_formatted_with_its_options_and_its_keys_by_name() {
    check_format(&[("storage", "file")], &["--storage=file"], &[]);
    let keys = [("access-key", "ak"), ("secret-key", "sk"), ("session-token", "st")];
    let variables = [("ACCESS_KEY", "ak"), ("SECRET_KEY", "sk"), ("SESSION_TOKEN", "st")];
    check_format(&[&[("bucket", "b")], &keys[..]].concat(), &["--bucket=b"], &variables);
    let old = [("storage", "s3"), ("accesskey", "ak"), ("secretkey", "sk"), ("trash-days", "3")];
    check_format(&old, &["--storage=s3", "--trash-days=3"], &variables[..2]);
    let list = " block-size=4096,, hash-prefix ,session-token=st,ranger-rest-url=http://r?a=b,access-key=old";
    let mixed = [("storage", "s3"), ("format-options", list), ("access-key", "ak")];
    let options = ["--storage=s3", "--block-size=4096", "--hash-prefix", "--ranger-rest-url=http://r?a=b"];
    check_format(&mixed, &options, &[variables[0], variables[2]]);
    assert!(with(&[("access-key", "ak")]).expect("it is usable").format().is_none());
}

#[test]
fn whatever_makes_a_client_different_makes_the_key_different() {
    let same = [("envs", "{\"A\": \"1\"}"), ("storage", "s3")];
    let key = with(&same).expect("it is usable").key();
    assert!(key == with(&[&same[..], &[("unknown", "x")]].concat()).expect("it is usable").key());
    for (name, value) in [
        ("name", "shop2"),
        ("metaurl", "redis://redis:6379/2"),
        ("metaurl", "redis://:x@redis:6379/1"),
        ("meta-password", "x"),
        ("envs", "{\"A\": \"2\"}"),
        ("envs", ""),
        ("access-key", "x"),
        ("storage", ""),
        ("format-options", "inodes=1"),
        ("encrypt_rsa_key", "x"),
    ] {
        let other = with(&[&same[..], &[(name, value)]].concat()).expect("it is usable");
        assert!(other.key() != key, "{name}");
    }
}

#[test]
fn its_debug_form_shows_the_name_only_and_its_redactor_knows_the_rest() {
    let file_system = with(&[
        ("metaurl", "redis://:canary%201@redis:6379/1"),
        ("bucket", "https://bucket"),
        ("secret-key", "canary-2"),
        ("envs", "{\"TOKEN\": \"canary-3\", \"TZ\": \"UTC\"}"),
        ("encrypt_rsa_key", "-----BEGIN\ncanary-4\n"),
    ]);
    let file_system = file_system.expect("it is usable");
    assert_eq!(
        format!("{file_system:?} {:?}", file_system.key()),
        "FileSystem { name: \"shop\", .. } FileSystemKey { .. }"
    );
    let text = "canary 1 canary%201 canary-2 canary-3 canary-4 UTC redis://:@redis:6379/1 redis://:****@redis:6379/1 redis:6379";
    assert_eq!(file_system.redactor().redact(text), "*** *** *** *** *** UTC *** *** redis:6379");
}
