//! Counts a process's system calls by the kernel's own tracepoint, through `perf stat`, where that is installed and allowed.
//!
//! `perf` is asked and not the kernel directly: it follows threads that come later and knows each kernel's ways. Counting costs
//! every system call a little, so it is done only when asked for.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const EVENT: &str = "raw_syscalls:sys_enter";

/// A count under way.
pub struct SyscallCounter(Result<Child, String>);

impl SyscallCounter {
    /// Begins to count for `pids`.
    pub fn start(pids: &[u32]) -> SyscallCounter {
        if pids.is_empty() {
            return SyscallCounter(Err("no process was given (--pid)".into()));
        }
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        let child = Command::new("perf")
            .args(["stat", "-x", ",", "-e", EVENT, "-p", &pids.join(",")])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        SyscallCounter(child.map_err(|error| format!("perf could not be run: {error}")))
    }

    /// Ends counting. An error says why nothing was counted.
    pub fn finish(self) -> Result<u64, String> {
        let mut child = self.0?;
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself: then its output says why.
            let _ = kill_process(pid, Signal::INT);
        }
        let mut said = String::new();
        if let Some(stderr) = &mut child.stderr {
            stderr
                .read_to_string(&mut said)
                .map_err(|error| error.to_string())?;
        }
        child.wait().map_err(|error| error.to_string())?;
        parse(&said)
    }
}

/// The count in what `perf stat -x,` wrote.
fn parse(said: &str) -> Result<u64, String> {
    let line = said.lines().find(|line| line.contains(EVENT));
    let count = line.and_then(|line| line.split(',').next()?.parse().ok());
    count.ok_or_else(|| {
        let reason = said.lines().find(|line| !line.trim().is_empty());
        format!(
            "perf did not count: {}",
            reason.unwrap_or("it said nothing").trim()
        )
    })
}

#[cfg(test)]
mod tests {
    //! perf's lines are understood, its refusals are passed on, and where perf works real system calls are counted.
    use super::*;

    #[test]
    fn counts_and_refusals() {
        assert_eq!(
            parse("1234,,raw_syscalls:sys_enter,99,100.00,,\n"),
            Ok(1234)
        );
        let refused = parse("<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n").unwrap_err();
        assert!(refused.contains("<not supported>"), "{refused}");
        let denied =
            parse("\nNo permission to enable raw_syscalls:sys_enter event.\n").unwrap_err();
        assert!(denied.contains("No permission"), "{denied}");
        assert!(parse("").unwrap_err().contains("said nothing"));
        assert!(SyscallCounter::start(&[]).finish().is_err());
    }

    #[test]
    fn own_calls_are_counted_where_perf_may() {
        let counter = SyscallCounter::start(&[std::process::id()]);
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_secs(1) {
            std::hint::black_box(rustix::process::getppid());
        }
        match counter.finish() {
            Ok(count) => assert!(count > 100, "{count}"),
            Err(reason) => assert!(reason.contains("perf"), "{reason}"),
        }
    }
}
