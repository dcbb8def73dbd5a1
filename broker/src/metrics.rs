//! Counters and gauges: each shard writes its own, the control thread reads them all. No locks, no read-modify-write on the data path.
//!
//! Every metric stands once in the table of descriptions, with its documented name; `/metrics` renders what is there.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringlog_net::ApiKey;

use crate::lag;

/// A number that one shard writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only for the owning shard.
    pub fn add(&self, count: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// Sets; only for the owning shard.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds, for a number that several threads write.
    pub fn add_shared(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Subtracts, for a number that several threads write.
    pub fn subtract_shared(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of a [`Latency`], in microseconds.
const BOUNDS_US: [u64; 16] = [
    100, 200, 300, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 10_000_000,
];

/// How long something took, counted in fixed buckets; written by one shard.
#[derive(Debug, Default)]
pub struct Latency {
    /// Not cumulative; the last one is for what no bound covers.
    buckets: [Counter; BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl Latency {
    /// Counts one; only for the owning shard.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)].add(1);
        self.sum_us.add(us);
    }

    /// As Prometheus wants a histogram: cumulative buckets in seconds, sum and count.
    fn render(&self, text: &mut String, name: &str, labels: &str) {
        let mut count = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS_US) {
            count += bucket.get();
            let le = bound as f64 / 1e6;
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{le}\"}} {count}");
        }
        count += self.buckets[BOUNDS_US.len()].get();
        let sum = self.sum_us.get() as f64 / 1e6;
        let _ = writeln!(
            text,
            "{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}"
        );
    }
}

/// One more than the highest API key that is counted by itself.
const API_KEYS: usize = 96;

/// One shard's numbers.
#[derive(Debug)]
pub struct ShardMetrics {
    /// Requests by API key.
    requests: [Counter; API_KEYS],
    /// From a produce request's arrival to its acknowledgement, on the connection's shard.
    pub produce_latency: Latency,
    /// From a fetch's arrival to its answer, waiting for data included.
    pub fetch_latency: Latency,
    /// Bytes read from clients.
    pub bytes_received: Counter,
    /// Bytes sent to clients.
    pub bytes_sent: Counter,
    /// Connections handed to this shard and not yet closed; written by the accepting shard too.
    pub assigned: Counter,
    /// Connections open.
    pub connections: Counter,
    /// Connections opened since the start.
    pub connections_opened: Counter,
    /// Connections refused or closed for what the client sent.
    pub connections_refused: Counter,
    /// Batches appended.
    pub batches_appended: Counter,
    /// Bytes of batches appended.
    pub bytes_appended: Counter,
    /// Batches that were there already (idempotence).
    pub batches_duplicate: Counter,
    /// Batches refused.
    pub produce_refused: Counter,
    /// Bytes of batches handed to consumers.
    pub bytes_fetched: Counter,
    /// Fetches that waited for data.
    pub fetches_parked: Counter,
    /// Fetch sessions open.
    pub fetch_sessions: Counter,
    /// Bytes of requests held.
    pub request_bytes: Counter,
    /// Bytes of fetched batches held for their responses.
    pub response_bytes: Counter,
    /// Most bytes of fetched batches that may be held.
    pub response_bytes_max: Counter,
    /// Most bytes of requests that may be held.
    pub request_bytes_max: Counter,
    /// Requests to other shards that had to wait for room.
    pub mailbox_waits: Counter,
    /// Pauses of appends that had had the thread for a slice of time.
    pub append_pauses: Counter,
    /// Logs open.
    pub logs: Counter,
    /// Bytes in logs.
    pub log_bytes: Counter,
    /// Entries written to the journal: durable writes that acknowledgements waited for.
    pub journal_entries: Counter,
    /// Batches and other items in those entries.
    pub journal_items: Counter,
    /// Bytes written to the journal, padding included.
    pub journal_bytes: Counter,
    /// Bytes of journal files that some log still needs; bounds the work after a crash.
    pub journal_live_bytes: Counter,
    /// Bytes of all journal files; at most journal.bytes.max.
    pub journal_file_bytes: Counter,
    /// Bytes of recent batches held in memory.
    pub tail_cache_bytes: Counter,
    /// Limit of ringlog_tail_cache_bytes (memory.tail.cache.bytes).
    pub tail_cache_bytes_max: Counter,
    /// Bytes written to segment files.
    pub written_behind_bytes: Counter,
    /// Passes of compaction over a partition.
    pub cleaner_passes: Counter,
    /// Bytes of segments that compacted ones took the place of.
    pub cleaner_replaced_bytes: Counter,
    /// Bytes of those compacted segments.
    pub cleaner_kept_bytes: Counter,
    /// Partitions that cannot be compacted until the next start.
    pub cleaner_uncleanable: Counter,
    /// Share of the shard's dirtiest compacted partition that is not compacted, percent.
    pub cleaner_max_dirty_percent: Counter,
    /// Partitions whose log is offline; the log says why.
    pub logs_offline: Counter,
    /// Segment files open.
    pub open_files: Counter,
    /// Logs that a transaction is open in.
    pub open_transaction_logs: Counter,
    /// Age of the oldest of these transactions, in ms.
    pub oldest_open_transaction_ms: Counter,
    /// What the shard knows of groups' lag.
    pub lag: lag::Part,
    /// Groups coordinated here.
    pub groups: Counter,
    /// Members of those groups.
    pub group_members: Counter,
    /// Offsets they have committed.
    pub group_offsets: Counter,
}

impl Default for ShardMetrics {
    fn default() -> Self {
        let zero = Counter::default;
        Self {
            requests: std::array::from_fn(|_| zero()),
            produce_latency: Latency::default(),
            fetch_latency: Latency::default(),
            bytes_received: zero(),
            bytes_sent: zero(),
            assigned: zero(),
            connections: zero(),
            connections_opened: zero(),
            connections_refused: zero(),
            batches_appended: zero(),
            bytes_appended: zero(),
            batches_duplicate: zero(),
            produce_refused: zero(),
            bytes_fetched: zero(),
            fetches_parked: zero(),
            fetch_sessions: zero(),
            request_bytes: zero(),
            response_bytes: zero(),
            response_bytes_max: zero(),
            request_bytes_max: zero(),
            mailbox_waits: zero(),
            append_pauses: zero(),
            logs: zero(),
            journal_entries: zero(),
            journal_items: zero(),
            journal_bytes: zero(),
            journal_live_bytes: zero(),
            journal_file_bytes: zero(),
            tail_cache_bytes: zero(),
            tail_cache_bytes_max: zero(),
            written_behind_bytes: zero(),
            cleaner_passes: zero(),
            cleaner_replaced_bytes: zero(),
            cleaner_kept_bytes: zero(),
            cleaner_uncleanable: zero(),
            cleaner_max_dirty_percent: zero(),
            logs_offline: zero(),
            open_files: zero(),
            open_transaction_logs: zero(),
            oldest_open_transaction_ms: zero(),
            lag: lag::Part::default(),
            groups: zero(),
            group_members: zero(),
            group_offsets: zero(),
            log_bytes: zero(),
        }
    }
}

/// A metric's name, kind, meaning, and where its value is.
type Description = (
    &'static str,
    &'static str,
    &'static str,
    fn(&ShardMetrics) -> u64,
);

/// A latency's name, meaning, and where it is.
type LatencyDescription = (&'static str, &'static str, fn(&ShardMetrics) -> &Latency);

impl ShardMetrics {
    /// Counts a request.
    pub fn request(&self, api_key: ApiKey) {
        if let Some(counter) = self.requests.get(api_key as usize) {
            counter.add(1);
        }
    }

    /// Counts an appended batch.
    pub fn appended(&self, bytes: usize, duplicate: bool) {
        if duplicate {
            self.batches_duplicate.add(1);
        } else {
            self.batches_appended.add(1);
            self.bytes_appended.add(bytes as u64);
        }
    }

    #[rustfmt::skip]
    const DESCRIPTIONS: &[Description] = &[
        ("ringlog_received_bytes_total", "counter", "Bytes read from clients.", |m| m.bytes_received.get()),
        ("ringlog_sent_bytes_total", "counter", "Bytes sent to clients.", |m| m.bytes_sent.get()),
        ("ringlog_connections", "gauge", "Client connections open.", |m| m.connections.get()),
        ("ringlog_connections_opened_total", "counter", "Client connections opened.", |m| m.connections_opened.get()),
        ("ringlog_connections_refused_total", "counter", "Connections refused, or closed for what the client sent.", |m| m.connections_refused.get()),
        ("ringlog_appended_batches_total", "counter", "Record batches appended.", |m| m.batches_appended.get()),
        ("ringlog_appended_bytes_total", "counter", "Bytes of record batches appended.", |m| m.bytes_appended.get()),
        ("ringlog_duplicate_batches_total", "counter", "Idempotent batches that were there already.", |m| m.batches_duplicate.get()),
        ("ringlog_refused_batches_total", "counter", "Record batches refused.", |m| m.produce_refused.get()),
        ("ringlog_fetched_bytes_total", "counter", "Bytes of record batches handed to consumers.", |m| m.bytes_fetched.get()),
        ("ringlog_fetches_parked_total", "counter", "Fetches that waited for data.", |m| m.fetches_parked.get()),
        ("ringlog_fetch_sessions", "gauge", "Fetch sessions open.", |m| m.fetch_sessions.get()),
        ("ringlog_request_memory_bytes", "gauge", "Bytes of requests held in memory.", |m| m.request_bytes.get()),
        ("ringlog_request_memory_limit_bytes", "gauge", "Limit of ringlog_request_memory_bytes (memory.request.bytes).", |m| m.request_bytes_max.get()),
        ("ringlog_response_memory_bytes", "gauge", "Bytes of fetched batches held until their responses are sent.", |m| m.response_bytes.get()),
        ("ringlog_response_memory_limit_bytes", "gauge", "Limit of ringlog_response_memory_bytes (memory.response.bytes).", |m| m.response_bytes_max.get()),
        ("ringlog_mailbox_waits_total", "counter", "Requests to another shard that waited for room in its mailbox.", |m| m.mailbox_waits.get()),
        ("ringlog_append_pauses_total", "counter", "Times that checking and decompressing batches stood back for other work, after 2 ms.", |m| m.append_pauses.get()),
        ("ringlog_logs", "gauge", "Partitions with an open log.", |m| m.logs.get()),
        ("ringlog_log_bytes", "gauge", "Bytes in all logs.", |m| { m.log_bytes.get() }),
        ("ringlog_journal_entries_total", "counter", "Entries written to the journal: durable writes that acknowledgements waited for.", |m| m.journal_entries.get()),
        ("ringlog_journal_items_total", "counter", "Batches and other items in those entries.", |m| m.journal_items.get()),
        ("ringlog_journal_bytes_total", "counter", "Bytes written to the journal, padding included.", |m| m.journal_bytes.get()),
        ("ringlog_journal_live_bytes", "gauge", "Bytes of journal files that some log still needs; bounds the work after a crash.", |m| m.journal_live_bytes.get()),
        ("ringlog_journal_file_bytes", "gauge", "Bytes of all journal files; at most journal.bytes.max.", |m| m.journal_file_bytes.get()),
        ("ringlog_tail_cache_bytes", "gauge", "Bytes of recent batches held in memory.", |m| m.tail_cache_bytes.get()),
        ("ringlog_tail_cache_limit_bytes", "gauge", "Limit of ringlog_tail_cache_bytes (memory.tail.cache.bytes).", |m| m.tail_cache_bytes_max.get()),
        ("ringlog_segment_written_bytes_total", "counter", "Bytes written to segment files.", |m| m.written_behind_bytes.get()),
        ("ringlog_cleaner_passes_total", "counter", "Passes of compaction over a partition.", |m| m.cleaner_passes.get()),
        ("ringlog_cleaner_replaced_bytes_total", "counter", "Bytes of segments that compacted ones took the place of.", |m| m.cleaner_replaced_bytes.get()),
        ("ringlog_cleaner_kept_bytes_total", "counter", "Bytes of those compacted segments.", |m| m.cleaner_kept_bytes.get()),
        ("ringlog_cleaner_uncleanable_partitions", "gauge", "Partitions that cannot be compacted until the next start; the log says why.", |m| m.cleaner_uncleanable.get()),
        ("ringlog_cleaner_max_dirty_percent", "gauge", "Share of the shard's dirtiest compacted partition that is not compacted.", |m| m.cleaner_max_dirty_percent.get()),
        ("ringlog_logs_offline", "gauge", "Partitions whose log is offline; the log says why.", |m| m.logs_offline.get()),
        ("ringlog_segment_files_open", "gauge", "Segment files open.", |m| m.open_files.get()),
        ("ringlog_logs_with_open_transactions", "gauge", "Partitions that a transaction is open in.", |m| m.open_transaction_logs.get()),
        ("ringlog_oldest_open_transaction_milliseconds", "gauge", "Age of the oldest open transaction, as long as this broker has known it. Beyond transaction.max.timeout.ms it hangs: readers of committed records and compaction stop before it until kafka-transactions aborts it.", |m| m.oldest_open_transaction_ms.get()),
        ("ringlog_groups", "gauge", "Groups that the shard coordinates.", |m| m.groups.get()),
        ("ringlog_group_members", "gauge", "Members of those groups.", |m| m.group_members.get()),
        ("ringlog_group_offsets", "gauge", "Offsets that those groups have committed.", |m| m.group_offsets.get()),
    ];

    const LATENCIES: &[LatencyDescription] = &[
        (
            "ringlog_produce_seconds",
            "From a produce request's arrival to its acknowledgement, which is given when its records are on the medium.",
            |m| &m.produce_latency,
        ),
        (
            "ringlog_fetch_seconds",
            "From a fetch's arrival to its answer, waiting for data included.",
            |m| &m.fetch_latency,
        ),
    ];
    const REQUESTS: (&'static str, &'static str) = ("ringlog_requests_total", "Requests by API.");

    /// All shards' numbers as Prometheus text.
    pub fn render(shards: &[Arc<ShardMetrics>]) -> String {
        let mut text = String::new();
        let head = |text: &mut String, name: &str, kind: &str, meaning: &str| {
            let _ = writeln!(text, "# HELP {name} {meaning}\n# TYPE {name} {kind}");
        };
        for (name, kind, meaning, value) in Self::DESCRIPTIONS {
            head(&mut text, name, kind, meaning);
            for (shard, metrics) in shards.iter().enumerate() {
                let _ = writeln!(text, "{name}{{shard=\"{shard}\"}} {}", value(metrics));
            }
        }
        for (name, meaning, latency) in Self::LATENCIES {
            head(&mut text, name, "histogram", meaning);
            for (shard, metrics) in shards.iter().enumerate() {
                latency(metrics).render(&mut text, name, &format!("shard=\"{shard}\""));
            }
        }
        let (name, meaning) = Self::REQUESTS;
        head(&mut text, name, "counter", meaning);
        for (shard, metrics) in shards.iter().enumerate() {
            for (key, counter) in metrics.requests.iter().enumerate() {
                if let (Some(api), count @ 1..) = (ApiKey::from_i16(key as i16), counter.get()) {
                    let _ = writeln!(text, "{name}{{shard=\"{shard}\",api=\"{api}\"}} {count}");
                }
            }
        }
        lag::render(shards.iter().map(|metrics| &metrics.lag), &mut text);
        text
    }

    /// Every metric as a row of a Markdown table, for `ringlog metrics` and the README.
    pub fn markdown() -> String {
        let mut text =
            String::from("| metric | type | labels | what it says |\n|---|---|---|---|\n");
        let mut row = |name: &str, kind: &str, labels: &str, meaning: &str| {
            let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {meaning} |");
        };
        for (name, kind, meaning, _) in Self::DESCRIPTIONS {
            row(name, kind, "`shard`", meaning);
        }
        for (name, meaning, _) in Self::LATENCIES {
            row(name, "histogram", "`shard`", meaning);
        }
        row(
            Self::REQUESTS.0,
            "counter",
            "`shard`, `api`",
            Self::REQUESTS.1,
        );
        for (name, labels, meaning) in lag::DESCRIPTIONS {
            row(name, "gauge", labels, meaning);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    //! What was counted is in the text, under its documented name.
    use super::*;

    #[test]
    fn rendered() {
        let metrics = Arc::new(ShardMetrics::default());
        metrics.request(ApiKey::Produce);
        metrics.appended(10, false);
        for us in [1, 100, 101, 999_999, 60_000_000] {
            metrics.produce_latency.observe(Duration::from_micros(us));
        }
        let text = ShardMetrics::render(&[metrics]);
        assert!(text.contains("ringlog_requests_total{shard=\"0\",api=\"Produce\"} 1\n"));
        assert!(text.contains("# TYPE ringlog_appended_bytes_total counter\nringlog_appended_bytes_total{shard=\"0\"} 10\n"));
        for line in [
            "# TYPE ringlog_produce_seconds histogram",
            "ringlog_produce_seconds_bucket{shard=\"0\",le=\"0.0001\"} 2",
            "ringlog_produce_seconds_bucket{shard=\"0\",le=\"0.0002\"} 3",
            "ringlog_produce_seconds_bucket{shard=\"0\",le=\"1\"} 4",
            "ringlog_produce_seconds_bucket{shard=\"0\",le=\"10\"} 4",
            "ringlog_produce_seconds_bucket{shard=\"0\",le=\"+Inf\"} 5",
            "ringlog_produce_seconds_count{shard=\"0\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
