//! InitProducerId: who is the newest producer, and what becomes of the one before.

use ringlog_net::ErrorCode;
use ringlog_net::messages::init_producer_id::InitProducerIdRequest;

use super::super::transaction::LAST_EPOCH;
use super::bench::*;
use crate::transactions::TransactionConfig;

#[test]
fn a_new_id_begins_at_epoch_0_and_each_producer_bumps_it() {
    let mut bench = Bench::new();
    let first = bench.producer("id");
    assert_eq!(first.epoch, 0);
    assert_eq!(bench.producer("id"), identity(first.producer_id, 1));
    assert_ne!(bench.producer("other").producer_id, first.producer_id);
    assert_eq!(bench.log.len(), 3);
}

#[test]
fn nonsense_is_refused() {
    let mut bench = Bench::new();
    let mut refused = |change: fn(&mut InitProducerIdRequest)| {
        let mut request = init_request("id", None);
        change(&mut request);
        bench.init_with(INIT, request).unwrap().unwrap_err()
    };
    let invalid = ErrorCode::INVALID_REQUEST;
    assert_eq!(refused(|request| request.transactional_id = None), invalid);
    assert_eq!(
        refused(|request| request.transactional_id = Some("".into())),
        invalid
    );
    assert_eq!(refused(|request| request.producer_id = 3), invalid);
    assert_eq!(refused(|request| request.producer_epoch = 3), invalid);
    let long = |request: &mut InitProducerIdRequest| {
        request.transactional_id = Some("x".repeat(40_000).into());
    };
    assert_eq!(refused(long), invalid);
    let timeout = ErrorCode::INVALID_TRANSACTION_TIMEOUT;
    for ms in [0, -1, i32::MIN, 900_001, i32::MAX] {
        let mut request = init_request("id", None);
        request.transaction_timeout_ms = ms;
        assert_eq!(bench.init_with(INIT, request), Some(Err(timeout)), "{ms}");
    }
    assert!(bench.log.is_empty());
}

