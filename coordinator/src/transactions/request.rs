//! A request as the coordinator keeps it, and the form of its refusal.

use ringlog_net::messages::add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use ringlog_net::messages::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
};
use ringlog_net::messages::end_txn::{EndTxnRequest, EndTxnResponse};
use ringlog_net::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ringlog_net::{ErrorCode, Str};

use super::reply::TransactionReply;
use super::transaction::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID};
use crate::command::Token;

/// The first version of InitProducerId whose clients know PRODUCER_FENCED.
const INIT_KNOWS_FENCED: i16 = 4;
/// The first version of the other requests whose clients do.
const OTHERS_KNOW_FENCED: i16 = 2;

/// A request that is, or may come to be, held.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub token: Token,
    pub version: i16,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    InitProducerId(InitProducerIdRequest),
    AddPartitions(AddPartitionsToTxnTransaction),
    /// With the partition of `__consumer_offsets`.
    AddOffsets(AddOffsetsToTxnRequest, i32),
    EndTxn(EndTxnRequest),
}

impl Request {
    /// The transactional id; empty if there is none.
    pub fn transactional_id(&self) -> &str {
        match &self.body {
            Body::InitProducerId(asked) => asked.transactional_id.as_deref().unwrap_or_default(),
            Body::AddPartitions(asked) => &asked.transactional_id,
            Body::AddOffsets(asked, _) => &asked.transactional_id,
            Body::EndTxn(asked) => &asked.transactional_id,
        }
    }

    /// A copy that owns its memory: whoever asked may be gone, and the memory that held the frame with it.
    pub fn detached(mut self) -> Request {
        match &mut self.body {
            Body::InitProducerId(asked) => {
                asked.transactional_id = asked.transactional_id.as_ref().map(Str::detached);
            }
            Body::AddPartitions(asked) => {
                asked.transactional_id = asked.transactional_id.detached();
                for topic in &mut asked.topics {
                    topic.name = topic.name.detached();
                }
            }
            Body::AddOffsets(asked, _) => {
                asked.transactional_id = asked.transactional_id.detached();
                asked.group_id = asked.group_id.detached();
            }
            Body::EndTxn(asked) => asked.transactional_id = asked.transactional_id.detached(),
        }
        self
    }

    /// The answer that says no more than an error, in the words of the request's version.
    pub fn refused(&self, error: ErrorCode) -> TransactionReply {
        match &self.body {
            Body::InitProducerId(_) => TransactionReply::InitProducerId(InitProducerIdResponse {
                error_code: self.known(error, INIT_KNOWS_FENCED),
                producer_id: NO_PRODUCER_ID,
                producer_epoch: NO_PRODUCER_EPOCH,
                ..Default::default()
            }),
            Body::AddPartitions(asked) => {
                let error = self.known(error, OTHERS_KNOW_FENCED);
                TransactionReply::AddPartitionsToTxn(partition_results(asked, |_, _| error))
            }
            Body::AddOffsets(..) => TransactionReply::AddOffsetsToTxn(AddOffsetsToTxnResponse {
                error_code: self.known(error, OTHERS_KNOW_FENCED),
                ..Default::default()
            }),
            Body::EndTxn(_) => TransactionReply::EndTxn(EndTxnResponse {
                error_code: self.known(error, OTHERS_KNOW_FENCED),
                producer_id: NO_PRODUCER_ID,
                producer_epoch: NO_PRODUCER_EPOCH,
                ..Default::default()
            }),
        }
    }

    /// Clients of older versions know the error by the name of a kindred one.
    fn known(&self, error: ErrorCode, since: i16) -> ErrorCode {
        if error == ErrorCode::PRODUCER_FENCED && self.version < since {
            ErrorCode::INVALID_PRODUCER_EPOCH
        } else {
            error
        }
    }
}

/// A result for each partition of a transaction.
pub(super) fn partition_results(
    asked: &AddPartitionsToTxnTransaction,
    error: impl Fn(&Str, i32) -> ErrorCode,
) -> AddPartitionsToTxnResult {
    let topic_results = asked
        .topics
        .iter()
        .map(|topic| AddPartitionsToTxnTopicResult {
            name: topic.name.clone(),
            results_by_partition: topic
                .partitions
                .iter()
                .map(|partition| AddPartitionsToTxnPartitionResult {
                    partition_index: *partition,
                    partition_error_code: error(&topic.name, *partition),
                })
                .collect(),
        })
        .collect();
    AddPartitionsToTxnResult {
        transactional_id: asked.transactional_id.clone(),
        topic_results,
    }
}
