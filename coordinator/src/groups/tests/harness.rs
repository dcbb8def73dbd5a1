//! Drives a coordinator as a broker does: gives out tokens, keeps the log, and holds the coordinator to answering each request once.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_net::messages::heartbeat::HeartbeatRequest;
use ringlog_net::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use ringlog_net::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity};
use ringlog_net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringlog_net::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
};
use ringlog_net::messages::sync_group::{
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};
use ringlog_net::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use ringlog_net::{Bytes, ErrorCode, Str, Uuid};

use crate::groups::classic::{ClassicGroup, Durable};
use crate::groups::consumer::TopicView;
use crate::groups::context::bytes_of;
use crate::groups::{GroupConfig, GroupCoordinator, GroupReply};
use crate::{Caller, Commands, Now, Record, Token};

/// What the log holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    Record(Option<(i64, i16)>, Record),
    Marker(i64, bool),
}

/// Topics by name, of one partition each.
#[derive(Clone, Debug, Default)]
pub(super) struct Topics(pub(super) BTreeMap<Str, Uuid>);

impl TopicView for Topics {
    fn topic_by_name(&self, name: &str) -> Option<(Uuid, i32)> {
        self.0.get(name).map(|id| (*id, 1))
    }

    fn topic_name(&self, id: &Uuid) -> Option<Str> {
        let found = self.0.iter().find(|(_, known)| *known == id);
        found.map(|(name, _)| name.clone())
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.0.keys().map(Str::as_str))
    }

    fn version(&self) -> u64 {
        1
    }
}

macro_rules! without_topics {
    ($($name:ident $request:ident;)*) => {
        $(
            pub(super) fn $name(
                coordinator: &mut GroupCoordinator,
                caller: &Caller,
                request: $request,
                out: &mut Commands<GroupReply>,
            ) {
                coordinator.$name(caller, request, &Topics::default(), out);
            }
        )*
    };
}

without_topics! {
    join_group JoinGroupRequest;
    sync_group SyncGroupRequest;
    heartbeat HeartbeatRequest;
    leave_group LeaveGroupRequest;
}

/// A broker with one coordinator.
pub(super) struct Host {
    pub(super) coordinator: GroupCoordinator,
    pub(super) config: GroupConfig,
    pub(super) log: Vec<Entry>,
    pub(super) topics: Topics,
    pub(super) now: Now,
    tokens: u64,
    waiting: BTreeSet<Token>,
    replies: BTreeMap<Token, GroupReply>,
    /// What was last stored of each classic group.
    pub(super) durable: BTreeMap<Str, Durable>,
    /// How often a group was deleted: its generations begin anew.
    pub(super) incarnations: BTreeMap<Str, u32>,
}

impl Host {
    pub(super) fn new() -> Self {
        Self::with(GroupConfig::default())
    }

    pub(super) fn with(config: GroupConfig) -> Self {
        Self {
            coordinator: GroupCoordinator::new(config.clone()),
            config,
            log: Vec::new(),
            topics: Topics::default(),
            now: Now {
                monotonic_ms: 1_000,
                wall_ms: 1_700_000_000_000,
            },
            tokens: 0,
            waiting: BTreeSet::new(),
            replies: BTreeMap::new(),
            durable: BTreeMap::new(),
            incarnations: BTreeMap::new(),
        }
    }

    /// A caller with a token of its own.
    pub(super) fn caller(&mut self, version: i16) -> Caller {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.waiting.insert(token);
        Caller {
            token,
            now: self.now,
            version,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            fresh_id: Uuid(u128::from(self.tokens).to_be_bytes()),
        }
    }