#[test]
fn the_number_of_ids_is_bounded() {
    let mut bench = Bench::with(TransactionConfig {
        transactional_ids_max: 2,
        ..Default::default()
    });
    bench.producer("a");
    bench.producer("b");
    let full = Some(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
    assert_eq!(bench.init("c"), full);
    assert_eq!(bench.producer("a").epoch, 1);
}

/// KIP-360: who has the newest epoch gets the next; who asks again for want of an answer gets the same; others are fenced.
#[test]
fn a_producer_recovers_by_its_epoch() {
    let mut bench = Bench::new();
    let first = bench.producer("id");
    let second = bench.init_again("id", first).unwrap().unwrap();
    assert_eq!(second.epoch, 1);
    assert_eq!(bench.init_again("id", first), Some(Ok(second)));
    assert_eq!(bench.init_again("id", first), Some(Ok(second)));
    let third = bench.init_again("id", second).unwrap().unwrap();
    assert_eq!(third.epoch, 2);
    let fenced = Some(Err(ErrorCode::PRODUCER_FENCED));
    assert_eq!(bench.init_again("id", first), fenced);
    let stranger = identity(third.producer_id + 1000, third.epoch);
    assert_eq!(bench.init_again("id", stranger), fenced);
    // A new producer leaves nobody an epoch to ask again with.
    bench.producer("id");
    assert_eq!(bench.init_again("id", second), fenced);
    assert_eq!(bench.init_again("id", third), fenced);
}

#[test]
fn a_producer_whose_id_has_expired_gets_a_new_one() {
    let mut bench = Bench::new();
    let got = bench.init_again("id", identity(7, 3)).unwrap().unwrap();
    assert_eq!(got.epoch, 0);
}

#[test]
fn older_versions_are_told_of_fencing_in_their_words() {
    let mut bench = Bench::new();
    let first = bench.producer("id");
    bench.producer("id");
    for (version, error) in [
        (3, ErrorCode::INVALID_PRODUCER_EPOCH),
        (4, ErrorCode::PRODUCER_FENCED),
    ] {
        let request = init_request("id", Some(first));
        assert_eq!(bench.init_with(version, request), Some(Err(error)));
    }
}

/// The ongoing transaction is aborted with a bumped epoch; the new producer waits for that and gets an epoch above it.
#[test]
fn an_ongoing_transaction_is_aborted_first() {
    let mut bench = Bench::new();
    let old = bench.ongoing("id");
    assert_eq!(bench.init("id"), None);
    let waiting = bench.tokens;
    assert_eq!(bench.state("id"), "PrepareAbort");
    let markers = bench.markers[0].clone();
    assert!(!markers.committed);
    assert_eq!(markers.producer_epoch, old.epoch + 1);
    assert_eq!(markers.transaction_version, 2);
    assert_eq!(
        bench.add(ADD, "id", old, 1),
        Some(ErrorCode::PRODUCER_FENCED)
    );
    bench.write_markers();
    let new = identity(old.producer_id, old.epoch + 2);
    assert_eq!(bench.reply(waiting), Some(Ok(new)));
    assert_eq!(bench.state("id"), "Empty");
    let fenced = Some(Err(ErrorCode::PRODUCER_FENCED));
    assert_eq!(bench.end(END, "id", old, false), fenced);
    assert_eq!(bench.end(END, "id", old, true), fenced);
    assert_eq!(bench.init_again("id", old), fenced);
    assert_eq!(bench.add(ADD, "id", new, 0), Some(ErrorCode::NONE));
}

#[test]
fn a_producer_that_recovers_aborts_its_own_transaction() {
    let mut bench = Bench::new();
    let old = bench.ongoing("id");
    assert_eq!(bench.init_again("id", old), None);
    let waiting = bench.tokens;
    bench.write_markers();
    let next = identity(old.producer_id, old.epoch + 1);
    assert_eq!(bench.reply(waiting), Some(Ok(next)));
}

/// In Kafka it does, and is told that it is fenced afterwards.
#[test]
fn a_fenced_producer_does_not_abort_the_newer_ones_transaction() {
    let mut bench = Bench::new();
    let old = bench.producer("id");
    bench.ongoing("id");
    let fenced = Some(Err(ErrorCode::PRODUCER_FENCED));
    assert_eq!(bench.init_again("id", old), fenced);
    assert_eq!(bench.state("id"), "Ongoing");
}

#[test]
fn a_used_up_producer_id_is_replaced() {
    let mut bench = Bench::new();
    let first = bench.producer("id");
    let last = bench.set_epoch("id", LAST_EPOCH);
    let next = bench.producer("id");
    assert_ne!(next.producer_id, first.producer_id);
    assert_eq!(next.epoch, 0);
    assert_eq!(
        bench.init_again("id", last),
        Some(Err(ErrorCode::PRODUCER_FENCED)),
        "it did not ask"
    );
}

#[test]
fn who_recovers_across_the_change_of_id_may_ask_again() {
    let mut bench = Bench::new();
    bench.producer("id");
    let last = bench.set_epoch("id", LAST_EPOCH);
    let next = bench.init_again("id", last).unwrap().unwrap();
    assert_ne!(next.producer_id, last.producer_id);
    assert_eq!(next.epoch, 0);
    for _ in 0..3 {
        assert_eq!(bench.init_again("id", last), Some(Ok(next)));
    }
    let before_last = identity(last.producer_id, LAST_EPOCH - 1);
    let fenced = Some(Err(ErrorCode::PRODUCER_FENCED));
    assert_eq!(bench.init_again("id", before_last), fenced);
}

/// Kafka answers UNKNOWN_SERVER_ERROR here.
#[test]
fn a_retry_that_led_to_the_last_epoch_is_answered() {
    let mut bench = Bench::new();
    bench.producer("id");
    let before_last = bench.set_epoch("id", LAST_EPOCH - 1);
    let last = bench.init_again("id", before_last).unwrap().unwrap();
    assert_eq!(last, identity(before_last.producer_id, LAST_EPOCH));
    assert_eq!(bench.init_again("id", before_last), Some(Ok(last)));
}

#[test]
fn fencing_the_last_epoch_changes_the_id() {
    let mut bench = Bench::new();
    bench.producer("id");
    let last = bench.set_epoch("id", LAST_EPOCH);
    assert_eq!(bench.add(ADD, "id", last, 0), Some(ErrorCode::NONE));
    assert_eq!(bench.init("id"), None);
    let waiting = bench.tokens;
    assert_eq!(bench.markers[0].producer_epoch, i16::MAX);
    assert_eq!(bench.markers[0].producer_id, last.producer_id);
    bench.write_markers();
    let next = bench.reply(waiting).unwrap().unwrap();
    assert_ne!(next.producer_id, last.producer_id);
    assert_eq!(next.epoch, 1, "the server's abort took epoch 0");
}
