//! `detect`: a quick look at what the damage and fault tests look at, for tests that break the
//! store on purpose and want to know whether it is noticed.

use super::{bit_flips, fault_calls};

/// Damages a log in every manner, and lets a sample of all calls fail, on one thread.
///
/// # Panics
///
/// If a promise is not kept.
pub(crate) fn detect() {
    bit_flips::detect();
    fault_calls::detect();
}

#[test]
fn nothing_is_found_where_nothing_is_broken() {
    let started = std::time::Instant::now();
    detect();
    println!("{:?}", started.elapsed());
}
