"""What each client offers. A check runs for every family that offers what it needs; what stands here is never found out at run time,
so a client that loses an ability fails instead of being passed over."""
from dataclasses import dataclass

ADMIN = ("create_topic", "delete_topic", "list_topics", "describe_topic", "describe_configs", "alter_config", "create_partitions", "delete_records")
EVERY = ("none", "gzip", "snappy", "lz4", "zstd")


@dataclass(frozen=True)
class Family:
    name: str
    command: tuple  # relative to target/clients where it begins with "@", else to ci/clients
    compressions: tuple = EVERY
    consumes: bool = True
    idempotent: bool = True
    sets_timestamps: bool = True  # the producer can give a record its time
    empty_keys: bool = True  # tells an empty key from none
    null_headers: bool = True  # tells a header without value from an empty one when it reads
    writes_null_headers: bool = True
    binary: bool = True  # any bytes in keys and headers, and null values
    append_time: bool = True  # shows the time of the batch where that rules
    text_headers: bool = False  # consumed headers are one text
    acks_zero: bool = True
    time_offsets: bool = True
    watermarks: bool = True
    out_of_range: bool = True  # reports a fetch position outside the log instead of resetting silently
    admin: tuple = ADMIN
    describing_creates: bool = False  # its metadata requests always allow auto-creation
    bulk_bytes: int = 900_000  # the single large record
    member: tuple = ()  # the command of a group member; without, the driver is one
    assignors: tuple = ("range", "roundrobin", "sticky", "cooperative-sticky")
    commits: tuple = ("auto", "sync", "async")
    names_offsets: bool = True  # commits offsets it is told, and answers what is committed
    static: bool = True  # group.instance.id
    fenced: str = "told"  # how a member learns that another took its group.instance.id: "told" when it polls, "commit" only then, "never"
    pauses: bool = True
    seeks: tuple = ("offset", "time", "earliest", "latest")
    new_protocol: bool = False  # group.protocol=consumer
    plain_assignors: tuple = ("range", "cooperative-sticky")  # tell members their partitions and nothing else, so a group may go over to the new protocol
    transactional: bool = True
    filters_aborted: bool = True  # leaves out what was aborted when it reads committed records
    hides_markers: bool = True  # does not give the ends of transactions to the application as if they were records


PYTHON = "@venv/bin/python"
JAVA = ("java", "-Xmx512M", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", "@java/classes:@kafka/libs/*")
FAMILIES = (
    Family("kcat", (PYTHON, "python/kcat.py"), sets_timestamps=False, empty_keys=False, null_headers=False, writes_null_headers=False, binary=False,
           text_headers=True, admin=("list_topics", "describe_topic"), member=(PYTHON, "python/kcat_member.py"), assignors=("range", "roundrobin"),
           commits=("auto",), names_offsets=False, pauses=False, seeks=(), transactional=False),
    Family("confluent-kafka", (PYTHON, "python/confluent.py"), member=(PYTHON, "python/confluent_member.py"), new_protocol=True,
           assignors=("range", "roundrobin", "cooperative-sticky"),
           plain_assignors=("range",)),  # librdkafka hands a member's own user data back to it
    Family("kafka-python", (PYTHON, "python/kafka_python.py"), writes_null_headers=False, member=(PYTHON, "python/kafka_python_member.py"),
           fenced="commit"),
    Family("aiokafka", (PYTHON, "python/aio.py"), describing_creates=True, member=(PYTHON, "python/aio_member.py"),
           assignors=("range", "roundrobin", "sticky"), fenced="never"),
    Family("kafkajs", ("node", "node/driver.js"), consumes=False, writes_null_headers=False, out_of_range=False, assignors=("roundrobin",), static=False,
           seeks=("offset", "time")),
    Family("franz-go", ("@bin/franz",)),
    Family("sarama", ("@bin/sarama",), commits=("auto", "sync"), seeks=()),
    Family("kafka-go", ("@bin/kafkago",), idempotent=False, empty_keys=False, null_headers=False, append_time=False, admin=ADMIN[:-1],
           assignors=("range", "roundrobin"), static=False, pauses=False, seeks=(), transactional=False, filters_aborted=False, hides_markers=False),
    Family("java", (*JAVA, "ringlog.ci.Driver"), member=(*JAVA, "ringlog.ci.Member"), new_protocol=True),
)
