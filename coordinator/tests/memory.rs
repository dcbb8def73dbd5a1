//! What an idle group costs: below 2 KiB, with a member that reads one partition or with committed offsets alone.
//!
//! Measured as the memory of the process that is resident, which counts what the allocator adds. This test is alone in its process.

use ringlog_coordinator::groups::consumer::TopicView;
use ringlog_coordinator::groups::{GroupConfig, GroupCoordinator, GroupReply};
use ringlog_coordinator::{Caller, Commands, Now, Token};
use ringlog_net::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use ringlog_net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringlog_net::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use ringlog_net::{Bytes, Str, Uuid};

const GROUPS: u64 = 20_000;
const IDLE_GROUP_BYTES_MAX: u64 = 2_048;
const PAGE_BYTES: u64 = 4_096;

/// A cluster without topics.
struct NoTopics;

impl TopicView for NoTopics {
    fn topic_by_name(&self, _: &str) -> Option<(Uuid, i32)> {
        None
    }

    fn topic_name(&self, _: &Uuid) -> Option<Str> {
        None
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(std::iter::empty())
    }

    fn version(&self) -> u64 {
        0
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split_whitespace().nth(1).expect("a second field");
    pages.parse::<u64>().expect("a number") * PAGE_BYTES
}

fn caller(token: u64, wait_ms: u64) -> Caller {
    Caller {
        token: Token(token),
        now: Now {
            monotonic_ms: wait_ms,
            wall_ms: 1_700_000_000_000,
        },
        version: 9,
        client_id: "consumer-billing-1".into(),
        client_host: "/192.168.100.100".into(),
        fresh_id: Uuid(u128::from(token).to_be_bytes()),
    }
}

fn commit(coordinator: &mut GroupCoordinator, index: u64, member_id: Str, generation: i32) {
    let request = OffsetCommitRequest {
        group_id: group(index),
        member_id,
        generation_id_or_member_epoch: generation,
        topics: vec![OffsetCommitRequestTopic {
            name: "a-topic-of-usual-length".into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: 1,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    let mut out = Commands::default();
    coordinator.offset_commit(&caller(index, 5_000), request, &mut out);
}

fn group(index: u64) -> Str {
    Str::from(format!("a-group-of-usual-length-{index}"))
}

fn member_id(out: &Commands<GroupReply>) -> Str {
    match &out.replies[0].1 {
        GroupReply::JoinGroup(reply) => reply.member_id.clone(),
        other => panic!("{other:?}"),
    }
}

/// Lets one member join and read one partition.
fn form(coordinator: &mut GroupCoordinator, index: u64) {
    let mut request = JoinGroupRequest {
        group_id: group(index),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        protocol_type: "consumer".into(),
        // What the Java consumer offers: two protocols, some sixty bytes each.
        protocols: ["range", "cooperative-sticky"]
            .map(|name| JoinGroupRequestProtocol {
                name: name.into(),
                metadata: Bytes::from(vec![0; 60]),
            })
            .to_vec(),
        ..JoinGroupRequest::default()
    };
    let mut out = Commands::default();
    coordinator.join_group(&caller(index, 0), request.clone(), &NoTopics, &mut out);
    request.member_id = member_id(&out);
    let id = request.member_id.clone();
    coordinator.join_group(
        &caller(GROUPS + index, 0),
        request,
        &NoTopics,
        &mut Commands::default(),
    );
    let later = caller(0, 5_000);
    let mut out = Commands::default();
    coordinator.on_timeout(later.now, &NoTopics, &mut out);
    let request = SyncGroupRequest {
        group_id: group(index),
        generation_id: 1,
        member_id: id.clone(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: id.clone(),
            assignment: Bytes::from(vec![0; 50]),
        }],
        ..SyncGroupRequest::default()
    };
    coordinator.sync_group(&later, request, &NoTopics, &mut Commands::default());
    commit(coordinator, index, id, 1);
}

#[test]
fn an_idle_group_is_small() {
    let mut simple = GroupCoordinator::new(GroupConfig::default());
    let before = resident_bytes();
    for index in 0..GROUPS {
        commit(&mut simple, index, Str::default(), -1);
    }
    let bytes = (resident_bytes() - before) / GROUPS;
    println!("a group with one offset takes {bytes} bytes");
    assert_eq!(simple.counts().offsets as u64, GROUPS);
    assert!(bytes < IDLE_GROUP_BYTES_MAX, "{bytes} bytes");

    let mut stable = GroupCoordinator::new(GroupConfig::default());
    let before = resident_bytes();
    for index in 0..GROUPS {
        form(&mut stable, index);
    }
    let bytes = (resident_bytes() - before) / GROUPS;
    println!("a group with one member and one offset takes {bytes} bytes");
    let counts = stable.counts();
    assert_eq!(
        (counts.stable as u64, counts.offsets as u64),
        (GROUPS, GROUPS)
    );
    assert!(bytes < IDLE_GROUP_BYTES_MAX, "{bytes} bytes");
}
