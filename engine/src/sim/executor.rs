//! A deterministic single-threaded executor with virtual time.
//!
//! Which of the tasks that could run does run next is drawn from the seed, so thousands of seeds try thousands of interleavings. Time stands
//! still while a task can run and then jumps to the next timer. The world can be stopped between any two steps and all
//! tasks dropped: together with a disk image that is a crash.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::disk::sim::SimDisk;
use crate::random::Random;
use crate::sim::SimEnvironment;

/// Wall-clock time at which every world begins: 2024-01-01T00:00:00Z, in milliseconds.
const WALL_CLOCK_START_MS: i64 = 1_704_067_200_000;

/// Steps without an end after which a run counts as spinning.
const STEPS_MAX: u64 = 200_000_000;

/// Where to stop a run that has not finished by itself; whichever comes first.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopAt {
    /// After so many steps (polls of a task).
    pub steps: Option<u64>,
    /// At this virtual time, in microseconds.
    pub micros: Option<u64>,
    /// After so many disk operations were begun, counted from the start of the run.
    pub disk_operations: Option<u64>,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The main task returned.
    Finished(T),
    /// The world was stopped first; all tasks are gone.
    Stopped,
}

impl<T> Outcome<T> {
    /// The main task's result.
    ///
    /// # Panics
    /// When the run was stopped.
    pub fn finished(self) -> T {
        match self {
            Self::Finished(result) => result,
            Self::Stopped => panic!("the run was stopped before its main task finished"),
        }
    }
}

/// Clock, timers, tasks and randomness of one simulated process; handles share it.
#[derive(Clone)]
pub struct World {
    state: Rc<RefCell<State>>,
}

struct State {
    seed: u64,
    random: Random,
    now: u64,
    wall_clock_ms: i64,
    stop_requested: bool,
    disk_operations: u64,
    tasks: Vec<Task>,
    vacant: Vec<usize>,
    timers: BinaryHeap<Reverse<Timer>>,
    timer_sequence: u64,
    ready: Arc<Ready>,
}

struct Task {
    name: &'static str,
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// Tasks that were woken and not yet run.
#[derive(Default)]
struct Ready {
    queue: Mutex<Vec<Arc<TaskWaker>>>,
}

struct TaskWaker {
    index: usize,
    state: Mutex<WakeState>,
    ready: Arc<Ready>,
}

#[derive(PartialEq, Eq)]
enum WakeState {
    Idle,
    Queued,
    Gone,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == WakeState::Idle {
            *state = WakeState::Queued;
            drop(state);
            self.ready
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(self.clone());
        }
    }
}

struct Timer {
    deadline: u64,
    sequence: u64,
    waker: Waker,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}
