//! Proves on a broker that misbehaves on purpose: a stall shows in the latency of every record that was due in it, each kind of
//! damage fails `--verify` by its name, and a broker that dies or refuses leaves a partial result that says so.

mod coordinator;
mod faulty_broker;
mod rates;

use std::process::{Command, Output};
use std::time::Duration;

use faulty_broker::{Fault, FaultyBroker};
use serde_json::Value;

struct Run {
    status: i32,
    text: String,
    json: Value,
    html: String,
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringlog-bench"))
        .args(arguments)
        .output()
        .unwrap()
}

fn run(fault: Fault, workload: &str, more: &[&str]) -> Run {
    let broker = FaultyBroker::start(fault);
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (
        folder.path().join("result.json"),
        folder.path().join("result.html"),
    );
    let file = format!("{}/workloads/{workload}.toml", env!("CARGO_MANIFEST_DIR"));
    let address = broker.address.to_string();
    let mut arguments = vec![
        "run",
        &file,
        "--quiet",
        "--bootstrap",
        &address,
        "--json",
        json.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ];
    for set in ["run.warmup_s=0", "run.duration_s=2", "run.drain_s=3"] {
        arguments.extend(["--set", set]);
    }
    arguments.extend(more);
    let output = bench(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let json = std::fs::read_to_string(&json).unwrap_or_else(|error| panic!("{error}: {text}"));
    let json = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {text}"));
    let html = std::fs::read_to_string(&html).unwrap_or_else(|error| panic!("{error}: {text}"));
    Run {
        html,
        status: output.status.code().unwrap(),
        text,
        json,
    }
}

#[test]
fn a_sound_broker_passes() {
    for workload in ["produce-1000", "end-to-end-2000", "many-readers"] {
        let run = run(Fault::None, workload, &["--verify"]);
        assert_eq!(run.status, 0, "{}", run.text);
        assert_eq!(run.json["complete"], true);
        assert_eq!(
            run.json["verdict"]["seen"],
            run.json["producer"]["records_acknowledged"]
        );
        assert_eq!(run.json["producer"]["closed_loop"], false);
        let seconds = run.json["producer"]["series"].as_array().unwrap();
        assert_eq!(seconds.len(), 2, "one for each second: {seconds:?}");
        assert!(run.html.contains("Verified") && run.html.contains("latency by percentile"));
    }
}

#[test]
fn sizes_that_vary_arrive_whole() {
    let run = run(Fault::None, "mixed-sizes", &["--verify"]);
    assert_eq!(run.status, 0, "{}", run.text);
    let producer = &run.json["producer"];
    assert_eq!(
        run.json["verdict"]["seen"],
        producer["records_acknowledged"]
    );
    // The mix has a mean of 2310 bytes; a hundredth of the records makes two fifths of it.
    let mean = producer["bytes"].as_f64().unwrap() / producer["records"].as_f64().unwrap();
    assert!((1500.0..3300.0).contains(&mean), "{mean}");
    assert_eq!(run.json["workload"]["producer"]["record_bytes"], 2310);
}

#[test]
fn a_stall_is_in_the_latency_of_everything_due_in_it() {
    let fault = Fault::Stall {
        after: Duration::from_millis(500),
        pause: Duration::from_millis(800),
    };
    let run = run(fault, "produce-1000", &[]);
    assert_eq!(run.status, 0, "{}", run.text);
    let latency = &run.json["producer"]["latency"];
    // Of 2000 records 800 fell due while the broker stood still: by intended send time their latencies spread evenly up to 800 ms.
    // A generator that waited for its answers would have had one slow request.
    assert!(latency["p90_ms"].as_f64().unwrap() > 450.0, "{latency}");
    assert!(latency["max_ms"].as_f64().unwrap() > 750.0, "{latency}");
    assert_eq!(latency["count"], 2000);
}

#[test]
fn damage_is_named() {
    let cases = [
        (Fault::Lose, "lost"),
        (Fault::Double, "duplicated"),
        (Fault::Swap, "reordered"),
        (Fault::Corrupt, "corrupted"),
    ];
    for (fault, name) in cases {
        for workload in ["produce-1000", "end-to-end-2000"] {
            let run = run(fault, workload, &["--verify"]);
            assert_eq!(run.status, 1, "{fault:?} {workload}: {}", run.text);
            assert!(
                run.json["verdict"][name].as_u64().unwrap() > 0,
                "{fault:?} {workload}: {}",
                run.text
            );
            assert_eq!(run.json["complete"], false);
        }
    }
}

#[test]
fn a_batch_that_does_not_fit_its_crc_is_noticed_without_verify() {
    let run = run(Fault::Damage, "end-to-end-2000", &[]);
    assert_eq!(run.status, 1, "{}", run.text);
    assert_eq!(
        run.json["consumer"]["damaged_batches"], 4,
        "one in each partition: {}",
        run.text
    );
}

#[test]
fn a_broker_that_dies_leaves_a_partial_result() {
    let run = run(Fault::Die { after: 200 }, "produce-1000", &[]);
    assert_eq!(run.status, 1, "{}", run.text);
    assert_eq!(run.json["complete"], false);
    assert!(
        run.json["producer"]["records_acknowledged"]
            .as_u64()
            .unwrap()
            >= 200
    );
    assert!(
        run.text.contains("a connection to the broker broke"),
        "{}",
        run.text
    );
    assert_eq!(run.json["broken"], true);
    assert!(
        run.html.contains("Incomplete") && run.html.contains("a connection to the broker broke")
    );
}

#[test]
fn refusals_are_counted_by_name() {
    let run = run(Fault::Refuse, "produce-1000", &[]);
    assert_eq!(run.status, 1, "{}", run.text);
    assert!(
        run.json["producer"]["errors"]["KAFKA_STORAGE_ERROR"]
            .as_u64()
            .unwrap()
            > 1000,
        "{}",
        run.text
    );
}

#[test]
fn what_cannot_be_done_is_said() {
    let file = format!("{}/workloads/produce-1000.toml", env!("CARGO_MANIFEST_DIR"));
    // Nobody listens on a port that was just given back.
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let unreachable = bench(&["run", &file, "--bootstrap", &free.to_string()]);
    assert_eq!(unreachable.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&unreachable.stderr)
            .contains("cannot reach a broker at 127.0.0.1:")
    );
    let broker = FaultyBroker::start(Fault::None);
    let address = broker.address.to_string();
    let fixed = [
        "--bootstrap",
        &address,
        "--quiet",
        "--set",
        "topic.name=fixed",
        "--set",
        "run.duration_s=0.2",
        "--set",
        "run.warmup_s=0",
    ];
    let first = bench(&[&["run", &file, "--keep-topics"], &fixed[..]].concat());
    assert_eq!(
        first.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    let shape = bench(&[&["run", &file, "--set", "topic.partitions=3"], &fixed[..]].concat());
    assert_eq!(shape.status.code(), Some(2));
    let text = String::from_utf8_lossy(&shape.stderr).into_owned();
    assert!(
        text.contains("topic fixed already exists with 4 partitions"),
        "{text}"
    );
    // A full disk: what was measured is on standard output all the same.
    for kind in ["--json", "--html"] {
        let full = bench(&[&["run", &file, kind, "/dev/full"], &fixed[..]].concat());
        assert_eq!(full.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&full.stderr).contains("cannot write results"));
        assert!(String::from_utf8_lossy(&full.stdout).contains("from intended time"));
    }
    let nowhere = bench(&[&["run", &file, "--json", "/nowhere/x.json"], &fixed[..]].concat());
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(
        nowhere.stdout.is_empty(),
        "nothing is run for results that cannot be kept"
    );
    let malformed = bench(&[&["run", &file, "--set", "producer.in_flight=0"], &fixed[..]].concat());
    assert_eq!(malformed.status.code(), Some(2));
    let text = String::from_utf8_lossy(&malformed.stderr).into_owned();
    assert!(text.contains("producer.in_flight: 0 is outside"), "{text}");
}

