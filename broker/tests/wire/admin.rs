//! Metadata and administration in every version that is offered: what was created is there, everywhere and after a crash; what may not be is refused.

use std::collections::BTreeSet;

use ringlog_net::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use ringlog_net::messages::create_topics::{
    CreatableTopic, CreateTopicsRequest, CreateTopicsResponse,
};
use ringlog_net::messages::delete_topics::{
    DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use ringlog_net::messages::describe_cluster::DescribeClusterRequest;
use ringlog_net::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicRequest,
};
use ringlog_net::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use ringlog_net::{ErrorCode, Str, Uuid};

use crate::support::{Broker, Client, ask, batch};

fn topics(
    client: &mut Client,
    names: Option<&[&str]>,
    create: bool,
    version: i16,
) -> MetadataResponse {
    let topics = names.map(|names| {
        let named = |name: &&str| MetadataRequestTopic {
            name: Some(Str::from(*name)),
            ..Default::default()
        };
        names.iter().map(named).collect()
    });
    let request = MetadataRequest {
        topics,
        allow_auto_topic_creation: version < 4 || create,
        ..MetadataRequest::default()
    };
    ask!(client, Metadata, request, version)
}

fn listed(response: &MetadataResponse) -> Vec<&str> {
    response
        .topics
        .iter()
        .filter_map(|topic| topic.name.as_deref())
        .collect()
}

fn create(
    client: &mut Client,
    names: &[&str],
    partitions: i32,
    version: i16,
) -> CreateTopicsResponse {
    let topic = |name: &&str| CreatableTopic {
        name: Str::from(*name),
        num_partitions: partitions,
        replication_factor: 1,
        ..Default::default()
    };
    let request = CreateTopicsRequest {
        topics: names.iter().map(topic).collect(),
        ..Default::default()
    };
    ask!(client, CreateTopics, request, version)
}

fn delete(client: &mut Client, names: &[&str], version: i16) -> DeleteTopicsResponse {
    let names = names.iter().map(|name| Str::from(*name));
    let mut request = DeleteTopicsRequest {
        timeout_ms: 10_000,
        ..Default::default()
    };
    if version >= 6 {
        let state = |name| DeleteTopicState {
            name: Some(name),
            topic_id: Uuid::ZERO,
        };
        request.topics = names.map(state).collect();
    } else {
        request.topic_names = names.collect();
    }
    ask!(client, DeleteTopics, request, version)
}