    /// Lets something happen, and takes in what comes of it.
    pub(super) fn event(
        &mut self,
        happen: impl FnOnce(&mut GroupCoordinator, &mut Commands<GroupReply>),
    ) {
        let mut out = Commands::default();
        happen(&mut self.coordinator, &mut out);
        assert!(
            bytes_of(&out.records) <= self.config.batch_bytes_max.max(64 << 10),
            "an event makes one batch"
        );
        for record in out.records {
            self.log.push(Entry::Record(out.producer, record));
        }
        for (token, reply) in out.replies {
            assert!(self.waiting.remove(&token), "{token:?} is answered once");
            self.replies.insert(token, reply);
        }
        self.coordinator.check();
        self.observe();
    }

    /// Notes which groups are in a state that is stored, and which are gone.
    fn observe(&mut self) {
        let groups = &self.coordinator.groups;
        for (id, group) in groups {
            if let Some(durable) = group.as_classic().and_then(ClassicGroup::durable) {
                self.durable.insert(id.clone(), durable);
            }
        }
        for (id, _) in self
            .durable
            .extract_if(.., |id, _| !groups.contains_key(id))
        {
            *self.incarnations.entry(id).or_default() += 1;
        }
    }

    /// Lets a request be handled; it may be answered later.
    pub(super) fn call<R>(
        &mut self,
        version: i16,
        request: R,
        handle: impl FnOnce(&mut GroupCoordinator, &Caller, R, &mut Commands<GroupReply>),
    ) -> Token {
        let caller = self.caller(version);
        self.event(|coordinator, out| handle(coordinator, &caller, request, out));
        caller.token
    }

    /// Lets time go by, timer by timer.
    pub(super) fn advance(&mut self, after_ms: u64) {
        let end = self.now.monotonic_ms + after_ms;
        while let Some(deadline) = self.coordinator.next_deadline()
            && deadline <= end
        {
            self.move_to(deadline.max(self.now.monotonic_ms));
            let now = self.now;
            self.event(|coordinator, out| coordinator.on_timeout(now, &Topics::default(), out));
        }
        self.move_to(end);
    }

    fn move_to(&mut self, monotonic_ms: u64) {
        self.now.wall_ms += (monotonic_ms - self.now.monotonic_ms) as i64;
        self.now.monotonic_ms = monotonic_ms;
    }

    /// Another coordinator takes over.
    pub(super) fn restart(&mut self) {
        let kept = (self.durable.clone(), self.incarnations.clone());
        self.event(|coordinator, out| coordinator.resign(out));
        assert!(self.waiting.is_empty(), "all that waited is answered");
        // The groups are gone from here, not from the log.
        (self.durable, self.incarnations) = kept;
        self.coordinator = self.loaded();
        self.observe();
    }

    /// A coordinator that has read the log, as far as it goes.
    pub(super) fn loaded(&mut self) -> GroupCoordinator {
        let mut coordinator = GroupCoordinator::new(self.config.clone());
        for entry in &self.log {
            match entry {
                Entry::Record(producer, record) => coordinator
                    .replay(*producer, record.key.clone(), record.value.clone())
                    .expect("our own records can be read"),
                Entry::Marker(producer_id, committed) => {
                    coordinator.on_transaction_marker(*producer_id, *committed);
                }
            }
        }
        let mut out = Commands::default();
        coordinator.loaded(self.now, &mut out);
        assert!(out.is_empty(), "loading stores and answers nothing");
        coordinator.check();
        coordinator
    }

    /// A transaction ends.
    pub(super) fn marker(&mut self, producer_id: i64, committed: bool) {
        self.log.push(Entry::Marker(producer_id, committed));
        self.coordinator
            .on_transaction_marker(producer_id, committed);
        self.coordinator.check();
    }

    /// The answer to a request, if it has been given.
    pub(super) fn answer(&self, token: Token) -> Option<&GroupReply> {
        self.replies.get(&token)
    }

