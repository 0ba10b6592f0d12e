//! The method `logging`: which debug lines are written.

use serde_json::{Map, Value};

use super::call::{Args, not_of_type, optional};
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
            let name = name.as_str().ok_or_else(|| not_of_type(name, "string"))?;
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
