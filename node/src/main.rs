//! The program `cofferdam`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cofferdam_node::run(std::env::args_os().skip(1))
}
