//! Coordinators: state machines from `ringlog_coordinator`, each on the shard that owns the partition in which its state is kept.
//!
//! [`machine`] is what a host must know of its machine, [`host`] drives one, [`load`] brings back its state, [`topics`] finds and makes the internal topics.
//! [`groups`] is the one for consumer groups. A request goes from its connection's shard to the owner of the partition as a job, and its answer comes back the same way.

pub mod groups;
pub mod host;
mod load;
pub mod machine;
pub mod topics;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use ringlog_coordinator::groups::GroupCoordinator;
use ringlog_engine::environment::Environment as _;
use ringlog_net::ErrorCode;

use host::{Host, Place};
use topics::Internal;

use crate::controller::{Delta, Image};
use crate::handlers::RequestContext;
use crate::shard::runtime::spawn;
use crate::shard::{Shard, ShardUnavailable};

/// The coordinators of one shard.
#[derive(Default)]
pub struct Coordinators {
    groups: RefCell<BTreeMap<i32, Rc<Host<GroupCoordinator>>>>,
}

impl Coordinators {
    /// Gives all of it up: whoever waits is answered.
    pub fn resign(&self) {
        for host in self.groups.take().into_values() {
            host.resign();
        }
    }

    /// The coordinators of groups here.
    pub fn groups(&self) -> Vec<Rc<Host<GroupCoordinator>>> {
        self.groups.borrow().values().cloned().collect()
    }
}

impl Shard {
    /// Takes charge of the partitions of internal topics that this shard owns and this broker leads, and gives up those it no longer does.
    pub fn follow_coordinators(self: &Rc<Self>, image: &Image, delta: Option<&Delta>) {
        let places = self.places(image, Internal::ConsumerOffsets);
        let mut groups = self.coordinators.groups.borrow_mut();
        groups.retain(|partition, host| {
            let stays = places
                .get(partition)
                .is_some_and(|place| *place == host.place());
            if !stays {
                host.resign();
            }
            stays
        });
        for (partition, place) in places {
            if groups.contains_key(&partition) {
                continue;
            }
            let Some(log) = self.log(place.topic_id, partition) else {
                // It could not be opened; its clients are told that there is no coordinator.
                continue;
            };
            let config = groups::config(&self.config);
            let make = move || GroupCoordinator::new(config.clone());
            groups.insert(partition, Host::start(self, place, log, make));
        }
        drop(groups);
        for (_, name, _) in delta.iter().flat_map(|delta| &delta.deleted) {
            for host in self.coordinators.groups() {
                host.happen(|machine, now, output| {
                    machine.on_topic_deleted(name, now, &mut output.commands);
                });
            }
        }
    }

    fn places(&self, image: &Image, topic: Internal) -> BTreeMap<i32, Place> {
        let Some(topic) = image.topic(topic.name()) else {
            return BTreeMap::new();
        };
        let partitions = (0..).zip(&topic.partitions);
        partitions
            .filter(|(partition, state)| {
                state.leader == self.node_id() && self.owner_of(topic.id, *partition) == self.index
            })
            .map(|(partition, state)| {
                let place = Place {
                    topic_id: topic.id,
                    partition,
                    leader_epoch: state.leader_epoch,
                };
                (partition, place)
            })
            .collect()
    }

    /// Lets offsets and groups expire, again and again.
    pub(crate) fn expire_offsets(self: &Rc<Self>) {
        let interval_ms = self.config.number("offsets.retention.check.interval.ms");
        let interval = Duration::from_millis(u64::try_from(interval_ms).unwrap_or(u64::MAX).max(1));
        let shard = self.clone();
        spawn("expire offsets", async move {
            loop {
                let pause = shard.environment.sleep(interval);
                if let Either::Right(_) = select(pin!(pause), pin!(shard.stop.wait())).await {
                    return;
                }
                for host in shard.coordinators.groups() {
                    host.happen(|machine, now, output| machine.expire(now, &mut output.commands));
                    shard.breathe().await;
                }
            }
        });
    }
}

impl RequestContext {
    /// Waits for a coordinator's answer, or until the client has gone or the broker stops.
    async fn until_gone<R>(
        &self,
        asked: impl Future<Output = Result<Result<R, ErrorCode>, ShardUnavailable>>,
    ) -> Result<R, ErrorCode> {
        let _parked = self.connection.park();
        match select(pin!(asked), pin!(self.connection.closed.wait())).await {
            Either::Left((answer, _)) => {
                answer.unwrap_or(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE))
            }
            Either::Right(_) => Err(ErrorCode::COORDINATOR_NOT_AVAILABLE),
        }
    }
}
