//! Hosts a coordinator's state machine on the shard that owns its partition: loads it, feeds it, writes what it says, lets answers go.
//!
//! An event changes the state at once. Its records join those of other events that came while a write was in flight, and become one batch: one durable write
//! for all of them. Its answers wait for that write and for all before it, so that nobody learns of a state that a crash could take back; an event that changes nothing
//! is answered at once when nothing is in flight. When a write fails the state is ahead of its log: it is thrown away and loaded anew, and whoever waited is told to come again.

mod writes;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_util::future::select;
use ringlog_coordinator::{Caller, Now, Token};
use ringlog_engine::batch::EndTransactionMarker;
use ringlog_engine::environment::Environment as _;
use ringlog_engine::producer_state::VerificationGuard;
use ringlog_net::{ErrorCode, Str, Uuid};
use tokio::sync::oneshot;

use super::load::load;
use super::machine::{Machine, Output};
use super::queue::{Event, Queue};
use crate::connection::signal::{Changed, Signal};
use crate::shard::runtime::spawn;
use crate::shard::{Log, Shard};

/// How long to wait after a failure before the state is loaded anew.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Events that may wait to be written before work that is due in steps pauses, and for how long it does.
const STEPS_AHEAD_MAX: usize = 64;
const BETWEEN_STEPS: Duration = Duration::from_millis(1);

/// Happenings that wait for a state to be loaded, at most.
const UNTIL_LOADED_MAX: usize = 1024;

/// Who asks, as it travels between shards.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The version of the request.
    pub version: i16,
    /// What the client calls itself.
    pub client_id: Str,
    /// The client's address as Kafka writes it.
    pub client_host: Str,
}

impl Asker {
    fn caller(self, token: Token, now: Now, fresh_id: Uuid) -> Caller {
        Caller {
            token,
            now,
            version: self.version,
            client_id: self.client_id,
            client_host: self.client_host,
            fresh_id,
        }
    }
}

/// A partition of an internal topic, with the epoch in which this broker leads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The epoch.
    pub leader_epoch: i32,
}

enum Phase<M> {
    Loading,
    Active(M),
    /// Somebody else is in charge, or nobody will be any more.
    Resigned,
}

/// Takes an answer to where it goes; called once, and dropped when there is none.
type Answer<M> = Box<dyn FnOnce(Result<<M as Machine>::Reply, ErrorCode>)>;

/// Something that has happened to the world.
type Happening<M> = Box<dyn FnOnce(&mut M, Now, &mut Output<M>)>;

/// One partition's coordinator.
pub struct Host<M: Machine> {
    place: Place,
    log: Rc<Log>,
    shard: Weak<Shard>,
    make: Box<dyn Fn() -> M>,
    phase: RefCell<Phase<M>>,
    tokens: Cell<u64>,
    waiting: RefCell<BTreeMap<Token, Answer<M>>>,
    queue: RefCell<Queue<M>>,
    /// What has happened while the state was being loaded.
    until_loaded: RefCell<Vec<Happening<M>>>,
    writing: Cell<bool>,
    /// Counts the states that were thrown away.
    life: Cell<u64>,
    /// The deadline that the clock's task waits for.
    armed: Cell<Option<u64>>,
    rearm: Changed,
    resigned: Signal,
}

/// Takes a request's place among those that wait away when nobody waits any more.
struct Waiting<'a, M: Machine>(&'a Host<M>, Token);

impl<M: Machine> Drop for Waiting<'_, M> {
    fn drop(&mut self) {
        self.0.waiting.borrow_mut().remove(&self.1);
    }
}

impl<M: Machine> Host<M> {
    /// Takes charge of a partition whose log is here, and starts loading it.
    pub fn start(
        shard: &Rc<Shard>,
        place: Place,
        log: Rc<Log>,
        make: impl Fn() -> M + 'static,
    ) -> Rc<Self> {
        let host = Rc::new(Self {
            place,
            log,
            shard: Rc::downgrade(shard),
            make: Box::new(make),
            phase: RefCell::new(Phase::Loading),
            tokens: Cell::new(0),
            waiting: RefCell::default(),
            queue: RefCell::default(),
            until_loaded: RefCell::default(),
            writing: Cell::new(false),
            life: Cell::new(0),
            armed: Cell::new(None),
            rearm: Changed::default(),
            resigned: Signal::default(),
        });
        spawn("load coordinator", host.clone().load());
        spawn("coordinator's clock", host.clone().keep_time());
        host
    }

