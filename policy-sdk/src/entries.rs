//! Looking things up in the sorted lists that stand for maps in the records.

/// Look-ups by key in labels, annotations, parameters, requests and limits.
pub trait Entries {
    /// The value of a key; absent where the key is not set. An empty value is a value.
    fn value(&self, key: &str) -> Option<&str>;
}

impl Entries for [(String, String)] {
    // The lists are sorted, but short, and a test may build one by hand: a scan is as quick and cannot be surprised.
    fn value(&self, key: &str) -> Option<&str> {
        self.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// Puts a value under a key, in place of one that is there, and keeps the list sorted.
pub(crate) fn put<V>(entries: &mut Vec<(String, V)>, key: &str, value: V) {
    match entries.binary_search_by(|(name, _)| name.as_str().cmp(key)) {
        Ok(at) => entries[at].1 = value,
        Err(at) => entries.insert(at, (key.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_that_is_put_twice_is_there_once_and_in_order() {
        let mut entries = Vec::new();
        for (key, value) in [("b", "1"), ("a", "2"), ("c", ""), ("b", "3")] {
            put(&mut entries, key, value.to_owned());
        }
        assert_eq!(entries.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(entries.value("b"), Some("3"));
        assert_eq!(entries.value("c"), Some(""));
        assert_eq!(entries.value("d"), None);
    }
}
