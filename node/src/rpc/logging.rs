//! The method `logging`: which debug lines are written.

use serde_json::{Map, Value};

use super::call::{Args, optional};
use super::{Context, Method, RpcError, RpcResult, code};
use crate::logging::Category;

pub(super) const METHODS: &[Method] = &[Method {
    name: "logging",
    params: &[optional("include"), optional("exclude")],
    run: logging,
}];

fn logging(context: &Context, args: &Args) -> RpcResult {
    let mut filter = context.log.filter();
    for (index, on) in [(0, true), (1, false)] {
        let names = args.get(index).and_then(Value::as_array);
        for name in names.into_iter().flatten() {
            let name = name.as_str().ok_or_else(|| {
                let kind = if name.is_number() { "number" } else { "value" };
                let message = format!("JSON value of type {kind} is not of expected type string");
                RpcError::new(code::TYPE_ERROR, message)
            })?;
            if !filter.set(name, on) {
                let message = format!("unknown logging category {name}");
                return Err(RpcError::new(code::INVALID_PARAMETER, message));
            }
        }
    }
    context.log.set_filter(filter.clone());
    let shown =
        |category: Category| (category.name().to_owned(), Value::from(filter.is_enabled(category)));
    Ok(Value::Object(Category::all().map(shown).collect::<Map<_, _>>()))
}
