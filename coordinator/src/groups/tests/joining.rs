//! JoinGroup: ids, protocols, limits of time, and when a generation begins.

use ringlog_net::ErrorCode;
use ringlog_net::messages::join_group::JoinGroupRequest;

use super::harness::{self, Host, join, protocol, subscription};
use crate::groups::GroupConfig;

#[test]
fn a_member_must_come_back_with_the_id_it_is_told() {
    let mut host = Host::new();
    let token = host.join_request(4, join("g", ""));
    let reply = host.joined(token);
    assert_eq!(reply.error_code, ErrorCode::MEMBER_ID_REQUIRED);
    assert_eq!(reply.generation_id, -1);
    assert_eq!(
        reply.member_id,
        "client-00000000-0000-0000-0000-000000000001"
    );
    let id = reply.member_id.clone();
    // The group exists, and its record says so, although nobody is in it.
    assert_eq!(host.state("g").as_deref(), Some("Empty"));
    assert_eq!(host.log.len(), 1);
    let token = host.join_request(4, join("g", &id));
    assert!(host.waits(token), "the initial delay runs");
    assert_eq!(host.state("g").as_deref(), Some("PreparingRebalance"));
    host.advance(3_000);
    let reply = host.joined(token);
    assert_eq!(
        (reply.error_code, reply.generation_id),
        (ErrorCode::NONE, 1)
    );
    assert_eq!((&reply.leader, &reply.member_id), (&id, &id));
    assert_eq!(reply.members.len(), 1);
    assert_eq!(reply.members[0].metadata, subscription("t"));
    assert_eq!(reply.protocol_name.as_deref(), Some("range"));
    assert_eq!(host.state("g").as_deref(), Some("CompletingRebalance"));
}

#[test]
fn older_clients_come_in_at_once() {
    let mut host = Host::new();
    for version in 0..4 {
        let group = format!("g{version}");
        let mut request = join(&group, "");
        request.rebalance_timeout_ms = if version == 0 { -1 } else { 20_000 };
        let token = host.join_request(version, request);
        assert!(host.waits(token));
        host.advance(3_000);
        let reply = host.joined(token);
        assert_eq!(reply.error_code, ErrorCode::NONE);
        assert_eq!(reply.protocol_name.as_deref(), Some("range"));
    }
    let token = host.join_request(2, join("", ""));
    // The version cannot say that there is no protocol.
    assert_eq!(host.joined(token).protocol_name.as_deref(), Some(""));
}

