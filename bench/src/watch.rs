//! Watches processes and the machine from outside, through /proc: CPU, memory, disk, context switches, stolen time.
//!
//! Nothing here talks to a broker. A figure the kernel does not show is absent, never zero. CPU comes in clock ticks (usually
//! 10 ms), so windows should last seconds.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::Serialize;

pub use control_group::Throttling;
use syscalls::SyscallCounter;

mod control_group;
mod syscalls;

/// How often memory is looked at while a window is open.
const MEMORY_EVERY: Duration = Duration::from_millis(500);
/// The shortest stretch of the series: below a second, clock ticks would show more than the load.
const MOMENT_MIN: Duration = Duration::from_millis(900);
/// Moments kept at most; a longer run keeps its first part.
const MOMENTS_MAX: usize = 24 * 3600;
/// Bytes of a sector in /proc/diskstats, whatever the device.
const SECTOR_BYTES: u64 = 512;

/// Counters of a process and its descendants at one moment.
#[derive(Clone, Debug, Default)]
struct Process {
    /// CPU time by the processes' own clocks, which is exact where ticks are not; none where a process has gone.
    cpu_ns: Option<u64>,
    throttling: Option<Throttling>,
    user_ticks: u64,
    system_ticks: u64,
    rss_bytes: u64,
    read_bytes: Option<u64>,
    write_bytes: Option<u64>,
    read_calls: Option<u64>,
    write_calls: Option<u64>,
    voluntary: Option<u64>,
    involuntary: Option<u64>,
    threads: u64,
}

/// Counters of the machine at one moment.
#[derive(Clone, Debug, Default)]
struct Machine {
    ticks: u64,
    idle_ticks: u64,
    steal_ticks: u64,
    disk_written_bytes: u64,
    disk_read_bytes: u64,
    disk_writes: u64,
    disk_flushes: u64,
}

/// What a process used during a window.
#[derive(Clone, Debug, Serialize)]
pub struct Usage {
    /// Seconds of the window.
    pub seconds: f64,
    /// CPU seconds by the process's own clock, where that could be read: to the nanosecond, while user and system time come in ticks.
    pub exact_cpu_s: Option<f64>,
    /// CPU seconds in user mode.
    pub user_s: f64,
    /// CPU seconds in the kernel.
    pub system_s: f64,
    /// Resident bytes at the end.
    pub rss_bytes: u64,
    /// Most resident bytes seen.
    pub rss_max_bytes: u64,
    /// Bytes the process caused to be read from disk.
    pub read_bytes: Option<u64>,
    /// Bytes the process caused to be written to disk.
    pub write_bytes: Option<u64>,
    /// Read system calls; what goes through io_uring does not count here.
    pub read_calls: Option<u64>,
    /// Write system calls; what goes through io_uring does not count here.
    pub write_calls: Option<u64>,
    /// Context switches because a thread waited.
    pub voluntary_switches: Option<u64>,
    /// Context switches because a thread was preempted.
    pub involuntary_switches: Option<u64>,
    /// System calls of all kinds, where they were asked for and the kernel lets them be counted.
    pub syscalls: Option<u64>,
    /// How its control group was held back, where there is one with a limit.
    pub throttled: Option<Throttling>,
    /// Threads at the end.
    pub threads: u64,
}

impl Usage {
    /// CPU seconds altogether.
    pub fn cpu_s(&self) -> f64 {
        self.exact_cpu_s.unwrap_or(self.user_s + self.system_s)
    }

    /// Cores kept busy.
    pub fn cores(&self) -> f64 {
        self.cpu_s() / self.seconds.max(1e-9)
    }
}

/// What the machine did during a window.
#[derive(Clone, Debug, Serialize)]
pub struct MachineUsage {
    /// Share of CPU time that the hypervisor took, from 0 to 1.
    pub steal: f64,
    /// Share of CPU time that was idle, from 0 to 1.
    pub idle: f64,
    /// Cores kept busy by neither broker nor generator, where the broker is watched.
    pub other_cores: Option<f64>,
    /// The longest that a thread which only sleeps was late, in seconds: nobody ran, whether paused, suspended or starved.
    pub stood_still_s: f64,
    /// Bytes written to disks.
    pub disk_written_bytes: u64,
    /// Bytes read from disks.
    pub disk_read_bytes: u64,
    /// Write operations that reached disks.
    pub disk_writes: u64,
    /// Flushes that reached disks.
    pub disk_flushes: u64,
}

