//! Every history of a bounded kind, over the real coordinator: two producers share a transactional id, and what may happen is what happens in a cluster. Requests
//! are repeated when nobody answers, answers are lost, transactions time out, held requests are sent away, and the coordinator crashes between any two steps,
//! losing what was not durable. Breadth first, so that a violation is shown by a shortest history.
//!
//! What is proved of every reachable state is in `checks`: each partition gets the decision that was written down and no other, an answered commit is never
//! aborted, a fenced producer's requests never succeed, whatever is prepared has somebody at work on its end, no partition is left with a transaction that
//! nobody will end, and a coordinator that starts from the log stands where the one before stood.

mod checks;
mod model;
mod search;
mod steps;

use self::model::{Kind, Scenario};
use self::search::explore;

/// A producer starts, and another one takes over, wherever the first one's transaction stands.
const TWO_PRODUCERS: Scenario = Scenario {
    bumps_epoch: [true, true],
    first_epoch: None,
    initialisations: [1, 1],
    recoveries: 0,
    transactions: [1, 1],
    repetitions: 0,
    crashes: 1,
    timeouts: 0,
    expirations: 0,
};

fn check(name: &str, scenario: &Scenario, states_min: usize) {
    let explored = explore(scenario);
    println!(
        "{name}: {} states, {} steps, {} deep",
        explored.states, explored.steps, explored.depth
    );
    // That nothing is wrong proves nothing unless the search has been where things can go wrong.
    assert!(
        explored.states >= states_min,
        "{name}: only {} states",
        explored.states
    );
    for kind in [
        Kind::Initialise { recover: false },
        Kind::Add(0),
        Kind::End(true),
        Kind::End(false),
    ] {
        assert!(
            explored.succeeded.contains(&kind),
            "{name}: no {kind:?} ever succeeded"
        );
    }
    assert!(explored.held > 0, "{name}: nobody was ever held");
    assert!(explored.fenced > 0, "{name}: nobody was ever fenced");
}

#[test]
fn one_producer_takes_over_from_another() {
    check("take-over", &TWO_PRODUCERS, 1_000);
}

#[test]
fn clients_of_old() {
    let scenario = Scenario {
        bumps_epoch: [false, false],
        ..TWO_PRODUCERS
    };
    check("clients of old", &scenario, 1_000);
}

#[test]
fn a_client_of_old_and_one_of_today() {
    let scenarios = [
        ("today, then old", [true, false]),
        ("old, then today", [false, true]),
    ];
    for (name, bumps_epoch) in scenarios {
        let scenario = Scenario {
            bumps_epoch,
            crashes: 0,
            timeouts: 1,
            ..TWO_PRODUCERS
        };
        check(name, &scenario, 1_000);
    }
}

#[test]
fn timeouts_and_recoveries() {
    let scenario = Scenario {
        recoveries: 1,
        timeouts: 1,
        crashes: 0,
        expirations: 1,
        ..TWO_PRODUCERS
    };
    check("timeouts and recoveries", &scenario, 10_000);
}

#[test]
fn a_crash_around_a_timeout() {
    let scenario = Scenario {
        timeouts: 1,
        ..TWO_PRODUCERS
    };
    check("crash and timeout", &scenario, 10_000);
}

#[test]
fn one_transaction_after_another() {
    let scenario = Scenario {
        transactions: [2, 1],
        crashes: 0,
        expirations: 1,
        ..TWO_PRODUCERS
    };
    check("one after another", &scenario, 10_000);
}

#[test]
fn requests_are_repeated() {
    let scenario = Scenario {
        repetitions: 1,
        crashes: 0,
        ..TWO_PRODUCERS
    };
    check("repetitions", &scenario, 10_000);
}

#[test]
fn the_last_epochs_of_a_producer_id() {
    let scenario = Scenario {
        first_epoch: Some(i16::MAX - 3),
        transactions: [2, 1],
        timeouts: 1,
        crashes: 0,
        ..TWO_PRODUCERS
    };
    check("last epochs", &scenario, 10_000);
}