#[test]
fn an_id_that_was_given_out_lapses() {
    let mut host = Host::new();
    let token = host.join_request(9, join("g", ""));
    let id = host.joined(token).member_id.clone();
    host.advance(10_000);
    let token = host.join_request(9, join("g", &id));
    assert_eq!(host.joined(token).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(host.coordinator.counts().timers, 0);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut host = Host::new();
    let refusals = [
        (join("", ""), ErrorCode::INVALID_GROUP_ID),
        (
            JoinGroupRequest {
                session_timeout_ms: 5_999,
                ..join("g", "")
            },
            ErrorCode::INVALID_SESSION_TIMEOUT,
        ),
        (
            JoinGroupRequest {
                session_timeout_ms: 1_800_001,
                ..join("g", "")
            },
            ErrorCode::INVALID_SESSION_TIMEOUT,
        ),
        (join("g", "nobody"), ErrorCode::UNKNOWN_MEMBER_ID),
        (
            JoinGroupRequest {
                protocols: Vec::new(),
                ..join("g", "")
            },
            ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        ),
        (
            JoinGroupRequest {
                protocol_type: "".into(),
                ..join("g", "")
            },
            ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        ),
    ];
    for (request, error) in refusals {
        let token = host.join_request(9, request);
        assert_eq!(host.joined(token).error_code, error);
    }
    assert_eq!(host.coordinator.counts().groups, 0, "no group is made");
    assert!(host.log.is_empty());
}

#[test]
fn the_protocol_most_members_prefer_is_taken_of_those_all_know() {
    let mut host = Host::new();
    let offers = [
        vec!["only-mine", "range", "sticky"],
        vec!["sticky", "range"],
        vec!["sticky", "range", "other"],
    ];
    let mut tokens = Vec::new();
    for names in offers {
        let request = JoinGroupRequest {
            protocols: names
                .iter()
                .map(|name| protocol(name, subscription(name)))
                .collect(),
            ..join("g", "")
        };
        tokens.push(host.join_request(3, request));
    }
    let strangers = JoinGroupRequest {
        protocols: vec![protocol("other", subscription("t"))],
        ..join("g", "")
    };
    let stranger = host.join_request(3, strangers);
    let other_type = JoinGroupRequest {
        protocol_type: "connect".into(),
        ..join("g", "")
    };
    let other_type = host.join_request(3, other_type);
    for token in [stranger, other_type] {
        let error = host.joined(token).error_code;
        assert_eq!(error, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    }
    host.advance(10_000);
    for token in tokens {
        let reply = host.joined(token);
        assert_eq!(reply.protocol_name.as_deref(), Some("sticky"));
        for member in &reply.members {
            assert_eq!(member.metadata, subscription("sticky"));
        }
    }
}

#[test]
fn the_first_rebalance_waits_on_while_members_come() {
    let mut host = Host::new();
    let (_, first) = host.join_anew("g");
    host.advance(2_000);
    let (_, second) = host.join_anew("g");
    host.advance(1_000);
    assert!(host.waits(first), "somebody came, so the delay is extended");
    host.advance(2_999);
    assert!(host.waits(first) && host.waits(second));
    host.advance(1);
    assert_eq!(host.joined(first).generation_id, 1);
    assert_eq!(host.joined(second).generation_id, 1);
}

#[test]
fn the_first_rebalance_does_not_wait_longer_than_members_allow() {
    let mut host = Host::new();
    let patient = JoinGroupRequest {
        rebalance_timeout_ms: 7_000,
        ..join("g", "")
    };
    let first = host.join_request(3, patient.clone());
    for _ in 0..7 {
        assert!(host.waits(first));
        host.join_request(3, patient.clone());
        host.advance(1_000);
    }
    assert!(!host.waits(first), "7 s is all there was");
    assert_eq!(host.waiting(), 0);
}

#[test]
fn a_rebalance_ends_as_soon_as_all_have_come_back() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 3);
    let (newcomer, joining) = host.join_anew("g");
    assert_eq!(
        host.heartbeat("g", &ids[1], 1),
        ErrorCode::REBALANCE_IN_PROGRESS
    );
    let mut tokens = vec![joining];
    for id in &ids {
        assert_eq!(host.state("g").as_deref(), Some("PreparingRebalance"));
        tokens.push(host.join_request(9, join("g", id)));
    }
    let leaders = tokens
        .iter()
        .filter(|token| host.joined(**token).members.len() == 4);
    assert_eq!(leaders.count(), 1, "the leader alone is told who is there");
    for token in tokens {
        let reply = host.joined(token);
        assert_eq!((reply.generation_id, &reply.leader), (2, &ids[0]));
    }
    assert!(!newcomer.is_empty());
}

#[test]
fn who_does_not_come_back_is_given_up_and_leads_no_longer() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 2);
    let (newcomer, joining) = host.join_anew("g");
    // The old leader lives but does not join; the other member does nothing.
    for _ in 0..7 {
        host.heartbeat("g", &ids[0], 1);
        host.advance(9_000);
    }
    let reply = host.joined(joining);
    assert_eq!((reply.generation_id, &reply.leader), (2, &newcomer));
    assert_eq!(reply.members.len(), 1);
    assert_eq!(
        host.heartbeat("g", &ids[0], 2),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
}

#[test]
fn a_pending_member_holds_a_rebalance_up_until_its_session_ends() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 1);
    host.join_request(9, join("g", ""));
    assert_eq!(host.state("g").as_deref(), Some("Stable"));
    let token = host.join_request(9, join("g", &ids[0]));
    assert!(host.waits(token));
    host.advance(10_000);
    assert_eq!(host.joined(token).generation_id, 2);
}

