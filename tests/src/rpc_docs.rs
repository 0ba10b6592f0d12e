//! What a method's help says of its result, read, and answers checked against it: Bitcoin Core's
//! `RPCResult::MatchesType`, over the text instead of the tables behind it.

use serde_json::Value;

/// A value as the help describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Doc {
    Null,
    Text,
    Number,
    Flag,
    /// Elements, each as one of these. If open, others are described elsewhere.
    Array {
        elements: Vec<Self>,
        open: bool,
    },
    /// Fields. If open, others are described elsewhere.
    Object {
        fields: Vec<Field>,
        open: bool,
    },
    /// Fields of any name, all alike.
    Map(Box<Self>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Field {
    name: String,
    is_optional: bool,
    doc: Doc,
}

/// The results that a help names, each for a condition of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResultDocs(Vec<Doc>);

/// A line of a description without its indentation and its final comma, and what is said of it.
type Row<'a> = (&'a str, &'a str);

impl ResultDocs {
    /// Reads the result sections of a help text.
    ///
    /// # Errors
    ///
    /// Returns the line that is not of Core's form.
    pub fn read(help: &str) -> Result<Self, String> {
        let mut docs = Vec::new();
        let mut lines = help.lines();
        while let Some(line) = lines.next() {
            if !(line.starts_with("Result") && line.ends_with(':')) {
                continue;
            }
            let rows: Vec<&str> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            // The first line has both columns.
            let pad = rows.first().and_then(|row| column(row)).unwrap_or(usize::MAX);
            let is_more = |row: &&&str| row.len() - row.trim_start().len() < pad;
            let mut rows = rows.iter().filter(is_more).map(|row| parts(row)).peekable();
            docs.push(value(&mut rows)?.1);
            if let Some(row) = rows.next() {
                return Err(format!("more than one value: {row:?}"));
            }
        }
        if docs.is_empty() { Err("no result".into()) } else { Ok(Self(docs)) }
    }

    /// Checks an answer: it has to be as one of the sections says.
    ///
    /// # Errors
    ///
    /// Returns what is not as said, by section.
    pub fn check(&self, answer: &Value) -> Result<(), String> {
        let mut complaints = Vec::new();
        for doc in &self.0 {
            let mut found = Vec::new();
            doc.check("", answer, &mut found);
            if found.is_empty() {
                return Ok(());
            }
            complaints.push(found.join("; "));
        }
        Err(complaints.join("\n    or "))
    }
}

impl Doc {
    fn check(&self, path: &str, answer: &Value, found: &mut Vec<String>) {
        match (self, answer) {
            (Self::Null, Value::Null)
            | (Self::Text, Value::String(_))
            | (Self::Number, Value::Number(_))
            | (Self::Flag, Value::Bool(_)) => {}
            (Self::Array { elements, open }, Value::Array(values)) => {
                let path = format!("{path}[]");
                for value in values.iter().filter(|_| !open) {
                    let complaints = elements.iter().map(|doc| {
                        let mut found = Vec::new();
                        doc.check(&path, value, &mut found);
                        found
                    });
                    // Of those that do not fit the one that fits best.
                    found.extend(complaints.min_by_key(Vec::len).into_iter().flatten());
                }
            }
            (Self::Map(doc), Value::Object(values)) => {
                for value in values.values() {
                    doc.check(&format!("{path}.*"), value, found);
                }
            }
            (Self::Object { fields, open }, Value::Object(values)) => {
                for field in fields {
                    let below = format!("{path}.{}", field.name);
                    match values.get(&field.name) {
                        Some(value) => field.doc.check(&below, value, found),
                        None if field.is_optional => {}
                        None => found.push(format!("{below} is missing")),
                    }
                }
                let is_known = |name: &String| fields.iter().any(|field| field.name == *name);
                for name in values.keys().filter(|name| !open && !is_known(name)) {
                    found.push(format!("{path}.{name} is not described"));
                }
            }
            _ => found.push(format!("{path} is {answer:.80}, described as {self:?}")),
        }
    }
}

/// Where the right column begins, if a line has one: four spaces or more part them.
fn column(row: &str) -> Option<usize> {
    let begin = row.len() - row.trim_start().len();
    let gap = begin + row[begin..].find("    ")?;
    Some(gap + row[gap..].len() - row[gap..].trim_start().len())
}

fn parts(row: &str) -> Row<'_> {
    let (left, right) = column(row).map_or((row, ""), |column| row.split_at(column));
    (left.trim().trim_end_matches(','), right)
}

