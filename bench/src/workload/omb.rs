//! Workload files of the OpenMessaging Benchmark, as far as they say something that this generator does.
//!
//! Such a file is YAML, but only ever a flat list of `key: value`; that is what is read here, strictly, so that no YAML library is
//! needed and every refusal has its line. The result is the text of an ordinary workload, which is then checked like any other.
//! What cannot be mapped is refused by name; what is mapped with a difference says so in the workload's `about`. Drivers' files
//! (linger, batch size, acks) are not read: `--set producer.linger_ms=1` says the same.
//!
//! Meaning of the keys: `Workload.java` and `WorkloadGenerator.java` of the benchmark.

use std::path::{Path, PathBuf};

use super::{PAYLOADS, STAMP_BYTES, WorkloadError};

/// One `key: value`.
struct Given {
    key: String,
    value: String,
    line: usize,
}

/// A file's keys; those that were looked at are taken out, so that the rest is what is not known.
struct Keys<'a> {
    file: &'a str,
    given: Vec<Given>,
    /// In which way the run differs from what the benchmark's own generator would do.
    differences: Vec<String>,
}

/// Whether a file is one of these, by its name.
pub fn is_omb(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| {
        ending.eq_ignore_ascii_case("yaml") || ending.eq_ignore_ascii_case("yml")
    })
}

fn refusal(file: &str, line: usize, key: &str, reason: impl Into<String>) -> WorkloadError {
    WorkloadError::Key {
        file: file.into(),
        line,
        key: key.into(),
        reason: reason.into(),
    }
}

/// The value without quotes and trailing comment, or what is wrong with it.
fn scalar(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if let Some(quote) = text
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''))
    {
        let inner = &text[1..];
        let end = inner.find(quote).ok_or("a quote is not closed")?;
        let (value, after) = (&inner[..end], inner[end + 1..].trim());
        if !after.is_empty() && !after.starts_with('#') {
            return Err("something follows the closing quote");
        }
        if value.contains('\\') {
            return Err("escapes are not read; write the value plainly");
        }
        return Ok(value.to_string());
    }
    let plain = match text.find(" #") {
        _ if text.starts_with('#') => "",
        Some(at) => &text[..at],
        None => text,
    };
    match plain.chars().next() {
        Some('[' | '{' | '|' | '>' | '&' | '*' | '!' | '%' | '@' | '`' | '-') => {
            Err("only a plain value is read here")
        }
        _ => Ok(plain.trim().to_string()),
    }
}

fn read(text: &str, file: &str) -> Result<Vec<Given>, WorkloadError> {
    let mut given: Vec<Given> = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let bare = content.trim();
        if bare.is_empty() || bare.starts_with('#') || bare == "---" {
            continue;
        }
        let flat = "such a workload is a flat list of `key: value`";
        let Some((key, value)) = content.split_once(':') else {
            return Err(refusal(file, line, bare, flat));
        };
        if key != key.trim() || key.is_empty() || !(value.is_empty() || value.starts_with(' ')) {
            return Err(refusal(file, line, key.trim(), flat));
        }
        let value = scalar(value).map_err(|reason| refusal(file, line, key, reason))?;
        if given.iter().any(|one| one.key == key) {
            return Err(refusal(file, line, key, "is given twice"));
        }
        given.push(Given {
            key: key.into(),
            value,
            line,
        });
    }
    Ok(given)
}

