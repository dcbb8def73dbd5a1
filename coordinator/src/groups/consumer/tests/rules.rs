//! The rules of ConsumerGroupHeartbeat, one by one.

use ringlog_net::ErrorCode;
use ringlog_net::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;

use super::cluster::{Cluster, assigned, beat, join, owning};
use crate::groups::consumer::assignment::Partitions;
use crate::groups::consumer::member::{LEAVE_EPOCH, LEAVE_STATIC_EPOCH, MemberState};
use crate::groups::consumer::{Assignor, ConsumerGroupState};

fn static_join(id: &str, instance: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        instance_id: Some(instance.into()),
        ..join(id, topics)
    }
}

fn error(cluster: &mut Cluster, request: &ConsumerGroupHeartbeatRequest) -> ErrorCode {
    cluster.send(request).error_code
}

fn count(partitions: &Partitions) -> usize {
    partitions.values().map(|numbers| numbers.len()).sum()
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    let ok = join("a", &["red"]);
    let broken: [fn(&mut ConsumerGroupHeartbeatRequest); 12] = [
        |request| request.member_id = "".into(),
        |request| request.group_id = "".into(),
        |request| request.instance_id = Some("".into()),
        |request| request.rack_id = Some("".into()),
        |request| request.rebalance_timeout_ms = -1,
        |request| request.topic_partitions = None,
        |request| request.topic_partitions = Some(vec![Default::default()]),
        |request| request.subscribed_topic_names = None,
        |request| request.member_epoch = LEAVE_STATIC_EPOCH,
        |request| request.member_epoch = -3,
        |request| request.member_id = "x".repeat(5_000).into(),
        |request| request.subscribed_topic_names = Some(vec!["x".repeat(250).into()]),
    ];
    for (number, broken) in broken.into_iter().enumerate() {
        let mut request = ok.clone();
        broken(&mut request);
        let code = error(&mut cluster, &request);
        assert_eq!(code, ErrorCode::INVALID_REQUEST, "{number}");
    }
    let many = vec!["x".repeat(200).into(); 5_000];
    let request = ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: Some(many),
        ..ok.clone()
    };
    assert_eq!(error(&mut cluster, &request), ErrorCode::INVALID_REQUEST);
    let request = ConsumerGroupHeartbeatRequest {
        server_assignor: Some("sticky".into()),
        ..ok.clone()
    };
    assert_eq!(
        error(&mut cluster, &request),
        ErrorCode::UNSUPPORTED_ASSIGNOR
    );
    cluster.config.assignors = vec![Assignor::Uniform];
    let request = ConsumerGroupHeartbeatRequest {
        server_assignor: Some("range".into()),
        ..ok
    };
    assert_eq!(
        error(&mut cluster, &request),
        ErrorCode::UNSUPPORTED_ASSIGNOR
    );
    assert!(cluster.group.is_empty() && cluster.log.is_empty());
}

#[test]
fn a_member_without_an_id_is_given_one_in_version_0() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    cluster.version = 0;
    let response = cluster.send(&join("", &["red"]));
    assert_eq!(response.error_code, ErrorCode::NONE);
    let id = response.member_id.unwrap();
    assert_eq!(id.len(), 22);
    assert_eq!(cluster.send(&beat(&id, 1)).member_epoch, 1);
}

#[test]
fn a_partition_moves_only_when_it_has_been_given_up() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    let red = cluster.id_of("red");
    let both = Partitions::from([(red, [0, 1].into())]);
    let zero = Partitions::from([(red, [0].into())]);
    let one = Partitions::from([(red, [1].into())]);

    let response = cluster.send(&join("a", &["red"]));
    assert_eq!(
        (response.member_epoch, response.heartbeat_interval_ms),
        (1, 5_000)
    );
    assert_eq!(assigned(&response), Some(both.clone()));

    // The second one has nothing to take, and is in the new epoch all the same.
    let response = cluster.send(&join("b", &["red"]));
    assert_eq!(response.member_epoch, 2);
    assert_eq!(assigned(&response), Some(Partitions::new()));
    assert_eq!(cluster.group.state(), ConsumerGroupState::Reconciling);

    // The first one is told to give up one and stays in its epoch until it has.
    let response = cluster.send(&owning("a", 1, &both));
    assert_eq!(response.member_epoch, 1);
    assert_eq!(assigned(&response), Some(zero.clone()));
    assert_eq!(assigned(&cluster.send(&owning("a", 1, &both))), None);
    assert_eq!(assigned(&cluster.send(&beat("a", 1))), None);
    assert_eq!(assigned(&cluster.send(&beat("b", 2))), None);

    let response = cluster.send(&owning("a", 1, &zero));
    assert_eq!(response.member_epoch, 2);
    let response = cluster.send(&beat("b", 2));
    assert_eq!(assigned(&response), Some(one));
    assert_eq!(cluster.group.state(), ConsumerGroupState::Stable);
    assert_eq!(assigned(&cluster.send(&beat("a", 2))), None);
    cluster.restart();
}