#[test]
fn metadata_means_all_or_nothing_as_each_version_says() {
    let broker = Broker::start(&["auto.create.topics.enable=false"]);
    let mut client = broker.connect();
    let id = client.create_topic("b", 3, &[]);
    client.create_topic("a", 1, &[]);
    for version in 0..=13 {
        let all = topics(
            &mut client,
            if version == 0 { Some(&[]) } else { None },
            true,
            version,
        );
        assert_eq!(listed(&all), ["a", "b"], "version {version}");
        assert_eq!(all.brokers.len(), 1);
        assert_eq!(all.brokers[0].port, i32::from(broker.address.port()));
        let found = &all.topics[1];
        assert!(found.error_code.is_none() && found.partitions.len() == 3);
        assert!(
            found
                .partitions
                .iter()
                .all(|partition| partition.leader_id == 1 && partition.isr_nodes == [1])
        );
        if version >= 1 {
            assert_eq!(all.controller_id, 1);
            assert!(
                topics(&mut client, Some(&[]), true, version)
                    .topics
                    .is_empty()
            );
        }
        if version >= 10 {
            assert_eq!(found.topic_id, id);
        }
        let some = topics(
            &mut client,
            Some(&["none", "b", "b", "not/good"]),
            true,
            version,
        );
        let codes: Vec<(&str, ErrorCode)> = some
            .topics
            .iter()
            .map(|topic| (topic.name.as_deref().unwrap(), topic.error_code))
            .collect();
        let expected = [
            ("b", ErrorCode::NONE),
            ("none", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            ("not/good", ErrorCode::INVALID_TOPIC_EXCEPTION),
        ];
        assert_eq!(codes, expected, "version {version}");
    }
    for version in 12..=13 {
        let by_id = |topic_id| MetadataRequestTopic {
            topic_id,
            name: None,
        };
        let request = MetadataRequest {
            topics: Some(vec![by_id(id), by_id(Uuid([5; 16]))]),
            ..Default::default()
        };
        let response = ask!(client, Metadata, request, version);
        let codes: BTreeSet<(Option<&str>, i16)> = response
            .topics
            .iter()
            .map(|topic| (topic.name.as_deref(), topic.error_code.0))
            .collect();
        assert_eq!(
            codes,
            BTreeSet::from([(Some("b"), 0), (None, ErrorCode::UNKNOWN_TOPIC_ID.0)])
        );
    }
}

#[test]
fn a_topic_is_made_on_first_use_where_both_sides_allow_it() {
    let broker = Broker::start(&["num.partitions=3"]);
    let mut client = broker.connect();
    let refused = topics(&mut client, Some(&["t"]), false, 12);
    assert_eq!(
        refused.topics[0].error_code,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    );
    let made = topics(&mut client, Some(&["t"]), true, 12);
    assert_eq!(
        (made.topics[0].error_code, made.topics[0].partitions.len()),
        (ErrorCode::NONE, 3)
    );
    // Usable at once, on whichever shard its partitions are.
    for partition in 0..3 {
        assert_eq!(
            client.produce("t", partition, batch(&[b"x"])).error_code,
            ErrorCode::NONE
        );
    }
    let internal = topics(&mut client, Some(&["__consumer_offsets"]), true, 12);
    assert_eq!(
        internal.topics[0].error_code,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    );
}

#[test]
fn topics_are_made_and_removed_in_every_version_and_a_crash_changes_nothing() {
    let mut broker = Broker::start(&[]);
    let mut client = broker.connect();
    let mut kept = Vec::new();
    for version in 2..=7 {
        let (stays, goes) = (format!("stays-{version}"), format!("goes-{version}"));
        let response = create(&mut client, &[&stays, &goes, "bad/name", &goes], 2, version);
        let code = |name: &str| {
            response
                .topics
                .iter()
                .find(|topic| topic.name == *name)
                .map(|topic| topic.error_code)
        };
        assert_eq!(code(&stays), Some(ErrorCode::NONE));
        assert_eq!(
            code(&goes),
            Some(ErrorCode::INVALID_REQUEST),
            "twice in one request"
        );
        assert_eq!(code("bad/name"), Some(ErrorCode::INVALID_TOPIC_EXCEPTION));
        if version >= 5 {
            let made = &response.topics[0];
            assert_eq!((made.num_partitions, made.replication_factor), (2, 1));
            assert!(
                made.configs
                    .as_ref()
                    .is_some_and(|configs| !configs.is_empty())
            );
        }
        assert_eq!(
            create(&mut client, &[&goes], 1, version).topics[0].error_code,
            ErrorCode::NONE
        );
        assert_eq!(
            create(&mut client, &[&goes], 1, version).topics[0].error_code,
            ErrorCode::TOPIC_ALREADY_EXISTS
        );
        let removed = delete(&mut client, &[&goes, "none"], version - 1);
        let codes: Vec<ErrorCode> = removed
            .responses
            .iter()
            .map(|topic| topic.error_code)
            .collect();
        assert_eq!(
            codes,
            [ErrorCode::NONE, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION]
        );
        kept.push(stays);
    }
    let before = topics(&mut client, None, false, 12);
    assert_eq!(listed(&before), kept);
    broker.crash_and_restart();
    let mut client = broker.connect();
    let after = topics(&mut client, None, false, 12);
    assert_eq!(listed(&after), kept);
    for (before, after) in before.topics.iter().zip(&after.topics) {
        assert_eq!(before.topic_id, after.topic_id);
        for (before, after) in before.partitions.iter().zip(&after.partitions) {
            assert!(
                after.leader_epoch > before.leader_epoch,
                "a crash elects anew"
            );
        }
    }
    assert_eq!(broker.terminate(), Some(0));
    broker.restart();
    let mut client = broker.connect();
    let again = topics(&mut client, None, false, 12);
    assert_eq!(
        again.topics[0].partitions, after.topics[0].partitions,
        "a clean stop elects nobody"
    );
}

#[test]
fn a_name_can_be_used_again_and_starts_empty() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    let mut ids = BTreeSet::new();
    for round in 0..5 {
        assert!(
            ids.insert(client.create_topic("t", 2, &[])),
            "round {round}: an id is never used again"
        );
        assert!(client.read_all("t", 1).is_empty());
        assert_eq!(client.produce("t", 1, batch(&[b"x"])).base_offset, 0);
        let current = topics(&mut client, Some(&["t"]), false, 12).topics[0].topic_id;
        let asked = match round % 2 {
            0 => DeleteTopicState {
                name: Some(Str::from("t")),
                topic_id: Uuid::ZERO,
            },
            _ => DeleteTopicState {
                name: None,
                topic_id: current,
            },
        };
        let request = DeleteTopicsRequest {
            topics: vec![asked],
            timeout_ms: 10_000,
            ..Default::default()
        };
        let removed = &ask!(client, DeleteTopics, request, 6).responses[0];
        assert_eq!(
            (removed.error_code, removed.name.as_deref()),
            (ErrorCode::NONE, Some("t"))
        );
    }
}

