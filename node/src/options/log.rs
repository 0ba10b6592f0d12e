//! Options of `debug.log`.

use super::Rule::{DebugOnly, NeedsValue, NoNegation};
use super::{OptionSpec, option};

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "debug",
        "category",
        "Write the debug lines of this category, or of all: 1 or all. May be repeated",
        &[],
    ),
    option(
        "debugexclude",
        "category",
        "Leave out the debug lines of this category, whatever -debug says. May be repeated",
        &[],
    ),
    option(
        "debuglogfile",
        "file",
        "The log, relative to the directory of the network; -nodebuglogfile: none (default: debug.log)",
        &[],
    ),
    option("logips", "", "Write addresses of peers and callers into the log (default: 0)", &[]),
    option(
        "loglevel",
        "level>|<category>:<level",
        "Detail of the debug lines, of all categories or of one: info, debug or trace (default: debug). May be repeated",
        &[NoNegation, NeedsValue, DebugOnly],
    ),
    option("loglevelalways", "", "Begin every line with its category and level (default: 0)", &[]),
    option(
        "logratelimit",
        "",
        "Limit what one place of the code may write an hour without -debug (default: 1)",
        &[],
    ),
    option(
        "logsourcelocations",
        "",
        "Begin every line with the place in the source (default: 0)",
        &[],
    ),
    option("logthreadnames", "", "Begin every line with the thread's name (default: 0)", &[]),
    option("logtimemicros", "", "Times with microseconds (default: 0)", &[DebugOnly]),
    option("logtimestamps", "", "Begin every line with the time (default: 1)", &[]),
    option(
        "printtoconsole",
        "",
        "Write the log to the standard output as well (default: 1 unless -daemon)",
        &[],
    ),
    option(
        "shrinkdebugfile",
        "",
        "Cut the log to its last 10 MB when it is longer at the start (default: 1 without -debug)",
        &[],
    ),
];