#[test]
fn batches_that_fill_while_requests_wait_leave_no_record_behind() {
    // Answers stand still while records of several batches per partition fall due, with linger and without.
    let fault = Fault::Stall {
        after: Duration::from_millis(300),
        pause: Duration::from_millis(700),
    };
    for linger in ["producer.linger_ms=0", "producer.linger_ms=30"] {
        let slow = [
            "producer.in_flight=1",
            "producer.batch_bytes=4096",
            linger,
            "producer.rate=3000",
        ];
        let sets: Vec<&str> = slow.iter().flat_map(|set| ["--set", set]).collect();
        let run = run(fault, "produce-1000", &[&sets[..], &["--verify"]].concat());
        assert_eq!(run.status, 0, "{}", run.text);
        assert_eq!(run.json["verdict"]["seen"], 6000, "{}", run.text);
    }
}

#[test]
fn connections_that_come_and_go_and_slow_readers_are_counted() {
    let churn = run(Fault::None, "connection-churn", &["--set", "churn.rate=20"]);
    assert_eq!(churn.status, 0, "{}", churn.text);
    assert!(
        churn.json["churn"]["opened"].as_u64().unwrap() > 20,
        "{}",
        churn.text
    );
    assert_eq!(churn.json["churn"]["failed"], 0);
    let small = [
        "--set",
        "preload.bytes=2000000",
        "--set",
        "slow_readers.connections=3",
    ];
    let slow = run(Fault::None, "slow-readers", &small);
    assert_eq!(slow.status, 0, "{}", slow.text);
    let seen = &slow.json["slow_readers"];
    assert_eq!(seen["readers"], 3);
    let bytes = seen["bytes"].as_u64().unwrap();
    // Three readers at 10 KB/s over at most a few seconds: they were slow, and they did read.
    assert!(bytes > 1_000 && bytes < 1_000_000, "{bytes}");
    assert!(slow.html.contains("slow readers took"));
    // Those that are turned away are told: a broker that is gone takes no new connections' requests.
    let dead = run(
        Fault::Die { after: 100 },
        "connection-churn",
        &["--set", "churn.rate=50"],
    );
    assert_eq!(dead.status, 1, "{}", dead.text);
    assert_eq!(dead.json["complete"], false);
}

