//! Static members: they keep their place over a restart, under another id, and whoever came before is fenced (KIP-345, KIP-814).

use ringlog_net::messages::heartbeat::HeartbeatRequest;
use ringlog_net::messages::join_group::JoinGroupRequest;
use ringlog_net::{ErrorCode, Str};

use super::harness::{self, Host, commit, join, protocol, subscription};
use crate::Token;
use crate::groups::GroupReply;

fn join_as(group: &str, instance_id: &str, member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_instance_id: Some(instance_id.into()),
        ..join(group, member_id)
    }
}

/// A stable group of static members `a`, `b`, …; the leader's id first.
fn stable(host: &mut Host, names: &[&str]) -> Vec<(Str, Str)> {
    let tokens: Vec<(Str, Token)> = names
        .iter()
        .map(|name| {
            (
                Str::from(*name),
                host.join_request(9, join_as("g", name, "")),
            )
        })
        .collect();
    host.advance(10_000);
    let leader = host.joined(tokens[0].1).leader.clone();
    let mut members: Vec<(Str, Str)> = tokens
        .iter()
        .map(|(name, token)| (host.joined(*token).member_id.clone(), name.clone()))
        .collect();
    members.sort_by_key(|(id, _)| *id != leader);
    let ids: Vec<Str> = members.iter().map(|(id, _)| id.clone()).collect();
    host.sync_all("g", &ids, 1);
    members
}

#[test]
fn a_static_member_comes_in_at_once_under_an_id_of_its_name() {
    let mut host = Host::new();
    let token = host.join_request(5, join_as("g", "a", ""));
    assert!(host.waits(token));
    host.advance(3_000);
    let reply = host.joined(token);
    assert!(reply.member_id.starts_with("a-0000"), "{}", reply.member_id);
    let name = reply.members[0].group_instance_id.as_deref();
    assert_eq!(name, Some("a"));
}

#[test]
fn a_restarted_follower_goes_on_without_a_rebalance() {
    let mut host = Host::new();
    let members = stable(&mut host, &["a", "b"]);
    let (old_id, name) = members[1].clone();
    let records = host.log.len();
    let token = host.join_request(9, join_as("g", &name, ""));
    let reply = host.joined(token).clone();
    assert_eq!(
        (reply.error_code, reply.generation_id),
        (ErrorCode::NONE, 1)
    );
    assert!(!reply.skip_assignment && reply.members.is_empty());
    assert_ne!(reply.member_id, old_id);
    assert_eq!(host.log.len(), records + 1, "the new id is stored");
    assert_eq!(host.state("g").as_deref(), Some("Stable"));
    let sync = host.sync("g", &reply.member_id, 1, &[]);
    assert_eq!(&host.synced(sync).assignment[..], old_id.as_bytes());
    host.restart();
    assert_eq!(host.heartbeat("g", &reply.member_id, 1), ErrorCode::NONE);
}

#[test]
fn a_restarted_leader_is_told_not_to_assign() {
    let mut host = Host::new();
    let members = stable(&mut host, &["a", "b"]);
    let (old_id, name) = members[0].clone();
    let token = host.join_request(9, join_as("g", &name, ""));
    let reply = host.joined(token).clone();
    assert!(reply.skip_assignment);
    assert_eq!(reply.leader, reply.member_id);
    assert_eq!(reply.members.len(), 2);
    // An older client would assign if it knew that it leads.
    let token = host.join_request(8, join_as("g", &name, ""));
    let older = host.joined(token);
    assert!(!older.skip_assignment && older.members.is_empty());
    assert_eq!(older.leader, reply.member_id);
    assert_ne!(older.member_id, older.leader);
    assert_ne!(older.member_id, old_id);
}

