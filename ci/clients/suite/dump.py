"""Kafka's dump tool on the data directory of a cleanly stopped broker: it must read every file and complain of none."""
import pathlib
import re

from suite import tools
from suite.checks import equal, eventually
from suite.records import sample
from suite.tools import contains

# What the tool prints, with exit status 0, when a file does not say what it should.
COMPLAINTS = re.compile(r"(?i)mismatch|non-consecutive|out of order|corrupt|invalid|not valid|Exception|isvalid: false|Found timestamp mismatch|failed")
SEALED_SEGMENT_BYTES = 1_048_576


def dump(*arguments):
    out = tools.run("kafka-dump-log", *arguments)
    found = next((line for line in out.splitlines() if COMPLAINTS.search(line) and "payload:" not in line), None)
    if found:
        raise AssertionError(f"the tool complains: {found}")
    return out


class Dump:
    """`write` fills topics while the broker runs; the checks read its files after the clean stop."""

    def __init__(self, steward, steward_family, families, drivers, run_id):
        self.steward, self.family, self.topic = steward, steward_family, f"dump-{run_id}"
        self.families, self.drivers = families, drivers

    def codec_topic(self, codec):
        return f"{self.topic}-{codec}"

    def write(self):
        self.steward.call("create_topic", topic=self.topic, partitions=2, configs={"segment.bytes": str(SEALED_SEGMENT_BYTES), "index.interval.bytes": "1024"})
        for codec in self.family.compressions:
            self.steward.call("produce", topic=self.topic, partition=0, records=sample(self.family, codec), compression=codec, idempotent=True, acks=-1, each=False)
        for _ in range(40):  # small batches, for an index names a batch at most once
            self.steward.call("produce_bulk", topic=self.topic, partition=1, count=1000, bytes=100, compression="none", idempotent=True)
        self.steward.call("delete_records", topic=self.topic, partition=1, before=10)
        for codec in self.family.compressions:
            self.steward.call("create_topic", topic=self.codec_topic(codec), partitions=len(self.families), configs={})
            for partition, family in enumerate(self.families):
                eventually(lambda: self.steward.call("watermarks", topic=self.codec_topic(codec), partition=partition))
                if codec in family.compressions:
                    self.drivers[family.name].call("produce", topic=self.codec_topic(codec), partition=partition, records=sample(family, codec),
                                                   compression=codec, idempotent=False, acks=-1, each=False)

    def files(self, data, partition, ending):
        found = sorted((pathlib.Path(data) / f"{self.topic}-{partition}").glob(f"*{ending}"))
        if not found:
            raise AssertionError(f"there is no {ending} in {self.topic}-{partition}")
        return found

    def log(self, data):
        out = dump("--files", self.files(data, 0, ".log")[0], "--print-data-log")
        contains(out, "starting offset: 0", *(f"compresscodec: {codec}" for codec in self.family.compressions), "payload: größe 漢字", "isvalid: true",
                 "headerKeys: .*a", "keySize: -1", "producerId: [0-9]")
        count = len(sample(self.family)) * len(self.family.compressions)
        equal([int(n) for n in re.findall(r"^\| offset: (\d+)", out, re.M)], list(range(count)), "offsets of the records")
        dump("--files", self.files(data, 0, ".log")[0], "--deep-iteration")

    def codecs(self, data):
        """A client that thinks a codec is not supported quietly sends without: what reached the disk shows it."""
        wanted = {f"{self.codec_topic(codec)}-{partition}": (codec, family.name) for codec in self.family.compressions
                  for partition, family in enumerate(self.families) if codec in family.compressions}
        logs = [str(log) for folder in wanted for log in (pathlib.Path(data) / folder).glob("*.log")]
        problems = []
        for part in dump("--files", ",".join(logs)).split("Dumping ")[1:]:
            codec, client = wanted[pathlib.Path(part.splitlines()[0]).parent.name]
            found = set(re.findall(r"compresscodec: (\S+)", part))
            # A client may leave a batch of one small record as it is; every sample holds one long record.
            if codec not in found or (codec == "none" and found != {"none"}):
                problems.append(f"{client} was told {codec} and sent {sorted(found)}")
        equal((len(logs), problems), (len(wanted), []), "logs and what is wrong in them")

    def sealed(self, data):
        logs = self.files(data, 1, ".log")
        if len(logs) < 3:
            raise AssertionError(f"{len(logs)} segments; the last ones of 4 MB at {SEALED_SEGMENT_BYTES} bytes must be sealed")
        offsets = []
        for log in logs:
            out = dump("--files", log, "--print-data-log")
            contains(out, f"starting offset: {int(log.stem)}")
            offsets += [int(n) for n in re.findall(r"^\| offset: (\d+)", out, re.M)]
        equal((offsets[0], offsets == list(range(offsets[0], offsets[0] + len(offsets))), offsets[-1]), (0, True, 39999), "first offset, no gaps, last offset")

    def indexes(self, data):
        for ending, entry in ((".index", r"^offset: \d+ position: \d+"), (".timeindex", r"^timestamp: \d+ offset: \d+")):
            entries = 0
            for file in self.files(data, 1, ending):
                dump("--files", file, "--index-sanity-check")
                entries += len(re.findall(entry, dump("--files", file, "--verify-index-only") + dump("--files", file), re.M))
            if entries < 20:
                raise AssertionError(f"{entries} entries in all {ending} files over 40 batches")

    def snapshots(self, data):
        for file in self.files(data, 1, ".snapshot"):
            contains(dump("--files", file), "producerId: \\d+ producerEpoch: \\d+")

    def metadata(self, data):
        logs = sorted((pathlib.Path(data) / "__cluster_metadata-0").glob("*.log"))
        out = "".join(dump("--files", file, "--cluster-metadata-decoder") for file in logs)
        contains(out, '"type":"TOPIC_RECORD".*"name":"%s"' % self.topic, '"type":"PARTITION_RECORD"', '"type":"CONFIG_RECORD".*segment.bytes',
                 '"type":"REGISTER_BROKER_RECORD"', '"type":"FEATURE_LEVEL_RECORD"', '"type":"PRODUCER_IDS_RECORD"')

    CHECKS = [("kafka-dump-log --print-data-log on every compression", log), ("kafka-dump-log finds the codec each client was told to use", codecs), ("kafka-dump-log on sealed segments", sealed),
              ("kafka-dump-log on offset and time indexes", indexes), ("kafka-dump-log on producer snapshots", snapshots),
              ("kafka-dump-log --cluster-metadata-decoder", metadata)]

    def run(self, report, data):
        for name, function in self.CHECKS:
            report.check("dump", name, lambda: function(self, data))
