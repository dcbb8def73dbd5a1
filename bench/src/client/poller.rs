//! Readiness with nanosecond timeouts: a thin layer over epoll for the generator's single thread.
//!
//! An open-loop generator at 20,000 records per second must wake every 50 µs, which the millisecond timeouts of the usual
//! readiness crates cannot express. Sockets are watched level-triggered; interest in writing exists only while output is stuck.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

/// Events taken from the kernel in one call; the rest come with the next call.
const EVENTS_PER_WAIT: usize = 256;

/// What happened to one socket.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    /// The token the socket was added with.
    pub token: u64,
    /// There is input, or the peer closed, or the socket failed: reading tells which.
    pub readable: bool,
    /// Output can make progress.
    pub writable: bool,
}

/// A set of watched sockets.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    /// An empty set. Also asks the kernel not to round this thread's timeouts up by its default slack of 50 µs.
    pub fn new() -> std::io::Result<Poller> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Without it latencies read up to 50 µs too high; a kernel that refuses costs precision, not correctness.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        Ok(Poller {
            epoll,
            events: Vec::with_capacity(EVENTS_PER_WAIT),
        })
    }

    /// Watches `socket` for input, and for room to write where `write` is set.
    pub fn add(&self, socket: impl AsFd, token: u64, write: bool) -> std::io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            socket,
            epoll::EventData::new_u64(token),
            interest(write),
        )?)
    }

    /// Changes whether room to write is of interest.
    pub fn modify(&self, socket: impl AsFd, token: u64, write: bool) -> std::io::Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            socket,
            epoll::EventData::new_u64(token),
            interest(write),
        )?)
    }

    /// Stops watching. Closing a socket does so as well.
    pub fn remove(&self, socket: impl AsFd) -> std::io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Waits until something is ready or `timeout` has passed, and hands what is ready to `each`.
    pub fn wait(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(Readiness),
    ) -> std::io::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            Some(&timeout),
        ) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            let flags = event.flags;
            let failed = flags.intersects(
                epoll::EventFlags::ERR | epoll::EventFlags::HUP | epoll::EventFlags::RDHUP,
            );
            each(Readiness {
                token: event.data.u64(),
                readable: failed || flags.contains(epoll::EventFlags::IN),
                writable: flags.contains(epoll::EventFlags::OUT),
            });
        }
        Ok(())
    }
}

fn interest(write: bool) -> epoll::EventFlags {
    let read = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
    if write {
        read | epoll::EventFlags::OUT
    } else {
        read
    }
}
