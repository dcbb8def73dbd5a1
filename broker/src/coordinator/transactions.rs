//! Transactions: the machine behind `__transaction_state`, the way to it from any shard, and the markers that carry out what it decides.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use ringlog_coordinator::transactions::{
    MarkersToWrite, TransactionCommands, TransactionConfig, TransactionCoordinator,
    TransactionReply,
};
use ringlog_coordinator::{Caller, Now};
use ringlog_engine::environment::Environment as _;
use ringlog_net::messages::add_partitions_to_txn::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use ringlog_net::{ErrorCode, Str};

use super::Coordinators;
use super::host::{Asker, Host};
use super::machine::{Machine, Output, Replayed, Unreplayed};
use super::topics::Internal;
use crate::config::BrokerConfig;
use crate::connection::signal::{RaiseOnDrop, Signal};
use crate::handlers::RequestContext;
use crate::shard::Shard;
use crate::shard::markers::MarkerItem;
use crate::shard::runtime::spawn;

/// Pauses between attempts to write markers: the first, and the longest.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
const AGAIN_AFTER_MOST: Duration = Duration::from_secs(1);
/// The version of AddPartitionsToTxn by which brokers ask.
const BROKERS_ASK_IN: i16 = 5;

impl Machine for TransactionCoordinator {
    type Reply = TransactionReply;
    type Effect = MarkersToWrite;

    fn replay(&mut self, entry: Replayed) -> Result<(), Unreplayed> {
        match entry {
            Replayed::Record { key, value, .. } => {
                self.replay(&key, value.as_ref()).map_err(|error| {
                    let reason = error.to_string();
                    match error.is_foreign() {
                        true => Unreplayed::Foreign(reason),
                        false => Unreplayed::Unreadable(reason),
                    }
                })
            }
            // Nobody writes to this partition in a transaction.
            Replayed::Marker { .. } => Err(Unreplayed::Foreign("a marker".into())),
        }
    }

    fn loaded(&mut self, now: Now, output: &mut Output<Self>) {
        with(output, |commands| self.loaded(now, commands));
    }

    fn on_timeout(&mut self, now: Now, _: &Shard, output: &mut Output<Self>) {
        with(output, |commands| self.on_timeout(now, commands));
    }

    fn next_deadline(&self) -> Option<u64> {
        self.next_deadline()
    }

    fn resign(&mut self, output: &mut Output<Self>) {
        with(output, |commands| self.resign(commands));
    }

    fn perform(host: &Rc<Host<Self>>, markers: MarkersToWrite) {
        let life = host.life();
        spawn(
            "transaction markers",
            write_markers(host.clone(), life, markers),
        );
    }

    fn after_event(host: &Rc<Host<Self>>) {
        let wanted = host.look(Self::producer_ids_wanted).unwrap_or(0);
        let Some(shard) = host.shard().filter(|_| wanted > 0) else {
            return;
        };
        // One on its way is enough: its arrival is an event, after which this is asked again.
        let place = host.place().partition;
        if !shard.coordinators.fetching_id.borrow_mut().insert(place) {
            return;
        }
        let host = host.clone();
        spawn("producer id for a transaction", async move {
            let id = shard.next_producer_id().await;
            shard.coordinators.fetching_id.borrow_mut().remove(&place);
            match id {
                Ok(id) => host.happen(|machine, _, _| machine.add_producer_id(id)),
                Err(error) => {
                    tracing::warn!(error, "no producer id could be reserved for a transaction");
                }
            }
        });
    }
}

/// Runs `act` with the form of commands that the machine knows.
fn with(output: &mut Output<TransactionCoordinator>, act: impl FnOnce(&mut TransactionCommands)) {
    let mut commands = TransactionCommands::default();
    std::mem::swap(&mut commands.commands, &mut output.commands);
    act(&mut commands);
    output.commands = commands.commands;
    output.effects.extend(commands.markers);
}

