//! A coordinator with one group, its log, the topics it sees, a clock, and requests of both protocols.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_net::codec::{Message as _, Writer};
use ringlog_net::coordinators::{ConsumerProtocolSubscription, EmbeddedTopicPartitions};
use ringlog_net::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use ringlog_net::messages::heartbeat::HeartbeatRequest;
use ringlog_net::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use ringlog_net::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use ringlog_net::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use ringlog_net::{Bytes, ErrorCode, Str, Uuid};

use crate::groups::classic::ClassicGroup;
use crate::groups::consumer::tests::cluster::{assert_same, compacted};
use crate::groups::consumer::{ConsumerGroup, MigrationPolicy, TopicView};
use crate::groups::{GroupConfig, GroupCoordinator, GroupReply, ListFilter};
use crate::{Caller, Commands, Now, Record, Token};

pub(super) const RED: Uuid = Uuid([7; 16]);
pub(super) const BLUE: Uuid = Uuid([9; 16]);

/// The version of JoinGroup, unless a test says otherwise.
pub(super) const JOIN_VERSION: i16 = 9;

/// Partitions by the names of their topics.
pub(super) type Owned = BTreeSet<(Str, i32)>;

/// Two topics.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    pub(super) red: i32,
    pub(super) blue: i32,
    pub(super) version: u64,
}

impl TopicView for Topics {
    fn topic_by_name(&self, name: &str) -> Option<(Uuid, i32)> {
        match name {
            "red" => Some((RED, self.red)),
            "blue" => Some((BLUE, self.blue)),
            _ => None,
        }
    }

    fn topic_name(&self, id: &Uuid) -> Option<Str> {
        match *id {
            RED => Some("red".into()),
            BLUE => Some("blue".into()),
            _ => None,
        }
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(["red", "blue"].into_iter())
    }

    fn version(&self) -> u64 {
        self.version
    }
}

pub(super) struct World {
    pub(super) coordinator: GroupCoordinator,
    pub(super) config: GroupConfig,
    pub(super) topics: Topics,
    pub(super) now: Now,
    /// One element for each batch.
    pub(super) log: Vec<Vec<Record>>,
    /// What was said in the broker's log.
    pub(super) notices: Vec<String>,
    tokens: u64,
    waiting: BTreeSet<Token>,
    answers: BTreeMap<Token, GroupReply>,
}

impl World {
    pub(super) fn new(policy: MigrationPolicy) -> World {
        let mut config = GroupConfig {
            initial_rebalance_delay_ms: 0,
            ..GroupConfig::default()
        };
        config.consumer.migration_policy = policy;
        config.consumer.assignment_interval_ms = 0;
        World::with(config)
    }

    pub(super) fn with(config: GroupConfig) -> World {
        World {
            coordinator: GroupCoordinator::new(config.clone()),
            config,
            topics: Topics {
                red: 3,
                blue: 2,
                version: 1,
            },
            now: Now {
                monotonic_ms: 5,
                wall_ms: 1_700_000_000_000,
            },
            log: Vec::new(),
            notices: Vec::new(),
            tokens: 0,
            waiting: BTreeSet::new(),
            answers: BTreeMap::new(),
        }
    }

    fn event(
        &mut self,
        happen: impl FnOnce(&mut GroupCoordinator, &Topics, &mut Commands<GroupReply>),
    ) {
        let mut out = Commands::default();
        happen(&mut self.coordinator, &self.topics, &mut out);
        if !out.records.is_empty() {
            self.log.push(out.records);
        }
        self.notices.extend(out.notices);
        for (token, reply) in out.replies {
            assert!(self.waiting.remove(&token), "{token:?} is answered once");
            self.answers.insert(token, reply);
        }
        self.coordinator.check();
    }

    /// Lets a request be handled; it may be answered later.
    pub(super) fn ask(
        &mut self,
        version: i16,
        handle: impl FnOnce(&mut GroupCoordinator, &Caller, &Topics, &mut Commands<GroupReply>),
    ) -> Token {
        self.tokens += 1;
        let caller = Caller {
            token: Token(self.tokens),
            now: self.now,
            version,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            fresh_id: Uuid(u128::from(self.tokens).to_be_bytes()),
        };
        self.waiting.insert(caller.token);
        self.event(|coordinator, topics, out| handle(coordinator, &caller, topics, out));
        caller.token
    }

