//! Keys that an object of a request has more than once: Bitcoin Core refuses some of them, so they
//! may not be lost when the request is read.

use std::collections::HashSet;

use serde_json::value::RawValue;
use serde_json::{Deserializer, Value, json};

use super::{RpcError, code};

/// The methods that take outputs, and where.
const WITH_OUTPUTS: [(&str, usize); 2] = [("createrawtransaction", 1), ("createpsbt", 1)];
const OUTPUTS: &str = "outputs";

/// The keys and values of an object as they stand in the text.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Pairs<'a> {
    /// Reads an object; none if the text is something else.
    fn of(text: &'a str) -> Option<Self> {
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

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.get())
    }

    fn repeated(&self) -> Option<&str> {
        let mut seen = HashSet::with_capacity(self.0.len());
        let mut keys = self.0.iter().map(|(key, _)| key.as_str());
        keys.find(|key| !seen.insert(*key))
    }

    fn into_array(self) -> Value {
        let one = |(key, value): (String, &RawValue)| {
            // What was read once can be read again.
            let value: Value = serde_json::from_str(value.get()).unwrap_or_default();
            json!({ key: value })
        };
        self.0.into_iter().map(one).collect()
    }
}

/// Returns the parameters of a call, given the text of its request as well: outputs that name
/// something twice become an array of objects with one key each, as they may also be given.
///
/// # Errors
///
/// Returns an error if a parameter is given twice by its name.
pub(super) fn restore(method: &str, mut params: Value, request: &str) -> Result<Value, RpcError> {
    let place = WITH_OUTPUTS.iter().find(|(name, _)| *name == method).map(|(_, index)| *index);
    if place.is_none() && !params.is_object() {
        return Ok(params);
    }
    let Some(text) = Pairs::of(request).and_then(|fields| fields.get("params")) else {
        return Ok(params);
    };
    let by_name = Pairs::of(text);
    if let Some(name) = by_name.as_ref().and_then(Pairs::repeated) {
        let text = format!("Parameter {name} specified multiple times");
        return Err(RpcError::new(code::INVALID_PARAMETER, text));
    }
    let Some(index) = place else {
        return Ok(params);
    };
    let outputs = match &by_name {
        Some(named) => named.get(OUTPUTS),
        None => serde_json::from_str::<Vec<&RawValue>>(text)
            .ok()
            .and_then(|values| values.get(index).map(|value| value.get())),
    };
    let slot = if by_name.is_some() { params.get_mut(OUTPUTS) } else { params.get_mut(index) };
    if let Some(slot) = slot
        && let Some(pairs) = outputs.and_then(Pairs::of).filter(|pairs| pairs.repeated().is_some())
    {
        *slot = pairs.into_array();
    }
    Ok(params)
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

    #[track_caller]
    fn check(method: &str, params: &str, expected: Result<Value, &str>) {
        let request = format!(r#"{{"id":1,"method":"{method}","params":{params}}}"#);
        let read = serde_json::from_str(params).expect("JSON");
        let restored = restore(method, read, &request).map_err(|error| error.message);
        assert_eq!(restored, expected.map_err(String::from), "{params}");
    }

    #[test]
    fn a_parameter_that_is_named_twice_is_refused() {
        let text = "Parameter hash specified multiple times";
        check("getblock", r#"{"hash":"a","hash":"b"}"#, Err(text));
        check("getblock", r#"{"hash":"a","n":{"x":1,"x":2}}"#, Ok(json!({"hash":"a","n":{"x":2}})));
        check("getblock", r#"["a",{"x":1}]"#, Ok(json!(["a",{"x":1}])));
    }

    #[test]
    fn outputs_keep_what_they_name_twice() {
        let pairs = json!([{"a": 1}, {"data": "00"}, {"a": 2}]);
        let twice = r#"{"a":1,"data":"00","a":2}"#;
        let method = "createrawtransaction";
        check(method, &format!("[[],{twice},0]"), Ok(json!([[], pairs, 0])));
        check(
            method,
            &format!(r#"{{"outputs":{twice},"inputs":[]}}"#),
            Ok(json!({"outputs": pairs, "inputs": []})),
        );
        check(method, r#"[[],{"a":1,"b":2}]"#, Ok(json!([[],{"a":1,"b":2}])));
        check(method, "[]", Ok(json!([])));
        check("getblock", &format!("[[],{twice}]"), Ok(json!([[], {"a": 2, "data": "00"}])));
    }
}
