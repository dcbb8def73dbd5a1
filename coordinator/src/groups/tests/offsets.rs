//! OffsetCommit, OffsetFetch and OffsetDelete: who may commit, and that what is committed can be had again.

use ringlog_net::messages::offset_commit::{OffsetCommitRequest, OffsetCommitRequestPartition};
use ringlog_net::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
};
use ringlog_net::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use ringlog_net::{ErrorCode, Uuid};

use super::harness::{Host, commit, join, txn_commit};
use crate::groups::{GroupCoordinator, GroupReply};

#[test]
fn a_consumer_without_a_group_commits_and_fetches() {
    let mut host = Host::new();
    assert_eq!(host.fetch("g", "t", 0), Ok(-1));
    assert_eq!(host.coordinator.counts().groups, 0);
    assert_eq!(host.commit("g", "t", 0, 5), ErrorCode::NONE);
    assert_eq!(host.commit("g", "t", 0, 4), ErrorCode::NONE);
    assert_eq!(host.commit("g", "u", 7, 1), ErrorCode::NONE);
    assert_eq!(host.fetch("g", "t", 0), Ok(4), "the last one counts");
    assert_eq!(host.fetch("g", "t", 1), Ok(-1));
    assert_eq!(host.state("g").as_deref(), Some("Empty"));
    host.restart();
    assert_eq!(host.fetch("g", "t", 0), Ok(4));
    assert_eq!(host.fetch("g", "u", 7), Ok(1));
    let all: Vec<_> = host
        .coordinator
        .committed_offsets()
        .map(|(group, topic, partition, offset)| {
            (group.to_string(), topic.to_string(), partition, offset)
        })
        .collect();
    let expected = [("g", "t", 0, 4), ("g", "u", 7, 1)];
    let expected = expected.map(|(g, t, p, o)| (g.to_owned(), t.to_owned(), p, o));
    assert_eq!(all, expected);
    // The group without a name is one too, for old clients.
    assert_eq!(host.commit("", "t", 0, 9), ErrorCode::NONE);
    assert_eq!(host.fetch("", "t", 0), Ok(9));
}

#[test]
fn only_members_of_the_generation_commit_for_a_group() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 1);
    let refusals = [
        (
            commit("g", &ids[0], 0, "t", 0, 1),
            ErrorCode::ILLEGAL_GENERATION,
        ),
        (
            commit("g", "other", 1, "t", 0, 1),
            ErrorCode::UNKNOWN_MEMBER_ID,
        ),
        (commit("g", "", -1, "t", 0, 1), ErrorCode::UNKNOWN_MEMBER_ID),
        (commit("g", "", 1, "t", 0, 1), ErrorCode::UNKNOWN_MEMBER_ID),
        (
            commit("h", &ids[0], 1, "t", 0, 1),
            ErrorCode::GROUP_ID_NOT_FOUND,
        ),
    ];
    for (request, error) in refusals {
        assert_eq!(host.commit_as(9, request), error);
    }
    let old = commit("h", &ids[0], 1, "t", 0, 1);
    assert_eq!(host.commit_as(8, old), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(host.fetch("g", "t", 0), Ok(-1));
    let good = commit("g", &ids[0], 1, "t", 0, 1);
    assert_eq!(host.commit_as(9, good), ErrorCode::NONE);
    assert_eq!(host.fetch("g", "t", 0), Ok(1));
}

#[test]
fn commits_go_through_while_members_join_but_not_while_the_leader_assigns() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 2);
    let first = host.join_request(9, join("g", &ids[0]));
    let request = commit("g", &ids[1], 1, "t", 0, 3);
    assert_eq!(host.commit_as(9, request), ErrorCode::NONE);
    host.join_request(9, join("g", &ids[1]));
    assert_eq!(host.joined(first).generation_id, 2);
    let request = commit("g", &ids[1], 2, "t", 0, 4);
    assert_eq!(host.commit_as(9, request), ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(host.fetch("g", "t", 0), Ok(3));
}

#[test]
fn commits_are_signs_of_life() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 1);
    for offset in 0..5 {
        host.advance(9_000);
        let request = commit("g", &ids[0], 1, "t", 0, offset);
        assert_eq!(host.commit_as(9, request), ErrorCode::NONE);
    }
    assert_eq!(host.heartbeat("g", &ids[0], 1), ErrorCode::NONE);
}