    /// The answer to a request, if there is one.
    pub(super) fn answer(&self, token: Token) -> Option<&GroupReply> {
        self.answers.get(&token)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn join(&mut self, version: i16, request: JoinGroupRequest) -> Token {
        self.ask(version, |coordinator, caller, topics, out| {
            coordinator.join_group(caller, request, topics, out);
        })
    }

    /// The answer to a JoinGroup that is there.
    pub(super) fn joined(&self, token: Token) -> JoinGroupResponse {
        match self.answer(token) {
            Some(GroupReply::JoinGroup(response)) => response.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn sync(&mut self, request: SyncGroupRequest) -> Token {
        self.ask(5, |coordinator, caller, topics, out| {
            coordinator.sync_group(caller, request, topics, out);
        })
    }

    /// The answer to a SyncGroup that is there.
    pub(super) fn synced(&self, token: Token) -> SyncGroupResponse {
        match self.answer(token) {
            Some(GroupReply::SyncGroup(response)) => response.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<Str>,
        generation: i32,
    ) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: "g".into(),
            member_id: member_id.into(),
            group_instance_id: instance_id,
            generation_id: generation,
        };
        let token = self.ask(4, |coordinator, caller, topics, out| {
            coordinator.heartbeat(caller, request, topics, out);
        });
        match self.answer(token) {
            Some(GroupReply::Heartbeat(response)) => response.error_code,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn leave(&mut self, member_id: &str, instance_id: Option<Str>) -> ErrorCode {
        let request = LeaveGroupRequest {
            group_id: "g".into(),
            members: vec![MemberIdentity {
                member_id: member_id.into(),
                group_instance_id: instance_id,
                reason: None,
            }],
            ..LeaveGroupRequest::default()
        };
        let token = self.ask(5, |coordinator, caller, topics, out| {
            coordinator.leave_group(caller, request, topics, out);
        });
        match self.answer(token) {
            Some(GroupReply::LeaveGroup(response)) => response.members[0].error_code,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn beat(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        let batches = self.log.len();
        let token = self.ask(1, |coordinator, caller, topics, out| {
            coordinator.consumer_group_heartbeat(caller, request, topics, out);
        });
        match self.answer(token) {
            Some(GroupReply::ConsumerGroupHeartbeat(response)) => {
                if response.error_code.is_error() {
                    assert_eq!(self.log.len(), batches, "refused, and yet written");
                }
                response.clone()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Lets time go by, timer by timer.
    pub(super) fn advance(&mut self, ms: u32) {
        let end = self.now.monotonic_ms + u64::from(ms);
        while let Some(deadline) = self.coordinator.next_deadline()
            && deadline <= end
        {
            self.move_to(deadline.max(self.now.monotonic_ms));
            let now = self.now;
            self.event(|coordinator, topics, out| coordinator.on_timeout(now, topics, out));
        }
        self.move_to(end);
    }

    fn move_to(&mut self, monotonic_ms: u64) {
        let passed = i64::try_from(monotonic_ms - self.now.monotonic_ms).expect("a short time");
        self.now.wall_ms += passed;
        self.now.monotonic_ms = monotonic_ms;
    }

    pub(super) fn grow_red(&mut self) {
        self.topics.red += 1;
        self.topics.version += 1;
        self.coordinator.on_metadata(&["red".into()], &self.topics);
    }

    /// Another coordinator takes over and reads the log, or what the cleaner left of it.
    pub(super) fn restart(&mut self) {
        let log: Vec<Record> = self.log.iter().flatten().cloned().collect();
        let loaded = self.loaded(&log);
        let cleaned = self.loaded(&compacted(&log));
        assert_eq!(seen(&cleaned), seen(&loaded));
        match (self.consumer(), group_of(&loaded).0) {
            (Some(live), Some(loaded)) => assert_same(live, loaded),
            (None, None) => {}
            (live, loaded) => panic!("{live:?} came back as {loaded:?}"),
        }
        self.event(|coordinator, _, out| coordinator.resign(out));
        assert!(self.waiting.is_empty(), "all that waited is answered");
        self.coordinator = loaded;
    }

    fn loaded(&self, log: &[Record]) -> GroupCoordinator {
        let mut loaded = GroupCoordinator::new(self.config.clone());
        for record in log {
            loaded
                .replay(None, record.key.clone(), record.value.clone())
                .expect("our own records can be read");
        }
        let mut out = Commands::default();
        loaded.loaded(self.now, &mut out);
        assert!(out.is_empty(), "loading stores and answers nothing");
        loaded.check();
        loaded
    }

    pub(super) fn classic(&self) -> Option<&ClassicGroup> {
        group_of(&self.coordinator).1
    }

    pub(super) fn consumer(&self) -> Option<&ConsumerGroup> {
        group_of(&self.coordinator).0
    }

    /// Type and state, as ListGroups says.
    pub(super) fn listed(&self) -> (String, String) {
        seen(&self.coordinator)
    }
}

fn group_of(coordinator: &GroupCoordinator) -> (Option<&ConsumerGroup>, Option<&ClassicGroup>) {
    let group = coordinator.groups.get("g");
    (
        group.and_then(|group| group.as_consumer()),
        group.and_then(|group| group.as_classic()),
    )
}

fn seen(coordinator: &GroupCoordinator) -> (String, String) {
    let groups = coordinator.list_groups(&ListFilter::default());
    groups.first().map_or_else(Default::default, |group| {
        (group.group_type.to_string(), group.group_state.to_string())
    })
}

/// What a consumer says in its JoinGroup.
pub(super) fn subscription(topics: &[Str], owned: &Owned, generation_id: i32) -> Bytes {
    let mut by_topic: BTreeMap<Str, Vec<i32>> = BTreeMap::new();
    for (topic, number) in owned {
        by_topic.entry(topic.clone()).or_default().push(*number);
    }
    let body = ConsumerProtocolSubscription {
        topics: topics.to_vec(),
        user_data: None,
        owned_partitions: by_topic
            .into_iter()
            .map(|(topic, partitions)| EmbeddedTopicPartitions { topic, partitions })
            .collect(),
        generation_id,
        rack_id: None,
    };
    let mut writer = Writer::new();
    writer.i16(3);
    body.encode(&mut writer, 3).expect("short names");
    writer.into_bytes()
}

/// A JoinGroup that offers one protocol.
pub(super) fn join(member_id: &str, protocol: &str, metadata: Bytes) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        member_id: member_id.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: protocol.into(),
            metadata,
        }],
        ..JoinGroupRequest::default()
    }
}
