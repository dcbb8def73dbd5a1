//! Timeouts of transactions, expiration of ids, and looking at both.

use ringlog_net::{ErrorCode, Str};

use super::super::transaction::LAST_EPOCH;
use super::bench::*;
use crate::command::Token;
use crate::transactions::{
    TransactionCommands, TransactionConfig, TransactionFilter, TransactionState,
};

const TIMEOUT: u64 = TIMEOUT_MS as u64;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_epoch_fenced() {
    let mut bench = Bench::new();
    let producer = bench.ongoing("id");
    let deadline = bench.now.monotonic_ms + TIMEOUT;
    assert_eq!(bench.coordinator.next_deadline(), Some(deadline));
    // Going on with it does not put it off.
    bench.pass(TIMEOUT - 1);
    bench.add(ADD, "id", producer, 1);
    bench.timeout();
    assert_eq!(bench.state("id"), "Ongoing");
    bench.pass(1);
    bench.timeout();
    assert_eq!(bench.state("id"), "PrepareAbort");
    assert_eq!(bench.coordinator.next_deadline(), None);
    assert_eq!(bench.markers[0].producer_epoch, producer.epoch + 1);
    assert_eq!(
        bench.add(ADD, "id", producer, 2),
        Some(ErrorCode::PRODUCER_FENCED)
    );
    let invalid = Some(Err(ErrorCode::INVALID_TXN_STATE));
    assert_eq!(bench.end(END, "id", producer, true), invalid);
    let fenced = Some(Err(ErrorCode::PRODUCER_FENCED));
    assert_eq!(bench.end(OLD_END, "id", producer, true), fenced);
    assert_eq!(bench.end(OLD_END, "id", producer, false), fenced);
    bench.write_markers();
    assert_eq!(bench.end(END, "id", producer, true), invalid);
    // It may learn that its transaction is aborted, and go on.
    let next = identity(producer.producer_id, producer.epoch + 1);
    assert_eq!(bench.end(END, "id", producer, false), Some(Ok(next)));
    assert_eq!(bench.add(ADD, "id", next, 0), Some(ErrorCode::NONE));
}

#[test]
fn a_decided_transaction_does_not_time_out() {
    let mut bench = Bench::new();
    let producer = bench.ongoing("id");
    bench.end(END, "id", producer, true);
    bench.pass(10 * TIMEOUT);
    bench.timeout();
    assert_eq!(bench.state("id"), "PrepareCommit");
    bench.fail_over();
    bench.pass(10 * TIMEOUT);
    bench.timeout();
    assert_eq!(bench.state("id"), "PrepareCommit");
}

/// Across a change of coordinator the time that has passed counts, as far as the wall clock can be believed.
#[test]
fn the_timeout_survives_a_change_of_coordinator() {
    let mut bench = Bench::new();
    bench.ongoing("id");
    bench.pass(TIMEOUT - 10);
    bench.fail_over();
    let in_ten = bench.now.monotonic_ms + 10;
    assert_eq!(bench.coordinator.next_deadline(), Some(in_ten));
    bench.now.wall_ms -= 10 * TIMEOUT as i64;
    bench.fail_over();
    let full = bench.now.monotonic_ms + TIMEOUT;
    assert_eq!(bench.coordinator.next_deadline(), Some(full));
    bench.now.wall_ms += 100 * TIMEOUT as i64;
    bench.fail_over();
    let at_once = bench.now.monotonic_ms;
    assert_eq!(bench.coordinator.next_deadline(), Some(at_once));
}

/// While it runs only the monotonic clock counts.
#[test]
fn a_jump_of_the_wall_clock_times_nothing_out() {
    let mut bench = Bench::new();
    bench.ongoing("id");
    bench.now.wall_ms += 100 * DAY_MS as i64;
    bench.timeout();
    let now = bench.now;
    let more = bench.event(|coordinator, out| coordinator.expire(now, out));
    assert!(!more);
    assert_eq!(bench.state("id"), "Ongoing");
}

#[test]
fn many_timeouts_are_spread_over_events() {
    let mut bench = Bench::with(TransactionConfig {
        event_bytes: 300,
        ..Default::default()
    });
    for index in 0..20 {
        bench.ongoing(&format!("id-{index}"));
    }
    bench.pass(TIMEOUT);
    let mut events = 0;
    while bench
        .coordinator
        .next_deadline()
        .is_some_and(|deadline| deadline <= bench.now.monotonic_ms)
    {
        let records = bench.log.len();
        bench.timeout();
        assert!((1..10).contains(&(bench.log.len() - records)));
        events += 1;
    }
    assert!(events > 3);
    assert_eq!(bench.markers.len(), 20);
}

#[test]
fn an_overdue_abort_without_a_producer_id_is_tried_again() {
    let mut bench = Bench::new();
    bench.producer("id");
    let last = bench.set_epoch("id", LAST_EPOCH);
    bench.add(ADD, "id", last, 0);
    bench.coordinator.spare_producer_ids.clear();
    bench.pass(TIMEOUT);
    bench.timeout();
    assert_eq!(bench.state("id"), "Ongoing");
    assert_eq!(bench.coordinator.producer_ids_wanted(), 1);
    let deadline = bench.coordinator.next_deadline().unwrap();
    assert!(deadline > bench.now.monotonic_ms);
    bench.coordinator.add_producer_id(4711);
    bench.pass(deadline - bench.now.monotonic_ms);
    bench.timeout();
    assert_eq!(bench.state("id"), "PrepareAbort");
    bench.write_markers();
    assert_eq!(bench.describe("id").producer_id, 4711);
}