/// Usage of the broker, of this process and of the machine over the same window.
#[derive(Clone, Debug, Serialize)]
pub struct Observed {
    /// The broker, where its pid was given.
    pub broker: Option<Usage>,
    /// The generator itself.
    pub generator: Usage,
    /// The machine.
    pub machine: MachineUsage,
    /// Why system calls were not counted, where they were asked for.
    pub syscalls_refused: Option<String>,
    /// About once a second, what was used since the moment before.
    pub series: Vec<Moment>,
}

/// A stretch of about a second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Moment {
    /// Its end, in seconds since the window began.
    pub at_s: f64,
    /// Cores the broker kept busy.
    pub broker_cores: Option<f64>,
    /// Resident memory of the broker at the end, 10⁶ bytes.
    pub broker_rss_mb: Option<f64>,
    /// What the broker wrote to disk, 10⁶ bytes per second.
    pub broker_write_mb_per_s: Option<f64>,
    /// Cores the generator kept busy.
    pub generator_cores: f64,
    /// Share of the machine's CPU time that the hypervisor took, from 0 to 1.
    pub steal: f64,
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// `pid` and everything descended from it.
pub fn family(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if let Some(parent) =
            stat_fields(child).and_then(|fields| fields.get(1)?.parse::<u32>().ok())
        {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut family = vec![pid];
    let mut at = 0;
    while at < family.len() {
        family.extend(children.remove(&family[at]).unwrap_or_default());
        at += 1;
    }
    family
}

/// Whether the process runs (and is not only waiting to be reaped).
pub fn alive(pid: u32) -> bool {
    stat_fields(pid).is_some_and(|fields| {
        fields
            .first()
            .is_some_and(|state| state != "Z" && state != "X")
    })
}

/// Fields of /proc/PID/stat from the state on; the name before it may hold anything.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = text.rsplit_once(')')?;
    Some(after.split_whitespace().map(str::to_string).collect())
}

fn keyed(path: &str) -> HashMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        Some((
            key.to_string(),
            value.split_whitespace().next()?.parse().ok()?,
        ))
    });
    lines.collect()
}

/// CPU nanoseconds of a process, with the threads that have ended.
fn cpu_ns(pid: u32) -> Option<u64> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    let clock: ClockId = clock_getcpuclockid(pid).ok()?;
    let time = clock_gettime(clock).ok()?;
    u64::try_from(Duration::from(time).as_nanos()).ok()
}

impl Process {
    /// Sums over `pids`. Context switches are counted per thread, which costs a file each: only where `switches` is set.
    fn sample(pids: &[u32], switches: bool) -> Process {
        let mut sum = Process {
            cpu_ns: pids.iter().copied().map(cpu_ns).sum(),
            throttling: pids.first().and_then(|&pid| Throttling::of(pid)),
            ..Process::default()
        };
        for &pid in pids {
            let Some(fields) = stat_fields(pid) else {
                continue;
            };
            let field = |at: usize| {
                fields
                    .get(at)
                    .and_then(|field| field.parse::<u64>().ok())
                    .unwrap_or(0)
            };
            sum.user_ticks += field(11);
            sum.system_ticks += field(12);
            sum.threads += field(17);
            sum.rss_bytes += keyed(&format!("/proc/{pid}/status"))
                .get("VmRSS")
                .copied()
                .unwrap_or(0)
                * 1024;
            let io = keyed(&format!("/proc/{pid}/io"));
            let add = |total: &mut Option<u64>, key: &str| {
                if let Some(value) = io.get(key) {
                    *total = Some(total.unwrap_or(0) + value);
                }
            };
            add(&mut sum.read_bytes, "read_bytes");
            add(&mut sum.write_bytes, "write_bytes");
            add(&mut sum.read_calls, "syscr");
            add(&mut sum.write_calls, "syscw");
            if !switches {
                continue;
            }
            for task in fs::read_dir(format!("/proc/{pid}/task"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let status = keyed(&format!("{}/status", task.path().display()));
                let add = |total: &mut Option<u64>, key: &str| {
                    if let Some(value) = status.get(key) {
                        *total = Some(total.unwrap_or(0) + value);
                    }
                };
                add(&mut sum.voluntary, "voluntary_ctxt_switches");
                add(&mut sum.involuntary, "nonvoluntary_ctxt_switches");
            }
        }
        sum
    }

    fn until(&self, end: &Process, seconds: f64, rss_max_bytes: u64) -> Usage {
        let difference = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
        Usage {
            seconds,
            exact_cpu_s: difference(self.cpu_ns, end.cpu_ns).map(|ns| ns as f64 / 1e9),
            syscalls: None,
            throttled: self
                .throttling
                .zip(end.throttling)
                .map(|(from, to)| from.until(to)),
            user_s: end.user_ticks.saturating_sub(self.user_ticks) as f64 / ticks_per_second(),
            system_s: end.system_ticks.saturating_sub(self.system_ticks) as f64
                / ticks_per_second(),
            rss_bytes: end.rss_bytes,
            rss_max_bytes: rss_max_bytes.max(end.rss_bytes),
            read_bytes: difference(self.read_bytes, end.read_bytes),
            write_bytes: difference(self.write_bytes, end.write_bytes),
            read_calls: difference(self.read_calls, end.read_calls),
            write_calls: difference(self.write_calls, end.write_calls),
            voluntary_switches: difference(self.voluntary, end.voluntary),
            involuntary_switches: difference(self.involuntary, end.involuntary),
            threads: end.threads,
        }
    }
}

impl Machine {
    fn sample() -> Machine {
        let mut machine = Machine::default();
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        if let Some(line) = stat.lines().next() {
            let ticks: Vec<u64> = line
                .split_whitespace()
                .skip(1)
                .filter_map(|field| field.parse().ok())
                .collect();
            machine.ticks = ticks.iter().take(8).sum();
            machine.idle_ticks = ticks.iter().skip(3).take(2).sum();
            machine.steal_ticks = ticks.get(7).copied().unwrap_or(0);
        }
        for line in fs::read_to_string("/proc/diskstats")
            .unwrap_or_default()
            .lines()
        {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Whole physical devices only: a partition would count twice, a loop or device-mapper volume as well.
            let Some(name) = fields.get(2) else { continue };
            if !Path::new(&format!("/sys/block/{name}/device")).exists() {
                continue;
            }
            let field = |at: usize| {
                fields
                    .get(at)
                    .and_then(|field| field.parse::<u64>().ok())
                    .unwrap_or(0)
            };
            machine.disk_read_bytes += field(5) * SECTOR_BYTES;
            machine.disk_writes += field(7);
            machine.disk_written_bytes += field(9) * SECTOR_BYTES;
            machine.disk_flushes += field(18);
        }
        machine
    }

