//! ListGroups, DescribeGroups, DeleteGroups, and topics that are deleted.

use ringlog_net::messages::describe_groups::DescribedGroup;
use ringlog_net::messages::offset_commit::OffsetCommitRequestPartition;
use ringlog_net::{ErrorCode, Str, Uuid};

use super::harness::{Host, commit, join, subscription, txn_commit};
use crate::Token;
use crate::groups::{GroupConfig, GroupCoordinator, GroupReply, ListFilter};

fn describe(host: &mut Host, version: i16, group: &str) -> DescribedGroup {
    let token = host.call(version, group.into(), GroupCoordinator::describe_group);
    match host.reply(token) {
        GroupReply::DescribedGroup(reply) => reply.clone(),
        other => panic!("{other:?}"),
    }
}

fn delete(host: &mut Host, group: &str) -> Token {
    host.call(2, group.into(), GroupCoordinator::delete_group)
}

fn deleted(host: &Host, token: Token) -> ErrorCode {
    match host.reply(token) {
        GroupReply::DeletedGroup(reply) => reply.error_code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut host = Host::new();
    host.stable_group("stable", 2);
    host.commit("empty", "t", 0, 1);
    let list = |states: &[&str], types: &[&str]| {
        let strings = |names: &[&str]| names.iter().map(|name| Str::from(*name)).collect();
        let filter = ListFilter {
            states: strings(states),
            types: strings(types),
        };
        let listed = host.coordinator.list_groups(&filter);
        let names = listed.iter().map(|group| group.group_id.to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(list(&[], &[]), ["empty", "stable"]);
    assert_eq!(list(&["stable "], &[]), ["stable"]);
    assert_eq!(list(&["EMPTY", "Dead"], &["Classic"]), ["empty"]);
    assert_eq!(list(&[], &["consumer"]), [""; 0]);
    let all = host.coordinator.list_groups(&ListFilter::default());
    assert_eq!(all[0].protocol_type, "");
    assert_eq!(all[1].protocol_type, "consumer");
    assert_eq!(
        (&*all[1].group_state, &*all[1].group_type),
        ("Stable", "classic")
    );
    let counts = host.coordinator.counts();
    assert_eq!((counts.groups, counts.stable, counts.empty), (2, 1, 1));
    assert_eq!((counts.members, counts.offsets), (2, 1));
}

#[test]
fn a_group_is_described_with_its_members() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 2);
    let group = describe(&mut host, 6, "g");
    assert_eq!(group.error_code, ErrorCode::NONE);
    assert_eq!(
        (&*group.group_state, &*group.protocol_type),
        ("Stable", "consumer")
    );
    assert_eq!(group.protocol_data, "range");
    assert_eq!(group.members.len(), 2);
    for member in &group.members {
        assert!(ids.contains(&member.member_id));
        assert_eq!(
            (&*member.client_id, &*member.client_host),
            ("client", "/127.0.0.1")
        );
        assert_eq!(member.member_metadata, subscription("t"));
        assert_eq!(&member.member_assignment[..], member.member_id.as_bytes());
    }
    host.join_request(9, join("g", &ids[0]));
    let group = describe(&mut host, 6, "g");
    assert_eq!(group.group_state, "PreparingRebalance");
    assert!(group.members[0].member_metadata.is_empty());
    let group = describe(&mut host, 5, "h");
    assert_eq!(
        (group.error_code, &*group.group_state),
        (ErrorCode::NONE, "Dead")
    );
    let group = describe(&mut host, 6, "h");
    assert_eq!(group.error_code, ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(group.error_message.as_deref(), Some("Group h not found."));
    assert_eq!(group.group_state, "Dead");
}

#[test]
fn only_a_group_without_members_is_deleted() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 1);
    host.commit_as(9, commit("g", &ids[0], 1, "t", 0, 1));
    host.txn_commit(txn_commit("g", 7, "t", 1, 2));
    let token = delete(&mut host, "g");
    assert_eq!(deleted(&host, token), ErrorCode::NON_EMPTY_GROUP);
    let token = delete(&mut host, "h");
    assert_eq!(deleted(&host, token), ErrorCode::GROUP_ID_NOT_FOUND);
    host.leave("g", &[(&ids[0], None)]);
    let token = delete(&mut host, "g");
    assert_eq!(deleted(&host, token), ErrorCode::NONE);
    assert_eq!(host.state("g"), None);
    host.marker(7, true);
    assert_eq!(
        host.fetch("g", "t", 1),
        Ok(-1),
        "deleted before it was seen"
    );
    host.restart();
    let counts = host.coordinator.counts();
    assert_eq!(
        (counts.groups, counts.offsets, counts.member_bytes),
        (0, 0, 0)
    );
}