impl Eq for Timer {}
impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.deadline, self.sequence).cmp(&(other.deadline, other.sequence))
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let state = State {
            seed,
            random: Random::new(seed),
            now: 0,
            wall_clock_ms: WALL_CLOCK_START_MS,
            stop_requested: false,
            disk_operations: 0,
            tasks: Vec::new(),
            vacant: Vec::new(),
            timers: BinaryHeap::new(),
            timer_sequence: 0,
            ready: Arc::default(),
        };
        Self {
            state: Rc::new(RefCell::new(state)),
        }
    }

    /// Virtual microseconds since the world began.
    pub fn now(&self) -> u64 {
        self.state.borrow().now
    }

    /// What the wall clock shows: virtual time plus every jump so far.
    pub fn wall_clock_ms(&self) -> i64 {
        let state = self.state.borrow();
        state.wall_clock_ms + (state.now / 1000) as i64
    }

    /// Makes the wall clock jump, forward or (negative) backward.
    pub fn jump_wall_clock(&self, milliseconds: i64) {
        self.state.borrow_mut().wall_clock_ms += milliseconds;
    }

    /// 64 bits that follow from the seed.
    pub fn random(&self) -> u64 {
        self.state.borrow_mut().random.next_u64()
    }

    /// A number of `low..=high` that follows from the seed.
    pub fn random_between(&self, low: u64, high: u64) -> u64 {
        self.state.borrow_mut().random.between(low, high)
    }

    /// True with the given probability.
    pub fn chance(&self, probability: f64) -> bool {
        self.state.borrow_mut().random.chance(probability)
    }

    /// Resolves when `duration` of virtual time has passed; even for zero the other tasks get a turn.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep {
            world: self.clone(),
            duration_micros: duration.as_micros() as u64,
            deadline: None,
        }
    }

    /// Starts a task. A panic in it ends the whole run, as a test wants it.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) {
        let mut state = self.state.borrow_mut();
        let index = state.vacant.pop().unwrap_or(state.tasks.len());
        let waker = Arc::new(TaskWaker {
            index,
            state: Mutex::new(WakeState::Idle),
            ready: state.ready.clone(),
        });
        let task = Task {
            name,
            future: Some(Box::pin(future)),
        };
        if index == state.tasks.len() {
            state.tasks.push(task);
        } else {
            state.tasks[index] = task;
        }
        drop(state);
        waker.wake();
    }

    /// Stops the world before the next step: the crash of a test that knows the moment it wants.
    pub fn stop(&self) {
        self.state.borrow_mut().stop_requested = true;
    }

    /// Counts a disk operation, for [`StopAt::disk_operations`].
    pub(crate) fn count_disk_operation(&self) {
        self.state.borrow_mut().disk_operations += 1;
    }

    fn must_stop(&self, stop_at: &StopAt, steps: u64) -> bool {
        let state = self.state.borrow();
        let reached = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
        state.stop_requested
            || reached(stop_at.steps, steps)
            || reached(stop_at.micros, state.now)
            || reached(stop_at.disk_operations, state.disk_operations)
    }

    /// Runs one task that is ready, drawn from the seed; false when none is.
    fn run_one(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let ready = state.ready.clone();
        let mut queue = ready.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.is_empty() {
            return false;
        }
        let choice = state.random.below(queue.len() as u64) as usize;
        let waker = queue.swap_remove(choice);
        drop(queue);
        {
            let mut wake_state = waker.state.lock().unwrap_or_else(PoisonError::into_inner);
            if *wake_state == WakeState::Gone {
                return true;
            }
            *wake_state = WakeState::Idle;
        }
        let Some(mut future) = state
            .tasks
            .get_mut(waker.index)
            .and_then(|task| task.future.take())
        else {
            return true;
        };
        drop(state);
        let poll = future
            .as_mut()
            .poll(&mut Context::from_waker(&Waker::from(waker.clone())));
        let mut state = self.state.borrow_mut();
        match poll {
            Poll::Pending => state.tasks[waker.index].future = Some(future),
            Poll::Ready(()) => {
                *waker.state.lock().unwrap_or_else(PoisonError::into_inner) = WakeState::Gone;
                state.vacant.push(waker.index);
                drop(state);
                drop(future);
            }
        }
        true
    }

    /// Moves time to the next timer and wakes what waits for it, or to `limit` when that comes first; false when there is neither.
    fn advance(&self, limit: Option<u64>) -> bool {
        let mut state = self.state.borrow_mut();
        let next = state.timers.peek().map(|timer| timer.0.deadline);
        let deadline = match (next, limit) {
            (Some(deadline), None) => deadline,
            (Some(deadline), Some(limit)) if deadline < limit => deadline,
            (_, Some(limit)) => {
                state.now = state.now.max(limit);
                return true;
            }
            (None, None) => return false,
        };
        state.now = state.now.max(deadline);
        while state
            .timers
            .peek()
            .is_some_and(|timer| timer.0.deadline <= deadline)
        {
            if let Some(Reverse(timer)) = state.timers.pop() {
                timer.waker.wake();
            }
        }
        true
    }

    fn drop_everything(&self) {
        // Dropping a task runs its destructors, which may use the world, even start tasks; so it is not borrowed meanwhile.
        loop {
            let mut state = self.state.borrow_mut();
            let tasks = std::mem::take(&mut state.tasks);
            let timers = std::mem::take(&mut state.timers);
            state.vacant.clear();
            state
                .ready
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear();
            drop(state);
            if tasks.is_empty() && timers.is_empty() {
                return;
            }
            drop((tasks, timers));
        }
    }

    fn describe_stuck(&self) -> String {
        let state = self.state.borrow();
        let waiting: Vec<&str> = state
            .tasks
            .iter()
            .filter(|task| task.future.is_some())
            .map(|task| task.name)
            .collect();
        format!(
            "seed {}: nothing can run and no timer is set; waiting: {waiting:?}",
            state.seed
        )
    }
}

