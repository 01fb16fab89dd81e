//! Paths, listings, and what answers mean. The real client is met in the end-to-end tests; here are the answers that it gives when
//! its metadata engine does not answer.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request as Received, State};
use futures_util::StreamExt as _;
use proptest::prelude::*;

use super::*;

#[track_caller]
fn check_path(names: &[&str], encoded: &str, shown: &str) {
    let path = Path::of(names.iter().copied()).expect("it is a path");
    assert_eq!((path.encoded().as_str(), path.to_string().as_str()), (encoded, shown));
}

#[test]
fn a_path_is_percent_encoded_name_by_name() {
    check_path(&[], "/", "/");
    check_path(&["a", "b-c._~"], "/a/b-c._~", "/a/b-c._~");
    check_path(&["50%", "a b", "\"'<&>#?"], "/50%25/a%20b/%22%27%3C%26%3E%23%3F", "/50%/a b/\"'<&>#?");
    check_path(&["été", "文"], "/%C3%A9t%C3%A9/%E6%96%87", "/été/文");
    check_path(&["%2e%2e", "..."], "/%252e%252e/...", "/%2e%2e/...");
}

#[test]
fn what_leaves_its_directory_or_has_no_name_is_no_path() {
    for name in ["", ".", "..", "a/b", "/", "a\0", "a\n", "\u{7f}", &"x".repeat(256)] {
        let error = Path::of(["a", name]).expect_err("it is no path").to_string();
        assert!(error.contains("can't be a name in a file system"), "{error}");
    }
    assert!(Path::of(["x".repeat(255)]).is_ok());
}

