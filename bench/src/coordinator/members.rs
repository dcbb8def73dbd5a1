//! `members`: a classic group from empty to stable, and back. All members, each with its own connection, join at once; the time ends when
//! every one of them has its assignment in one and the same generation. Then all leave, each for itself.
//!
//! A member does what a consumer does: it joins without an id, again with the one it is given (KIP-394), syncs, the leader with everybody's
//! assignment, and from then on sends heartbeats, by which it learns that the group goes round once more.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use ringlog_net::Str;
use ringlog_net::api::ApiKey;
use ringlog_net::codec::Message;
use ringlog_net::error_code::ErrorCode;
use ringlog_net::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ringlog_net::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use ringlog_net::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity};
use ringlog_net::messages::sync_group::{
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};

use super::{CoordinatorError, Outcome, Target};
use crate::client::clock::Clock;
use crate::client::coordination::KeyType;
use crate::client::fleet::{Arrival, Fleet};
use crate::client::wire;
use crate::compare::statistics::median;
use crate::watch::Watch;

/// How long a group may take to become stable, or to empty.
const PATIENCE_NS: u64 = 180_000_000_000;
const SESSION_TIMEOUT_MS: i32 = 45_000;
const REBALANCE_TIMEOUT_MS: i32 = 300_000;
const PROTOCOL: &str = "range";
const PROTOCOL_TYPE: &str = "consumer";

/// How many members.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Members {
    /// Members, each with its own connection
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub members: u32,
    /// Groups, one after the other; the figures are medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub groups: u32,
    /// Between a member's heartbeats once it is stable, in milliseconds. A client's usual 3000 would be a client's wait, not a coordinator's
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub heartbeat_ms: u32,
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Joining,
    Syncing,
    Stable,
    Beating,
    Leaving,
    Gone,
}

struct Member {
    id: Str,
    generation: i32,
    stand: Stand,
    next_heartbeat: u64,
}

/// The versions of what members say.
#[derive(Clone, Copy)]
struct Versions {
    join: i16,
    sync: i16,
    heartbeat: i16,
    leave: i16,
}

struct Group<'a> {
    id: String,
    topic: &'a str,
    fleet: Fleet,
    versions: Versions,
    members: Vec<Member>,
    clock: Clock,
    heartbeat_ns: u64,
    joins: u64,
}

/// Runs it against one broker.
pub fn run(target: &Target, plan: &Members) -> Result<Outcome, CoordinatorError> {
    let mut admin = target.admin()?;
    let topic = target.name("members");
    let count = plan.members as usize;
    target.create(&mut admin, &topic, 1)?;
    let versions = Versions {
        join: admin.version(ApiKey::JoinGroup, "JoinGroup")?,
        sync: admin.version(ApiKey::SyncGroup, "SyncGroup")?,
        heartbeat: admin.version(ApiKey::Heartbeat, "Heartbeat")?,
        leave: admin.version(ApiKey::LeaveGroup, "LeaveGroup")?,
    };
    let watch = Watch::start(target.pid, Duration::ZERO, Duration::MAX, false);
    let mut outcome = Outcome::default();
    let (mut stable, mut left, mut joins) = (Vec::new(), Vec::new(), 0);
    for number in 0..plan.groups {
        let id = target.name(&format!("members-{number}"));
        let address = admin.coordinator(&id, KeyType::Group)?;
        let mut group = Group {
            id,
            topic: &topic,
            fleet: Fleet::open(address, count)?,
            versions,
            members: (0..count)
                .map(|_| Member {
                    id: Str::default(),
                    generation: -1,
                    stand: Stand::Joining,
                    next_heartbeat: 0,
                })
                .collect(),
            clock: Clock::start(),
            heartbeat_ns: u64::from(plan.heartbeat_ms) * 1_000_000,
            joins: 0,
        };
        stable.push(group.assemble()?);
        left.push(group.dissolve()?);
        joins += group.joins;
    }
    outcome.observed = watch.finish();
    let groups = f64::from(plan.groups);
    outcome.figure("stable_s", median(&mut stable).unwrap_or(f64::NAN));
    outcome.figure("leave_s", median(&mut left).unwrap_or(f64::NAN));
    outcome.figure(
        "joins_per_member",
        joins as f64 / groups / f64::from(plan.members),
    );
    outcome.costs(
        u64::from(plan.members) * u64::from(plan.groups),
        "broker_us_per_member",
    );
    target.drop_topic(&mut admin, &topic)?;
    Ok(outcome)
}