#[test]
fn metadata_that_is_too_large_fails_its_partition_alone() {
    let mut host = Host::new();
    let mut request = commit("g", "", -1, "t", 0, 1);
    // 4096 units of UTF-16 in three times as many bytes.
    request.topics[0].partitions[0].committed_metadata = Some("€".repeat(4_096).into());
    request.topics[0]
        .partitions
        .push(OffsetCommitRequestPartition {
            partition_index: 1,
            committed_offset: 2,
            committed_metadata: Some("m".repeat(4_097).into()),
            ..OffsetCommitRequestPartition::default()
        });
    let token = host.call(9, request, GroupCoordinator::offset_commit);
    let GroupReply::OffsetCommit(reply) = host.reply(token) else {
        panic!("an OffsetCommit");
    };
    let errors: Vec<_> = reply.topics[0]
        .partitions
        .iter()
        .map(|partition| partition.error_code)
        .collect();
    assert_eq!(
        errors,
        [ErrorCode::NONE, ErrorCode::OFFSET_METADATA_TOO_LARGE]
    );
    assert_eq!(host.fetch("g", "t", 0), Ok(1));
    assert_eq!(host.fetch("g", "t", 1), Ok(-1));
    // Nothing that could be kept makes no group.
    let mut request = commit("h", "", -1, "t", 0, 1);
    request.topics[0].partitions[0].committed_metadata = Some("m".repeat(4_097).into());
    let error = host.commit_as(9, request);
    assert_eq!(error, ErrorCode::OFFSET_METADATA_TOO_LARGE);
    assert_eq!(host.state("h"), None);
}

#[test]
fn all_of_a_commit_comes_back_with_the_topic_it_was_for() {
    let mut host = Host::new();
    let (topic_id, other_id) = (Uuid([7; 16]), Uuid([8; 16]));
    let mut request = commit("g", "", -1, "t", 0, 1);
    request.topics[0].topic_id = topic_id;
    request.topics[0].partitions[0].committed_leader_epoch = 4;
    request.topics[0].partitions[0].committed_metadata = Some("mine".into());
    assert_eq!(host.commit_as(10, request), ErrorCode::NONE);
    host.restart();
    let mut fetch = |id: Uuid| {
        let request = OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: "t".into(),
                topic_id: id,
                partition_indexes: vec![0],
            }]),
            ..OffsetFetchRequestGroup::default()
        };
        let reply = host.fetch_group(request, false);
        assert_eq!(reply.topics[0].topic_id, id);
        let partition = reply.topics[0].partitions[0].clone();
        (
            partition.committed_offset,
            partition.committed_leader_epoch,
            partition.metadata,
        )
    };
    assert_eq!(fetch(topic_id), (1, 4, Some("mine".into())));
    assert_eq!(fetch(Uuid::ZERO), (1, 4, Some("mine".into())));
    assert_eq!(fetch(other_id), (-1, -1, Some("".into())));
}

#[test]
fn null_asks_for_all_topics() {
    let mut host = Host::new();
    for (topic, partition) in [("b", 1), ("a", 0), ("b", 0)] {
        assert_eq!(host.commit("g", topic, partition, 5), ErrorCode::NONE);
    }
    assert_eq!(
        host.txn_commit(txn_commit("g", 1, "b", 0, 6)),
        ErrorCode::NONE
    );
    let request = OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: None,
        ..OffsetFetchRequestGroup::default()
    };
    let unstable = ErrorCode::UNSTABLE_OFFSET_COMMIT;
    for (require_stable, b_0) in [(false, (0, 5, ErrorCode::NONE)), (true, (0, -1, unstable))] {
        let reply = host.fetch_group(request.clone(), require_stable);
        let all: Vec<_> = reply
            .topics
            .iter()
            .flat_map(|topic| {
                topic.partitions.iter().map(|partition| {
                    (
                        topic.name.to_string(),
                        (
                            partition.partition_index,
                            partition.committed_offset,
                            partition.error_code,
                        ),
                    )
                })
            })
            .collect();
        let expected = [
            ("a".to_owned(), (0, 5, ErrorCode::NONE)),
            ("b".to_owned(), b_0),
            ("b".to_owned(), (1, 5, ErrorCode::NONE)),
        ];
        assert_eq!(all, expected);
    }
    let nobody = OffsetFetchRequestGroup {
        group_id: "h".into(),
        topics: None,
        ..OffsetFetchRequestGroup::default()
    };
    let reply = host.fetch_group(nobody, true);
    assert_eq!((reply.topics.len(), reply.error_code), (0, ErrorCode::NONE));
}

#[test]
fn a_request_too_large_for_one_batch_is_refused_whole() {
    let mut host = Host::new();
    let partitions = (0..300)
        .map(|index| OffsetCommitRequestPartition {
            partition_index: index,
            committed_offset: 1,
            committed_metadata: Some("m".repeat(4_000).into()),
            ..OffsetCommitRequestPartition::default()
        })
        .collect();
    let mut request = commit("g", "", -1, "t", 0, 1);
    request.topics[0].partitions = partitions;
    let error = host.commit_as(9, request);
    assert_eq!(error, ErrorCode::INVALID_COMMIT_OFFSET_SIZE);
    assert!(host.log.is_empty());
    assert_eq!(host.coordinator.counts().groups, 0);
}

