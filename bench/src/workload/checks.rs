//! What a workload file means: defaults and limits of every key, and what makes no sense together.

use std::path::PathBuf;

use toml::Spanned;

use super::key::{Source, as_f64};
use super::sizes::{self, SizeRange};
use super::text::*;
use super::*;

/// Most bytes of a record's value.
const RECORD_BYTES_MAX: usize = 100 << 20;

pub(super) fn parse(text: &str, file: &str) -> Result<Workload, WorkloadError> {
    let raw: FileText = toml::from_str(text).map_err(|error| {
        let message = error.to_string();
        WorkloadError::Syntax {
            file: file.into(),
            message: message.trim_end().to_string(),
        }
    })?;
    Source { text, file }.workload(raw)
}

impl Source<'_> {
    fn workload(&self, raw: FileText) -> Result<Workload, WorkloadError> {
        let name = self.name("name", &raw.name)?;
        let topic = self.topic(raw.topic)?;
        let preload = raw
            .preload
            .map(|preload| self.preload(preload))
            .transpose()?;
        let repeat = raw
            .consumer
            .as_ref()
            .and_then(|consumer| consumer.repeat.clone());
        let producer = raw
            .producer
            .map(|producer| self.producer(producer))
            .transpose()?;
        let consumer = raw
            .consumer
            .map(|consumer| self.consumer(consumer))
            .transpose()?;
        if producer.is_none() && consumer.is_none() && preload.is_none() {
            return Err(self.error(
                "name",
                &raw.name,
                "a workload needs [preload], [producer] or [consumer]",
            ));
        }
        if let Some(repeat) = repeat
            && *repeat.get_ref()
            && (preload.is_none() || producer.is_some())
        {
            return Err(self.error(
                "consumer.repeat",
                &repeat,
                "repeating needs a [preload] and no [producer]",
            ));
        }
        let duration = raw.run.duration_s.clone();
        let run = Run {
            warmup_s: self.decimal("run.warmup_s", raw.run.warmup_s, 5.0, 86_400.0)?,
            duration_s: self.decimal("run.duration_s", raw.run.duration_s, 20.0, 86_400.0)?,
            drain_s: self.decimal("run.drain_s", raw.run.drain_s, 30.0, 3_600.0)?,
        };
        // Only preloading takes its own time.
        if (producer.is_some() || consumer.is_some())
            && run.duration_s <= 0.0
            && let Some(given) = &duration
        {
            return Err(self.error(
                "run.duration_s",
                given,
                "nothing can be measured in no time",
            ));
        }
        let stamped = producer.is_some() && consumer.is_some();
        if let Some(producer) = &producer
            && stamped
            && producer.smallest_record() < STAMP_BYTES
        {
            let reason =
                format!("end-to-end latency needs records of at least {STAMP_BYTES} bytes");
            return Err(self.error("producer.record_bytes", &raw.name, reason));
        }
        Ok(Workload {
            name,
            about: raw.about.unwrap_or_default(),
            topic,
            preload,
            producer,
            consumer,
            churn: raw.churn.map(|churn| self.churn(&churn)).transpose()?,
            slow_readers: raw
                .slow_readers
                .map(|slow| self.slow_readers(slow))
                .transpose()?,
            run,
        })
    }

    fn topic(&self, raw: TopicText) -> Result<Topic, WorkloadError> {
        Ok(Topic {
            name: raw
                .name
                .as_ref()
                .map(|name| self.name("topic.name", name))
                .transpose()?,
            count: self.number("topic.count", raw.count, 1, 1, 10_000)?,
            partitions: self.number("topic.partitions", raw.partitions, 1, 1, 100_000)?,
            replication_factor: self.number(
                "topic.replication_factor",
                raw.replication_factor,
                1,
                -1,
                100,
            )?,
            configs: raw.configs.unwrap_or_default(),
        })
    }

    fn preload(&self, raw: PreloadText) -> Result<Preload, WorkloadError> {
        Ok(Preload {
            bytes: self.number("preload.bytes", Some(raw.bytes), 0, 1, 1 << 44)?,
            record_bytes: self.number(
                "preload.record_bytes",
                raw.record_bytes,
                1024,
                1,
                100 << 20,
            )?,
            batch_bytes: self.number(
                "preload.batch_bytes",
                raw.batch_bytes,
                1_000_000,
                128,
                100 << 20,
            )?,
        })
    }

    fn churn(&self, raw: &ChurnText) -> Result<Churn, WorkloadError> {
        match as_f64(raw.rate.get_ref()) {
            Some(rate) if rate > 0.0 && rate <= 1e5 => Ok(Churn { rate }),
            _ => Err(self.error(
                "churn.rate",
                &raw.rate,
                "write connections per second, above 0 and up to 100000",
            )),
        }
    }

    fn slow_readers(&self, raw: SlowReadersText) -> Result<SlowReaders, WorkloadError> {
        let key = "slow_readers.connections";
        Ok(SlowReaders {
            connections: self.number(key, Some(raw.connections), 1, 1, 10_000)?,
            bytes_per_s: self.number(
                "slow_readers.bytes_per_s",
                raw.bytes_per_s,
                10_000,
                20,
                1 << 30,
            )?,
            max_bytes: self.number(
                "slow_readers.max_bytes",
                raw.max_bytes,
                8 << 20,
                1,
                256 << 20,
            )?,
        })
    }

    fn rate(&self, value: &Spanned<toml::Value>) -> Result<Rate, WorkloadError> {
        let key = "producer.rate";
        match value.get_ref() {
            toml::Value::String(word) if word == "max" => Ok(Rate::Max),
            other => match as_f64(other) {
                Some(rate) if rate > 0.0 && rate <= 1e8 => Ok(Rate::PerSecond(rate)),
                Some(rate) => Err(self.error(
                    key,
                    value,
                    format!("{rate} is outside 0 to 100000000 records/s"),
                )),
                None => Err(self.error(key, value, "write records per second, or \"max\"")),
            },
        }
    }

    fn acks(&self, value: Value<toml::Value>) -> Result<Acks, WorkloadError> {
        let Some(value) = value else {
            return Ok(Acks::All);
        };
        match value.get_ref() {
            toml::Value::Integer(0) => Ok(Acks::None),
            toml::Value::Integer(1) => Ok(Acks::Leader),
            toml::Value::Integer(-1) => Ok(Acks::All),
            toml::Value::String(word) if word == "all" => Ok(Acks::All),
            _ => Err(self.error("producer.acks", &value, "write 0, 1 or \"all\"")),
        }
    }

    /// A file whose bytes are every record's value.
    fn payload(
        &self,
        value: Value<PathBuf>,
        record_bytes: usize,
    ) -> Result<Option<PathBuf>, WorkloadError> {
        let Some(value) = value else {
            return Ok(None);
        };
        let key = "producer.payload_file";
        match std::fs::metadata(value.get_ref()).map(|found| found.len()) {
            Ok(bytes) if bytes == record_bytes as u64 => Ok(Some(value.into_inner())),
            Ok(bytes) => {
                let reason = format!("has {bytes} bytes; record_bytes is {record_bytes}");
                Err(self.error(key, &value, reason))
            }
            Err(error) => Err(self.error(key, &value, error.to_string())),
        }
    }

    /// The mix of sizes, and the size that stands for it.
    fn sizes(
        &self,
        sizes: Value<Vec<SizeRange>>,
        bytes: Value<usize>,
        payload_file: bool,
    ) -> Result<(usize, Vec<SizeRange>), WorkloadError> {
        let key = "producer.record_sizes";
        let Some(sizes) = sizes else {
            let bytes = self.number("producer.record_bytes", bytes, 1024, 0, RECORD_BYTES_MAX)?;
            return Ok((bytes, Vec::new()));
        };
        if bytes.is_some() || payload_file {
            let reason = "stands instead of record_bytes and payload_file: leave those out";
            return Err(self.error(key, &sizes, reason));
        }
        if let Some(problem) = sizes::problem(sizes.get_ref(), RECORD_BYTES_MAX) {
            return Err(self.error(key, &sizes, problem));
        }
        let sizes = sizes.into_inner();
        Ok((sizes::mean(&sizes).round() as usize, sizes))
    }

    fn producer(&self, raw: ProducerText) -> Result<Producer, WorkloadError> {
        let codecs = Compression::ALL.map(|codec| (codec.name(), codec));
        let arrivals = [("uniform", Arrival::Uniform), ("poisson", Arrival::Poisson)];
        let partitioners = [
            ("round-robin", Partitioner::RoundRobin),
            ("random", Partitioner::Random),
        ];
        let idempotence = raw.idempotence.unwrap_or(false);
        if idempotence
            && let Some(in_flight) = &raw.in_flight
            && *in_flight.get_ref() > 5
        {
            return Err(self.error(
                "producer.in_flight",
                in_flight,
                "idempotence allows at most 5",
            ));
        }
        let (record_bytes, record_sizes) = self.sizes(
            raw.record_sizes,
            raw.record_bytes,
            raw.payload_file.is_some(),
        )?;
        Ok(Producer {
            rate: self.rate(&raw.rate)?,
            arrival: self.word("producer.arrival", raw.arrival, &arrivals)?,
            burst_records: self.number(
                "producer.burst_records",
                raw.burst_records,
                1,
                1,
                1_000_000,
            )?,
            record_bytes,
            record_sizes,
            payload_file: self.payload(raw.payload_file, record_bytes)?,
            key_bytes: self.number("producer.key_bytes", raw.key_bytes, 0, 0, 1 << 20)?,
            repetition: self.number("producer.repetition", raw.repetition, 0.0, 0.0, 1.0)?,
            partitioner: self.word("producer.partitioner", raw.partitioner, &partitioners)?,
            linger_ms: self.decimal("producer.linger_ms", raw.linger_ms, 0.0, 60_000.0)?,
            batch_bytes: self.number(
                "producer.batch_bytes",
                raw.batch_bytes,
                16_384,
                128,
                100 << 20,
            )?,
            acks: self.acks(raw.acks)?,
            compression: self.word("producer.compression", raw.compression, &codecs)?,
            connections: self.number("producer.connections", raw.connections, 1, 1, 20_000)?,
            in_flight: self.number("producer.in_flight", raw.in_flight, 5, 1, 1_000_000)?,
            partitions_per_request: self.number(
                "producer.partitions_per_request",
                raw.partitions_per_request,
                0,
                0,
                1_000_000,
            )?,
            idempotence,
            buffer_bytes: self.number(
                "producer.buffer_bytes",
                raw.buffer_bytes,
                32 << 20,
                1 << 10,
                4 << 30,
            )?,
        })
    }

    fn consumer(&self, raw: ConsumerText) -> Result<Consumer, WorkloadError> {
        let starts = [("latest", Start::Latest), ("earliest", Start::Earliest)];
        Ok(Consumer {
            start: self.word("consumer.start", raw.start, &starts)?,
            repeat: raw.repeat.is_some_and(|repeat| *repeat.get_ref()),
            connections: self.number("consumer.connections", raw.connections, 1, 1, 20_000)?,
            max_wait_ms: self.number("consumer.max_wait_ms", raw.max_wait_ms, 500, 0, 60_000)?,
            min_bytes: self.number("consumer.min_bytes", raw.min_bytes, 1, 0, 1 << 30)?,
            max_bytes: self.number("consumer.max_bytes", raw.max_bytes, 50 << 20, 1, 256 << 20)?,
            partition_max_bytes: self.number(
                "consumer.partition_max_bytes",
                raw.partition_max_bytes,
                1 << 20,
                1,
                256 << 20,
            )?,
            check_crc: raw.check_crc.unwrap_or(true),
        })
    }
}

