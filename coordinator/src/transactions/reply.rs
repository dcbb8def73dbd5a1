//! What a transaction coordinator answers, and what else it wants done.

use ringlog_net::messages::add_offsets_to_txn::AddOffsetsToTxnResponse;
use ringlog_net::messages::add_partitions_to_txn::AddPartitionsToTxnResult;
use ringlog_net::messages::describe_transactions::TransactionState;
use ringlog_net::messages::end_txn::EndTxnResponse;
use ringlog_net::messages::init_producer_id::InitProducerIdResponse;
use ringlog_net::{ErrorCode, Str};

use crate::command::Commands;

/// An answer. Errors are already those of the request's version.
#[derive(Clone, Debug, PartialEq)]
pub enum TransactionReply {
    /// To InitProducerId.
    InitProducerId(InitProducerIdResponse),
    /// To AddPartitionsToTxn, for one transaction. Up to version 3 its `topic_results` are the response's `results_by_topic_v3_and_below`.
    AddPartitionsToTxn(AddPartitionsToTxnResult),
    /// To AddOffsetsToTxn.
    AddOffsetsToTxn(AddOffsetsToTxnResponse),
    /// To EndTxn.
    EndTxn(EndTxnResponse),
    /// To DescribeTransactions, for one id.
    Described(TransactionState),
}

impl TransactionReply {
    /// The error; of AddPartitionsToTxn the first of a partition.
    pub fn error(&self) -> ErrorCode {
        match self {
            TransactionReply::InitProducerId(response) => response.error_code,
            TransactionReply::AddPartitionsToTxn(result) => result
                .topic_results
                .iter()
                .flat_map(|topic| &topic.results_by_partition)
                .map(|partition| partition.partition_error_code)
                .find(|error| error.is_error())
                .unwrap_or(ErrorCode::NONE),
            TransactionReply::AddOffsetsToTxn(response) => response.error_code,
            TransactionReply::EndTxn(response) => response.error_code,
            TransactionReply::Described(state) => state.error_code,
        }
    }
}

/// Names one decision of one coordinator: a report about markers must say which decision's they were, because before KIP-890 a producer's next transaction has
/// the same id and epoch, and a late report would otherwise count for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Decision {
    /// The epoch of the coordinator that decided, or took the decision over.
    pub coordinator_epoch: i32,
    /// Counts that coordinator's decisions.
    pub number: u64,
}

/// A transaction is decided, and its partitions are to be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MarkersToWrite {
    /// To be given back with every report.
    pub decision: Decision,
    /// Whose transaction.
    pub transactional_id: Str,
    /// The producer id in the markers.
    pub producer_id: i64,
    /// The epoch in the markers.
    pub producer_epoch: i16,
    /// Commit, or abort.
    pub committed: bool,
    /// Topics and partitions; never none.
    pub partitions: Vec<(Str, i32)>,
    /// What WriteTxnMarkers calls so: from 2 on a partition insists that the marker's epoch is above that of the data (KIP-1228).
    pub transaction_version: i16,
}

impl MarkersToWrite {
    /// The epoch that WriteTxnMarkers and the marker itself carry.
    pub fn coordinator_epoch(&self) -> i32 {
        self.decision.coordinator_epoch
    }
}

/// What an event brings about.
#[derive(Clone, Debug, Default)]
pub struct TransactionCommands {
    /// Records to append, and answers.
    pub commands: Commands<TransactionReply>,
    /// Markers that may be written once these records, and those of all events before, are durable; not earlier, since a decision that is lost may be taken
    /// the other way.
    pub markers: Vec<MarkersToWrite>,
}

impl TransactionCommands {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.markers.is_empty()
    }
}
