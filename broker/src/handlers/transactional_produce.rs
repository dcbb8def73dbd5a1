//! The transactional part of Produce: before a partition takes the first batch of a transaction, the transaction's coordinator is asked whether it belongs to it (KIP-890).
//!
//! Each owner of a partition first gives a guard, which a marker that ends the transaction meanwhile takes away again. From Produce v12 on the partition is added to the transaction in
//! passing; older clients have added it before. What the coordinator refuses for a time is told in a form that every client tries again.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::batch::BatchHeader;
use ringlog_engine::environment::Environment as _;
use ringlog_engine::producer_state::{ProducerBatch, VerificationGuard};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::RequestContext;
use crate::authorizer::{Operation, ResourceType};
use crate::shard::Shard;
use crate::shard::append::{AppendItem, AppendOutcome};

/// From this version on a client understands that a transaction can only be aborted,
const ABORTABLE_FROM: i16 = 11;
/// and from this one on it leaves it to us to add partitions, and raises its epoch with each transaction.
const ADDS_FROM: i16 = 12;
/// How often, and at what intervals, a transaction that is just being ended is asked about again: the client's own retry would take longer.
const CONCURRENT_ROUNDS: usize = 5;
const CONCURRENT_PAUSE: Duration = Duration::from_millis(20);

/// A batch's place in the response: topic, partition.
type Place = (usize, usize);
/// The batches by the shard that owns their partitions.
type Groups = BTreeMap<usize, (Vec<Place>, Vec<AppendItem>)>;

/// Whether the client may write with this transactional id.
pub fn may_write(context: &RequestContext, transactional_id: &Str) -> bool {
    context.authorize(
        Operation::Write,
        ResourceType::TransactionalId,
        transactional_id,
    )
}

/// A partition whose coordinator is to be asked.
struct Asked {
    owner: usize,
    /// Where its batch is in its owner's group.
    at: usize,
    partition: (Str, i32),
    guard: VerificationGuard,
}

/// Has the partitions verified, gives their batches the guards, and takes out what may not be appended, with the reasons.
pub async fn verify(
    context: &RequestContext,
    transactional_id: &Str,
    groups: &mut Groups,
) -> Vec<(Place, AppendOutcome)> {
    let mut refused: BTreeMap<(usize, usize), AppendOutcome> = BTreeMap::new();
    let mut batches = Vec::new();
    for (owner, (_, items)) in groups.iter() {
        for (at, item) in items.iter().enumerate() {
            match transactional_batch(item) {
                Ok(Some(batch)) => batches.push((*owner, at, batch)),
                // Its append says what is wrong with it.
                Ok(None) => {}
                Err(outcome) => {
                    refused.insert((*owner, at), outcome);
                }
            }
        }
    }
    let producer = |batch: &ProducerBatch| (batch.producer_id, batch.producer_epoch);
    let first = batches.first().map(|(_, _, batch)| producer(batch));
    if batches
        .iter()
        .any(|(.., batch)| Some(producer(batch)) != first)
    {
        let reason = "the batches of a transactional request are of one producer";
        for (owner, at, _) in batches.drain(..) {
            let outcome = refusal(ErrorCode::INVALID_PRODUCER_ID_MAPPING, reason);
            refused.insert((owner, at), outcome);
        }
    }
    if let Some(producer) = first {
        let asked = begin(context, groups, batches, &mut refused).await;
        let verdicts = ask(context, transactional_id, producer, &asked).await;
        let verdicts = verdicts
            .into_iter()
            .chain(std::iter::repeat(ErrorCode::COORDINATOR_NOT_AVAILABLE));
        for (asked, verdict) in asked.into_iter().zip(verdicts) {
            match outcome_of(verdict, context.version) {
                None => {
                    if let Some((_, items)) = groups.get_mut(&asked.owner) {
                        items[asked.at].guard = Some(asked.guard);
                    }
                }
                Some(outcome) => {
                    refused.insert((asked.owner, asked.at), outcome);
                }
            }
        }
    }
    take_out(groups, refused)
}

/// The producer's batch, if the item's bytes begin with the header of one; a refusal when it is not transactional.
fn transactional_batch(item: &AppendItem) -> Result<Option<ProducerBatch>, AppendOutcome> {
    let Ok(header) = BatchHeader::parse(&item.batch) else {
        return Ok(None);
    };
    if !header.attributes.is_transactional() {
        return Err(refusal(
            ErrorCode::INVALID_TXN_STATE,
            "a request with a transactional id carries transactional batches",
        ));
    }
    Ok(ProducerBatch::of(&header))
}

