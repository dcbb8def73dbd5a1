//! Many commits, each once, as fast as a few pipelined connections take them. What a coordinator cannot take yet is sent again.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringlog_net::api::ApiKey;
use ringlog_net::messages::offset_commit::OffsetCommitRequest;

use super::CoordinatorError;
use super::commits::first_error;
use crate::client::fleet::Fleet;

/// Connections of a bulk load.
const CONNECTIONS: usize = 4;
/// Unanswered requests on each.
const IN_FLIGHT: usize = 16;
/// How long nothing may happen before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before what was refused for now is sent again.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Sends `count` commits, `make` giving each; returns the seconds it took.
pub fn commit_all(
    address: SocketAddr,
    version: i16,
    count: usize,
    make: impl Fn(usize) -> OffsetCommitRequest,
) -> Result<f64, CoordinatorError> {
    let mut fleet = Fleet::open(address, CONNECTIONS)?;
    let begun = Instant::now();
    let mut last_answer = begun;
    let mut again: VecDeque<usize> = VecDeque::new();
    let mut on_their_way: Vec<VecDeque<usize>> = vec![VecDeque::new(); CONNECTIONS];
    let (mut next, mut done, mut arrived) = (0, 0, Vec::new());
    let mut held_until = begun;
    while done < count {
        for (connection, sent) in on_their_way.iter_mut().enumerate() {
            while fleet.in_flight(connection) < IN_FLIGHT {
                let may_repeat = Instant::now() >= held_until;
                let task = match again.front().copied().filter(|_| may_repeat) {
                    Some(task) => {
                        again.pop_front();
                        task
                    }
                    None if next < count => {
                        next += 1;
                        next - 1
                    }
                    None => break,
                };
                fleet.send(connection, ApiKey::OffsetCommit, version, &make(task))?;
                sent.push_back(task);
            }
        }
        fleet.poll(Duration::from_millis(10), &mut arrived)?;
        for answer in arrived.drain(..) {
            last_answer = Instant::now();
            let Some(task) = on_their_way[answer.connection].pop_front() else {
                continue;
            };
            let (error, _) = first_error(answer.version, answer.frame)?;
            if error.is_none() {
                done += 1;
            } else if error.is_retriable() {
                again.push_back(task);
                held_until = last_answer + BACK_OFF;
            } else {
                return Err(CoordinatorError::Refused {
                    what: "a commit".into(),
                    code: error,
                });
            }
            if begun.elapsed() > PATIENCE * 10 {
                return Err(CoordinatorError::TooSlow("committing in bulk"));
            }
        }
        if last_answer.elapsed() > PATIENCE {
            return Err(CoordinatorError::TooSlow("committing in bulk"));
        }
    }
    Ok(begun.elapsed().as_secs_f64())
}
