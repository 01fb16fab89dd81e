//! Takes the secrets of a file system out of what the JuiceFS client writes.

use std::cmp::Reverse;

/// What stands where a secret was.
const MASK: &[u8] = b"***";

/// Knows the secrets of one file system.
#[derive(Clone, Default)]
pub(super) struct Redactor {
    secrets: Vec<Vec<u8>>,
}

impl Redactor {
    /// Text is redacted line by line, so a secret of several lines, such as a key in PEM, is known by its lines.
    pub(super) fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Redactor {
        let mut known: Vec<Vec<u8>> = Vec::new();
        for secret in secrets {
            known.extend(secret.as_ref().lines().filter(|line| !line.is_empty()).map(Into::into));
        }
        // The longest first: one secret may be the beginning of another.
        known.sort_by_key(|secret| (Reverse(secret.len()), secret.clone()));
        known.dedup();
        Redactor { secrets: known }
    }

    /// With one secret more.
    pub(super) fn with(mut self, secret: &str) -> Redactor {
        let place = self.secrets.partition_point(|known| known.len() > secret.len());
        self.secrets.insert(place, secret.into());
        self
    }

    /// The text with `***` for every secret, whether it is written plainly, percent-encoded, or escaped as in a quoted string.
    pub(super) fn redact(&self, text: &str) -> String {
        let mut kept = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let [first, others @ ..] = rest {
            if let Some(length) = self.secrets.iter().find_map(|secret| spelled(rest, secret)) {
                kept.extend_from_slice(MASK);
                rest = &rest[length..];
            } else {
                kept.push(*first);
                rest = others;
            }
        }
        String::from_utf8_lossy(&kept).into_owned()
    }

    /// No spelling of a secret is longer: six bytes for one, as in `\u0026`.
    pub(super) fn longest_spelling(&self) -> usize {
        self.secrets.first().map_or(0, |secret| secret.len() * 6)
    }
}

/// How many bytes at the beginning of a text spell the secret.
fn spelled(text: &[u8], secret: &[u8]) -> Option<usize> {
    if text.starts_with(secret) {
        return Some(secret.len());
    }
    let rest = secret.iter().try_fold(text, |rest, byte| after(rest, *byte))?;
    Some(text.len() - rest.len())
}

/// What follows one byte of a secret, in any of its spellings: those of URLs, of Go's `%q` and of Go's JSON.
fn after(text: &[u8], byte: u8) -> Option<&[u8]> {
    match text {
        [b'%', high, low, rest @ ..] if hexadecimal(*high, *low) == Some(byte) => Some(rest),
        [b'\\', b'u', b'0', b'0', high, low, rest @ ..] if hexadecimal(*high, *low) == Some(byte) => Some(rest),
        [b'\\', escaped, rest @ ..] if *escaped == byte => Some(rest),
        [b'+', rest @ ..] if byte == b' ' => Some(rest),
        [plain, rest @ ..] if *plain == byte => Some(rest),
        _ => None,
    }
}

fn hexadecimal(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    #[track_caller]
    fn check(secrets: &[&str], text: &str, expected: &str) {
        assert_eq!(Redactor::new(secrets).redact(text), expected, "{text}");
    }

    #[test]
    fn a_secret_is_masked_in_every_spelling() {
        let secret = &["p@s s&\"/w"];
        check(secret, "plain p@s s&\"/w.", "plain ***.");
        check(secret, "redis://:p%40s%20s%26%22%2fw@host", "redis://:***@host");
        check(secret, "a query ?p=p%40s+s%26%22%2Fw&q", "a query ?p=***&q");
        check(secret, r#"quoted "p@s s&\"/w""#, r#"quoted "***""#);
        check(secret, r#"JSON "p@s s\u0026\"/w""#, r#"JSON "***""#);
        check(secret, "p@s s&\"/ is only a part", "p@s s&\"/ is only a part");
        check(&["50%41"], "50%41 and 50%2541", "*** and ***");
        check(&[r"a\\b"], r"a\\b and a\\\\b", "*** and ***");
    }

    #[test]
    fn of_two_secrets_the_longer_one_is_masked_first() {
        check(&["abc", "abcdef"], "abcdef abc", "*** ***");
        check(&["same", "same"], "same", "***");
    }

    #[test]
    fn a_secret_of_several_lines_is_masked_line_by_line() {
        check(&["-----BEGIN\nMIIB\n\n-----END"], "key MIIB", "key ***");
    }

    #[test]
    fn no_secret_means_no_mask() {
        check(&[], "as it was", "as it was");
        check(&[""], "as it was", "as it was");
    }

    proptest! {
        #[test]
        fn neither_spelling_of_any_secret_survives(secret in "\\PC{4,20}", before in "\\PC{0,10}", after in "\\PC{0,10}") {
            let redactor = Redactor::new([&secret]);
            let encoded = utf8_percent_encode(&secret, NON_ALPHANUMERIC).to_string();
            for spelling in [&secret, &encoded] {
                let redacted = redactor.redact(&format!("{before}{spelling}{after}"));
                prop_assert!(redacted.contains("***"), "{redacted}");
            }
        }
    }
}
