//! Several data directories: partitions stay where they are, and a directory that is missing never means empty partitions.

use std::process::Stdio;

use ringlog_net::messages::api_versions::ApiVersionsRequest;
use ringlog_net::messages::describe_log_dirs::DescribeLogDirsRequest;
use ringlog_net::request::{Request, Response};
use ringlog_net::{ErrorCode, Str};

use crate::support::{Broker, batch};

#[test]
fn partitions_of_a_missing_directory_are_offline_until_it_is_back() {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| temporary.path().join(name);
    let (a, b) = (path("a"), path("b"));
    let both = format!("log.dirs={},{}", a.display(), b.display());
    let mut broker = Broker::start(&[&both]);
    let mut client = broker.connect();
    client.create_topic("t", 4, &[]);
    for partition in 0..4 {
        client.produce("t", partition, batch(&[b"kept"]));
    }
    let placed = |directory: &std::path::Path| -> Vec<i32> {
        let there = (0..4).filter(|partition| directory.join(format!("t-{partition}")).exists());
        there.collect()
    };
    let (on_a, on_b) = (placed(&a), placed(&b));
    assert_eq!((on_a.len(), on_b.len()), (2, 2), "partitions go round");
    assert_eq!(broker.terminate(), Some(0));

    // Named no longer.
    broker.restart_with(&[&format!("log.dirs={}", a.display())]);
    let mut client = broker.connect();
    for partition in 0..4 {
        let answer = client.produce("t", partition, batch(&[b"more"]));
        let expected = match on_a.contains(&partition) {
            true => (ErrorCode::NONE, 1),
            false => (ErrorCode::KAFKA_STORAGE_ERROR, -1),
        };
        assert_eq!((answer.error_code, answer.base_offset), expected);
    }
    broker.terminate();
    assert_eq!(placed(&a), on_a);

    // Named, but not mounted.
    std::fs::rename(&b, path("elsewhere")).expect("renames");
    broker.restart_after(&[&both], |command| {
        let refused = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .expect("runs");
        let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1));
        assert!(reason.contains("ringlog format"), "{reason}");
        std::fs::remove_dir_all(&b).expect("only a lock is in it");
        std::fs::rename(path("elsewhere"), &b).expect("renames back");
    });
    let mut client = broker.connect();
    for partition in 0..4 {
        let count = if on_a.contains(&partition) { 2 } else { 1 };
        assert_eq!(client.read_all("t", partition).len(), count);
    }
}

#[test]
fn the_order_of_directories_may_change_after_a_snapshot_of_the_metadata() {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| temporary.path().join(name).display().to_string();
    let snapshots = "metadata.log.max.record.bytes.between.snapshots=1";
    let first = format!("log.dirs={},{}", path("a"), path("b"));
    let second = format!("log.dirs={},{}", path("b"), path("a"));
    let mut broker = Broker::start(&[&first, snapshots]);
    let mut client = broker.connect();
    for name in ["t", "u", "v"] {
        client.create_topic(name, 2, &[]);
        client.produce(name, 0, batch(&[name.as_bytes()]));
    }
    assert_eq!(broker.terminate(), Some(0));
    let snapshot = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("an entry").file_name();
        name.to_string_lossy().ends_with(".checkpoint")
    };
    let mut metadata = std::fs::read_dir(temporary.path().join("a/__cluster_metadata-0"))
        .expect("the metadata is in the first directory");
    assert!(metadata.any(snapshot));
    broker.restart_with(&[&second, snapshots]);
    let mut client = broker.connect();
    for name in ["t", "u", "v"] {
        assert_eq!(client.read_all(name, 0), [(0, name.as_bytes().to_vec())]);
    }
}

#[test]
fn what_tools_are_told_of_directories_and_versions_is_what_kafka_tells() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    let Response::DescribeLogDirs(response) = client.call(
        Request::DescribeLogDirs(Box::new(DescribeLogDirsRequest { topics: None })),
        4,
    ) else {
        panic!("another response")
    };
    let only = &response.results[0];
    assert_eq!(only.error_code, ErrorCode::NONE);
    let topics: Vec<_> = only
        .topics
        .iter()
        .map(|topic| topic.name.as_str())
        .collect();
    assert_eq!(topics, ["t"], "the metadata log is not told of");
    let named = ApiVersionsRequest {
        client_software_name: Str::from_static("test"),
        client_software_version: Str::from_static("1"),
    };
    let Response::ApiVersions(versions) = client.call(Request::ApiVersions(Box::new(named)), 3)
    else {
        panic!("another response")
    };
    let feature = &versions.supported_features[0];
    assert_eq!((feature.min_version, feature.max_version), (7, 30));
}
