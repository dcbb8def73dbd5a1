//! TxnOffsetCommit (versions 0 to 5): stores how far a group has read, to count once the transaction is committed.
//!
//! The group's partition of `__consumer_offsets` must be part of the transaction, which its coordinator is asked before the first commit (KIP-890); from version 5 on it is added in passing.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use ringlog_coordinator::groups::GroupReply;
use ringlog_engine::producer_state::{ProducerBatch, VerificationGuard};
use ringlog_net::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestTopic, TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::RequestContext;
use super::groups::may_read;
use super::transactions::may_write;
use crate::authorizer::{Operation, ResourceType};
use crate::coordinator::topics::{Internal, Kept};
use crate::shard::Shard;

/// From this version on a client leaves it to us to add the partition, and raises its epoch with each transaction.
const ADDS_FROM: i16 = 5;
/// From this version on a client expects a coordinator that loads (KAFKA-7296).
const LOADING_FROM: i16 = 2;
/// From this version on a client understands that a transaction can only be aborted.
const ABORTABLE_FROM: i16 = 4;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    mut request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let allowed = may_write(context, &request.transactional_id)
        .and_then(|()| may_read(context, &request.group_id));
    if let Err(error) = allowed {
        return answer(&request.topics, |_, _| error);
    }
    let topics = std::mem::take(&mut request.topics);
    let problems: HashMap<(Str, i32), ErrorCode> = (topics.iter())
        .flat_map(|topic| {
            let name = &topic.name;
            topic.partitions.iter().filter_map(move |partition| {
                let index = partition.partition_index;
                let error = problem(context, name, index)?;
                Some(((name.clone(), index), error))
            })
        })
        .collect();
    let mut wanted = topics.clone();
    for topic in &mut wanted {
        let name = topic.name.clone();
        topic
            .partitions
            .retain(|partition| !problems.contains_key(&(name.clone(), partition.partition_index)));
    }
    wanted.retain(|topic| !topic.partitions.is_empty());
    let known = |error: ErrorCode| {
        answer(&topics, |topic, partition| {
            let own = problems.get(&(topic.clone(), partition)).copied();
            own.unwrap_or(error)
        })
    };
    if wanted.is_empty() {
        return known(ErrorCode::NONE);
    }
    request.topics = wanted;
    match commit(context, request).await {
        Ok(response) => {
            let given: HashMap<(Str, i32), ErrorCode> = (response.topics.into_iter())
                .flat_map(|topic| {
                    let name = topic.name;
                    let each = topic.partitions.into_iter();
                    each.map(move |one| ((name.clone(), one.partition_index), one.error_code))
                })
                .collect();
            answer(&topics, |topic, partition| {
                let key = (topic.clone(), partition);
                let found = problems.get(&key).or_else(|| given.get(&key)).copied();
                found.unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR)
            })
        }
        Err(error) => known(told(error, context.version)),
    }
}

async fn commit(
    context: &RequestContext,
    request: TxnOffsetCommitRequest,
) -> Result<TxnOffsetCommitResponse, ErrorCode> {
    let producer = (request.producer_id, request.producer_epoch);
    if producer.0 < 0 || producer.1 < 0 {
        return Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
    }
    let kept = context
        .shard
        .kept(Internal::ConsumerOffsets, &request.group_id)?;
    let guard = verified(context, &request, kept).await?;
    // As this shard knows them, which has checked that they exist: the coordinator's may not have heard yet of a new topic in the place of an old one.
    let topic_ids = context.shard.with_image(|image| {
        let named = request.topics.iter();
        let each =
            named.filter_map(|topic| Some((topic.name.detached(), image.topic(&topic.name)?.id)));
        each.collect::<BTreeMap<Str, Uuid>>()
    });
    let asker = context.asker();
    let partition = kept.partition;
    let asked = context
        .shard
        .on_shard(kept.located.shard, move |shard: Rc<Shard>| async move {
            let host = shard.coordinators.group(partition)?;
            host.call_in_transaction(asker, producer, guard, move |machine, caller, output| {
                machine.txn_offset_commit(caller, request, &topic_ids, &mut output.commands);
            })
            .await
        });
    match asked
        .await
        .unwrap_or(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE))?
    {
        GroupReply::TxnOffsetCommit(response) => Ok(response),
        _ => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
    }
}

