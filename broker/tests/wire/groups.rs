//! Consumer groups on the wire: members form a generation, commit, and find all of it again after a crash.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ringlog_net::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use ringlog_net::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use ringlog_net::messages::delete_groups::DeleteGroupsRequest;
use ringlog_net::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use ringlog_net::messages::find_coordinator::FindCoordinatorRequest;
use ringlog_net::messages::heartbeat::HeartbeatRequest;
use ringlog_net::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use ringlog_net::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use ringlog_net::messages::list_groups::ListGroupsRequest;
use ringlog_net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringlog_net::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ringlog_net::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use ringlog_net::request::{Request, Response};
use ringlog_net::{ApiKey, ErrorCode, Str};

use crate::support::{Broker, Client};

const QUICK: &[&str] = &[
    "group.initial.rebalance.delay.ms=0",
    "offsets.topic.num.partitions=4",
];

fn join(group: &str, member: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: Str::from(group),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        member_id: Str::from(member),
        protocol_type: Str::from_static("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: Str::from_static("range"),
            metadata: Bytes::from_static(b"subscription"),
        }],
        ..Default::default()
    }
}

fn find_coordinator(client: &mut Client, group: &str) {
    let request = FindCoordinatorRequest {
        key: Str::from(group),
        ..Default::default()
    };
    let Response::FindCoordinator(found) = client.call(Request::from(request), 3) else {
        panic!("another response")
    };
    assert_eq!(found.error_code, ErrorCode::NONE);
    assert_eq!(found.node_id, 1);
}

