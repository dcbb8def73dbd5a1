//! Consumer groups among the others: they are found, listed, described and deleted, keep their offsets whatever protocol is spoken, and come back when
//! they are loaded.

use std::cell::Cell;

use ringlog_net::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use ringlog_net::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use ringlog_net::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use ringlog_net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringlog_net::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ringlog_net::messages::offset_fetch::OffsetFetchRequestGroup;
use ringlog_net::{Bytes, ErrorCode, Str, Uuid};

use crate::groups::classic::ClassicGroup;
use crate::groups::consumer::{MigrationPolicy, TopicView};
use crate::groups::{GroupConfig, GroupCoordinator, GroupReply, ListFilter};
use crate::{Caller, Commands, Now, Record, Token};

const RED: Uuid = Uuid([7; 16]);

/// One topic, `red`.
struct Red {
    partitions: i32,
}

impl TopicView for Red {
    fn topic_by_name(&self, name: &str) -> Option<(Uuid, i32)> {
        (name == "red").then_some((RED, self.partitions))
    }

    fn topic_name(&self, id: &Uuid) -> Option<Str> {
        (*id == RED).then(|| "red".into())
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(std::iter::once("red"))
    }

    fn version(&self) -> u64 {
        1
    }
}

struct Host {
    coordinator: GroupCoordinator,
    log: Vec<Record>,
    topics: Red,
    now: Now,
    tokens: u64,
}

impl Host {
    fn new() -> Host {
        Host {
            coordinator: GroupCoordinator::new(config()),
            log: Vec::new(),
            topics: Red { partitions: 2 },
            now: Now {
                monotonic_ms: 5,
                wall_ms: 1_700_000_000_000,
            },
            tokens: 0,
        }
    }

    /// Lets a request be handled that is answered at once, or by a timer that is due.
    fn call(
        &mut self,
        version: i16,
        handle: impl FnOnce(&mut GroupCoordinator, &Caller, &Red, &mut Commands<GroupReply>),
    ) -> GroupReply {
        self.tokens += 1;
        let caller = Caller {
            token: Token(self.tokens),
            now: self.now,
            version,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            fresh_id: Uuid(u128::from(self.tokens).to_be_bytes()),
        };
        let mut out = Commands::default();
        handle(&mut self.coordinator, &caller, &self.topics, &mut out);
        if out.replies.is_empty() {
            self.coordinator
                .on_timeout(self.now, &self.topics, &mut out);
        }
        self.log.extend(out.records);
        self.coordinator.check();
        let (token, reply) = out.replies.pop().expect("an answer");
        assert_eq!((token, out.replies.len()), (caller.token, 0));
        reply
    }

    fn beat(&mut self, request: &ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        let reply = self.call(1, |coordinator, caller, topics, out| {
            coordinator.consumer_group_heartbeat(caller, request, topics, out);
        });
        match reply {
            GroupReply::ConsumerGroupHeartbeat(response) => response,
            other => panic!("{other:?}"),
        }
    }