    /// Whether a request waits.
    pub(super) fn waits(&self, token: Token) -> bool {
        self.waiting.contains(&token)
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The answer to a request.
    pub(super) fn reply(&self, token: Token) -> &GroupReply {
        self.answer(token).expect("the request is answered")
    }

    pub(super) fn joined(&self, token: Token) -> &JoinGroupResponse {
        match self.reply(token) {
            GroupReply::JoinGroup(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn synced(&self, token: Token) -> &SyncGroupResponse {
        match self.reply(token) {
            GroupReply::SyncGroup(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn left(&self, token: Token) -> &LeaveGroupResponse {
        match self.reply(token) {
            GroupReply::LeaveGroup(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn join_request(&mut self, version: i16, request: JoinGroupRequest) -> Token {
        self.call(version, request, join_group)
    }

    /// Joins with version 5 and above as clients do: is told an id, and comes back with it.
    pub(super) fn join_anew(&mut self, group: &str) -> (Str, Token) {
        let token = self.join_request(9, join(group, ""));
        let reply = self.joined(token);
        assert_eq!(reply.error_code, ErrorCode::MEMBER_ID_REQUIRED);
        let id = reply.member_id.clone();
        let token = self.join_request(9, join(group, &id));
        (id, token)
    }

    /// A stable group of some members in its first generation: their ids, the leader's first.
    pub(super) fn stable_group(&mut self, group: &str, members: usize) -> Vec<Str> {
        let joins: Vec<(Str, Token)> = (0..members).map(|_| self.join_anew(group)).collect();
        self.advance(10_000);
        let generation = self.joined(joins[0].1).generation_id;
        let mut ids: Vec<Str> = joins.iter().map(|(id, _)| id.clone()).collect();
        let leader = self.joined(joins[0].1).leader.clone();
        ids.sort_by_key(|id| *id != leader);
        self.sync_all(group, &ids, generation);
        ids
    }

    /// All members ask for their assignment; the first is the leader and gives each its own id.
    pub(super) fn sync_all(&mut self, group: &str, ids: &[Str], generation: i32) {
        let followers: Vec<Token> = ids[1..]
            .iter()
            .map(|id| self.sync(group, id, generation, &[]))
            .collect();
        let leader = self.sync(group, &ids[0], generation, ids);
        for token in followers.into_iter().chain([leader]) {
            assert_eq!(self.synced(token).error_code, ErrorCode::NONE);
        }
    }

    /// Asks for the assignment; a leader gives each of some members its own id.
    pub(super) fn sync(
        &mut self,
        group: &str,
        member_id: &str,
        generation: i32,
        assigned: &[Str],
    ) -> Token {
        let request = SyncGroupRequest {
            group_id: group.into(),
            generation_id: generation,
            member_id: member_id.into(),
            assignments: assigned
                .iter()
                .map(|id| SyncGroupRequestAssignment {
                    member_id: id.clone(),
                    assignment: Bytes::copy_from_slice(id.as_bytes()),
                })
                .collect(),
            ..SyncGroupRequest::default()
        };
        self.call(5, request, sync_group)
    }

    pub(super) fn heartbeat(&mut self, group: &str, member_id: &str, generation: i32) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: group.into(),
            generation_id: generation,
            member_id: member_id.into(),
            group_instance_id: None,
        };
        let token = self.call(4, request, heartbeat);
        match self.reply(token) {
            GroupReply::Heartbeat(reply) => reply.error_code,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn leave(&mut self, group: &str, members: &[(&str, Option<&str>)]) -> Token {
        let request = LeaveGroupRequest {
            group_id: group.into(),
            members: members
                .iter()
                .map(|(member_id, instance_id)| MemberIdentity {
                    member_id: (*member_id).into(),
                    group_instance_id: instance_id.map(Str::from),
                    reason: None,
                })
                .collect(),
            ..LeaveGroupRequest::default()
        };
        self.call(5, request, leave_group)
    }

    /// Commits from outside of a group.
    pub(super) fn commit(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> ErrorCode {
        self.commit_as(9, commit(group, "", -1, topic, partition, offset))
    }

    pub(super) fn commit_as(&mut self, version: i16, request: OffsetCommitRequest) -> ErrorCode {
        let token = self.call(version, request, GroupCoordinator::offset_commit);
        match self.reply(token) {
            GroupReply::OffsetCommit(reply) => reply.topics[0].partitions[0].error_code,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn txn_commit(&mut self, request: TxnOffsetCommitRequest) -> ErrorCode {
        self.txn_commit_in(request, Uuid::ZERO)
    }

    /// As [`Self::txn_commit`], in the topic `t` of this id.
    pub(super) fn txn_commit_in(
        &mut self,
        request: TxnOffsetCommitRequest,
        topic_id: Uuid,
    ) -> ErrorCode {
        let topic_ids = BTreeMap::from([(Str::from_static("t"), topic_id)]);
        let token = self.call(5, request, |coordinator, caller, request, out| {
            coordinator.txn_offset_commit(caller, request, &topic_ids, out);
        });
        match self.reply(token) {
            GroupReply::TxnOffsetCommit(reply) => reply.topics[0].partitions[0].error_code,
            other => panic!("{other:?}"),
        }
    }

    /// The offset that is committed for a partition, or the error.
    pub(super) fn fetch(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<i64, ErrorCode> {
        let request = OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: topic.into(),
                partition_indexes: vec![partition],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        };
        let reply = self.fetch_group(request, true);
        let partition = &reply.topics[0].partitions[0];
        match partition.error_code {
            ErrorCode::NONE => Ok(partition.committed_offset),
            error => Err(error),
        }
    }

    pub(super) fn fetch_group(
        &mut self,
        request: OffsetFetchRequestGroup,
        require_stable: bool,
    ) -> OffsetFetchResponseGroup {
        let topics = self.topics.clone();
        let token = self.call(9, request, |coordinator, caller, request, out| {
            coordinator.offset_fetch(caller, request, require_stable, &topics, out);
        });
        match self.reply(token) {
            GroupReply::OffsetFetchGroup(reply) => reply.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Kafka's name of a group's state; none if it is not there.
    pub(super) fn state(&self, group: &str) -> Option<Str> {
        self.coordinator
            .list_groups(&Default::default())
            .into_iter()
            .find(|listed| listed.group_id == *group)
            .map(|listed| listed.group_state)
    }

    /// The generation of a classic group.
    pub(super) fn generation(&self, group: &str) -> i32 {
        self.coordinator.groups[group]
            .as_classic()
            .expect("a classic group")
            .generation()
    }
}

/// A consumer's metadata: it reads a topic.
pub(super) fn subscription(topic: &str) -> Bytes {
    let mut bytes = vec![0, 1, 0, 0, 0, 1];
    bytes.extend((topic.len() as u16).to_be_bytes());
    bytes.extend(topic.as_bytes());
    bytes.extend([0xff; 4]);
    bytes.into()
}

/// A JoinGroup of a consumer that reads the topic `t` and knows `range`.
pub(super) fn join(group: &str, member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        member_id: member_id.into(),
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", subscription("t"))],
        ..JoinGroupRequest::default()
    }
}

pub(super) fn protocol(name: &str, metadata: Bytes) -> JoinGroupRequestProtocol {
    JoinGroupRequestProtocol {
        name: name.into(),
        metadata,
    }
}

pub(super) fn commit(
    group: &str,
    member_id: &str,
    generation: i32,
    topic: &str,
    partition: i32,
    offset: i64,
) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: generation,
        member_id: member_id.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: offset,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

pub(super) fn txn_commit(
    group: &str,
    producer_id: i64,
    topic: &str,
    partition: i32,
    offset: i64,
) -> TxnOffsetCommitRequest {
    TxnOffsetCommitRequest {
        transactional_id: "transaction".into(),
        group_id: group.into(),
        producer_id,
        producer_epoch: 3,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![TxnOffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: offset,
                ..TxnOffsetCommitRequestPartition::default()
            }],
        }],
        ..TxnOffsetCommitRequest::default()
    }
}
