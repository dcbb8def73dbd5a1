//! Which offsets and groups are deleted when, and that this goes on in bounded steps (KIP-211).

use super::harness::{Host, commit, join, txn_commit};
use crate::groups::GroupConfig;

/// `offsets.retention.minutes` is 1 here.
const RETENTION_MS: u64 = 60_000;

fn host() -> Host {
    Host::with(GroupConfig {
        offsets_retention_minutes: 1,
        ..GroupConfig::default()
    })
}

fn expire(host: &mut Host) {
    let now = host.now;
    host.event(|coordinator, out| coordinator.expire(now, out));
    host.advance(0);
}

#[test]
fn offsets_of_a_consumer_by_itself_count_from_their_commit() {
    let mut host = host();
    host.commit("g", "t", 0, 1);
    host.advance(RETENTION_MS / 2);
    host.commit("g", "t", 1, 1);
    host.advance(RETENTION_MS / 2 - 1);
    expire(&mut host);
    assert_eq!(host.fetch("g", "t", 0), Ok(1));
    host.advance(1);
    expire(&mut host);
    assert_eq!(host.fetch("g", "t", 0), Ok(-1));
    assert_eq!(host.fetch("g", "t", 1), Ok(1));
    host.advance(RETENTION_MS);
    expire(&mut host);
    assert_eq!(host.state("g"), None, "the group goes with its last offset");
    host.restart();
    assert_eq!(host.coordinator.counts().groups, 0);
}

#[test]
fn a_group_keeps_what_its_members_read() {
    let mut host = host();
    let ids = host.stable_group("g", 1);
    for topic in ["t", "u"] {
        host.commit_as(9, commit("g", &ids[0], 1, topic, 0, 1));
    }
    for _ in 0..20 {
        host.advance(9_000);
        host.heartbeat("g", &ids[0], 1);
    }
    expire(&mut host);
    assert_eq!(host.fetch("g", "t", 0), Ok(1), "it is read");
    assert_eq!(host.fetch("g", "u", 0), Ok(-1), "it is read no longer");
    host.leave("g", &[(&ids[0], None)]);
    host.advance(RETENTION_MS - 1);
    expire(&mut host);
    assert_eq!(
        host.fetch("g", "t", 0),
        Ok(1),
        "the time counts from the end"
    );
    host.restart();
    host.advance(1);
    expire(&mut host);
    assert_eq!(host.state("g"), None);
}

#[test]
fn nothing_expires_in_the_middle_of_a_rebalance_or_of_unknown_members() {
    let mut host = host();
    let ids = host.stable_group("g", 1);
    host.commit_as(9, commit("g", &ids[0], 1, "u", 0, 1));
    for _ in 0..10 {
        host.advance(9_000);
        host.heartbeat("g", &ids[0], 1);
    }
    host.join_anew("g");
    expire(&mut host);
    assert_eq!(host.fetch("g", "u", 0), Ok(1));
    let mut connect = join("c", "");
    connect.protocol_type = "connect".into();
    connect.session_timeout_ms = 1_000_000;
    let token = host.join_request(3, connect);
    host.advance(3_000);
    let id = host.joined(token).member_id.clone();
    host.sync_all("c", std::slice::from_ref(&id), 1);
    host.commit_as(9, commit("c", &id, 1, "u", 0, 1));
    host.advance(2 * RETENTION_MS);
    expire(&mut host);
    assert_eq!(host.fetch("c", "u", 0), Ok(1));
}

#[test]
fn an_offset_waits_for_the_transaction_that_is_to_change_it() {
    let mut host = host();
    host.commit("g", "t", 0, 1);
    host.txn_commit(txn_commit("g", 7, "t", 0, 2));
    host.advance(2 * RETENTION_MS);
    expire(&mut host);
    host.marker(7, false);
    assert_eq!(host.fetch("g", "t", 0), Ok(1));
    expire(&mut host);
    assert_eq!(host.state("g"), None);
}

#[test]
fn a_group_with_an_id_given_out_is_not_dropped() {
    let mut host = host();
    let token = host.join_request(9, join("g", ""));
    let id = host.joined(token).member_id.clone();
    expire(&mut host);
    let token = host.join_request(9, join("g", &id));
    assert!(host.waits(token));
    host.leave("g", &[(&id, None)]);
    host.advance(3_000);
    expire(&mut host);
    assert_eq!(host.state("g"), None);
    assert_eq!(host.coordinator.counts().timers, 0);
}

#[test]
fn many_groups_are_done_in_steps() {
    let mut host = Host::with(GroupConfig {
        offsets_retention_minutes: 1,
        groups_per_call_max: 10,
        ..GroupConfig::default()
    });
    for index in 0..95 {
        host.commit(&format!("g{index}"), "t", 0, 1);
    }
    host.advance(RETENTION_MS);
    let now = host.now;
    host.event(|coordinator, out| coordinator.expire(now, out));
    assert_eq!(host.coordinator.counts().groups, 85);
    assert_eq!(host.coordinator.next_deadline(), Some(now.monotonic_ms));
    // A second call does not begin anew while the first is under way.
    host.event(|coordinator, out| coordinator.expire(now, out));
    assert_eq!(host.coordinator.counts().groups, 85);
    host.advance(0);
    assert_eq!(host.coordinator.counts().groups, 0);
    assert_eq!(host.coordinator.next_deadline(), None);
}
