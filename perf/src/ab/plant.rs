//! A slow-down planted in a broker, to see whether a comparison finds it: the process is stopped and continued many times a second, so that everything it
//! does takes longer by the clock, while not a byte of it is another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::broker::send;

/// How long it runs at a time: short beside every latency that is judged.
const RUNS: Duration = Duration::from_millis(2);
/// How finely the time it stands still is measured out.
const STEP: Duration = Duration::from_micros(100);

/// Slows a process until dropped.
pub struct Brake {
    released: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Brake {
    /// Slows the process `pid` by `by` parts: at 0.25 it stands still for a fifth of the time.
    pub fn on(pid: u32, by: f64) -> Brake {
        let released = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&released);
        let thread = thread::spawn(move || {
            hold(pid, by / (1.0 + by), &told);
        });
        Brake {
            released,
            thread: Some(thread),
        }
    }
}

impl Drop for Brake {
    fn drop(&mut self) {
        self.released.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and the process goes on whatever became of it.
            let _ = thread.join();
        }
    }
}

/// Stops and continues the process so that it stands still for `share` of the time; it runs when this returns.
fn hold(pid: u32, share: f64, released: &AtomicBool) {
    let begun = Instant::now();
    let mut stood_still = Duration::ZERO;
    while !released.load(Ordering::Relaxed) {
        thread::sleep(RUNS);
        let stopped = Instant::now();
        if !send(pid, Some(Signal::SIGSTOP)) {
            return;
        }
        // Sleeping takes longer than asked for: what counts is how much it stood still in all.
        while (stood_still + stopped.elapsed()).as_secs_f64()
            < begun.elapsed().as_secs_f64() * share
        {
            thread::sleep(STEP);
        }
        send(pid, Some(Signal::SIGCONT));
        stood_still += stopped.elapsed();
    }
}

#[cfg(test)]
mod tests {
    //! A braked process still ends what it does, and runs once it is let go.
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_is_let_go_runs_on() {
        let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; read line";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let brake = Brake::on(child.id(), 1.0);
        let mut output = child.stdout.take().unwrap();
        let mut said = [0; 5];
        std::io::Read::read_exact(&mut output, &mut said).unwrap();
        assert_eq!(&said, b"done\n");
        drop(brake);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let state = stat.rsplit(") ").next().unwrap().chars().next();
        assert_ne!(state, Some('T'), "{stat}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_ended_is_left_alone() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        drop(Brake::on(child.id(), 0.25));
    }
}
