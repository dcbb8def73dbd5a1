//! What a coordinator that takes over knows, and what it does with records of others.

use ringlog_net::codec::{Message, Writer};
use ringlog_net::coordinators::{GroupMetadataKey, GroupMetadataValue, MemberMetadata};
use ringlog_net::{Bytes, ErrorCode};

use super::harness::{Host, commit, join, subscription};
use crate::groups::{GroupConfig, GroupCoordinator, ReplayError};

#[test]
fn members_go_on_as_if_nothing_had_happened() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 3);
    host.advance(9_000);
    host.restart();
    host.advance(9_999);
    for id in &ids {
        assert_eq!(
            host.heartbeat("g", id, 1),
            ErrorCode::NONE,
            "a whole session anew"
        );
        let sync = host.sync("g", id, 1, &[]);
        assert_eq!(&host.synced(sync).assignment[..], id.as_bytes());
    }
    let request = commit("g", &ids[1], 1, "t", 0, 1);
    assert_eq!(host.commit_as(9, request), ErrorCode::NONE);
    let token = host.join_request(9, join("g", &ids[1]));
    assert_eq!(host.joined(token).leader, ids[0]);
    host.advance(10_000);
    assert_eq!(host.state("g").as_deref(), Some("Empty"));
}

#[test]
fn what_waits_is_sent_elsewhere_and_a_generation_not_stored_is_lost() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 2);
    let joining = host.join_request(9, join("g", &ids[0]));
    host.event(|coordinator, out| coordinator.resign(out));
    let reply = host.joined(joining);
    assert_eq!(reply.error_code, ErrorCode::NOT_COORDINATOR);
    assert_eq!(reply.member_id, ids[0]);
    host.coordinator = host.loaded();
    assert_eq!(host.heartbeat("g", &ids[0], 1), ErrorCode::NONE);
    let first = host.join_request(9, join("g", &ids[0]));
    host.join_request(9, join("g", &ids[1]));
    assert_eq!(host.joined(first).generation_id, 2);
    let waiting = host.sync("g", &ids[1], 2, &[]);
    host.restart();
    assert_eq!(host.synced(waiting).error_code, ErrorCode::NOT_COORDINATOR);
    assert_eq!(host.generation("g"), 1);
}

fn record(value: &GroupMetadataValue, version: i16) -> (Bytes, Option<Bytes>) {
    let mut key = Writer::new();
    key.i16(2);
    let name = GroupMetadataKey { group: "g".into() };
    name.encode(&mut key, 0).expect("a short name");
    let mut body = Writer::new();
    body.i16(version);
    value.encode(&mut body, version).expect("a small value");
    (key.into_bytes(), Some(body.into_bytes()))
}

fn stored(members: Vec<MemberMetadata>) -> GroupMetadataValue {
    GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation: 4,
        protocol: Some("range".into()),
        leader: Some("m".into()),
        current_state_timestamp: -1,
        members,
    }
}

fn member(id: &str) -> MemberMetadata {
    MemberMetadata {
        member_id: id.into(),
        client_id: "c".into(),
        client_host: "/h".into(),
        session_timeout: 10_000,
        subscription: subscription("t"),
        ..MemberMetadata::default()
    }
}

#[test]
fn older_forms_of_a_group_are_read() {
    for version in 0..=4 {
        let mut host = Host::new();
        let (key, value) = record(&stored(vec![member("m")]), version);
        host.coordinator.replay(None, key, value).expect("a group");
        let now = host.now;
        host.event(|coordinator, out| coordinator.loaded(now, out));
        assert_eq!(host.heartbeat("g", "m", 4), ErrorCode::NONE, "{version}");
        assert_eq!(host.coordinator.counts().stable, 1);
    }
}

#[test]
fn groups_that_no_coordinator_writes_are_refused() {
    let static_member = |id: &str| MemberMetadata {
        group_instance_id: Some("i".into()),
        ..member(id)
    };
    let without_protocol = GroupMetadataValue {
        protocol: None,
        ..stored(vec![member("m")])
    };
    for value in [
        without_protocol,
        stored(vec![member("m"), member("m")]),
        stored(vec![static_member("m"), static_member("n")]),
    ] {
        let mut coordinator = GroupCoordinator::new(GroupConfig::default());
        let (key, value) = record(&value, 3);
        let error = coordinator.replay(None, key, value);
        assert!(
            matches!(error, Err(ReplayError::Contradiction(_))),
            "{error:?}"
        );
        assert_eq!(coordinator.counts().groups, 0);
    }
}

#[test]
fn records_of_other_types_are_counted() {
    let mut coordinator = GroupCoordinator::new(GroupConfig::default());
    for kind in [10u8, 11, 99] {
        let key = Bytes::from(vec![0, kind, 1, 2]);
        assert_eq!(coordinator.replay(None, key, None), Ok(()));
    }
    assert_eq!(coordinator.counts().skipped_records, 3);
    let torn = Bytes::from_static(&[0, 1, 0]);
    assert!(coordinator.replay(None, torn, None).is_err());
}

#[test]
fn a_leader_that_is_not_a_member_is_replaced() {
    let mut host = Host::new();
    let value = GroupMetadataValue {
        leader: Some("gone".into()),
        ..stored(vec![member("m")])
    };
    let (key, value) = record(&value, 3);
    host.coordinator.replay(None, key, value).expect("a group");
    let mut changed = join("g", "m");
    changed.protocols[0].metadata = subscription("u");
    let token = host.join_request(9, changed);
    let reply = host.joined(token);
    assert_eq!((reply.generation_id, &*reply.leader), (5, "m"));
    assert_eq!(reply.members.len(), 1);
}
