//! Methods about the node itself.

use std::time::Duration;

use serde_json::{Value, json};

use super::call::{Args, Param, hidden, json as required, optional_any, optional_text, text};
use super::{Context, Method, RpcError, RpcResult, code, help};
use crate::monitor::lock;

/// How long `stop` may be told to wait.
const STOP_WAIT_MAX: Duration = Duration::from_secs(60);

const ECHO_PARAMS: &[Param] = &[
    optional_any("arg0"),
    optional_any("arg1"),
    optional_any("arg2"),
    optional_any("arg3"),
    optional_any("arg4"),
    optional_any("arg5"),
    optional_any("arg6"),
    optional_any("arg7"),
    optional_any("arg8"),
    optional_any("arg9"),
];

pub(super) const METHODS: &[Method] = &[
    Method { name: "echo", params: ECHO_PARAMS, run: echo },
    Method { name: "echoipc", params: &[text("arg")], run: |_, args| Ok(json!(args.text(0)?)) },
    Method { name: "echojson", params: ECHO_PARAMS, run: echo },
    Method { name: "getmemoryinfo", params: &[optional_text("mode")], run: get_memory_info },
    Method {
        name: "getsyncstatus",
        params: &[],
        run: |context, _| Ok(lock(&context.seen).now.to_json()),
    },
    Method {
        name: "getrpcinfo",
        params: &[],
        run: |context, _| {
            let path = context.log_path.clone().unwrap_or_default();
            let logpath = path.display().to_string();
            Ok(json!({"active_commands": context.calls.list(), "logpath": logpath}))
        },
    },
    Method { name: "help", params: &[optional_text("command")], run: get_help },
    Method { name: "mockscheduler", params: &[required("delta_time")], run: mock_scheduler },
    Method { name: "setmocktime", params: &[required("timestamp")], run: set_mock_time },
    Method { name: "stop", params: &[hidden("wait")], run: stop },
    Method {
        name: "uptime",
        params: &[],
        run: |context, _| Ok(json!(context.started.elapsed().as_secs())),
    },
];

fn get_help(_: &Context, args: &Args) -> RpcResult {
    match args.optional_text(0)?.filter(|name| !name.is_empty()) {
        None => Ok(json!(help::list())),
        // As in Core: for tests that compare a client's table with the node's.
        Some("dump_all_command_conversions") => Ok(help::conversions()),
        Some(name) => Ok(match super::method(name) {
            Some(method) => json!(help::help(method)),
            None => json!(format!("help: unknown command: {name}")),
        }),
    }
}

fn stop(context: &Context, args: &Args) -> RpcResult {
    let wait =
        args.optional_integer::<i32>(0)?.and_then(|wait| wait.try_into().ok()).unwrap_or_default();
    context.shutdown.request();
    std::thread::sleep(Duration::from_millis(wait).min(STOP_WAIT_MAX));
    Ok(json!("Cofferdam stopping"))
}

fn echo(_: &Context, args: &Args) -> RpcResult {
    if args.get(9).and_then(Value::as_str) == Some("trigger_internal_bug") {
        let text = "Internal bug detected: request.params[9].get_str() != \"trigger_internal_bug\"";
        return Err(RpcError::new(code::MISC_ERROR, text));
    }
    Ok(Value::Array(args.values().to_vec()))
}

fn get_memory_info(_: &Context, args: &Args) -> RpcResult {
    match args.optional_text(0)?.unwrap_or("stats") {
        // There is no wallet, and so no memory that must not be swapped out.
        "stats" => Ok(json!({"locked": {
            "used": 0, "free": 0, "total": 0, "locked": 0, "chunks_used": 0, "chunks_free": 0,
        }})),
        "mallocinfo" => {
            Err(RpcError::new(code::INVALID_PARAMETER, "mallocinfo mode not available"))
        }
        mode => Err(RpcError::new(code::INVALID_PARAMETER, format!("unknown mode {mode}"))),
    }
}

fn mock_scheduler(context: &Context, args: &Args) -> RpcResult {
    if context.chain.params().network != cofferdam_ibd::Network::Regtest {
        let message = "mockscheduler is for regression testing (-regtest mode) only";
        return Err(RpcError::new(code::MISC_ERROR, message));
    }
    if !(1..=3600).contains(&args.integer::<i64>(0)?) {
        let message = "delta_time must be between 1 and 3600 seconds (1 hr)";
        return Err(RpcError::new(code::MISC_ERROR, message));
    }
    // What a scheduler would do late, this node does at once.
    context.chain.query(|_| ())?;
    Ok(Value::Null)
}

fn set_mock_time(context: &Context, args: &Args) -> RpcResult {
    if context.chain.params().network != cofferdam_ibd::Network::Regtest {
        let message = "setmocktime is for regression testing (-regtest mode) only";
        return Err(RpcError::new(code::MISC_ERROR, message));
    }
    let time: i64 = args.integer(0)?;
    let time = u32::try_from(time).map_err(|_| {
        let message = format!("Mocktime must be in the range [0, {}], not {time}.", u32::MAX);
        RpcError::new(code::INVALID_PARAMETER, message)
    })?;
    context.clock.set_mock(time);
    // Whether the chain is still being downloaded depends on the time.
    context.chain.query(|_| ())?;
    Ok(Value::Null)
}
