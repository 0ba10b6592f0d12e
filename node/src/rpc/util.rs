//! Fee estimates: there are none, and this is how a node says so.

use serde_json::{Value, json};

use super::call::{Args, json as required, optional, optional_text};
use super::{Context, Method, RpcError, RpcResult, code};

/// Longest confirmation target (Core's `HighestTargetTracked` of the long horizon).
const TARGET_MAX: i32 = 1008;

/// Longest targets of the three horizons, with decay and scale.
const HORIZONS: [(&str, i32, f64, u32); 3] =
    [("short", 12, 0.962, 1), ("medium", 48, 0.9952, 2), ("long", TARGET_MAX, 0.99931, 24)];

const NO_DATA: &str = "Insufficient data or no feerate found";

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "estimaterawfee",
        params: &[required("conf_target"), optional("threshold")],
        run: estimate_raw_fee,
    },
    Method {
        name: "estimatesmartfee",
        params: &[required("conf_target"), optional_text("estimate_mode")],
        run: estimate_smart_fee,
    },
];

fn target(args: &Args) -> Result<i32, RpcError> {
    let target = args.integer(0)?;
    if (1..=TARGET_MAX).contains(&target) {
        return Ok(target);
    }
    let message = format!("Invalid conf_target, must be between 1 and {TARGET_MAX}");
    Err(RpcError::new(code::INVALID_PARAMETER, message))
}

fn estimate_smart_fee(_: &Context, args: &Args) -> RpcResult {
    target(args)?;
    let mode = args.optional_text(1)?.unwrap_or("economical").to_lowercase();
    if !["unset", "economical", "conservative"].contains(&mode.as_str()) {
        let message = "Invalid estimate_mode parameter, must be one of: \"unset\", \"economical\", \"conservative\"";
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    // Without data Core answers for no block at all.
    Ok(json!({"errors": [NO_DATA], "blocks": 0}))
}

fn estimate_raw_fee(_: &Context, args: &Args) -> RpcResult {
    let target = target(args)?;
    if let Some(threshold) = args.get(1) {
        let threshold: f64 = threshold.to_string().parse().unwrap_or(-1.0);
        if !(0.0..=1.0).contains(&threshold) {
            return Err(RpcError::new(code::INVALID_PARAMETER, "Invalid threshold"));
        }
    }
    let fail = json!({
        "startrange": 0, "endrange": 0, "withintarget": 0, "totalconfirmed": 0,
        "inmempool": 0, "leftmempool": 0,
    });
    let horizons = HORIZONS.iter().filter(|(_, longest, ..)| target <= *longest);
    let horizons = horizons.map(|(name, _, decay, scale)| {
        let text = "Insufficient data or no feerate found which meets threshold";
        let estimate = json!({"decay": decay, "scale": scale, "fail": fail, "errors": [text]});
        ((*name).to_owned(), estimate)
    });
    Ok(Value::Object(horizons.collect()))
}
