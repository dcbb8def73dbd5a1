package ringlog.ci;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The driver's transactional producers, by the name the suite gave each. */
final class Transactions {
    private final Map<String, KafkaProducer<byte[], byte[]>> producers = new HashMap<>();

    Object run(JsonNode a) throws Exception {
        String name = a.path("producer").asText();
        switch (a.get("op").asText()) {
            case "txn_open":
                producers.put(name, open(a.get("id").asText(), a.get("timeout_ms").asText()));
                return null;
            case "txn_begin":
                producers.get(name).beginTransaction();
                return null;
            case "txn_send":
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (JsonNode value : a.get("values")) {
                    byte[] bytes = Base64.getDecoder().decode(value.asText());
                    sent.add(producers.get(name).send(new ProducerRecord<>(a.get("topic").asText(), a.get("partition").asInt(), null, bytes)));
                }
                for (Future<RecordMetadata> one : sent) {
                    one.get();
                }
                return null;
            case "txn_end":
                end(producers.get(name), a.get("commit").asBoolean());
                return null;
            case "txn_close":
                producers.remove(name).close(Duration.ZERO);
                return null;
            default:
                return copy(a);
        }
    }

    private static KafkaProducer<byte[], byte[]> open(String id, String timeout) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", System.getenv("BOOTSTRAP"));
        properties.put("transactional.id", id);
        properties.put("transaction.timeout.ms", timeout);
        properties.put("max.block.ms", "30000");
        KafkaProducer<byte[], byte[]> made = new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
        made.initTransactions();
        return made;
    }

    private static void end(KafkaProducer<byte[], byte[]> producer, boolean commit) {
        if (commit) {
            producer.commitTransaction();
        } else {
            producer.abortTransaction();
        }
    }

    private static int copy(JsonNode a) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", System.getenv("BOOTSTRAP"));
        properties.put("group.id", a.get("group").asText());
        properties.put("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        properties.put("isolation.level", "read_committed");
        properties.put("session.timeout.ms", "6000");
        properties.put("heartbeat.interval.ms", "500");
        int read = 0;
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
             KafkaProducer<byte[], byte[]> producer = open(a.get("id").asText(), "30000")) {
            consumer.subscribe(List.of(a.get("source").asText()));
            Map<TopicPartition, OffsetAndMetadata> positions = new HashMap<>();
            producer.beginTransaction();
            for (long deadline = System.nanoTime() + 40_000_000_000L; read < a.get("count").asInt() && System.nanoTime() < deadline;) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    byte[] value = ("copy of " + new String(record.value(), StandardCharsets.UTF_8)).getBytes(StandardCharsets.UTF_8);
                    producer.send(new ProducerRecord<>(a.get("target").asText(), record.partition(), null, value));
                    positions.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
                    read++;
                }
            }
            producer.sendOffsetsToTransaction(positions, consumer.groupMetadata());
            end(producer, a.get("commit").asBoolean());
        }
        return read;
    }
}