    /// A member joins with JoinGroup; it is given an id if it comes in.
    fn join_classic(&mut self, member_id: &str) -> JoinGroupResponse {
        let request = JoinGroupRequest {
            group_id: "g".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            member_id: member_id.into(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".into(),
                metadata: Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
            }],
            ..JoinGroupRequest::default()
        };
        let reply = self.call(5, |coordinator, caller, topics, out| {
            coordinator.join_group(caller, request, topics, out);
        });
        match reply {
            GroupReply::JoinGroup(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, member_id: &str, epoch: i32, version: i16, topic_id: Uuid) -> ErrorCode {
        let request = OffsetCommitRequest {
            group_id: "g".into(),
            member_id: member_id.into(),
            generation_id_or_member_epoch: epoch,
            topics: vec![OffsetCommitRequestTopic {
                name: "red".into(),
                topic_id,
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: 0,
                    committed_offset: 42,
                    ..OffsetCommitRequestPartition::default()
                }],
            }],
            ..OffsetCommitRequest::default()
        };
        let reply = self.call(version, |coordinator, caller, _, out| {
            coordinator.offset_commit(caller, request, out);
        });
        match reply {
            GroupReply::OffsetCommit(response) => response.topics[0].partitions[0].error_code,
            other => panic!("{other:?}"),
        }
    }

    /// The error, and the offset of partition 0 of `red`.
    fn fetch(&mut self, member_id: Option<&str>, epoch: i32) -> (ErrorCode, Option<i64>) {
        let request = OffsetFetchRequestGroup {
            group_id: "g".into(),
            member_id: member_id.map(Str::from),
            member_epoch: epoch,
            topics: None,
        };
        let reply = self.call(9, |coordinator, caller, topics, out| {
            coordinator.offset_fetch(caller, request, false, topics, out);
        });
        match reply {
            GroupReply::OffsetFetchGroup(group) => {
                let partition = group.topics.first().map(|topic| &topic.partitions[0]);
                (
                    group.error_code,
                    partition.map(|found| found.committed_offset),
                )
            }
            other => panic!("{other:?}"),
        }
    }

    fn delete(&mut self) -> ErrorCode {
        let reply = self.call(2, |coordinator, caller, _, out| {
            coordinator.delete_group(caller, "g".into(), out);
        });
        match reply {
            GroupReply::DeletedGroup(deleted) => deleted.error_code,
            other => panic!("{other:?}"),
        }
    }

    /// Type and state, as ListGroups says.
    fn listed(&self) -> Option<(String, String)> {
        let groups = self.coordinator.list_groups(&ListFilter::default());
        assert!(groups.len() <= 1);
        let group = groups.first()?;
        Some((group.group_type.to_string(), group.group_state.to_string()))
    }

    fn assert_listed(&self, group_type: &str, state: &str) {
        assert_eq!(self.listed(), Some((group_type.into(), state.into())));
    }

    fn advance(&mut self, ms: u32) {
        self.now.monotonic_ms += u64::from(ms);
        self.now.wall_ms += i64::from(ms);
        let now = self.now;
        while self
            .coordinator
            .next_deadline()
            .is_some_and(|deadline| deadline <= now.monotonic_ms)
        {
            let mut out = Commands::default();
            self.coordinator.on_timeout(now, &self.topics, &mut out);
            self.log.extend(out.records);
            self.coordinator.check();
        }
    }

    /// Another coordinator takes over, and sees what this one saw.
    fn restart(&mut self) {
        let mut loaded = GroupCoordinator::new(config());
        for record in &self.log {
            loaded
                .replay(None, record.key.clone(), record.value.clone())
                .unwrap();
        }
        let mut out = Commands::default();
        loaded.loaded(self.now, &mut out);
        assert!(out.is_empty());
        let seen = |coordinator: &GroupCoordinator| {
            let offsets = coordinator.committed_offsets();
            let offsets: Vec<(Str, i64)> = offsets
                .map(|(group, _, _, offset)| (group.clone(), offset))
                .collect();
            let counts = coordinator.counts();
            let groups = coordinator.list_groups(&ListFilter::default());
            (groups, offsets, counts.members, counts.member_bytes)
        };
        assert_eq!(seen(&loaded), seen(&self.coordinator));
        loaded.check();
        self.coordinator = loaded;
    }
}

fn config() -> GroupConfig {
    let mut config = GroupConfig {
        initial_rebalance_delay_ms: 0,
        offsets_retention_minutes: 1,
        ..GroupConfig::default()
    };
    config.consumer.assignment_interval_ms = 0;
    config.consumer.migration_policy = MigrationPolicy::Disabled;
    config
}

fn join(id: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        rebalance_timeout_ms: 10_000,
        subscribed_topic_names: Some(vec!["red".into()]),
        topic_partitions: Some(Vec::new()),
        ..beat(id, 0)
    }
}

fn beat(id: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: id.into(),
        member_epoch: epoch,
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

#[test]
fn a_group_is_made_by_its_first_member_and_found_by_all_requests() {
    let mut host = Host::new();
    assert_eq!(
        host.beat(&beat("a", 1)).error_code,
        ErrorCode::GROUP_ID_NOT_FOUND
    );
    let invalid = ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some("(".into()),
        ..join("a")
    };
    let code = host.beat(&invalid).error_code;
    assert_eq!(code, ErrorCode::INVALID_REGULAR_EXPRESSION);
    assert_eq!(host.listed(), None);

    assert_eq!(host.beat(&join("a")).member_epoch, 1);
    host.assert_listed("consumer", "Stable");
    let reply = host.call(1, |coordinator, caller, topics, out| {
        coordinator.consumer_group_describe(caller, "g".into(), topics, out);
    });
    let GroupReply::DescribedConsumerGroup(group) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(
        (group.error_code, group.members.len()),
        (ErrorCode::NONE, 1)
    );
    for (version, expected) in [(5, ErrorCode::NONE), (6, ErrorCode::GROUP_ID_NOT_FOUND)] {
        let reply = host.call(version, |coordinator, caller, _, out| {
            coordinator.describe_group(caller, "g".into(), out);
        });
        let GroupReply::DescribedGroup(group) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!((group.error_code, &*group.group_state), (expected, "Dead"));
    }
    assert_eq!(host.delete(), ErrorCode::NON_EMPTY_GROUP);
    host.restart();

    assert_eq!(host.beat(&beat("a", -1)).error_code, ErrorCode::NONE);
    host.assert_listed("consumer", "Empty");
    host.restart();
    assert_eq!(host.delete(), ErrorCode::NONE);
    assert_eq!(host.listed(), None);
    host.restart();
    assert_eq!(host.coordinator.counts().member_bytes, 0);
}

