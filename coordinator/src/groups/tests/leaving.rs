//! LeaveGroup: members go by themselves or are removed, and what then happens to the others.

use ringlog_net::ErrorCode;
use ringlog_net::messages::join_group::JoinGroupRequest;
use ringlog_net::messages::leave_group::LeaveGroupRequest;

use super::harness::{self, Host, join};

#[test]
fn the_last_to_leave_empties_the_group_and_that_is_stored() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 1);
    let records = host.log.len();
    let token = host.leave("g", &[(&ids[0], None)]);
    assert_eq!(host.left(token).members[0].error_code, ErrorCode::NONE);
    assert_eq!(host.state("g").as_deref(), Some("Empty"));
    assert_eq!(host.log.len(), records + 1);
    assert_eq!(host.generation("g"), 2);
    host.restart();
    assert_eq!(host.state("g").as_deref(), Some("Empty"));
    assert_eq!(host.generation("g"), 2);
    assert_eq!(host.coordinator.counts().timers, 0);
}

#[test]
fn several_leave_at_once_and_each_is_told() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 3);
    let token = host.leave("g", &[(&ids[0], None), ("nobody", None), (&ids[2], None)]);
    let errors: Vec<_> = host
        .left(token)
        .members
        .iter()
        .map(|member| member.error_code)
        .collect();
    let expected = [
        ErrorCode::NONE,
        ErrorCode::UNKNOWN_MEMBER_ID,
        ErrorCode::NONE,
    ];
    assert_eq!(errors, expected);
    assert_eq!(host.state("g").as_deref(), Some("PreparingRebalance"));
    let token = host.join_request(9, join("g", &ids[1]));
    assert_eq!(host.joined(token).leader, ids[1]);
}

#[test]
fn older_versions_name_one_member_and_get_one_error() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 1);
    for (member_id, error) in [
        ("nobody", ErrorCode::UNKNOWN_MEMBER_ID),
        (&ids[0], ErrorCode::NONE),
    ] {
        let request = LeaveGroupRequest {
            group_id: "g".into(),
            member_id: member_id.into(),
            ..LeaveGroupRequest::default()
        };
        let token = host.call(2, request, harness::leave_group);
        assert_eq!(host.left(token).error_code, error);
        assert!(host.left(token).members.is_empty());
    }
    let token = host.leave("", &[]);
    assert_eq!(host.left(token).error_code, ErrorCode::INVALID_GROUP_ID);
    let token = host.leave("other", &[("m", Some("i"))]);
    let reply = host.left(token);
    assert_eq!(reply.error_code, ErrorCode::NONE);
    assert_eq!(reply.members[0].error_code, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn an_administrator_removes_by_name() {
    let mut host = Host::new();
    let request = JoinGroupRequest {
        group_instance_id: Some("a".into()),
        ..join("g", "")
    };
    let joining = host.join_request(9, request);
    let token = host.leave("g", &[("", Some("b")), ("", Some("a")), ("", None)]);
    let errors: Vec<_> = host
        .left(token)
        .members
        .iter()
        .map(|member| member.error_code)
        .collect();
    let expected = [
        ErrorCode::UNKNOWN_MEMBER_ID,
        ErrorCode::NONE,
        ErrorCode::UNKNOWN_MEMBER_ID,
    ];
    assert_eq!(errors, expected);
    let reply = host.joined(joining);
    assert_eq!(reply.error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(reply.member_id, "");
    host.advance(3_000);
    assert_eq!(host.state("g").as_deref(), Some("Empty"));
}

#[test]
fn whoever_leaves_while_it_waits_is_answered() {
    let mut host = Host::new();
    let joins = [host.join_anew("g"), host.join_anew("g")];
    host.advance(10_000);
    let leader = host.joined(joins[0].1).leader.clone();
    let follower = &joins.iter().find(|(id, _)| *id != leader).expect("two").0;
    let waiting = host.sync("g", follower, 1, &[]);
    host.leave("g", &[(follower, None)]);
    let error = host.synced(waiting).error_code;
    assert_eq!(error, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn the_one_everybody_waits_for_leaves() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 2);
    let token = host.join_request(9, join("g", &ids[1]));
    assert_eq!(host.joined(token).generation_id, 1, "nothing changed");
    let token = host.join_request(9, join("g", &ids[0]));
    assert!(host.waits(token));
    host.leave("g", &[(&ids[1], None)]);
    assert_eq!(host.joined(token).generation_id, 2);
    let pending = host.join_request(9, join("g", ""));
    let pending = host.joined(pending).member_id.clone();
    let left = host.leave("g", &[(&pending, None)]);
    assert_eq!(host.left(left).members[0].error_code, ErrorCode::NONE);
}
