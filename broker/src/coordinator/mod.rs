//! Coordinators: state machines from `ringlog_coordinator`, each on the shard that owns the partition in which its state is kept.
//!
//! [`machine`] is what a host must know of its machine, [`host`] drives one, [`queue`] is what of it waits to be written, [`load`] brings back its state, [`topics`] finds and makes the internal topics.
//! [`groups`] is the one for consumer groups, [`transactions`] the one for transactions and the writing of their markers. A request goes from its connection's shard to the owner of the partition as a job, and its answer comes back the same way.

pub mod groups;
pub mod host;
mod load;
pub mod machine;
mod queue;
pub mod topics;
pub mod transactions;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use ringlog_coordinator::groups::GroupCoordinator;
use ringlog_coordinator::transactions::TransactionCoordinator;
use ringlog_engine::environment::Environment as _;
use ringlog_net::{ErrorCode, Str, Uuid};

use host::{Host, Place};
use machine::Machine;
use topics::Internal;

use crate::controller::{Delta, Image};
use crate::handlers::RequestContext;
use crate::shard::runtime::spawn;
use crate::shard::{Shard, ShardUnavailable};

/// The coordinators of one shard.
#[derive(Default)]
pub struct Coordinators {
    groups: Hosts<GroupCoordinator>,
    transactions: Hosts<TransactionCoordinator>,
    /// Transactions whose markers are being written.
    markers: RefCell<transactions::MarkersUnderWay>,
    /// Partitions whose coordinator has asked for a producer id that is on its way.
    fetching_id: RefCell<BTreeSet<i32>>,
    /// The broker stops: nothing is taken charge of any more.
    resigned: Cell<bool>,
}

/// Coordinators by partition.
type Hosts<M> = RefCell<BTreeMap<i32, Rc<Host<M>>>>;
/// What there is to take charge of, by partition.
type Places = BTreeMap<i32, Place>;

impl Coordinators {
    /// Gives all of it up, for good: whoever waits is answered.
    pub fn resign(&self) {
        self.resigned.set(true);
        for host in self.groups.take().into_values() {
            host.resign();
        }
        for host in self.transactions.take().into_values() {
            host.resign();
        }
    }

    /// What of these places is to be taken charge of. Images are followed until the engine closes; a host that one of them started after the others have resigned would
    /// write while it does.
    fn to_lead(&self, places: Places) -> Places {
        match self.resigned.get() {
            true => Places::new(),
            false => places,
        }
    }

    /// The coordinators of transactions here.
    pub fn transactions(&self) -> Vec<Rc<Host<TransactionCoordinator>>> {
        self.transactions.borrow().values().cloned().collect()
    }

    /// The coordinators of groups here.
    pub fn groups(&self) -> Vec<Rc<Host<GroupCoordinator>>> {
        self.groups.borrow().values().cloned().collect()
    }
}

impl Shard {
    /// Takes charge of the partitions of internal topics that this shard owns and this broker leads, and gives up those it no longer does.
    pub fn follow_coordinators(self: &Rc<Self>, image: &Image, delta: Option<&Delta>) {
        let coordinators = &self.coordinators;
        let places = self.places(image, Internal::ConsumerOffsets);
        self.follow(&coordinators.groups, places, |_| {
            let config = groups::config(&self.config);
            move || GroupCoordinator::new(config.clone())
        });
        let places = self.places(image, Internal::TransactionState);
        self.follow(&coordinators.transactions, places, |place| {
            let config = transactions::config(&self.config);
            move || TransactionCoordinator::new(config.clone(), place.leader_epoch)
        });
        if let Some(delta) = delta {
            self.tell_groups(image, delta);
        }
    }

    /// Groups forget offsets of topics that are gone, and look anew at what their members read.
    fn tell_groups(self: &Rc<Self>, image: &Image, delta: &Delta) {
        let grown = delta.created.iter();
        let grown =
            grown.filter_map(|(id, _)| image.topic_by_id(*id).map(|topic| topic.name.clone()));
        let gone = delta.deleted.iter().map(|(_, name, _)| name.clone());
        let changed: Vec<Str> = grown.chain(gone).collect();
        if changed.is_empty() {
            return;
        }
        for host in self.coordinators.groups() {
            if !delta.deleted.is_empty() {
                let gone = delta.deleted.iter();
                let gone: Vec<(Str, Uuid)> =
                    gone.map(|(id, name, _)| (name.clone(), *id)).collect();
                host.happen_once_loaded(move |machine, now, output| {
                    for (name, id) in &gone {
                        machine.on_topic_deleted(name, *id, now, &mut output.commands);
                    }
                });
            }
            host.happen(|machine, _, _| machine.on_metadata(&changed, &groups::Topics::all(image)));
        }
    }

    fn follow<M: Machine, Make: Fn() -> M + 'static>(
        self: &Rc<Self>,
        hosts: &Hosts<M>,
        places: Places,
        make: impl Fn(Place) -> Make,
    ) {
        let places = self.coordinators.to_lead(places);
        let mut hosts = hosts.borrow_mut();
        hosts.retain(|partition, host| {
            let stays = places.get(partition) == Some(&host.place());
            if !stays {
                host.resign();
            }
            stays
        });
        for (partition, place) in places {
            // A log that could not be opened has no coordinator; clients are told so.
            if let Some(log) = self.log(place.topic_id, partition)
                && !hosts.contains_key(&partition)
            {
                hosts.insert(partition, Host::start(self, place, log, make(place)));
            }
        }
    }

    fn places(&self, image: &Image, topic: Internal) -> Places {
        let Some(topic) = image.topic(topic.name()) else {
            return Places::new();
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

    /// Lets offsets, groups and transactional ids expire, again and again.
    pub(crate) fn let_expire(self: &Rc<Self>) {
        self.again_and_again("offsets.retention.check.interval.ms", async |shard| {
            for host in shard.coordinators.groups() {
                let step = async {
                    host.happen(|machine, now, output| machine.expire(now, &mut output.commands));
                };
                shard.measured(step).await;
            }
        });
        let key = "transaction.remove.expired.transaction.cleanup.interval.ms";
        self.again_and_again(key, async |shard| {
            for host in shard.coordinators.transactions() {
                while shard.measured(async { transactions::expire(&host) }).await {}
            }
        });
    }

    fn again_and_again(
        self: &Rc<Self>,
        key: &'static str,
        work: impl AsyncFn(&Rc<Shard>) + 'static,
    ) {
        let interval_ms = self.config.number(key);
        let interval = Duration::from_millis(u64::try_from(interval_ms).unwrap_or(u64::MAX).max(1));
        let shard = self.clone();
        spawn(key, async move {
            loop {
                let pause = shard.environment.sleep(interval);
                if let Either::Right(_) = select(pin!(pause), pin!(shard.stop.wait())).await {
                    return;
                }
                work(&shard).await;
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

#[cfg(test)]
mod tests {
    //! Whoever has resigned stays so.
    use super::*;
    use ringlog_net::Uuid;

    #[test]
    fn nothing_is_led_after_a_stop_has_begun() {
        let place = Place {
            topic_id: Uuid([1; 16]),
            partition: 0,
            leader_epoch: 0,
        };
        let coordinators = Coordinators::default();
        let places = Places::from([(0, place)]);
        assert_eq!(coordinators.to_lead(places.clone()), places);
        coordinators.resign();
        assert_eq!(coordinators.to_lead(places), Places::new());
    }
}
