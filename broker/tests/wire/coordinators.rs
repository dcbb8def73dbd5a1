//! What holds for coordinators whatever they coordinate: only they write what they are loaded from, whoever waits is answered, and errors come in the form that old clients know.

use std::sync::mpsc;

use ringlog_net::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use ringlog_net::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use ringlog_net::messages::delete_topics::DeleteTopicsRequest;
use ringlog_net::messages::describe_groups::DescribeGroupsRequest;
use ringlog_net::messages::find_coordinator::{Coordinator, FindCoordinatorRequest};
use ringlog_net::messages::join_group::JoinGroupRequest;
use ringlog_net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringlog_net::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ringlog_net::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponseGroup,
};
use ringlog_net::request::{Request, Response};
use ringlog_net::{ErrorCode, Str, Uuid};

use crate::support::{Broker, Client, ask, batch};

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

fn commit(client: &mut Client, group: &str) -> ErrorCode {
    let request = OffsetCommitRequest {
        group_id: Str::from(group),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from_static("t"),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: 1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    match client.call(Request::from(request), 9) {
        Response::OffsetCommit(response) => response.topics[0].partitions[0].error_code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_number_by_which_groups_are_found_stays() {
    let broker = Broker::start(FEW);
    let mut client = broker.connect();
    find(&mut client);
    for validate_only in [true, false] {
        let grow = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: Str::from_static(OFFSETS),
                count: 3,
                ..Default::default()
            }],
            timeout_ms: 10_000,
            validate_only,
        };
        let Response::CreatePartitions(response) = client.call(Request::from(grow), 3) else {
            panic!("another response")
        };
        let refused = &response.results[0];
        assert_eq!(refused.error_code, ErrorCode::INVALID_PARTITIONS);
        let reason = refused.error_message.as_deref().unwrap_or_default();
        assert!(reason.contains("stays with its 2 partitions"), "{reason}");
    }
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

/// In version 1 only partitions carry errors: an answer without them would read as "nothing was ever committed".
#[test]
fn an_error_of_the_group_is_told_in_every_version_of_offset_fetch() {
    let broker = Broker::start(FEW);
    let mut client = broker.connect();
    // Nobody has asked for a coordinator, so there is none yet.
    let request = OffsetFetchRequest {
        group_id: Str::from_static("g"),
        topics: Some(vec![OffsetFetchRequestTopic {
            name: Str::from_static("t"),
            partition_indexes: vec![3],
        }]),
        ..Default::default()
    };
    let mut fetch = |version| match client.call(Request::from(request.clone()), version) {
        Response::OffsetFetch(fetched) => *fetched,
        other => panic!("{other:?}"),
    };
    let oldest = fetch(1);
    let partitions: Vec<(i32, i64, ErrorCode)> = (oldest.topics.iter())
        .flat_map(|topic| &topic.partitions)
        .map(|one| (one.partition_index, one.committed_offset, one.error_code))
        .collect();
    assert_eq!(partitions, [(3, -1, ErrorCode::NOT_COORDINATOR)]);
    assert_eq!(fetch(2).error_code, ErrorCode::NOT_COORDINATOR);
}

/// Commits wait in every stage when their coordinator's topic is deleted: none may be left without an answer.
#[test]
fn whoever_waits_for_a_coordinator_that_ends_is_answered() {
    const CLIENTS: usize = 24;
    const EACH: usize = 10;
    let broker = Broker::start(FEW);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find(&mut client);
    let (at_work, heard) = mpsc::channel();
    let committing: Vec<_> = (0..CLIENTS)
        .map(|at| {
            let (mut client, at_work) = (broker.connect(), at_work.clone());
            std::thread::spawn(move || {
                let mut committed = 0;
                loop {
                    match commit(&mut client, &format!("g{at}")) {
                        ErrorCode::NONE => committed += 1,
                        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => continue,
                        _ => return,
                    }
                    if committed == EACH {
                        let _ = at_work.send(());
                    }
                }
            })
        })
        .collect();
    for _ in 0..CLIENTS {
        heard.recv().expect("all commit");
    }
    let delete = DeleteTopicsRequest {
        topic_names: vec![Str::from_static(OFFSETS)],
        timeout_ms: 10_000,
        ..Default::default()
    };
    client.call(Request::from(delete), 5);
    for one in committing {
        one.join().expect("every commit is answered");
    }
}

/// A few bytes name a group, and ask for all that it holds.
#[test]
fn a_group_is_looked_at_once_for_each_request() {
    let broker = Broker::start(FEW);
    let mut client = broker.connect();
    find(&mut client);
    let request = DescribeGroupsRequest {
        groups: vec![Str::from_static("g"), Str::from_static("g")],
        ..Default::default()
    };
    let Response::DescribeGroups(described) = client.call(Request::from(request), 5) else {
        panic!("another response")
    };
    assert_ne!(described.groups[0].error_code, ErrorCode::INVALID_REQUEST);
    assert_eq!(described.groups[1].error_code, ErrorCode::INVALID_REQUEST);
    let group = OffsetFetchRequestGroup {
        group_id: Str::from_static("g"),
        topics: None,
        ..Default::default()
    };
    let request = OffsetFetchRequest {
        groups: vec![group.clone(), group],
        ..Default::default()
    };
    let Response::OffsetFetch(fetched) = client.call(Request::from(request), 8) else {
        panic!("another response")
    };
    assert_ne!(fetched.groups[0].error_code, ErrorCode::INVALID_REQUEST);
    assert_eq!(fetched.groups[1].error_code, ErrorCode::INVALID_REQUEST);
}

/// The crash comes at once, and may leave what was committed for the topic before.
#[test]
fn a_new_topic_does_not_inherit_the_offsets_of_one_that_had_its_name() {
    let mut broker = Broker::start(FEW);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find(&mut client);
    while commit(&mut client, "g") != ErrorCode::NONE {}
    let delete = DeleteTopicsRequest {
        topic_names: vec![Str::from_static("t")],
        timeout_ms: 10_000,
        ..Default::default()
    };
    client.call(Request::from(delete), 5);
    broker.crash_and_restart();
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    let request = OffsetFetchRequest {
        group_id: Str::from_static("g"),
        topics: Some(vec![OffsetFetchRequestTopic {
            name: Str::from_static("t"),
            partition_indexes: vec![0],
        }]),
        ..Default::default()
    };
    loop {
        let Response::OffsetFetch(fetched) = client.call(Request::from(request.clone()), 7) else {
            panic!("another response")
        };
        if fetched.error_code == ErrorCode::NONE {
            assert_eq!(fetched.topics[0].partitions[0].committed_offset, -1);
            return;
        }
        assert_eq!(fetched.error_code, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    }
}

#[test]
fn without_a_coordinator_every_version_of_join_group_is_told_so() {
    let broker = Broker::start(FEW);
    let mut client = broker.connect();
    for version in 0..=9 {
        let request = JoinGroupRequest {
            group_id: Str::from_static("g"),
            session_timeout_ms: 10_000,
            protocol_type: Str::from_static("consumer"),
            ..Default::default()
        };
        let Response::JoinGroup(refused) = client.call(Request::from(request), version) else {
            panic!("another response")
        };
        let expected = ErrorCode::COORDINATOR_NOT_AVAILABLE;
        assert_eq!(refused.error_code, expected, "version {version}");
    }
}

#[test]
fn the_coordinator_comes_before_the_topics_that_offsets_are_asked_of() {
    let broker = Broker::start(FEW);
    let mut client = broker.connect();
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: Str::from_static("g"),
            topics: Some(vec![OffsetFetchRequestTopics {
                topic_id: Uuid([7; 16]),
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut ask = || match client.call(Request::from(request.clone()), 10) {
        Response::OffsetFetch(mut response) => response.groups.remove(0),
        other => panic!("{other:?}"),
    };
    assert_eq!(ask().error_code, ErrorCode::NOT_COORDINATOR);
    find(&mut broker.connect());
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    let group = loop {
        let group = ask();
        if group.error_code != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS {
            break group;
        }
        assert!(std::time::Instant::now() < until);
    };
    assert_eq!(group.error_code, ErrorCode::NONE);
    let partition = &group.topics[0].partitions[0];
    assert_eq!(partition.error_code, ErrorCode::UNKNOWN_TOPIC_ID);
}

#[test]
fn offsets_of_what_is_not_there_are_not_deleted() {
    let broker = Broker::start(FEW);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find(&mut client);
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    while commit(&mut client, "g") != ErrorCode::NONE {
        assert!(std::time::Instant::now() < until);
    }
    let topic = |name: &'static str, partitions: &[i32]| OffsetDeleteRequestTopic {
        name: Str::from_static(name),
        partitions: (partitions.iter())
            .map(|index| OffsetDeleteRequestPartition {
                partition_index: *index,
            })
            .collect(),
    };
    let request = OffsetDeleteRequest {
        group_id: Str::from_static("g"),
        topics: vec![topic("nowhere", &[0]), topic("t", &[5, 0])],
    };
    let Response::OffsetDelete(response) = client.call(Request::from(request), 0) else {
        panic!("another response")
    };
    assert_eq!(response.error_code, ErrorCode::NONE);
    let mut found: Vec<(String, i32, ErrorCode)> = (response.topics.iter())
        .flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|one| (topic.name.to_string(), one.partition_index, one.error_code))
        })
        .collect();
    found.sort_unstable();
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    let expected = [
        ("nowhere", 0, unknown),
        ("t", 0, ErrorCode::NONE),
        ("t", 5, unknown),
    ];
    let expected = expected.map(|(name, index, error)| (name.to_string(), index, error));
    assert_eq!(found, expected);
    assert_eq!(response.topics.len(), 2);
}

/// Loading takes until the log can be read: here until a byte that has rotted is put right.
#[test]
fn a_topic_that_goes_while_offsets_are_loaded_takes_its_offsets_along() {
    let mut broker = Broker::start(&["offsets.topic.num.partitions=1"]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find(&mut client);
    while commit(&mut client, "g") != ErrorCode::NONE {}
    assert_eq!(broker.terminate(), Some(0));
    let file = broker.log_directory(&format!("{OFFSETS}-0"));
    let file = file.join("00000000000000000000.log");
    let whole = std::fs::read(&file).expect("a segment");
    let mut rotten = whole.clone();
    *rotten.last_mut().expect("it is not empty") ^= 1;
    std::fs::write(&file, rotten).expect("writes");
    broker.restart();
    let mut client = broker.connect();
    assert_eq!(
        all_of_group(&mut client).error_code,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
    );
    let delete = DeleteTopicsRequest {
        topic_names: vec![Str::from_static("t")],
        timeout_ms: 10_000,
        ..Default::default()
    };
    client.call(Request::from(delete), 5);
    assert_eq!(
        all_of_group(&mut client).error_code,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
    );
    std::fs::write(&file, whole).expect("writes");
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    let group = loop {
        let group = all_of_group(&mut client);
        if group.error_code != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS {
            break group;
        }
        assert!(std::time::Instant::now() < until);
    };
    assert_eq!((group.error_code, group.topics.len()), (ErrorCode::NONE, 0));
}

fn all_of_group(client: &mut Client) -> OffsetFetchResponseGroup {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: Str::from_static("g"),
            topics: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    match client.call(Request::from(request), 8) {
        Response::OffsetFetch(mut response) => response.groups.remove(0),
        other => panic!("{other:?}"),
    }
}

/// Asks for one coordinator, in the form that the version has.
fn coordinator(client: &mut Client, key: &str, key_type: i8, version: i16) -> Coordinator {
    let key = Str::from(key);
    let request = FindCoordinatorRequest {
        coordinator_keys: Vec::from_iter((version >= 4).then(|| key.clone())),
        key: if version < 4 { key } else { Str::default() },
        key_type,
    };
    let mut response = ask!(client, FindCoordinator, request, version);
    if version >= 4 {
        assert_eq!(response.coordinators.len(), 1);
        return response.coordinators.remove(0);
    }
    Coordinator {
        error_code: response.error_code,
        node_id: response.node_id,
        host: response.host,
        port: response.port,
        ..Default::default()
    }
}

#[test]
fn this_broker_coordinates_every_group_and_transaction() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    for version in 0..=6 {
        let found = coordinator(&mut client, "readers", 0, version);
        assert_eq!((found.error_code, found.node_id), (ErrorCode::NONE, 1));
        assert_eq!(
            format!("{}:{}", found.host, found.port),
            broker.address.to_string()
        );
        if version >= 1 {
            let found = coordinator(&mut client, "t", 1, version);
            assert_eq!((found.error_code, found.node_id), (ErrorCode::NONE, 1));
            let unknown = coordinator(&mut client, "t", 9, version);
            assert_eq!(unknown.error_code, ErrorCode::INVALID_REQUEST);
        }
    }
}
