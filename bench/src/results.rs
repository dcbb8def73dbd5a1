//! What a run found, as JSON for machines and as a table for people.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::Serialize;

use crate::companions::{ChurnFigures, SlowFigures};
use crate::environment::Environment;
use crate::latency::Summary;
use crate::series::FlowSecond;
use crate::verify::Verdict;
use crate::watch::{Observed, Usage};
use crate::workload::{Arrival, Rate, Workload};

/// The client of record, as every result names it.
pub const CLIENT: &str = concat!(
    "ringlog-bench ",
    env!("CARGO_PKG_VERSION"),
    " (own client, one thread)"
);

/// The producing half of a result. "Window" figures count what was acknowledged while the window was open.
#[derive(Clone, Debug, Serialize)]
pub struct ProducerFigures {
    /// As fast as possible: latency then runs from when a batch was made, and is no open-loop latency.
    pub closed_loop: bool,
    /// Records acknowledged per second.
    pub records_per_s: f64,
    /// Bytes of values acknowledged, in 10⁶ per second.
    pub mb_per_s: f64,
    /// Records acknowledged in the window.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Requests answered in the window.
    pub requests: u64,
    /// Batches in them.
    pub batches: u64,
    /// Records sent in the whole run.
    pub records_offered: u64,
    /// Records acknowledged in the whole run.
    pub records_acknowledged: u64,
    /// Records without any answer.
    pub records_unanswered: u64,
    /// Records that fell due and were never sent.
    pub records_never_offered: u64,
    /// Refused records by error.
    pub errors: BTreeMap<String, u64>,
    /// From the intended send time (open loop) to the acknowledgement.
    pub latency: Option<Summary>,
    /// How late the generator itself was.
    pub lateness: Option<Summary>,
    /// What was acknowledged, second by second.
    pub series: Vec<FlowSecond>,
}

/// The consuming half of a result.
#[derive(Clone, Debug, Serialize)]
pub struct ConsumerFigures {
    /// Records received per second.
    pub records_per_s: f64,
    /// Bytes of record batches received, in 10⁶ per second.
    pub mb_per_s: f64,
    /// Records received in the window.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// Fetches answered in the window.
    pub requests: u64,
    /// Records received in the whole run.
    pub records_received: u64,
    /// Batches that failed their checks.
    pub damaged_batches: u64,
    /// Errors by name.
    pub errors: BTreeMap<String, u64>,
    /// What was received, second by second.
    pub series: Vec<FlowSecond>,
}

/// Everything a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The workload's name.
    pub name: String,
    /// The workload's purpose.
    pub about: String,
    /// Whether everything was done and nothing failed.
    pub complete: bool,
    /// Whether a connection broke or verification failed, and not only time ran out.
    pub broken: bool,
    /// What failed.
    pub problems: Vec<String>,
    /// What makes the figures doubtful although nothing failed.
    pub doubts: Vec<String>,
    /// Which client made the load.
    pub client: String,
    /// Producing.
    pub producer: Option<ProducerFigures>,
    /// Consuming.
    pub consumer: Option<ConsumerFigures>,
    /// From the intended send time to receipt by the consumer.
    pub end_to_end: Option<Summary>,
    /// Connections that came and went.
    pub churn: Option<ChurnFigures>,
    /// Readers that hardly read.
    pub slow_readers: Option<SlowFigures>,
    /// CPU, memory, disk.
    pub observed: Option<Observed>,
    /// Whether records were verified.
    pub verify: bool,
    /// What verification found.
    pub verdict: Option<Verdict>,
    /// The workload as it was run.
    pub workload: Workload,
    /// Where it ran.
    pub environment: Environment,
}

/// Share of an open loop's rate that must be reached.
const RATE_REACHED: f64 = 0.99;
/// Standard deviations by which random arrivals may stray from their rate.
const POISSON_STRAYS: f64 = 4.0;
/// Cores the generator may keep busy before it is taken for the limit; it is one thread.
const GENERATOR_FULL_CORES: f64 = 0.9;
/// Delay of the generator's own beyond which it is taken for the limit of a rate that was not reached.
const GENERATOR_LATE_MS: f64 = 100.0;

/// Who could do no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// This tool.
    Generator,
    /// What it measured.
    Broker,
}

/// An open loop whose rate was not reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shortfall {
    /// Records per second asked for.
    pub asked: f64,
    /// Records per second acknowledged.
    pub reached: f64,
    /// Why.
    pub limit: Limit,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.limit {
            Limit::Generator => "the generator is the limit",
            Limit::Broker => "the broker did not keep up",
        };
        write!(
            f,
            "{:.0} of {} records/s were reached: {who}",
            self.reached, self.asked
        )
    }
}

