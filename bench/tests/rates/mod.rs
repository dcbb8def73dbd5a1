//! Searches and sweeps against a broker in memory: every trial is told, and what was found until a broker dies is kept. What a trial
//! shows is the machine's to decide and asserted only where no mood of it can: which trials follow from which is tested on outcomes that are
//! made up, in `search/tests.rs`.

use serde_json::Value;

use super::bench;
use super::faulty_broker::{Fault, FaultyBroker};

struct Found {
    status: i32,
    text: String,
    json: Value,
    html: String,
}

fn tried(fault: Fault, what: &str, more: &[&str]) -> Found {
    let broker = FaultyBroker::start(fault);
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (
        folder.path().join("found.json"),
        folder.path().join("found.html"),
    );
    let file = format!("{}/workloads/produce-1000.toml", env!("CARGO_MANIFEST_DIR"));
    let address = broker.address.to_string();
    let mut arguments = vec![what, &file, "--bootstrap", &address];
    arguments.extend([
        "--json",
        json.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ]);
    for set in ["run.warmup_s=0", "run.duration_s=0.5", "run.drain_s=20"] {
        arguments.extend(["--set", set]);
    }
    arguments.extend(more);
    let output = bench(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let read =
        |path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{error}: {text}"));
    Found {
        status: output.status.code().unwrap(),
        json: serde_json::from_str(&read(&json)).unwrap(),
        html: read(&html),
        text,
    }
}

fn rates(found: &Found) -> Vec<u64> {
    let trials = found.json["trials"].as_array().unwrap().iter();
    trials
        .map(|trial| trial["rate"].as_f64().unwrap() as u64)
        .collect()
}

/// The answer, the list and the page tell of the same trials, whatever a busy machine made of them.
#[test]
fn a_search_tells_of_every_trial_and_why_it_counts_as_it_does() {
    let limits = [
        "--p99-ms",
        "30000",
        "--rate-max",
        "300",
        "--set",
        "producer.rate=100",
    ];
    let found = tried(Fault::None, "search", &limits);
    assert_eq!(rates(&found)[0], 100, "{}", found.text);
    let trials = found.json["trials"].as_array().unwrap();
    for trial in trials {
        assert_eq!(trial["held"], trial["limit"].is_null(), "{trial}");
        let why = trial["why"].as_str().unwrap();
        assert!(!why.is_empty() && found.text.contains(why), "{why}");
    }
    let held = trials.iter().filter(|trial| trial["held"] == true).count();
    assert_eq!(found.html.matches("✓ held").count(), held);
    let highest = found.json["highest"].as_f64();
    let ending = found.json["ending"].as_str().unwrap();
    assert_eq!(highest.is_none(), ending == "nothing", "{}", found.text);
    let settled = ["found", "ceiling"].contains(&ending);
    assert_eq!(found.status == 0, settled, "{}", found.text);
    if settled {
        let answer = format!("{:.0} records/s held with a p99", highest.unwrap());
        assert!(found.text.contains(&answer), "{}", found.text);
    }
}

#[test]
fn a_limit_that_nothing_meets_is_said() {
    let found = tried(
        Fault::None,
        "search",
        &["--p99-ms", "0.000001", "--set", "producer.rate=4"],
    );
    assert_eq!(found.status, 1, "{}", found.text);
    assert_eq!(rates(&found), [4, 2, 1]);
    assert_eq!(found.json["ending"], "nothing");
    assert!(found.text.contains("No rate held"), "{}", found.text);
}

#[test]
fn a_rate_that_the_generator_cannot_make_is_not_the_brokers() {
    let mut arguments = vec!["--rates", "200,20000000"];
    let sets = [
        "producer.record_bytes=16",
        "producer.in_flight=5",
        "producer.partitions_per_request=0",
        "producer.batch_bytes=500000",
        "producer.buffer_bytes=1000000000",
    ];
    for set in sets {
        arguments.extend(["--set", set]);
    }
    let found = tried(Fault::None, "sweep", &arguments);
    assert_eq!(found.status, 1, "{}", found.text);
    assert_eq!(rates(&found), [200, 20_000_000]);
    assert_eq!(
        found.json["trials"][1]["limit"], "generator",
        "{}",
        found.text
    );
    assert!(
        found.text.contains("the generator is the limit"),
        "{}",
        found.text
    );
    assert!(found.html.contains("the generator is the limit"));
}

#[test]
fn a_broker_that_dies_midway_leaves_the_trials_before() {
    // 50 records in the first trial cannot be more requests than that, and 5000 that carry one record each are more.
    let found = tried(
        Fault::Die { after: 120 },
        "sweep",
        &[
            "--rates",
            "100,10000,100",
            "--set",
            "producer.batch_bytes=1024",
        ],
    );
    assert_eq!(found.status, 1, "{}", found.text);
    assert_eq!(rates(&found), [100, 10_000]);
    let trials = &found.json["trials"];
    assert_eq!(trials[0]["outcome"]["complete"], true, "{}", found.text);
    assert_eq!(trials[1]["outcome"]["broken"], true);
    assert_eq!(trials[1]["held"], false);
    assert!(
        found.text.contains("a connection to the broker broke"),
        "{}",
        found.text
    );
    assert!(found.html.contains("What could not be done"));
}

#[test]
fn a_full_disk_leaves_the_answer_on_standard_output() {
    let broker = FaultyBroker::start(Fault::None);
    let file = format!("{}/workloads/produce-1000.toml", env!("CARGO_MANIFEST_DIR"));
    let address = broker.address.to_string();
    let short = ["--set", "run.warmup_s=0", "--set", "run.duration_s=0.3"];
    let arguments = [
        "sweep",
        &file,
        "--rates",
        "50",
        "--bootstrap",
        &address,
        "--html",
        "/dev/full",
    ];
    let full = bench(&[&arguments[..], &short[..]].concat());
    assert_eq!(full.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&full.stderr).contains("cannot write results to /dev/full"));
    assert!(String::from_utf8_lossy(&full.stdout).contains("| 50 | "));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let file = |name: &str| format!("{}/workloads/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let closed = bench(&["search", &file("throughput-1"), "--p99-ms", "5"]);
    assert_eq!(closed.status.code(), Some(2));
    let text = String::from_utf8_lossy(&closed.stderr).into_owned();
    assert!(text.contains("not \"max\""), "{text}");
    for wrong in ["-5", "nan", "0"] {
        let limit = format!("--p99-ms={wrong}");
        assert_eq!(
            bench(&["search", &file("produce-1000"), &limit])
                .status
                .code(),
            Some(2)
        );
    }
}
