//! Fetch (versions 4 to 18): reads partitions, waits for data if there is too little, and answers with slices of what is stored.
//!
//! A fetch reads everything it may, on all shards at once, and goes on where a read ended before the high watermark, or with read_committed before the last stable offset. What it holds is charged to the
//! shard's memory for responses. With less than `min_bytes`, and nothing more to be had, it parks on its partitions, holding nothing but the count of
//! what it found; it is woken by the first that gets something, by its deadline, or by its client going away. Sessions (KIP-227) are in
//! [`crate::fetch_session`]. `max_bytes` is kept in request order, but for the first batch, which comes whatever its size (KIP-74). `records` is never null.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt, select_biased};
use ringlog_net::messages::fetch::{
    AbortedTransaction, EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse,
    LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use ringlog_net::{ErrorCode, Records};

use super::RequestContext;
use super::partition::{Located, Unlocated, leader_endpoints, topic_of};
use crate::authorizer::{Operation, ResourceType};
use crate::connection::budget::Permit;
use crate::controller::Image;
use crate::fetch_session::{FetchPlan, Told, TopicKey, Wanted};
use crate::shard::read::{ReadItem, ReadOutcome};

/// From this version on topics are named by id.
const IDS_FROM: i16 = 13;

/// Memory that is taken for a read at least, in parts of all there is, and the bounds of it: a batch comes whole whatever was asked, and what is read from a
/// file is read in steps.
const READ_PART: usize = 64;
const READ_BYTES: (usize, usize) = (64 << 10, 1 << 20);
/// What a partition's slices are taken to keep in memory at least.
const PINNED_BYTES: usize = 64 << 10;
/// How long a fetch waits for memory at least, whatever it says: to be told "nothing" at once it would ask again at once.
const MEMORY_WAIT_MIN: Duration = Duration::from_secs(1);
/// How often in a row a fetch goes on reading where it stopped before it answers with what it has.
const ROUNDS_MAX: usize = 8;

struct Target {
    wanted: Wanted,
    located: Result<Located, Unlocated>,
    /// All that was read so far.
    outcome: ReadOutcome,
    /// Of what was counted the slices were let go, to be read again for the answer.
    let_go: bool,
    /// Nothing more is to be waited for: it failed, or what comes next does not fit.
    answers_now: bool,
}

impl Target {
    fn has_more(&self) -> bool {
        self.located.is_ok() && self.outcome.next_offset < self.outcome.limit
    }

    fn take_in(&mut self, found: ReadOutcome) {
        let outcome = &mut self.outcome;
        if found.error.is_error() || found.diverging.is_some() {
            self.answers_now = true;
            // The next fetch is told; this one has something to give.
            if outcome.pieces.is_empty() {
                self.let_go = false;
                *outcome = found;
            }
            return;
        }
        outcome.bytes += found.bytes;
        outcome.next_offset = found.next_offset;
        outcome.high_watermark = found.high_watermark;
        outcome.last_stable_offset = found.last_stable_offset;
        outcome.limit = found.limit;
        outcome.aborted.extend(found.aborted);
        outcome.log_start_offset = found.log_start_offset;
        if outcome.pieces.is_empty() {
            outcome.pieces = found.pieces;
        } else {
            outcome.pieces.extend(found.pieces);
        }
        self.answers_now |= found.bytes == 0 && self.has_more();
    }

    /// Bytes of memory that its slices keep.
    fn pinned(&self) -> usize {
        match self.outcome.pieces.is_empty() {
            true => 0,
            false => self.outcome.bytes.next_multiple_of(PINNED_BYTES),
        }
    }

    fn item(&self, located: Located, committed: bool) -> ReadItem {
        let asked = &self.wanted.partition;
        let goes_on = self.outcome.next_offset != asked.fetch_offset;
        ReadItem {
            topic_id: located.topic_id,
            partition: asked.partition,
            offset: self.outcome.next_offset,
            max_bytes: (asked.partition_max_bytes.max(0) as usize)
                .saturating_sub(self.outcome.bytes),
            current_leader_epoch: asked.current_leader_epoch,
            // What we gave ourselves parts from nothing.
            last_fetched_epoch: match goes_on {
                true => -1,
                false => asked.last_fetched_epoch,
            },
            committed,
        }
    }
}

/// Answers a fetch.
pub async fn handle(context: &RequestContext, request: FetchRequest) -> FetchResponse {
    let is_replica = request.replica_id >= 0 || request.replica_state.replica_id >= 0;
    if is_replica {
        return FetchResponse {
            error_code: ErrorCode::INVALID_REQUEST,
            ..Default::default()
        };
    }
    let max_bytes = (request.max_bytes.max(0) as usize).min(context.shard.config.fetch_bytes_max);
    let min_bytes = (request.min_bytes.max(0) as usize).min(max_bytes);
    let max_wait = Duration::from_millis(request.max_wait_ms.max(0) as u64);
    let read_committed = request.isolation_level == 1;
    let plan = {
        let mut sessions = context.shard.fetch_sessions.borrow_mut();
        sessions.plan(request, context.version >= IDS_FROM, context.connection.id)
    };
    let plan = match plan {
        Ok(plan) => plan,
        Err(error_code) => {
            return FetchResponse {
                error_code,
                ..Default::default()
            };
        }
    };
    let FetchPlan {
        wanted,
        session_id,
        incremental,
    } = plan;
    let mut fetch = Fetch {
        context,
        targets: Vec::with_capacity(wanted.len()),
        permit: context.connection.responses.permit(),
        max_bytes,
        read_committed,
    };
    fetch.locate(wanted);
    let deadline = Instant::now() + max_wait;
    fetch.find(min_bytes, deadline).await;
    fetch.bring_back(deadline).await;
    let (response, permit) = fetch.answer(session_id, incremental);
    context.held.borrow_mut().push(permit);
    response
}

struct Fetch<'a> {
    context: &'a RequestContext,
    targets: Vec<Target>,
    /// For what the targets hold, and while a read runs for what it may bring.
    permit: Permit,
    max_bytes: usize,
    read_committed: bool,
}

