"""Kafka's dump tool on the data directory of a cleanly stopped broker: it must read every file and complain of none."""
import pathlib
import re
import subprocess

from suite import tools
from suite.checks import equal, eventually
from suite.records import sample
from suite.tools import contains
from suite.transactions import Producer

# What the tool prints, with exit status 0, when a file does not say what it should.
COMPLAINTS = re.compile(r"(?i)mismatch|^ *\d+ is followed by \d+|out of order|corrupt|invalid|not valid|Exception|isvalid: false|are not found in|Index timestamp: -?\d+, log timestamp:|failed")
# What it says of Kafka's own compacted files too: of offsets that do not follow each other, and of a batch that stays without its records, whose header has
# the time that the index has. The lines after "Non-consecutive offsets" and "Found timestamp mismatch" tell one by one; of each segment that does not begin
# at offset 0 it says that -1 is followed by its first offset.
COMPACTED = re.compile(r"is followed by|^Found timestamp mismatch in|Index timestamp: \d+, log timestamp: -1$")
SEALED_SEGMENT_BYTES = 1_048_576

# Empty, Ongoing, PrepareCommit, CompleteCommit, Ongoing, PrepareAbort, CompleteAbort, Empty: a transaction that commits, one that aborts, and a producer
# that takes the id over. That one is complete need not stand by itself where the next request waited for it.
TRANSACTION_STATES = "0 1 2( 4)? 1 3( 5)? 0"


def java_hash(text):
    """String.hashCode, a signed number of 32 bits."""
    number = 0
    for unit in text:
        number = (31 * number + ord(unit)) & 0xFFFFFFFF
    return number - (1 << 32) if number >= 1 << 31 else number


def dump(*arguments, compacted=False):
    """What the tool prints, without a complaint but, of `compacted` files, what is as it should be there."""
    done = subprocess.run([tools.TOOL, "kafka-dump-log", *map(str, arguments)], capture_output=True, text=True, timeout=90)
    # What does not agree with the log, such as entries of an index, the tool tells as errors and ends with status 0.
    out = done.stdout + done.stderr
    if done.returncode != 0:
        raise AssertionError(f"the tool ended with status {done.returncode}: {out[-1500:]}")
    lines = (line for line in out.splitlines() if "payload:" not in line and not (compacted and COMPACTED.search(line)))
    found = next((line for line in lines if COMPLAINTS.search(line)), None)
    if found:
        raise AssertionError(f"the tool complains: {found}")
    return out


class Dump:
    """`write` fills topics while the broker runs; the checks read its files after the clean stop."""

    def __init__(self, steward, steward_family, families, drivers, run_id, only=()):
        self.steward, self.family, self.topic = steward, steward_family, f"dump-{run_id}"
        self.families, self.drivers = families, drivers
        self.groups, self.transactions = "groups" in only, "transactions" in only

    @property
    def group(self):
        return f"{self.topic}-group"

    @property
    def transactional_id(self):
        return f"{self.topic}-transactional"

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

        if self.groups:
            for offset in (1, 5):
                self.steward.call("commit_outside", group=self.group, topic=self.topic, partition=1, offset=offset)
        if self.transactions:
            producer = Producer(self.steward, self.topic, self.transactional_id)
            producer.transaction(self.topic, b"committed")
            producer.transaction(self.topic, b"aborted", commit=False)
            Producer(self.steward, self.topic, self.transactional_id)

    def files(self, data, partition, ending):
        found = sorted((pathlib.Path(data) / f"{self.topic}-{partition}").glob(f"*{ending}"))
        if not found:
            raise AssertionError(f"there is no {ending} in {self.topic}-{partition}")
        return found

    def log(self, data):
        out = dump("--files", self.files(data, 0, ".log")[0], "--print-data-log")
        contains(out, "starting offset: 0", *(f"compresscodec: {codec}" for codec in self.family.compressions), "payload: größe 漢字", "isvalid: true",
                 "headerKeys: .*a", "keySize: -1", "producerId: [0-9]")
        count = len(sample(self.family)) * len(self.family.compressions) + 4 * self.transactions
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

    def internal(self, data, topic, key, decoder):
        """What the decoder prints of the partition of an internal topic that owns a key, as Kafka chooses it."""
        partition = abs(java_hash(key)) % 50
        logs = sorted((pathlib.Path(data) / f"{topic}-{partition}").glob("*.log"))
        equal(len(logs) > 0, True, f"there is a log of {topic}-{partition}")
        return "".join(dump("--files", log, decoder) for log in logs)

    def offsets(self, data):
        out = self.internal(data, "__consumer_offsets", self.group, "--offsets-decoder")
        found = re.findall(r'"group":"%s","topic":"%s","partition":1.*?"offset":(\d+)' % (self.group, self.topic), out)
        equal(found, ["1", "5"], f"offsets of {self.group} in order")

    def transaction_log(self, data):
        out = self.internal(data, "__transaction_state", self.transactional_id, "--transaction-log-decoder")
        mine = [line for line in out.splitlines() if self.transactional_id in line]
        if not mine:
            raise AssertionError(f"{self.transactional_id} is not in: {out[-1500:]}")
        states = " ".join(re.findall(r'"transactionStatus":(\d+)', "\n".join(mine)))
        if not re.fullmatch(TRANSACTION_STATES, states):
            raise AssertionError(f"states of {self.transactional_id}: {states}, expected {TRANSACTION_STATES}")

    def markers(self, data):
        """The end of each transaction in the partition, and the aborted one in its index."""
        out = dump("--files", self.files(data, 0, ".log")[0], "--print-data-log")
        contains(out, r"isTransactional: true isControl: true.*", "endTxnMarker: COMMIT", "endTxnMarker: ABORT")
        entries = "".join(dump("--files", file) for file in self.files(data, 0, ".txnindex"))
        contains(entries, r"producerId: \d+,? firstOffset: \d+,? lastOffset: \d+,? lastStableOffset: \d+")

    CHECKS = [("kafka-dump-log --print-data-log on every compression", log), ("kafka-dump-log finds the codec each client was told to use", codecs), ("kafka-dump-log on sealed segments", sealed),
              ("kafka-dump-log on offset and time indexes", indexes), ("kafka-dump-log on producer snapshots", snapshots),
              ("kafka-dump-log --cluster-metadata-decoder", metadata)]

    GROUP_CHECKS = [("kafka-dump-log --offsets-decoder", offsets)]
    TRANSACTION_CHECKS = [("kafka-dump-log --transaction-log-decoder", transaction_log), ("kafka-dump-log on transaction markers and index", markers)]

    def run(self, report, data):
        for name, function in self.CHECKS + self.GROUP_CHECKS * self.groups + self.TRANSACTION_CHECKS * self.transactions:
            report.check("dump", name, lambda: function(self, data))
