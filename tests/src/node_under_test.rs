//! The `cofferdam` binary with every engine, built for the tests of this package.

fn main() -> std::process::ExitCode {
    cofferdam_node::run(std::env::args_os().skip(1))
}
