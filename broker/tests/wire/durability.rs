//! What was acknowledged is there after a crash, at its offset, once; a stop is clean; a directory has one broker.

use std::process::Stdio;

use ringlog_net::ErrorCode;

use crate::support::{Broker, batch, idempotent_batch};

#[test]
fn acknowledged_records_survive_a_crash() {
    let mut broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 4, &[]);
    let mut written = vec![Vec::new(); 4];
    for round in 0..3 {
        let mut client = broker.connect();
        for number in 0..40 {
            let partition = number % 4;
            let value = format!("{round}-{number}").into_bytes();
            let answer = client.produce("t", partition, batch(&[&value]));
            assert_eq!(answer.error_code, ErrorCode::NONE);
            assert_eq!(answer.base_offset, written[partition as usize].len() as i64);
            written[partition as usize].push(value);
        }
        broker.crash_and_restart();
    }
    let mut client = broker.connect();
    for (partition, expected) in written.iter().enumerate() {
        let found = client.read_all("t", partition as i32);
        let offsets: Vec<i64> = found.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (0..expected.len() as i64).collect::<Vec<_>>());
        assert!(found.iter().map(|(_, value)| value).eq(expected));
    }
}

#[test]
fn producers_are_remembered_after_a_crash() {
    let mut broker = Broker::start(&[]);
    broker.connect().create_topic("t", 1, &[]);
    let first = idempotent_batch(77, 0, 0, &[b"a", b"b"]);
    assert_eq!(
        broker.connect().produce("t", 0, first.clone()).base_offset,
        0
    );
    broker.crash_and_restart();
    let mut client = broker.connect();
    let again = client.produce("t", 0, first);
    assert_eq!((again.error_code, again.base_offset), (ErrorCode::NONE, 0));
    let gap = client.produce("t", 0, idempotent_batch(77, 0, 9, &[b"z"]));
    assert_eq!(gap.error_code, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let next = client.produce("t", 0, idempotent_batch(77, 0, 2, &[b"c"]));
    assert_eq!((next.error_code, next.base_offset), (ErrorCode::NONE, 2));
    assert_eq!(client.read_all("t", 0).len(), 3);
}

#[test]
fn a_stop_is_clean_and_the_topic_is_there_after_it() {
    let mut broker = Broker::start(&[]);
    let mut client = broker.connect();
    let id = client.create_topic("t", 2, &[("retention.ms", "-1")]);
    client.produce("t", 1, batch(&[b"kept"]));
    assert_eq!(broker.terminate(), Some(0));
    assert!(client.receive_frame().is_none(), "connections are closed");
    broker.restart();
    let mut client = broker.connect();
    assert_eq!(client.read_all("t", 1), [(0, b"kept".to_vec())]);
    assert!(!id.is_zero());
}

#[test]
fn a_second_broker_is_refused() {
    let broker = Broker::start(&[]);
    let rival = broker
        .rival()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .expect("runs");
    let reason = String::from_utf8_lossy(&rival.stderr);
    assert_eq!(rival.status.code(), Some(1));
    assert!(reason.contains("in use by another broker"), "{reason}");
    assert!(rival.stdout.is_empty());
    broker.connect().create_topic("still-served", 1, &[]);
}
