package ringlog.ci;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.function.Consumer;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/** The suite's driver for Kafka's own Java client; it speaks the line protocol of the suite's README. */
public final class Driver {
    private static final String BOOTSTRAP = System.getenv("BOOTSTRAP");
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int FETCH_WAIT_MS = 5000;
    private static final int REQUEST_BYTES_MAX = 20_000_000;

    private final Map<String, KafkaProducer<byte[], byte[]>> producers = new HashMap<>();
    private final Transactions transactions = new Transactions();
    private Admin admin;

    public static void main(String[] arguments) throws Exception {
        PrintStream out = System.out;
        System.setOut(System.err);
        Driver driver = new Driver();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            Map<String, Object> answer = new HashMap<>();
            try {
                answer.put("ok", driver.run(JSON.readTree(line)));
            } catch (Exception thrown) {
                thrown.printStackTrace();
                Throwable error = thrown instanceof ExecutionException ? thrown.getCause() : thrown;
                answer.put("error", code(error));
                answer.put("message", error.toString());
            }
            out.println(JSON.writeValueAsString(answer));
            out.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    /** Kafka's code of a client's exception, or null for one that stands for no code. */
    static Integer code(Throwable error) {
        if (error instanceof OffsetOutOfRangeException) {
            return (int) Errors.OFFSET_OUT_OF_RANGE.code();
        }
        if (error.getCause() instanceof ApiException cause && !(error instanceof ApiException)) {
            return code(cause); // a producer wraps what stopped it
        }
        Errors found = Errors.forException(error);
        return found == Errors.UNKNOWN_SERVER_ERROR ? null : (int) found.code();
    }

    private Object run(JsonNode a) throws Exception {
        String topic = a.path("topic").asText();
        switch (a.get("op").asText()) {
            case "version":
                return "Java client " + AppInfoParser.getVersion();
            case "create_topic":
                Map<String, String> configs = JSON.convertValue(a.get("configs"), new TypeReference<Map<String, String>>() { });
                return admin().createTopics(List.of(new NewTopic(topic, a.get("partitions").asInt(), (short) 1).configs(configs))).all().get();
            case "delete_topic":
                return admin().deleteTopics(List.of(topic)).all().get();
            case "list_topics":
                return admin().listTopics().names().get();
            case "describe_topic":
                return admin().describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
            case "describe_configs":
                return describeConfigs(topic);
            case "alter_config":
                AlterConfigOp set = new AlterConfigOp(new ConfigEntry(a.get("key").asText(), a.get("value").asText()), AlterConfigOp.OpType.SET);
                Map<ConfigResource, Collection<AlterConfigOp>> changes = Map.of(new ConfigResource(ConfigResource.Type.TOPIC, topic), List.of(set));
                return admin().incrementalAlterConfigs(changes).all().get();
            case "create_partitions":
                return admin().createPartitions(Map.of(topic, NewPartitions.increaseTo(a.get("total").asInt()))).all().get();
            case "delete_records":
                RecordsToDelete before = RecordsToDelete.beforeOffset(a.get("before").asLong());
                return admin().deleteRecords(Map.of(partition(a), before)).lowWatermarks().get(partition(a)).get().lowWatermark();
            case "produce":
                return produce(topic, a);
            case "produce_bulk":
                return produceBulk(topic, a);
            case "consume":
                List<Object> records = new ArrayList<>();
                read(a, record -> records.add(describe(record)));
                return records;
            case "consume_bulk":
                return consumeBulk(a);
            case "watermarks":
                try (KafkaConsumer<byte[], byte[]> consumer = consumer("read_uncommitted")) {
                    List<TopicPartition> asked = List.of(partition(a));
                    return List.of(consumer.beginningOffsets(asked).get(partition(a)), consumer.endOffsets(asked).get(partition(a)));
                }
            case "offset_for_time":
                try (KafkaConsumer<byte[], byte[]> consumer = consumer("read_uncommitted")) {
                    OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(partition(a), a.get("ts").asLong())).get(partition(a));
                    return found == null ? -1 : found.offset();
                }
            case "txn_open", "txn_begin", "txn_send", "txn_end", "txn_close", "txn_copy":
                return transactions.run(a);
            default:
                throw new IllegalArgumentException("the driver has no operation " + a.get("op"));
        }
    }

    private static TopicPartition partition(JsonNode a) {
        return new TopicPartition(a.get("topic").asText(), a.get("partition").asInt());
    }

    private static byte[] bytes(JsonNode text) {
        return text.isNull() ? null : Base64.getDecoder().decode(text.asText());
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : Base64.getEncoder().encodeToString(bytes);
    }

    private Admin admin() {
        if (admin == null) {
            Properties properties = new Properties();
            properties.put("bootstrap.servers", BOOTSTRAP);
            properties.put("default.api.timeout.ms", "30000");
            admin = Admin.create(properties);
        }
        return admin;
    }