/// The future of [`World::sleep`].
pub struct Sleep {
    world: World,
    duration_micros: u64,
    deadline: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let world = self.world.clone();
        let mut state = world.state.borrow_mut();
        match self.deadline {
            Some(deadline) if state.now >= deadline => return Poll::Ready(()),
            Some(_) => {}
            None => self.deadline = Some(state.now.saturating_add(self.duration_micros)),
        }
        let deadline = self.deadline.unwrap_or(state.now);
        if deadline <= state.now {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let sequence = state.timer_sequence;
        state.timer_sequence += 1;
        state.timers.push(Reverse(Timer {
            deadline,
            sequence,
            waker: context.waker().clone(),
        }));
        Poll::Pending
    }
}

/// One simulated process, from its start to its end or crash.
pub struct Executor {
    world: World,
    disk: SimDisk,
}

impl Executor {
    /// A process on a fresh, empty disk.
    pub fn new(seed: u64) -> Self {
        Self::with_disk(seed, SimDisk::new(seed))
    }

    /// A process on a disk that an earlier one left behind.
    pub fn with_disk(seed: u64, disk: SimDisk) -> Self {
        let world = World::new(seed);
        Self { world, disk }
    }

    /// What the code under test is handed.
    pub fn environment(&self) -> SimEnvironment {
        SimEnvironment::new(self.world.clone(), self.disk.clone())
    }

    /// Clock, tasks and randomness.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The disk, as it is now.
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// Runs `main` on a fresh disk to its end and returns its result.
    pub fn run<F: Future + 'static>(
        seed: u64,
        main: impl FnOnce(SimEnvironment) -> F,
    ) -> F::Output {
        Self::new(seed)
            .run_until(StopAt::default(), main)
            .finished()
    }

    /// Runs `main`, and what it spawns, until it returns or the world is stopped; then drops all tasks.
    ///
    /// # Panics
    /// When a task panics, when everything waits for something that cannot happen, or when the run spins without end.
    pub fn run_until<F: Future + 'static>(
        &self,
        stop_at: StopAt,
        main: impl FnOnce(SimEnvironment) -> F,
    ) -> Outcome<F::Output> {
        self.disk.attach(self.world.clone());
        let result: Rc<RefCell<Option<F::Output>>> = Rc::default();
        let slot = result.clone();
        let future = main(self.environment());
        self.world.spawn("main", async move {
            let output = future.await;
            *slot.borrow_mut() = Some(output);
        });
        let mut steps = 0;
        let outcome = loop {
            if let Some(output) = result.borrow_mut().take() {
                break Outcome::Finished(output);
            }
            if self.world.must_stop(&stop_at, steps) {
                break Outcome::Stopped;
            }
            steps += 1;
            assert!(
                steps < STEPS_MAX,
                "seed {}: the run spins without end",
                self.world.state.borrow().seed
            );
            if !self.world.run_one() && !self.world.advance(stop_at.micros) {
                panic!("{}", self.world.describe_stuck());
            }
        };
        self.disk.freeze();
        self.world.drop_everything();
        outcome
    }
}