#[test]
fn who_is_in_the_wrong_epoch_is_fenced() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    let red = cluster.id_of("red");
    cluster.send(&join("a", &["red"]));
    cluster.send(&join("b", &["red"]));
    let both = Partitions::from([(red, [0, 1].into())]);
    let zero = Partitions::from([(red, [0].into())]);
    let one = Partitions::from([(red, [1].into())]);
    cluster.send(&owning("a", 1, &both));
    assert_eq!(cluster.send(&owning("a", 1, &zero)).member_epoch, 2);
    // The answer to that may have been lost: the epoch before is good, as long as nothing else is owned.
    assert_eq!(cluster.send(&owning("a", 1, &zero)).member_epoch, 2);
    for request in [
        owning("a", 1, &one),
        beat("a", 1),
        owning("a", 3, &zero),
        owning("b", 1, &one),
    ] {
        assert_eq!(
            error(&mut cluster, &request),
            ErrorCode::FENCED_MEMBER_EPOCH
        );
    }
    assert_eq!(
        error(&mut cluster, &beat("c", 1)),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
    assert_eq!(
        error(&mut cluster, &beat("c", LEAVE_EPOCH)),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
    // To begin anew is always good, and gives back what is one's own.
    let response = cluster.send(&join("a", &["red"]));
    assert_eq!(
        (response.member_epoch, assigned(&response)),
        (2, Some(zero))
    );
}

#[test]
fn a_group_takes_no_more_members_than_it_may() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    cluster.config.max_size = 2;
    cluster.send(&join("a", &["red"]));
    cluster.send(&static_join("b", "i", &["red"]));
    assert_eq!(
        error(&mut cluster, &join("c", &["red"])),
        ErrorCode::GROUP_MAX_SIZE_REACHED
    );
    assert_eq!(error(&mut cluster, &join("a", &["red"])), ErrorCode::NONE);
    let leave = ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".into()),
        ..beat("b", LEAVE_STATIC_EPOCH)
    };
    assert_eq!(error(&mut cluster, &leave), ErrorCode::NONE);
    // Who comes in another's place makes the group no larger.
    assert_eq!(
        error(&mut cluster, &static_join("d", "i", &["red"])),
        ErrorCode::NONE
    );
}

#[test]
fn a_static_member_finds_what_it_had() {
    let mut cluster = Cluster::new(&[("red", 4)]);
    let first = cluster.send(&static_join("a1", "i", &["red"]));
    cluster.send(&join("b", &["red"]));
    let all = assigned(&first).unwrap();
    let kept = assigned(&cluster.send(&ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".into()),
        ..owning("a1", 1, &all)
    }))
    .unwrap();
    assert_eq!(count(&kept), 2);
    assert_eq!(
        error(&mut cluster, &static_join("a2", "i", &["red"])),
        ErrorCode::UNRELEASED_INSTANCE_ID
    );
    // Its own name is no obstacle to itself.
    assert_eq!(
        error(&mut cluster, &static_join("a1", "i", &["red"])),
        ErrorCode::NONE
    );
    let with_name = |request| ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".into()),
        ..request
    };
    assert_eq!(
        error(&mut cluster, &with_name(beat("a2", 2))),
        ErrorCode::FENCED_INSTANCE_ID
    );
    assert_eq!(
        error(&mut cluster, &with_name(beat("a2", LEAVE_EPOCH))),
        ErrorCode::FENCED_INSTANCE_ID
    );
    let epoch = cluster.group.epoch();
    let response = cluster.send(&with_name(beat("a1", LEAVE_STATIC_EPOCH)));
    assert_eq!(response.member_epoch, LEAVE_STATIC_EPOCH);
    cluster.restart();
    let response = cluster.send(&static_join("a2", "i", &["red"]));
    assert_eq!(
        (response.member_epoch, assigned(&response)),
        (epoch, Some(kept))
    );
    assert_eq!(cluster.group.epoch(), epoch, "nobody else noticed");
    assert_eq!(
        error(&mut cluster, &with_name(beat("a1", epoch))),
        ErrorCode::FENCED_INSTANCE_ID
    );
    assert_eq!(
        error(&mut cluster, &beat("a1", epoch)),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
    let unknown = ConsumerGroupHeartbeatRequest {
        instance_id: Some("other".into()),
        ..beat("a2", epoch)
    };
    assert_eq!(error(&mut cluster, &unknown), ErrorCode::UNKNOWN_MEMBER_ID);
    cluster.restart();
    // Who leaves for a while is waited for no longer than one that is silent.
    cluster.send(&with_name(beat("a2", LEAVE_STATIC_EPOCH)));
    cluster.advance(20_000);
    cluster.send(&beat("b", epoch));
    cluster.advance(25_000);
    assert_eq!(cluster.group.member_count(), 1);
    cluster.restart();
}

