"""What one client writes, every other must read: one topic per compression, one partition per writer."""
from suite.checks import equal, eventually
from suite.records import expect_same, sample


def run(report, families, drivers, steward, run_id, codecs=("none", "gzip", "snappy", "lz4", "zstd")):
    for codec in codecs:
        topic, written = f"matrix-{codec}-{run_id}", {}

        def create():
            steward.call("create_topic", topic=topic, partitions=len(families), configs={})
            for partition in range(len(families)):
                eventually(lambda: steward.call("watermarks", topic=topic, partition=partition))

        if not report.check("matrix", f"{codec}: the topic", create):
            continue
        for partition, family in enumerate(families):
            if codec not in family.compressions:
                continue

            def write():
                records = sample(family, codec)
                drivers[family.name].call("produce", topic=topic, partition=partition, records=records, compression=codec, idempotent=False,
                                          acks=-1, each=False)
                written[partition] = records

            report.check("matrix", f"{codec}: {family.name} writes", write)
        for reader in families:
            if not reader.consumes:
                continue

            def read():
                problems = []
                for partition, records in written.items():
                    got = drivers[reader.name].call("consume", timeout=40, topic=topic, partition=partition, offset="earliest", count=len(records),
                                                    timeout_ms=15000)
                    try:
                        expect_same(reader, records, got)
                    except AssertionError as error:
                        problems.append(f"from {families[partition].name}: {error}")
                equal(problems, [], "differences")

            report.check("matrix", f"{codec}: {reader.name} reads all", read)
