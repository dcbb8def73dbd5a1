//! Requests that wait for a transaction to end instead of being refused.

use ringlog_net::ErrorCode;

use super::bench::*;
use crate::command::Token;
use crate::transactions::{ProducerIdAndEpoch, TransactionConfig, TransactionReply};

const INVALID: Answer = Some(Err(ErrorCode::INVALID_TXN_STATE));
const CONCURRENT: Answer = Some(Err(ErrorCode::CONCURRENT_TRANSACTIONS));

/// A producer whose transaction of epoch 0 is being committed, and who it is from now on.
fn ending(bench: &mut Bench) -> (ProducerIdAndEpoch, ProducerIdAndEpoch) {
    let producer = bench.ongoing("id");
    let next = bench.end(END, "id", producer, true).unwrap().unwrap();
    (producer, next)
}

#[test]
fn what_the_producer_asks_next_is_answered_when_its_transaction_has_ended() {
    let mut bench = Bench::new();
    let (_, next) = ending(&mut bench);
    assert_eq!(bench.add(ADD, "id", next, 1), None);
    assert_eq!(bench.add_offsets("id", next), None);
    assert_eq!(bench.end(END, "id", next, true), INVALID);
    assert_eq!(bench.end(END, "id", next, false), None);
    assert_eq!(bench.coordinator.held_requests(), 3);
    bench.write_markers();
    assert_eq!(bench.coordinator.held_requests(), 0);
    // In their order: both additions, then the abort.
    assert_eq!(bench.replies[&Token(3 + 1)].error(), ErrorCode::NONE);
    assert_eq!(bench.replies[&Token(3 + 2)].error(), ErrorCode::NONE);
    let after = identity(next.producer_id, next.epoch + 1);
    assert_eq!(bench.last(), Some(Ok(after)));
    assert_eq!(bench.state("id"), "PrepareAbort");
    assert_eq!(bench.markers[0].partitions.len(), 2);
}

/// The event that completes a transaction and begins the next is one batch, which holds one record of the id.
#[test]
fn one_event_writes_one_record_of_an_id() {
    let mut bench = Bench::new();
    let (_, next) = ending(&mut bench);
    bench.add(ADD, "id", next, 1);
    let records = bench.log.len();
    bench.write_markers();
    assert_eq!(bench.log.len(), records + 1);
    assert_eq!(bench.state("id"), "Ongoing");
    bench.fail_over();
    assert_eq!(bench.state("id"), "Ongoing");
}

#[test]
fn who_will_be_refused_is_refused_at_once() {
    let mut bench = Bench::new();
    let fenced = bench.producer("id");
    let (old, next) = ending(&mut bench);
    let stranger = identity(next.producer_id + 1000, next.epoch);
    for producer in [fenced, old] {
        assert_eq!(
            bench.add(ADD, "id", producer, 0),
            Some(ErrorCode::PRODUCER_FENCED)
        );
    }
    assert_eq!(
        bench.add(ADD, "id", stranger, 0),
        Some(ErrorCode::INVALID_PRODUCER_ID_MAPPING)
    );
    let refused = Some(Err(ErrorCode::PRODUCER_FENCED));
    assert_eq!(bench.end(END, "id", fenced, true), refused);
    assert_eq!(bench.init_again("id", fenced), refused);
    assert_eq!(bench.init_again("id", stranger), refused);
    assert_eq!(bench.end(END, "id", old, false), INVALID);
    assert_eq!(bench.coordinator.held_requests(), 0);
}

#[test]
fn both_who_has_the_new_epoch_and_who_did_not_hear_of_it_may_wait() {
    let mut bench = Bench::new();
    let (old, next) = ending(&mut bench);
    assert_eq!(bench.init_again("id", old), None);
    let retry = bench.tokens;
    bench.write_markers();
    assert_eq!(bench.reply(retry), Some(Ok(next)));

    let mut bench = Bench::new();
    let (_, next) = ending(&mut bench);
    assert_eq!(bench.init_again("id", next), None);
    bench.write_markers();
    let after = identity(next.producer_id, next.epoch + 1);
    assert_eq!(bench.last(), Some(Ok(after)));
}