    /// CPU seconds that somebody used, the hypervisor not counted.
    fn busy_s(&self, end: &Machine) -> f64 {
        let used = |machine: &Machine| machine.ticks - machine.idle_ticks - machine.steal_ticks;
        used(end).saturating_sub(used(self)) as f64 / ticks_per_second()
    }

    fn until(&self, end: &Machine) -> MachineUsage {
        let ticks = end.ticks.saturating_sub(self.ticks).max(1) as f64;
        MachineUsage {
            steal: end.steal_ticks.saturating_sub(self.steal_ticks) as f64 / ticks,
            idle: end.idle_ticks.saturating_sub(self.idle_ticks) as f64 / ticks,
            other_cores: None,
            stood_still_s: 0.0,
            disk_written_bytes: end
                .disk_written_bytes
                .saturating_sub(self.disk_written_bytes),
            disk_read_bytes: end.disk_read_bytes.saturating_sub(self.disk_read_bytes),
            disk_writes: end.disk_writes.saturating_sub(self.disk_writes),
            disk_flushes: end.disk_flushes.saturating_sub(self.disk_flushes),
        }
    }
}

/// Watches over one window from a thread of its own, so that reading /proc does not delay the generator.
pub struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<Observed>,
}

impl Watch {
    /// Takes the first sample after `delay`, and the last one when [`finish`](Self::finish) is called or `length` has passed.
    /// `count_syscalls` has the broker's system calls counted, which makes each of them a little slower.
    pub fn start(
        broker: Option<u32>,
        delay: Duration,
        length: Duration,
        count_syscalls: bool,
    ) -> Watch {
        let (stop, stopped) = channel();
        let thread =
            std::thread::spawn(move || watch(broker, delay, length, count_syscalls, &stopped));
        Watch { stop, thread }
    }

    /// Ends the window if it is still open, and gives what was seen.
    pub fn finish(self) -> Option<Observed> {
        // The thread may have ended by itself; then nobody listens and that is fine.
        let _ = self.stop.send(());
        self.thread.join().ok()
    }
}

