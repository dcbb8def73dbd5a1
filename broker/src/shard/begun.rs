//! Work that is begun in an order, some of which then waits for something: it goes on while more is begun, and its results are in the order of beginning.
//!
//! Whoever waits may hold a place in a line that others stand in behind it. Were it looked at only once everything is begun, all of them would wait for that.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

/// See the module.
pub(super) struct Begun<T> {
    done: Vec<Option<T>>,
    waiting: FuturesUnordered<LocalBoxFuture<'static, (usize, T)>>,
}

impl<T: 'static> Begun<T> {
    /// Nothing yet, of so many.
    pub fn with_capacity(count: usize) -> Self {
        Self {
            done: Vec::with_capacity(count),
            waiting: FuturesUnordered::new(),
        }
    }

    /// Begins one more, here and now.
    pub fn begin(&mut self, mut work: LocalBoxFuture<'static, T>, context: &mut Context<'_>) {
        let at = self.done.len();
        match work.poll_unpin(context) {
            Poll::Ready(result) => self.done.push(Some(result)),
            Poll::Pending => {
                self.done.push(None);
                let numbered = work.map(move |result| (at, result));
                self.waiting.push(numbered.boxed_local());
            }
        }
    }

    /// Lets what waits go on, where it can.
    pub fn go_on(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some((at, result))) = self.waiting.poll_next_unpin(context) {
            self.done[at] = Some(result);
        }
    }

    /// Does something else, while what waits goes on.
    pub async fn meanwhile<R>(&mut self, other: impl Future<Output = R>) -> R {
        let mut other = pin!(other);
        poll_fn(|context| {
            self.go_on(context);
            other.as_mut().poll(context)
        })
        .await
    }

    /// All results, once there are.
    pub async fn results(mut self) -> Vec<T> {
        poll_fn(|context| {
            self.go_on(context);
            match self.waiting.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        self.done.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    //! What waits goes on while more is begun; results come in order.
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::task::Waker;

    use super::*;

    /// A door that opens once, for one who waits at it.
    #[derive(Clone, Default)]
    struct Door(Rc<(Cell<bool>, RefCell<Option<Waker>>)>);

    impl Door {
        fn open(&self) {
            self.0.0.set(true);
            if let Some(waker) = self.0.1.take() {
                waker.wake();
            }
        }

        async fn pass(self) {
            poll_fn(|context| {
                *self.0.1.borrow_mut() = Some(context.waker().clone());
                match self.0.0.get() {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }
    }

    fn once<T>(work: impl Future<Output = T>) -> Poll<T> {
        pin!(work).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn begin(begun: &mut Begun<u32>, number: u32, doors: (&Door, &Door)) {
        let (first, then) = (doors.0.clone(), doors.1.clone());
        let work = async move {
            first.pass().await;
            then.open();
            number
        };
        begun.begin(work.boxed_local(), &mut Context::from_waker(Waker::noop()));
    }

    #[test]
    fn who_waits_goes_on_while_others_are_begun() {
        let (memory, others, open) = (Door::default(), Door::default(), Door::default());
        open.open();
        let mut begun = Begun::with_capacity(2);
        begin(&mut begun, 1, (&memory, &others));
        // While the next is checked, memory comes, and whoever stands behind the first in line gets on.
        let checking = async {
            memory.open();
            others.clone().pass().await;
        };
        {
            let mut work = pin!(begun.meanwhile(checking));
            let mut context = Context::from_waker(Waker::noop());
            assert_eq!(work.as_mut().poll(&mut context), Poll::Pending);
            assert_eq!(work.as_mut().poll(&mut context), Poll::Ready(()));
        }
        begin(&mut begun, 2, (&open, &others));
        assert_eq!(once(begun.results()), Poll::Ready(vec![1, 2]));
    }

    #[test]
    fn results_are_in_the_order_of_beginning() {
        let doors: [Door; 3] = Default::default();
        let nobody = Door::default();
        doors[1].open();
        let mut begun = Begun::with_capacity(3);
        for (number, door) in (0..).zip(&doors) {
            begin(&mut begun, number, (door, &nobody));
        }
        let mut results = pin!(begun.results());
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(results.as_mut().poll(&mut context), Poll::Pending);
        doors[2].open();
        assert_eq!(results.as_mut().poll(&mut context), Poll::Pending);
        doors[0].open();
        assert_eq!(
            results.as_mut().poll(&mut context),
            Poll::Ready(vec![0, 1, 2])
        );
    }
}
