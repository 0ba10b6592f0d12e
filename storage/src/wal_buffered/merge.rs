//! `Merged`: ordered iteration over what is buffered and what is in the backend.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

use crate::database::{Entries, Entry};
use crate::error::Result;

/// Buffered entries by key; no value means deleted.
pub(crate) type Buffered = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The entries of the backend, overridden by the buffered ones.
pub(crate) struct Merged<'a> {
    buffered: Peekable<btree_map::IntoIter<Vec<u8>, Option<Vec<u8>>>>,
    backend: Peekable<Entries<'a>>,
}

impl<'a> Merged<'a> {
    /// Merges; both are of the same range.
    pub(crate) fn new(buffered: Buffered, backend: Entries<'a>) -> Self {
        Self { buffered: buffered.into_iter().peekable(), backend: backend.peekable() }
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            // The backend's turn: its key is the smaller one, or it failed.
            let backend_first = match (self.buffered.peek(), self.backend.peek()) {
                (_, Some(Err(_))) | (None, _) => true,
                (Some(_), None) => false,
                (Some((buffered, _)), Some(Ok((backend, _)))) => {
                    if buffered == backend {
                        self.backend.next();
                        continue;
                    }
                    backend < buffered
                }
            };
            if backend_first {
                return self.backend.next();
            }
            if let (key, Some(value)) = self.buffered.next()? {
                return Some(Ok((key, value)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn merged(buffered: &[(&str, Option<&str>)], backend: &[&str]) -> Vec<(String, String)> {
        let buffered = buffered
            .iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value.map(|v| v.as_bytes().to_vec())))
            .collect();
        let backend: Vec<Result<Entry>> =
            backend.iter().map(|key| Ok((key.as_bytes().to_vec(), b"old".to_vec()))).collect();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Merged::new(buffered, Box::new(backend.into_iter()))
            .map(|entry| entry.map(|(key, value)| (text(key), text(value))).unwrap())
            .collect()
    }

    #[test]
    fn buffered_entries_override_and_deletions_hide() {
        let buffered = [("a", Some("new")), ("b", None), ("c", Some("new")), ("e", None)];
        let all = merged(&buffered, &["b", "c", "d"]);
        let expected = [("a", "new"), ("c", "new"), ("d", "old")];
        assert_eq!(all, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(merged(&[], &["x"]).len(), 1);
        assert_eq!(merged(&[("x", Some("y"))], &[]).len(), 1);
        assert!(merged(&[("x", None)], &["x"]).is_empty());
    }

    #[test]
    fn an_error_of_the_backend_comes_through() {
        let backend: Vec<Result<Entry>> = vec![Err(Error::misuse("broken"))];
        let buffered = Buffered::from([(b"a".to_vec(), Some(Vec::new()))]);
        let mut all = Merged::new(buffered, Box::new(backend.into_iter()));
        assert!(all.next().unwrap().is_err());
        assert!(all.next().unwrap().is_ok());
    }
}