/// A listing as the client writes it.
fn listing(lines: &[(&str, bool)]) -> String {
    let mut xml = r#"<?xml version="1.0" encoding="UTF-8"?><D:multistatus xmlns:D="DAV:">"#.to_string();
    for (href, directory) in lines {
        let kind = if *directory { r#"<D:collection xmlns:D="DAV:"/>"# } else { "" };
        xml += &format!(
            "<D:response><D:href>{href}</D:href><D:propstat><D:prop><D:resourcetype>{kind}</D:resourcetype></D:prop>\
             <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        );
    }
    xml + "</D:multistatus>"
}

fn path(names: &[&str]) -> Path {
    Path::of(names.iter().copied()).expect("it is a path")
}

fn of(kind: Kind, entries: &[(&[&str], Kind)]) -> Listing {
    let entry = |(names, kind): &(&[&str], Kind)| Entry { path: path(names), kind: *kind };
    Listing { kind, entries: entries.iter().map(entry).collect() }
}

#[track_caller]
fn check_listing(xml: &str, path_names: &[&str], expected: Result<Listing, &'static str>) {
    assert_eq!(Listing::parse(xml.as_bytes(), &path(path_names)), expected);
}

#[test]
fn a_listing_has_the_directory_itself_and_what_is_below_it() {
    use Kind::{Directory, File};
    let xml =
        listing(&[("/a%20b/", true), ("/a%20b/50%25&amp;&#39;/", true), ("/a%20b/50%25&amp;&#39;/record", false)]);
    check_listing(&xml, &["a b"], Ok(of(Directory, &[(&["50%&'"], Directory), (&["50%&'", "record"], File)])));
    check_listing(&listing(&[("/", true), ("/a", false)]), &[], Ok(of(Directory, &[(&["a"], File)])));
    check_listing(&listing(&[("/a", false)]), &["a"], Ok(of(File, &[])));
}

#[test]
fn a_name_that_is_not_ours_is_left_out() {
    let xml = listing(&[("/a/", true), ("/a/%FF", false), ("/a/b%2Fc", false), ("/a/x", false)]);
    check_listing(&xml, &["a"], Ok(of(Kind::Directory, &[(&["x"], Kind::File)])));
}

#[test]
fn a_listing_that_is_not_whole_is_an_error() {
    let whole = listing(&[("/a/", true)]);
    check_listing(&format!("{whole}Internal Server Error"), &["a"], Err("it is cut short, or no XML"));
    check_listing(&whole[..whole.len() - 1], &["a"], Err("it is cut short, or no XML"));
    check_listing("", &["a"], Err("it is cut short, or no XML"));
    check_listing("<a/>", &["a"], Err("it is no multistatus"));
    check_listing(r#"<!DOCTYPE x [<!ENTITY a "b">]><x/>"#, &["a"], Err("it is cut short, or no XML"));
    check_listing(&listing(&[("/b/", true)]), &["a"], Err("it has a line of another directory"));
    check_listing(&listing(&[("/a/b", false)]), &["a"], Err("it does not have the directory itself"));
    check_listing(&listing(&[]), &["a"], Err("it does not have the directory itself"));
    check_listing(&listing(&[("", false)]), &["a"], Err("it has a line without a path"));
}

/// A method that is expected, and the status and body to answer it with.
type Scripted = (&'static str, u16, String);

/// The client of a worker that gives these answers, one after the other.
async fn worker(answers: &[Scripted]) -> Worker {
    let answers: Arc<Mutex<VecDeque<Scripted>>> = Arc::new(Mutex::new(answers.to_vec().into()));
    let answer = |State(answers): State<Arc<Mutex<VecDeque<Scripted>>>>, request: Received| async move {
        let (method, status, body) = locked(&answers).pop_front().expect("no further request is expected");
        assert_eq!(request.method().as_str(), method);
        (StatusCode::from_u16(status).expect("a status"), body)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let router = Router::new().fallback(answer).with_state(answers);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Worker::new("shop", address, ("user", "password"), Duration::from_secs(10), Arc::default())
}

#[tokio::test]
async fn a_listing_of_which_more_comes_is_waited_for_and_one_that_stops_is_not() {
    const PATIENCE: Duration = Duration::from_millis(300);
    async fn listed(pieces: Vec<String>, rest: Duration) -> Result<usize, JuiceFsError> {
        let answer = move |request: Received| {
            let pieces = if request.uri().path() == "/a" { pieces.clone() } else { vec![listing(&[("/", true)])] };
            async move {
                let pieces = futures_util::stream::iter(pieces).then(move |piece| async move {
                    sleep(rest).await;
                    Ok::<_, std::io::Error>(piece)
                });
                (StatusCode::MULTI_STATUS, axum::body::Body::from_stream(pieces))
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        let worker = Worker::new("shop", address, ("user", "password"), PATIENCE, Arc::default());
        worker.list(&path(&["a"]), Depth::One).await.map(|entries| entries.map_or(0, |entries| entries.len()))
    }
    let xml = listing(&[("/a/", true), ("/a/x", false), ("/a/y", false)]);
    let pieces: Vec<String> = xml.as_bytes().chunks(40).map(|piece| String::from_utf8_lossy(piece).into()).collect();
    // Altogether three times as long as one call has.
    let (count, rest) = (u32::try_from(pieces.len()).expect("a few"), PATIENCE);
    assert_eq!(listed(pieces.clone(), 3 * rest / count).await, Ok(2));
    assert_eq!(word(listed(pieces, 2 * rest).await), "Unavailable");
}

/// What a call came to, in a word.
fn word<T: fmt::Debug>(result: Result<T, JuiceFsError>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(JuiceFsError::Unavailable(_)) => "Unavailable".into(),
        Err(JuiceFsError::NotFormatted(_)) => "NotFormatted".into(),
        Err(JuiceFsError::NoClient(_)) => "NoClient".into(),
        Err(JuiceFsError::Refused(_)) => "Refused".into(),
    }
}

/// Makes the call that the first answer is for.
async fn check_answers(answers: &[(&'static str, u16)], expected: &str) {
    let body = |status: u16| if status == 207 { listing(&[("/a/b/", true)]) } else { String::new() };
    let bodies: Vec<_> = answers.iter().map(|(method, status)| (*method, *status, body(*status))).collect();
    let (worker, path) = (worker(&bodies).await, path(&["a", "b"]));
    let result = match answers[0].0 {
        "MKCOL" => word(worker.make_directory(&path).await),
        "PUT" => word(worker.write(&path, Vec::new()).await),
        "GET" => word(worker.read(&path).await),
        "PROPFIND" => word(worker.kind(&path).await),
        "MOVE" => word(worker.move_exclusive(&Path::default(), &path).await),
        _ => word(worker.remove(&path).await),
    };
    assert_eq!(result, expected, "{answers:?}");
}

#[tokio::test]
async fn an_answer_that_may_mean_that_nothing_could_be_found_out_is_checked() {
    check_answers(&[("MKCOL", 201)], "Made").await;
    check_answers(&[("MKCOL", 409)], "NoParent").await;
    check_answers(&[("MKCOL", 405), ("PROPFIND", 207)], "Existed").await;
    check_answers(&[("MKCOL", 405), ("PROPFIND", 404), ("PROPFIND", 404)], "Unavailable").await;
    check_answers(&[("MKCOL", 405), ("PROPFIND", 404), ("PROPFIND", 405)], "Unavailable").await;
    check_answers(&[("MKCOL", 405), ("PROPFIND", 405)], "Unavailable").await;
    check_answers(&[("GET", 200)], r#"Some(b"")"#).await;
    check_answers(&[("GET", 404), ("PROPFIND", 404)], "None").await;
    check_answers(&[("GET", 404), ("PROPFIND", 405)], "Unavailable").await;
    check_answers(&[("GET", 404), ("PROPFIND", 207)], "Unavailable").await;
    check_answers(&[("PROPFIND", 207)], "Some(Directory)").await;
    check_answers(&[("PROPFIND", 405)], "Unavailable").await;
    check_answers(&[("PUT", 409)], "Refused").await;
    check_answers(&[("PUT", 404)], "Unavailable").await;
    check_answers(&[("PUT", 405)], "Unavailable").await;
    check_answers(&[("DELETE", 404)], "false").await;
    check_answers(&[("DELETE", 405)], "Unavailable").await;
    check_answers(&[("MOVE", 412)], "Taken").await;
    check_answers(&[("MOVE", 403), ("PROPFIND", 207)], "Taken").await;
    check_answers(&[("MOVE", 403), ("PROPFIND", 405)], "Unavailable").await;
    check_answers(&[("MOVE", 403), ("PROPFIND", 404), ("PROPFIND", 404)], "Missing").await;
    check_answers(&[("MOVE", 403), ("PROPFIND", 404), ("PROPFIND", 405)], "Unavailable").await;
    check_answers(&[("MOVE", 401)], "Unavailable").await;
    check_answers(&[("MKCOL", 423), ("MKCOL", 423), ("MKCOL", 201)], "Made").await;
}

#[tokio::test]
async fn directories_are_made_from_the_last_one_upwards_and_not_for_ever() {
    let check = async |answers: &[(&'static str, u16)], expected: &str| {
        let body = |status: u16| if status == 207 { listing(&[("/a/", true)]) } else { String::new() };
        let bodies: Vec<_> = answers.iter().map(|(method, status)| (*method, *status, body(*status))).collect();
        let result = worker(&bodies).await.make_directories(&path(&["a", "b"])).await;
        assert_eq!(word(result), expected, "{answers:?}");
    };
    check(&[("MKCOL", 201)], "Made").await;
    check(&[("MKCOL", 409), ("MKCOL", 201), ("MKCOL", 201)], "Made").await;
    check(&[("MKCOL", 409), ("MKCOL", 405), ("PROPFIND", 207), ("MKCOL", 201)], "Made").await;
    check(&[("MKCOL", 409), ("MKCOL", 503)], "Unavailable").await;
    let removed = [("MKCOL", 409), ("MKCOL", 201)].repeat(2);
    check(&[&removed[..], &[("MKCOL", 409)]].concat(), "Unavailable").await;
}

#[tokio::test]
async fn a_listing_is_asked_for_again_until_it_is_whole_and_not_for_ever() {
    let (whole, cut) = (listing(&[("/a/", true)]), "<D:multistatus".to_string());
    let answers = [cut.clone(), cut.clone(), whole].map(|body| ("PROPFIND", 207, body));
    assert_eq!(word(worker(&answers).await.list(&path(&["a"]), Depth::One).await), "Some([])");
    let answers = vec![("PROPFIND", 207, cut); LISTING_TRIES as usize];
    assert_eq!(word(worker(&answers).await.list(&path(&["a"]), Depth::One).await), "Unavailable");
}

#[tokio::test]
async fn an_answer_has_a_bound_and_a_worker_that_is_gone_is_unavailable() {
    let large = worker(&[("GET", 200, "x".repeat(LARGEST_FILE + 1))]).await;
    assert_eq!(word(large.read(&path(&["a"])).await), "Refused");
    let nobody =
        Worker::new("shop", ([127, 0, 0, 1], 1).into(), ("user", "password"), Duration::from_secs(10), Arc::default());
    assert_eq!(
        nobody.read(&path(&["a"])).await,
        Err(JuiceFsError::Unavailable("the worker of `shop` is not there any more".into()))
    );
}

proptest! {
    #[test]
    fn a_name_that_is_encoded_and_decoded_is_the_same(names in prop::collection::vec(any::<String>(), 0..4)) {
        if let Ok(path) = Path::of(names) {
            let encoded = path.encoded();
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/%-._~".contains(&byte)), "{encoded}");
            prop_assert_eq!(decode(&encoded), Some(path.clone()));
            let xml = listing(&[("/", true), (&encoded, false)]);
            let listed = Listing::parse(xml.as_bytes(), &Path::default()).expect("it is a listing");
            let expected: Vec<&Path> = std::iter::once(&path).filter(|path| !path.0.is_empty()).collect();
            prop_assert_eq!(listed.entries.iter().map(|entry| &entry.path).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Listing::parse(&body, &Path::default()).is_err());
    }

    #[test]
    fn a_listing_with_one_byte_changed_does_not_panic(place in 0..400_usize, byte in any::<u8>()) {
        let mut body = listing(&[("/a/", true), ("/a/b%20c", false)]).into_bytes();
        let place = place % body.len();
        body[place] = byte;
        let _ = Listing::parse(&body, &path(&["a"]));
    }
}