#[test]
fn a_static_member_may_come_back_under_its_old_id() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    let owned = assigned(&cluster.send(&static_join("a", "i", &["red"])));
    let leave = ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".into()),
        ..beat("a", LEAVE_STATIC_EPOCH)
    };
    cluster.send(&leave);
    let response = cluster.send(&static_join("a", "i", &["red"]));
    assert_eq!((response.member_epoch, assigned(&response)), (1, owned));
    let current = &cluster.group.member("a").unwrap().current;
    assert_eq!((current.epoch, current.previous_epoch), (1, 0));
    cluster.restart();
}

#[test]
fn what_is_given_up_can_be_had_back_at_once() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    let red = cluster.id_of("red");
    let both = Partitions::from([(red, [0, 1].into())]);
    let zero = Partitions::from([(red, [0].into())]);
    cluster.send(&join("a", &["red"]));
    cluster.send(&join("b", &["red"]));
    assert_eq!(
        assigned(&cluster.send(&owning("a", 1, &both))),
        Some(zero.clone())
    );
    cluster.send(&beat("b", LEAVE_EPOCH));
    let response = cluster.send(&owning("a", 1, &zero));
    assert_eq!(
        (response.member_epoch, assigned(&response)),
        (3, Some(both))
    );
    assert_eq!(cluster.group.state(), ConsumerGroupState::Stable);
}

#[test]
fn who_is_silent_is_removed() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    cluster.send(&join("a", &["red"]));
    cluster.advance(30_000);
    cluster.send(&join("b", &["red"]));
    cluster.advance(14_999);
    assert_eq!(cluster.group.member_count(), 2);
    cluster.advance(1);
    assert_eq!(cluster.group.member_count(), 1);
    let response = cluster.send(&beat("b", 2));
    assert_eq!(count(&assigned(&response).unwrap()), 2);
    // After loading everybody has all the time again.
    cluster.advance(44_000);
    cluster.restart();
    cluster.advance(44_999);
    assert_eq!(cluster.group.member_count(), 1);
    cluster.advance(1);
    assert_eq!(cluster.group.state(), ConsumerGroupState::Empty);
    assert_eq!(cluster.group.next_deadline(), None);
    cluster.restart();
}

#[test]
fn who_does_not_give_up_partitions_in_time_is_removed() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    let red = cluster.id_of("red");
    cluster.send(&join("a", &["red"]));
    cluster.send(&join("b", &["red"]));
    let both = Partitions::from([(red, [0, 1].into())]);
    cluster.send(&owning("a", 1, &both));
    let state = cluster.group.members().next().unwrap().current.state;
    assert_eq!(state, MemberState::UnrevokedPartitions);
    for _ in 0..5 {
        cluster.advance(5_000);
        cluster.send(&owning("a", 1, &both));
        cluster.send(&beat("b", 2));
    }
    cluster.restart();
    cluster.advance(29_999);
    assert_eq!(error(&mut cluster, &owning("a", 1, &both)), ErrorCode::NONE);
    cluster.advance(1);
    assert_eq!(
        error(&mut cluster, &owning("a", 1, &both)),
        ErrorCode::UNKNOWN_MEMBER_ID
    );
    assert_eq!(assigned(&cluster.send(&beat("b", 2))), Some(both));
}

#[test]
fn a_topic_that_grows_or_goes_moves_the_group_on() {
    let mut cluster = Cluster::new(&[("red", 1), ("green", 1)]);
    cluster.send(&join("a", &["red", "blue"]));
    assert_eq!(cluster.group.epoch(), 1);
    cluster.set_topic("green", 5);
    assert_eq!(cluster.send(&beat("a", 1)).member_epoch, 1);
    cluster.set_topic("red", 3);
    let response = cluster.send(&beat("a", 1));
    assert_eq!(
        (response.member_epoch, count(&assigned(&response).unwrap())),
        (2, 3)
    );
    cluster.set_topic("blue", 2);
    let owned = assigned(&cluster.send(&beat("a", 2))).unwrap();
    assert_eq!(count(&owned), 5);
    cluster.delete_topic("red");
    let response = cluster.send(&owning("a", 3, &owned));
    assert_eq!(
        (response.member_epoch, count(&assigned(&response).unwrap())),
        (3, 2)
    );
    cluster.restart();
}

