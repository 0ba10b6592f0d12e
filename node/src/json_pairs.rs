//! The keys and values of a JSON object as they stand in its text: of several equal keys
//! `serde_json` keeps the last value alone, where Bitcoin Core sees that there were more.

use std::collections::HashSet;

use serde_json::value::RawValue;
use serde_json::{Deserializer, Value, json};

/// The keys and values of an object, in their order.
#[derive(Debug)]
pub(crate) struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Pairs<'a> {
    /// Reads an object; none if the text is something else.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        let mut rest = text.trim_start().strip_prefix('{')?.trim_start();
        let mut pairs = Vec::new();
        while !rest.starts_with('}') {
            let (key, after) = next(rest.strip_prefix(',').unwrap_or(rest))?;
            let (value, after) = next(after.trim_start().strip_prefix(':')?)?;
            pairs.push((serde_json::from_str(key.get()).ok()?, value));
            rest = after.trim_start();
        }
        Some(Self(pairs))
    }

    /// Returns the text of a key's value; of several the last, as `serde_json` does.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.get())
    }

    /// Returns the first key that was there before.
    pub(crate) fn repeated(&self) -> Option<&str> {
        let mut seen = HashSet::with_capacity(self.0.len());
        let mut keys = self.0.iter().map(|(key, _)| key.as_str());
        keys.find(|key| !seen.insert(*key))
    }

    /// Returns an array of objects with one key each.
    pub(crate) fn into_array(self) -> Value {
        let one = |(key, value): (String, &RawValue)| {
            // What was read once can be read again.
            let value: Value = serde_json::from_str(value.get()).unwrap_or_default();
            json!({ key: value })
        };
        self.0.into_iter().map(one).collect()
    }
}

/// Reads the value that a text begins with, and returns what follows it.
fn next(text: &str) -> Option<(&RawValue, &str)> {
    let mut values = Deserializer::from_str(text).into_iter::<&RawValue>();
    let value = values.next()?.ok()?;
    Some((value, text.get(values.byte_offset()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compared_as_they_are_read_and_those_within_do_not_count() {
        let repeated = |text| Pairs::of(text).expect("an object").repeated().map(ToOwned::to_owned);
        assert_eq!(repeated(r#"{"a":1,"b":{"a":1,"a":2},"c":["a",{"b":1}]}"#), None);
        assert_eq!(repeated(r#" { "a" : "}\"" , "b":[], "\u0061":2 } "#), Some("a".into()));
        assert_eq!(repeated("{}"), None);
        assert!(Pairs::of("[1]").is_none());
    }

    #[test]
    fn of_equal_keys_the_last_value_counts_and_all_are_kept() {
        let pairs = Pairs::of(r#"{"a":1,"b":[2],"a":{"c":3}}"#).expect("an object");
        assert_eq!((pairs.get("a"), pairs.get("b")), (Some(r#"{"c":3}"#), Some("[2]")));
        assert_eq!(pairs.into_array(), json!([{"a": 1}, {"b": [2]}, {"a": {"c": 3}}]));
    }
}
