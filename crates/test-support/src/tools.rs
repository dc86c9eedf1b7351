//! Outside tools, where they are installed.

use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Whether a tool can be run; says aloud that the test is left out where not, which CI forbids.
pub fn has_tool(test: &str, tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        left_out(test, &format!("{tool} is not installed"));
    }
    found
}

/// Whether programs can be traced; as [`has_tool`] where not.
pub fn may_trace(test: &str) -> bool {
    if !has_tool(test, "strace") {
        return false;
    }
    let traced = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .status();
    let may = traced.is_ok_and(|status| status.success());
    if !may {
        left_out(test, "strace may not trace here");
    }
    may
}

pub fn left_out(test: &str, why: &str) {
    let message = format!("{test}: {why}");
    assert_ne!(
        std::env::var("CI").as_deref(),
        Ok("true"),
        "left out: {message}"
    );
    say_left_out(&message);
}

/// Says what is left out, aloud.
pub fn say_left_out(what: &str) {
    // Not by a macro, whose output the harness keeps to itself where a test passes.
    let _ = writeln!(std::io::stderr(), "left out: {what}");
}

/// Runs a tool in a folder.
pub fn run(folder: &Path, tool: &str, arguments: &[&str]) {
    let output = Command::new(tool)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {errors}");
}
