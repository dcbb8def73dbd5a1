//! Proves of `ringlog-bench coordinator`, on a broker in memory: what it counts is what the broker was asked, it keeps to the protocols of
//! groups and transactions, repeats what a loading coordinator puts off, and says what was refused.

use std::process::Command;

use crate::faulty_broker::{Fault, FaultyBroker};
use serde_json::Value;

struct Run {
    broker: FaultyBroker,
    status: i32,
    text: String,
    json: Value,
}

impl Run {
    fn figure(&self, name: &str) -> f64 {
        let figure = &self.json["runs"][0]["outcome"]["figures"][name];
        figure
            .as_f64()
            .unwrap_or_else(|| panic!("{name}: {}", self.text))
    }
}

fn run(fault: Fault, arguments: &[&str]) -> Run {
    let broker = FaultyBroker::start(fault);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("result.json");
    let output = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"))
        .arg("coordinator")
        .args(arguments)
        .args(["--bootstrap", &broker.address.to_string(), "--json"])
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let json = std::fs::read_to_string(&file).unwrap_or_default();
    Run {
        broker,
        status: output.status.code().unwrap(),
        json: serde_json::from_str(&json).unwrap_or_default(),
        text,
    }
}

#[test]
fn commits_are_counted_and_each_committer_has_its_group() {
    let short = ["--warmup-s", "0", "--duration-s", "1"];
    let own = run(
        Fault::None,
        &[&["commits", "--committers", "5"][..], &short].concat(),
    );
    assert_eq!(own.status, 0, "{}", own.text);
    let (groups, commits) = own.broker.coordinator().look(|kept| {
        let groups: Vec<String> = kept.offsets.keys().map(|key| key.0.clone()).collect();
        (groups, kept.commits)
    });
    assert_eq!(groups.len(), 5);
    assert!(groups.windows(2).all(|pair| pair[0] != pair[1]));
    // What is answered after the window does not count: one commit of each at most.
    let counted = own.figure("commits_per_s") as u64;
    assert!(counted > 0 && (commits - 5..=commits).contains(&counted));
    assert!(own.figure("commit_p99_ms") >= own.figure("commit_p50_ms"));
    assert!(own.text.contains("closed loop"));

    let one = run(
        Fault::None,
        &[&["commits", "--committers", "5", "--one-group"][..], &short].concat(),
    );
    assert_eq!(one.status, 0, "{}", one.text);
    one.broker.coordinator().look(|kept| {
        let groups: Vec<&String> = kept.offsets.keys().map(|key| &key.0).collect();
        assert!(groups.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(groups.len(), 5, "each its partition");
    });
}

#[test]
fn a_refused_commit_is_an_error_and_no_commit() {
    let arguments = ["commits", "--committers", "2", "--warmup-s", "0"];
    let run = run(
        Fault::Refuse,
        &[&arguments[..], &["--duration-s", "1"]].concat(),
    );
    assert_eq!(run.status, 1, "{}", run.text);
    assert!(
        run.text.contains("GROUP_AUTHORIZATION_FAILED"),
        "{}",
        run.text
    );
    let asked = run.broker.coordinator().look(|kept| kept.commits) as f64;
    assert!(run.figure("commits_per_s") <= asked * 2.0 / 3.0 + 1.0);
}

#[test]
fn a_group_assembles_and_leaves() {
    let arguments = ["members", "--members", "40", "--groups", "2"];
    let run = run(Fault::None, &arguments);
    assert_eq!(run.status, 0, "{}", run.text);
    // Once without an id, once with it, and again for each generation that did not have everybody.
    assert!(run.figure("joins_per_member") >= 2.0);
    assert!(run.figure("stable_s") > 0.0 && run.figure("leave_s") > 0.0);
    assert_eq!(run.broker.coordinator().members(), 0, "all have left");
}

#[test]
fn transactions_add_their_partitions_and_are_committed() {
    let arguments = ["transactions", "--pairs", "2", "--warmup-s", "0"];
    let more = ["--duration-s", "1", "--transaction-ms", "50"];
    let run = run(Fault::None, &[&arguments[..], &more].concat());
    assert_eq!(run.status, 0, "{}", run.text);
    let transactions = run.broker.coordinator().look(|kept| kept.transactions);
    // Two runs of a second with transactions of at least 50 ms.
    assert!((1..=42).contains(&transactions), "{transactions}");
    assert!(run.figure("transactions_per_s") <= 21.0);
    assert!(run.figure("transactional_mb_per_s") > 0.0);
    assert!(run.figure("idempotent_mb_per_s") > 0.0);
    assert_eq!(run.figure("sent_again"), 0.0);
}

#[test]
fn every_offset_is_committed_though_the_coordinator_is_loading() {
    let arguments = ["million", "--groups", "30", "--partitions", "7"];
    let run = run(Fault::Loading, &arguments);
    assert_eq!(run.status, 0, "{}", run.text);
    run.broker.coordinator().look(|kept| {
        assert_eq!(kept.offsets.len(), 30 * 7);
        assert!(kept.commits > 30, "some were put off");
    });
    assert_eq!(run.figure("offsets"), 210.0);
}

#[test]
fn a_commit_that_is_refused_for_good_ends_a_bulk_load() {
    let run = run(
        Fault::Refuse,
        &["million", "--groups", "30", "--partitions", "1"],
    );
    assert_eq!(run.status, 2, "{}", run.text);
    assert!(
        run.text.contains("GROUP_AUTHORIZATION_FAILED"),
        "{}",
        run.text
    );
}

#[test]
fn memory_needs_a_process_and_a_restart_a_command() {
    let idle = run(Fault::None, &["idle"]);
    assert_eq!(idle.status, 2);
    assert!(idle.text.contains("--pid"), "{}", idle.text);
    let restart = run(Fault::None, &["million", "--restart"]);
    assert_eq!(restart.status, 2);
    assert!(restart.text.contains("--peer"), "{}", restart.text);
}
