//! The README's configuration tables are what `ringlog config` prints, and the command line answers as people expect.

use std::process::{Command, Output};

fn ringlog(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringlog"))
        .args(arguments)
        .output()
        .expect("runs")
}

#[test]
fn the_readme_has_the_tables() {
    let readme = include_str!("../../README.md");
    let start = "<!-- configuration: printed by `ringlog config`, kept equal by a test -->\n";
    let end = "<!-- end of configuration -->";
    let (_, rest) = readme.split_once(start).expect("the start of the tables");
    let (tables, _) = rest.split_once(end).expect("the end of the tables");
    let printed = String::from_utf8(ringlog(&["config"]).stdout).expect("text");
    assert_eq!(
        tables.trim(),
        printed.trim(),
        "put what `ringlog config` prints into README.md"
    );
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