/// A group with offsets whose tombstones do not fit into one batch.
fn large(host: &mut Host, group: &str) {
    for first in (0..4_000).step_by(500) {
        let mut request = commit(group, "", -1, "t", 0, 1);
        request.topics[0].partitions = (first..first + 500)
            .map(|index| OffsetCommitRequestPartition {
                partition_index: index,
                committed_offset: 1,
                ..OffsetCommitRequestPartition::default()
            })
            .collect();
        assert_eq!(host.commit_as(9, request), ErrorCode::NONE);
    }
}

fn small_batches() -> Host {
    Host::with(GroupConfig {
        batch_bytes_max: 64 << 10,
        ..GroupConfig::default()
    })
}

#[test]
fn a_group_with_many_offsets_is_deleted_in_steps() {
    let mut host = small_batches();
    large(&mut host, "g");
    let token = delete(&mut host, "g");
    assert!(host.waits(token));
    host.advance(0);
    assert_eq!(deleted(&host, token), ErrorCode::NONE);
    assert_eq!(host.state("g"), None);
    host.restart();
    assert_eq!(host.coordinator.counts().offsets, 0);
    // One that is not finished when the coordinator goes is answered.
    large(&mut host, "g");
    let token = delete(&mut host, "g");
    host.restart();
    assert_eq!(deleted(&host, token), ErrorCode::NOT_COORDINATOR);
    let token = delete(&mut host, "g");
    host.advance(0);
    assert_eq!(deleted(&host, token), ErrorCode::NONE);
}

#[test]
fn a_topic_takes_its_offsets_along() {
    let mut host = small_batches();
    large(&mut host, "g");
    host.commit("g", "s", 0, 1);
    host.commit("g", "t2", 0, 1);
    host.commit("h", "t", 0, 1);
    host.txn_commit(txn_commit("i", 7, "t", 0, 1));
    let now = host.now;
    host.event(|coordinator, out| coordinator.on_topic_deleted("t", Uuid::ZERO, now, out));
    assert!(
        host.coordinator.counts().offsets > 3,
        "one step is not enough"
    );
    host.advance(0);
    host.marker(7, true);
    let left = |host: &Host| {
        let offsets = host.coordinator.committed_offsets();
        let topics = offsets.map(|(_, topic, ..)| topic.to_string());
        topics.collect::<Vec<_>>()
    };
    assert_eq!(left(&host), ["s", "t2"]);
    host.restart();
    assert_eq!(left(&host), ["s", "t2"]);
}

#[test]
fn a_newer_topic_of_the_same_name_keeps_its_offsets() {
    let mut host = Host::new();
    let (old, new) = (Uuid([1; 16]), Uuid([2; 16]));
    for (partition, topic_id) in [(0, old), (1, new), (2, Uuid::ZERO)] {
        let mut request = commit("g", "", -1, "t", partition, 1);
        request.topics[0].topic_id = topic_id;
        assert_eq!(host.commit_as(10, request), ErrorCode::NONE);
    }
    let now = host.now;
    host.event(|coordinator, out| coordinator.on_topic_deleted("t", old, now, out));
    let left: Vec<i32> = host
        .coordinator
        .committed_offsets()
        .map(|(_, _, partition, _)| partition)
        .collect();
    assert_eq!(left, [1]);
}

#[test]
fn what_is_committed_while_a_topic_is_being_deleted_is_about_a_newer_one() {
    let mut host = Host::with(GroupConfig {
        groups_per_call_max: 1,
        ..GroupConfig::default()
    });
    let (old, new) = (Uuid([1; 16]), Uuid([2; 16]));
    host.commit("a", "t", 0, 1);
    for (group, producer_id) in [("b", 7), ("c", 8), ("d", 9), ("e", 10)] {
        let error = host.txn_commit_in(txn_commit(group, producer_id, "t", 0, 1), old);
        assert_eq!(error, ErrorCode::NONE);
    }
    // Heard of the new topic before its coordinator has heard that the old one is gone.
    host.txn_commit_in(txn_commit("b", 11, "t", 0, 2), new);
    let now = host.now;
    host.event(|coordinator, out| coordinator.on_topic_deleted("t", old, now, out));
    // The first step was for group `a`; the others come after these commits.
    host.txn_commit(txn_commit("c", 12, "t", 0, 3));
    host.commit("d", "t", 0, 4);
    host.advance(0);
    for restart in [false, true] {
        if restart {
            host.restart();
        }
        let counts = host.coordinator.counts();
        assert_eq!(
            (counts.offsets, counts.pending_offsets),
            (1, 5),
            "{restart}"
        );
    }
    for producer_id in [11, 7, 12, 8, 9, 10] {
        host.marker(producer_id, true);
    }
    for restart in [false, true] {
        if restart {
            host.restart();
        }
        let left = host.coordinator.committed_offsets();
        let left: Vec<(String, i64)> = left
            .map(|(group, _, _, offset)| (group.to_string(), offset))
            .collect();
        let expected = [("b", 2), ("c", 3), ("d", 4)];
        assert_eq!(left, expected.map(|(group, offset)| (group.into(), offset)));
    }
}