impl Outcome {
    /// Of a run that found nothing yet.
    pub fn new(workload: &Workload, environment: Environment) -> Outcome {
        Outcome {
            name: workload.name.clone(),
            about: workload.about.clone(),
            complete: true,
            broken: false,
            problems: Vec::new(),
            doubts: Vec::new(),
            client: CLIENT.to_string(),
            producer: None,
            consumer: None,
            end_to_end: None,
            churn: None,
            slow_readers: None,
            observed: None,
            verify: false,
            verdict: None,
            workload: workload.clone(),
            environment,
        }
    }

    /// What an open loop failed to reach of its rate, and whether that was the generator's own doing: its thread was busy all the
    /// time, or it was late although there was room.
    pub fn shortfall(&self) -> Option<Shortfall> {
        let producer = self.producer.as_ref()?;
        let config = self.workload.producer.as_ref()?;
        let Rate::PerSecond(asked) = config.rate else {
            return None;
        };
        let mut enough = asked * RATE_REACHED;
        if config.arrival == Arrival::Poisson {
            // By chance alone the number that falls due strays by the root of what is expected.
            let groups = asked * self.workload.run.duration_s / f64::from(config.burst_records);
            enough -= asked * POISSON_STRAYS / groups.max(1e-9).sqrt();
        }
        if producer.records_per_s >= enough {
            return None;
        }
        let full = self
            .observed
            .as_ref()
            .is_some_and(|seen| seen.generator.cores() > GENERATOR_FULL_CORES);
        let late = producer
            .lateness
            .as_ref()
            .is_some_and(|late| late.p99_ms > GENERATOR_LATE_MS);
        Some(Shortfall {
            asked,
            reached: producer.records_per_s,
            limit: if full || late {
                Limit::Generator
            } else {
                Limit::Broker
            },
        })
    }

    /// End to end where that was measured, else of producing.
    pub fn main_latency(&self) -> Option<&Summary> {
        let produce = || self.producer.as_ref()?.latency.as_ref();
        self.end_to_end.as_ref().or_else(produce)
    }

    /// Records the broker handled in the window: produced and fetched ones.
    fn records(&self) -> u64 {
        self.producer.as_ref().map_or(0, |p| p.records)
            + self.consumer.as_ref().map_or(0, |c| c.records)
    }

    fn bytes(&self) -> u64 {
        self.producer.as_ref().map_or(0, |p| p.bytes)
            + self.consumer.as_ref().map_or(0, |c| c.bytes)
    }

    fn requests(&self) -> u64 {
        self.producer.as_ref().map_or(0, |p| p.requests)
            + self.consumer.as_ref().map_or(0, |c| c.requests)
    }

    /// Broker CPU microseconds per produced record (or fetched one, where nothing is produced).
    pub fn broker_us_per_record(&self) -> Option<f64> {
        let usage = self.observed.as_ref()?.broker.as_ref()?;
        let records = self
            .producer
            .as_ref()
            .map_or_else(|| self.records(), |producer| producer.records);
        (records > 0).then(|| usage.cpu_s() * 1e6 / records as f64)
    }

    /// Broker CPU microseconds per request answered, of either kind.
    pub fn broker_us_per_request(&self) -> Option<f64> {
        let usage = self.observed.as_ref()?.broker.as_ref()?;
        (self.requests() > 0).then(|| usage.cpu_s() * 1e6 / self.requests() as f64)
    }

    /// Broker CPU seconds per 10⁹ bytes produced and fetched.
    pub fn broker_s_per_gb(&self) -> Option<f64> {
        let usage = self.observed.as_ref()?.broker.as_ref()?;
        (self.bytes() > 0).then(|| usage.cpu_s() * 1e9 / self.bytes() as f64)
    }

    /// Generator CPU seconds per 10⁶ records.
    pub fn generator_s_per_million(&self) -> Option<f64> {
        let usage = &self.observed.as_ref()?.generator;
        (self.records() > 0).then(|| usage.cpu_s() * 1e6 / self.records() as f64)
    }

    /// The whole result as JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// Three significant digits, without a trail of zeros.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn latency_line(out: &mut String, what: &str, summary: &Summary) -> fmt::Result {
    writeln!(
        out,
        "  {what:<22} p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3} ms  ({} samples)",
        summary.p50_ms,
        summary.p90_ms,
        summary.p99_ms,
        summary.p999_ms,
        summary.max_ms,
        summary.count
    )
}