    /// The partition.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The shard that it lives on; none when that ends.
    pub fn shard(&self) -> Option<Rc<Shard>> {
        self.shard.upgrade()
    }

    /// Names the state that is in charge now: another one has another name.
    pub fn life(&self) -> u64 {
        self.life.get()
    }

    /// Whether the state of that name is still in charge: it was neither given up nor thrown away.
    pub fn is_in_charge(&self, life: u64) -> bool {
        !self.resigned.is_raised() && self.life.get() == life
    }

    /// Hands a request to the machine and waits for its answer.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS, NOT_COORDINATOR, or COORDINATOR_NOT_AVAILABLE when the answer's records could not be written.
    pub async fn call(
        self: &Rc<Self>,
        asker: Asker,
        act: impl FnOnce(&mut M, &Caller, &mut Output<M>) + 'static,
    ) -> Result<M::Reply, ErrorCode> {
        let (token, answer) = self.expect_answer();
        let _waiting = Waiting(self, token);
        self.begin(token, asker, act)?;
        answer
            .await
            .unwrap_or(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE))
    }

    /// As [`Self::call`], without a task that waits: `answer` takes the answer on, or is dropped when it could not be written. It must not call the host.
    pub fn call_then(
        self: &Rc<Self>,
        asker: Asker,
        act: impl FnOnce(&mut M, &Caller, &mut Output<M>) + 'static,
        answer: impl FnOnce(Result<M::Reply, ErrorCode>) + 'static,
    ) {
        let token = self.expect(Box::new(answer));
        // If the machine panics, whoever asked must not wait for ever.
        let waiting = Waiting(self, token);
        let begun = self.begin(token, asker, act);
        std::mem::forget(waiting);
        if let Err(error) = begun {
            self.answer(token, Err(error));
        }
    }

    fn begin(
        self: &Rc<Self>,
        token: Token,
        asker: Asker,
        act: impl FnOnce(&mut M, &Caller, &mut Output<M>) + 'static,
    ) -> Result<(), ErrorCode> {
        let act = move |machine: &mut M, now, fresh_id, output: &mut Output<M>| {
            let caller = asker.caller(token, now, fresh_id);
            act(machine, &caller, output);
        };
        let must_wait = self.queue.borrow().must_wait_behind();
        if !must_wait {
            return self.step(act);
        }
        self.look(|_| ())?;
        let act = Box::new(act);
        self.enqueue(Event::Deferred { token, act });
        Ok(())
    }

    /// As [`Self::call`], for a request whose records belong to a producer's transaction: nothing happens unless the log takes them.
    ///
    /// # Errors
    /// As [`Self::call`], and why the log does not take records of that producer.
    pub async fn call_in_transaction(
        self: &Rc<Self>,
        asker: Asker,
        producer: (i64, i16),
        guard: Option<VerificationGuard>,
        act: impl FnOnce(&mut M, &Caller, &mut Output<M>) + 'static,
    ) -> Result<M::Reply, ErrorCode> {
        self.look(|_| ())?;
        let (token, answer) = self.expect_answer();
        let _waiting = Waiting(self, token);
        self.enqueue(Event::InTransaction {
            token,
            producer,
            guard,
            act: Box::new(move |machine, now, fresh_id, output| {
                let caller = asker.caller(token, now, fresh_id);
                act(machine, &caller, output);
            }),
        });
        answer
            .await
            .unwrap_or(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE))
    }

    /// Ends a producer's transaction in this partition, in its turn; resolves when the marker is durable and the state knows.
    pub async fn mark(
        self: &Rc<Self>,
        marker: EndTransactionMarker,
        transaction_version: i8,
    ) -> ErrorCode {
        if let Err(error) = self.look(|_| ()) {
            return error;
        }
        let (done, answer) = oneshot::channel();
        self.enqueue(Event::Marker {
            marker,
            transaction_version,
            done,
        });
        answer.await.unwrap_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)
    }

    /// The log, for whoever has to ask it something before a call.
    pub fn log(&self) -> &Log {
        &self.log
    }

    fn expect_answer(&self) -> (Token, oneshot::Receiver<Result<M::Reply, ErrorCode>>) {
        let (sender, receiver) = oneshot::channel();
        // Who asked may have gone.
        let token = self.expect(Box::new(|reply| drop(sender.send(reply))));
        (token, receiver)
    }

    fn expect(&self, answer: Answer<M>) -> Token {
        let token = Token(self.tokens.get());
        self.tokens.set(token.0 + 1);
        self.waiting.borrow_mut().insert(token, answer);
        token
    }

    /// Looks something up in the state as it is now, which may be ahead of what is durable.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn look<R>(&self, look: impl FnOnce(&M) -> R) -> Result<R, ErrorCode> {
        match &*self.phase.borrow() {
            Phase::Active(machine) => Ok(look(machine)),
            Phase::Loading => Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
            Phase::Resigned => Err(ErrorCode::NOT_COORDINATOR),
        }
    }

    /// As [`Self::happen`], for what cannot be seen of the world afterwards: while the state is being loaded it waits. What comes when [`UNTIL_LOADED_MAX`] wait, because
    /// the log cannot be read for long, is forgotten.
    pub fn happen_once_loaded(
        self: &Rc<Self>,
        act: impl FnOnce(&mut M, Now, &mut Output<M>) + 'static,
    ) {
        if matches!(*self.phase.borrow(), Phase::Loading) {
            let mut waiting = self.until_loaded.borrow_mut();
            if waiting.len() < UNTIL_LOADED_MAX {
                waiting.push(Box::new(act));
            }
        } else {
            self.happen(act);
        }
    }

    /// Lets an event happen that nobody waits for.
    pub fn happen(self: &Rc<Self>, act: impl FnOnce(&mut M, Now, &mut Output<M>)) {
        // Without a loaded state there is nothing that could happen: what is loaded later looks at the world as it is then.
        let _ = self.step(|machine, now, _, output| act(machine, now, output));
    }

    /// Gives the partition up: whoever waits is answered. What waits for its turn is not written any more, for the next in charge may have read the log already; what is
    /// being written is answered by what becomes of it.
    pub fn resign(self: &Rc<Self>) {
        let phase = self.phase.replace(Phase::Resigned);
        self.resigned.raise();
        self.until_loaded.take();
        for event in self.queue.take().into_events() {
            match event {
                Event::Changed(output) => {
                    for (token, _) in output.commands.replies {
                        self.answer(token, Err(ErrorCode::NOT_COORDINATOR));
                    }
                }
                Event::InTransaction { token, .. } | Event::Deferred { token, .. } => {
                    self.answer(token, Err(ErrorCode::NOT_COORDINATOR));
                }
                Event::Marker { done, .. } => {
                    // Whoever wanted it may have stopped.
                    let _ = done.send(ErrorCode::NOT_COORDINATOR);
                }
            }
        }
        if let Phase::Active(mut machine) = phase {
            let mut output = Output::default();
            machine.resign(&mut output);
            for (token, reply) in output.commands.replies {
                self.answer(token, Ok(reply));
            }
        }
    }

    fn step(
        self: &Rc<Self>,
        act: impl FnOnce(&mut M, Now, Uuid, &mut Output<M>),
    ) -> Result<(), ErrorCode> {
        let output = self.change(act)?;
        self.follow_up(output);
        M::after_event(self);
        Ok(())
    }

    /// Changes the state; what is to be done about it is the caller's.
    fn change(
        &self,
        act: impl FnOnce(&mut M, Now, Uuid, &mut Output<M>),
    ) -> Result<Output<M>, ErrorCode> {
        let shard = self.shard.upgrade().ok_or(ErrorCode::NOT_COORDINATOR)?;
        let mut output = Output::default();
        let next_deadline = {
            let mut phase = self.phase.borrow_mut();
            let machine = match &mut *phase {
                Phase::Active(machine) => machine,
                Phase::Loading => return Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
                Phase::Resigned => return Err(ErrorCode::NOT_COORDINATOR),
            };
            act(machine, now(&shard), random_id(&shard), &mut output);
            machine.next_deadline()
        };
        for notice in output.commands.notices.drain(..) {
            tracing::info!("{notice}");
        }
        let sooner = match (next_deadline, self.armed.get()) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if sooner {
            self.rearm.notify();
        }
        Ok(output)
    }

    /// Writes an event's records, then lets its answers go.
    fn follow_up(self: &Rc<Self>, output: Output<M>) {
        let idle = !self.writing.get() && self.queue.borrow().is_empty();
        if output.commands.records.is_empty() && idle {
            return self.release(output);
        }
        self.enqueue(Event::Changed(output));
    }

    fn enqueue(self: &Rc<Self>, event: Event<M>) {
        self.queue.borrow_mut().push(event);
        if !self.writing.replace(true) {
            // In a box, for this happens for nearly every commit, and on its way to the runtime a task is moved several times.
            spawn("coordinator's writes", Box::pin(self.clone().write()));
        }
    }

    fn release(self: &Rc<Self>, output: Output<M>) {
        for (token, reply) in output.commands.replies {
            self.answer(token, Ok(reply));
        }
        for effect in output.effects {
            M::perform(self, effect);
        }
    }

    fn answer(&self, token: Token, reply: Result<M::Reply, ErrorCode>) {
        // Who asked may have gone.
        let answer = self.waiting.borrow_mut().remove(&token);
        if let Some(answer) = answer {
            answer(reply);
        }
    }

    /// The state is ahead of the log: start again from the log.
    fn lost(self: &Rc<Self>, reason: &str) {
        let log = self.log.topic_partition();
        tracing::error!(%log, reason, "a coordinator could not write; its clients are told to come again, and its state is loaded anew");
        self.queue.take();
        // Without a sender whoever waits learns that there is no answer.
        self.waiting.borrow_mut().clear();
        let mut phase = self.phase.borrow_mut();
        if matches!(*phase, Phase::Resigned) {
            return;
        }
        *phase = Phase::Loading;
        drop(phase);
        self.life.set(self.life.get() + 1);
        let host = self.clone();
        spawn("load coordinator", async move {
            if let Some(shard) = host.shard.upgrade() {
                shard.environment.sleep(AGAIN_AFTER).await;
            }
            host.load().await;
        });
    }

    async fn load(self: Rc<Self>) {
        let mut complained = false;
        loop {
            let Some(shard) = self.shard.upgrade() else {
                return;
            };
            if self.resigned.is_raised() {
                return;
            }
            let mut machine = (self.make)();
            match load(&shard, &self.log, &mut machine).await {
                Ok(()) => {
                    if self.resigned.is_raised() {
                        return;
                    }
                    let mut output = Output::default();
                    machine.loaded(now(&shard), &mut output);
                    *self.phase.borrow_mut() = Phase::Active(machine);
                    self.rearm.notify();
                    self.follow_up(output);
                    for act in self.until_loaded.take() {
                        self.happen(act);
                    }
                    return M::after_event(&self);
                }
                Err(reason) => {
                    if !std::mem::replace(&mut complained, true) {
                        let log = self.log.topic_partition();
                        tracing::error!(%log, reason, "a coordinator cannot load its state; its clients wait until it can");
                    }
                    shard.environment.sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    /// Lets the machine know when a deadline has come.
    async fn keep_time(self: Rc<Self>) {
        while !self.resigned.is_raised() {
            let Some(shard) = self.shard.upgrade() else {
                return;
            };
            let deadline = self.look(M::next_deadline).unwrap_or(None);
            let now = now(&shard).monotonic_ms;
            self.armed.set(deadline);
            // Looked at again after each notification.
            let mut first = true;
            let changed = self
                .rearm
                .until(|| (!std::mem::take(&mut first)).then_some(()));
            let (mut changed, mut resigned) = (pin!(changed), pin!(self.resigned.wait()));
            let changed = select(changed.as_mut(), resigned.as_mut());
            match deadline {
                None => {
                    drop(shard);
                    let _ = changed.await;
                }
                Some(at) if at > now => {
                    let sleep = shard.environment.sleep(Duration::from_millis(at - now));
                    drop(shard);
                    let _ = select(pin!(sleep), changed).await;
                }
                Some(_) => {
                    let step = async {
                        self.happen(|machine, now, output| machine.on_timeout(now, &shard, output))
                    };
                    shard.measured(step).await;
                    // What is left is due at once, but not before most of what the steps so far have brought about is written.
                    while self.queue.borrow().len() > STEPS_AHEAD_MAX {
                        shard.environment.sleep(BETWEEN_STEPS).await;
                    }
                }
            }
        }
    }
}

/// The time as coordinators are told it.
pub fn now(shard: &Shard) -> Now {
    Now {
        monotonic_ms: shard.environment.now() / 1000,
        wall_ms: shard.environment.wall_clock_ms(),
    }
}

fn random_id(shard: &Shard) -> Uuid {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&shard.environment.random().to_be_bytes());
    id[8..].copy_from_slice(&shard.environment.random().to_be_bytes());
    Uuid(id)
}