#[test]
fn the_older_self_is_fenced() {
    let mut host = Host::new();
    let members = stable(&mut host, &["a", "b"]);
    let (old_id, name) = members[1].clone();
    let token = host.join_request(9, join_as("g", &name, ""));
    let new_id = host.joined(token).member_id.clone();
    let mut beat = |member_id: &Str, instance_id: &str| {
        let request = HeartbeatRequest {
            group_id: "g".into(),
            generation_id: 1,
            member_id: member_id.clone(),
            group_instance_id: Some(instance_id.into()),
        };
        let token = host.call(4, request, harness::heartbeat);
        match host.reply(token) {
            GroupReply::Heartbeat(reply) => reply.error_code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(beat(&old_id, &name), ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(beat(&new_id, &name), ErrorCode::NONE);
    assert_eq!(beat(&new_id, "nobody"), ErrorCode::UNKNOWN_MEMBER_ID);
    let rejoin = host.join_request(9, join_as("g", &name, &old_id));
    let error = host.joined(rejoin).error_code;
    assert_eq!(error, ErrorCode::FENCED_INSTANCE_ID);
    let mut request = commit("g", &old_id, 1, "t", 0, 5);
    request.group_instance_id = Some(name);
    assert_eq!(host.commit_as(9, request), ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(
        host.heartbeat("g", &old_id, 1),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
}

#[test]
fn what_the_older_self_waits_for_is_fenced() {
    let mut host = Host::new();
    let first = host.join_request(9, join_as("g", "a", ""));
    let second = host.join_request(9, join_as("g", "a", ""));
    let error = host.joined(first).error_code;
    assert_eq!(error, ErrorCode::FENCED_INSTANCE_ID);
    host.advance(10_000);
    let reply = host.joined(second);
    assert_eq!((reply.generation_id, reply.members.len()), (1, 1));
}

#[test]
fn a_restart_while_the_leader_assigns_starts_anew() {
    let mut host = Host::new();
    let tokens: Vec<Token> = ["a", "b"]
        .iter()
        .map(|name| host.join_request(9, join_as("g", name, "")))
        .collect();
    host.advance(10_000);
    let leader = host.joined(tokens[0]).leader.clone();
    let other = tokens
        .iter()
        .map(|token| host.joined(*token))
        .find(|reply| reply.member_id != leader)
        .expect("two members");
    let (other, name) = (other.member_id.clone(), other.member_id[..1].to_owned());
    let waiting = host.sync("g", &other, 1, &[]);
    let again = host.join_request(9, join_as("g", &name, ""));
    let error = host.synced(waiting).error_code;
    assert_eq!(error, ErrorCode::FENCED_INSTANCE_ID);
    assert!(host.waits(again));
    assert_eq!(host.state("g").as_deref(), Some("PreparingRebalance"));
}

#[test]
fn a_restart_with_another_protocol_rebalances() {
    let mut host = Host::new();
    let both = |name: &str, order: [&str; 2]| JoinGroupRequest {
        protocols: order
            .iter()
            .map(|name| protocol(name, subscription("t")))
            .collect(),
        ..join_as("g", name, "")
    };
    let token = host.join_request(9, both("a", ["range", "sticky"]));
    host.advance(3_000);
    let id = host.joined(token).member_id.clone();
    host.sync_all("g", &[id], 1);
    let again = host.join_request(9, both("a", ["sticky", "range"]));
    let reply = host.joined(again);
    assert_eq!(reply.generation_id, 2);
    assert_eq!(reply.protocol_name.as_deref(), Some("sticky"));
}

#[test]
fn static_members_keep_their_place_through_a_rebalance_they_miss() {
    let mut host = Host::new();
    let members = stable(&mut host, &["a", "b"]);
    let token = host.join_request(9, join_as("g", &members[0].1, &members[0].0));
    for _ in 0..7 {
        host.heartbeat("g", &members[1].0, 1);
        host.advance(9_000);
    }
    let reply = host.joined(token);
    assert_eq!((reply.generation_id, reply.members.len()), (2, 2));
}

#[test]
fn static_members_alone_wait_for_one_of_them() {
    let mut host = Host::new();
    let members = stable(&mut host, &["a", "b"]);
    let (newcomer, joining) = host.join_anew("g");
    host.leave("g", &[(&newcomer, None)]);
    let error = host.joined(joining).error_code;
    assert_eq!(error, ErrorCode::UNKNOWN_MEMBER_ID);
    for _ in 0..20 {
        for (id, _) in &members {
            let error = host.heartbeat("g", id, 1);
            assert_eq!(error, ErrorCode::REBALANCE_IN_PROGRESS);
        }
        host.advance(9_000);
    }
    let token = host.join_request(9, join_as("g", &members[1].1, &members[1].0));
    for _ in 0..7 {
        host.heartbeat("g", &members[0].0, 1);
        host.advance(9_000);
    }
    assert_eq!(host.joined(token).leader, members[1].0);
}

#[test]
fn a_pending_id_cannot_become_static() {
    let mut host = Host::new();
    let token = host.join_request(9, join("g", ""));
    let id = host.joined(token).member_id.clone();
    let token = host.join_request(9, join_as("g", "a", &id));
    assert_eq!(host.joined(token).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
}
