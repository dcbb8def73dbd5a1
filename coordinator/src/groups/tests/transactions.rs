//! TxnOffsetCommit: commits are seen when the transaction is committed, and never when it is aborted; old members are fenced (KIP-447).

use ringlog_net::ErrorCode;
use ringlog_net::messages::txn_offset_commit::TxnOffsetCommitRequest;

use super::harness::{Entry, Host, commit, join, txn_commit};

#[test]
fn a_commit_is_seen_when_its_transaction_ends_well() {
    let mut host = Host::new();
    host.commit("g", "t", 0, 1);
    assert_eq!(
        host.txn_commit(txn_commit("g", 7, "t", 0, 5)),
        ErrorCode::NONE
    );
    assert_eq!(
        host.txn_commit(txn_commit("g", 7, "t", 0, 6)),
        ErrorCode::NONE
    );
    assert!(matches!(
        host.log.last(),
        Some(Entry::Record(Some((7, 3)), _))
    ));
    assert_eq!(
        host.fetch("g", "t", 0),
        Err(ErrorCode::UNSTABLE_OFFSET_COMMIT)
    );
    assert_eq!(host.fetch("g", "t", 1), Ok(-1), "others are not concerned");
    host.restart();
    assert_eq!(
        host.fetch("g", "t", 0),
        Err(ErrorCode::UNSTABLE_OFFSET_COMMIT)
    );
    host.marker(7, true);
    assert_eq!(host.fetch("g", "t", 0), Ok(6));
    host.restart();
    assert_eq!(host.fetch("g", "t", 0), Ok(6));
    assert_eq!(host.coordinator.counts().offsets, 1);
}

#[test]
fn an_aborted_commit_was_never_there() {
    let mut host = Host::new();
    host.commit("g", "t", 0, 1);
    host.txn_commit(txn_commit("g", 7, "t", 0, 5));
    host.txn_commit(txn_commit("g", 8, "t", 0, 6));
    host.marker(7, false);
    assert_eq!(
        host.fetch("g", "t", 0),
        Err(ErrorCode::UNSTABLE_OFFSET_COMMIT),
        "the other transaction is open"
    );
    host.marker(8, false);
    assert_eq!(host.fetch("g", "t", 0), Ok(1));
    host.marker(9, true);
    let counts = host.coordinator.counts();
    assert_eq!((counts.offsets, counts.pending_offsets), (1, 0));
}

#[test]
fn the_later_commit_wins_whenever_it_becomes_visible() {
    let mut host = Host::new();
    host.txn_commit(txn_commit("g", 7, "t", 0, 5));
    host.txn_commit(txn_commit("g", 8, "t", 0, 6));
    host.commit("g", "t", 0, 7);
    host.txn_commit(txn_commit("g", 9, "t", 0, 8));
    host.marker(8, true);
    host.marker(7, true);
    let fetched = |host: &mut Host| host.coordinator.committed_offsets().next().map(|all| all.3);
    assert_eq!(fetched(&mut host), Some(7));
    host.marker(9, true);
    assert_eq!(fetched(&mut host), Some(8));
    host.restart();
    assert_eq!(fetched(&mut host), Some(8));
}

#[test]
fn members_bind_themselves_to_the_generation() {
    let mut host = Host::new();
    let ids = host.stable_group("g", 1);
    let of = |generation: i32, member_id: &str| TxnOffsetCommitRequest {
        generation_id: generation,
        member_id: member_id.into(),
        ..txn_commit("g", 7, "t", 0, 5)
    };
    assert_eq!(
        host.txn_commit(of(0, &ids[0])),
        ErrorCode::ILLEGAL_GENERATION
    );
    assert_eq!(
        host.txn_commit(of(1, "other")),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
    assert_eq!(
        host.txn_commit(of(-1, &ids[0])),
        ErrorCode::ILLEGAL_GENERATION
    );
    let fenced = TxnOffsetCommitRequest {
        group_instance_id: Some("a".into()),
        ..of(1, &ids[0])
    };
    assert_eq!(host.txn_commit(fenced), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(host.coordinator.counts().pending_offsets, 0);
    assert_eq!(host.txn_commit(of(1, &ids[0])), ErrorCode::NONE);
    // Older clients do not say who they are and are let through.
    assert_eq!(host.txn_commit(of(-1, "")), ErrorCode::NONE);
    // Even while the leader assigns.
    let token = host.join_request(9, join("g", &ids[0]));
    assert_eq!(host.joined(token).generation_id, 2);
    assert_eq!(host.txn_commit(of(2, &ids[0])), ErrorCode::NONE);
    let elsewhere = TxnOffsetCommitRequest {
        generation_id: 1,
        ..txn_commit("h", 7, "t", 0, 5)
    };
    assert_eq!(host.txn_commit(elsewhere), ErrorCode::ILLEGAL_GENERATION);
    let nameless = txn_commit("", 7, "t", 0, 5);
    assert_eq!(host.txn_commit(nameless), ErrorCode::INVALID_GROUP_ID);
}

#[test]
fn a_group_made_by_a_transaction_is_kept_while_it_is_open() {
    let mut host = Host::new();
    host.txn_commit(txn_commit("g", 7, "t", 0, 5));
    assert_eq!(host.state("g").as_deref(), Some("Empty"));
    let now = host.now;
    host.event(|coordinator, out| coordinator.expire(now, out));
    assert_eq!(host.state("g").as_deref(), Some("Empty"));
    host.marker(7, false);
    host.event(|coordinator, out| coordinator.expire(now, out));
    assert_eq!(host.state("g"), None);
}

#[test]
fn metadata_of_a_transactional_commit_is_limited_too() {
    let mut host = Host::new();
    let mut request = txn_commit("g", 7, "t", 0, 5);
    request.topics[0].partitions[0].committed_metadata = Some("m".repeat(4_097).into());
    let error = host.txn_commit(request);
    assert_eq!(error, ErrorCode::OFFSET_METADATA_TOO_LARGE);
    assert_eq!(
        host.commit_as(9, commit("g", "", -1, "t", 0, 1)),
        ErrorCode::NONE
    );
    assert_eq!(host.fetch("g", "t", 0), Ok(1));
}
