//! Methods about the node itself.

use serde_json::{Value, json};

use super::call::{Args, Param, help, json as required, optional, optional_text};
use super::{CATEGORIES, Context, Method, RpcError, RpcResult, code};
use crate::monitor::lock;

const HELP_PARAMS: &[Param] = &[optional_text("command")];

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "getsyncstatus",
        params: &[],
        help: "Returns progress, rates and bottleneck of the sync, cache and log: what `cofferdam status` shows.",
        run: |context, _| Ok(lock(&context.seen).now.to_json()),
    },
    Method {
        name: "getrpcinfo",
        params: &[],
        help: "Returns details of the RPC server.",
        run: |context, _| {
            let path = context.log_path.clone().unwrap_or_default();
            Ok(json!({"active_commands": [], "logpath": path.display().to_string()}))
        },
    },
    Method {
        name: "help",
        params: HELP_PARAMS,
        help: "Lists all commands, or gets help for a specified command.",
        run: get_help,
    },
    Method {
        name: "setmocktime",
        params: &[required("timestamp")],
        help: "Sets the local time to given timestamp (-regtest only); 0 goes back to the system time.",
        run: set_mock_time,
    },
    Method {
        name: "stop",
        params: &[optional("wait")],
        help: "Requests a graceful shutdown.",
        run: |context, _| {
            context.shutdown.request();
            Ok(json!("Cofferdam stopping"))
        },
    },
    Method {
        name: "uptime",
        params: &[],
        help: "Returns the total uptime of the server in seconds.",
        run: |context, _| Ok(json!(context.started.elapsed().as_secs())),
    },
];

fn get_help(_: &Context, args: &Args) -> RpcResult {
    if let Some(name) = args.optional_text(0)?.filter(|name| !name.is_empty()) {
        return Ok(match super::method(name) {
            Some(method) => json!(help(method).trim_end()),
            None => json!(format!("help: unknown command: {name}")),
        });
    }
    let mut text = String::new();
    for (category, methods) in CATEGORIES {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("== {category} ==\n"));
        for method in *methods {
            text.push_str(help(method).lines().next().unwrap_or_default());
            text.push('\n');
        }
    }
    Ok(json!(text.trim_end()))
}

fn set_mock_time(context: &Context, args: &Args) -> RpcResult {
    if context.chain.params().network != cofferdam_ibd::Network::Regtest {
        let message = "setmocktime is for regression testing (-regtest mode) only";
        return Err(RpcError::new(code::MISC_ERROR, message));
    }
    let time = args.integer(0)?;
    let time = u32::try_from(time).map_err(|_| {
        let message = format!("Mocktime must be in the range [0, {}], not {time}.", u32::MAX);
        RpcError::new(code::INVALID_PARAMETER, message)
    })?;
    context.clock.set_mock(time);
    // Whether the chain is still being downloaded depends on the time.
    context.chain.query(|_| ())?;
    Ok(Value::Null)
}