#[cfg(test)]
mod tests {
    //! Each refusal names file, line and key; each shipped workload is accepted.
    use super::*;

    fn refusal(text: &str) -> String {
        parse(text, "w.toml").unwrap_err().to_string()
    }

    #[test]
    fn refusals_name_line_and_key() {
        let range = refusal("name = 'a'\n[producer]\nrate = 1000\nin_flight = 0\n");
        assert_eq!(
            range,
            "w.toml:4: producer.in_flight: 0 is outside 1 to 1000000"
        );
        let word = refusal("name = 'a'\n[producer]\nrate = 1\n\ncompression = 'lzma'\n");
        assert!(
            word.starts_with("w.toml:5: producer.compression: \"lzma\" is not one of none, gzip"),
            "{word}"
        );
        let unknown = refusal("name = 'a'\n[producer]\nrate = 1\nlinger = 3\n");
        assert!(
            unknown.contains("line 4") && unknown.contains("`linger`"),
            "{unknown}"
        );
        let kind = refusal("name = 'a'\n[topic]\npartitions = 'four'\n");
        assert!(kind.contains("line 3") && kind.contains("string"), "{kind}");
        let rate = refusal("name = 'a'\n[producer]\nrate = 'fast'\n");
        assert!(
            rate.starts_with("w.toml:3: producer.rate: write records per second"),
            "{rate}"
        );
        let repeat = refusal("name = 'a'\n[consumer]\nrepeat = true\n");
        assert!(repeat.starts_with("w.toml:3: consumer.repeat:"), "{repeat}");
        let beside = refusal("name = 'a'\n[producer]\nrate = 1\n[churn]\nrate = 0\n");
        assert!(beside.starts_with("w.toml:5: churn.rate:"), "{beside}");
        let slow = refusal("name = 'a'\n[producer]\nrate = 1\n[slow_readers]\nconnections = 0\n");
        assert!(
            slow.starts_with("w.toml:5: slow_readers.connections:"),
            "{slow}"
        );
        let gone = refusal("name = 'a'\n[producer]\nrate = 1\npayload_file = 'gone'\n");
        assert!(
            gone.starts_with("w.toml:4: producer.payload_file:"),
            "{gone}"
        );
        let sizes =
            refusal("name = 'a'\n[producer]\nrate = 1\nrecord_sizes = [{ bytes = 9, to = 3 }]\n");
        assert_eq!(
            sizes,
            "w.toml:4: producer.record_sizes: to = 3 is below bytes = 9"
        );
        let both = refusal(
            "name = 'a'\n[producer]\nrate = 1\nrecord_bytes = 5\nrecord_sizes = [{ bytes = 9 }]\n",
        );
        assert!(
            both.starts_with("w.toml:5: producer.record_sizes: stands instead"),
            "{both}"
        );
        let short = refusal(
            "name = 'a'\n[producer]\nrate = 1\nrecord_sizes = [{ bytes = 9 }, { bytes = 90 }]\n[consumer]\n",
        );
        assert!(short.contains("at least 24 bytes"), "{short}");
        assert!(refusal("name = 'a'\n").contains("needs [preload], [producer] or [consumer]"));
    }