#[test]
fn of_many_that_create_one_topic_exactly_one_does() {
    let broker = Broker::start(&[]);
    let codes: Vec<ErrorCode> = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| create(&mut broker.connect(), &["t"], 4, 7).topics[0].error_code)
            })
            .collect();
        tasks.into_iter().map(|task| task.join().unwrap()).collect()
    });
    let made = codes.iter().filter(|code| code.is_none()).count();
    let refused = codes
        .iter()
        .filter(|code| **code == ErrorCode::TOPIC_ALREADY_EXISTS)
        .count();
    assert_eq!((made, refused), (1, 7), "{codes:?}");
}

#[test]
fn partitions_are_added_and_used_at_once() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    for version in 0..=3 {
        let count = i32::from(version) + 2;
        for (count, expected) in [
            (count, ErrorCode::NONE),
            (count, ErrorCode::INVALID_PARTITIONS),
            (0, ErrorCode::INVALID_PARTITIONS),
        ] {
            let topic = CreatePartitionsTopic {
                name: Str::from("t"),
                count,
                assignments: None,
            };
            let request = CreatePartitionsRequest {
                topics: vec![topic],
                timeout_ms: 10_000,
                validate_only: false,
            };
            assert_eq!(
                ask!(client, CreatePartitions, request, version).results[0].error_code,
                expected
            );
        }
        assert_eq!(
            client.produce("t", count - 1, batch(&[b"x"])).error_code,
            ErrorCode::NONE
        );
    }
}

#[test]
fn the_cluster_describes_itself() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    for version in 0..=2 {
        let request = DescribeClusterRequest {
            include_cluster_authorized_operations: true,
            ..Default::default()
        };
        let response = ask!(client, DescribeCluster, request, version);
        assert_eq!(
            (
                response.error_code,
                response.controller_id,
                response.brokers.len()
            ),
            (ErrorCode::NONE, 1, 1)
        );
        assert!(!response.cluster_id.is_empty() && response.cluster_authorized_operations > 0);
    }
    for (endpoint_type, code) in [
        (2, ErrorCode::MISMATCHED_ENDPOINT_TYPE),
        (9, ErrorCode::UNSUPPORTED_ENDPOINT_TYPE),
    ] {
        let request = DescribeClusterRequest {
            endpoint_type,
            ..Default::default()
        };
        assert_eq!(ask!(client, DescribeCluster, request, 1).error_code, code);
    }
}

/// All pages of DescribeTopicPartitions, of at most `limit` partitions each: topic and partition, in order.
fn pages(client: &mut Client, names: &[&str], limit: i32) -> Vec<(String, i32)> {
    let mut found = Vec::new();
    let mut cursor: Option<Cursor> = None;
    for _ in 0..100 {
        let topics = names
            .iter()
            .map(|name| TopicRequest {
                name: Str::from(*name),
            })
            .collect();
        let request = DescribeTopicPartitionsRequest {
            topics,
            response_partition_limit: limit,
            cursor,
        };
        let response: DescribeTopicPartitionsResponse =
            ask!(client, DescribeTopicPartitions, request, 0);
        let mut count = 0;
        for topic in &response.topics {
            for partition in &topic.partitions {
                found.push((
                    topic.name.as_ref().unwrap().to_string(),
                    partition.partition_index,
                ));
                count += 1;
            }
        }
        assert!(count <= limit.max(1));
        cursor = response.next_cursor;
        if cursor.is_none() {
            return found;
        }
    }
    panic!("the pages have no end");
}