impl Group<'_> {
    /// Seconds from the first join until all are stable in one generation.
    fn assemble(&mut self) -> Result<f64, CoordinatorError> {
        let begun = self.clock.now();
        for member in 0..self.members.len() {
            self.join(member)?;
        }
        let mut arrived = Vec::new();
        while !self.is_stable() {
            let now = self.clock.now();
            if now - begun > PATIENCE_NS {
                return Err(CoordinatorError::TooSlow("a group becoming stable"));
            }
            self.heartbeats(now)?;
            self.fleet.poll(Duration::from_millis(5), &mut arrived)?;
            for answer in arrived.drain(..) {
                self.on_answer(answer)?;
            }
        }
        Ok((self.clock.now() - begun) as f64 / 1e9)
    }

    fn is_stable(&self) -> bool {
        let generation = self.members[0].generation;
        self.members.iter().all(|member| {
            matches!(member.stand, Stand::Stable | Stand::Beating)
                && member.generation == generation
        })
    }

    fn heartbeats(&mut self, now: u64) -> io::Result<()> {
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            if member.stand != Stand::Stable || now < member.next_heartbeat {
                continue;
            }
            member.stand = Stand::Beating;
            let request = HeartbeatRequest {
                group_id: self.id.as_str().into(),
                generation_id: member.generation,
                member_id: member.id.clone(),
                ..Default::default()
            };
            self.fleet
                .send(at, ApiKey::Heartbeat, self.versions.heartbeat, &request)?;
        }
        Ok(())
    }

    fn join(&mut self, at: usize) -> io::Result<()> {
        self.joins += 1;
        let member = &mut self.members[at];
        member.stand = Stand::Joining;
        let request = JoinGroupRequest {
            group_id: self.id.as_str().into(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            member_id: member.id.clone(),
            protocol_type: PROTOCOL_TYPE.into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: PROTOCOL.into(),
                metadata: subscription(self.topic),
            }],
            ..Default::default()
        };
        self.fleet
            .send(at, ApiKey::JoinGroup, self.versions.join, &request)
    }

    fn on_answer(&mut self, answer: Arrival) -> Result<(), CoordinatorError> {
        let at = answer.connection;
        match self.members[at].stand {
            Stand::Joining => self.on_joined(at, decode(ApiKey::JoinGroup, answer)?),
            Stand::Syncing => self.on_synced(at, &decode(ApiKey::SyncGroup, answer)?),
            Stand::Beating => {
                let response: HeartbeatResponse = decode(ApiKey::Heartbeat, answer)?;
                let member = &mut self.members[at];
                member.stand = Stand::Stable;
                member.next_heartbeat = self.clock.now() + self.heartbeat_ns;
                match response.error_code {
                    ErrorCode::NONE => Ok(()),
                    ErrorCode::REBALANCE_IN_PROGRESS => Ok(self.join(at)?),
                    code => Err(refused("a heartbeat", code)),
                }
            }
            Stand::Leaving => {
                let response: LeaveGroupResponse = decode(ApiKey::LeaveGroup, answer)?;
                let first = response.members.first().map(|member| member.error_code);
                let code = first
                    .filter(|_| response.error_code.is_none())
                    .unwrap_or(response.error_code);
                if code.is_error() {
                    return Err(refused("to let a member leave", code));
                }
                self.members[at].stand = Stand::Gone;
                Ok(())
            }
            Stand::Stable | Stand::Gone => Err(CoordinatorError::Io(io::Error::new(
                io::ErrorKind::InvalidData,
                "the broker answered a member that had asked nothing",
            ))),
        }
    }

    fn on_joined(
        &mut self,
        at: usize,
        response: JoinGroupResponse,
    ) -> Result<(), CoordinatorError> {
        let code = response.error_code;
        if code == ErrorCode::MEMBER_ID_REQUIRED {
            self.members[at].id = response.member_id.detached();
            return Ok(self.join(at)?);
        }
        if code == ErrorCode::REBALANCE_IN_PROGRESS || code.is_retriable() {
            return Ok(self.join(at)?);
        }
        if code.is_error() {
            return Err(refused("to let a member join", code));
        }
        let member = &mut self.members[at];
        member.id = response.member_id.detached();
        member.generation = response.generation_id;
        member.stand = Stand::Syncing;
        let assignments = if response.leader == response.member_id {
            response
                .members
                .iter()
                .map(|other| SyncGroupRequestAssignment {
                    member_id: other.member_id.clone(),
                    assignment: assignment(self.topic),
                })
                .collect()
        } else {
            Vec::new()
        };
        let request = SyncGroupRequest {
            group_id: self.id.as_str().into(),
            generation_id: response.generation_id,
            member_id: response.member_id.clone(),
            protocol_type: Some(PROTOCOL_TYPE.into()),
            protocol_name: Some(PROTOCOL.into()),
            assignments,
            ..Default::default()
        };
        Ok(self
            .fleet
            .send(at, ApiKey::SyncGroup, self.versions.sync, &request)?)
    }

    fn on_synced(
        &mut self,
        at: usize,
        response: &SyncGroupResponse,
    ) -> Result<(), CoordinatorError> {
        match response.error_code {
            ErrorCode::NONE if response.assignment.is_empty() => Err(CoordinatorError::Io(
                io::Error::new(io::ErrorKind::InvalidData, "a member got no assignment"),
            )),
            ErrorCode::NONE => {
                let member = &mut self.members[at];
                member.stand = Stand::Stable;
                member.next_heartbeat = self.clock.now() + self.heartbeat_ns;
                Ok(())
            }
            ErrorCode::REBALANCE_IN_PROGRESS => Ok(self.join(at)?),
            code if code.is_retriable() => Ok(self.join(at)?),
            code => Err(refused("to synchronise a member", code)),
        }
    }

    /// Seconds until every member's leaving is answered.
    fn dissolve(&mut self) -> Result<f64, CoordinatorError> {
        let mut arrived = Vec::new();
        let begun = self.clock.now();
        // Heartbeats still on their way are answered first; they may well say that others leave.
        while self.members.iter().any(|m| m.stand == Stand::Beating) {
            if self.clock.now() - begun > PATIENCE_NS {
                return Err(CoordinatorError::TooSlow("the last heartbeats"));
            }
            self.fleet.poll(Duration::from_millis(5), &mut arrived)?;
            for answer in arrived.drain(..) {
                self.on_answer(answer)?;
            }
        }
        let begun = self.clock.now();
        for at in 0..self.members.len() {
            self.members[at].stand = Stand::Leaving;
            let request = LeaveGroupRequest {
                group_id: self.id.as_str().into(),
                members: vec![MemberIdentity {
                    member_id: self.members[at].id.clone(),
                    ..Default::default()
                }],
                ..Default::default()
            };
            self.fleet
                .send(at, ApiKey::LeaveGroup, self.versions.leave, &request)?;
        }
        while self.members.iter().any(|m| m.stand != Stand::Gone) {
            if self.clock.now() - begun > PATIENCE_NS {
                return Err(CoordinatorError::TooSlow("the members' leaving"));
            }
            self.fleet.poll(Duration::from_millis(100), &mut arrived)?;
            for answer in arrived.drain(..) {
                self.on_answer(answer)?;
            }
        }
        Ok((self.clock.now() - begun) as f64 / 1e9)
    }
}

fn refused(what: &str, code: ErrorCode) -> CoordinatorError {
    CoordinatorError::Refused {
        what: what.into(),
        code,
    }
}

fn decode<M: Message>(key: ApiKey, answer: Arrival) -> io::Result<M> {
    wire::decode(key, answer.version, answer.frame)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// A consumer's subscription to one topic, version 0 of the consumer protocol.
fn subscription(topic: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(1);
    put_string(&mut bytes, topic);
    bytes.put_i32(-1);
    bytes.freeze()
}

/// Partition 0 of a topic as a consumer's assignment, version 0.
fn assignment(topic: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(1);
    put_string(&mut bytes, topic);
    bytes.put_i32(1);
    bytes.put_i32(0);
    bytes.put_i32(-1);
    bytes.freeze()
}

fn put_string(bytes: &mut BytesMut, text: &str) {
    bytes.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    bytes.put_slice(text.as_bytes());
}