/// The settings of transaction coordinators.
pub(super) fn config(config: &BrokerConfig) -> TransactionConfig {
    let number = |name| config.number(name);
    TransactionConfig {
        timeout_ms_max: i32::try_from(number("transaction.max.timeout.ms")).unwrap_or(i32::MAX),
        id_expiration_ms: u64::try_from(number("transactional.id.expiration.ms"))
            .unwrap_or(u64::MAX),
        ..TransactionConfig::default()
    }
}

/// Forgets transactional ids that nobody uses any more, a bounded number; whether there may be others.
pub(super) fn expire(host: &Rc<Host<TransactionCoordinator>>) -> bool {
    let mut more = false;
    host.happen(|machine, now, output| {
        with(output, |commands| more = machine.expire(now, commands));
    });
    more
}

/// Marker writes under way, by transactional id: those of one id follow each other, because a late one would end the next transaction.
#[derive(Default)]
pub struct MarkersUnderWay(HashMap<Str, Rc<Signal>>);

/// Writes markers until every partition has its own, or cannot have one.
async fn write_markers(host: Rc<Host<TransactionCoordinator>>, life: u64, markers: MarkersToWrite) {
    let Some(shard) = host.shard() else { return };
    let id = markers.transactional_id.clone();
    let done = Rc::new(Signal::default());
    let before = {
        let mut under_way = shard.coordinators.markers.borrow_mut();
        under_way.0.insert(id.clone(), done.clone())
    };
    if let Some(before) = before {
        before.wait().await;
    }
    drop(shard);
    let raised = RaiseOnDrop(done.clone());
    write_all(&host, life, &markers).await;
    drop(raised);
    if let Some(shard) = host.shard() {
        let mut under_way = shard.coordinators.markers.borrow_mut();
        if under_way
            .0
            .get(&id)
            .is_some_and(|last| Rc::ptr_eq(last, &done))
        {
            under_way.0.remove(&id);
        }
    }
}

async fn write_all(host: &Rc<Host<TransactionCoordinator>>, life: u64, markers: &MarkersToWrite) {
    let mut left = markers.partitions.clone();
    let mut pause = AGAIN_AFTER;
    let mut complained = false;
    while !left.is_empty() {
        // Once somebody else is in charge, or the state was loaded anew, that one writes them.
        let Some(shard) = host.shard().filter(|_| host.is_in_charge(life)) else {
            return;
        };
        let mut finished = Vec::new();
        for ((topic, partition), verdict) in attempt(&shard, markers, &left).await {
            match verdict {
                Verdict::Done => finished.push((topic, partition)),
                Verdict::Fenced => return,
                Verdict::Again(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!(transactional_id = %markers.transactional_id, %topic, partition, %error, "a transaction's marker cannot be written yet; it is tried again until it can");
                    }
                }
            }
        }
        left.retain(|one| !finished.contains(one));
        // A state that was loaded meanwhile counts its decisions anew, and must not take this report for one of its own: its markers are still to come.
        if !host.is_in_charge(life) {
            return;
        }
        host.happen(|machine, now, output| {
            let id = &markers.transactional_id;
            with(output, |commands| {
                machine.on_markers_written(now, id, markers.decision, &finished, commands);
            });
        });
        if !left.is_empty() {
            shard.environment.sleep(pause).await;
            pause = (pause * 2).min(AGAIN_AFTER_MOST);
        }
    }
}

enum Verdict {
    Done,
    Again(ErrorCode),
    Fenced,
}

