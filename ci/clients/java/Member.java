package ringlog.ci;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** A group member of the Java client: polls, and between two polls does what the suite asks, so one thread owns the consumer. */
public final class Member implements ConsumerRebalanceListener {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String END = "";

    private final List<List<Object>> records = new ArrayList<>();
    private final List<List<Object>> errors = new ArrayList<>();
    private final List<List<Object>> revoked = new ArrayList<>();
    private KafkaConsumer<byte[], byte[]> consumer;
    private int assignments;

    public static void main(String[] arguments) throws Exception {
        PrintStream out = System.out;
        System.setOut(System.err);
        BlockingQueue<String> requests = new LinkedBlockingQueue<>();
        Thread reading = new Thread(() -> {
            try (BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
                for (String line = in.readLine(); line != null; line = in.readLine()) {
                    requests.add(line);
                }
            } catch (java.io.IOException ended) {
                ended.printStackTrace();
            }
            Runtime.getRuntime().halt(0);
        });
        reading.setDaemon(true);
        reading.start();
        Member member = new Member();
        while (true) {
            String line = member.consumer == null ? requests.take() : requests.poll();
            if (line == null) {
                member.poll();
                continue;
            }
            Map<String, Object> answer = new HashMap<>();
            try {
                answer.put("ok", member.run(JSON.readTree(line)));
            } catch (Exception error) {
                error.printStackTrace();
                answer.put("error", Driver.code(error));
                answer.put("message", error.toString());
            }
            out.println(JSON.writeValueAsString(answer));
            out.flush();
        }
    }

    private static List<Object> pair(TopicPartition partition) {
        return List.of(partition.topic(), partition.partition());
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        assignments++;
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        partitions.forEach(partition -> revoked.add(pair(partition)));
    }

    private void fail(Throwable error, String what) {
        List<Object> told = new ArrayList<>();
        told.add(Driver.code(error));
        told.add(what + error);
        errors.add(told);
    }

    private void poll() throws InterruptedException {
        try {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(50))) {
                records.add(List.of(record.topic(), record.partition(), record.offset(), Base64.getEncoder().encodeToString(record.value())));
            }
        } catch (RuntimeException error) {
            error.printStackTrace();
            fail(error, "");
            Thread.sleep(100);
        }
    }

    private Object run(JsonNode a) {
        TopicPartition where = a.has("topic") ? new TopicPartition(a.get("topic").asText(), a.get("partition").asInt()) : null;
        switch (a.get("op").asText()) {
            case "version":
                return "Java client";
            case "join":
                join(a);
                return null;
            case "state":
                return state();
            case "commit":
                commit(a);
                return null;
            case "committed":
                OffsetAndMetadata found = consumer.committed(Set.of(where)).get(where);
                return found == null ? -1 : found.offset();
            case "pause":
                consumer.pause(List.of(where));
                return null;
            case "resume":
                consumer.resume(List.of(where));
                return null;
            case "seek":
                seek(where, a.get("to"));
                return null;
            case "leave":
                KafkaConsumer<byte[], byte[]> leaving = consumer;
                consumer = null;
                leaving.close();
                return null;
            default:
                throw new IllegalArgumentException("a member has no operation " + a.get("op"));
        }
    }

    private void join(JsonNode a) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", System.getenv("BOOTSTRAP"));
        properties.put("group.id", a.get("group").asText());
        properties.put("auto.offset.reset", a.get("reset").asText());
        properties.put("enable.auto.commit", String.valueOf(a.get("commits").asText().equals("auto")));
        properties.put("auto.commit.interval.ms", "200");
        properties.put("isolation.level", a.get("isolation").asText());
        properties.put("metadata.max.age.ms", "2000");
        properties.put("default.api.timeout.ms", "20000");
        if (a.get("protocol").asText().equals("consumer")) {
            properties.put("group.protocol", "consumer");
        } else {
            String assignor = switch (a.get("assignor").asText()) {
                case "range" -> "RangeAssignor";
                case "roundrobin" -> "RoundRobinAssignor";
                case "sticky" -> "StickyAssignor";
                default -> "CooperativeStickyAssignor";
            };
            properties.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor);
            properties.put("session.timeout.ms", a.get("session_timeout_ms").asText());
            properties.put("heartbeat.interval.ms", "500");
        }
        if (!a.get("instance").isNull()) {
            properties.put("group.instance.id", a.get("instance").asText());
        }
        List<String> topics = new ArrayList<>();
        a.get("topics").forEach(topic -> topics.add(topic.asText()));
        assignments = 0;
        revoked.clear();
        records.clear();
        errors.clear();
        consumer = new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(topics, this);
    }

    private Map<String, Object> state() {
        List<List<Object>> assigned = new ArrayList<>();
        consumer.assignment().stream().sorted(Comparator.comparing(TopicPartition::toString)).forEach(one -> assigned.add(pair(one)));
        Map<String, Object> answer = Map.of("assigned", assigned, "assignments", assignments, "revoked", List.copyOf(revoked),
            "records", List.copyOf(records), "errors", List.copyOf(errors));
        records.clear();
        errors.clear();
        return answer;
    }

    private void commit(JsonNode a) {
        Map<TopicPartition, OffsetAndMetadata> offsets = null;
        if (!a.get("offsets").isNull()) {
            offsets = new HashMap<>();
            for (JsonNode one : a.get("offsets")) {
                offsets.put(new TopicPartition(one.get(0).asText(), one.get(1).asInt()), new OffsetAndMetadata(one.get(2).asLong()));
            }
        }
        boolean async = a.get("how").asText().equals("async");
        if (async && offsets == null) {
            consumer.commitAsync((committed, error) -> committed(error));
        } else if (async) {
            consumer.commitAsync(offsets, (committed, error) -> committed(error));
        } else if (offsets == null) {
            consumer.commitSync();
        } else {
            consumer.commitSync(offsets);
        }
    }

    private void committed(Exception error) {
        if (error != null) {
            fail(error, "commit: ");
        }
    }

    private void seek(TopicPartition where, JsonNode to) {
        if (to.isObject()) {
            consumer.seek(where, consumer.offsetsForTimes(Map.of(where, to.get("ts").asLong())).get(where).offset());
        } else if (to.asText().equals("earliest")) {
            consumer.seekToBeginning(List.of(where));
        } else if (to.asText().equals("latest")) {
            consumer.seekToEnd(List.of(where));
        } else {
            consumer.seek(where, to.asLong());
        }
    }
}