#[test]
fn a_request_that_saw_less_does_not_hide_what_has_changed() {
    let mut cluster = Cluster::new(&[("red", 1)]);
    cluster.send(&ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some("b.*".into()),
        ..join("a", &["red"])
    });
    let older = cluster.topics.clone();
    cluster.set_topic("red", 2);
    cluster.set_topic("blue", 1);
    let newer = std::mem::replace(&mut cluster.topics, older);
    cluster.advance(10_000);
    assert_eq!(cluster.send(&beat("a", 1)).member_epoch, 1);
    cluster.topics = newer;
    cluster.advance(10_000);
    let response = cluster.send(&beat("a", 1));
    assert_eq!(
        (response.member_epoch, count(&assigned(&response).unwrap())),
        (2, 3)
    );
}

#[test]
fn targets_are_made_no_more_often_than_is_set() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    cluster.config.assignment_interval_ms = 1_000;
    cluster.send(&join("a", &["red"]));
    assert_eq!(cluster.send(&join("b", &["red"])).member_epoch, 1);
    assert_eq!(cluster.group.state(), ConsumerGroupState::Assigning);
    cluster.advance(999);
    assert_eq!(cluster.send(&beat("b", 1)).member_epoch, 1);
    cluster.advance(1);
    assert_eq!(cluster.send(&beat("b", 1)).member_epoch, 2);
}

#[test]
fn most_members_choose_the_assignor() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    let range = |id| ConsumerGroupHeartbeatRequest {
        server_assignor: Some("range".into()),
        ..join(id, &["red"])
    };
    cluster.send(&join("a", &["red"]));
    assert_eq!(cluster.group.assignor(&cluster.config), Assignor::Uniform);
    cluster.send(&range("b"));
    assert_eq!(cluster.group.assignor(&cluster.config), Assignor::Range);
    cluster.send(&beat("b", LEAVE_EPOCH));
    assert_eq!(cluster.group.assignor(&cluster.config), Assignor::Uniform);
}

#[test]
fn more_than_fits_into_a_batch_is_not_begun() {
    let mut cluster = Cluster::new(&[("red", 2), ("vast", 300_000)]);
    cluster.send(&join("a", &["red"]));
    let written = cluster.log.len();
    let code = error(&mut cluster, &join("b", &["red", "vast"]));
    assert_eq!(code, ErrorCode::UNKNOWN_SERVER_ERROR);
    assert_eq!(
        (cluster.group.member_count(), cluster.log.len()),
        (1, written)
    );
    assert_eq!(cluster.send(&beat("a", 1)).error_code, ErrorCode::NONE);
    cluster.restart();
}

#[test]
fn a_described_member_still_has_what_it_is_to_give_up() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    let red = cluster.id_of("red");
    cluster.send(&join("a", &["red"]));
    cluster.send(&join("b", &["red"]));
    let both = Partitions::from([(red, [0, 1].into())]);
    cluster.send(&owning("a", 1, &both));
    let group = cluster.group.describe(&cluster.config, &cluster.topics);
    assert_eq!(
        (
            &*group.group_state,
            group.group_epoch,
            group.assignment_epoch,
            &*group.assignor_name
        ),
        ("Reconciling", 2, 2, "uniform")
    );
    let member = &group.members[0];
    let owned = &member.assignment.topic_partitions;
    assert_eq!(
        (&*owned[0].topic_name, &owned[0].partitions),
        ("red", &vec![0, 1])
    );
    assert_eq!(member.target_assignment.topic_partitions[0].partitions, [0]);
    assert_eq!((member.member_epoch, member.member_type), (1, 1));
}

#[test]
fn the_end_of_a_group_leaves_nothing() {
    let mut cluster = Cluster::new(&[("red", 2)]);
    cluster.send(&ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some("r.*".into()),
        ..join("a", &[])
    });
    let mut live = std::collections::BTreeSet::new();
    let tombstones = cluster.group.tombstones();
    for record in cluster.log.iter().chain(&tombstones) {
        match record.value {
            Some(_) => live.insert(record.key.clone()),
            None => live.remove(&record.key),
        };
    }
    assert!(live.is_empty(), "{live:?}");
}
