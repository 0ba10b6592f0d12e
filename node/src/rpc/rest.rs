//! REST: public data without a password, as Bitcoin Core serves it under `/rest/`.
//!
//! A path and a format in, a reply out; the data are those of the JSON-RPC methods, so that both
//! ways say the same.

use std::fmt::Display;
use std::str::FromStr;

use bitcoin::BlockHash;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash as _;
use bitcoin::hex::{DisplayHex as _, FromHex as _};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode, Uri};
use serde_json::{Value, json};

use super::http::HttpResponse;
use super::stored_block::NOT_ON_DISK;
use super::{RpcError, RpcResult, WarmUp, execute};
use super::{query, rest_coins};

/// Most headers of one reply.
const HEADERS_MAX: usize = 2000;

/// Headers of a reply that does not ask for a number.
const HEADERS_DEFAULT: &str = "5";

const FORMATS: &str = "output format not found (available: .bin, .hex, .json)";
const ONLY_JSON: &str = "output format not found (available: json)";

/// What is wrong with a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    status: StatusCode,
    text: String,
}

impl Fault {
    /// The request cannot be understood.
    pub(super) fn bad(text: impl Display) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.to_string() }
    }

    /// What is asked for is not there.
    pub(super) fn missing(text: impl Display) -> Self {
        Self { status: StatusCode::NOT_FOUND, text: text.to_string() }
    }
}

impl From<RpcError> for Fault {
    fn from(error: RpcError) -> Self {
        if error.code == super::code::IN_WARMUP {
            let text = format!("Service temporarily unavailable: {}", error.message);
            return Self { status: StatusCode::SERVICE_UNAVAILABLE, text };
        }
        Self::bad(error.message)
    }
}

/// A reply's data.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Data {
    /// An object or an array.
    Json(Value),
    /// Bytes, sent as they are or in digits.
    Bytes(Vec<u8>),
    /// A text.
    Text(String),
}

/// How the data are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// As bytes.
    Bin,
    /// In hexadecimal digits.
    Hex,
    /// As JSON.
    Json,
    /// Not named, or not known.
    None,
}

/// A request: what is asked for, and in which format.
pub(super) struct Asked<'a> {
    /// The methods.
    pub(super) warm_up: &'a WarmUp,
    /// The rest of the path, format and query cut off.
    pub(super) path: &'a str,
    /// The format.
    pub(super) format: Format,
    query: Vec<(String, String)>,
    /// What was sent.
    pub(super) body: &'a [u8],
}