#[test]
fn ids_expire_once_nobody_has_used_them_for_long() {
    let mut bench = Bench::new();
    bench.producer("empty");
    let complete = bench.ongoing("complete");
    bench.end(END, "complete", complete, true);
    bench.write_markers();
    bench.ongoing("ongoing");
    let prepared = bench.ongoing("prepared");
    bench.end(END, "prepared", prepared, false);
    let expire = |bench: &mut Bench| {
        let now = bench.now;
        bench.event(|coordinator, out| coordinator.expire(now, out))
    };
    bench.pass(7 * DAY_MS - 1);
    bench.producer("late");
    assert!(!expire(&mut bench));
    assert_eq!(bench.coordinator.transactional_ids(), 5);
    bench.pass(1);
    let records = bench.log.len();
    assert!(!expire(&mut bench));
    assert_eq!(bench.coordinator.transactional_ids(), 3);
    let tombstones = &bench.log[records..];
    assert!(tombstones.iter().all(|record| record.value.is_none()));
    assert_eq!(tombstones.len(), 2);
    bench.fail_over();
    assert_eq!(bench.coordinator.transactional_ids(), 3);
    assert_eq!(
        bench.describe("empty").error_code,
        ErrorCode::TRANSACTIONAL_ID_NOT_FOUND
    );
    assert_eq!(
        bench.end(END, "empty", complete, true),
        Some(Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING))
    );
}

#[test]
fn expiration_is_spread_over_events() {
    let mut bench = Bench::with(TransactionConfig {
        event_bytes: 50,
        ..Default::default()
    });
    for index in 0..30 {
        bench.producer(&format!("id-{index}"));
    }
    bench.pass(8 * DAY_MS);
    let now = bench.now;
    let mut events = 1;
    while bench.event(|coordinator, out| coordinator.expire(now, out)) {
        events += 1;
    }
    assert!(events > 3);
    assert_eq!(bench.coordinator.transactional_ids(), 0);
}

#[test]
fn nothing_is_served_before_it_is_loaded() {
    let mut coordinator =
        crate::transactions::TransactionCoordinator::new(TransactionConfig::default(), 0);
    let bench = Bench::new();
    let mut out = TransactionCommands::default();
    let asks = identity(1, 0);
    let caller = |token| caller(token, bench.now, 5);
    coordinator.init_producer_id(&caller(1), init_request("id", None), 1, &mut out);
    coordinator.end_txn(&caller(2), end_request("id", asks, true), &mut out);
    let add = add_request("id", asks, &[("topic", 0)]);
    coordinator.add_partitions(&caller(3), add, &mut out);
    coordinator.describe(&caller(4), &Str::from("id"), &mut out);
    let loading = ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
    for (index, (token, reply)) in out.commands.replies.iter().enumerate() {
        assert_eq!(*token, Token(index as u64 + 1));
        assert_eq!(reply.error(), loading);
    }
    assert_eq!(out.commands.replies.len(), 4);
    assert!(out.commands.records.is_empty());
    let listed = coordinator.list(bench.now, &TransactionFilter::default());
    assert_eq!(listed, Err(loading));
}

#[test]
fn transactions_are_listed_by_what_they_are() {
    let mut bench = Bench::new();
    bench.producer("empty");
    let old = bench.ongoing("old");
    bench.pass(100);
    bench.ongoing("young");
    let listed = |filter: &TransactionFilter<'_>| -> Vec<String> {
        let listed = bench.coordinator.list(bench.now, filter).unwrap();
        listed
            .iter()
            .map(|transaction| transaction.transactional_id.to_string())
            .collect()
    };
    let all = TransactionFilter::default();
    assert_eq!(listed(&all), ["empty", "old", "young"]);
    let states = TransactionFilter {
        states: Some(&[TransactionState::Ongoing]),
        ..all
    };
    assert_eq!(listed(&states), ["old", "young"]);
    let unknown = TransactionFilter {
        states: Some(&[]),
        ..all
    };
    assert!(listed(&unknown).is_empty());
    let producers = TransactionFilter {
        producer_ids: &[old.producer_id],
        ..all
    };
    assert_eq!(listed(&producers), ["old"]);
    let long = TransactionFilter {
        duration_ms: Some(99),
        states: states.states,
        ..all
    };
    assert_eq!(listed(&long), ["old"]);
    let longer = TransactionFilter {
        duration_ms: Some(100),
        ..long
    };
    assert!(listed(&longer).is_empty());
    let starts_with_y = |id: &str| id.starts_with('y');
    let matching = TransactionFilter {
        matches: Some(&starts_with_y),
        ..all
    };
    assert_eq!(listed(&matching), ["young"]);
}

#[test]
fn states_have_the_numbers_and_names_of_kafka() {
    let names = [
        "Empty",
        "Ongoing",
        "PrepareCommit",
        "PrepareAbort",
        "CompleteCommit",
        "CompleteAbort",
        "Dead",
        "PrepareEpochFence",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let state = TransactionState::from_name(name).unwrap();
        assert_eq!(state.number(), number as i8);
        assert_eq!(state.name(), name);
        let written = TransactionState::from_number(number as i8);
        assert_eq!(written, (number < 6).then_some(state));
    }
    assert_eq!(TransactionState::from_name("ongoing"), None);
    assert_eq!(TransactionState::from_number(8), None);
    assert_eq!(TransactionState::from_number(-1), None);
}
