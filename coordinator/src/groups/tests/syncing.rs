//! SyncGroup and Heartbeat: who gets the assignment, when it is stored, and who is given up.

use ringlog_net::ErrorCode;
use ringlog_net::messages::join_group::JoinGroupRequest;
use ringlog_net::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

use super::harness::{self, Entry, Host, join, protocol, subscription};
use crate::groups::GroupConfig;

#[test]
fn followers_wait_for_the_leader_and_the_group_is_stored_first() {
    let mut host = Host::new();
    let joins = [host.join_anew("g"), host.join_anew("g")];
    host.advance(10_000);
    let leader = host.joined(joins[0].1).leader.clone();
    let follower = &joins.iter().find(|(id, _)| *id != leader).expect("two").0;
    let records = host.log.len();
    let waiting = host.sync("g", follower, 1, &[]);
    assert!(host.waits(waiting));
    assert_eq!(host.log.len(), records);
    // One for a stranger is left out, one that is missing is empty.
    let token = host.sync("g", &leader, 1, &[follower.clone(), "stranger".into()]);
    assert_eq!(host.log.len(), records + 1);
    let reply = host.synced(waiting);
    assert_eq!(reply.error_code, ErrorCode::NONE);
    assert_eq!(&reply.assignment[..], follower.as_bytes());
    assert_eq!(reply.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(reply.protocol_name.as_deref(), Some("range"));
    assert!(host.synced(token).assignment.is_empty());
    assert_eq!(host.state("g").as_deref(), Some("Stable"));
    // Whoever asks again gets it again.
    let again = host.sync("g", follower, 1, &[]);
    assert_eq!(&host.synced(again).assignment[..], follower.as_bytes());
}

#[test]
fn requests_of_others_are_refused() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 1);
    let base = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: ids[0].clone(),
        ..SyncGroupRequest::default()
    };
    let refusals = [
        (
            SyncGroupRequest {
                group_id: "".into(),
                ..base.clone()
            },
            ErrorCode::INVALID_GROUP_ID,
        ),
        (
            SyncGroupRequest {
                group_id: "other".into(),
                ..base.clone()
            },
            ErrorCode::UNKNOWN_MEMBER_ID,
        ),
        (
            SyncGroupRequest {
                member_id: "other".into(),
                ..base.clone()
            },
            ErrorCode::UNKNOWN_MEMBER_ID,
        ),
        (
            SyncGroupRequest {
                generation_id: 2,
                ..base.clone()
            },
            ErrorCode::ILLEGAL_GENERATION,
        ),
        (
            SyncGroupRequest {
                protocol_type: Some("connect".into()),
                ..base.clone()
            },
            ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        ),
        (
            SyncGroupRequest {
                protocol_name: Some("sticky".into()),
                ..base.clone()
            },
            ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        ),
        (
            SyncGroupRequest {
                protocol_type: Some("consumer".into()),
                protocol_name: Some("range".into()),
                ..base.clone()
            },
            ErrorCode::NONE,
        ),
    ];
    for (request, error) in refusals {
        let token = host.call(5, request, harness::sync_group);
        assert_eq!(host.synced(token).error_code, error);
    }
    host.leave("g", &[(&ids[0], None)]);
    let token = host.sync("g", &ids[0], 1, &[]);
    assert_eq!(host.synced(token).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_rebalance_sends_those_who_wait_back() {
    let mut host = Host::new();
    let joins = [host.join_anew("g"), host.join_anew("g")];
    host.advance(10_000);
    let leader = host.joined(joins[0].1).leader.clone();
    let follower = &joins.iter().find(|(id, _)| *id != leader).expect("two").0;
    let waiting = host.sync("g", follower, 1, &[]);
    let changed = JoinGroupRequest {
        protocols: vec![protocol("range", subscription("another"))],
        ..join("g", &leader)
    };
    let changed = host.join_request(9, changed);
    let error = host.synced(waiting).error_code;
    assert_eq!(error, ErrorCode::REBALANCE_IN_PROGRESS);
    let early = host.sync("g", follower, 1, &[]);
    let error = host.synced(early).error_code;
    assert_eq!(error, ErrorCode::REBALANCE_IN_PROGRESS);
    assert!(host.waits(changed));
}

#[test]
fn a_repeated_sync_takes_the_place_of_the_one_before() {
    let mut host = Host::new();
    let joins = [host.join_anew("g"), host.join_anew("g")];
    host.advance(10_000);
    let leader = host.joined(joins[0].1).leader.clone();
    let follower = &joins.iter().find(|(id, _)| *id != leader).expect("two").0;
    let first = host.sync("g", follower, 1, &[]);
    let second = host.sync("g", follower, 1, &[]);
    let error = host.synced(first).error_code;
    assert_eq!(error, ErrorCode::REBALANCE_IN_PROGRESS);
    host.sync("g", &leader, 1, std::slice::from_ref(follower));
    assert_eq!(&host.synced(second).assignment[..], follower.as_bytes());
}

#[test]
fn who_does_not_ask_for_its_assignment_is_given_up() {
    let mut host = Host::new();
    let joins = [
        host.join_anew("g"),
        host.join_anew("g"),
        host.join_anew("g"),
    ];
    host.advance(10_000);
    let leader = host.joined(joins[0].1).leader.clone();
    host.sync("g", &leader, 1, &[]);
    assert_eq!(host.state("g").as_deref(), Some("Stable"));
    for _ in 0..7 {
        for (id, _) in &joins {
            host.heartbeat("g", id, 1);
        }
        host.advance(9_000);
    }
    assert_eq!(host.state("g").as_deref(), Some("PreparingRebalance"));
    let token = host.join_request(9, join("g", &leader));
    let reply = host.joined(token);
    assert_eq!((reply.generation_id, reply.members.len()), (2, 1));
}

#[test]
fn nobody_asks_and_the_group_is_empty() {
    let mut host = Host::new();
    let (id, token) = host.join_anew("g");
    host.advance(3_000);
    assert_eq!(host.joined(token).generation_id, 1);
    for _ in 0..7 {
        host.heartbeat("g", &id, 1);
        host.advance(9_000);
    }
    assert_eq!(host.state("g").as_deref(), Some("Empty"));
    assert_eq!(host.generation("g"), 2);
    assert_eq!(host.coordinator.counts().timers, 0);
}

#[test]
fn heartbeats_keep_a_member_and_silence_loses_it() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 2);
    for _ in 0..5 {
        host.advance(9_999);
        assert_eq!(host.heartbeat("g", &ids[0], 1), ErrorCode::NONE);
        assert_eq!(host.heartbeat("g", &ids[1], 1), ErrorCode::NONE);
    }
    assert_eq!(
        host.heartbeat("g", &ids[0], 0),
        ErrorCode::ILLEGAL_GENERATION
    );
    assert_eq!(
        host.heartbeat("g", "other", 1),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
    assert_eq!(
        host.heartbeat("other", &ids[0], 1),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
    host.advance(9_000);
    assert_eq!(host.heartbeat("g", &ids[0], 1), ErrorCode::NONE);
    host.advance(1_000);
    assert_eq!(
        host.heartbeat("g", &ids[1], 1),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
    assert_eq!(
        host.heartbeat("g", &ids[0], 1),
        ErrorCode::REBALANCE_IN_PROGRESS
    );
}

#[test]
fn a_member_that_waits_for_us_does_not_lapse() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 2);
    let token = host.join_request(9, join("g", &ids[0]));
    for _ in 0..5 {
        host.heartbeat("g", &ids[1], 1);
        host.advance(9_000);
    }
    assert!(host.waits(token), "45 s, and its session is 10 s");
    let other = host.join_request(9, join("g", &ids[1]));
    assert_eq!(host.joined(token).generation_id, 2);
    assert_eq!(host.joined(other).generation_id, 2);
    // From now on it may lapse again.
    host.advance(10_000);
    assert_eq!(
        host.heartbeat("g", &ids[0], 2),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
}

#[test]
fn an_assignment_too_large_to_store_is_given_to_nobody() {
    let mut host = Host::with(GroupConfig {
        batch_bytes_max: 64 << 10,
        ..GroupConfig::default()
    });
    let (id, token) = host.join_anew("g");
    host.advance(3_000);
    assert_eq!(host.joined(token).generation_id, 1);
    let records: Vec<Entry> = host.log.clone();
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: id.clone(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: id.clone(),
            assignment: vec![7; 64 << 10].into(),
        }],
        ..SyncGroupRequest::default()
    };
    let token = host.call(5, request, harness::sync_group);
    let error = host.synced(token).error_code;
    assert_eq!(error, ErrorCode::UNKNOWN_SERVER_ERROR);
    assert_eq!(host.log, records);
    assert_eq!(host.state("g").as_deref(), Some("PreparingRebalance"));
    let token = host.join_request(9, join("g", &id));
    assert_eq!(host.joined(token).generation_id, 2);
    host.sync_all("g", &[id], 2);
}