/// Proof that the group's partition is part of the transaction, where proof is needed.
async fn verified(
    context: &RequestContext,
    request: &TxnOffsetCommitRequest,
    kept: Kept,
) -> Result<Option<VerificationGuard>, ErrorCode> {
    let adds = context.version >= ADDS_FROM;
    let (id, epoch) = (request.producer_id, request.producer_epoch);
    let partition = kept.partition;
    let begun = context
        .shard
        .on_shard(kept.located.shard, move |shard: Rc<Shard>| async move {
            let host = shard.coordinators.group(partition)?;
            let batch = ProducerBatch::of_coordinator(id, epoch);
            let begun = host.log().begin_verification(&batch, adds);
            begun.map_err(|error| ErrorCode(error.code()))
        });
    let guard = begun
        .await
        .unwrap_or(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE))?;
    if guard.is_none() {
        return Ok(None);
    }
    let topic = Str::from_static(Internal::ConsumerOffsets.name());
    let verdicts = context
        .shard
        .verify_transaction(
            &request.transactional_id,
            id,
            epoch,
            &[(topic, partition)],
            adds,
        )
        .await;
    match verdicts.first().copied() {
        Some(ErrorCode::NONE) => Ok(guard),
        Some(error) => Err(error),
        None => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
    }
}

/// An error of the log or the transaction's coordinator in the words of a group's coordinator.
fn told(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::PRODUCER_FENCED => ErrorCode::INVALID_PRODUCER_EPOCH,
        ErrorCode::TRANSACTION_ABORTABLE if version < ABORTABLE_FROM => {
            ErrorCode::INVALID_TXN_STATE
        }
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS if version < LOADING_FROM => {
            ErrorCode::COORDINATOR_NOT_AVAILABLE
        }
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::NOT_ENOUGH_REPLICAS => {
            ErrorCode::COORDINATOR_NOT_AVAILABLE
        }
        ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::KAFKA_STORAGE_ERROR => {
            ErrorCode::NOT_COORDINATOR
        }
        other => other,
    }
}

fn problem(context: &RequestContext, topic: &Str, partition: i32) -> Option<ErrorCode> {
    if !context.authorize(Operation::Read, ResourceType::Topic, topic) {
        return Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    }
    let shard = &context.shard;
    let known = shard.with_image(|image| image.has_partition(topic, partition));
    (!known).then_some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
}

fn answer(
    topics: &[TxnOffsetCommitRequestTopic],
    error: impl Fn(&Str, i32) -> ErrorCode,
) -> TxnOffsetCommitResponse {
    let topics = topics.iter().map(|topic| TxnOffsetCommitResponseTopic {
        name: topic.name.detached(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| TxnOffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: error(&topic.name, partition.partition_index),
            })
            .collect(),
    });
    TxnOffsetCommitResponse {
        topics: topics.collect(),
        ..TxnOffsetCommitResponse::default()
    }
}

#[cfg(test)]
mod tests {
    //! A client is told only what its version knows.
    use super::told;
    use ringlog_net::ErrorCode;

    #[test]
    fn refusals_are_told_as_clients_understand_them() {
        let abortable = ErrorCode::TRANSACTION_ABORTABLE;
        assert_eq!(told(abortable, 3), ErrorCode::INVALID_TXN_STATE);
        assert_eq!(told(abortable, 4), abortable);
        let loading = ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
        assert_eq!(told(loading, 1), ErrorCode::COORDINATOR_NOT_AVAILABLE);
        assert_eq!(told(loading, 2), loading);
        let fenced = told(ErrorCode::PRODUCER_FENCED, 5);
        assert_eq!(fenced, ErrorCode::INVALID_PRODUCER_EPOCH);
        let storage = told(ErrorCode::KAFKA_STORAGE_ERROR, 5);
        assert_eq!(storage, ErrorCode::NOT_COORDINATOR);
    }
}
