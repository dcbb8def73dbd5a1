//! EndTxn: decisions, retries, and the epoch that goes up with each transaction (KIP-890).

use ringlog_net::{ErrorCode, Str};

use super::super::transaction::LAST_EPOCH;
use super::bench::*;

const INVALID: Answer = Some(Err(ErrorCode::INVALID_TXN_STATE));
const FENCED: Answer = Some(Err(ErrorCode::PRODUCER_FENCED));

#[test]
fn a_commit_bumps_the_epoch_and_is_complete_when_every_partition_has_its_marker() {
    let mut bench = Bench::new();
    let producer = bench.ongoing("id");
    bench.add(ADD, "id", producer, 1);
    let next = identity(producer.producer_id, producer.epoch + 1);
    assert_eq!(bench.end(END, "id", producer, true), Some(Ok(next)));
    assert_eq!(bench.state("id"), "PrepareCommit");
    let markers = bench.markers[0].clone();
    assert!(markers.committed);
    assert_eq!(markers.producer_id, next.producer_id);
    assert_eq!(markers.producer_epoch, next.epoch);
    assert_eq!(markers.transaction_version, 2);
    let topic = Str::from("topic");
    assert_eq!(markers.partitions, [(topic.clone(), 0), (topic.clone(), 1)]);
    bench.report(&markers, &[(topic.clone(), 0)]);
    bench.report(&markers, &[(topic.clone(), 0)]);
    assert_eq!(bench.state("id"), "PrepareCommit");
    bench.report(&markers, &[(topic, 1)]);
    assert_eq!(bench.state("id"), "CompleteCommit");
    assert_eq!(bench.add(ADD, "id", next, 0), Some(ErrorCode::NONE));
}

#[test]
fn a_client_of_old_keeps_its_epoch() {
    let mut bench = Bench::new();
    let producer = bench.producer("id");
    bench.add(OLD_ADD, "id", producer, 0);
    assert_eq!(
        bench.end(OLD_END, "id", producer, true),
        Some(Ok(identity(-1, -1)))
    );
    assert_eq!(bench.markers[0].producer_epoch, producer.epoch);
    assert_eq!(bench.markers[0].transaction_version, 0);
    bench.write_markers();
    assert_eq!(bench.state("id"), "CompleteCommit");
    assert_eq!(bench.add(OLD_ADD, "id", producer, 0), Some(ErrorCode::NONE));
}

/// The table of KIP-890 for clients that bump epochs.
#[test]
fn retries_and_ends_of_nothing() {
    for committed in [true, false] {
        let mut bench = Bench::new();
        let producer = bench.ongoing("id");
        let next = bench.end(END, "id", producer, committed).unwrap().unwrap();
        bench.write_markers();
        // A retry: the epoch of the transaction that has ended.
        assert_eq!(bench.end(END, "id", producer, committed), Some(Ok(next)));
        assert_eq!(bench.end(END, "id", producer, !committed), INVALID);
        // The next transaction, which is empty.
        assert_eq!(bench.end(END, "id", next, true), INVALID);
        let after = identity(next.producer_id, next.epoch + 1);
        assert_eq!(bench.end(END, "id", next, false), Some(Ok(after)));
        assert!(bench.markers.is_empty());
        assert_eq!(bench.state("id"), "CompleteAbort");
        assert_eq!(bench.end(END, "id", next, false), Some(Ok(after)));
        assert_eq!(bench.end(END, "id", producer, committed), FENCED);
    }
    let mut bench = Bench::new();
    let older = bench.producer("id");
    let producer = bench.producer("id");
    assert_eq!(bench.end(END, "id", producer, true), INVALID);
    assert_eq!(bench.end(END, "id", older, false), FENCED);
    assert_eq!(bench.end(END, "id", older, true), FENCED);
    let after = identity(producer.producer_id, producer.epoch + 1);
    assert_eq!(bench.end(END, "id", producer, false), Some(Ok(after)));
}

/// One transaction of one id is one decision, whatever is asked after it.
#[test]
fn a_retry_across_a_change_of_coordinator_is_answered() {
    for committed in [true, false] {
        let mut bench = Bench::new();
        let producer = bench.ongoing("id");
        let next = bench.end(END, "id", producer, committed).unwrap().unwrap();
        bench.fail_over();
        assert_eq!(bench.end(END, "id", producer, !committed), INVALID);
        assert_eq!(bench.end(END, "id", producer, committed), None);
        let waiting = bench.tokens;
        bench.write_markers();
        assert_eq!(bench.reply(waiting), Some(Ok(next)));
        bench.fail_over();
        assert_eq!(bench.end(END, "id", producer, committed), Some(Ok(next)));
        assert_eq!(bench.end(END, "id", producer, !committed), INVALID);
    }
}

