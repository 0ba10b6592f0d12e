//! Arguments of a call: bound to the method's parameters by place or by name, and read by type.

use bitcoin::hashes::Hash;
use serde_json::Value;

pub(super) use super::help::help;
use super::param_types::{JsonType, option_names, type_of};
use super::{Method, RpcError, code};

/// What a parameter is, for `cofferdam rpc`, which reads all but texts as JSON, and for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A JSON string.
    Text,
    /// Anything else.
    Json,
    /// Anything, without a check.
    Any,
    /// As [`Kind::Json`], and not in the help.
    Hidden,
}

/// A parameter of a method.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Param {
    /// Its names, separated by `|`; the first is the present one.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) kind: Kind,
    /// Whether it has to be given.
    pub(crate) required: bool,
}

/// Declares a text that has to be given.
pub(crate) const fn text(name: &'static str) -> Param {
    Param { name, kind: Kind::Text, required: true }
}

/// Declares a text that may be left out.
pub(crate) const fn optional_text(name: &'static str) -> Param {
    Param { name, kind: Kind::Text, required: false }
}

/// Declares a number, truth value, array or object that has to be given.
pub(crate) const fn json(name: &'static str) -> Param {
    Param { name, kind: Kind::Json, required: true }
}

/// Declares a number, truth value, array or object that may be left out.
pub(crate) const fn optional(name: &'static str) -> Param {
    Param { name, kind: Kind::Json, required: false }
}

/// Declares a value that may be left out, and of which any type is taken.
pub(crate) const fn optional_any(name: &'static str) -> Param {
    Param { name, kind: Kind::Any, required: false }
}

/// Declares a value that may be left out and is not in the help.
pub(crate) const fn hidden(name: &'static str) -> Param {
    Param { name, kind: Kind::Hidden, required: false }
}

/// The arguments of a call.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    method: &'static Method,
    values: Vec<Value>,
}