    #[test]
    fn overrides_are_applied_and_checked() {
        let text = "name = 'a'\n[producer]\nrate = 1000\n";
        let over = |set: &[&str]| {
            let sets: Vec<String> = set.iter().map(ToString::to_string).collect();
            Workload::parse(text, "w.toml", &sets)
        };
        let got = over(&[
            "producer.rate=max",
            "run.duration_s=2.5",
            "topic.configs.'x'=1",
        ]);
        assert!(got.is_err(), "a configuration value is a string");
        let got = over(&["producer.rate=max", "run.duration_s=2.5"]).unwrap();
        assert_eq!(got.producer.unwrap().rate, Rate::Max);
        assert_eq!(got.run.duration_s, 2.5);
        let preload = "name = 'a'\n[preload]\nbytes = 1000\n[run]\nduration_s = 0\n";
        assert!(Workload::parse(preload, "w.toml", &[]).is_ok());
        let none = over(&["run.duration_s=0"]).unwrap_err().to_string();
        assert!(none.contains("no time"), "{none}");
        assert!(
            over(&["producer.rte=5"])
                .unwrap_err()
                .to_string()
                .contains("rte")
        );
        assert!(
            over(&["nonsense"])
                .unwrap_err()
                .to_string()
                .contains("KEY=VALUE")
        );
    }

    #[test]
    fn shipped_workloads_are_accepted() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                let workload = Workload::load(&path, &[]).unwrap();
                assert_eq!(
                    Some(workload.name.as_str()),
                    path.file_stem().and_then(|stem| stem.to_str())
                );
                seen += 1;
            }
        }
        assert!(seen > 0);
    }
}
