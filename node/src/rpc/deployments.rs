//! `getdeploymentinfo`: rule changes, and how far each is at a block.

use cofferdam_ibd::versionbits::{Deployment, DeploymentInfo};
use cofferdam_ibd::{Chainstate, HeaderRef, block_script_flags};
use serde_json::{Map, Value, json};

use super::blockchain::find;
use super::call::Args;
use super::{Context, RpcError, RpcResult};

pub(super) fn get_deployment_info(context: &Context, args: &Args) -> RpcResult {
    let hash = args.get(0).map(|_| args.hash(0)).transpose()?;
    context.chain.query(move |chain| {
        let at = match hash {
            Some(hash) => find(chain, &hash)?,
            None => chain.tip_ref(),
        };
        let entry = chain.headers().entry(at);
        let flags = block_script_flags(chain.params(), entry.height, &entry.hash);
        Ok::<_, RpcError>(json!({
            "hash": entry.hash.to_string(),
            "height": entry.height,
            "script_flags": flags.names(),
            "deployments": deployments(chain, at),
        }))
    })?
}

fn deployments(chain: &Chainstate, at: HeaderRef) -> Map<String, Value> {
    let params = chain.params();
    let next = chain.headers().entry(at).height + 1;
    let mut fields = Map::new();
    let buried = [
        ("bip34", params.bip34_height),
        ("bip66", params.bip66_height),
        ("bip65", params.bip65_height),
        ("csv", params.csv_height),
        ("segwit", params.segwit_height),
    ];
    for (name, height) in buried {
        let value = json!({"type": "buried", "active": next >= height, "height": height});
        fields.insert(name.to_owned(), value);
    }
    for deployment in &params.deployments {
        if deployment.start_time != Deployment::NEVER_ACTIVE {
            let info = chain.deployment_info(deployment, at);
            fields.insert(deployment.name.to_owned(), signalled(deployment, &info, next));
        }
    }
    fields
}

fn signalled(deployment: &Deployment, info: &DeploymentInfo, next: u32) -> Value {
    let mut bip9 = Map::new();
    let mut put = |name: &str, value: Value| bip9.insert(name.to_owned(), value);
    if info.statistics.is_some() {
        put("bit", json!(deployment.bit));
    }
    put("start_time", json!(deployment.start_time));
    put("timeout", json!(deployment.timeout));
    put("min_activation_height", json!(deployment.min_activation_height));
    put("status", json!(info.state.name()));
    put("since", json!(info.since));
    put("status_next", json!(info.next_state.name()));
    if let Some(statistics) = &info.statistics {
        let mut counts = json!({
            "period": statistics.period,
            "elapsed": statistics.signalling.len(),
            "count": statistics.count,
        });
        if let Some(counts) = counts.as_object_mut()
            && (statistics.threshold > 0 || statistics.possible)
        {
            counts.insert("threshold".into(), json!(statistics.threshold));
            counts.insert("possible".into(), json!(statistics.possible));
        }
        put("statistics", counts);
        let signals = statistics.signalling.iter();
        let line: String = signals.map(|signals| if *signals { '#' } else { '-' }).collect();
        put("signalling", json!(line));
    }
    let mut fields = Map::new();
    fields.insert("type".into(), json!("bip9"));
    if let Some(height) = info.active_since {
        fields.insert("height".into(), json!(height));
    }
    let active = info.active_since.is_some_and(|height| height <= next);
    fields.insert("active".into(), json!(active));
    fields.insert("bip9".into(), Value::Object(bip9));
    Value::Object(fields)
}
