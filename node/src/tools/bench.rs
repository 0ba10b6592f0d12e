//! `bench gen`: a chain to measure with, as block files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use bitcoin::consensus::Encodable as _;
use cofferdam_benches::generator::{BlockFiles, Plan, Profile, Summary, generate};

use super::table::line;
use crate::terminal;

/// What `bench gen` is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Generate {
    /// A folder, which is made.
    pub dir: PathBuf,
    /// `signed` or `growing`.
    pub profile: String,
    /// Full blocks.
    pub blocks: u32,
    /// The same seed makes the same chain.
    pub seed: u64,
}

/// Writes the chain, and what it is into `chain.json` beside it.
pub(crate) fn generate_chain(wanted: &Generate) -> Result<ExitCode> {
    let profile = match wanted.profile.as_str() {
        "growing" => Profile::Growing,
        _ => Profile::Signed,
    };
    let plan = Plan { seed: wanted.seed, profile, blocks: wanted.blocks };
    let dir = wanted.dir.display();
    let mut files =
        BlockFiles::create(&wanted.dir).with_context(|| format!("making block files in {dir}"))?;
    let (mut made, mut raw, mut tip) = (0_u64, Vec::new(), None);
    let summary = generate(plan, &mut |block| -> Result<()> {
        raw.clear();
        block.consensus_encode(&mut raw)?;
        made += 1;
        if made.is_multiple_of(100) {
            terminal::print_line(&format!("block {made}"));
        }
        tip = Some(block.block_hash());
        files.append(&raw).with_context(|| format!("writing block {made} to {dir}"))
    })?;
    files.finish().with_context(|| format!("ending the block files in {dir}"))?;
    let tip = tip.map(|hash| hash.to_string()).unwrap_or_default();
    describe(&wanted.dir, &tip, summary)?;
    Ok(ExitCode::SUCCESS)
}

fn describe(dir: &Path, tip: &str, summary: Summary) -> Result<()> {
    let rows = [
        ("blocks", u64::from(summary.blocks)),
        ("full_height", u64::from(summary.full_height)),
        ("bytes", summary.bytes),
        ("transactions", summary.transactions),
        ("inputs", summary.inputs),
        ("outputs", summary.outputs),
        ("unspent", summary.unspent),
    ];
    let mut fields = serde_json::Map::new();
    fields.insert("tip".to_owned(), tip.into());
    for (name, value) in rows {
        terminal::print(&line(name, value));
        fields.insert(name.to_owned(), value.into());
    }
    terminal::print(&line("tip", tip));
    let path = dir.join("chain.json");
    let text = format!("{:#}\n", serde_json::Value::Object(fields));
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