fn usage_line(out: &mut String, who: &str, usage: &Usage) -> fmt::Result {
    write!(
        out,
        "  {who:<22} {:.3} cores (user {:.2} s, system {:.2} s)  RSS {:.1} MB, at most {:.1} MB",
        usage.cores(),
        usage.user_s,
        usage.system_s,
        usage.rss_bytes as f64 / 1e6,
        usage.rss_max_bytes as f64 / 1e6
    )?;
    if let (Some(waited), Some(preempted)) = (usage.voluntary_switches, usage.involuntary_switches)
    {
        write!(out, "  {waited} waits, {preempted} preemptions")?;
    }
    if let Some(calls) = usage.syscalls {
        write!(out, "  {calls} system calls")?;
    }
    if let Some(held) = usage.throttled.filter(|held| held.times > 0) {
        write!(
            out,
            "  held back {} times for {:.2} s",
            held.times, held.seconds
        )?;
    }
    match usage.write_bytes {
        Some(bytes) => writeln!(out, "  wrote {:.1} MB", bytes as f64 / 1e6),
        None => writeln!(out),
    }
}

impl Outcome {
    fn table(&self, out: &mut String) -> fmt::Result {
        let state = if self.complete { "" } else { "  INCOMPLETE" };
        writeln!(out, "{}{state}: {}", self.name, self.about)?;
        if let Some(producer) = &self.producer {
            let kind = if producer.closed_loop {
                "produce, closed loop"
            } else {
                "produce, open loop"
            };
            writeln!(
                out,
                "  {kind:<22} {:.0} records/s  {:.1} MB/s  {} requests  {} batches",
                producer.records_per_s, producer.mb_per_s, producer.requests, producer.batches
            )?;
            if let Some(latency) = &producer.latency {
                let what = if producer.closed_loop {
                    "batch round trip"
                } else {
                    "from intended time"
                };
                latency_line(out, what, latency)?;
            }
            if let Some(late) = &producer.lateness {
                latency_line(out, "generator's own delay", late)?;
            }
        }
        if let Some(consumer) = &self.consumer {
            writeln!(
                out,
                "  {:<22} {:.0} records/s  {:.1} MB/s  {} requests",
                "fetch", consumer.records_per_s, consumer.mb_per_s, consumer.requests
            )?;
        }
        if let Some(latency) = &self.end_to_end {
            latency_line(out, "end to end", latency)?;
        }
        if let Some(churn) = &self.churn {
            writeln!(
                out,
                "  {:<22} {} opened and closed, {} failed",
                "connections", churn.opened, churn.failed
            )?;
            if let Some(latency) = &churn.latency {
                latency_line(out, "connection to metadata", latency)?;
            }
        }
        if let Some(slow) = &self.slow_readers {
            writeln!(
                out,
                "  {:<22} {} took {:.1} MB in {} whole answers, {} broke",
                "slow readers",
                slow.readers,
                slow.bytes as f64 / 1e6,
                slow.answers,
                slow.broken
            )?;
        }
        self.table_of_costs(out)?;
        if let Some(verdict) = &self.verdict {
            let state = if verdict.clean() { "clean" } else { "FAILED" };
            writeln!(
                out,
                "  {:<22} {state}: {} records seen, {} lost, {} duplicated, {} reordered, {} corrupted",
                "verification",
                verdict.seen,
                verdict.lost,
                verdict.duplicated,
                verdict.reordered,
                verdict.corrupted
            )?;
            for example in &verdict.examples {
                writeln!(out, "    {example}")?;
            }
        }
        for doubt in &self.doubts {
            writeln!(out, "  doubtful: {doubt}")?;
        }
        for problem in &self.problems {
            writeln!(out, "  problem: {problem}")?;
        }
        Ok(())
    }

    fn table_of_costs(&self, out: &mut String) -> fmt::Result {
        let Some(seen) = &self.observed else {
            return Ok(());
        };
        if let Some(broker) = &seen.broker {
            usage_line(out, "broker", broker)?;
            let figures = (
                self.broker_us_per_record(),
                self.broker_us_per_request(),
                self.broker_s_per_gb(),
            );
            if let (Some(record), Some(request), Some(gb)) = figures {
                writeln!(
                    out,
                    "  {:<22} {record:.1} µs per record  {request:.1} µs per request  {gb:.2} s per GB",
                    ""
                )?;
            }
        }
        if let Some(reason) = &seen.syscalls_refused {
            writeln!(out, "  {:<22} system calls were not counted: {reason}", "")?;
        }
        usage_line(out, "generator", &seen.generator)?;
        if let Some(cost) = self.generator_s_per_million() {
            writeln!(out, "  {:<22} {cost:.2} CPU s per million records", "")?;
        }
        writeln!(
            out,
            "  {:<22} {:.1} % idle, {:.1} % stolen, {:.1} MB in {} writes and {} flushes to disk",
            "machine",
            seen.machine.idle * 100.0,
            seen.machine.steal * 100.0,
            seen.machine.disk_written_bytes as f64 / 1e6,
            seen.machine.disk_writes,
            seen.machine.disk_flushes
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.table(&mut text)?;
        f.write_str(text.trim_end())
    }
}
