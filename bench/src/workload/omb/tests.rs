//! What is mapped is mapped as the benchmark means it; what is not is refused by name, with its line.
use super::*;
use crate::workload::{Rate, Start, Workload};

const FULL: &str = "# comment\n---\nname: 1 topic / 16 partitions\n\ntopics: 1\npartitionsPerTopic: 16\nkeyDistributor: \"NO_KEY\"\nmessageSize: 1024 # bytes\nuseRandomizedPayloads: true\nrandomBytesRatio: 0.5\nrandomizedPayloadPoolSize: 1000\nsubscriptionsPerTopic: 2\nconsumerPerSubscription: 4\nproducersPerTopic: 3\nproducerRate: 5000\nconsumerBacklogSizeGB: 0\ntestDurationMinutes: 5\n";

fn load(text: &str, sets: &[&str]) -> Result<Workload, WorkloadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.yaml");
    std::fs::write(&path, text).unwrap();
    std::fs::write(folder.path().join("100.data"), [7u8; 100]).unwrap();
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    Workload::load(&path, &sets)
}

#[test]
fn a_workload_is_mapped() {
    let workload = load(FULL, &["producer.linger_ms=1"]).unwrap();
    assert_eq!(workload.name, "1-topic-16-partitions");
    assert_eq!((workload.topic.count, workload.topic.partitions), (1, 16));
    let producer = workload.producer.unwrap();
    assert_eq!(producer.rate, Rate::PerSecond(5000.0));
    assert_eq!(
        (
            producer.record_bytes,
            producer.connections,
            producer.key_bytes
        ),
        (1024, 3, 0)
    );
    assert_eq!((producer.repetition, producer.linger_ms), (0.5, 1.0));
    assert_eq!(workload.consumer.unwrap().connections, 2);
    assert_eq!(
        (workload.run.duration_s, workload.run.warmup_s),
        (300.0, 60.0)
    );
    for difference in [
        "64 payloads take turns instead of 1000",
        "instead of a group of 4",
    ] {
        assert!(workload.about.contains(difference), "{}", workload.about);
    }
}

#[test]
fn backlogs_and_payload_files_are_mapped() {
    let text = FULL
        .replace("consumerBacklogSizeGB: 0", "consumerBacklogSizeGB: 4")
        .replace("messageSize: 1024", "messageSize: 100")
        .replace("useRandomizedPayloads: true", "payloadFile: '100.data'")
        .replace("\"NO_KEY\"", "RANDOM_NANO");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.yml");
    std::fs::write(folder.path().join("100.data"), [7u8; 100]).unwrap();
    std::fs::write(&path, text).unwrap();
    let workload = Workload::load(&path, &[]).unwrap();
    assert_eq!(
        workload.preload.unwrap().bytes,
        2 << 30,
        "counted over two subscriptions"
    );
    assert_eq!(workload.consumer.unwrap().start, Start::Earliest);
    let producer = workload.producer.unwrap();
    assert_eq!(producer.key_bytes, 8);
    assert!(producer.payload_file.is_some());
}

#[test]
fn what_cannot_be_mapped_is_refused_by_name() {
    let cases = [
        (
            "producerRate: 5000",
            "producerRate: 0",
            "producerRate: 0 asks for the highest rate",
        ),
        (
            "producerRate: 5000",
            "producerRate: 5000\nproducerIncrementRate: 100",
            "producerIncrementRate: a rate that grows",
        ),
        (
            "producerRate: 5000",
            "producerRate: fast",
            "producerRate: \"fast\" is not a number",
        ),
        ("topics: 1", "topics: 0", "topics: 0 is outside 1 to 10000"),
        (
            "topics: 1",
            "topics: 1.5",
            "topics: 1.5 is not a whole number",
        ),
        ("topics: 1", "topics: [1]", "topics: only a plain value"),
        ("topics: 1", "topics:\n  - 1", "flat list"),
        (
            "topics: 1",
            "topics: 1\ntopics: 2",
            "topics: is given twice",
        ),
        (
            "topics: 1",
            "topics: 1\ntpics: 2",
            "tpics: is no key of an OpenMessaging workload",
        ),
        ("topics: 1\n", "", "topics: is needed"),
        (
            "messageSize: 1024",
            "messageSize: 20",
            "messageSize: end-to-end latency needs",
        ),
        (
            "messageSize: 1024",
            "messageSizeDistribution: x",
            "messageSizeDistribution: is not read",
        ),
        (
            "useRandomizedPayloads: true",
            "useRandomizedPayloads: yes",
            "useRandomizedPayloads: write true or false",
        ),
        (
            "useRandomizedPayloads: true",
            "payloadFile: 100.data",
            "payloadFile: 100.data has 100 bytes and not the 1024",
        ),
        (
            "useRandomizedPayloads: true",
            "payloadFile: gone",
            "payloadFile: gone is neither beside",
        ),
        (
            "useRandomizedPayloads: true\n",
            "",
            "payloadFile: is needed",
        ),
        ("\"NO_KEY\"", "HASHED", "keyDistributor: is not one of"),
        (
            "\"NO_KEY\"",
            "\"NO_KEY",
            "keyDistributor: a quote is not closed",
        ),
        (
            "testDurationMinutes: 5",
            "testDurationMinutes: 0",
            "testDurationMinutes: 0 would run for ever",
        ),
        (
            "subscriptionsPerTopic: 2",
            "subscriptionsPerTopic: 2\nmessageRateReceivedForSubscription: 50",
            "messageRateReceivedForSubscription: filtered",
        ),
    ];
    for (from, to, wanted) in cases {
        let error = load(&FULL.replace(from, to), &[]).unwrap_err().to_string();
        assert!(error.contains(wanted), "{to:?}: {error}");
        assert!(error.contains("w.yaml:"), "{error}");
    }
    let error = load(&FULL.replace("topics: 1", "topics: 0"), &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("w.yaml:5: topics"), "{error}");
    let given = load(
        &FULL.replace("producerRate: 5000", "producerRate: 0"),
        &["producer.rate=700"],
    )
    .unwrap();
    assert_eq!(given.producer.unwrap().rate, Rate::PerSecond(700.0));
}