/// Asks again while the coordinator loads.
fn call_loaded(
    client: &mut Client,
    request: &Request,
    version: i16,
    error: impl Fn(&Response) -> ErrorCode,
) -> Response {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let response = client.call(request.clone(), version);
        let busy = [
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
            ErrorCode::NOT_COORDINATOR,
            ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ];
        if !busy.contains(&error(&response)) || Instant::now() > until {
            return response;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn joined(response: Response) -> JoinGroupResponse {
    match response {
        Response::JoinGroup(response) => *response,
        other => panic!("{other:?}"),
    }
}

fn member_id(client: &mut Client, group: &str) -> Str {
    let response = call_loaded(
        client,
        &join(group, "").into(),
        9,
        |response| match response {
            Response::JoinGroup(joined) => joined.error_code,
            _ => ErrorCode::NONE,
        },
    );
    let response = joined(response);
    assert_eq!(response.error_code, ErrorCode::MEMBER_ID_REQUIRED);
    response.member_id
}

fn sync(
    group: &str,
    member: &Str,
    generation: i32,
    assignments: &[(&Str, &'static [u8])],
) -> Request {
    SyncGroupRequest {
        group_id: Str::from(group),
        generation_id: generation,
        member_id: member.clone(),
        protocol_type: Some(Str::from_static("consumer")),
        protocol_name: Some(Str::from_static("range")),
        assignments: assignments
            .iter()
            .map(|(member, assignment)| SyncGroupRequestAssignment {
                member_id: (*member).clone(),
                assignment: Bytes::from_static(assignment),
            })
            .collect(),
        ..Default::default()
    }
    .into()
}

fn commit(group: &str, member: &str, generation: i32, partition: i32, offset: i64) -> Request {
    OffsetCommitRequest {
        group_id: Str::from(group),
        generation_id_or_member_epoch: generation,
        member_id: Str::from(member),
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from_static("t"),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: offset,
                committed_metadata: Some(Str::from_static("note")),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
    .into()
}

fn commit_error(response: &Response) -> ErrorCode {
    match response {
        Response::OffsetCommit(response) => response.topics[0].partitions[0].error_code,
        other => panic!("{other:?}"),
    }
}

fn committed(client: &mut Client, group: &str) -> Vec<(i32, i64)> {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: Str::from(group),
            topics: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = call_loaded(client, &request.into(), 8, |response| match response {
        Response::OffsetFetch(fetched) => fetched.groups[0].error_code,
        other => panic!("{other:?}"),
    });
    let Response::OffsetFetch(fetched) = response else {
        panic!("another response")
    };
    assert_eq!(fetched.groups[0].error_code, ErrorCode::NONE);
    let topics = fetched.groups[0].topics.iter();
    let mut found: Vec<(i32, i64)> = topics
        .flat_map(|topic| &topic.partitions)
        .map(|partition| (partition.partition_index, partition.committed_offset))
        .collect();
    found.sort_unstable();
    found
}

fn describe(client: &mut Client, group: &str) -> DescribedGroup {
    let request = DescribeGroupsRequest {
        groups: vec![Str::from(group)],
        ..Default::default()
    };
    match client.call(Request::from(request), 5) {
        Response::DescribeGroups(mut described) => described.groups.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_members_form_a_generation_and_their_offsets_survive_a_crash() {
    let mut broker = Broker::start(QUICK);
    let (mut a, mut b) = (broker.connect(), broker.connect());
    a.create_topic("t", 2, &[]);
    find_coordinator(&mut a, "g");
    let id_a = member_id(&mut a, "g");
    let id_b = member_id(&mut b, "g");
    // The first generation has who came first; the second member makes a second one.
    let first = joined(a.call(Request::from(join("g", &id_a)), 9));
    assert_eq!(
        (first.error_code, first.leader.clone()),
        (ErrorCode::NONE, id_a.clone())
    );
    let waits = b.send(&join("g", &id_b).into(), 9);
    let beat = |generation| HeartbeatRequest {
        group_id: Str::from_static("g"),
        generation_id: generation,
        member_id: id_a.clone(),
        ..Default::default()
    };
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let Response::Heartbeat(beat) = a.call(Request::from(beat(first.generation_id)), 4) else {
            panic!("another response")
        };
        if beat.error_code == ErrorCode::REBALANCE_IN_PROGRESS {
            break;
        }
        assert!(Instant::now() < until, "{:?}", beat.error_code);
    }
    let again = joined(a.call(Request::from(join("g", &id_a)), 9));
    let with_b = joined(b.receive(ApiKey::JoinGroup, 9, waits));
    let generation = again.generation_id;
    assert_eq!(
        (again.error_code, with_b.error_code),
        (ErrorCode::NONE, ErrorCode::NONE)
    );
    assert_eq!(generation, first.generation_id + 1);
    assert_eq!(with_b.generation_id, generation);
    assert_eq!((again.members.len(), with_b.members.len()), (2, 0));

    let waits = b.send(&sync("g", &id_b, generation, &[]), 5);
    let handed_out = [(&id_a, b"part 0".as_slice()), (&id_b, b"part 1".as_slice())];
    let Response::SyncGroup(own) = a.call(sync("g", &id_a, generation, &handed_out), 5) else {
        panic!("another response")
    };
    let Response::SyncGroup(others) = b.receive(ApiKey::SyncGroup, 5, waits) else {
        panic!("another response")
    };
    assert_eq!(
        (own.error_code, &own.assignment[..]),
        (ErrorCode::NONE, b"part 0".as_slice())
    );
    assert_eq!(
        (others.error_code, &others.assignment[..]),
        (ErrorCode::NONE, b"part 1".as_slice())
    );

    assert_eq!(
        commit_error(&a.call(commit("g", &id_a, generation, 0, 17), 9)),
        ErrorCode::NONE
    );
    assert_eq!(
        commit_error(&b.call(commit("g", &id_b, generation, 1, 4), 9)),
        ErrorCode::NONE
    );
    let stale = commit_error(&a.call(commit("g", &id_a, generation - 1, 0, 3), 9));
    assert_eq!(stale, ErrorCode::ILLEGAL_GENERATION);
    let nowhere = commit_error(&a.call(commit("g", &id_a, generation, 9, 3), 9));
    assert_eq!(nowhere, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let described = describe(&mut a, "g");
    assert_eq!(
        (described.group_state.as_str(), described.members.len()),
        ("Stable", 2)
    );

    broker.crash_and_restart();
    let mut a = broker.connect();
    assert_eq!(committed(&mut a, "g"), [(0, 17), (1, 4)]);
    // The members are still in their generation.
    let Response::Heartbeat(alive) = a.call(Request::from(beat(generation)), 4) else {
        panic!("another response")
    };
    assert_eq!(alive.error_code, ErrorCode::NONE);
    assert_eq!(
        commit_error(&a.call(commit("g", &id_a, generation, 0, 18), 9)),
        ErrorCode::NONE
    );
    assert_eq!(committed(&mut a, "g"), [(0, 18), (1, 4)]);
}

#[test]
fn a_group_that_all_have_left_is_listed_as_empty_and_can_be_deleted() {
    let broker = Broker::start(QUICK);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find_coordinator(&mut client, "g");
    let id = member_id(&mut client, "g");
    let first = joined(client.call(Request::from(join("g", &id)), 9));
    let handed_out = [(&id, b"all".as_slice())];
    client.call(sync("g", &id, first.generation_id, &handed_out), 5);
    assert_eq!(
        commit_error(&client.call(commit("g", &id, first.generation_id, 0, 1), 9)),
        ErrorCode::NONE
    );
    let delete = |client: &mut Client| {
        let request = DeleteGroupsRequest {
            groups_names: vec![Str::from_static("g")],
        };
        match client.call(Request::from(request), 2) {
            Response::DeleteGroups(response) => response.results[0].error_code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(delete(&mut client), ErrorCode::NON_EMPTY_GROUP);
    let leave = LeaveGroupRequest {
        group_id: Str::from_static("g"),
        members: vec![MemberIdentity {
            member_id: id.clone(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let Response::LeaveGroup(left) = client.call(Request::from(leave), 5) else {
        panic!("another response")
    };
    assert_eq!(left.members[0].error_code, ErrorCode::NONE);
    let list = |client: &mut Client, states: &[&str]| {
        let request = ListGroupsRequest {
            states_filter: states.iter().map(|state| Str::from(*state)).collect(),
            ..Default::default()
        };
        match client.call(Request::from(request), 5) {
            Response::ListGroups(response) => response
                .groups
                .iter()
                .map(|group| (group.group_id.to_string(), group.group_state.to_string()))
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        list(&mut client, &[]),
        [("g".to_string(), "Empty".to_string())]
    );
    assert_eq!(list(&mut client, &["Stable"]), []);
    assert_eq!(delete(&mut client), ErrorCode::NONE);
    assert_eq!(list(&mut client, &[]), []);
    assert_eq!(committed(&mut client, "g"), []);
    assert_eq!(describe(&mut client, "g").group_state, "Dead");
}

#[test]
fn commits_of_many_groups_at_once_are_all_there_after_a_crash() {
    const GROUPS: usize = 24;
    const COMMITS: i64 = 20;
    let mut broker = Broker::start(QUICK);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find_coordinator(&mut client, "any");
    let mut clients: Vec<Client> = (0..GROUPS).map(|_| broker.connect()).collect();
    for offset in 1..=COMMITS {
        // All at once: each answer must be the answer to its own.
        let sent: Vec<i32> = (clients.iter_mut().enumerate())
            .map(|(at, client)| {
                client.send(
                    &commit(&format!("g{at}"), "", -1, 0, offset * 100 + at as i64),
                    9,
                )
            })
            .collect();
        for (client, id) in clients.iter_mut().zip(sent) {
            let answer = client.receive(ApiKey::OffsetCommit, 9, id);
            assert_eq!(commit_error(&answer), ErrorCode::NONE);
        }
    }
    broker.crash_and_restart();
    let mut client = broker.connect();
    for at in 0..GROUPS {
        let expected = COMMITS * 100 + at as i64;
        assert_eq!(committed(&mut client, &format!("g{at}")), [(0, expected)]);
    }
}

#[test]
fn offsets_of_a_deleted_topic_are_forgotten() {
    let broker = Broker::start(QUICK);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find_coordinator(&mut client, "g");
    assert_eq!(
        commit_error(&client.call(commit("g", "", -1, 0, 5), 9)),
        ErrorCode::NONE
    );
    assert_eq!(committed(&mut client, "g"), [(0, 5)]);
    let delete = ringlog_net::messages::delete_topics::DeleteTopicsRequest {
        topic_names: vec![Str::from_static("t")],
        timeout_ms: 10_000,
        ..Default::default()
    };
    client.call(Request::from(delete), 5);
    assert_eq!(committed(&mut client, "g"), []);
}

#[test]
fn offsets_are_asked_for_and_answered_in_the_oldest_and_newest_forms() {
    let broker = Broker::start(QUICK);
    let mut client = broker.connect();
    let topic_id = client.create_topic("t", 2, &[]);
    find_coordinator(&mut client, "g");
    let by_id = OffsetCommitRequest {
        group_id: Str::from_static("g"),
        topics: vec![OffsetCommitRequestTopic {
            topic_id,
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 1,
                committed_offset: 7,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = client.call(Request::from(by_id), 10);
    assert_eq!(commit_error(&answer), ErrorCode::NONE);
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: Str::from_static("g"),
            topics: Some(vec![OffsetFetchRequestTopics {
                topic_id,
                partition_indexes: vec![0, 1],
                ..Default::default()
            }]),
            ..Default::default()
        }],
        ..Default::default()
    };
    let Response::OffsetFetch(fetched) = client.call(Request::from(request), 10) else {
        panic!("another response")
    };
    let topic = &fetched.groups[0].topics[0];
    assert_eq!(topic.topic_id, topic_id);
    let offsets: Vec<i64> = topic
        .partitions
        .iter()
        .map(|one| one.committed_offset)
        .collect();
    assert_eq!(offsets, [-1, 7]);
    let old = OffsetFetchRequest {
        group_id: Str::from_static("g"),
        topics: Some(vec![
            ringlog_net::messages::offset_fetch::OffsetFetchRequestTopic {
                name: Str::from_static("t"),
                partition_indexes: vec![1],
            },
        ]),
        ..Default::default()
    };
    let Response::OffsetFetch(fetched) = client.call(Request::from(old), 1) else {
        panic!("another response")
    };
    assert_eq!(fetched.topics[0].partitions[0].committed_offset, 7);
}

fn consumer_beat(
    client: &mut Client,
    member: &str,
    epoch: i32,
    topics: Option<&str>,
) -> ConsumerGroupHeartbeatResponse {
    let request = ConsumerGroupHeartbeatRequest {
        group_id: Str::from_static("g"),
        member_id: Str::from(member),
        member_epoch: epoch,
        rebalance_timeout_ms: 10_000,
        subscribed_topic_names: topics.map(|topic| vec![Str::from(topic)]),
        topic_partitions: (epoch == 0).then(Vec::new),
        ..Default::default()
    };
    let request = Request::from(request);
    let response = call_loaded(client, &request, 1, |response| match response {
        Response::ConsumerGroupHeartbeat(beat) => beat.error_code,
        other => panic!("{other:?}"),
    });
    match response {
        Response::ConsumerGroupHeartbeat(beat) => *beat,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_member_whose_coordinator_assigns_gets_new_partitions_and_is_there_after_a_crash() {
    let mut broker = Broker::start(&[QUICK, &["group.consumer.assignment.interval.ms=0"]].concat());
    let mut client = broker.connect();
    client.create_topic("t", 2, &[]);
    find_coordinator(&mut client, "g");
    let member = "AAAAAAAAAAAAAAAAAAAAAA";
    let partitions = |beat: &ConsumerGroupHeartbeatResponse| {
        let assignment = beat.assignment.as_ref()?;
        let mut all: Vec<i32> = assignment
            .topic_partitions
            .iter()
            .flat_map(|one| one.partitions.clone())
            .collect();
        all.sort_unstable();
        Some(all)
    };
    let first = consumer_beat(&mut client, member, 0, Some("t"));
    assert_eq!(
        first.error_code,
        ErrorCode::NONE,
        "{:?}",
        first.error_message
    );
    assert_eq!(partitions(&first), Some(vec![0, 1]));
    let grow = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: Str::from_static("t"),
            count: 3,
            ..Default::default()
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    client.call(Request::from(grow), 3);
    let mut epoch = first.member_epoch;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let beat = consumer_beat(&mut client, member, epoch, None);
        assert_eq!(beat.error_code, ErrorCode::NONE, "{:?}", beat.error_message);
        epoch = beat.member_epoch;
        if partitions(&beat) == Some(vec![0, 1, 2]) {
            break;
        }
        assert!(
            Instant::now() < until,
            "the third partition is never assigned"
        );
    }
    assert_eq!(
        commit_error(&client.call(commit("g", member, epoch, 2, 8), 9)),
        ErrorCode::NONE
    );
    let stale = commit_error(&client.call(commit("g", member, epoch + 5, 2, 9), 9));
    assert_eq!(stale, ErrorCode::STALE_MEMBER_EPOCH);
    broker.crash_and_restart();
    let mut client = broker.connect();
    let beat = consumer_beat(&mut client, member, epoch, None);
    assert_eq!(
        (beat.error_code, beat.member_epoch),
        (ErrorCode::NONE, epoch)
    );
    assert_eq!(committed(&mut client, "g"), [(2, 8)]);
}

#[test]
fn requests_of_a_connection_that_stays_open_leave_nothing_behind() {
    const COMMITS: i64 = 3_000;
    const GROWTH_MAX: u64 = 24 << 20;
    let broker = Broker::start(QUICK);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find_coordinator(&mut client, "g");
    let many = |client: &mut Client| {
        for offset in 0..COMMITS {
            let answer = client.call(commit("g", "", -1, 0, offset), 9);
            assert_eq!(commit_error(&answer), ErrorCode::NONE);
        }
    };
    many(&mut client);
    let before = broker.resident_bytes();
    many(&mut client);
    let growth = broker.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{growth} bytes for {COMMITS} commits");
}