async fn attempt(
    shard: &Rc<Shard>,
    markers: &MarkersToWrite,
    partitions: &[(Str, i32)],
) -> Vec<((Str, i32), Verdict)> {
    let mut verdicts = Vec::with_capacity(partitions.len());
    let mut items = Vec::with_capacity(partitions.len());
    let mut unknown = Vec::new();
    let image = shard.local_image();
    for (topic, partition) in partitions {
        let key = (topic.clone(), *partition);
        let known = image
            .topic(topic)
            .map(|topic| shard.locate(topic, *partition));
        match known {
            None => unknown.push(key),
            Some(Err(unlocated)) if unlocated.error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                unknown.push(key);
            }
            Some(Err(unlocated)) => verdicts.push((key, Verdict::Again(unlocated.error))),
            Some(Ok(located)) => {
                let item = MarkerItem {
                    topic_id: located.topic_id,
                    partition: *partition,
                    leader_epoch: located.leader_epoch,
                    producer_id: markers.producer_id,
                    producer_epoch: markers.producer_epoch,
                    coordinator_epoch: markers.coordinator_epoch(),
                    committed: markers.committed,
                    transaction_version: i8::try_from(markers.transaction_version).unwrap_or(0),
                };
                items.push((located.shard, key, item));
            }
        }
    }
    drop(image);
    if !unknown.is_empty() {
        let known = known_anywhere(shard, &unknown).await;
        let verdict = |known| match known {
            true => Verdict::Again(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            // It was deleted: nobody will read there.
            false => Verdict::Done,
        };
        verdicts.extend(unknown.into_iter().zip(known.into_iter().map(verdict)));
    }
    let mut unanswered: Vec<(Str, i32)> = items.iter().map(|(_, key, _)| key.clone()).collect();
    let write = |shard: Rc<Shard>, items| async move { shard.write_markers(items).await };
    for (key, error) in shard.on_owners(items, write).await {
        unanswered.retain(|one| *one != key);
        let verdict = match error {
            ErrorCode::NONE => Verdict::Done,
            ErrorCode::TRANSACTION_COORDINATOR_FENCED => Verdict::Fenced,
            // A later epoch of the producer is there already, so this transaction has ended there.
            ErrorCode::INVALID_PRODUCER_EPOCH => Verdict::Done,
            other => Verdict::Again(other),
        };
        verdicts.push((key, verdict));
    }
    let silent = unanswered.into_iter();
    verdicts.extend(silent.map(|key| (key, Verdict::Again(ErrorCode::KAFKA_STORAGE_ERROR))));
    verdicts
}

/// Which of these partitions any shard knows. One that is new to us may have been written to already, through a shard that heard of it earlier.
async fn known_anywhere(shard: &Rc<Shard>, partitions: &[(Str, i32)]) -> Vec<bool> {
    let each = (0..shard.shards).map(|index| {
        let asked = partitions.to_vec();
        shard.on_shard(index, move |shard: Rc<Shard>| async move {
            let known = |(topic, partition): &(Str, i32)| {
                shard.with_image(|image| image.has_partition(topic, *partition))
            };
            asked.iter().map(known).collect::<Vec<bool>>()
        })
    });
    let mut known = vec![false; partitions.len()];
    for heard in join_all(each).await {
        // Who does not answer may know it.
        let heard = heard.unwrap_or_else(|_| vec![true; partitions.len()]);
        for (known, heard) in known.iter_mut().zip(heard) {
            *known |= heard;
        }
    }
    known
}

impl Coordinators {
    /// The coordinator of a partition of `__transaction_state`.
    ///
    /// # Errors
    /// NOT_COORDINATOR when it is not here.
    pub fn transaction(
        &self,
        partition: i32,
    ) -> Result<Rc<Host<TransactionCoordinator>>, ErrorCode> {
        let transactions = self.transactions.borrow();
        let host = transactions.get(&partition).cloned();
        host.ok_or(ErrorCode::NOT_COORDINATOR)
    }
}

/// A request to a transaction's coordinator, where it runs. The number is a producer id that nobody ever had, if one was wanted.
pub type TransactionCall = Box<
    dyn FnOnce(&mut TransactionCoordinator, &Caller, Option<i64>, &mut TransactionCommands) + Send,
>;