#[test]
fn topic_partitions_come_page_by_page_whatever_the_limit() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    let mut all = Vec::new();
    for (name, count) in [("a", 5), ("b", 1), ("c", 7), ("d", 2)] {
        client.create_topic(name, count, &[]);
        all.extend((0..count).map(|partition| (name.to_string(), partition)));
    }
    for limit in [-1, 0, 1, 2, 5, 6, 14, 15, 16, 100_000] {
        assert_eq!(pages(&mut client, &[], limit), all, "limit {limit}");
        let some: Vec<(String, i32)> = all
            .iter()
            .filter(|(name, _)| name == "a" || name == "c")
            .cloned()
            .collect();
        assert_eq!(
            pages(&mut client, &["c", "a", "none", "c"], limit),
            some,
            "limit {limit}"
        );
    }
    let cursor = Cursor {
        topic_name: Str::from("a"),
        partition_index: -1,
    };
    let topics = vec![TopicRequest {
        name: Str::from("a"),
    }];
    let request = DescribeTopicPartitionsRequest {
        topics,
        response_partition_limit: 10,
        cursor: Some(cursor),
    };
    assert_eq!(
        ask!(client, DescribeTopicPartitions, request, 0).topics[0].error_code,
        ErrorCode::INVALID_REQUEST
    );
}

#[test]
fn hostile_requests_for_topics_are_refused_and_cost_little() {
    let mut broker = Broker::start(&["max.partitions.per.request=3000"]);
    let mut client = broker.connect();
    for count in [i32::MIN, -2, 0, 3001, i32::MAX] {
        assert_ne!(
            create(&mut client, &["t"], count, 7).topics[0].error_code,
            ErrorCode::NONE,
            "{count}"
        );
    }
    let long = "x".repeat(30_000);
    let names = [
        "",
        ".",
        "..",
        "a/../b",
        "a\u{0}b",
        "__cluster_metadata",
        "\u{1f4a5}",
        &long,
    ];
    for topic in create(&mut client, &names, 1, 7).topics {
        assert!(
            topic.error_code.is_error()
                && topic.error_message.is_some_and(|text| text.len() < 1000)
        );
    }
    // The metadata log is no topic that clients reach.
    assert_eq!(
        topics(&mut client, Some(&["__cluster_metadata"]), false, 12).topics[0].error_code,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    );
    let before = broker.resident_bytes();
    let many: Vec<String> = (0..100_000).map(|index| format!("t{index}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refused = create(&mut client, &many, 1, 7);
    let made = refused
        .topics
        .iter()
        .filter(|topic| topic.error_code.is_none())
        .count();
    assert_eq!((made, refused.topics.len()), (3000, 100_000));
    assert!(
        broker.resident_bytes() < before + (192 << 20),
        "{} bytes more",
        broker.resident_bytes() - before
    );
    broker.crash_and_restart();
    assert_eq!(
        topics(&mut broker.connect(), None, false, 12).topics.len(),
        3000
    );
}

#[test]
fn snapshots_bound_what_a_start_reads_and_lose_nothing() {
    let between = "metadata.log.max.record.bytes.between.snapshots=4000";
    let mut broker = Broker::start(&[between]);
    let mut expected = BTreeSet::new();
    for round in 0..3 {
        let mut client = broker.connect();
        for number in 0..40 {
            let (stays, goes) = (format!("stays-{round}-{number}"), format!("goes-{number}"));
            let made = create(&mut client, &[&stays, &goes], 2, 7);
            assert!(made.topics.iter().all(|topic| topic.error_code.is_none()));
            let removed = delete(&mut client, &[&goes], 6);
            assert_eq!(removed.responses[0].error_code, ErrorCode::NONE);
            expected.insert(stays);
        }
        broker.crash_and_restart();
        let found = topics(&mut broker.connect(), None, false, 12);
        assert!(
            listed(&found)
                .into_iter()
                .eq(expected.iter().map(String::as_str))
        );
    }
    let log = std::fs::read_dir(broker.log_directory("__cluster_metadata-0")).expect("lists");
    let snapshots = log.filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.to_string_lossy().ends_with(".checkpoint")
    });
    // A kill may have come between the newest and the removal of the one before it.
    assert!((1..=2).contains(&snapshots.count()), "older ones are gone");
}