/// Has the owners begin the verification; those partitions whose coordinator is to be asked.
async fn begin(
    context: &RequestContext,
    groups: &Groups,
    batches: Vec<(usize, usize, ProducerBatch)>,
    refused: &mut BTreeMap<(usize, usize), AppendOutcome>,
) -> Vec<Asked> {
    let supports_epoch_bump = context.version >= ADDS_FROM;
    let mut items = Vec::with_capacity(batches.len());
    let mut partitions = BTreeMap::new();
    for (owner, at, batch) in batches {
        let item = &groups[&owner].1[at];
        items.push((owner, (owner, at), (item.topic_id, item.partition, batch)));
        partitions.insert((owner, at), (item.topic_id, item.partition));
    }
    let job = move |shard: Rc<Shard>, items: Vec<(Uuid, i32, ProducerBatch)>| async move {
        let begin = |(topic_id, partition, batch)| {
            let log = shard.log(topic_id, partition);
            let log = log.ok_or_else(|| (shard.missing_log(), None))?;
            log.begin_verification(&batch, supports_epoch_bump)
                .map_err(|error| (ErrorCode(error.code()), Some(error.to_string())))
        };
        items.into_iter().map(begin).collect::<Vec<_>>()
    };
    let mut asked = Vec::new();
    for (key, begun) in context.shard.on_owners(items, job).await {
        let Some((topic_id, partition)) = partitions.remove(&key) else {
            continue;
        };
        let name = context
            .shard
            .with_image(|image| image.topic_by_id(topic_id).map(|topic| topic.name.clone()));
        match (begun, name) {
            (Ok(None), _) => {}
            (Ok(Some(guard)), Some(name)) => asked.push(Asked {
                owner: key.0,
                at: key.1,
                partition: (name, partition),
                guard,
            }),
            (Ok(Some(_)), None) => {
                let outcome = refusal(
                    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    "the topic was deleted",
                );
                refused.insert(key, outcome);
            }
            (Err((error, message)), _) => {
                refused.insert(key, AppendOutcome::refused(error, message));
            }
        }
    }
    for key in partitions.into_keys() {
        let reason = "the partition's shard did not answer";
        refused.insert(key, refusal(ErrorCode::KAFKA_STORAGE_ERROR, reason));
    }
    asked
}

/// The coordinator's answers, in order.
async fn ask(
    context: &RequestContext,
    transactional_id: &Str,
    (producer_id, producer_epoch): (i64, i16),
    asked: &[Asked],
) -> Vec<ErrorCode> {
    if asked.is_empty() {
        return Vec::new();
    }
    let shard = &context.shard;
    let add = context.version >= ADDS_FROM;
    let partitions: Vec<(Str, i32)> = asked.iter().map(|asked| asked.partition.clone()).collect();
    let mut round = 0;
    loop {
        let verdicts = shard
            .verify_transaction(
                transactional_id,
                producer_id,
                producer_epoch,
                &partitions,
                add,
            )
            .await;
        round += 1;
        let ending = verdicts.contains(&ErrorCode::CONCURRENT_TRANSACTIONS);
        if !add || !ending || round >= CONCURRENT_ROUNDS {
            return verdicts;
        }
        shard.environment.sleep(CONCURRENT_PAUSE).await;
    }
}

/// What a coordinator's refusal is for a producer; none when it is no refusal.
fn outcome_of(verdict: ErrorCode, version: i16) -> Option<AppendOutcome> {
    let error = match verdict {
        ErrorCode::NONE => return None,
        ErrorCode::PRODUCER_FENCED => ErrorCode::INVALID_PRODUCER_EPOCH,
        ErrorCode::TRANSACTION_ABORTABLE if version < ABORTABLE_FROM => {
            ErrorCode::INVALID_TXN_STATE
        }
        // An error that clients of every age answer by trying again.
        ErrorCode::NETWORK_EXCEPTION
        | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
        | ErrorCode::COORDINATOR_NOT_AVAILABLE
        | ErrorCode::NOT_COORDINATOR => ErrorCode::NOT_ENOUGH_REPLICAS,
        ErrorCode::CONCURRENT_TRANSACTIONS if version < ADDS_FROM => ErrorCode::NOT_ENOUGH_REPLICAS,
        other => other,
    };
    let reason = format!(
        "the transaction's coordinator does not confirm that the partition is part of it: {verdict}"
    );
    Some(AppendOutcome::refused(error, reason))
}

fn refusal(error: ErrorCode, reason: &str) -> AppendOutcome {
    AppendOutcome::refused(error, reason.to_string())
}

/// Takes the refused out of their groups.
fn take_out(
    groups: &mut Groups,
    mut refused: BTreeMap<(usize, usize), AppendOutcome>,
) -> Vec<(Place, AppendOutcome)> {
    if refused.is_empty() {
        return Vec::new();
    }
    let mut taken = Vec::with_capacity(refused.len());
    for (owner, (places, items)) in groups.iter_mut() {
        let all = places.drain(..).zip(items.drain(..)).enumerate();
        let mut kept = Vec::with_capacity(all.len());
        for (at, (place, item)) in all {
            match refused.remove(&(*owner, at)) {
                Some(outcome) => taken.push((place, outcome)),
                None => kept.push((place, item)),
            }
        }
        (*places, *items) = kept.into_iter().unzip();
    }
    groups.retain(|_, (places, _)| !places.is_empty());
    taken
}

#[cfg(test)]
mod tests {
    //! What a coordinator refuses for a time is told in a form that every client tries again; the rest as it is.
    use super::outcome_of;
    use ringlog_net::ErrorCode;

    #[test]
    fn refusals_are_told_as_clients_understand_them() {
        let told = |verdict, version| outcome_of(verdict, version).map(|outcome| outcome.error);
        assert_eq!(told(ErrorCode::NONE, 12), None);
        let passing = [
            ErrorCode::COORDINATOR_NOT_AVAILABLE,
            ErrorCode::NOT_COORDINATOR,
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        ];
        for verdict in passing {
            assert_eq!(told(verdict, 12), Some(ErrorCode::NOT_ENOUGH_REPLICAS));
        }
        let concurrent = ErrorCode::CONCURRENT_TRANSACTIONS;
        assert_eq!(told(concurrent, 11), Some(ErrorCode::NOT_ENOUGH_REPLICAS));
        assert_eq!(told(concurrent, 12), Some(concurrent));
        let abortable = ErrorCode::TRANSACTION_ABORTABLE;
        assert_eq!(told(abortable, 10), Some(ErrorCode::INVALID_TXN_STATE));
        assert_eq!(told(abortable, 11), Some(abortable));
        assert_eq!(
            told(ErrorCode::PRODUCER_FENCED, 12),
            Some(ErrorCode::INVALID_PRODUCER_EPOCH)
        );
    }
}
