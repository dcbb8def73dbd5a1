//! Who may commit and fetch offsets.

use ringlog_net::{ErrorCode, Uuid};

use super::cluster::{Cluster, join, owning};
use crate::groups::consumer::assignment::Partitions;

fn commit(
    cluster: &Cluster,
    id: &str,
    epoch: i32,
    transactional: bool,
    version: i16,
    partition: i32,
) -> ErrorCode {
    let topic = cluster
        .topics
        .by_name
        .get("red")
        .map_or(Uuid::ZERO, |topic| topic.0);
    let group = &cluster.group;
    let check = group.check_commit(id, None, epoch, transactional, version);
    let checked = check.and_then(|check| check.partition(&topic, partition));
    checked.err().unwrap_or_default()
}

#[test]
fn only_members_in_their_epoch_commit() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    assert_eq!(commit(&cluster, "", -1, false, 9, 0), ErrorCode::NONE);
    assert_eq!(
        commit(&cluster, "", 0, false, 9, 0),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
    cluster.send(&join("a", &["red"]));
    assert_eq!(
        commit(&cluster, "", -1, false, 9, 0),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
    assert_eq!(commit(&cluster, "", -1, true, 4, 0), ErrorCode::NONE);
    assert_eq!(commit(&cluster, "a", 1, false, 9, 0), ErrorCode::NONE);
    assert_eq!(
        commit(&cluster, "a", 1, false, 8, 0),
        ErrorCode::UNSUPPORTED_VERSION
    );
    assert_eq!(commit(&cluster, "a", 1, true, 4, 0), ErrorCode::NONE);
    assert_eq!(
        commit(&cluster, "a", 2, false, 9, 0),
        ErrorCode::STALE_MEMBER_EPOCH
    );
    assert_eq!(
        commit(&cluster, "a", 2, true, 4, 0),
        ErrorCode::ILLEGAL_GENERATION
    );
    assert_eq!(
        commit(&cluster, "a", 0, false, 9, 0),
        ErrorCode::STALE_MEMBER_EPOCH
    );
    assert_eq!(
        commit(&cluster, "b", 1, false, 9, 0),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
}

#[test]
fn an_older_epoch_is_good_for_partitions_owned_since_then() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    let red = cluster.id_of("red");
    cluster.send(&join("a", &["red"]));
    cluster.send(&join("b", &["red"]));
    let both = Partitions::from([(red, [0, 1].into())]);
    let zero = Partitions::from([(red, [0].into())]);
    cluster.send(&owning("a", 1, &both));
    cluster.send(&owning("a", 1, &zero));
    cluster.send(&owning("b", 2, &Partitions::new()));
    // It is in epoch 2 now, and has had partition 0 since 1.
    assert_eq!(commit(&cluster, "a", 1, false, 9, 0), ErrorCode::NONE);
    assert_eq!(
        commit(&cluster, "a", 1, false, 9, 1),
        ErrorCode::STALE_MEMBER_EPOCH
    );
    assert_eq!(
        commit(&cluster, "b", 1, false, 9, 1),
        ErrorCode::STALE_MEMBER_EPOCH
    );
    assert_eq!(commit(&cluster, "b", 2, false, 9, 1), ErrorCode::NONE);
}

#[test]
fn only_members_in_their_epoch_fetch_or_nobody_in_particular() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    cluster.send(&join("a", &["red"]));
    let group = &cluster.group;
    assert_eq!(group.check_fetch(None, -1), Ok(()));
    assert_eq!(group.check_fetch(Some("a"), 1), Ok(()));
    assert_eq!(
        group.check_fetch(Some("a"), 0),
        Err(ErrorCode::STALE_MEMBER_EPOCH)
    );
    assert_eq!(
        group.check_fetch(Some("a"), -1),
        Err(ErrorCode::STALE_MEMBER_EPOCH)
    );
    assert_eq!(
        group.check_fetch(Some("b"), 1),
        Err(ErrorCode::UNKNOWN_MEMBER_ID)
    );
    assert_eq!(
        group.check_fetch(None, 1),
        Err(ErrorCode::UNKNOWN_MEMBER_ID)
    );
}