fn watch(
    broker: Option<u32>,
    delay: Duration,
    length: Duration,
    count_syscalls: bool,
    stopped: &Receiver<()>,
) -> Observed {
    let mut over = !matches!(stopped.recv_timeout(delay), Err(RecvTimeoutError::Timeout));
    let begun = Instant::now();
    let own = [std::process::id()];
    let pids = broker.map(family).unwrap_or_default();
    let counter = count_syscalls.then(|| SyscallCounter::start(&pids));
    let sample = |switches| {
        let processes = (
            Process::sample(&pids, switches),
            Process::sample(&own, switches),
        );
        (processes.0, processes.1, Machine::sample())
    };
    let first = sample(true);
    let mut rss = (first.0.rss_bytes, first.1.rss_bytes);
    // Once the broker died there is nothing to read: what was seen last counts.
    let mut seen_last = None;
    let mut stood_still = Duration::ZERO;
    let mut series = Vec::new();
    let mut before = (Duration::ZERO, first.clone());
    while !over {
        let left = length.saturating_sub(begun.elapsed());
        let (asleep, asked) = (Instant::now(), left.min(MEMORY_EVERY));
        let waited = stopped.recv_timeout(asked);
        stood_still = stood_still.max(asleep.elapsed().saturating_sub(asked));
        over = left.is_zero() || !matches!(waited, Err(RecvTimeoutError::Timeout));
        let light = sample(false);
        rss = (rss.0.max(light.0.rss_bytes), rss.1.max(light.1.rss_bytes));
        if broker.is_some_and(alive) {
            seen_last = Some(light.0.clone());
        }
        let now = begun.elapsed();
        if now - before.0 >= MOMENT_MIN && series.len() < MOMENTS_MAX {
            let watched = broker.is_some_and(alive);
            let after = (now, (light.0, light.1, Machine::sample()));
            series.push(moment(&before, &after, watched));
            before = after;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let mut last = sample(true);
    if !broker.is_none_or(alive) {
        last.0 = seen_last.unwrap_or_else(|| first.0.clone());
    }
    let mut broker = broker.map(|_| first.0.until(&last.0, seconds, rss.0));
    let (syscalls, syscalls_refused) = match counter.map(SyscallCounter::finish) {
        Some(Ok(count)) => (Some(count), None),
        Some(Err(reason)) => (None, Some(reason)),
        None => (None, None),
    };
    if let Some(broker) = &mut broker {
        broker.syscalls = syscalls;
    }
    let generator = first.1.until(&last.1, seconds, rss.1);
    let mut machine = first.2.until(&last.2);
    let busy = first.2.busy_s(&last.2);
    machine.stood_still_s = stood_still.as_secs_f64();
    machine.other_cores = broker
        .as_ref()
        .map(|broker| ((busy - broker.cpu_s() - generator.cpu_s()) / seconds.max(1e-9)).max(0.0));
    Observed {
        broker,
        generator,
        machine,
        syscalls_refused,
        series,
    }
}

/// Broker, generator and machine, when.
type Samples = (Duration, (Process, Process, Machine));

fn moment(before: &Samples, after: &Samples, broker: bool) -> Moment {
    let seconds = (after.0 - before.0).as_secs_f64().max(1e-9);
    let (from, to) = (&before.1, &after.1);
    let usage = broker.then(|| from.0.until(&to.0, seconds, 0));
    Moment {
        at_s: after.0.as_secs_f64(),
        broker_cores: usage.as_ref().map(Usage::cores),
        broker_rss_mb: usage.as_ref().map(|usage| usage.rss_bytes as f64 / 1e6),
        broker_write_mb_per_s: usage
            .as_ref()
            .and_then(|usage| Some(usage.write_bytes? as f64 / seconds / 1e6)),
        generator_cores: from.1.until(&to.1, seconds, 0).cores(),
        steal: from.2.until(&to.2).steal,
    }
}

#[cfg(test)]
mod tests {
    //! Work done by this process is seen.
    use super::*;

    #[test]
    fn own_work_is_seen() {
        let watch = Watch::start(
            Some(std::process::id()),
            Duration::ZERO,
            Duration::from_secs(60),
            false,
        );
        let begun = Instant::now();
        let mut sum = 0u64;
        while begun.elapsed() < Duration::from_millis(1_600) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let seen = watch.finish().unwrap();
        let broker = seen.broker.unwrap();
        assert!(broker.cpu_s() > 0.1, "{broker:?}");
        let exact = broker.exact_cpu_s.expect("a process that lives");
        assert!(
            (exact - broker.user_s - broker.system_s).abs() < 0.1,
            "{broker:?}"
        );
        assert!(broker.rss_max_bytes > 1 << 20);
        let moment = seen.series.first().expect("one moment in 1.6 s");
        assert!(
            moment.broker_cores.is_some_and(|cores| cores > 0.05),
            "{moment:?}"
        );
        assert!(seen.machine.idle <= 1.0 && seen.machine.steal <= 1.0);
    }

    #[test]
    fn a_process_that_is_gone_is_not_alive() {
        assert!(alive(std::process::id()));
        assert!(!alive(u32::MAX - 1));
    }
}