impl Fetch<'_> {
    fn locate(&mut self, wanted: Vec<Wanted>) {
        let image = self.context.shard.local_image();
        for one in wanted {
            let located = self.locate_one(&image, &one);
            let outcome = match &located {
                Ok(_) => ReadOutcome {
                    next_offset: one.partition.fetch_offset,
                    ..Default::default()
                },
                Err(unlocated) => ReadOutcome::refused(unlocated.error),
            };
            self.targets.push(Target {
                wanted: one,
                answers_now: located.is_err(),
                located,
                outcome,
                let_go: false,
            });
        }
    }

    fn locate_one(&self, image: &Image, wanted: &Wanted) -> Result<Located, Unlocated> {
        let context = self.context;
        let topic =
            topic_of(image, &wanted.topic.name, wanted.topic.id).map_err(Unlocated::because)?;
        if !context.authorize(Operation::Read, ResourceType::Topic, &topic.name) {
            return Err(Unlocated::because(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
        }
        context.shard.locate(topic, wanted.partition.partition)
    }

    /// Bytes found so far.
    fn bytes(&self) -> usize {
        self.targets.iter().map(|target| target.outcome.bytes).sum()
    }

    /// Goes on reading the targets at these places, all shards at once.
    async fn read(&mut self, places: &[usize], deadline: Instant) {
        let mut items = Vec::with_capacity(places.len());
        for &at in places {
            let target = &self.targets[at];
            if let Ok(located) = target.located {
                let item = target.item(located, self.read_committed);
                items.push((located.shard, at, item));
            }
        }
        if items.is_empty() {
            return;
        }
        let found = self.bytes();
        let left = self.max_bytes.saturating_sub(found);
        let asked = items.iter().fold(0usize, |sum, (_, _, item)| {
            sum.saturating_add(item.max_bytes.min(left))
        });
        let shard = &self.context.shard;
        let is_local = items.iter().all(|(owner, _, _)| *owner == shard.index);
        let readers = match is_local {
            true => 1,
            false => items.len().min(shard.shards),
        };
        let wanted = asked.min(left.saturating_mul(readers));
        let granted = self.reserve(wanted, deadline).await;
        if granted == 0 && found > 0 {
            for at in places {
                self.targets[*at].answers_now = true;
            }
            return;
        }
        let min_one = found == 0 && granted > 0;
        let shard = &self.context.shard;
        if is_local {
            let (places, items): (Vec<_>, Vec<_>) =
                items.into_iter().map(|(_, at, item)| (at, item)).unzip();
            let outcomes = shard.read_group(&items, left.min(granted), min_one).await;
            for (at, outcome) in places.into_iter().zip(outcomes) {
                self.targets[at].take_in(outcome);
            }
        } else {
            // Each shard may use as much of what was granted as its partitions are of what was asked.
            let job = move |shard: std::rc::Rc<crate::shard::Shard>, items: Vec<ReadItem>| async move {
                let own: u128 = items
                    .iter()
                    .map(|item| item.max_bytes.min(left) as u128)
                    .sum();
                let part = match granted < wanted {
                    true => own * granted as u128 / asked.max(1) as u128,
                    false => own,
                };
                let part = usize::try_from(part).unwrap_or(left).min(left);
                shard.read_group(&items, part, min_one).await
            };
            let expected = items.len();
            let outcomes = shard.on_owners(items, job).await;
            if outcomes.len() < expected {
                let answered: BTreeSet<usize> = outcomes.iter().map(|(at, _)| *at).collect();
                for at in places.iter().filter(|at| !answered.contains(at)) {
                    self.targets[*at].take_in(ReadOutcome::refused(ErrorCode::KAFKA_STORAGE_ERROR));
                }
            }
            for (at, outcome) in outcomes {
                self.targets[at].take_in(outcome);
            }
        }
        self.charge();
    }

    /// Takes memory for a read that may bring `wanted` bytes: at most half of what is free and its share, so that something is left for
    /// others. None at all when there was none in time; who holds some already does not wait for more.
    async fn reserve(&mut self, wanted: usize, deadline: Instant) -> usize {
        let budget = self.context.connection.responses.budget();
        let held = self.permit.bytes();
        let least = (budget.limit() / READ_PART).clamp(READ_BYTES.0, READ_BYTES.1);
        let most = (budget.free() / 2).min(budget.share().saturating_sub(held));
        let granted = wanted.min(most).max(least);
        if self.permit.try_grow_to(held + granted) {
            return granted;
        }
        if held > 0 {
            return 0;
        }
        let time_left = deadline.saturating_duration_since(Instant::now());
        let time_left = time_left.max(MEMORY_WAIT_MIN);
        let mut room = pin!(self.permit.grow_to(least).fuse());
        select_biased! {
            () = room => least,
            () = compio::time::sleep(time_left).fuse() => 0,
            () = self.context.connection.closed.wait().fuse() => 0,
        }
    }

    /// Holds memory for exactly what the targets keep.
    fn charge(&mut self) {
        let (mut bytes, mut pinned) = (0, 0);
        for target in &self.targets {
            if !target.outcome.pieces.is_empty() {
                bytes += target.outcome.pieces.iter().map(Bytes::len).sum::<usize>();
                pinned += target.pinned();
            }
        }
        let held = pinned.min(self.permit.bytes()).max(bytes);
        self.permit.charge_to(held);
        self.permit.shrink_to(held);
    }

    /// Reads, and parks while there is nothing more to read, until there are `min_bytes`, something answers now, the time is over, or the client is gone.
    async fn find(&mut self, min_bytes: usize, deadline: Instant) {
        let mut parked = false;
        let mut rounds = 0;
        let mut places: Vec<usize> = (0..self.targets.len()).collect();
        loop {
            self.read(&places, deadline).await;
            if self.is_satisfied(min_bytes) {
                return;
            }
            places.clear();
            places.extend((0..self.targets.len()).filter(|at| self.targets[*at].has_more()));
            rounds += 1;
            if places.is_empty() {
                if Instant::now() >= deadline {
                    return;
                }
                if !std::mem::replace(&mut parked, true) {
                    self.context.shard.metrics.fetches_parked.add(1);
                }
                self.let_go();
                let Some(ready) = self.park(deadline).await else {
                    return;
                };
                places = ready;
                rounds = 0;
            } else if rounds >= ROUNDS_MAX {
                return;
            }
        }
    }

    fn is_satisfied(&self, min_bytes: usize) -> bool {
        self.targets.is_empty()
            || self.bytes() >= min_bytes
            || self.targets.iter().any(|target| target.answers_now)
    }

    /// Keeps the count of what was found, but not the memory.
    fn let_go(&mut self) {
        for target in &mut self.targets {
            if !target.outcome.pieces.is_empty() {
                target.outcome.pieces = Vec::new();
                target.outcome.aborted = Vec::new();
                target.let_go = true;
            }
        }
        self.permit.shrink_to(0);
    }

    /// Reads again what was let go.
    async fn bring_back(&mut self, deadline: Instant) {
        let mut places = Vec::new();
        for (at, target) in self.targets.iter_mut().enumerate() {
            if std::mem::take(&mut target.let_go) {
                target.outcome.pieces = Vec::new();
                target.outcome.aborted = Vec::new();
                target.outcome.bytes = 0;
                target.outcome.next_offset = target.wanted.partition.fetch_offset;
                target.answers_now = false;
                places.push(at);
            }
        }
        if !places.is_empty() {
            self.charge();
        }
        for _ in 0..ROUNDS_MAX {
            if places.is_empty() {
                return;
            }
            self.read(&places, deadline).await;
            places.retain(|at| self.targets[*at].has_more() && !self.targets[*at].answers_now);
        }
    }

    /// Waits for the first partition with something new; the places to read again, or none when it is time to answer.
    async fn park(&self, deadline: Instant) -> Option<Vec<usize>> {
        let shard = &self.context.shard;
        let committed = self.read_committed;
        let mut groups: BTreeMap<usize, (Vec<usize>, Vec<_>)> = BTreeMap::new();
        for (at, target) in self.targets.iter().enumerate() {
            if let Ok(Located {
                topic_id, shard, ..
            }) = target.located
            {
                let (places, items) = groups.entry(shard).or_default();
                places.push(at);
                items.push((
                    topic_id,
                    target.wanted.partition.partition,
                    target.outcome.next_offset,
                ));
            }
        }
        let watches: FuturesUnordered<_> = groups
            .into_iter()
            .map(|(owner, (places, items))| async move {
                let ready = shard
                    .on_shard_while_wanted(owner, move |shard| shard.watch(items, committed))
                    .await;
                ready.map(|ready| ready.into_iter().map(|at| places[at]).collect::<Vec<_>>())
            })
            .collect();
        let mut watches = pin!(watches.fuse());
        let time_left = deadline.saturating_duration_since(Instant::now());
        let _parked = self.context.connection.park();
        select_biased! {
            ready = watches.next() => ready.and_then(Result::ok),
            () = compio::time::sleep(time_left).fuse() => None,
            () = self.context.connection.closed.wait().fuse() => None,
        }
    }

    fn answer(mut self, session_id: i32, incremental: bool) -> (FetchResponse, Permit) {
        let mut response = FetchResponse {
            session_id,
            ..Default::default()
        };
        let image = self.context.shard.local_image();
        let mut left = self.max_bytes;
        let mut leaders = Vec::new();
        let mut sent = 0;
        // Shards read without knowing of each other; what is too much together is left for the next fetch.
        for target in &mut self.targets {
            let outcome = &mut target.outcome;
            if outcome.bytes > left && sent > 0 {
                outcome.pieces = Vec::new();
                outcome.aborted = Vec::new();
                outcome.bytes = 0;
            }
            left = left.saturating_sub(outcome.bytes);
            sent += outcome.bytes;
        }
        self.charge();
        for target in self.targets {
            let key = (
                target.wanted.topic.clone(),
                target.wanted.partition.partition,
            );
            let changed = session_id == 0 || remember(self.context, session_id, &key, &target);
            if incremental && !changed {
                continue;
            }
            let data = partition_data(target, self.read_committed, &mut leaders);
            add(&mut response, key.0, data);
        }
        self.context.shard.metrics.bytes_fetched.add(sent as u64);
        response.node_endpoints =
            leader_endpoints(&image, leaders, &self.context.connection.listener)
                .map(|(node_id, endpoint, rack)| NodeEndpoint {
                    node_id,
                    host: endpoint.host.clone(),
                    port: i32::from(endpoint.port),
                    rack,
                })
                .collect();
        (response, self.permit)
    }
}

/// Notes in the session what the client is told; whether that is anything new.
fn remember(
    context: &RequestContext,
    session_id: i32,
    key: &(TopicKey, i32),
    target: &Target,
) -> bool {
    let outcome = &target.outcome;
    let told = Told {
        high_watermark: outcome.high_watermark,
        log_start_offset: outcome.log_start_offset,
        failed: outcome.error.is_error() || outcome.diverging.is_some(),
    };
    let gave_data = outcome.bytes > 0;
    let changed = gave_data || told.failed || target.wanted.told != Some(told);
    if changed {
        context
            .shard
            .fetch_sessions
            .borrow_mut()
            .told(session_id, key, told, gave_data);
    }
    changed
}

fn partition_data(target: Target, committed: bool, leaders: &mut Vec<i32>) -> PartitionData {
    let Target {
        wanted,
        located,
        outcome,
        ..
    } = target;
    let mut data = PartitionData {
        partition_index: wanted.partition.partition,
        error_code: outcome.error,
        high_watermark: outcome.high_watermark,
        last_stable_offset: outcome.last_stable_offset,
        // Who did not ask is told nothing.
        aborted_transactions: committed.then(|| aborted(outcome.aborted)),
        log_start_offset: outcome.log_start_offset,
        records: Records::from(outcome.pieces),
        ..Default::default()
    };
    if let Some((epoch, end_offset)) = outcome.diverging {
        data.diverging_epoch = EpochEndOffset { epoch, end_offset };
    }
    if let Err(Unlocated {
        leader: Some((leader_id, leader_epoch)),
        ..
    }) = located
    {
        data.current_leader = LeaderIdAndEpoch {
            leader_id,
            leader_epoch,
        };
        leaders.push(leader_id);
    }
    data
}

/// Each aborted transaction once, in order of first offset: reads that follow each other may both have met it.
fn aborted(mut found: Vec<(i64, i64)>) -> Vec<AbortedTransaction> {
    found.sort_unstable_by_key(|(producer_id, first_offset)| (*first_offset, *producer_id));
    found.dedup();
    found
        .into_iter()
        .map(|(producer_id, first_offset)| AbortedTransaction {
            producer_id,
            first_offset,
        })
        .collect()
}

fn add(response: &mut FetchResponse, topic: TopicKey, data: PartitionData) {
    match response.responses.last_mut() {
        Some(last) if last.topic == topic.name && last.topic_id == topic.id => {
            last.partitions.push(data)
        }
        _ => response.responses.push(FetchableTopicResponse {
            topic: topic.name,
            topic_id: topic.id,
            partitions: vec![data],
        }),
    }
}