impl Keys<'_> {
    fn take(&mut self, key: &str) -> Option<Given> {
        let at = self.given.iter().position(|one| one.key == key)?;
        Some(self.given.remove(at))
    }

    fn error(&self, given: &Given, reason: impl Into<String>) -> WorkloadError {
        refusal(self.file, given.line, &given.key, reason)
    }

    fn missing(&self, key: &str, reason: &str) -> WorkloadError {
        refusal(self.file, 1, key, reason)
    }

    /// A number within limits; the line it came from is 1 where it is the default.
    fn number(
        &mut self,
        key: &str,
        default: Option<f64>,
        limits: (f64, f64),
    ) -> Result<(f64, usize), WorkloadError> {
        let Some(given) = self.take(key) else {
            return match default {
                Some(default) => Ok((default, 1)),
                None => Err(self.missing(key, "is needed")),
            };
        };
        match given.value.parse::<f64>() {
            Ok(value) if value >= limits.0 && value <= limits.1 => Ok((value, given.line)),
            Ok(value) => Err(self.error(
                &given,
                format!("{value} is outside {} to {}", limits.0, limits.1),
            )),
            Err(_) => Err(self.error(&given, format!("{:?} is not a number", given.value))),
        }
    }

    fn whole(
        &mut self,
        key: &str,
        default: Option<u32>,
        limits: (u32, u32),
    ) -> Result<(u64, usize), WorkloadError> {
        let limits = (f64::from(limits.0), f64::from(limits.1));
        let (value, line) = self.number(key, default.map(f64::from), limits)?;
        if value.fract() == 0.0 {
            // Not negative and below 2^32 by the limits.
            Ok((value as u64, line))
        } else {
            Err(refusal(
                self.file,
                line,
                key,
                format!("{value} is not a whole number"),
            ))
        }
    }

    /// A key that may only have the value at which it does nothing.
    fn only(&mut self, key: &str, idle: f64, reason: &str) -> Result<(), WorkloadError> {
        let Some(given) = self.take(key) else {
            return Ok(());
        };
        match given.value.parse::<f64>() {
            Ok(value) if value == idle => Ok(()),
            _ => Err(self.error(&given, reason)),
        }
    }

    fn flag(&mut self, key: &str) -> Result<bool, WorkloadError> {
        match self.take(key) {
            None => Ok(false),
            Some(given) if given.value == "true" => Ok(true),
            Some(given) if given.value == "false" => Ok(false),
            Some(given) => Err(self.error(&given, "write true or false")),
        }
    }

    fn payload(
        &mut self,
        path: &Path,
        record_bytes: u64,
        producer: &mut toml::Table,
    ) -> Result<(), WorkloadError> {
        let file = self.take("payloadFile");
        if self.flag("useRandomizedPayloads")? {
            let (ratio, _) = self.number("randomBytesRatio", Some(0.0), (0.0, 1.0))?;
            producer.insert("repetition".into(), (1.0 - ratio).into());
            let ours = PAYLOADS;
            let (pool, _) = self.whole("randomizedPayloadPoolSize", Some(0), (0, 1 << 30))?;
            if pool != ours as u64 {
                self.differences
                    .push(format!("{ours} payloads take turns instead of {pool}"));
            }
            return Ok(());
        }
        // Without useRandomizedPayloads these two have no effect there either.
        self.take("randomBytesRatio");
        self.take("randomizedPayloadPoolSize");
        let Some(file) = file else {
            return Err(self.missing(
                "payloadFile",
                "is needed where useRandomizedPayloads is not true",
            ));
        };
        let Some(found) = payload_path(path, &file.value) else {
            let reason = format!(
                "{} is neither beside the workload, nor in the folder above, nor in the working folder",
                file.value
            );
            return Err(self.error(&file, reason));
        };
        match std::fs::metadata(&found).map(|found| found.len()) {
            Ok(bytes) if bytes == record_bytes => {}
            Ok(bytes) => {
                return Err(self.error(
                    &file,
                    format!(
                        "{} has {bytes} bytes and not the {record_bytes} of messageSize",
                        file.value
                    ),
                ));
            }
            Err(error) => return Err(self.error(&file, error.to_string())),
        }
        producer.insert("payload_file".into(), found.display().to_string().into());
        Ok(())
    }

    fn keyed(&mut self, producer: &mut toml::Table) -> Result<(), WorkloadError> {
        let Some(given) = self.take("keyDistributor") else {
            return Ok(());
        };
        match given.value.as_str() {
            "NO_KEY" => {}
            "KEY_ROUND_ROBIN" | "RANDOM_NANO" => {
                producer.insert("key_bytes".into(), 8.into());
                producer.insert("partitioner".into(), "random".into());
                self.differences.push("keys have 8 bytes, and partitions are chosen at random and not by the key's hash".into());
            }
            _ => {
                return Err(
                    self.error(&given, "is not one of NO_KEY, KEY_ROUND_ROBIN, RANDOM_NANO")
                );
            }
        }
        Ok(())
    }

    fn rate(&mut self, overridden: bool, producer: &mut toml::Table) -> Result<(), WorkloadError> {
        let (rate, line) = self.number("producerRate", Some(0.0), (0.0, 1e8))?;
        // They only steer the search for a rate, which is refused or replaced.
        for steering in [
            "producerStartRate",
            "acceptableBacklog",
            "producerIncrementSeconds",
        ] {
            self.take(steering);
        }
        // Where an override gives the rate, the 1 is replaced.
        let stated = if rate > 0.0 { rate } else { 1.0 };
        producer.insert("rate".into(), stated.into());
        if rate == 0.0 && !overridden {
            let reason = "0 asks for the highest rate that can be sustained: give one with --set producer.rate=RATE, or let `ringlog-bench search` find it from there";
            return Err(refusal(self.file, line, "producerRate", reason));
        }
        self.only("producerIncrementRate", 0.0, "a rate that grows within a run is not made: `ringlog-bench sweep` measures one rate after another")
    }

    /// Consumers, and the backlog they may begin with.
    fn consuming(
        &mut self,
        table: &mut toml::Table,
        record_bytes: u64,
    ) -> Result<(), WorkloadError> {
        let (subscriptions, _) = self.whole("subscriptionsPerTopic", Some(0), (0, 10_000))?;
        let (members, _) = self.whole("consumerPerSubscription", Some(1), (0, 10_000))?;
        let (backlog_gb, line) =
            self.number("consumerBacklogSizeGB", Some(0.0), (0.0, 16_384.0))?;
        let reason = "pausing producers around a drained backlog is not done";
        self.only("producerPauseBeforeDrain", 0.0, reason)?;
        self.only("producerPauseDuringDrain", 0.0, reason)?;
        self.only("backlogDrainRatio", 1.0, "a run lasts as long as it says and does not wait for a backlog to be drained to some share")?;
        self.only(
            "messageRateReceivedForSubscription",
            100.0,
            "filtered subscriptions are not made: Kafka has none",
        )?;
        if subscriptions == 0 || members == 0 {
            if backlog_gb > 0.0 {
                return Err(refusal(
                    self.file,
                    line,
                    "consumerBacklogSizeGB",
                    "a backlog needs a consumer that reads it",
                ));
            }
            return Ok(());
        }
        let mut consumer = toml::Table::new();
        consumer.insert(
            "connections".into(),
            i64::try_from(subscriptions).unwrap_or(i64::MAX).into(),
        );
        if members > 1 {
            self.differences.push(format!(
                "one client reads a whole subscription instead of a group of {members}"
            ));
        }
        if backlog_gb > 0.0 {
            consumer.insert("start".into(), "earliest".into());
            let mut preload = toml::Table::new();
            // Counted over all subscriptions there.
            let bytes = backlog_gb * f64::from(1 << 30) / subscriptions as f64;
            preload.insert("bytes".into(), (bytes as i64).into());
            preload.insert(
                "record_bytes".into(),
                i64::try_from(record_bytes).unwrap_or(i64::MAX).into(),
            );
            table.insert("preload".into(), preload.into());
            self.differences.push("the backlog is written before the run, as fast as possible, and the run does not last longer for it".into());
        }
        table.insert("consumer".into(), consumer.into());
        Ok(())
    }
}