impl Args {
    /// Returns the method that is called.
    pub(crate) const fn method(&self) -> &'static Method {
        self.method
    }

    /// Binds arguments; named ones may follow positional ones given as `args`.
    pub(crate) fn bind(method: &'static Method, params: Value) -> Result<Self, RpcError> {
        let values = match params {
            Value::Array(values) => values,
            Value::Object(named) => by_name(method, named)?,
            _ => Vec::new(),
        };
        let required =
            method.params.iter().rposition(|param| param.required).map_or(0, |index| index + 1);
        if values.len() < required || values.len() > method.params.len() {
            return Err(RpcError::new(code::MISC_ERROR, help(method)));
        }
        let args = Self { method, values };
        args.check_types()?;
        Ok(args)
    }

    /// Checks every argument before the method runs, as Core's `RPCMethod::HandleRequest`.
    fn check_types(&self) -> Result<(), RpcError> {
        let wrong = self.method.params.iter().enumerate().filter_map(|(index, param)| {
            let value = self.values.get(index).unwrap_or(&Value::Null);
            let expected = param.json_type().in_errors()?;
            let found = type_name(value);
            let is_fine = found == expected || (value.is_null() && !param.required);
            (!is_fine).then(|| mismatch(index, param.name, found, expected))
        });
        let wrong: Vec<String> = wrong.collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong_type(&wrong)) }
    }

    /// Returns the number of arguments.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Returns the arguments.
    pub(crate) fn values(&self) -> &[Value] {
        &self.values
    }

    /// Returns an argument, if it was given.
    pub(crate) fn get(&self, index: usize) -> Option<&Value> {
        self.values.get(index).filter(|value| !value.is_null())
    }

    /// Returns a text.
    pub(crate) fn text(&self, index: usize) -> Result<&str, RpcError> {
        self.optional_text(index)?.ok_or_else(|| self.wrong_type(index, "string"))
    }

    /// Returns a text, if it was given.
    pub(crate) fn optional_text(&self, index: usize) -> Result<Option<&str>, RpcError> {
        let Some(value) = self.get(index) else {
            return Ok(None);
        };
        value.as_str().map(Some).ok_or_else(|| self.wrong_type(index, "string"))
    }

    /// Returns a whole number of the width that Core reads.
    pub(crate) fn integer<T: TryFrom<i128>>(&self, index: usize) -> Result<T, RpcError> {
        self.optional_integer(index)?.ok_or_else(|| self.wrong_type(index, "number"))
    }

    /// Returns a whole number of the width that Core reads, if it was given.
    pub(crate) fn optional_integer<T: TryFrom<i128>>(
        &self,
        index: usize,
    ) -> Result<Option<T>, RpcError> {
        let Some(value) = self.get(index) else {
            return Ok(None);
        };
        if !value.is_number() {
            return Err(self.wrong_type(index, "number"));
        }
        whole(value).map(Some)
    }

    /// Returns the elements of an array.
    pub(crate) fn array(&self, index: usize) -> Result<&[Value], RpcError> {
        match self.get(index) {
            Some(Value::Array(values)) => Ok(values),
            _ => Err(self.wrong_type(index, "array")),
        }
    }

    /// Returns a truth value, if it was given.
    pub(crate) fn optional_flag(&self, index: usize) -> Result<Option<bool>, RpcError> {
        let Some(value) = self.get(index) else {
            return Ok(None);
        };
        value.as_bool().map(Some).ok_or_else(|| self.wrong_type(index, "bool"))
    }

    /// Returns a hash.
    pub(crate) fn hash<H: Hash + std::str::FromStr>(&self, index: usize) -> Result<H, RpcError> {
        self.hash_as(index, self.name(index))
    }

    /// Returns a hash; errors call it `name`.
    pub(crate) fn hash_as<H: Hash + std::str::FromStr>(
        &self,
        index: usize,
        name: &str,
    ) -> Result<H, RpcError> {
        parse_hash(name, self.text(index)?)
    }

    /// Returns how much is asked for: a number, where true is 1 (`ParseVerbosity`).
    pub(crate) fn verbosity(&self, index: usize, default: i32) -> Result<i32, RpcError> {
        match self.get(index) {
            None => Ok(default),
            Some(Value::Bool(verbose)) => Ok(i32::from(*verbose)),
            Some(value) if !value.is_number() => Err(not_of_type(value, "number")),
            Some(_) => self.integer(index),
        }
    }

    /// Returns the error for an argument of the wrong JSON type.
    pub(crate) fn wrong_type(&self, index: usize, expected: &str) -> RpcError {
        let found = self.get(index).map_or("null", type_name);
        let name = self.method.params.get(index).map_or("", |param| param.name);
        wrong_type(&[mismatch(index, name, found, expected)])
    }

    fn name(&self, index: usize) -> &'static str {
        self.method.params.get(index).map_or("", |param| param.first_name())
    }
}

/// The error for a value within an argument that has the wrong JSON type.
pub(crate) fn not_of_type(value: &Value, expected: &str) -> RpcError {
    let found = type_name(value);
    let message = format!("JSON value of type {found} is not of expected type {expected}");
    RpcError::new(code::TYPE_ERROR, message)
}

/// Reads a number that has to be whole and of a width (`getInt` of Core's `UniValue`).
pub(crate) fn whole<T: TryFrom<i128>>(number: &Value) -> Result<T, RpcError> {
    let wide = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    let of_width = wide.and_then(|wide| T::try_from(wide).ok());
    of_width.ok_or_else(|| RpcError::new(code::MISC_ERROR, "JSON integer out of range"))
}

/// Looks at the types of an object's fields, in the order of their names (`RPCTypeCheckObj`).
pub(crate) fn check_types(
    object: &serde_json::Map<String, Value>,
    fields: &[(&str, &str)],
    may_miss: bool,
) -> Result<(), RpcError> {
    let wrong = |message: String| Err(RpcError::new(code::TYPE_ERROR, message));
    for (name, expected) in fields {
        let field = object.get(*name).unwrap_or(&Value::Null);
        let found = type_name(field);
        if field.is_null() && !may_miss {
            return wrong(format!("Missing {name}"));
        }
        if !field.is_null() && found != *expected {
            return wrong(format!(
                "JSON value of type {found} for field {name} is not of expected type {expected}"
            ));
        }
    }
    Ok(())
}