#[test]
fn a_repeated_join_takes_the_place_of_the_one_before() {
    let mut host = Host::new();
    let (id, first) = host.join_anew("g");
    let second = host.join_request(9, join("g", &id));
    let error = host.joined(first).error_code;
    assert_eq!(error, ErrorCode::REBALANCE_IN_PROGRESS);
    host.advance(3_000);
    assert_eq!(host.joined(second).generation_id, 1);
    // The answer was lost: while the leader assigns, it is given again.
    let third = host.join_request(9, join("g", &id));
    assert_eq!(host.joined(third).generation_id, 1);
    assert_eq!(host.joined(third).members.len(), 1);
    assert_eq!(host.state("g").as_deref(), Some("CompletingRebalance"));
}

#[test]
fn only_a_change_or_the_leader_starts_a_rebalance() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 2);
    let token = host.join_request(9, join("g", &ids[1]));
    let reply = host.joined(token);
    assert_eq!((reply.generation_id, reply.members.len()), (1, 0));
    assert_eq!(host.state("g").as_deref(), Some("Stable"));
    let changed = JoinGroupRequest {
        protocols: vec![protocol("range", subscription("another"))],
        ..join("g", &ids[1])
    };
    let changed = host.join_request(9, changed);
    assert!(host.waits(changed));
    assert_eq!(host.state("g").as_deref(), Some("PreparingRebalance"));
    let leader = host.join_request(9, join("g", &ids[0]));
    assert_eq!(host.joined(leader).generation_id, 2);
    host.sync_all("g", &ids, 2);
    let leader = host.join_request(9, join("g", &ids[0]));
    assert!(host.waits(leader), "a leader may know what we do not");
}

#[test]
fn a_member_that_never_learned_its_id_is_forgotten_after_a_while() {
    let mut host = Host::with(GroupConfig {
        initial_rebalance_delay_ms: 0,
        ..GroupConfig::default()
    });
    let patient = |member_id: &str| JoinGroupRequest {
        rebalance_timeout_ms: 1_000_000,
        session_timeout_ms: 1_000_000,
        ..join("g", member_id)
    };
    let first = host.join_request(3, patient(""));
    host.advance(0);
    let first = host.joined(first).member_id.clone();
    let lost = host.join_request(3, patient(""));
    host.advance(299_999);
    assert!(host.waits(lost));
    host.advance(1);
    let reply = host.joined(lost);
    assert_eq!(reply.error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(reply.member_id, "");
    let rejoin = host.join_request(3, patient(&first));
    assert_eq!(host.joined(rejoin).members.len(), 1);
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let mut host = Host::with(GroupConfig {
        max_size: 2,
        ..GroupConfig::default()
    });
    let ids = host.stable_group("g", 2);
    let token = host.join_request(9, join("g", ""));
    let reply = host.joined(token);
    assert_eq!(reply.error_code, ErrorCode::GROUP_MAX_SIZE_REACHED);
    assert_eq!(reply.member_id, "");
    assert_eq!(host.state("g").as_deref(), Some("Stable"));
    // Its members may rejoin.
    let token = host.join_request(9, join("g", &ids[0]));
    assert!(host.waits(token));
}

#[test]
fn a_group_above_a_lowered_limit_sheds_its_last_to_come() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 3);
    host.config.max_size = 2;
    host.restart();
    assert_eq!(host.state("g").as_deref(), Some("PreparingRebalance"));
    let tokens: Vec<_> = ids
        .iter()
        .map(|id| host.call(9, join("g", id), harness::join_group))
        .collect();
    let errors: Vec<_> = tokens
        .iter()
        .map(|token| host.joined(*token).error_code)
        .collect();
    assert_eq!(
        errors,
        [
            ErrorCode::NONE,
            ErrorCode::NONE,
            ErrorCode::GROUP_MAX_SIZE_REACHED
        ]
    );
    assert_eq!(host.joined(tokens[0]).generation_id, 2);
}
