//! What may be part of a directory's name, and how any other value is made so.

use sha2::{Digest, Sha256};

/// The rule of [`is_plain`], for sentences.
pub(crate) const RULE: &str = "only letters, digits, `-`, `_` and `.` are taken, and no dot in front";

/// Hex digits of the digest in a sanitised value: 64 bits, so that nobody finds a label which lands in another's directory.
const DIGEST_LENGTH: usize = 16;

/// A longer value is cut, so that one long annotation does not take the whole of a file name.
const LONGEST_VALUE: usize = 200;

/// True for a value that can stand in a directory's name as it is.
///
/// Stricter than a file system: whatever is in here means the same to every shell, URL and listing that shows it.
pub(crate) fn is_plain(value: &str) -> bool {
    !value.is_empty() && !value.starts_with('.') && value.bytes().all(is_plain_byte)
}

pub(crate) fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// A plain value as it is; for any other, its plain characters with a digest of the whole, so that two different values
/// stay different.
///
/// A plain value that reads like a sanitised one gets a digest too: otherwise it could be chosen to meet one.
pub(crate) fn sanitise(value: &str) -> String {
    if is_plain(value) && !reads_sanitised(value) && value.len() <= LONGEST_VALUE {
        return value.to_owned();
    }
    let replaced: String =
        value.chars().map(|c| if u8::try_from(c).is_ok_and(is_plain_byte) { c } else { '_' }).take(64).collect();
    let visible = match replaced.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        // A name that begins with a dash is taken for an option by every other tool.
        None if replaced.is_empty() => "_".to_owned(),
        None => replaced,
    };
    format!("{visible}-{}", digest(value, DIGEST_LENGTH))
}

fn reads_sanitised(value: &str) -> bool {
    value.rsplit_once('-').is_some_and(|(_, end)| {
        end.len() == DIGEST_LENGTH && end.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// The first hex digits of the SHA-256 of a text.
pub(crate) fn digest(text: &str, length: usize) -> String {
    let digest = Sha256::digest(text);
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).take(length);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn values_that_look_alike_stay_apart() {
        let values = ["a/b", "a_b", "a b", "a\\b", "", ".", "..", "...", "_", ".a", "_a", "ä", "ö", "a\u{0}b"];
        let sanitised: BTreeSet<String> = values.iter().map(|value| sanitise(value)).collect();
        assert_eq!(sanitised.len(), values.len(), "{sanitised:?}");
        assert!(sanitised.iter().all(|value| is_plain(value)), "{sanitised:?}");
    }

    #[test]
    fn value_cannot_be_chosen_to_meet_a_sanitised_one() {
        let victim = sanitise("a/b");
        assert_ne!(sanitise(&victim), victim);
        assert_ne!(sanitise(&sanitise(&victim)), sanitise(&victim));
    }

    #[test]
    fn long_value_is_cut_and_stays_apart() {
        let (one, other) = ("a".repeat(300), "a".repeat(301));
        assert_eq!(sanitise(&one).len(), 64 + 1 + DIGEST_LENGTH);
        assert_ne!(sanitise(&one), sanitise(&other));
    }

    #[test]
    fn plain_value_is_left_alone() {
        for value in ["web", "Web-0", "1.2", "a_b", "a-0123456789abcde", "-"] {
            assert_eq!(sanitise(value), value);
        }
    }

    #[test]
    fn digest_is_that_of_sha_256() {
        assert_eq!(digest("", 8), "e3b0c442");
        assert_eq!(digest("abc", 16), "ba7816bf8f01cfea");
    }
}