impl Shard {
    /// Hands a request to the coordinator of a transactional id and waits for its answer.
    ///
    /// # Errors
    /// Why there is no coordinator here that could answer.
    pub async fn ask_transaction(
        self: &Rc<Self>,
        asker: Asker,
        transactional_id: &str,
        wants_producer_id: bool,
        call: TransactionCall,
    ) -> Result<TransactionReply, ErrorCode> {
        let kept = self.kept(Internal::TransactionState, transactional_id)?;
        let partition = kept.partition;
        let asked = self.on_shard(kept.located.shard, move |shard: Rc<Shard>| async move {
            let host = shard.coordinators.transaction(partition)?;
            let fresh = match wants_producer_id {
                true => Some(shard.next_producer_id().await.map_err(|error| {
                    tracing::warn!(error, "no producer id could be reserved");
                    ErrorCode::COORDINATOR_NOT_AVAILABLE
                })?),
                false => None,
            };
            host.call(asker, move |machine, caller, output| {
                with(output, |commands| call(machine, caller, fresh, commands));
            })
            .await
        });
        asked
            .await
            .unwrap_or(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE))
    }

    /// Asks the coordinator of `transactional_id` whether partitions, by topic and number, are part of the producer's ongoing transaction; with `add` has them added first
    /// (transaction version 2: Produce v12). Answers for each partition in order: NONE, or the coordinator's error.
    pub async fn verify_transaction(
        self: &Rc<Self>,
        transactional_id: &Str,
        producer_id: i64,
        producer_epoch: i16,
        partitions: &[(Str, i32)],
        add: bool,
    ) -> Vec<ErrorCode> {
        let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
        for (topic, partition) in partitions {
            match topics.iter_mut().find(|one| one.name == *topic) {
                Some(one) => one.partitions.push(*partition),
                None => topics.push(AddPartitionsToTxnTopic {
                    name: topic.detached(),
                    partitions: vec![*partition],
                }),
            }
        }
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: transactional_id.detached(),
            producer_id,
            producer_epoch,
            verify_only: !add,
            topics,
        };
        let asker = Asker {
            version: BROKERS_ASK_IN,
            client_id: Str::default(),
            client_host: Str::default(),
        };
        let call: TransactionCall = Box::new(move |machine, caller, _, commands| {
            machine.add_partitions(caller, transaction, commands);
        });
        let answer = self
            .ask_transaction(asker, transactional_id, false, call)
            .await;
        let result = match answer {
            Ok(TransactionReply::AddPartitionsToTxn(result)) => result,
            Ok(_) => return vec![ErrorCode::UNKNOWN_SERVER_ERROR; partitions.len()],
            Err(error) => return vec![error; partitions.len()],
        };
        let verdicts: HashMap<(&str, i32), ErrorCode> = (result.topic_results.iter())
            .flat_map(|topic| {
                let each = topic.results_by_partition.iter();
                each.map(|one| {
                    let key = (topic.name.as_str(), one.partition_index);
                    (key, one.partition_error_code)
                })
            })
            .collect();
        let verdict = |(topic, partition): &(Str, i32)| {
            let found = verdicts.get(&(topic.as_str(), *partition)).copied();
            found.unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR)
        };
        partitions.iter().map(verdict).collect()
    }
}

impl RequestContext {
    /// Hands a request to the coordinator of a transactional id and waits for its answer, or until the client has gone.
    ///
    /// # Errors
    /// Why there is no coordinator here that could answer.
    pub async fn ask_transaction(
        &self,
        transactional_id: &str,
        wants_producer_id: bool,
        call: impl FnOnce(&mut TransactionCoordinator, &Caller, Option<i64>, &mut TransactionCommands)
        + Send
        + 'static,
    ) -> Result<TransactionReply, ErrorCode> {
        let asked = self.shard.ask_transaction(
            self.asker(),
            transactional_id,
            wants_producer_id,
            Box::new(call),
        );
        self.until_gone(async { Ok(asked.await) }).await
    }
}
