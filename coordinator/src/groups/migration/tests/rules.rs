//! The rules of conversion, one by one.

use ringlog_net::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use ringlog_net::messages::join_group::JoinGroupRequest;
use ringlog_net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringlog_net::messages::sync_group::SyncGroupRequest;
use ringlog_net::{Bytes, ErrorCode, Str, Uuid};

use super::client::{Client, Phase};
use super::world::{JOIN_VERSION, Owned, RED, World, join, subscription};
use crate::groups::consumer::{Change, MigrationPolicy};
use crate::groups::{GroupConfig, GroupReply};

fn reads_red(owned: &Owned, generation: i32) -> Bytes {
    subscription(&["red".into()], owned, generation)
}

/// A consumer's first heartbeat.
fn consumer(id: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: id.into(),
        rebalance_timeout_ms: 20_000,
        subscribed_topic_names: Some(vec!["red".into()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

fn leave(id: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: id.into(),
        member_epoch: -1,
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// Lets a client of the classic protocol do what comes next until it is through.
fn settle(world: &mut World, client: &mut Client) {
    for _ in 0..10 {
        match client.phase {
            Phase::Outside => {
                let token = world.join(JOIN_VERSION, client.join_request());
                world.advance(0);
                client.on_joined(world.joined(token), &world.topics);
            }
            Phase::Joined => {
                let token = world.sync(client.sync_request(&world.topics));
                let response = world.synced(token);
                client.on_synced(response.error_code, &response.assignment);
            }
            Phase::Stable => return,
            Phase::Joining(_) | Phase::Syncing(_) => unreachable!("answered at once"),
        }
    }
    panic!("{client:?} does not come to rest");
}

fn classic_client(instance_id: Option<&str>) -> Client {
    let mut client = Client {
        is_classic: true,
        cooperates: true,
        topics: vec!["red".into()],
        instance_id: instance_id.map(Str::from),
        ..Client::default()
    };
    client.restart();
    client
}

/// A classic group with one member, which reads all of `red`.
fn classic_group(policy: MigrationPolicy, instance_id: Option<&str>) -> (World, Client) {
    let mut world = World::new(policy);
    let mut client = classic_client(instance_id);
    settle(&mut world, &mut client);
    assert_eq!(client.owned.len(), 3);
    (world, client)
}

/// A mixed group: the classic member, and `c`, which both are through.
fn mixed_group(policy: MigrationPolicy) -> (World, Client) {
    let (mut world, mut client) = classic_group(policy, None);
    assert_eq!(world.beat(&consumer("c")).error_code, ErrorCode::NONE);
    rejoin(&mut world, &mut client);
    rejoin(&mut world, &mut client);
    let beat = ConsumerGroupHeartbeatRequest {
        member_epoch: world.consumer().expect("a consumer group").epoch(),
        rebalance_timeout_ms: -1,
        subscribed_topic_names: None,
        topic_partitions: None,
        ..consumer("c")
    };
    assert_eq!(world.beat(&beat).error_code, ErrorCode::NONE);
    assert_eq!(world.listed(), ("consumer".into(), "Stable".into()));
    (world, client)
}

/// A member heartbeats, and joins again when it is told to.
fn rejoin(world: &mut World, client: &mut Client) {
    let error = world.heartbeat(
        &client.member_id,
        client.instance_id.clone(),
        client.generation,
    );
    client.on_error(error);
    settle(world, client);
}

#[test]
fn a_consumer_turns_a_classic_group_into_a_consumer_group_in_one_batch() {
    let (mut world, mut client) = classic_group(MigrationPolicy::Bidirectional, None);
    let batches = world.log.len();
    let response = world.beat(&consumer("c"));
    assert_eq!(
        (response.error_code, response.member_epoch),
        (ErrorCode::NONE, 2)
    );
    let assigned = response.assignment.expect("it joins").topic_partitions;
    assert!(
        assigned.is_empty(),
        "the other owns everything: {assigned:?}"
    );
    assert_eq!(world.log.len(), batches + 1);
    let batch = &world.log[batches];
    assert_eq!(
        (&batch[0].key[..2], batch[0].value.as_ref()),
        (&[0, 2][..], None)
    );
    let first = Change::read(&batch[1].key, batch[1].value.as_ref());
    let Ok(Some((_, Change::Member(id, Some(metadata))))) = first else {
        panic!("{first:?}");
    };
    assert_eq!(id, client.member_id);
    let classic = metadata.classic.as_ref().expect("of the classic protocol");
    assert_eq!(classic.session_timeout_ms, 10_000);
    assert_eq!(classic.protocols[0].0, "cooperative-sticky");
    world.restart();

    // It is told to join again, gives up what the other is to get, and says so by joining once more.
    let error = world.heartbeat(&client.member_id, None, client.generation);
    assert_eq!(error, ErrorCode::REBALANCE_IN_PROGRESS);
    client.on_error(error);
    settle(&mut world, &mut client);
    assert_eq!((client.generation, client.owned.len()), (2, 2));
    let described = world.consumer().expect("a consumer group");
    let described = described.describe(&world.config.consumer, &world.topics);
    let types: Vec<i8> = described
        .members
        .iter()
        .map(|member| member.member_type)
        .collect();
    assert_eq!(types, [1, 0]);
    world.restart();
}

#[test]
fn the_policy_says_which_way() {
    use MigrationPolicy::{Bidirectional, Disabled, Downgrade, Upgrade};
    for (policy, upgrades) in [
        (Bidirectional, true),
        (Upgrade, true),
        (Downgrade, false),
        (Disabled, false),
    ] {
        let (mut world, _) = classic_group(policy, None);
        let code = world.beat(&consumer("c")).error_code;
        assert_eq!(code.is_none(), upgrades, "{policy:?}");
        assert!(upgrades || code == ErrorCode::GROUP_ID_NOT_FOUND);
        // Said once, however often it is asked for.
        world.beat(&consumer("d"));
        let said = |notice: &&String| notice.contains("group g stays classic");
        assert_eq!(
            world.notices.iter().filter(said).count(),
            usize::from(!upgrades)
        );
        assert_eq!(world.notices.len(), usize::from(!upgrades));
    }
    for (policy, downgrades) in [(Bidirectional, true), (Upgrade, false)] {
        let (mut world, _) = mixed_group(policy);
        world.beat(&leave("c"));
        let kind = if downgrades { "classic" } else { "consumer" };
        assert_eq!(world.listed().0, kind, "{policy:?}");
        let said = |notice: &&String| notice.contains("group g stays a consumer group");
        assert_eq!(
            world.notices.iter().filter(said).count(),
            usize::from(!downgrades)
        );
        world.restart();
    }
    for (policy, code) in [
        (Downgrade, ErrorCode::MEMBER_ID_REQUIRED),
        (Disabled, ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
    ] {
        let mut world = World::new(policy);
        world.beat(&consumer("c"));
        let token = world.join(5, join("", "range", reads_red(&Owned::new(), -1)));
        assert_eq!(world.joined(token).error_code, code);
    }
}

#[test]
fn a_group_that_is_not_of_consumers_stays_what_it_is() {
    let refused = |request: JoinGroupRequest, assignment: Option<Bytes>| {
        let mut world = World::new(MigrationPolicy::Bidirectional);
        let token = world.join(3, request);
        world.advance(0);
        let joined = world.joined(token);
        if let Some(assignment) = assignment {
            world.sync(SyncGroupRequest {
                group_id: "g".into(),
                generation_id: joined.generation_id,
                member_id: joined.member_id.clone(),
                assignments: vec![
                    ringlog_net::messages::sync_group::SyncGroupRequestAssignment {
                        member_id: joined.member_id,
                        assignment,
                    },
                ],
                ..SyncGroupRequest::default()
            });
        }
        let before = world.listed();
        assert_eq!(
            world.beat(&consumer("c")).error_code,
            ErrorCode::GROUP_ID_NOT_FOUND
        );
        assert_eq!(world.listed(), before);
    };
    let connect = JoinGroupRequest {
        protocol_type: "connect".into(),
        ..join("", "range", reads_red(&Owned::new(), -1))
    };
    refused(connect, None);
    refused(join("", "range", Bytes::from_static(&[0])), None);
    refused(join("", "range", Bytes::from_static(&[0xff; 12])), None);
    // Its assignor tells members more than their partitions.
    let more = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 7]);
    refused(join("", "range", reads_red(&Owned::new(), -1)), Some(more));
}

#[test]
fn members_that_wait_are_told_to_join_again() {
    let mut world = World::new(MigrationPolicy::Bidirectional);
    let token = world.join(3, join("", "range", reads_red(&Owned::new(), -1)));
    world.advance(0);
    let first = world.joined(token);
    let waits = world.join(3, join("", "range", reads_red(&Owned::new(), -1)));
    assert!(world.answer(waits).is_none());
    assert_eq!(world.beat(&consumer("c")).error_code, ErrorCode::NONE);
    assert_eq!(
        world.joined(waits).error_code,
        ErrorCode::REBALANCE_IN_PROGRESS
    );
    let code = world.heartbeat(&first.member_id, None, first.generation_id);
    assert_eq!(code, ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(world.consumer().map(|group| group.member_count()), Some(3));
    world.restart();
}

#[test]
fn requests_of_strangers_and_of_other_generations_are_refused() {
    let (mut world, client) = mixed_group(MigrationPolicy::Bidirectional);
    let (id, generation) = (client.member_id.clone(), client.generation);
    for (id, generation, code) in [
        (id.as_str(), generation, ErrorCode::NONE),
        (id.as_str(), generation - 1, ErrorCode::ILLEGAL_GENERATION),
        (id.as_str(), generation + 1, ErrorCode::ILLEGAL_GENERATION),
        ("x", generation, ErrorCode::UNKNOWN_MEMBER_ID),
        ("c", generation, ErrorCode::UNKNOWN_MEMBER_ID),
    ] {
        assert_eq!(world.heartbeat(id, None, generation), code);
        let token = world.sync(SyncGroupRequest {
            group_id: "g".into(),
            generation_id: generation,
            member_id: id.into(),
            ..SyncGroupRequest::default()
        });
        assert_eq!(world.synced(token).error_code, code);
    }
    let code = world.heartbeat(&id, Some("i".into()), generation);
    assert_eq!(code, ErrorCode::UNKNOWN_MEMBER_ID);
    let other_protocol = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: generation,
        member_id: id.clone(),
        protocol_name: Some("range".into()),
        ..SyncGroupRequest::default()
    };
    let token = world.sync(other_protocol);
    assert_eq!(
        world.synced(token).error_code,
        ErrorCode::INCONSISTENT_GROUP_PROTOCOL
    );
    let token = world.join(9, join(&id, "range", reads_red(&Owned::new(), -1)));
    assert_eq!(
        world.joined(token).error_code,
        ErrorCode::INCONSISTENT_GROUP_PROTOCOL
    );
    // Who was removed and has not heard of it owns nothing any more, whatever it says.
    let owned = Owned::from([("red".into(), 0)]);
    let token = world.join(9, join("gone", "cooperative-sticky", reads_red(&owned, 1)));
    assert_eq!(world.joined(token).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn silent_members_are_removed() {
    // A session, a JoinGroup that does not come after a member was told to join again, a SyncGroup that does not come after it has.
    let (mut world, client) = mixed_group(MigrationPolicy::Upgrade);
    world.advance(9_999);
    let counted = |world: &World| world.consumer().map(|group| group.member_count());
    assert_eq!(counted(&world), Some(2));
    world.advance(1);
    assert_eq!(counted(&world), Some(1));
    let code = world.heartbeat(&client.member_id, None, client.generation);
    assert_eq!(code, ErrorCode::UNKNOWN_MEMBER_ID);

    for joins in [false, true] {
        let (mut world, mut client) = mixed_group(MigrationPolicy::Upgrade);
        world.beat(&consumer("d"));
        let (id, mut generation) = (client.member_id.clone(), client.generation);
        if joins {
            let token = world.join(JOIN_VERSION, client.join_request());
            generation = world.joined(token).generation_id;
        }
        // It is told to join again by the first of its heartbeats; its generation it was told before.
        let heartbeats = if joins { 3 } else { 4 };
        for _ in 0..heartbeats {
            world.advance(5_000);
            world.heartbeat(&id, None, generation);
        }
        assert_eq!(counted(&world), Some(3));
        world.advance(5_000);
        assert_eq!(counted(&world), Some(2));
        world.restart();
    }
}

#[test]
fn the_last_consumer_leaves_a_classic_group_that_rebalances() {
    let (mut world, mut client) = mixed_group(MigrationPolicy::Bidirectional);
    let batches = world.log.len();
    assert_eq!(world.beat(&leave("c")).error_code, ErrorCode::NONE);
    assert_eq!(world.log.len(), batches + 1, "one batch");
    let last = world.log[batches].last().expect("records");
    assert_eq!((&last.key[..2], last.value.is_some()), (&[0, 2][..], true));
    assert_eq!(
        world.listed(),
        ("classic".into(), "PreparingRebalance".into())
    );
    // Also if the coordinator changes before it is through.
    world.restart();
    assert_eq!(
        world.listed(),
        ("classic".into(), "PreparingRebalance".into())
    );
    assert_eq!(
        world.classic().map(|group| group.generation()),
        Some(client.generation)
    );
    rejoin(&mut world, &mut client);
    assert_eq!((client.owned.len(), client.generation), (3, 3));
    world.restart();
    assert_eq!(world.listed(), ("classic".into(), "Stable".into()));
}

#[test]
fn a_consumer_that_is_silent_or_removed_leaves_a_classic_group() {
    let (mut world, client) = mixed_group(MigrationPolicy::Bidirectional);
    for _ in 0..9 {
        world.advance(5_000);
        world.heartbeat(&client.member_id, None, client.generation);
    }
    assert_eq!(world.listed().0, "classic");

    let (mut world, _) = mixed_group(MigrationPolicy::Bidirectional);
    assert_eq!(world.leave("c", None), ErrorCode::NONE);
    assert_eq!(world.listed().0, "classic");
    world.restart();

    let (mut world, client) = mixed_group(MigrationPolicy::Bidirectional);
    assert_eq!(world.leave(&client.member_id, None), ErrorCode::NONE);
    assert_eq!(world.listed().0, "consumer");
    world.restart();
}

#[test]
fn a_static_member_comes_back_with_the_other_protocol() {
    let (mut world, client) = classic_group(MigrationPolicy::Bidirectional, Some("i"));
    let upgrading = ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".into()),
        ..consumer("c")
    };
    let response = world.beat(&upgrading);
    let assigned = response.assignment.expect("it joins").topic_partitions;
    assert_eq!(
        (assigned[0].topic_id, assigned[0].partitions.len()),
        (RED, 3)
    );
    let code = world.heartbeat(&client.member_id, Some("i".into()), client.generation);
    assert_eq!(code, ErrorCode::FENCED_INSTANCE_ID);
    world.restart();

    // And back, without waiting for anybody: it has what it should.
    let mut again = classic_client(Some("i"));
    let token = world.join(JOIN_VERSION, again.join_request());
    again.on_joined(world.joined(token), &world.topics);
    assert_eq!(world.listed(), ("classic".into(), "Stable".into()));
    settle(&mut world, &mut again);
    assert_eq!(again.owned.len(), 3);
    world.restart();
    assert_eq!(
        world.heartbeat(&again.member_id, Some("i".into()), again.generation),
        ErrorCode::NONE
    );
}

#[test]
fn a_static_member_that_comes_back_assigns_what_its_topic_has_got_meanwhile() {
    for is_seen in [true, false] {
        let (mut world, _) = classic_group(MigrationPolicy::Bidirectional, Some("i"));
        let upgrading = ConsumerGroupHeartbeatRequest {
            instance_id: Some("i".into()),
            ..consumer("c")
        };
        assert_eq!(world.beat(&upgrading).error_code, ErrorCode::NONE);
        let before = world.topics.clone();
        world.grow_red();
        let grown = world.topics.clone();
        // A request may come with older metadata than the coordinator was told of.
        if !is_seen {
            world.topics = before;
        }
        let mut again = classic_client(Some("i"));
        let token = world.join(JOIN_VERSION, again.join_request());
        world.topics = grown;
        world.advance(0);
        again.on_joined(world.joined(token), &world.topics);
        assert_eq!((again.leads, again.excused), (Some(4), false), "{is_seen}");
        settle(&mut world, &mut again);
        assert_eq!(again.owned.len(), 4);
        world.restart();
    }
}

#[test]
fn members_of_the_classic_protocol_commit_in_their_generation() {
    let (mut world, client) = mixed_group(MigrationPolicy::Bidirectional);
    let mut commit = |generation: i32| {
        let request = OffsetCommitRequest {
            group_id: "g".into(),
            member_id: client.member_id.clone(),
            generation_id_or_member_epoch: generation,
            topics: vec![OffsetCommitRequestTopic {
                name: "red".into(),
                topic_id: Uuid::ZERO,
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: 0,
                    committed_offset: 42,
                    ..OffsetCommitRequestPartition::default()
                }],
            }],
            ..OffsetCommitRequest::default()
        };
        let token = world.ask(8, |coordinator, caller, _, out| {
            coordinator.offset_commit(caller, request, out);
        });
        match world.answer(token) {
            Some(GroupReply::OffsetCommit(response)) => response.topics[0].partitions[0].error_code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(commit(client.generation), ErrorCode::NONE);
    assert_eq!(commit(client.generation - 1), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(commit(client.generation + 1), ErrorCode::ILLEGAL_GENERATION);
    // Offsets stay whatever becomes of the group.
    world.beat(&leave("c"));
    world.restart();
    assert_eq!(world.listed().0, "classic");
    let offsets: Vec<i64> = world
        .coordinator
        .committed_offsets()
        .map(|(.., offset)| offset)
        .collect();
    assert_eq!(offsets, [42]);
}

#[test]
fn a_conversion_that_does_not_fit_into_a_batch_is_refused() {
    let mut config = GroupConfig {
        initial_rebalance_delay_ms: 0,
        batch_bytes_max: 0,
        ..GroupConfig::default()
    };
    config.consumer.migration_policy = MigrationPolicy::Bidirectional;
    let mut world = World::with(config);
    let names: Vec<Str> = (0..200)
        .map(|number| format!("{number:0200}").into())
        .collect();
    let metadata = subscription(&names, &Owned::new(), -1);
    let token = world.join(3, join("", "range", metadata));
    world.advance(0);
    assert_eq!(world.joined(token).error_code, ErrorCode::NONE);
    let before = world.listed();
    let code = world.beat(&consumer("c")).error_code;
    assert_eq!(code, ErrorCode::UNKNOWN_SERVER_ERROR);
    assert_eq!(world.listed(), before);
}
