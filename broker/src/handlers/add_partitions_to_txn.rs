//! AddPartitionsToTxn (versions 0 to 5): partitions become part of a transaction, or are looked up in it. From version 4 on brokers ask, for several at once (KIP-890).

use futures_util::future::join_all;
use ringlog_coordinator::transactions::{TransactionReply, transactions_of};
use ringlog_net::messages::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult, AddPartitionsToTxnTransaction,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::transactions::{may_write, may_write_to};
use crate::authorizer::{Operation, ResourceType};

/// From this version on only brokers ask.
const BROKERS_FROM: i16 = 4;
/// Most transactions that one request may name.
const TRANSACTIONS_MAX: usize = 1_000;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let brokers = context.version >= BROKERS_FROM;
    let refused = |error_code| AddPartitionsToTxnResponse {
        error_code,
        ..AddPartitionsToTxnResponse::default()
    };
    if brokers
        && !context.authorize(
            Operation::ClusterAction,
            ResourceType::Cluster,
            super::metadata::CLUSTER,
        )
    {
        return refused(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
    }
    let transactions = transactions_of(request, context.version);
    if transactions.len() > TRANSACTIONS_MAX {
        return refused(ErrorCode::INVALID_REQUEST);
    }
    let each = transactions.into_iter().map(|one| add(context, one));
    let mut results = join_all(each).await;
    if brokers {
        return AddPartitionsToTxnResponse {
            results_by_transaction: results,
            ..AddPartitionsToTxnResponse::default()
        };
    }
    AddPartitionsToTxnResponse {
        results_by_topic_v3_and_below: results
            .pop()
            .map(|result| result.topic_results)
            .unwrap_or_default(),
        ..AddPartitionsToTxnResponse::default()
    }
}

async fn add(
    context: &RequestContext,
    transaction: AddPartitionsToTxnTransaction,
) -> AddPartitionsToTxnResult {
    if let Err(error) = may_write(context, &transaction.transactional_id) {
        return results(&transaction, |_, _| error);
    }
    let problem = |topic: &Str, partition| may_write_to(context, topic, partition).err();
    let all_there = transaction.topics.iter().all(|topic| {
        let mut partitions = topic.partitions.iter();
        partitions.all(|partition| problem(&topic.name, *partition).is_none())
    });
    if !all_there {
        // All or none, as Kafka: what is not at fault is not attempted.
        return results(&transaction, |topic, partition| {
            problem(topic, partition).unwrap_or(ErrorCode::OPERATION_NOT_ATTEMPTED)
        });
    }
    let refused = |error| results(&transaction, |_, _| error);
    let asked = transaction.clone();
    let asked = context.ask_transaction(
        &transaction.transactional_id,
        false,
        move |machine, caller, _, output| machine.add_partitions(caller, asked, output),
    );
    match asked.await {
        Ok(TransactionReply::AddPartitionsToTxn(result)) => result,
        Ok(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => refused(error),
    }
}

fn results(
    transaction: &AddPartitionsToTxnTransaction,
    error: impl Fn(&Str, i32) -> ErrorCode,
) -> AddPartitionsToTxnResult {
    let topics = transaction.topics.iter();
    AddPartitionsToTxnResult {
        transactional_id: transaction.transactional_id.detached(),
        topic_results: topics
            .map(|topic| AddPartitionsToTxnTopicResult {
                name: topic.name.detached(),
                results_by_partition: topic
                    .partitions
                    .iter()
                    .map(|partition| AddPartitionsToTxnPartitionResult {
                        partition_index: *partition,
                        partition_error_code: error(&topic.name, *partition),
                    })
                    .collect(),
            })
            .collect(),
    }
}