/// Reads a value; returns its name too, if it is a field.
fn value<'a>(
    rows: &mut std::iter::Peekable<impl Iterator<Item = Row<'a>>>,
) -> Result<(Option<Field>, Doc), String> {
    let (left, right) = rows.next().ok_or("ends in the middle")?;
    let (name, kind) = match left.split_once("\" : ") {
        Some((name, kind)) => (name.strip_prefix('"'), kind),
        None => (None, left),
    };
    let doc = match kind {
        "null" => Doc::Null,
        "\"str\"" | "\"hex\"" => Doc::Text,
        "n" | "xxx" => Doc::Number,
        "true|false" => Doc::Flag,
        "{}" => Doc::Object { fields: Vec::new(), open: false },
        "[" => array(rows)?,
        "{" => object(rows)?,
        _ => return Err(format!("not a value: {left:?} {right:?}")),
    };
    let about = right.split(')').next().unwrap_or_default();
    let is_optional = about.ends_with(", optional");
    let field = name.map(|name| Field { name: name.to_owned(), is_optional, doc: doc.clone() });
    Ok((field, doc))
}

fn array<'a>(rows: &mut std::iter::Peekable<impl Iterator<Item = Row<'a>>>) -> Result<Doc, String> {
    let (mut elements, mut open) = (Vec::new(), false);
    loop {
        match rows.peek().ok_or("an array without end")? {
            ("]", _) => {
                let _ = rows.next();
                return Ok(Doc::Array { elements, open });
            }
            ("...", about) => {
                open |= !about.is_empty();
                let _ = rows.next();
            }
            _ => elements.push(value(rows)?.1),
        }
    }
}

fn object<'a>(
    rows: &mut std::iter::Peekable<impl Iterator<Item = Row<'a>>>,
) -> Result<Doc, String> {
    let (mut fields, mut open, mut is_map) = (Vec::new(), false, false);
    loop {
        match rows.peek().ok_or("an object without end")? {
            ("}", _) => {
                let _ = rows.next();
                break;
            }
            ("...", about) => {
                // Without a field before it, it stands for fields described elsewhere.
                is_map = about.is_empty() && !fields.is_empty();
                open = !is_map;
                let _ = rows.next();
            }
            row => {
                let row = format!("{row:?}");
                fields.push(value(rows)?.0.ok_or_else(|| format!("no field: {row}"))?);
            }
        }
    }
    match fields.first() {
        // The first stands for all, as in Core.
        Some(field) if is_map => Ok(Doc::Map(Box::new(field.doc.clone()))),
        _ => Ok(Doc::Object { fields, open }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HELP: &str = "method

Result (for one):
\"hex\"    (string) A text

Result (for two):
{                          (json object)
  \"a\" : n,                 (numeric) A number,
                           which goes on
  \"b\" : [                  (json array, optional)
    {                      (json object)
      \"name\" : true|false,    (boolean)
      ...
    },
    ...
  ],
  \"c\" : {                  (json object, optional)
    ...                    as elsewhere
  }
}

Examples:
> method
";

    #[test]
    fn an_answer_is_as_described_or_what_is_not_is_named() {
        let docs = ResultDocs::read(HELP).unwrap();
        for answer in [
            json!("00"),
            json!({"a": 1}),
            json!({"a": 1, "b": []}),
            json!({"a": 1, "b": [{}, {"x": true, "y": false}], "c": {"any": "thing"}}),
        ] {
            assert_eq!(docs.check(&answer), Ok(()), "{answer}");
        }
        for (answer, part) in [
            (json!(1), "or  is 1"),
            (json!({}), ".a is missing"),
            (json!({"a": 1, "d": 2}), ".d is not described"),
            (json!({"a": "1"}), ".a is \"1\""),
            (json!({"a": 1, "b": [{"x": 1}]}), ".b[].* is 1"),
        ] {
            let complaint = docs.check(&answer).unwrap_err();
            assert!(complaint.contains(part), "{answer}: {complaint}");
        }
    }

    #[test]
    fn a_text_that_is_not_of_the_form_is_refused() {
        for text in ["method", "Result:\nhex    (string)\n", "Result:\n[    (json array)\n  n,\n"] {
            assert!(ResultDocs::read(text).is_err(), "{text}");
        }
    }
}
