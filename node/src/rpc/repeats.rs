//! Keys that an object of a request has more than once: Bitcoin Core refuses some of them, so they
//! may not be lost when the request is read.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{RpcError, code};
use crate::json_pairs::Pairs;

/// The method that takes outputs, and where.
const WITH_OUTPUTS: &str = "createrawtransaction";
const OUTPUTS: (&str, usize) = ("outputs", 1);
/// The name of arguments by place among those by name.
const BY_PLACE: &str = "args";

/// Returns the parameters of a call, given the text of its request as well: outputs that name
/// something twice become what can be told apart.
///
/// # Errors
///
/// Returns an error if a parameter is given twice by its name.
pub(super) fn restore(method: &str, mut params: Value, request: &str) -> Result<Value, RpcError> {
    let has_outputs = method == WITH_OUTPUTS;
    // That there is no such method is told first.
    if !has_outputs && (!params.is_object() || super::method(method).is_none()) {
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
    if !has_outputs {
        return Ok(params);
    }
    let (name, index) = OUTPUTS;
    match by_name {
        Some(named) => {
            if let (Some(outputs), Some(text)) = (params.get_mut(name), named.get(name)) {
                tell_apart(outputs, text);
            }
            if let (Some(args), Some(text)) = (params.get_mut(BY_PLACE), named.get(BY_PLACE)) {
                tell_apart_at(index, args, text);
            }
        }
        None => tell_apart_at(index, &mut params, text),
    }
    Ok(params)
}

fn tell_apart_at(index: usize, args: &mut Value, text: &str) {
    if let (Some(outputs), Some(text)) = (args.get_mut(index), elements(text).get(index)) {
        tell_apart(outputs, text);
    }
}

/// Puts outputs in the place of those read from `text`, if there they name something twice: one
/// object becomes an array of objects with one key each, as they may also be given; an object of an
/// array, which has to have one key, becomes one that has none.
fn tell_apart(outputs: &mut Value, text: &str) {
    let with_repeats = |text| Pairs::of(text).filter(|pairs| pairs.repeated().is_some());
    match outputs {
        Value::Array(outputs) => {
            for (output, text) in outputs.iter_mut().zip(elements(text)) {
                if with_repeats(text).is_some() {
                    *output = json!({});
                }
            }
        }
        _ => {
            if let Some(pairs) = with_repeats(text) {
                *outputs = pairs.into_array();
            }
        }
    }
}

/// Returns the texts of an array's elements.
fn elements(text: &str) -> Vec<&str> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
    elements.into_iter().map(RawValue::get).collect()
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
        check("nothing", r#"{"x":1,"x":2}"#, Ok(json!({"x":2})));
    }

    #[test]
    fn outputs_keep_what_they_name_twice() {
        let pairs = json!([{"a": 1}, {"data": "00"}, {"a": 2}]);
        let twice = r#"{"a":1,"data":"00","a":2}"#;
        let method = WITH_OUTPUTS;
        check(method, &format!("[[],{twice},0]"), Ok(json!([[], pairs, 0])));
        check(
            method,
            &format!(r#"{{"outputs":{twice},"inputs":[]}}"#),
            Ok(json!({"outputs": pairs, "inputs": []})),
        );
        check(
            method,
            &format!(r#"{{"args":[[],{twice}],"locktime":0}}"#),
            Ok(json!({"args": [[], pairs], "locktime": 0})),
        );
        check(method, r#"[[],{"a":1,"b":2}]"#, Ok(json!([[],{"a":1,"b":2}])));
        check(method, "[]", Ok(json!([])));
        check("getblock", &format!("[[],{twice}]"), Ok(json!([[], {"a": 2, "data": "00"}])));
    }

    #[test]
    fn an_output_of_several_equal_keys_has_not_one_key() {
        let outputs = r#"[{"a":1},{"b":1,"b":2},5]"#;
        let told_apart = json!([{"a": 1}, {}, 5]);
        check(WITH_OUTPUTS, &format!("[[],{outputs}]"), Ok(json!([[], told_apart])));
        check(
            WITH_OUTPUTS,
            &format!(r#"{{"args":[[],{outputs}]}}"#),
            Ok(json!({"args": [[], told_apart]})),
        );
    }

    #[test]
    fn of_two_lists_of_parameters_the_one_that_is_read_is_looked_at() {
        let request = r#"{"params":[[],{"a":1,"a":2}],"params":[[],{"b":1}]}"#;
        let read = json!([[], {"b": 1}]);
        assert_eq!(restore(WITH_OUTPUTS, read.clone(), request), Ok(read));
    }
}
