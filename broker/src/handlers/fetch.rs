//! Fetch (versions 4 to 18): reads partitions, waits for data if there is too little, and answers with slices of what is stored.
//!
//! A fetch reads everything it may, on all shards at once. With less than `min_bytes` it parks on its partitions, and is woken by the first that gets
//! something, by its deadline, or by its client going away; only what woke it is read again. Sessions (KIP-227) are in [`crate::fetch_session`].
//! `max_bytes` is kept in request order, but for the first batch, which comes whatever its size (KIP-74). `records` is never null.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt, select_biased};
use ringlog_net::messages::fetch::{
    EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch,
    NodeEndpoint, PartitionData,
};
use ringlog_net::{ErrorCode, Records};

use super::RequestContext;
use super::partition::{Located, Unlocated, leader_endpoints, topic_of};
use crate::authorizer::{Operation, ResourceType};
use crate::controller::Image;
use crate::fetch_session::{FetchPlan, Told, TopicKey, Wanted};
use crate::shard::read::{ReadItem, ReadOutcome};

/// From this version on topics are named by id.
const IDS_FROM: i16 = 13;

struct Target {
    wanted: Wanted,
    located: Result<Located, Unlocated>,
    outcome: ReadOutcome,
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
    let responses = &context.connection.responses;
    let mut permit = responses.permit();
    let max_bytes = max_bytes.min(responses.budget().free());
    permit.charge_to(max_bytes);
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
        max_bytes,
        read_committed,
    };
    fetch.locate(wanted);
    let all: Vec<usize> = (0..fetch.targets.len()).collect();
    fetch.read(&all).await;
    fetch.wait_for(min_bytes, max_wait).await;
    let (response, sent) = fetch.answer(session_id, incremental);
    permit.shrink_to(sent);
    context.held.borrow_mut().push(permit);
    response
}

struct Fetch<'a> {
    context: &'a RequestContext,
    targets: Vec<Target>,
    max_bytes: usize,
    read_committed: bool,
}

impl Fetch<'_> {
    fn locate(&mut self, wanted: Vec<Wanted>) {
        let image = self.context.shard.local_image();
        for one in wanted {
            let located = self.locate_one(&image, &one);
            let outcome = match &located {
                Ok(_) => ReadOutcome::default(),
                Err(unlocated) => ReadOutcome::refused(unlocated.error),
            };
            self.targets.push(Target {
                wanted: one,
                located,
                outcome,
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

    /// Reads the targets at these places, all shards at once.
    async fn read(&mut self, places: &[usize]) {
        let max_bytes = self.max_bytes;
        let mut items = Vec::with_capacity(places.len());
        for &at in places {
            let target = &self.targets[at];
            if let Ok(located) = target.located {
                items.push((located.shard, at, item_of(&target.wanted, located)));
            }
        }
        let shard = &self.context.shard;
        if items.iter().all(|(owner, _, _)| *owner == shard.index) {
            let (places, items): (Vec<_>, Vec<_>) =
                items.into_iter().map(|(_, at, item)| (at, item)).unzip();
            for (at, outcome) in places
                .into_iter()
                .zip(shard.read_group(&items, max_bytes).await)
            {
                self.targets[at].outcome = outcome;
            }
            return;
        }
        for &(_, at, _) in &items {
            self.targets[at].outcome = ReadOutcome::refused(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        let job = move |shard: std::rc::Rc<crate::shard::Shard>, items: Vec<ReadItem>| async move {
            shard.read_group(&items, max_bytes).await
        };
        for (at, outcome) in shard.on_owners(items, job).await {
            self.targets[at].outcome = outcome;
        }
    }

    /// Parks until there are `min_bytes`, something has failed, the time is over, or the client is gone.
    async fn wait_for(&mut self, min_bytes: usize, max_wait: Duration) {
        let deadline = Instant::now() + max_wait;
        let mut parked = false;
        while !self.is_satisfied(min_bytes) && Instant::now() < deadline {
            if !std::mem::replace(&mut parked, true) {
                self.context.shard.metrics.fetches_parked.add(1);
            }
            let Some(ready) = self.park(deadline).await else {
                return;
            };
            self.read(&ready).await;
        }
    }

    fn is_satisfied(&self, min_bytes: usize) -> bool {
        let answers_now =
            |target: &Target| target.outcome.error.is_error() || target.outcome.diverging.is_some();
        let bytes: usize = self.targets.iter().map(|target| target.outcome.bytes).sum();
        self.targets.is_empty() || bytes >= min_bytes || self.targets.iter().any(answers_now)
    }

    /// Waits for the first partition with something new; the places to read again, or none when it is time to answer.
    async fn park(&self, deadline: Instant) -> Option<Vec<usize>> {
        let shard = &self.context.shard;
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
                    .on_shard_while_wanted(owner, |shard| shard.watch(items))
                    .await;
                ready.map(|ready| ready.into_iter().map(|at| places[at]).collect::<Vec<_>>())
            })
            .collect();
        let mut watches = pin!(watches.fuse());
        let time_left = deadline.saturating_duration_since(Instant::now());
        select_biased! {
            ready = watches.next() => ready.and_then(Result::ok),
            () = compio::time::sleep(time_left).fuse() => None,
            () = self.context.connection.closed.wait().fuse() => None,
        }
    }

    fn answer(self, session_id: i32, incremental: bool) -> (FetchResponse, usize) {
        let mut response = FetchResponse {
            session_id,
            ..Default::default()
        };
        let image = self.context.shard.local_image();
        let mut left = self.max_bytes;
        let mut leaders = Vec::new();
        let mut sent = 0;
        for mut target in self.targets {
            // Shards read without knowing of each other; what is too much together is left for the next fetch.
            if target.outcome.bytes > left && sent > 0 {
                target.outcome.pieces.clear();
                target.outcome.bytes = 0;
            }
            left = left.saturating_sub(target.outcome.bytes);
            sent += target.outcome.bytes;
            let key = (
                target.wanted.topic.clone(),
                target.wanted.partition.partition,
            );
            let changed = session_id == 0 || remember(self.context, session_id, &key, &target);
            if incremental && !changed {
                continue;
            }
            let mut data = partition_data(target, &mut leaders);
            // No transactions yet, so none was aborted; who did not ask is told nothing.
            data.aborted_transactions = self.read_committed.then(Vec::new);
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
        (response, sent)
    }
}

fn item_of(wanted: &Wanted, located: Located) -> ReadItem {
    ReadItem {
        topic_id: located.topic_id,
        partition: wanted.partition.partition,
        offset: wanted.partition.fetch_offset,
        max_bytes: wanted.partition.partition_max_bytes.max(0) as usize,
        current_leader_epoch: wanted.partition.current_leader_epoch,
        last_fetched_epoch: wanted.partition.last_fetched_epoch,
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

fn partition_data(target: Target, leaders: &mut Vec<i32>) -> PartitionData {
    let Target {
        wanted,
        located,
        outcome,
    } = target;
    let mut data = PartitionData {
        partition_index: wanted.partition.partition,
        error_code: outcome.error,
        high_watermark: outcome.high_watermark,
        last_stable_offset: outcome.high_watermark,
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
