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

/// A file with what Kafka 4 comes with in its own.
const KAFKAS: &str = "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
    listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
    advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\ncontroller.listener.names=CONTROLLER\n\
    listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
    num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\nlog.dirs=/nowhere/kraft-combined-logs\n\
    num.recovery.threads.per.data.dir=2\nshare.coordinator.state.topic.min.isr=1\ntransaction.state.log.min.isr=1\n";

/// What `config --check` says of a file and some overrides, and its exit status.
fn checked(file: &str, overrides: &[&str]) -> (String, Option<i32>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("server.properties");
    std::fs::write(&path, file).expect("writes");
    let mut arguments = vec!["config", "--check", path.to_str().expect("text")];
    for pair in overrides {
        arguments.extend(["--override", pair]);
    }
    let output = ringlog(&arguments);
    let text = String::from_utf8(output.stdout).expect("text");
    (text, output.status.code())
}

#[test]
fn a_file_is_checked_without_a_start() {
    let (text, status) = checked(KAFKAS, &[]);
    assert_eq!(status, Some(0), "{text}");
    for line in [
        "clients are told to connect to:\n  PLAINTEXT://localhost:9092\n",
        "not opened, because there are no other controllers:\n  CONTROLLER://:9093\n",
        "\n  num.network.threads, num.io.threads: one thread a core",
        "not offered, so without effect:\n  share.coordinator.state.topic.min.isr: share groups",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("unknown"), "{text}");
    assert!(!std::path::Path::new("/nowhere").exists());

    let (text, status) = checked(KAFKAS, &["num.partition=3"]);
    assert_eq!(status, Some(3));
    assert!(
        text.ends_with("unknown, so ignored:\n  num.partition\n"),
        "{text}"
    );

    let (text, status) = checked(KAFKAS, &["shards=many", "compression.type=zstd"]);
    assert_eq!(status, Some(1));
    assert!(
        text.contains("`shards` cannot be `many`: it must be a whole number, 0 or more"),
        "{text}"
    );
    assert!(
        text.contains("`compression.type` cannot be `zstd`: only `producer`"),
        "{text}"
    );

    let missing = ringlog(&["config", "--check", "/nowhere/server.properties"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot read"));
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
