//! A topic made again under the name of a deleted one has nothing of the deleted one's, even when its files could not be removed.

use ringlog_engine::engine::shard_of;
use ringlog_engine::log::TopicId;
use ringlog_net::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use ringlog_net::request::{Request, Response};
use ringlog_net::{ErrorCode, Str, Uuid};

use crate::support::{Broker, Client, batch};

fn delete(client: &mut Client, name: &'static str) {
    let request = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some(Str::from_static(name)),
            ..Default::default()
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let Response::DeleteTopics(response) = client.call(Request::DeleteTopics(Box::new(request)), 6)
    else {
        panic!("another response")
    };
    assert_eq!(response.responses[0].error_code, ErrorCode::NONE);
}

/// The shard of a topic's only partition, of two shards.
fn shard(id: Uuid) -> u32 {
    shard_of(&TopicId(id.0), 0, 2)
}

#[test]
fn files_that_a_failed_deletion_left_are_not_the_next_topics() {
    let mut broker = Broker::start(&[]);
    let mut client = broker.connect();
    let old = client.create_topic("t", 1, &[]);
    client.produce("t", 0, batch(&[b"old"]));
    // The deletion cannot rename what is not there.
    let (there, away) = (broker.log_directory("t-0"), broker.log_directory("away"));
    std::fs::rename(&there, &away).expect("renames");
    delete(&mut client, "t");
    std::fs::rename(&away, &there).expect("renames back");
    // Made on the other shard too, which knows nothing of the deletion's failure by itself.
    loop {
        let new = client.create_topic("t", 1, &[]);
        let answer = client.produce("t", 0, batch(&[b"new"]));
        assert_eq!(answer.error_code, ErrorCode::KAFKA_STORAGE_ERROR);
        if shard(new) != shard(old) {
            break;
        }
        delete(&mut client, "t");
    }
    broker.terminate();
    broker.restart();
    let mut client = broker.connect();
    let answer = client.produce("t", 0, batch(&[b"new"]));
    assert_eq!(
        (answer.error_code, answer.base_offset),
        (ErrorCode::NONE, 0)
    );
    assert_eq!(client.read_all("t", 0), [(0, b"new".to_vec())]);
}
