//! Requests that wait for their id's transaction to end, instead of being refused until it has.

use ringlog_net::{ErrorCode, Str};

use super::TransactionCoordinator;
use super::reply::TransactionCommands;
use super::request::Request;
use crate::command::Now;

/// A request that waits.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub request: Request,
    /// When it is told to come again, monotonic.
    pub deadline_ms: u64,
}

impl TransactionCoordinator {
    /// Holds a request, or refuses it if too many wait already.
    pub(super) fn hold(&mut self, request: Request, now: Now, out: &mut TransactionCommands) {
        let of_id = self.held.get(request.transactional_id());
        let full = of_id.is_some_and(|queue| queue.len() >= self.config.held_per_id_max)
            || self.config.held_per_id_max == 0
            || self.held_deadlines.len() >= self.config.held_max;
        if full {
            let reply = request.refused(ErrorCode::CONCURRENT_TRANSACTIONS);
            out.commands.reply(request.token, reply);
            return;
        }
        let id = Str::from(request.transactional_id());
        let deadline_ms = now.monotonic_ms.saturating_add(self.config.held_ms);
        self.held_deadlines
            .insert((deadline_ms, request.token, id.clone()));
        self.held.entry(id).or_default().push_back(Held {
            request: request.detached(),
            deadline_ms,
        });
    }

    /// An id's transaction has ended: answers who waits for that, in order, until one of them has brought the next transaction to its end.
    pub(super) fn release(&mut self, id: &Str, now: Now, out: &mut TransactionCommands) {
        while let Some(held) = self.next_held(id) {
            let request = &held.request;
            match self.attempt(request, now, out) {
                Ok(Some(reply)) => out.commands.reply(request.token, reply),
                Err(error) => out.commands.reply(request.token, request.refused(error)),
                // Its turn comes first when what it has begun has ended; how long it waits does not begin anew.
                Ok(None) => {
                    self.held_deadlines
                        .insert((held.deadline_ms, request.token, id.clone()));
                    self.held.entry(id.clone()).or_default().push_front(held);
                    return;
                }
            }
        }
    }

    /// Takes out the request that has waited longest, if it need not wait any more.
    fn next_held(&mut self, id: &Str) -> Option<Held> {
        let transaction = self.transactions.get(id);
        if transaction.is_some_and(|transaction| transaction.state.is_prepared()) {
            return None;
        }
        let queue = self.held.get_mut(id)?;
        let held = queue.pop_front();
        if queue.is_empty() {
            self.held.remove(id);
        }
        if let Some(held) = &held {
            self.held_deadlines
                .remove(&(held.deadline_ms, held.request.token, id.clone()));
        }
        held
    }

    /// Tells those who have waited long enough to come again.
    pub(super) fn expire_held(&mut self, now: Now, out: &mut TransactionCommands) {
        while let Some((deadline_ms, token, id)) = self.held_deadlines.pop_first() {
            if deadline_ms > now.monotonic_ms {
                self.held_deadlines.insert((deadline_ms, token, id));
                return;
            }
            let Some(queue) = self.held.get_mut(&id) else {
                continue;
            };
            let position = queue.iter().position(|held| held.request.token == token);
            if let Some(held) = position.and_then(|position| queue.remove(position)) {
                let reply = held.request.refused(ErrorCode::CONCURRENT_TRANSACTIONS);
                out.commands.reply(token, reply);
            }
            if queue.is_empty() {
                self.held.remove(&id);
            }
        }
    }
}
