//! The program `cofferdam`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cofferdam_node::run(std::env::args_os().skip(1))
}

/// Takes the place of `RandomInit` in Bitcoin Core's kernel library (`random.cpp`).
///
/// A static object of the library (`btck_context_static` in `kernel/bitcoinkernel.cpp`) calls it
/// before `main`, and it hashes for 100 ms to strengthen the seed of a generator of secrets: nine
/// tenths of the time that `cofferdam -version` takes, and of a restart until the first answer. We use
/// the library to verify scripts, which draws no secret; whoever drew one all the same would seed
/// the generator by that, strengthened (`ProcRand`).
// SAFETY: nothing else has this name, which the linker makes up for the option that `build.rs` gives
// it, and it is called as what it replaces: without arguments, for no result.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the linker has to find it by its name; 100 ms of each start")]
#[unsafe(no_mangle)]
extern "C" fn __wrap__Z10RandomInitv() {}
