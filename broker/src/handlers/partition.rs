//! Finding the partition a request names: in the image, led by this broker, on which shard; or the error that says what is wrong.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::join_all;
use ringlog_net::{ErrorCode, Str, Uuid};

use crate::controller::image::{Endpoint, Image, TopicImage};
use crate::shard::Shard;

/// A partition that this broker leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The topic.
    pub topic_id: Uuid,
    /// The shard that owns the partition.
    pub shard: usize,
    /// The epoch in which this broker leads.
    pub leader_epoch: i32,
    /// How many replicas are in sync, this broker's own included.
    pub in_sync: usize,
}

/// Why a partition cannot be served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unlocated {
    /// The protocol's error.
    pub error: ErrorCode,
    /// Who leads, and since which epoch, when it is known and somebody else (KIP-951).
    pub leader: Option<(i32, i32)>,
}

impl Unlocated {
    /// An error without a leader to tell.
    pub fn because(error: ErrorCode) -> Self {
        Self {
            error,
            leader: None,
        }
    }
}

/// The topic that a request names by id (when not zero) or by name.
///
/// # Errors
/// UNKNOWN_TOPIC_ID or UNKNOWN_TOPIC_OR_PARTITION.
pub fn topic_of<'a>(image: &'a Image, name: &str, id: Uuid) -> Result<&'a TopicImage, ErrorCode> {
    if id.is_zero() {
        image
            .topic(name)
            .map(Arc::as_ref)
            .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    } else {
        image
            .topic_by_id(id)
            .map(Arc::as_ref)
            .ok_or(ErrorCode::UNKNOWN_TOPIC_ID)
    }
}

impl Shard {
    /// Finds a partition of a known topic.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION, or NOT_LEADER_OR_FOLLOWER with the leader.
    pub fn locate(&self, topic: &TopicImage, partition: i32) -> Result<Located, Unlocated> {
        let unknown = Unlocated::because(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let index = usize::try_from(partition).map_err(|_| unknown)?;
        let state = topic.partitions.get(index).ok_or(unknown)?;
        if state.leader != self.node_id() {
            let leader =
                Some((state.leader, state.leader_epoch)).filter(|(leader, _)| *leader >= 0);
            return Err(Unlocated {
                error: ErrorCode::NOT_LEADER_OR_FOLLOWER,
                leader,
            });
        }
        let shard = self.owner_of(topic.id, partition);
        Ok(Located {
            topic_id: topic.id,
            shard,
            leader_epoch: state.leader_epoch,
            in_sync: state.isr.len(),
        })
    }

    /// Runs `job` on each shard with the items that are its own. Each result comes with the place that was given with its item; a shard that
    /// did not answer leaves its items out.
    pub async fn on_owners<P, I, R, F, Work>(
        self: &Rc<Self>,
        items: Vec<(usize, P, I)>,
        job: Work,
    ) -> Vec<(P, R)>
    where
        I: Send + 'static,
        R: Send + 'static,
        F: Future<Output = Vec<R>> + 'static,
        Work: FnOnce(Rc<Shard>, Vec<I>) -> F + Clone + Send + 'static,
    {
        let mut groups: BTreeMap<usize, (Vec<P>, Vec<I>)> = BTreeMap::new();
        for (shard, place, item) in items {
            let group = groups.entry(shard).or_default();
            group.0.push(place);
            group.1.push(item);
        }
        let calls = groups.into_iter().map(|(index, (places, items))| {
            let job = job.clone();
            async move {
                let results = self.on_shard(index, move |shard| job(shard, items)).await;
                places.into_iter().zip(results.unwrap_or_default())
            }
        });
        join_all(calls).await.into_iter().flatten().collect()
    }
}

/// The endpoints of brokers on a listener, each once (KIP-951).
pub fn leader_endpoints<'a>(
    image: &'a Image,
    mut leaders: Vec<i32>,
    listener: &'a str,
) -> impl Iterator<Item = (i32, &'a Endpoint, Option<Str>)> {
    leaders.sort_unstable();
    leaders.dedup();
    leaders.into_iter().filter_map(move |node| {
        let broker = image.broker(node)?;
        Some((node, broker.endpoint(listener)?, broker.rack.clone()))
    })
}