#[test]
fn clients_of_old_repeat_the_decision() {
    for committed in [true, false] {
        let mut bench = Bench::new();
        let producer = bench.producer("id");
        for outcome in [true, false] {
            assert_eq!(bench.end(OLD_END, "id", producer, outcome), INVALID);
        }
        bench.add(OLD_ADD, "id", producer, 0);
        let ended = Some(Ok(identity(-1, -1)));
        assert_eq!(bench.end(OLD_END, "id", producer, committed), ended);
        assert_eq!(bench.end(OLD_END, "id", producer, !committed), INVALID);
        assert_eq!(bench.end(OLD_END, "id", producer, committed), None);
        let waiting = bench.tokens;
        bench.write_markers();
        assert_eq!(bench.reply(waiting), ended);
        assert_eq!(bench.end(OLD_END, "id", producer, committed), ended);
        assert_eq!(bench.end(OLD_END, "id", producer, !committed), INVALID);
    }
}

/// In Kafka an epoch one below the current is taken for a retry, also when another producer's transaction is what has ended.
#[test]
fn a_fenced_producer_is_not_taken_for_a_retry() {
    let mut bench = Bench::new();
    let old = bench.producer("id");
    let new = bench.producer("id");
    bench.add(OLD_ADD, "id", new, 0);
    bench.end(OLD_END, "id", new, true);
    bench.write_markers();
    assert_eq!(bench.state("id"), "CompleteCommit");
    assert_eq!(bench.end(END, "id", old, true), FENCED);
    assert_eq!(bench.end(END, "id", old, false), FENCED);
}

#[test]
fn errors_are_told_in_the_versions_words() {
    let mut bench = Bench::new();
    let old = bench.producer("id");
    let new = bench.ongoing("id");
    assert_eq!(bench.end(2, "id", old, true), FENCED);
    assert_eq!(
        bench.end(1, "id", old, true),
        Some(Err(ErrorCode::INVALID_PRODUCER_EPOCH))
    );
    let mapping = Some(Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING));
    assert_eq!(bench.end(END, "nobody", new, true), mapping);
    let stranger = identity(new.producer_id + 1000, new.epoch);
    for version in [OLD_END, END] {
        assert_eq!(bench.end(version, "id", stranger, true), mapping);
    }
    assert_eq!(
        bench.end(END, "", new, true),
        Some(Err(ErrorCode::INVALID_REQUEST))
    );
}

#[test]
fn the_last_epoch_ends_with_another_id() {
    for committed in [true, false] {
        let mut bench = Bench::new();
        bench.producer("id");
        let last = bench.set_epoch("id", LAST_EPOCH);
        bench.coordinator.add_producer_id(4711);
        assert_eq!(bench.add(ADD, "id", last, 0), Some(ErrorCode::NONE));
        let next = bench.end(END, "id", last, committed).unwrap().unwrap();
        assert_ne!(next.producer_id, last.producer_id);
        assert_eq!(next.epoch, 0);
        let markers = bench.markers[0].clone();
        assert_eq!(markers.producer_id, last.producer_id);
        assert_eq!(markers.producer_epoch, i16::MAX);
        // The client goes on with what it was told.
        assert_eq!(bench.add(ADD, "id", next, 1), None);
        bench.fail_over();
        bench.write_markers();
        assert_eq!(bench.end(END, "id", last, committed), Some(Ok(next)));
        assert_eq!(bench.end(END, "id", last, !committed), INVALID);
        bench.fail_over();
        assert_eq!(bench.end(END, "id", last, committed), Some(Ok(next)));
        assert_eq!(bench.init_again("id", last), Some(Ok(next)));
        assert_eq!(bench.add(ADD, "id", next, 1), Some(ErrorCode::NONE));
    }
}

#[test]
fn without_a_producer_id_at_hand_the_last_epoch_waits() {
    let mut bench = Bench::new();
    bench.producer("id");
    bench.coordinator.spare_producer_ids.clear();
    assert_eq!(bench.coordinator.producer_ids_wanted(), 0);
    let last = bench.set_epoch("id", LAST_EPOCH);
    assert_eq!(bench.coordinator.producer_ids_wanted(), 1);
    bench.add(ADD, "id", last, 0);
    let refused = Some(Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    assert_eq!(bench.end(END, "id", last, true), refused);
    assert_eq!(bench.state("id"), "Ongoing");
    bench.coordinator.add_producer_id(4711);
    assert_eq!(bench.coordinator.producer_ids_wanted(), 0);
    let ended = Some(Ok(identity(4711, 0)));
    assert_eq!(bench.end(END, "id", last, true), ended);
    assert_eq!(bench.coordinator.producer_ids_wanted(), 0);
}

/// Before KIP-890 the next transaction has the same id and epoch, so only the decision tells whose markers were written.
#[test]
fn a_late_report_does_not_count_for_the_next_transaction() {
    let mut bench = Bench::new();
    let producer = bench.producer("id");
    bench.add(OLD_ADD, "id", producer, 0);
    bench.end(OLD_END, "id", producer, true);
    let first = bench.markers[0].clone();
    bench.write_markers();
    bench.add(OLD_ADD, "id", producer, 0);
    bench.end(OLD_END, "id", producer, false);
    bench.report(&first, &first.partitions);
    assert_eq!(bench.state("id"), "PrepareAbort");
    bench.write_markers();
    assert_eq!(bench.state("id"), "CompleteAbort");
}
