//! Paths and listings, without a worker.

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
    for name in ["", ".", "..", "a/b", "/", "a\0", &"x".repeat(256)] {
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