#[test]
fn only_members_in_their_epoch_commit_and_fetch() {
    let mut host = Host::new();
    host.beat(&join("a"));
    assert_eq!(host.commit("a", 1, 9, RED), ErrorCode::NONE);
    assert_eq!(host.commit("a", 1, 8, RED), ErrorCode::UNSUPPORTED_VERSION);
    assert_eq!(host.commit("a", 2, 9, RED), ErrorCode::STALE_MEMBER_EPOCH);
    assert_eq!(host.commit("b", 1, 9, RED), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(host.commit("", -1, 9, RED), ErrorCode::UNKNOWN_MEMBER_ID);
    host.topics.partitions = 3;
    host.coordinator.on_metadata(&["red".into()], &host.topics);
    assert_eq!(host.beat(&beat("a", 1)).member_epoch, 2);
    // In its epoch before it had the partition already.
    assert_eq!(host.commit("a", 1, 10, RED), ErrorCode::NONE);
    assert_eq!(
        host.commit("a", 1, 9, Uuid::ZERO),
        ErrorCode::STALE_MEMBER_EPOCH
    );
    assert_eq!(host.fetch(Some("a"), 2), (ErrorCode::NONE, Some(42)));
    assert_eq!(
        host.fetch(Some("a"), 1),
        (ErrorCode::STALE_MEMBER_EPOCH, None)
    );
    assert_eq!(
        host.fetch(Some("b"), 2),
        (ErrorCode::UNKNOWN_MEMBER_ID, None)
    );
    assert_eq!(host.fetch(None, -1), (ErrorCode::NONE, Some(42)));
    host.restart();
}

/// Counts how often anybody looks at it.
struct Watched<'a>(&'a Red, Cell<usize>);

impl TopicView for Watched<'_> {
    fn topic_by_name(&self, name: &str) -> Option<(Uuid, i32)> {
        self.1.set(self.1.get() + 1);
        self.0.topic_by_name(name)
    }

    fn topic_name(&self, id: &Uuid) -> Option<Str> {
        self.0.topic_name(id)
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        self.0.names()
    }

    fn version(&self) -> u64 {
        self.0.version()
    }
}

#[test]
fn news_of_a_topic_cost_the_same_however_many_groups_there_are() {
    let mut host = Host::new();
    for group in ["g", "h", "i"] {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: group.into(),
            subscribed_topic_regex: Some("r.*".into()),
            ..join("a")
        };
        assert_eq!(host.beat(&request).error_code, ErrorCode::NONE);
    }
    let watched = Watched(&host.topics, Cell::new(0));
    host.coordinator.on_metadata(&["blue".into()], &watched);
    assert_eq!(watched.1.get(), 1);
}

#[test]
fn who_has_missed_too_many_news_looks_at_everything() {
    for others in [0, 998, 999, 1_000, 5_000] {
        let mut host = Host::new();
        host.beat(&join("a"));
        let mut epoch = host.beat(&beat("a", 1)).member_epoch;
        for partitions in [3, 4] {
            host.topics.partitions = partitions;
            host.coordinator.on_metadata(&["red".into()], &host.topics);
            for _ in 0..others {
                host.coordinator.on_metadata(&["blue".into()], &host.topics);
            }
            let grown = host.beat(&beat("a", epoch));
            assert_eq!(grown.member_epoch, epoch + 1, "after {others} others");
            epoch += 1;
            assert_eq!(host.beat(&beat("a", epoch)).member_epoch, epoch);
        }
    }
}

