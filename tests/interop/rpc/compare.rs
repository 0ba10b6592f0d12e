//! Two answers, compared field by field.

use cofferdam_tests::json_rpc::RpcError;
use serde_json::Value;

/// What a call gave.
pub(super) type Answer = Result<Value, RpcError>;

/// A place where two answers differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Difference {
    /// Fields from the outside in with dots between them, `[]` for an element of a list; `error` for
    /// an answer that is one, or should be.
    pub(super) path: String,
    /// What we say.
    pub(super) ours: String,
    /// What Core says.
    pub(super) core: String,
}

/// Returns where the answers differ.
pub(super) fn differences(ours: &Answer, core: &Answer) -> Vec<Difference> {
    let mut found = Vec::new();
    match (ours, core) {
        (Ok(ours), Ok(core)) => values("", ours, core, &mut found),
        _ if shown(ours) == shown(core) => {}
        _ => found.push(Difference { path: "error".into(), ours: shown(ours), core: shown(core) }),
    }
    found
}

/// An error as code and text; of a help text, which is the text of an error for a wrong number of
/// arguments, the first line: it names the parameters.
fn shown(answer: &Answer) -> String {
    match answer {
        Ok(value) => format!("no error: {}", short(&value.to_string())),
        Err(error) => {
            let text = error.message.lines().find(|line| !line.is_empty()).unwrap_or_default();
            let text = if error.code == -1 { text } else { &error.message };
            format!("{} {text}", error.code)
        }
    }
}

fn values(path: &str, ours: &Value, core: &Value, found: &mut Vec<Difference>) {
    match (ours, core) {
        (Value::Object(ours), Value::Object(core)) => {
            for name in ours.keys().chain(core.keys().filter(|name| !ours.contains_key(*name))) {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match (ours.get(name), core.get(name)) {
                    (Some(ours), Some(core)) => values(&below, ours, core, found),
                    (ours, core) => found.push(difference(&below, ours, core)),
                }
            }
        }
        (Value::Array(ours), Value::Array(core)) if ours.len() == core.len() => {
            for (ours, core) in ours.iter().zip(core) {
                values(&format!("{path}[]"), ours, core, found);
            }
        }
        // Numbers by their digits: both print amounts with eight decimals.
        _ if ours != core => {
            found.push(difference(path, Some(ours), Some(core)));
        }
        _ => {}
    }
}

fn difference(path: &str, ours: Option<&Value>, core: Option<&Value>) -> Difference {
    let text =
        |value: Option<&Value>| value.map_or("absent".into(), |value| short(&value.to_string()));
    Difference { path: path.to_owned(), ours: text(ours), core: text(core) }
}

/// Enough of a text to see what it is.
fn short(text: &str) -> String {
    text.chars().take(200).collect()
}