/// Reads a hash that is called `name` (Core's `ParseHashV`).
pub(crate) fn parse_hash<H: Hash + std::str::FromStr>(
    name: &str,
    text: &str,
) -> Result<H, RpcError> {
    let problem = if text.len() == 64 {
        format!("{name} must be hexadecimal string (not '{text}')")
    } else {
        format!("{name} must be of length 64 (not {}, for '{text}')", text.len())
    };
    text.parse().map_err(|_| RpcError::new(code::INVALID_PARAMETER, problem))
}

impl Param {
    /// Returns the present name.
    pub(crate) fn first_name(&self) -> &'static str {
        self.name.split('|').next().unwrap_or(self.name)
    }

    /// Returns the JSON type.
    pub(super) fn json_type(&self) -> JsonType {
        match self.kind {
            Kind::Text => JsonType::Text,
            Kind::Any => JsonType::Unchecked,
            Kind::Json | Kind::Hidden => type_of(self.first_name()),
        }
    }
}

fn mismatch(index: usize, name: &str, found: &str, expected: &str) -> String {
    format!(
        "    \"Position {} ({name})\": \"JSON value of type {found} is not of expected type {expected}\"",
        index + 1
    )
}

fn wrong_type(mismatches: &[String]) -> RpcError {
    let message = format!("Wrong type passed:\n{{\n{}\n}}", mismatches.join(",\n"));
    RpcError::new(code::TYPE_ERROR, message)
}

fn by_name(
    method: &Method,
    mut named: serde_json::Map<String, Value>,
) -> Result<Vec<Value>, RpcError> {
    let mut values = match named.remove("args") {
        Some(Value::Array(values)) => values,
        // As in Core, anything else is not looked at.
        _ => Vec::new(),
    };
    let positional = values.len();
    gather_options(method, &mut named)?;
    let mut given = vec![false; method.params.len()];
    let mut unknown = None;
    for (name, value) in named {
        let found =
            method.params.iter().position(|param| param.name.split('|').any(|known| known == name));
        // Of several names of one parameter only the first that Core looks for is taken.
        let slot = found.and_then(|index| Some((index, given.get_mut(index)?)));
        let Some((index, is_given)) = slot.filter(|(_, is_given)| !**is_given) else {
            unknown = unknown.or(Some(name));
            continue;
        };
        *is_given = true;
        if values.len() <= index {
            values.resize(index + 1, Value::Null);
        }
        if let Some(slot) = values.get_mut(index) {
            *slot = value;
        }
    }
    // Of those that are given both ways the first one is named, with all its names.
    let twice = given.iter().take(positional).position(|given| *given);
    if let Some(param) = twice.and_then(|index| method.params.get(index)) {
        let what = "specified twice both as positional and named argument";
        let text = format!("Parameter {} {what}", param.name);
        return Err(RpcError::new(code::INVALID_PARAMETER, text));
    }
    if let Some(name) = unknown {
        let text = format!("Unknown named parameter {name}");
        return Err(RpcError::new(code::INVALID_PARAMETER, text));
    }
    Ok(values)
}

/// Puts options that were given by their own names into `options` (Core's named-only parameters).
fn gather_options(
    method: &Method,
    named: &mut serde_json::Map<String, Value>,
) -> Result<(), RpcError> {
    let mut options = serde_json::Map::new();
    for &name in option_names(method.name) {
        if let Some(value) = named.shift_remove(name) {
            options.insert(name.to_owned(), value);
        }
    }
    let Some(first) = options.keys().next() else {
        return Ok(());
    };
    if named.contains_key("options") {
        let text = format!("Parameter options conflicts with parameter {first}");
        return Err(RpcError::new(code::INVALID_PARAMETER, text));
    }
    named.insert("options".into(), Value::Object(options));
    Ok(())
}