    private Map<String, String> describeConfigs(String topic) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Map<String, String> found = new HashMap<>();
        for (ConfigEntry entry : admin().describeConfigs(List.of(resource)).all().get().get(resource).entries()) {
            found.put(entry.name(), entry.value());
        }
        return found;
    }

    private KafkaProducer<byte[], byte[]> producer(JsonNode a, int acks) {
        String compression = a.get("compression").asText();
        boolean idempotent = a.get("idempotent").asBoolean();
        return producers.computeIfAbsent(compression + idempotent + acks, key -> {
            Properties properties = new Properties();
            properties.put("bootstrap.servers", BOOTSTRAP);
            properties.put("compression.type", compression);
            properties.put("enable.idempotence", String.valueOf(idempotent));
            properties.put("acks", String.valueOf(acks));
            properties.put("linger.ms", "20");
            properties.put("batch.size", "200000");
            properties.put("max.request.size", String.valueOf(REQUEST_BYTES_MAX));
            properties.put("delivery.timeout.ms", "40000");
            return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
        });
    }

    private List<Long> produce(String topic, JsonNode a) throws Exception {
        KafkaProducer<byte[], byte[]> producer = producer(a, a.get("acks").asInt());
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (JsonNode r : a.get("records")) {
            Integer partition = a.get("partition").isNull() ? null : a.get("partition").asInt();
            Long time = r.get("ts").isNull() ? null : r.get("ts").asLong();
            ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, partition, time, bytes(r.get("k")), bytes(r.get("v")));
            for (JsonNode header : r.get("h")) {
                record.headers().add(header.get(0).asText(), bytes(header.get(1)));
            }
            sent.add(producer.send(record));
            if (a.get("each").asBoolean()) {
                producer.flush();
            }
        }
        producer.flush();
        List<Long> offsets = new ArrayList<>();
        for (Future<RecordMetadata> one : sent) {
            RecordMetadata metadata = one.get();
            offsets.add(metadata.hasOffset() ? metadata.offset() : null);
        }
        return offsets;
    }

    private static byte[] bulkValue(int index, int size) {
        byte[] unit = String.format("%010d ", index).getBytes(StandardCharsets.US_ASCII);
        byte[] value = new byte[size];
        for (int at = 0; at < size; at++) {
            value[at] = unit[at % unit.length];
        }
        return value;
    }

    private long produceBulk(String topic, JsonNode a) throws Exception {
        KafkaProducer<byte[], byte[]> producer = producer(a, -1);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int index = 0; index < a.get("count").asInt(); index++) {
            sent.add(producer.send(new ProducerRecord<>(topic, a.get("partition").asInt(), null, bulkValue(index, a.get("bytes").asInt()))));
        }
        producer.flush();
        for (Future<RecordMetadata> one : sent) {
            one.get();
        }
        return sent.get(0).get().offset();
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String isolation) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", BOOTSTRAP);
        properties.put("auto.offset.reset", "none");
        properties.put("enable.auto.commit", "false");
        properties.put("fetch.max.wait.ms", String.valueOf(FETCH_WAIT_MS));
        properties.put("max.poll.records", "10000");
        properties.put("isolation.level", isolation);
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void read(JsonNode a, Consumer<ConsumerRecord<byte[], byte[]>> take) {
        List<TopicPartition> assigned = List.of(partition(a));
        KafkaConsumer<byte[], byte[]> consumer = consumer(a.path("isolation").asText("read_uncommitted"));
        try {
            consumer.assign(assigned);
            switch (a.get("offset").asText()) {
                case "earliest" -> consumer.seekToBeginning(assigned);
                case "latest" -> consumer.seekToEnd(assigned);
                default -> consumer.seek(assigned.get(0), a.get("offset").asLong());
            }
            long deadline = System.nanoTime() + a.get("timeout_ms").asLong() * 1_000_000;
            int left = a.get("count").asInt();
            while (left > 0 && System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    if (left-- > 0) {
                        take.accept(record);
                    }
                }
            }
        } finally {
            consumer.close(CloseOptions.timeout(Duration.ZERO)); // else it waits for the fetch under way
        }
    }

    private static Map<String, Object> describe(ConsumerRecord<byte[], byte[]> record) {
        List<List<String>> headers = new ArrayList<>();
        for (Header header : record.headers()) {
            List<String> pair = new ArrayList<>();
            pair.add(header.key());
            pair.add(text(header.value()));
            headers.add(pair);
        }
        Map<String, Object> answer = new HashMap<>();
        answer.put("o", record.offset());
        answer.put("k", text(record.key()));
        answer.put("v", text(record.value()));
        answer.put("h", headers);
        answer.put("ts", record.timestamp());
        answer.put("tt", record.timestampType() == TimestampType.LOG_APPEND_TIME ? "append" : "create");
        return answer;
    }

    private static Map<String, Object> consumeBulk(JsonNode a) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        long[] countAndNext = {0, -1};
        boolean[] contiguous = {true};
        read(a, record -> {
            contiguous[0] &= countAndNext[0] == 0 || record.offset() == countAndNext[1];
            countAndNext[1] = record.offset() + 1;
            countAndNext[0]++;
            digest.update(record.value());
        });
        return Map.of("count", countAndNext[0], "contiguous", contiguous[0], "sha256", HexFormat.of().formatHex(digest.digest()));
    }
}
