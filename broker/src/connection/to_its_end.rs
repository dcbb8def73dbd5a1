//! Work that is done by the task that waits for it, and yet to its end: when that task goes, somebody else is handed the rest.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

/// Work in progress, and who takes the rest.
pub(super) struct ToItsEnd<T, Rest: FnMut(LocalBoxFuture<'static, T>)> {
    /// None once it has ended.
    work: Option<LocalBoxFuture<'static, T>>,
    rest: Rest,
}

impl<T, Rest: FnMut(LocalBoxFuture<'static, T>)> ToItsEnd<T, Rest> {
    /// `rest` is called if this is dropped before the work has ended.
    pub(super) fn new(work: LocalBoxFuture<'static, T>, rest: Rest) -> Self {
        let work = Some(work);
        Self { work, rest }
    }
}

impl<T, Rest: FnMut(LocalBoxFuture<'static, T>) + Unpin> Future for ToItsEnd<T, Rest> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let result = ready!(work.poll_unpin(context));
        self.work = None;
        Poll::Ready(result)
    }
}

impl<T, Rest: FnMut(LocalBoxFuture<'static, T>)> Drop for ToItsEnd<T, Rest> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            (self.rest)(work);
        }
    }
}

#[cfg(test)]
mod tests {
    //! The rest is handed on if there is one, and can be gone on with where it was left.
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::task::Waker;

    use super::*;

    #[test]
    fn what_was_begun_is_gone_on_with_by_somebody_else() {
        let steps = std::rc::Rc::new(Cell::new(0));
        let step = {
            let steps = steps.clone();
            move || steps.set(steps.get() + 1)
        };
        let work = async move {
            step();
            let mut first = true;
            poll_fn(|_| match std::mem::take(&mut first) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            })
            .await;
            step();
        };
        let mut context = Context::from_waker(Waker::noop());
        let mut left = None;
        let mut begun = ToItsEnd::new(work.boxed_local(), |rest| left = Some(rest));
        assert!(begun.poll_unpin(&mut context).is_pending());
        drop(begun);
        assert_eq!(steps.get(), 1);
        let mut rest = left.expect("work is left");
        assert!(rest.poll_unpin(&mut context).is_ready());
        assert_eq!(steps.get(), 2);
    }

    #[test]
    fn nothing_is_left_of_what_has_ended() {
        let work = ToItsEnd::new(async { 7 }.boxed_local(), |_| panic!("nothing is left"));
        assert_eq!(work.now_or_never(), Some(7));
    }
}
