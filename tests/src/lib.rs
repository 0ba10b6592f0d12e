//! Fixtures for questions that cross Cofferdam's crates: real chains with their known states, a
//! chainstate over any backend, scripts to verify, and nodes as processes.

pub mod browser;
pub mod chain;
pub mod core_chain;
pub mod daemon;
pub mod data;
pub mod json_rpc;
pub mod process;
pub mod rpc_docs;
pub mod scripts;