/// Where the payload is: OpenMessaging's files name it from the folder above that of the workloads.
fn payload_path(workload: &Path, named: &str) -> Option<PathBuf> {
    let folder = workload.parent().unwrap_or(Path::new("."));
    let above = folder.join("..");
    let places = [folder.join(named), above.join(named), PathBuf::from(named)];
    places.into_iter().find(|place| place.is_file())
}

/// A name that topics may have.
fn topic_name(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() {
            out.push(letter.to_ascii_lowercase());
        } else if !out.ends_with('-') && !out.is_empty() {
            out.push('-');
        }
    }
    out.truncate(100);
    match out.trim_end_matches('-') {
        "" => "openmessaging".into(),
        name => name.into(),
    }
}

/// The text of an ordinary workload that does what `text` asks. `path` is where `text` came from; `overrides` may give the rate.
pub fn translate(text: &str, path: &Path, overrides: &[String]) -> Result<String, WorkloadError> {
    let file = path.display().to_string();
    let mut keys = Keys {
        file: &file,
        given: read(text, &file)?,
        differences: Vec::new(),
    };
    let Some(name) = keys.take("name").filter(|name| !name.value.is_empty()) else {
        return Err(keys.missing("name", "is needed"));
    };
    let whole = |value: u64| toml::Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    let mut table = toml::Table::new();
    let (mut topic, mut producer, mut run) =
        (toml::Table::new(), toml::Table::new(), toml::Table::new());
    let (topics, _) = keys.whole("topics", None, (1, 10_000))?;
    topic.insert("count".into(), whole(topics));
    topic.insert(
        "partitions".into(),
        whole(keys.whole("partitionsPerTopic", None, (1, 100_000))?.0),
    );
    if let Some(given) = keys.take("messageSizeDistribution") {
        return Err(keys.error(
            &given,
            "is not read: write messageSize, or a workload of your own with producer.record_sizes",
        ));
    }
    let (record_bytes, size_line) = keys.whole("messageSize", None, (1, 100 << 20))?;
    producer.insert("record_bytes".into(), whole(record_bytes));
    keys.payload(path, record_bytes, &mut producer)?;
    keys.keyed(&mut producer)?;
    let overridden = overrides
        .iter()
        .any(|one| one.trim_start().starts_with("producer.rate="));
    keys.rate(overridden, &mut producer)?;
    let (producers, _) = keys.whole("producersPerTopic", Some(1), (1, 100_000))?;
    producer.insert("connections".into(), whole(producers));
    if topics > 1 {
        keys.differences
            .push("each producer writes to every topic".into());
    }
    keys.consuming(&mut table, record_bytes)?;
    if table.contains_key("consumer") && record_bytes < STAMP_BYTES as u64 {
        let reason = format!("end-to-end latency needs records of at least {STAMP_BYTES} bytes");
        return Err(refusal(&file, size_line, "messageSize", reason));
    }
    let (minutes, line) = keys.number("testDurationMinutes", None, (0.0, 1_440.0))?;
    if minutes == 0.0 {
        return Err(refusal(
            &file,
            line,
            "testDurationMinutes",
            "0 would run for ever",
        ));
    }
    run.insert("duration_s".into(), (minutes * 60.0).into());
    let (warmup, _) = keys.number("warmupDurationMinutes", Some(1.0), (0.0, 1_440.0))?;
    run.insert("warmup_s".into(), (warmup * 60.0).into());
    if let Some(unknown) = keys.given.first() {
        return Err(keys.error(
            unknown,
            "is no key of an OpenMessaging workload that is known here",
        ));
    }
    let mut about = format!("{} (OpenMessaging Benchmark)", name.value);
    if !keys.differences.is_empty() {
        about = format!(
            "{about}; with these differences: {}",
            keys.differences.join("; ")
        );
    }
    table.insert("name".into(), topic_name(&name.value).into());
    table.insert("about".into(), about.into());
    table.insert("topic".into(), topic.into());
    table.insert("producer".into(), producer.into());
    table.insert("run".into(), run.into());
    Ok(table.to_string())
}

#[cfg(test)]
mod tests;