#[test]
fn a_burst_waits_on_itself() {
    let sets = [
        "--set",
        "producer.burst_records=400",
        "--set",
        "producer.rate=800",
    ];
    let burst = run(Fault::None, "burst", &[&sets[..], &["--verify"]].concat());
    assert_eq!(burst.status, 0, "{}", burst.text);
    assert_eq!(burst.json["end_to_end"]["count"], 1600);
}

#[test]
fn a_workload_of_the_openmessaging_benchmark_runs() {
    let broker = FaultyBroker::start(Fault::None);
    let file = format!(
        "{}/workloads/openmessaging-1kb.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    let address = broker.address.to_string();
    let short = ["--set", "run.warmup_s=0", "--set", "run.duration_s=1"];
    let output = bench(
        &[
            &["run", &file, "--quiet", "--verify", "--bootstrap", &address],
            &short[..],
        ]
        .concat(),
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("(OpenMessaging Benchmark)") && text.contains("clean: 2000 records seen"),
        "{text}"
    );
}

#[test]
fn standing_still_is_noticed() {
    let broker = FaultyBroker::start(Fault::None);
    let file = format!("{}/workloads/produce-1000.toml", env!("CARGO_MANIFEST_DIR"));
    let child = Command::new(env!("CARGO_BIN_EXE_ringlog-bench"))
        .args([
            "run",
            &file,
            "--quiet",
            "--bootstrap",
            &broker.address.to_string(),
        ])
        .args(["--set", "run.warmup_s=0", "--set", "run.duration_s=5"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let signal = |name: &str| {
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    };
    std::thread::sleep(Duration::from_millis(1500));
    signal("-STOP");
    std::thread::sleep(Duration::from_millis(1500));
    signal("-CONT");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("disturbed: the machine stood still for"),
        "{text}"
    );
}
