//! Tools to prove a backend, or a user of this crate, correct (feature `testing`).
//!
//! - [`conformance`]: every clause of the [`Database`](crate::Database) contract, for any backend.
//! - [`SimFileSystem`]: a file system in memory that crashes, tears, forgets and fails on demand.
//! - [`CrashPoints`]: every state in which a crash can leave a recorded run on it.
//! - [`SimDatabase`]: a database on a file system, which keeps its contract and nothing more.
//! - [`Model`]: what any database must look like after given batches.
//! - [`Random`]: reproducible random numbers.
//! - [`fuzz`]: what a fuzzer calls.
//! - [`effort`]: how much of an enumeration to walk through.

pub mod conformance;
mod crash_points;
mod crash_survival;
mod effort;
pub mod fuzz;
mod model;
mod random;
mod sim_database;
mod sim_disk;
mod sim_file_system;

pub use self::crash_points::{CrashPoint, CrashPoints, Recording};
pub use self::crash_survival::{Limits, Survival};
pub use self::effort::{Effort, effort};
pub use self::model::{Model, assert_same};
pub use self::random::Random;
pub use self::sim_database::SimDatabase;
pub use self::sim_disk::{CallFault, CrashModel, Fault};
pub use self::sim_file_system::SimFileSystem;
