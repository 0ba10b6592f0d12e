//! Methods about who may not connect.

use serde_json::{Value, json};

use super::call::{Args, optional, text};
use super::{Context, Method, RpcError, RpcResult, code};
use crate::p2p::{Subnet, seconds};

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "clearbanned",
        params: &[],
        run: |context, _| {
            context.peers.bans.clear();
            Ok(Value::Null)
        },
    },
    Method { name: "listbanned", params: &[], run: list_banned },
    Method {
        name: "setban",
        params: &[text("subnet"), text("command"), optional("bantime"), optional("absolute")],
        run: set_ban,
    },
];

fn set_ban(context: &Context, args: &Args) -> RpcResult {
    let (name, command) = (args.text(0)?, args.text(1)?);
    if !matches!(command, "add" | "remove") {
        return Err(RpcError::new(code::MISC_ERROR, super::call::help(args.method())));
    }
    let subnet = Subnet::parse(name).ok_or_else(|| {
        RpcError::new(code::CLIENT_INVALID_IP_OR_SUBNET, "Error: Invalid IP/Subnet")
    })?;
    let (bans, now) = (&context.peers.bans, seconds(context.clock.now()));
    if command == "remove" {
        if !bans.unban(&subnet, now) {
            let message =
                "Error: Unban failed. Requested address/subnet was not previously manually banned.";
            return Err(RpcError::new(code::CLIENT_INVALID_IP_OR_SUBNET, message));
        }
        return Ok(Value::Null);
    }
    // A single address is also banned by a range that it is in.
    let single = name.trim_matches(['[', ']']).parse().ok();
    let is_banned = match single {
        Some(ip) => bans.is_banned(ip, now),
        None => bans.is_range_banned(&subnet, now),
    };
    if is_banned {
        let message = "Error: IP/Subnet already banned";
        return Err(RpcError::new(code::CLIENT_NODE_ALREADY_ADDED, message));
    }
    let time = args.optional_integer(2)?.unwrap_or(0);
    let absolute = args.optional_flag(3)?.unwrap_or(false);
    if absolute && time < now {
        let message = "Error: Absolute timestamp is in the past";
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    let until = match (time, absolute) {
        (..=0, _) => now.saturating_add(context.peers.ban_seconds()),
        (until, true) => until,
        (time, false) => now.saturating_add(time),
    };
    bans.ban(subnet.clone(), until, now);
    context.peers.disconnect_range(&subnet);
    Ok(Value::Null)
}

fn list_banned(context: &Context, _: &Args) -> RpcResult {
    let now = seconds(context.clock.now());
    let bans = context.peers.bans.bans(now).into_iter().map(|(subnet, ban)| {
        json!({
            "address": subnet.to_string(),
            "ban_created": ban.created,
            "banned_until": ban.until,
            "ban_duration": ban.until.saturating_sub(ban.created),
            "time_remaining": ban.until.saturating_sub(now),
        })
    });
    Ok(bans.collect())
}