fn delete(host: &mut Host, group: &str, topic: &str, partitions: &[i32]) -> OffsetDeleteResponse {
    let request = OffsetDeleteRequest {
        group_id: group.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: partitions
                .iter()
                .map(|index| OffsetDeleteRequestPartition {
                    partition_index: *index,
                })
                .collect(),
        }],
    };
    let token = host.call(0, request, GroupCoordinator::offset_delete);
    match host.reply(token) {
        GroupReply::OffsetDelete(reply) => reply.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn offsets_are_deleted_on_request() {
    let mut host = Host::new();
    host.commit("g", "t", 0, 5);
    host.commit("g", "t", 1, 5);
    host.txn_commit(txn_commit("g", 1, "t", 1, 6));
    let records = host.log.len();
    let reply = delete(&mut host, "g", "t", &[0, 1, 2]);
    assert_eq!(reply.error_code, ErrorCode::NONE);
    let fine = |index: usize| reply.topics[0].partitions[index].error_code == ErrorCode::NONE;
    assert!(fine(0) && fine(1) && fine(2));
    assert_eq!(host.log.len(), records + 2, "one for each that was there");
    host.marker(1, true);
    assert_eq!(
        host.fetch("g", "t", 1),
        Ok(-1),
        "the pending one is gone too"
    );
    assert_eq!(host.coordinator.counts().pending_offsets, 0);
    host.restart();
    assert_eq!(host.fetch("g", "t", 0), Ok(-1));
    assert_eq!(host.fetch("g", "t", 1), Ok(-1));
}

#[test]
fn offsets_in_use_are_not_deleted() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 1);
    for topic in ["t", "u"] {
        let request = commit("g", &ids[0], 1, topic, 0, 1);
        assert_eq!(host.commit_as(9, request), ErrorCode::NONE);
    }
    let reply = delete(&mut host, "g", "t", &[0]);
    assert_eq!(reply.error_code, ErrorCode::NONE);
    let error = reply.topics[0].partitions[0].error_code;
    assert_eq!(error, ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC);
    let reply = delete(&mut host, "g", "u", &[0]);
    assert_eq!(reply.topics[0].partitions[0].error_code, ErrorCode::NONE);
    assert_eq!(host.fetch("g", "t", 0), Ok(1));
    assert_eq!(host.fetch("g", "u", 0), Ok(-1));
    let error = |host: &mut Host, group: &str| delete(host, group, "t", &[0]).error_code;
    assert_eq!(error(&mut host, ""), ErrorCode::INVALID_GROUP_ID);
    assert_eq!(error(&mut host, "h"), ErrorCode::GROUP_ID_NOT_FOUND);
    // Of members that are no consumers nobody knows what they use.
    let mut connect = join("c", "");
    connect.protocol_type = "connect".into();
    host.join_request(3, connect);
    host.advance(3_000);
    assert_eq!(error(&mut host, "c"), ErrorCode::NON_EMPTY_GROUP);
}

#[test]
fn a_time_that_the_client_asks_for_is_kept() {
    let mut host = Host::new();
    let request = OffsetCommitRequest {
        retention_time_ms: 1_000,
        ..commit("g", "", -1, "t", 0, 5)
    };
    assert_eq!(host.commit_as(4, request), ErrorCode::NONE);
    host.restart();
    host.advance(999);
    let now = host.now;
    host.event(|coordinator, out| coordinator.expire(now, out));
    assert_eq!(host.fetch("g", "t", 0), Ok(5));
    host.advance(1);
    let now = host.now;
    host.event(|coordinator, out| coordinator.expire(now, out));
    assert_eq!(host.fetch("g", "t", 0), Ok(-1));
}

#[test]
fn all_that_is_committed_is_about_the_topics_that_there_are() {
    let mut host = Host::new();
    let (old, new) = (Uuid([1; 16]), Uuid([2; 16]));
    for (topic, partition, topic_id) in [("t", 0, old), ("t", 1, new), ("u", 0, old)] {
        let mut request = commit("g", "", -1, topic, partition, 5);
        request.topics[0].topic_id = topic_id;
        assert_eq!(host.commit_as(10, request), ErrorCode::NONE);
    }
    host.commit("g", "t", 2, 5);
    // The deletion of the older `t` has not come to this group yet, of `u` there is no newer one.
    host.topics.0.insert("t".into(), new);
    let all = OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: None,
        ..OffsetFetchRequestGroup::default()
    };
    let reply = host.fetch_group(all, true);
    let found = reply.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| (&*topic.name, partition.partition_index))
    });
    assert_eq!(found.collect::<Vec<_>>(), [("t", 1), ("t", 2), ("u", 0)]);
}
