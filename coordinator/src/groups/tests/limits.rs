//! Hostile input: whatever is sent, it is answered, and memory stays within the limits that are set.

use proptest::prelude::*;
use proptest::sample::Index;
use ringlog_net::ErrorCode;
use ringlog_net::messages::join_group::JoinGroupRequest;

use super::harness::{Entry, Host, commit, join, protocol, subscription, txn_commit};
use crate::Commands;
use crate::groups::{GroupConfig, GroupCoordinator, ListFilter};

fn small() -> Host {
    Host::with(GroupConfig {
        groups_max: 10,
        pending_members_max: 100,
        members_bytes_max: 64 << 10,
        member_bytes_max: 16 << 10,
        offsets_max: 50,
        ..GroupConfig::default()
    })
}

#[test]
fn empty_ids_by_the_thousand_take_bounded_memory() {
    let mut host = small();
    let mut refused = 0;
    for _ in 0..5_000 {
        let token = host.join_request(9, join("g", ""));
        match host.joined(token).error_code {
            ErrorCode::MEMBER_ID_REQUIRED => {}
            ErrorCode::GROUP_MAX_SIZE_REACHED => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(refused, 4_900);
    let counts = host.coordinator.counts();
    assert_eq!((counts.timers, counts.members), (100, 0));
    assert!(counts.member_bytes <= 64 << 10, "{counts:?}");
    host.advance(10_000);
    assert_eq!(host.coordinator.counts().timers, 0);
    assert_eq!(host.coordinator.counts().member_bytes, 0);
}

#[test]
fn members_take_bounded_memory_and_those_who_are_in_stay() {
    let mut host = small();
    let large = |member_id: &str, bytes: usize| JoinGroupRequest {
        protocols: vec![protocol("range", vec![0; bytes].into())],
        ..join("g", member_id)
    };
    let mut first = None;
    let mut refused = 0;
    for _ in 0..20 {
        let token = host.join_request(3, large("", 12 << 10));
        if host.waits(token) {
            first.get_or_insert(token);
        } else {
            let error = host.joined(token).error_code;
            assert_eq!(error, ErrorCode::GROUP_MAX_SIZE_REACHED);
            refused += 1;
        }
    }
    assert_eq!(refused, 15);
    assert!(host.coordinator.counts().member_bytes <= 64 << 10);
    let token = host.join_request(3, large("", 17 << 10));
    assert_eq!(host.joined(token).error_code, ErrorCode::MESSAGE_TOO_LARGE);
    host.advance(7_000);
    let id = host.joined(first.expect("the first")).member_id.clone();
    let token = host.join_request(3, large(&id, 12 << 10));
    assert_eq!(host.joined(token).error_code, ErrorCode::NONE);
    let token = host.join_request(3, large(&id, 13 << 10));
    let error = host.joined(token).error_code;
    assert_eq!(error, ErrorCode::GROUP_MAX_SIZE_REACHED);
}

#[test]
fn groups_are_limited() {
    let mut host = small();
    for index in 0..10 {
        assert_eq!(
            host.commit(&format!("g{index}"), "t", 0, 1),
            ErrorCode::NONE
        );
    }
    assert_eq!(
        host.commit("one-more", "t", 0, 1),
        ErrorCode::POLICY_VIOLATION
    );
    let error = host.txn_commit(txn_commit("one-more", 1, "t", 0, 1));
    assert_eq!(error, ErrorCode::POLICY_VIOLATION);
    let token = host.join_request(9, join("one-more", ""));
    assert_eq!(host.joined(token).error_code, ErrorCode::POLICY_VIOLATION);
    assert_eq!(host.commit("g3", "t", 0, 2), ErrorCode::NONE);
    let token = host.join_request(9, join("g3", ""));
    assert_eq!(host.joined(token).error_code, ErrorCode::MEMBER_ID_REQUIRED);
}

#[test]
fn offsets_are_limited_and_those_that_are_there_can_be_changed() {
    let mut host = small();
    for partition in 0..40 {
        assert_eq!(host.commit("g", "t", partition, 1), ErrorCode::NONE);
    }
    for producer in 0..10 {
        let request = txn_commit("g", producer, "t", 0, 1);
        assert_eq!(host.txn_commit(request), ErrorCode::NONE);
    }
    assert_eq!(host.commit("g", "t", 40, 1), ErrorCode::POLICY_VIOLATION);
    let error = host.txn_commit(txn_commit("g", 10, "t", 0, 1));
    assert_eq!(error, ErrorCode::POLICY_VIOLATION);
    assert_eq!(host.commit("g", "t", 39, 2), ErrorCode::NONE);
    let request = txn_commit("g", 9, "t", 0, 2);
    assert_eq!(host.txn_commit(request), ErrorCode::NONE);
    let counts = host.coordinator.counts();
    assert_eq!((counts.offsets, counts.pending_offsets), (40, 10));
}

#[test]
fn names_are_limited() {
    let mut host = Host::new();
    let long = "x".repeat(9 << 10);
    let cases = [
        (join(&long, ""), ErrorCode::INVALID_GROUP_ID),
        (
            JoinGroupRequest {
                group_instance_id: Some(long.as_str().into()),
                ..join("g", "")
            },
            ErrorCode::INVALID_REQUEST,
        ),
        (
            JoinGroupRequest {
                protocol_type: long.as_str().into(),
                ..join("g", "")
            },
            ErrorCode::INVALID_REQUEST,
        ),
        (
            JoinGroupRequest {
                protocols: vec![protocol(&long, subscription("t"))],
                ..join("g", "")
            },
            ErrorCode::INVALID_REQUEST,
        ),
        (
            JoinGroupRequest {
                protocols: (0..33)
                    .map(|index| protocol(&format!("p{index}"), subscription("t")))
                    .collect(),
                ..join("g", "")
            },
            ErrorCode::INVALID_REQUEST,
        ),
    ];
    for (request, error) in cases {
        let token = host.join_request(9, request);
        assert_eq!(host.joined(token).error_code, error);
    }
    assert_eq!(host.commit(&long, "t", 0, 1), ErrorCode::INVALID_GROUP_ID);
    assert_eq!(host.coordinator.counts().groups, 0);
}

#[test]
fn numbers_at_their_ends_do_no_harm() {
    let mut host = Host::new();
    for timeout in [i32::MIN, -1, 0, i32::MAX] {
        let group = format!("g{timeout}");
        let request = JoinGroupRequest {
            rebalance_timeout_ms: timeout,
            group_instance_id: Some("a".into()),
            ..join(&group, "")
        };
        host.join_request(9, request.clone());
        host.join_request(9, request);
        host.advance(20_000);
        for generation in [i32::MIN, -1, i32::MAX] {
            host.heartbeat(&group, "", generation);
            host.sync(&group, "", generation, &[]);
            host.commit_as(9, commit(&group, "x", generation, "t", i32::MIN, i64::MIN));
        }
    }
    let mut request = commit("g", "", -1, "t", -1, -1);
    for retention in [i64::MIN, i64::MAX] {
        request.retention_time_ms = retention;
        assert_eq!(host.commit_as(4, request.clone()), ErrorCode::NONE);
    }
    let error = host.txn_commit(txn_commit("g", -1, "t", 0, 1));
    assert_eq!(error, ErrorCode::INVALID_PRODUCER_ID_MAPPING);
    let now = host.now;
    host.event(|coordinator, out| coordinator.expire(now, out));
    host.advance(3_000_000_000);
    host.restart();
}

#[test]
fn a_protocol_that_is_named_twice_counts_once() {
    let mut host = Host::new();
    let twice = JoinGroupRequest {
        protocols: vec![
            protocol("range", subscription("t")),
            protocol("range", subscription("u")),
        ],
        ..join("g", "")
    };
    let first = host.join_request(3, twice.clone());
    let second = host.join_request(3, twice);
    host.advance(10_000);
    for token in [first, second] {
        let reply = host.joined(token);
        assert_eq!(reply.protocol_name.as_deref(), Some("range"));
        assert!(
            reply
                .members
                .iter()
                .all(|member| member.metadata == subscription("t"))
        );
    }
    let id = host.joined(first).member_id.clone();
    host.leave("g", &[(&id, None)]);
    host.join_request(3, join("g", ""));
    host.advance(100_000);
    assert_eq!(host.waiting(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever stands in the log, reading it neither panics nor leaves a group that cannot go on.
    #[test]
    fn a_damaged_log_does_no_harm(
        damage in prop::collection::vec((any::<Index>(), any::<bool>(), any::<Index>(), any::<u8>()), 1..8),
    ) {
        let mut host = Host::new();
        let ids = host.stable_group("g", 2);
        host.commit_as(9, commit("g", &ids[0], 1, "t", 0, 1));
        host.txn_commit(txn_commit("g", 7, "t", 1, 1));
        host.commit("h", "t", 0, 1);
        let mut log = host.log.clone();
        for (record, is_key, position, byte) in damage {
            let place = record.index(log.len());
            let Entry::Record(_, record) = &mut log[place] else {
                continue;
            };
            let bytes = match &mut record.value {
                Some(value) if !is_key => value,
                _ => &mut record.key,
            };
            let mut damaged = bytes.to_vec();
            let position = position.index(damaged.len());
            damaged[position] = byte;
            *bytes = damaged.into();
        }
        let mut coordinator = GroupCoordinator::new(GroupConfig::default());
        for entry in log {
            if let Entry::Record(producer, record) = entry {
                // An error is as good an answer as any.
                let _ = coordinator.replay(producer, record.key, record.value);
            }
        }
        coordinator.on_transaction_marker(7, true);
        let mut out = Commands::default();
        coordinator.loaded(host.now, &mut out);
        host.coordinator = coordinator;
        host.join_request(9, join("g", &ids[0]));
        for id in &ids {
            host.heartbeat("g", id, 1);
            host.sync("g", id, 1, &[]);
        }
        host.event(|coordinator, out| {
            let mut filters = ListFilter::default();
            filters.types.push("classic".into());
            assert_eq!(coordinator.list_groups(&filters).len(), coordinator.counts().groups);
            coordinator.resign(out);
        });
        prop_assert_eq!(host.waiting(), 0);
    }
}
