//! AddPartitionsToTxn, its verification, and AddOffsetsToTxn.

use ringlog_net::ErrorCode;
use ringlog_net::messages::add_partitions_to_txn::AddPartitionsToTxnRequest;

use super::bench::*;
use crate::transactions::{TransactionConfig, TransactionReply, transactions_of};

#[test]
fn partitions_begin_a_transaction_and_are_added_to_it() {
    let mut bench = Bench::new();
    let producer = bench.producer("id");
    assert_eq!(bench.add(ADD, "id", producer, 0), Some(ErrorCode::NONE));
    assert_eq!(bench.add_offsets("id", producer), Some(ErrorCode::NONE));
    assert_eq!(bench.add(OLD_ADD, "id", producer, 1), Some(ErrorCode::NONE));
    let described = bench.describe("id");
    assert_eq!(described.transaction_state, "Ongoing");
    assert_eq!(described.transaction_start_time_ms, bench.now.wall_ms);
    let topics: Vec<(&str, &[i32])> = described
        .topics
        .iter()
        .map(|topic| (topic.topic.as_str(), topic.partitions.as_slice()))
        .collect();
    assert_eq!(
        topics,
        [("__consumer_offsets", &[7][..]), ("topic", &[0, 1])]
    );
}

#[test]
fn what_is_there_already_writes_nothing() {
    let mut bench = Bench::new();
    let producer = bench.ongoing("id");
    let records = bench.log.len();
    assert_eq!(bench.add(ADD, "id", producer, 0), Some(ErrorCode::NONE));
    assert_eq!(bench.log.len(), records);
}

#[test]
fn strangers_and_older_producers_add_nothing() {
    let mut bench = Bench::new();
    let old = bench.producer("id");
    let new = bench.producer("id");
    let mapping = Some(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
    assert_eq!(bench.add(ADD, "nobody", new, 0), mapping);
    let stranger = identity(new.producer_id + 1000, new.epoch);
    assert_eq!(bench.add(ADD, "id", stranger, 0), mapping);
    assert_eq!(bench.add(2, "id", old, 0), Some(ErrorCode::PRODUCER_FENCED));
    assert_eq!(
        bench.add(1, "id", old, 0),
        Some(ErrorCode::INVALID_PRODUCER_EPOCH)
    );
    assert_eq!(
        bench.add_offsets("id", old),
        Some(ErrorCode::PRODUCER_FENCED)
    );
    assert_eq!(bench.add(ADD, "", new, 0), Some(ErrorCode::INVALID_REQUEST));
    assert_eq!(bench.state("id"), "Empty");
}

/// All or none: a transaction with too many partitions stays as it was.
#[test]
fn the_size_of_a_transaction_is_bounded() {
    let mut bench = Bench::with(TransactionConfig {
        partitions_max: 3,
        ..Default::default()
    });
    let producer = bench.ongoing("id");
    let request = add_request("id", producer, &[("a", 0), ("b", 0), ("c", 0)]);
    let refused = Some(ErrorCode::UNKNOWN_SERVER_ERROR);
    assert_eq!(bench.add_with(ADD, request), refused);
    assert_eq!(bench.describe("id").topics.len(), 1);
    let request = add_request("id", producer, &[("a", 0), ("b", 0)]);
    assert_eq!(bench.add_with(ADD, request), Some(ErrorCode::NONE));

    let mut bench = Bench::with(TransactionConfig {
        record_bytes_max: 100,
        ..Default::default()
    });
    let producer = bench.producer("id");
    let long = "x".repeat(100);
    let request = add_request("id", producer, &[(&long, 0)]);
    assert_eq!(bench.add_with(ADD, request), refused);
    assert_eq!(bench.state("id"), "Empty");
}

#[test]
fn what_is_no_partition_is_refused() {
    let mut bench = Bench::new();
    let producer = bench.producer("id");
    let long = "x".repeat(250);
    for partition in [("topic", -1), ("", 0), (long.as_str(), 0)] {
        let request = add_request("id", producer, &[("fine", 0), partition]);
        assert_eq!(
            bench.add_with(ADD, request),
            Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
        );
    }
    assert_eq!(bench.state("id"), "Empty");
}

#[test]
fn verification_tells_what_is_in_the_transaction_and_changes_nothing() {
    let mut bench = Bench::new();
    let producer = bench.ongoing("id");
    let records = bench.log.len();
    for (version, missing) in [
        (4, ErrorCode::INVALID_TXN_STATE),
        (5, ErrorCode::TRANSACTION_ABORTABLE),
    ] {
        let mut request = add_request("id", producer, &[("topic", 0), ("topic", 1)]);
        request.verify_only = true;
        bench.add_with(version, request);
        let reply = bench.replies.values().last().unwrap();
        let TransactionReply::AddPartitionsToTxn(result) = reply else {
            panic!("{reply:?}");
        };
        let errors: Vec<ErrorCode> = result
            .topic_results
            .iter()
            .map(|topic| topic.results_by_partition[0].partition_error_code)
            .collect();
        assert_eq!(errors, [ErrorCode::NONE, missing]);
    }
    let verify = |asks| {
        let mut request = add_request("id", asks, &[("topic", 0)]);
        request.verify_only = true;
        request
    };
    let stranger = identity(producer.producer_id + 1000, 0);
    let older = identity(producer.producer_id, producer.epoch - 1);
    assert_eq!(
        bench.add_with(ADD, verify(stranger)),
        Some(ErrorCode::INVALID_PRODUCER_ID_MAPPING)
    );
    assert_eq!(
        bench.add_with(ADD, verify(older)),
        Some(ErrorCode::PRODUCER_FENCED)
    );
    assert_eq!(bench.log.len(), records);

    // A transaction that is ending, and one that has ended, verify nothing. A client of old has the same epoch still.
    bench.end(OLD_END, "id", producer, true).unwrap().unwrap();
    assert_eq!(
        bench.add_with(ADD, verify(producer)),
        Some(ErrorCode::CONCURRENT_TRANSACTIONS)
    );
    bench.write_markers();
    assert_eq!(
        bench.add_with(ADD, verify(producer)),
        Some(ErrorCode::TRANSACTION_ABORTABLE)
    );
}

#[test]
fn one_transaction_of_old_and_several_of_new_versions_are_alike() {
    let transaction = add_request("id", identity(1, 2), &[("topic", 0)]);
    let old = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: transaction.transactional_id.clone(),
        v3_and_below_producer_id: 1,
        v3_and_below_producer_epoch: 2,
        v3_and_below_topics: transaction.topics.clone(),
        ..Default::default()
    };
    let several = vec![transaction.clone(), transaction.clone()];
    let new = AddPartitionsToTxnRequest {
        transactions: several.clone(),
        ..Default::default()
    };
    assert_eq!(transactions_of(old, 3), [transaction]);
    assert_eq!(transactions_of(new, 4), several);
}
