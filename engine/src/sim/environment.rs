//! The environment of a simulated process: virtual time, seeded randomness, the simulated disk.

use std::future::Future;
use std::time::Duration;

use super::{Sleep, World};
use crate::disk::sim::SimDisk;
use crate::environment::Environment;

/// What code under simulation is handed in place of the real world.
#[derive(Clone)]
pub struct SimEnvironment {
    world: World,
    disk: SimDisk,
}

impl SimEnvironment {
    pub(super) fn new(world: World, disk: SimDisk) -> Self {
        Self { world, disk }
    }

    /// The world itself, for tests that move the wall clock or stop it.
    pub fn world(&self) -> &World {
        &self.world
    }
}

impl Environment for SimEnvironment {
    type Disk = SimDisk;

    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn now(&self) -> u64 {
        self.world.now()
    }

    fn wall_clock_ms(&self) -> i64 {
        self.world.wall_clock_ms()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let sleep: Sleep = self.world.sleep(duration);
        sleep
    }

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) {
        self.world.spawn(name, future);
    }

    fn random(&self) -> u64 {
        self.world.random()
    }
}
