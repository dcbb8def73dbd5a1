//! Fetch sessions (KIP-227): what a consumer asks for is remembered, so that each of its fetches only says what changed and is
//! answered with what changed.
//!
//! Sessions belong to the connection's shard. A session's epoch counts its fetches, so a lost or repeated one is noticed. When there are too many
//! sessions, or they remember too much, a new client is served without one, unless another has been idle for a while. A connection has few: with one more
//! its oldest ends.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::controller::names::NAME_BYTES_MAX;
use ringlog_net::messages::fetch::{FetchPartition, FetchRequest};
use ringlog_net::{ErrorCode, Str, Uuid};

/// A session not used for this long may make room for another (Kafka's `min.incremental.fetch.session.eviction.ms`).
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);
/// Most partitions remembered in one session; larger fetches are served without a session.
const SESSION_PARTITIONS_MAX: usize = 10_000;
/// Most sessions of one connection. Kafka's clients have one; one more covers a client that starts over without closing the old one.
const CONNECTION_SESSIONS_MAX: usize = 2;
/// Most bytes that the sessions of all shards may remember.
const REMEMBERED_BYTES_MAX: usize = 64 << 20;
/// What remembering a partition takes besides its topic's name: its entries in both maps with their share of unused room, and the name's own allocation.
const PARTITION_BYTES: usize =
    2 * (size_of::<Wanted>() + 2 * size_of::<(u64, TopicKey, i32)>()) + 32;
/// The epoch of a fetch that opens a session; also "no session" with session id 0.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a fetch that wants no session, or ends one.
const FINAL_EPOCH: i32 = -1;

/// A topic as the client named it: by id from version 13 on, else by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicKey {
    /// The name; empty when the client used the id.
    pub name: Str,
    /// The id; zero when the client used the name.
    pub id: Uuid,
}

/// One partition that is to be fetched.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The topic.
    pub topic: TopicKey,
    /// What the client asks of the partition.
    pub partition: FetchPartition,
    /// What the client was last told; with a session only.
    pub told: Option<Told>,
}

/// What a session's client knows of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The high watermark.
    pub high_watermark: i64,
    /// The log's start.
    pub log_start_offset: i64,
    /// Whether the last answer was an error.
    pub failed: bool,
}

struct Session {
    connection: u64,
    epoch: i32,
    last_used: Instant,
    uses_ids: bool,
    /// In the order of fetching: partitions that just gave data go to the end, so that none starves.
    order: BTreeMap<u64, (TopicKey, i32)>,
    partitions: HashMap<(TopicKey, i32), (u64, Wanted)>,
    next_place: u64,
    /// Bytes it takes to remember the partitions.
    bytes: usize,
}

/// What it takes to remember a partition.
fn bytes_of(topic: &TopicKey) -> usize {
    PARTITION_BYTES + topic.name.len()
}

impl Session {
    fn place(&mut self, key: (TopicKey, i32), wanted: Wanted) {
        let place = match self.partitions.get(&key) {
            Some((place, _)) => *place,
            None => {
                self.next_place += 1;
                self.bytes += bytes_of(&key.0);
                self.order.insert(self.next_place, key.clone());
                self.next_place
            }
        };
        self.partitions.insert(key, (place, wanted));
    }

    fn remove(&mut self, key: &(TopicKey, i32)) {
        if let Some((place, _)) = self.partitions.remove(key) {
            self.bytes -= bytes_of(&key.0);
            self.order.remove(&place);
        }
    }

    fn move_to_end(&mut self, key: &(TopicKey, i32)) {
        if let Some((place, _)) = self.partitions.get_mut(key) {
            self.next_place += 1;
            self.order.remove(place);
            *place = self.next_place;
            self.order.insert(self.next_place, key.clone());
        }
    }
}

/// The sessions of one shard.
pub struct FetchSessions {
    sessions: HashMap<i32, Session>,
    by_connection: HashMap<u64, Vec<i32>>,
    limit: usize,
    /// Bytes that all sessions remember, and the most they may.
    bytes: usize,
    bytes_max: usize,
    /// Ids given out are `shard + shards × n`, so that shards never give out the same.
    shard: usize,
    shards: usize,
    next: i32,
}

/// How a fetch is to be answered.
#[derive(Debug)]
pub struct FetchPlan {
    /// What to read, in order.
    pub wanted: Vec<Wanted>,
    /// The session to name in the answer; 0: none.
    pub session_id: i32,
    /// Only what changed is answered.
    pub incremental: bool,
}

