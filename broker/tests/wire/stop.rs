//! Stopping: no shard closes its engine while another may still need it, and a stop that is not clean says so.

use ringlog_net::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog_net::request::{Request, Response};
use ringlog_net::{ErrorCode, Records, Str};

use crate::support::{Broker, batch};

const PARTITIONS: i32 = 8;

/// One batch for every partition, so that every shard has to do with it.
fn produce_everywhere(value: &[u8]) -> Request {
    let data = |index| PartitionProduceData {
        index,
        records: Some(Records::from(bytes::Bytes::from(batch(&[value])))),
    };
    Request::Produce(Box::new(ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: Str::from_static("t"),
            partition_data: (0..PARTITIONS).map(data).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }))
}

#[test]
fn requests_in_work_are_answered_by_all_shards_while_the_broker_stops() {
    // One connection, so all shards but its own have nothing of their own left to wait for.
    let mut broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", PARTITIONS, &[]);
    let request = produce_everywhere(&[7; 40_000]);
    let mut stream = client.stream.try_clone().expect("a second handle");
    let writing = std::thread::spawn(move || {
        let name = Str::from_static("test");
        let frame = request.encode(9, 1, Some(&name)).expect("encodes").concat();
        // Until the broker no longer reads.
        while std::io::Write::write_all(&mut stream, &frame).is_ok() {}
    });
    let mut acknowledged = 0;
    while let Some(frame) = client.receive_frame() {
        let (_, response) =
            Response::decode_frame(ringlog_net::ApiKey::Produce, 9, frame).expect("decodes");
        let Response::Produce(response) = response else {
            panic!("another response")
        };
        for partition in &response.responses[0].partition_responses {
            assert_eq!(
                partition.error_code,
                ErrorCode::NONE,
                "{:?} after {acknowledged} requests",
                partition.error_message
            );
        }
        acknowledged += 1;
        if acknowledged == 1 {
            broker.signal_to_stop();
        }
    }
    assert!(acknowledged > 0);
    assert_eq!(broker.wait_for_end(), Some(0));
    writing.join().expect("the writer ends");
    broker.restart();
    let mut client = broker.connect();
    for partition in 0..PARTITIONS {
        // No connection was cut while it waited for an engine that was closed already.
        let stored = client.read_all("t", partition).len();
        assert_eq!(stored, acknowledged, "all that was begun was answered");
    }
}

#[test]
fn a_stop_with_an_offline_log_is_not_called_clean() {
    let mut broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    client.produce("t", 0, batch(&[b"whole"]));
    broker.crash();
    let segment = broker.log_directory("t-0").join("00000000000000000000.log");
    std::fs::remove_file(&segment).expect("there is a segment");
    std::fs::create_dir(&segment).expect("what stands there cannot be read");
    broker.restart();
    let answer = broker.connect().produce("t", 0, batch(&[b"more"]));
    assert_eq!(answer.error_code, ErrorCode::KAFKA_STORAGE_ERROR);
    assert_eq!(broker.terminate(), Some(1));
}
