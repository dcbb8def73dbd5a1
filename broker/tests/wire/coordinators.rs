//! What holds for coordinators whatever they coordinate: only they write what they are loaded from, whoever waits is answered, and errors come in the form that old clients know.

use ringlog_net::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use ringlog_net::messages::find_coordinator::FindCoordinatorRequest;
use ringlog_net::request::{Request, Response};
use ringlog_net::{ErrorCode, Str};

use crate::support::{Broker, Client, batch};

const OFFSETS: &str = "__consumer_offsets";
const FEW: &[&str] = &["offsets.topic.num.partitions=2"];

fn find(client: &mut Client) {
    let request = FindCoordinatorRequest {
        key: Str::from_static("g"),
        ..Default::default()
    };
    let Response::FindCoordinator(found) = client.call(Request::from(request), 3) else {
        panic!("another response")
    };
    assert_eq!(found.error_code, ErrorCode::NONE);
}

#[test]
fn clients_neither_write_nor_cut_what_coordinators_are_loaded_from() {
    let broker = Broker::start(FEW);
    let mut client = broker.connect();
    find(&mut client);
    let refused = client.produce(OFFSETS, 0, batch(&[b"x"]));
    assert_eq!(refused.error_code, ErrorCode::INVALID_TOPIC_EXCEPTION);
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: Str::from_static(OFFSETS),
            partitions: vec![DeleteRecordsPartition {
                partition_index: 0,
                offset: -1,
            }],
        }],
        timeout_ms: 10_000,
    };
    let Response::DeleteRecords(response) =
        client.call(Request::DeleteRecords(Box::new(request)), 2)
    else {
        panic!("another response")
    };
    let refused = response.topics[0].partitions[0].error_code;
    assert_eq!(refused, ErrorCode::INVALID_TOPIC_EXCEPTION);
}