#[test]
fn nobody_waits_for_long() {
    let mut bench = Bench::new();
    let (_, next) = ending(&mut bench);
    let before = bench.coordinator.next_deadline();
    assert_eq!(before, None);
    assert_eq!(bench.add(ADD, "id", next, 1), None);
    let deadline = bench.coordinator.next_deadline();
    assert_eq!(deadline, Some(bench.now.monotonic_ms + 1000));
    bench.pass(999);
    bench.timeout();
    assert_eq!(bench.coordinator.held_requests(), 1);
    assert_eq!(bench.init("id"), None);
    bench.pass(1);
    bench.timeout();
    assert_eq!(
        bench.replies[&Token(bench.tokens - 1)].error(),
        ErrorCode::CONCURRENT_TRANSACTIONS
    );
    assert_eq!(bench.coordinator.held_requests(), 1);
    // What has been told to come again is not done afterwards.
    bench.write_markers();
    assert_eq!(bench.state("id"), "Empty");
    assert_eq!(bench.coordinator.next_deadline(), None);
}

#[test]
fn few_wait_and_the_others_come_again() {
    let mut bench = Bench::with(TransactionConfig {
        held_per_id_max: 2,
        held_max: 3,
        ..Default::default()
    });
    ending(&mut bench);
    let other = bench.ongoing("other");
    bench.end(END, "other", other, true);
    assert_eq!(bench.init("id"), None);
    assert_eq!(bench.init("id"), None);
    assert_eq!(bench.init("id"), CONCURRENT);
    assert_eq!(bench.init("other"), None);
    assert_eq!(bench.init("other"), CONCURRENT);
    bench.write_markers();
    assert_eq!(bench.coordinator.held_requests(), 0);
}

/// Two producers start while a third's transaction is going on: the last to ask wins.
#[test]
fn the_last_producer_to_ask_wins() {
    let mut bench = Bench::new();
    bench.ongoing("id");
    assert_eq!(bench.init("id"), None);
    let first = bench.tokens;
    assert_eq!(bench.init("id"), None);
    let second = bench.tokens;
    bench.write_markers();
    let first = bench.reply(first).unwrap().unwrap();
    let second = bench.reply(second).unwrap().unwrap();
    assert!(second.epoch > first.epoch);
    assert_eq!(
        bench.add(ADD, "id", first, 0),
        Some(ErrorCode::PRODUCER_FENCED)
    );
    assert_eq!(bench.add(ADD, "id", second, 0), Some(ErrorCode::NONE));
}

/// The waiting producer begins its next transaction, and the InitProducerId behind it aborts that: it waits on, in front.
#[test]
fn who_waits_may_have_to_wait_again() {
    let mut bench = Bench::new();
    let (_, next) = ending(&mut bench);
    assert_eq!(bench.add(ADD, "id", next, 1), None);
    assert_eq!(bench.init("id"), None);
    let newer = bench.tokens;
    assert_eq!(bench.init("id"), None);
    let newest = bench.tokens;
    bench.write_markers();
    assert_eq!(bench.state("id"), "PrepareAbort");
    assert_eq!(bench.reply(newer), None);
    bench.write_markers();
    assert_eq!(
        bench.reply(newer),
        Some(Ok(identity(next.producer_id, next.epoch + 2)))
    );
    assert_eq!(
        bench.reply(newest),
        Some(Ok(identity(next.producer_id, next.epoch + 3)))
    );
}

#[test]
fn who_waits_is_told_when_the_coordinator_resigns() {
    let mut bench = Bench::new();
    let (_, next) = ending(&mut bench);
    assert_eq!(bench.add(ADD, "id", next, 1), None);
    assert_eq!(bench.init("id"), None);
    bench.event(|coordinator, out| coordinator.resign(out));
    let gone = ErrorCode::NOT_COORDINATOR;
    let errors: Vec<ErrorCode> = bench
        .replies
        .values()
        .map(TransactionReply::error)
        .filter(|error| error.is_error())
        .collect();
    assert_eq!(errors, [gone, gone]);
    assert_eq!(bench.init("id"), Some(Err(gone)));
    assert_eq!(bench.add(ADD, "id", next, 1), Some(gone));
    assert_eq!(bench.describe("id").error_code, gone);
    assert_eq!(bench.coordinator.next_deadline(), None);
    // Reports that come late find nothing.
    bench.write_markers();
    assert_eq!(bench.coordinator.transactional_ids(), 0);
}
