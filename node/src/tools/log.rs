//! `wal inspect`, `wal verify`, `wal dump`.

use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use bitcoin::hex::DisplayHex as _;
use cofferdam_ibd::TREES;
use cofferdam_storage::{
    Damage, DatabaseState, LogRecord, LogRecords, LogReport, Op, ReadOnlyFileSystem, SegmentEnd,
    SegmentReport, Tip, TreeOps, Verdict, inspect_log,
};

use super::place::{Place, Spared, open_engine, read_state};
use super::table::{align, line};
use crate::terminal;

/// `wal inspect`: the segments. Asks no engine.
pub(crate) fn inspect(place: &Place) -> Result<ExitCode> {
    let report = look(place, None)?;
    terminal::print(&heading(&report));
    terminal::print(&segments(&report));
    terminal::print(&verdict(&report));
    Ok(ExitCode::SUCCESS)
}

/// `wal verify`: whether an opening would succeed; the exit code says it too.
pub(crate) fn verify(place: &Place) -> Result<ExitCode> {
    let engine = ask_engine(place);
    let state = if let Engine::Asked(state) = &engine { Some(state) } else { None };
    let report = look(place, state)?;
    terminal::print(&line("log", report.dir.display()));
    terminal::print(&line("database", engine.describe()));
    terminal::print(&verdict(&report));
    let is_bad = matches!(engine, Engine::Bad(_)) || matches!(report.verdict, Verdict::Corrupt(_));
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// `wal dump`: a line for each record.
pub(crate) fn dump(place: &Place) -> Result<ExitCode> {
    terminal::print_line(&record_line(
        ["LSN", "durable", "segment", "offset", "bytes"].map(str::to_owned),
        "what, and put/put_new/delete of each tree",
    ));
    for record in records(place, 0)? {
        terminal::print_line(&describe(&record?));
    }
    terminal::print(&verdict(&look(place, None)?));
    Ok(ExitCode::SUCCESS)
}

/// `wal dump` of one record: its writes with keys and values.
pub(crate) fn dump_one(place: &Place, lsn: u64) -> Result<ExitCode> {
    let record = records(place, lsn)?.next().transpose()?.filter(|record| record.lsn == lsn);
    let Some(record) = record else {
        bail!("record {lsn} is not in {}", place.log.display());
    };
    terminal::print(&line("record", record.lsn));
    terminal::print(&line("durable", record.durable_lsn));
    terminal::print(&line("at", format!("segment {}, offset {}", record.segment, record.offset)));
    terminal::print(&line("payload", format!("{} bytes", record.payload_bytes)));
    if let Some((tip, previous)) = record.block {
        terminal::print(&line("tip", tip_text(&tip)));
        terminal::print(&line("previous", BlockHash::from_byte_array(previous)));
    }
    terminal::print(&line("writes", record.batch.len()));
    for op in record.batch.ops() {
        let tree = tree_name(op.tree_id());
        let key = op.key().to_lower_hex_string();
        let value = op.value().unwrap_or_default().to_lower_hex_string();
        let kind = match op {
            Op::Put { .. } => "put",
            Op::PutNew { .. } => "put_new",
            Op::Delete { .. } => "delete",
        };
        terminal::print_line(format!("{kind:<8}{tree} {key} {value}").trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks at a log.
pub(crate) fn look(place: &Place, state: Option<&DatabaseState>) -> Result<LogReport> {
    inspect_log(&ReadOnlyFileSystem, &place.log, state)
        .with_context(|| format!("reading the log {}", place.log.display()))
}

fn records(place: &Place, from_lsn: u64) -> Result<LogRecords<'static>> {
    LogRecords::open(&ReadOnlyFileSystem, &place.log, from_lsn)
        .with_context(|| format!("reading the log {}", place.log.display()))
}

/// What is known of the engine.
enum Engine {
    Asked(DatabaseState),
    /// There is none beside the log, or it is left alone: why.
    NotAsked(anyhow::Error),
    /// It is gone, damaged, or no node could open it: why.
    Bad(anyhow::Error),
}

impl Engine {
    fn describe(&self) -> String {
        match self {
            Self::Asked(state) => position(state),
            Self::NotAsked(why) => format!("not asked ({why:#}): by the log alone"),
            Self::Bad(why) => format!("cannot be opened: {why:#}"),
        }
    }
}

/// How far the engine is, or why that is not known.
fn ask_engine(place: &Place) -> Engine {
    let ask = || {
        let Some((kind, dir)) = place.engine()? else {
            return Ok(Engine::NotAsked(anyhow!("there is none")));
        };
        if look(place, None)?.in_use {
            return Ok(Engine::NotAsked(Spared::InUse.into()));
        }
        read_state(&*open_engine(kind, &dir)?).map(Engine::Asked)
    };
    ask().unwrap_or_else(
        |why: anyhow::Error| {
            if why.is::<Spared>() { Engine::NotAsked(why) } else { Engine::Bad(why) }
        },
    )
}

/// How far an engine is, in words.
fn position(state: &DatabaseState) -> String {
    let DatabaseState { applied_lsn, writing_lsn, tip } = state;
    let parts = if writing_lsn > applied_lsn {
        format!(", and parts of those up to {writing_lsn}")
    } else {
        String::new()
    };
    let tip = tip.as_ref().map_or_else(|| "no tip".to_owned(), tip_text);
    format!("holds all batches up to {applied_lsn}{parts}; {tip}")
}

/// Height and hash as people know them.
pub(crate) fn tip_text(tip: &Tip) -> String {
    format!("height {} {}", tip.height, BlockHash::from_byte_array(tip.hash))
}

fn heading(report: &LogReport) -> String {
    let yes_or_no = if report.in_use { "yes" } else { "no" };
    let marker = report.marker.map_or_else(
        || "none".to_owned(),
        |lsn| format!("clean shutdown, all batches up to {lsn} are in the database"),
    );
    let mut text = line("log", report.dir.display());
    text.push_str(&line("in use", yes_or_no));
    text.push_str(&line("marker", marker));
    if !report.temporary.is_empty() {
        text.push_str(&line("unfinished", report.temporary.join(" ")));
    }
    text.push_str(&line("segments", report.segments.len()));
    text
}

fn segments(report: &LogReport) -> String {
    let names = [
        "number",
        "version",
        "base LSN",
        "last LSN",
        "records",
        "heights",
        "file bytes",
        "record bytes",
        "durable LSN",
        "generation",
        "ends",
    ];
    let mut rows = vec![names.map(str::to_owned)];
    rows.extend(report.segments.iter().map(segment_row));
    align(&rows)
}

fn segment_row(segment: &SegmentReport) -> [String; 11] {
    let from_head = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
    let head = segment.head;
    let heights = segment.heights;
    [
        segment.number.to_string(),
        from_head(head.map(|head| head.version.to_string())),
        from_head(head.map(|head| head.base_lsn.to_string())),
        segment.last_lsn.to_string(),
        segment.records.to_string(),
        heights.map_or_else(|| "-".to_owned(), |(first, last)| format!("{first}..{last}")),
        segment.file_bytes.to_string(),
        segment.record_bytes.to_string(),
        segment.durable_lsn.to_string(),
        from_head(head.map(|head| format!("{:016x}", head.generation))),
        match &segment.end {
            SegmentEnd::Clean => "clean".to_owned(),
            SegmentEnd::Sealed { ignored_bytes: 0 } => "sealed".to_owned(),
            SegmentEnd::Sealed { ignored_bytes } => format!("sealed, {ignored_bytes} bytes behind"),
            SegmentEnd::Torn(tail) => format!("torn at {}", tail.offset),
            SegmentEnd::Corrupt(damage) => format!("CORRUPT at {}", damage.offset),
            SegmentEnd::LeftOver => "left over".to_owned(),
        },
    ]
}

/// Whether the log is whole, in words.
pub(crate) fn verdict(report: &LogReport) -> String {
    let LogReport { end_lsn, durable_lsn, .. } = report;
    match &report.verdict {
        Verdict::Valid => {
            let needs = report.database_lsn_min();
            format!(
                "valid: ends with record {end_lsn}, all up to {durable_lsn} known to be durable, \
                 needs a database that holds all up to {needs}\n"
            )
        }
        Verdict::Torn(tail) => {
            let or_written = if report.in_use { ", or is being written now" } else { "" };
            format!(
                "valid, with a torn tail: the next opening cuts off {} bytes at offset {} of \
                 segment {} ({} record headers in them) and goes on after record {end_lsn}{or_written}\n",
                tail.torn.bytes, tail.offset, tail.segment, tail.torn.records
            )
        }
        Verdict::Corrupt(damage) => corrupt(damage),
    }
}

fn corrupt(damage: &Damage) -> String {
    let expected = damage.lsn.map_or_else(String::new, |lsn| format!(", record {lsn} expected"));
    format!(
        "corrupt: {}: bad from offset {} on{expected}: {}\n",
        damage.path.display(),
        damage.offset,
        damage.what
    )
}

fn describe(record: &LogRecord) -> String {
    let LogRecord { lsn, durable_lsn, segment, offset, payload_bytes, .. } = record;
    let numbers = [lsn, durable_lsn, segment, offset, payload_bytes].map(u64::to_string);
    let mut what = match &record.block {
        Some((tip, _)) => tip_text(tip),
        None => "plain".to_owned(),
    };
    for TreeOps { tree_id, puts, put_news, deletes } in record.ops_by_tree() {
        what.push_str(&format!(", {} {puts}/{put_news}/{deletes}", tree_name(tree_id)));
    }
    record_line(numbers, &what)
}

fn record_line([lsn, durable, segment, offset, bytes]: [String; 5], what: &str) -> String {
    format!("{lsn:>10}  {durable:>10}  {segment:>7}  {offset:>10}  {bytes:>9}  {what}")
}

fn tree_name(id: u8) -> String {
    let tree = TREES.iter().find(|tree| tree.id == id);
    tree.map_or_else(|| format!("tree-{id}"), |tree| tree.name.to_owned())
}