#[test]
fn offsets_that_are_in_use_stay_and_others_go() {
    let mut host = Host::new();
    host.beat(&join("a"));
    host.commit("a", 1, 9, RED);
    let delete = |host: &mut Host| {
        let request = OffsetDeleteRequest {
            group_id: "g".into(),
            topics: vec![OffsetDeleteRequestTopic {
                name: "red".into(),
                partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
            }],
        };
        let reply = host.call(0, |coordinator, caller, _, out| {
            coordinator.offset_delete(caller, request, out);
        });
        match reply {
            GroupReply::OffsetDelete(response) => response.topics[0].partitions[0].error_code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(delete(&mut host), ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC);
    let unsubscribe = ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: Some(Vec::new()),
        ..beat("a", 1)
    };
    assert_eq!(host.beat(&unsubscribe).error_code, ErrorCode::NONE);
    assert_eq!(delete(&mut host), ErrorCode::NONE);
    assert_eq!(host.fetch(None, -1), (ErrorCode::NONE, None));
    host.restart();
}

#[test]
fn silent_members_go_and_in_the_end_the_group() {
    let mut host = Host::new();
    host.beat(&join("a"));
    host.commit("a", 1, 9, RED);
    host.restart();
    host.advance(44_999);
    host.assert_listed("consumer", "Stable");
    host.advance(1);
    host.assert_listed("consumer", "Empty");
    host.restart();
    let mut out = Commands::default();
    host.coordinator.expire(host.now, &mut out);
    assert!(out.is_empty());
    host.advance(60_000);
    host.coordinator.expire(host.now, &mut out);
    host.log.append(&mut out.records);
    assert_eq!(host.listed(), None);
    host.restart();
}

#[test]
fn an_empty_group_is_of_the_protocol_of_who_comes() {
    let mut host = Host::new();
    // A group that only has offsets becomes a consumer group, and keeps them.
    assert_eq!(host.commit("", -1, 9, RED), ErrorCode::NONE);
    host.assert_listed("classic", "Empty");
    let invalid = ConsumerGroupHeartbeatRequest {
        server_assignor: Some("none".into()),
        ..join("a")
    };
    assert_eq!(
        host.beat(&invalid).error_code,
        ErrorCode::UNSUPPORTED_ASSIGNOR
    );
    host.assert_listed("classic", "Empty");
    host.beat(&join("a"));
    host.assert_listed("consumer", "Stable");
    assert_eq!(host.fetch(Some("a"), 1), (ErrorCode::NONE, Some(42)));
    host.restart();

    // While it has members nobody comes in who speaks the other protocol.
    let code = host.join_classic("").error_code;
    assert_eq!(code, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    host.beat(&beat("a", -1));
    let joined = host.join_classic("");
    assert_eq!(
        (joined.error_code, joined.generation_id),
        (ErrorCode::MEMBER_ID_REQUIRED, -1)
    );
    let joined = host.join_classic(&joined.member_id);
    assert_eq!(
        (joined.error_code, joined.generation_id),
        (ErrorCode::NONE, 1)
    );
    host.assert_listed("classic", "CompletingRebalance");
    let classic = host.coordinator.groups["g"].as_classic();
    assert_eq!(classic.map(ClassicGroup::generation), Some(1));
    assert_eq!(host.fetch(None, -1), (ErrorCode::NONE, Some(42)));
    let code = host.beat(&join("a")).error_code;
    assert_eq!(code, ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(
        host.beat(&beat("a", 1)).error_code,
        ErrorCode::GROUP_ID_NOT_FOUND
    );

    // And back again, when the classic member is gone.
    host.advance(30_000);
    host.assert_listed("classic", "Empty");
    host.restart();
    host.beat(&join("b"));
    host.assert_listed("consumer", "Stable");
    host.restart();
    assert_eq!(host.fetch(Some("b"), 1), (ErrorCode::NONE, Some(42)));
}

#[test]
fn an_administrator_removes_members() {
    let mut host = Host::new();
    host.beat(&join("a"));
    let named = ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".into()),
        ..join("b")
    };
    host.beat(&named);
    let identity = |member_id: &str, instance_id: Option<&str>| MemberIdentity {
        member_id: member_id.into(),
        group_instance_id: instance_id.map(Str::from),
        ..MemberIdentity::default()
    };
    let request = LeaveGroupRequest {
        group_id: "g".into(),
        members: vec![
            identity("a", None),
            identity("x", None),
            identity("x", Some("i")),
            identity("", Some("i")),
            identity("", Some("j")),
        ],
        ..LeaveGroupRequest::default()
    };
    let reply = host.call(5, |coordinator, caller, topics, out| {
        coordinator.leave_group(caller, request, topics, out);
    });
    let GroupReply::LeaveGroup(response) = reply else {
        panic!("{reply:?}");
    };
    let codes: Vec<ErrorCode> = response
        .members
        .iter()
        .map(|member| member.error_code)
        .collect();
    assert_eq!(
        codes,
        [
            ErrorCode::NONE,
            ErrorCode::UNKNOWN_MEMBER_ID,
            ErrorCode::FENCED_INSTANCE_ID,
            ErrorCode::NONE,
            ErrorCode::UNKNOWN_MEMBER_ID,
        ]
    );
    host.assert_listed("consumer", "Empty");
    host.restart();
}

#[test]
fn memory_for_members_is_limited() {
    let mut host = Host::new();
    host.coordinator = GroupCoordinator::new(GroupConfig {
        members_bytes_max: 1_000,
        ..config()
    });
    let mut wordy = join("a");
    wordy.subscribed_topic_names = Some((0..20).map(|n| format!("{n:0100}").into()).collect());
    assert_eq!(
        host.beat(&wordy).error_code,
        ErrorCode::GROUP_MAX_SIZE_REACHED
    );
    assert_eq!(host.listed(), None);
    assert_eq!(host.beat(&join("a")).error_code, ErrorCode::NONE);
}
