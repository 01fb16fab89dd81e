//! A pattern for names, in which `*` stands for any text and everything else for itself.
//!
//! There are no other signs on purpose: names in Kubernetes have no use for them, and a regular expression would be most of
//! the policy's size.

use serde::Deserialize;

/// A name, or a pattern for names.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    pub(crate) fn matches(&self, text: &str) -> bool {
        let Some((start, rest)) = self.0.split_once('*') else { return self.0 == text };
        let Some(mut text) = text.strip_prefix(start) else { return false };
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            // The last part must end the text; any other is best found as early as it can be.
            if parts.peek().is_none() {
                return text.ends_with(part);
            }
            match text.split_once(part) {
                Some((_, after)) => text = after,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, matching: &[&str], other: &[&str]) {
        let pattern = Pattern(pattern.to_owned());
        for text in matching {
            assert!(pattern.matches(text), "{:?} should match {text:?}", pattern.0);
        }
        for text in other {
            assert!(!pattern.matches(text), "{:?} should not match {text:?}", pattern.0);
        }
    }

    #[test]
    fn star_stands_for_any_text_and_the_rest_for_itself() {
        check("web", &["web"], &["", "webs", "aweb", "Web"]);
        check("*", &["", "web"], &[]);
        check("", &[""], &["a"]);
        check("kube-*", &["kube-", "kube-system"], &["kube", "akube-system"]);
        check("*-system", &["-system", "kube-system"], &["system", "kube-system-2"]);
        check("a*a", &["aa", "aba", "aaa"], &["a", "ab", "ba"]);
        check("a*b*c", &["abc", "axbxc", "abbcc", "abcbc"], &["ac", "acb", "abcd"]);
        check("**", &["", "web"], &[]);
        check("a.c", &["a.c"], &["abc"]);
        check("a?", &["a?"], &["ab"]);
    }

    #[test]
    fn pattern_of_many_stars_is_answered_at_once() {
        check(&"*a".repeat(60), &[&"a".repeat(60)], &[&"b".repeat(60_000), &"a".repeat(59)]);
    }
}