impl Asked<'_> {
    /// Calls a method.
    pub(super) fn call(&self, method: &str, params: Value) -> RpcResult {
        execute(self.warm_up, method, params)
    }

    fn parts(&self) -> Vec<&str> {
        self.path.split('/').collect()
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

type Handler = fn(&Asked<'_>) -> Result<Data, Fault>;

/// Longer prefixes come before those they begin with.
const HANDLERS: &[(&str, Handler)] = &[
    ("/rest/tx/", transaction),
    ("/rest/block/notxdetails/", |asked| block(asked, 1)),
    ("/rest/block/", |asked| block(asked, 3)),
    ("/rest/blockpart/", block_part),
    ("/rest/blockfilter/", block_filter),
    ("/rest/blockfilterheaders/", block_filter_headers),
    ("/rest/chaininfo", chain_info),
    ("/rest/mempool/", mempool),
    ("/rest/headers/", headers),
    ("/rest/getutxos", rest_coins::utxos),
    ("/rest/deploymentinfo/", deployments),
    ("/rest/deploymentinfo", deployments),
    ("/rest/blockhashbyheight/", block_hash_by_height),
    ("/rest/spenttxouts/", rest_coins::spent),
];

/// Answers a request below `/rest/`.
pub(super) fn answer(warm_up: &WarmUp, uri: &Uri, body: &[u8]) -> HttpResponse {
    let found = HANDLERS
        .iter()
        .find_map(|(prefix, run)| uri.path().strip_prefix(prefix).map(|rest| (*run, rest)));
    let Some((run, rest)) = found else {
        return reply(StatusCode::NOT_FOUND, None, Vec::new());
    };
    let (path, format) = split_format(rest);
    let query = uri.query().map(query::pairs).unwrap_or_default();
    let asked = Asked { warm_up, path, format, query, body };
    let done = warm_up.context().map_err(Fault::from).and_then(|_| run(&asked));
    match done.and_then(|data| write(data, format)) {
        Ok((kind, bytes)) => reply(StatusCode::OK, Some(kind), bytes),
        Err(fault) => {
            reply(fault.status, Some("text/plain"), format!("{}\r\n", fault.text).into_bytes())
        }
    }
}

fn split_format(path: &str) -> (&str, Format) {
    match path.rsplit_once('.') {
        Some((path, "bin")) => (path, Format::Bin),
        Some((path, "hex")) => (path, Format::Hex),
        Some((path, "json")) => (path, Format::Json),
        Some((path, "")) => (path, Format::None),
        _ => (path, Format::None),
    }
}

fn write(data: Data, format: Format) -> Result<(&'static str, Vec<u8>), Fault> {
    match (data, format) {
        (Data::Json(value), Format::Json) => {
            Ok(("application/json", format!("{value}\n").into_bytes()))
        }
        (Data::Bytes(bytes), Format::Bin) => Ok(("application/octet-stream", bytes)),
        (Data::Bytes(bytes), Format::Hex) => {
            Ok(("text/plain", format!("{}\n", bytes.to_lower_hex_string()).into_bytes()))
        }
        (Data::Text(text), _) => Ok(("text/plain", format!("{text}\n").into_bytes())),
        _ => Err(Fault::missing(FORMATS)),
    }
}

fn reply(status: StatusCode, kind: Option<&'static str>, bytes: Vec<u8>) -> HttpResponse {
    let mut response = Response::new(Bytes::from(bytes).into());
    *response.status_mut() = status;
    if let Some(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

/// Returns a hash as it was written, if it is one.
pub(super) fn hash(text: &str) -> Result<BlockHash, Fault> {
    let is_hash = text.len() == 64;
    let parsed = text.parse().ok().filter(|_| is_hash);
    parsed.ok_or_else(|| Fault::bad(format_args!("Invalid hash: {text}")))
}

/// Returns a field of an object; null if it is not there.
fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

/// Returns the bytes of a method's hexadecimal digits.
fn bytes(value: &Value) -> Result<Vec<u8>, Fault> {
    let digits = value.as_str().unwrap_or_default();
    Vec::from_hex(digits).map_err(|error| Fault {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        text: error.to_string(),
    })
}

/// Returns the fault of a block that cannot be had: the words of the method, for the hash asked for.
pub(super) fn no_block(text: &str, error: &RpcError) -> Fault {
    match error.message.split_once("Block not available") {
        Some((_, why)) => Fault::missing(format_args!("{text} not available{why}")),
        None if error.code == super::code::INVALID_ADDRESS_OR_KEY => {
            Fault::missing(format_args!("{text} not found"))
        }
        None if error.message == NOT_ON_DISK => Fault {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            text: format!("I/O error reading {text}"),
        },
        None => Fault::from(error.clone()),
    }
}

fn transaction(asked: &Asked<'_>) -> Result<Data, Fault> {
    let txid = hash(asked.path)?.to_string();
    let verbosity = i32::from(asked.format == Format::Json);
    let found = asked.call("getrawtransaction", json!([txid, verbosity]));
    let mut found = found.map_err(|_| Fault::missing(format_args!("{txid} not found")))?;
    if let Some(fields) = found.as_object_mut() {
        // Core says less here, and the bytes last.
        for name in ["confirmations", "time", "blocktime"] {
            fields.shift_remove(name);
        }
        if let Some(bytes) = fields.shift_remove("hex") {
            fields.insert("hex".into(), bytes);
        }
    }
    if asked.format == Format::Json {
        Ok(Data::Json(found))
    } else {
        Ok(Data::Bytes(bytes(&found)?))
    }
}

fn block(asked: &Asked<'_>, verbosity: i32) -> Result<Data, Fault> {
    let text = asked.path;
    let hash = hash(text)?.to_string();
    let verbosity = if asked.format == Format::Json { verbosity } else { 0 };
    let found = asked.call("getblock", json!([hash, verbosity]));
    let found = found.map_err(|error| no_block(text, &error))?;
    if verbosity > 0 { Ok(Data::Json(found)) } else { Ok(Data::Bytes(bytes(&found)?)) }
}

fn block_part(asked: &Asked<'_>) -> Result<Data, Fault> {
    let number = |name: &str| {
        let value = asked.query(name).and_then(whole::<usize>);
        value.ok_or_else(|| Fault::bad(format_args!("Block part {name} missing or invalid")))
    };
    let (offset, size) = (number("offset")?, number("size")?);
    let text = asked.path;
    let found = asked.call("getblock", json!([hash(text)?.to_string(), 0]));
    let block = bytes(&found.map_err(|error| no_block(text, &error))?)?;
    let part = offset.checked_add(size).filter(|_| size > 0).and_then(|end| block.get(offset..end));
    let part = part.ok_or_else(|| {
        Fault::bad(format_args!("Bad block part offset/size {offset}/{size} for {text}"))
    })?;
    if asked.format == Format::Json {
        return Err(Fault::bad("JSON output is not supported for this request type"));
    }
    Ok(Data::Bytes(part.to_vec()))
}

/// Returns the hashes that follow one in the connected chain, itself included; none if it is not
/// part of it.
fn chain_from(asked: &Asked<'_>, count: usize, first: BlockHash) -> Result<Vec<Value>, Fault> {
    let mut found = Vec::new();
    let mut next = Some(first.to_string());
    while let Some(hash) = next.take().filter(|_| found.len() < count) {
        // Not known: as not connected.
        let Ok(header) = asked.call("getblockheader", json!([hash])) else { break };
        if field(&header, "confirmations").as_i64().is_none_or(|confirmations| confirmations < 1) {
            break;
        }
        next = field(&header, "nextblockhash").as_str().map(str::to_owned);
        found.push(header);
    }
    Ok(found)
}

/// Reads a number; Core takes no sign before one, not even a plus.
fn whole<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

fn count(text: &str) -> Result<usize, Fault> {
    let count = whole(text).filter(|count| (1..=HEADERS_MAX).contains(count));
    count.ok_or_else(|| {
        Fault::bad(format_args!(
            "Header count is invalid or out of acceptable range (1-{HEADERS_MAX}): {text}"
        ))
    })
}

fn headers(asked: &Asked<'_>) -> Result<Data, Fault> {
    let (number, text) = match asked.parts().as_slice() {
        [number, hash] => (*number, *hash),
        [hash] => (asked.query("count").unwrap_or(HEADERS_DEFAULT), *hash),
        _ => {
            return Err(Fault::bad(
                "Invalid URI format. Expected /rest/headers/<hash>.<ext>?count=<count>",
            ));
        }
    };
    let count = count(number)?;
    let found = chain_from(asked, count, hash(text)?)?;
    if asked.format == Format::Json {
        return Ok(Data::Json(Value::Array(found)));
    }
    let mut all = Vec::new();
    for header in found {
        all.extend(bytes(&asked.call("getblockheader", json!([field(&header, "hash"), false]))?)?);
    }
    Ok(Data::Bytes(all))
}

fn block_filter(asked: &Asked<'_>) -> Result<Data, Fault> {
    let parts = asked.parts();
    let [kind, text] = parts.as_slice() else {
        return Err(Fault::bad(
            "Invalid URI format. Expected /rest/blockfilter/<filtertype>/<blockhash>",
        ));
    };
    let block = hash(text)?;
    let found = filter(asked, kind, text, &block.to_string())?;
    if asked.format == Format::Json {
        return Ok(Data::Json(json!({"filter": field(&found, "filter")})));
    }
    // Type, block, and the filter with its length.
    let mut all = vec![0];
    all.extend(block.to_byte_array());
    all.extend(serialize(&bytes(field(&found, "filter"))?));
    Ok(Data::Bytes(all))
}

fn block_filter_headers(asked: &Asked<'_>) -> Result<Data, Fault> {
    let parts = asked.parts();
    let (kind, number, text) = match parts.as_slice() {
        [kind, number, hash] => (*kind, *number, *hash),
        [kind, hash] => (*kind, asked.query("count").unwrap_or(HEADERS_DEFAULT), *hash),
        _ => {
            return Err(Fault::bad(
                "Invalid URI format. Expected /rest/blockfilterheaders/<filtertype>/<blockhash>.<ext>?count=<count>",
            ));
        }
    };
    let count = count(number)?;
    let first = hash(text)?;
    check_filter_type(asked, kind, &first.to_string())?;
    let mut found = Vec::new();
    for header in chain_from(asked, count, first)? {
        let hash = field(&header, "hash").as_str().unwrap_or_default();
        found.push(field(&filter(asked, kind, hash, hash)?, "header").clone());
    }
    if asked.format == Format::Json {
        return Ok(Data::Json(Value::Array(found)));
    }
    let mut all = Vec::new();
    for header in &found {
        let mut header = bytes(header)?;
        header.reverse();
        all.extend(header);
    }
    Ok(Data::Bytes(all))
}

/// Complains of a filter that the node does not keep, whatever the block.
fn check_filter_type(asked: &Asked<'_>, kind: &str, block: &str) -> Result<(), Fault> {
    match filter(asked, kind, block, block) {
        Err(fault) if fault.status == StatusCode::BAD_REQUEST => Err(fault),
        _ => Ok(()),
    }
}

fn filter(asked: &Asked<'_>, kind: &str, text: &str, block: &str) -> RpcResultOrFault {
    asked.call("getblockfilter", json!([block, kind])).map_err(|error| {
        match error.message.as_str() {
            "Unknown filtertype" => Fault::bad(format_args!("Unknown filtertype {kind}")),
            "Block not found" => Fault::missing(format_args!("{text} not found")),
            message if message.starts_with("Index is not enabled") => Fault::bad(message),
            "Method not found" => {
                Fault::bad(format_args!("Index is not enabled for filtertype {kind}"))
            }
            message => Fault::missing(message),
        }
    })
}

type RpcResultOrFault = Result<Value, Fault>;

fn chain_info(asked: &Asked<'_>) -> Result<Data, Fault> {
    only_json(asked)?;
    Ok(Data::Json(asked.call("getblockchaininfo", json!([]))?))
}

fn deployments(asked: &Asked<'_>) -> Result<Data, Fault> {
    only_json(asked)?;
    let params =
        if asked.path.is_empty() { json!([]) } else { json!([hash(asked.path)?.to_string()]) };
    Ok(Data::Json(asked.call("getdeploymentinfo", params)?))
}

fn mempool(asked: &Asked<'_>) -> Result<Data, Fault> {
    let flag = |name: &str, default: &'static str| match asked.query(name).unwrap_or(default) {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Fault::bad(format_args!(
            "The \"{name}\" query parameter must be either \"true\" or \"false\"."
        ))),
    };
    match asked.path {
        "info" => {
            only_json(asked)?;
            Ok(Data::Json(asked.call("getmempoolinfo", json!([]))?))
        }
        "contents" => {
            only_json(asked)?;
            let (verbose, sequence) =
                (flag("verbose", "true")?, flag("mempool_sequence", "false")?);
            if verbose && sequence {
                return Err(Fault::bad(
                    "Verbose results cannot contain mempool sequence values. (hint: set \"verbose=false\")",
                ));
            }
            Ok(Data::Json(asked.call("getrawmempool", json!([verbose, sequence]))?))
        }
        _ => Err(Fault::bad("Invalid URI format. Expected /rest/mempool/<info|contents>.json")),
    }
}

fn only_json(asked: &Asked<'_>) -> Result<(), Fault> {
    if asked.format == Format::Json { Ok(()) } else { Err(Fault::missing(ONLY_JSON)) }
}

fn block_hash_by_height(asked: &Asked<'_>) -> Result<Data, Fault> {
    let height = whole::<u32>(asked.path).filter(|height| i32::try_from(*height).is_ok());
    let height =
        height.ok_or_else(|| Fault::bad(format_args!("Invalid height: {}", asked.path)))?;
    let found = asked.call("getblockhash", json!([height]));
    let found = found.map_err(|error| Fault::missing(error.message))?;
    let text = found.as_str().unwrap_or_default().to_owned();
    match asked.format {
        Format::Json => Ok(Data::Json(json!({"blockhash": text}))),
        Format::Bin => Ok(Data::Bytes(hash(&text)?.to_byte_array().to_vec())),
        Format::Hex => Ok(Data::Text(text)),
        Format::None => Err(Fault::missing(FORMATS)),
    }
}
