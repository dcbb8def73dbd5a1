//! The README's tables of configuration and metrics are what the program prints, and the command line answers as people expect.

use std::process::{Command, Output};

fn ringlog(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringlog"))
        .args(arguments)
        .output()
        .expect("runs")
}

/// Compares what `ringlog <command>` prints with what the README has between two marks.
fn readme_has(command: &str, what: &str) {
    let readme = include_str!("../../README.md");
    let start = format!("<!-- {what}: printed by `ringlog {command}`, kept equal by a test -->\n");
    let end = format!("<!-- end of {what} -->");
    let (_, rest) = readme.split_once(&start).expect("the start of the tables");
    let (tables, _) = rest.split_once(&end).expect("the end of the tables");
    let printed = String::from_utf8(ringlog(&[command]).stdout).expect("text");
    assert_eq!(
        tables.trim(),
        printed.trim(),
        "put what `ringlog {command}` prints into README.md"
    );
}

#[test]
fn the_readme_has_the_tables() {
    readme_has("config", "configuration");
    readme_has("metrics", "metrics");
}

#[test]
fn wrong_values_end_the_start_with_key_value_and_choice() {
    let output = ringlog(&["start", "--override", "log.cleanup.policy=shred"]);
    let reason = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    for part in ["log.cleanup.policy", "`shred`", "delete, compact"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn help_and_version_are_there() {
    let version = ringlog(&["--version"]);
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("ringlog "));
    let help = String::from_utf8_lossy(&ringlog(&["start", "--help"]).stdout).into_owned();
    for option in ["--config", "--override", "--log-format"] {
        assert!(help.contains(option), "{help}");
    }
}