impl FetchSessions {
    /// At most `limit` sessions, for one of `shards` shards.
    pub fn new(limit: usize, shard: usize, shards: usize) -> Self {
        Self {
            sessions: HashMap::new(),
            by_connection: HashMap::new(),
            limit,
            bytes: 0,
            bytes_max: REMEMBERED_BYTES_MAX / shards.max(1),
            shard,
            shards,
            next: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// What a request asks for, given what is remembered.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH or FETCH_SESSION_TOPIC_ID_ERROR: the client starts over.
    pub fn plan(
        &mut self,
        request: FetchRequest,
        uses_ids: bool,
        connection: u64,
    ) -> Result<FetchPlan, ErrorCode> {
        match (request.session_id, request.session_epoch) {
            (id, FINAL_EPOCH | INITIAL_EPOCH) => {
                if id != 0 {
                    self.close(id, connection);
                }
                let open = request.session_epoch == INITIAL_EPOCH;
                Ok(self.full(request, open, uses_ids, connection))
            }
            (id, epoch) => self.incremental(id, epoch, request, uses_ids, connection),
        }
    }

    fn full(
        &mut self,
        request: FetchRequest,
        open: bool,
        uses_ids: bool,
        connection: u64,
    ) -> FetchPlan {
        let wanted: Vec<Wanted> = wanted_of(request.topics).collect();
        let fits = wanted.len() <= SESSION_PARTITIONS_MAX
            && !wanted.is_empty()
            && wanted.iter().all(|one| is_name(&one.topic.name));
        let session_id = if open && fits {
            self.open(&wanted, uses_ids, connection)
        } else {
            0
        };
        FetchPlan {
            wanted,
            session_id,
            incremental: false,
        }
    }

    fn open(&mut self, wanted: &[Wanted], uses_ids: bool, connection: u64) -> i32 {
        let earlier = self.by_connection.get(&connection);
        if let Some(ids) = earlier.filter(|ids| ids.len() >= CONNECTION_SESSIONS_MAX) {
            self.close(ids[0], connection);
        }
        let bytes: usize = wanted.iter().map(|one| bytes_of(&one.topic)).sum();
        if bytes > self.bytes_max {
            return 0;
        }
        while self.sessions.len() >= self.limit || self.bytes + bytes > self.bytes_max {
            if !self.evict() {
                return 0;
            }
        }
        let id = self.unused_id();
        let mut session = Session {
            connection,
            epoch: 1,
            last_used: Instant::now(),
            uses_ids,
            order: BTreeMap::new(),
            partitions: HashMap::new(),
            next_place: 0,
            bytes: 0,
        };
        for one in wanted {
            let one = detached(one.clone());
            session.place((one.topic.clone(), one.partition.partition), one);
        }
        self.bytes += session.bytes;
        self.sessions.insert(id, session);
        self.by_connection.entry(connection).or_default().push(id);
        id
    }

    fn unused_id(&mut self) -> i32 {
        loop {
            self.next = self.next.wrapping_add(1) & (i32::MAX >> 7);
            let id = (self.next as usize * self.shards + self.shard + 1) as i32;
            if id > 0 && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    fn evict(&mut self) -> bool {
        let oldest = self
            .sessions
            .iter()
            .min_by_key(|(_, session)| session.last_used);
        match oldest {
            Some((id, session)) if session.last_used.elapsed() >= EVICTABLE_AFTER => {
                let (id, connection) = (*id, session.connection);
                self.close(id, connection);
                true
            }
            _ => false,
        }
    }

    fn incremental(
        &mut self,
        id: i32,
        epoch: i32,
        request: FetchRequest,
        uses_ids: bool,
        connection: u64,
    ) -> Result<FetchPlan, ErrorCode> {
        let session = self
            .sessions
            .get_mut(&id)
            .filter(|session| session.connection == connection);
        let session = session.ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        let others = self.bytes - session.bytes;
        if session.epoch != epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.uses_ids != uses_ids {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        for forgotten in request.forgotten_topics_data {
            let topic = TopicKey {
                name: forgotten.topic,
                id: forgotten.topic_id,
            };
            for partition in forgotten.partitions {
                session.remove(&(topic.clone(), partition));
            }
        }
        for one in wanted_of(request.topics) {
            let key = (one.topic.clone(), one.partition.partition);
            let told = session
                .partitions
                .get(&key)
                .and_then(|(_, known)| known.told);
            let fits = session.partitions.len() < SESSION_PARTITIONS_MAX
                && others + session.bytes + bytes_of(&key.0) <= self.bytes_max
                && is_name(&key.0.name);
            if fits || session.partitions.contains_key(&key) {
                let one = detached(one);
                session.place(
                    (one.topic.clone(), one.partition.partition),
                    Wanted { told, ..one },
                );
            } else {
                // The client starts over; what it may remember is decided then.
                self.bytes = others + session.bytes;
                self.close(id, connection);
                return Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
            }
        }
        self.bytes = others + session.bytes;
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.last_used = Instant::now();
        let wanted = session
            .order
            .values()
            .filter_map(|key| session.partitions.get(key));
        let wanted = wanted.map(|(_, wanted)| wanted.clone()).collect();
        Ok(FetchPlan {
            wanted,
            session_id: id,
            incremental: true,
        })
    }

    /// Remembers what the client is told of a partition; one that gave data goes to the end of the order.
    pub fn told(&mut self, session_id: i32, key: &(TopicKey, i32), told: Told, gave_data: bool) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        if let Some((_, wanted)) = session.partitions.get_mut(key) {
            wanted.told = Some(told);
        }
        if gave_data {
            session.move_to_end(key);
        }
    }

    fn close(&mut self, id: i32, connection: u64) {
        if self
            .sessions
            .get(&id)
            .is_some_and(|session| session.connection == connection)
        {
            self.forget(id);
            if let Some(ids) = self.by_connection.get_mut(&connection) {
                ids.retain(|other| *other != id);
            }
        }
    }

    /// Forgets the sessions of a connection that ended.
    pub fn close_connection(&mut self, connection: u64) {
        for id in self.by_connection.remove(&connection).unwrap_or_default() {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.bytes -= session.bytes;
        }
    }
}

/// Whether a topic may have this name, as far as its length goes; nothing else is remembered.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
}

fn wanted_of(
    topics: Vec<ringlog_net::messages::fetch::FetchTopic>,
) -> impl Iterator<Item = Wanted> {
    topics.into_iter().flat_map(|topic| {
        let key = TopicKey {
            name: topic.topic,
            id: topic.topic_id,
        };
        topic.partitions.into_iter().map(move |partition| Wanted {
            topic: key.clone(),
            partition,
            told: None,
        })
    })
}

/// A copy that does not hold the request's frame.
fn detached(wanted: Wanted) -> Wanted {
    let topic = TopicKey {
        name: wanted.topic.name.detached(),
        id: wanted.topic.id,
    };
    Wanted { topic, ..wanted }
}

#[cfg(test)]
mod tests {
    //! A session remembers partitions, forgets them when told, notices lost fetches and mixed naming, and rotates what gave data.
    use super::*;
    use ringlog_net::messages::fetch::{FetchTopic, ForgottenTopic};

    fn request(id: i32, epoch: i32, partitions: &[i32]) -> FetchRequest {
        let partition = |&partition: &i32| FetchPartition {
            partition,
            ..Default::default()
        };
        let topic = FetchTopic {
            topic: Str::from("t"),
            partitions: partitions.iter().map(partition).collect(),
            ..Default::default()
        };
        let topics = if partitions.is_empty() {
            vec![]
        } else {
            vec![topic]
        };
        FetchRequest {
            session_id: id,
            session_epoch: epoch,
            topics,
            ..Default::default()
        }
    }

    fn numbers(plan: &FetchPlan) -> Vec<i32> {
        plan.wanted
            .iter()
            .map(|wanted| wanted.partition.partition)
            .collect()
    }

    #[test]
    fn remembers_forgets_and_rotates() {
        let mut sessions = FetchSessions::new(10, 1, 2);
        let opened = sessions.plan(request(0, 0, &[0, 1, 2]), false, 7).unwrap();
        assert!(!opened.incremental && opened.session_id > 0);
        let id = opened.session_id;
        let key = (
            TopicKey {
                name: Str::from("t"),
                id: Uuid::ZERO,
            },
            0,
        );
        let told = Told {
            high_watermark: 5,
            log_start_offset: 0,
            failed: false,
        };
        sessions.told(id, &key, told, true);
        let next = sessions.plan(request(id, 1, &[]), false, 7).unwrap();
        assert_eq!(numbers(&next), [1, 2, 0]);
        assert_eq!(next.wanted[2].told, Some(told));
        let mut forget = request(id, 2, &[3]);
        forget.forgotten_topics_data = vec![ForgottenTopic {
            topic: Str::from("t"),
            partitions: vec![1],
            ..Default::default()
        }];
        assert_eq!(
            numbers(&sessions.plan(forget, false, 7).unwrap()),
            [2, 0, 3]
        );
        assert_eq!(
            sessions.plan(request(id, 2, &[]), false, 7).unwrap_err(),
            ErrorCode::INVALID_FETCH_SESSION_EPOCH
        );
        assert_eq!(
            sessions.plan(request(id, 3, &[]), true, 7).unwrap_err(),
            ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR
        );
        assert_eq!(
            sessions.plan(request(id, 3, &[]), false, 8).unwrap_err(),
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND
        );
        sessions.close_connection(7);
        assert_eq!(
            sessions.plan(request(id, 3, &[]), false, 7).unwrap_err(),
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND
        );
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn without_room_there_is_no_session() {
        let mut sessions = FetchSessions::new(1, 0, 1);
        let first = sessions.plan(request(0, 0, &[0]), false, 1).unwrap();
        assert_eq!(
            sessions
                .plan(request(0, 0, &[0]), false, 2)
                .unwrap()
                .session_id,
            0
        );
        assert_eq!(
            sessions
                .plan(request(0, -1, &[0]), false, 3)
                .unwrap()
                .session_id,
            0
        );
        let closing = sessions
            .plan(request(first.session_id, -1, &[]), false, 1)
            .unwrap();
        assert_eq!((closing.session_id, sessions.len()), (0, 0));
    }

    #[test]
    fn a_connection_has_few_sessions_and_keeps_the_newest() {
        let mut sessions = FetchSessions::new(10, 0, 1);
        let mut open = || {
            let plan = sessions.plan(request(0, 0, &[0]), false, 1).unwrap();
            plan.session_id
        };
        let ids: Vec<i32> = (0..CONNECTION_SESSIONS_MAX + 3).map(|_| open()).collect();
        assert_eq!(sessions.len(), CONNECTION_SESSIONS_MAX);
        let newest = *ids.last().unwrap();
        assert!(sessions.plan(request(newest, 1, &[]), false, 1).is_ok());
        assert_eq!(
            sessions
                .plan(request(ids[0], 1, &[]), false, 1)
                .unwrap_err(),
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND
        );
    }

    #[test]
    fn what_is_remembered_has_a_limit_and_comes_back() {
        let mut sessions = FetchSessions::new(10, 0, 1);
        let one = PARTITION_BYTES + 1;
        sessions.bytes_max = 5 * one;
        let first = sessions.plan(request(0, 0, &[0, 1, 2]), false, 1).unwrap();
        let second = sessions.plan(request(0, 0, &[0, 1]), false, 2).unwrap();
        assert!(first.session_id != 0 && second.session_id != 0);
        let third = sessions.plan(request(0, 0, &[0]), false, 3).unwrap();
        assert_eq!((third.session_id, third.wanted.len()), (0, 1));
        // Neither does a session grow beyond it: its client starts over.
        assert_eq!(
            sessions
                .plan(request(second.session_id, 1, &[5]), false, 2)
                .unwrap_err(),
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND
        );
        assert_eq!((sessions.len(), sessions.bytes), (1, 3 * one));
        let mut forget = request(first.session_id, 1, &[]);
        forget.forgotten_topics_data = vec![ForgottenTopic {
            topic: Str::from("t"),
            partitions: vec![1],
            ..Default::default()
        }];
        sessions.plan(forget, false, 1).unwrap();
        assert_eq!(sessions.bytes, 2 * one);
        sessions.close_connection(1);
        assert_eq!((sessions.len(), sessions.bytes), (0, 0));
    }

    #[test]
    fn what_is_no_name_is_not_remembered() {
        let mut sessions = FetchSessions::new(10, 0, 1);
        let mut long = request(0, 0, &[0]);
        long.topics[0].topic = Str::from("x".repeat(NAME_BYTES_MAX + 1));
        let plan = sessions.plan(long, false, 1).unwrap();
        assert_eq!((plan.session_id, plan.wanted.len()), (0, 1));
    }
}