/// Returns what JSON calls a value's type.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::BlockHash;
    use serde_json::json;

    static METHOD: Method = Method {
        name: "test",
        params: &[text("blockhash"), optional("verbosity|verbose"), optional_text("third")],
        run: |_, _| Ok(Value::Null),
    };

    fn bind(params: Value) -> Result<Args, RpcError> {
        Args::bind(&METHOD, params)
    }

    #[test]
    fn arguments_bind_by_place_by_name_and_mixed() {
        for params in [
            json!(["a", 1]),
            json!({"blockhash": "a", "verbose": 1}),
            json!({"args": ["a"], "verbosity": 1}),
        ] {
            let args = bind(params).unwrap();
            assert_eq!((args.text(0).unwrap(), args.integer(1)), ("a", Ok(1)));
            assert_eq!(args.optional_text(2).unwrap(), None);
        }
        let unknown = bind(json!({"foo": 1})).unwrap_err();
        assert_eq!(unknown, RpcError::new(-8, "Unknown named parameter foo"));
        let twice = bind(json!({"args": ["a"], "blockhash": "b"})).unwrap_err();
        assert!(
            twice
                .message
                .contains("blockhash specified twice both as positional and named argument")
        );
    }

    #[test]
    fn options_bind_by_their_own_names() {
        let scan = crate::rpc::method("scanblocks").unwrap();
        let named = json!({"action": "start", "filter_false_positives": true});
        let args = Args::bind(scan, named).unwrap();
        assert_eq!(args.get(5), Some(&json!({"filter_false_positives": true})));
        let both = json!({"action": "start", "options": {}, "filter_false_positives": true});
        let error = Args::bind(scan, both).unwrap_err();
        let text = "Parameter options conflicts with parameter filter_false_positives";
        assert_eq!(error, RpcError::new(-8, text));
        // Both names of one parameter are one too many.
        let error = bind(json!({"blockhash": "a", "verbosity": 1, "verbose": 2})).unwrap_err();
        assert!(error.message.starts_with("Unknown named parameter verb"), "{error:?}");
    }

    #[test]
    fn a_wrong_number_of_arguments_shows_the_help() {
        let method = crate::rpc::method("getblockhash").unwrap();
        for params in [json!([]), json!([1, 2])] {
            let error = Args::bind(method, params).unwrap_err();
            assert_eq!(error.code, -1);
            assert!(error.message.starts_with("getblockhash height\n\nReturns hash"), "{error:?}");
        }
    }

    #[test]
    fn a_number_has_the_width_that_is_read() {
        let number = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let args = |text: &str| bind(json!(["a", number(text)])).unwrap();
        let error = RpcError::new(-1, "JSON integer out of range");
        assert_eq!(args("2147483647").integer::<i32>(1), Ok(i32::MAX));
        assert_eq!(args("18446744073709551615").integer::<u64>(1), Ok(u64::MAX));
        for text in ["2147483648", "-2147483649", "18446744073709551616", "1.5", "1.0", "1e30"] {
            assert_eq!(args(text).integer::<i32>(1), Err(error.clone()), "{text}");
            assert_eq!(args(text).verbosity(1, 0), Err(error.clone()), "{text}");
        }
        assert_eq!(args("-1").integer::<u32>(1), Err(error));
    }

    #[test]
    fn wrong_types_and_hashes_are_named() {
        let error = bind(json!([5, "x", true])).unwrap_err();
        assert_eq!(error.code, -3);
        assert_eq!(
            error.message,
            "Wrong type passed:\n{\n    \"Position 1 (blockhash)\": \"JSON value of type number is not of expected type string\",\n    \"Position 3 (third)\": \"JSON value of type bool is not of expected type string\"\n}"
        );
        assert_eq!(bind(json!([null])).unwrap_err().code, -3);
        let args = bind(json!(["a", "x"])).unwrap();
        assert!(args.integer::<i64>(1).is_err() && args.optional_flag(1).is_err());
        let args = bind(json!(["zz"])).unwrap();
        let error = args.hash::<BlockHash>(0).unwrap_err();
        assert_eq!(error, RpcError::new(-8, "blockhash must be of length 64 (not 2, for 'zz')"));
    }
}
