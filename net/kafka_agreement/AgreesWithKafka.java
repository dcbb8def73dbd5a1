// Reads what `cargo run --example corpus` prints and passes every message through Apache Kafka's own classes: they must
// understand it to the last byte and write the same bytes. Prints `N passed, N failed` and exits 1 if any failed.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.Set;
import java.util.TreeMap;

import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.metadata.MetadataRecordSerde;

public class AgreesWithKafka {
    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        TreeMap<String, String> failures = new TreeMap<>();
        Set<String> forms = new HashSet<>();
        int passed = 0;
        int failed = 0;
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] parts = line.split(" ", -1);
            String form = String.join(" ", parts[0], parts[1], parts[2]);
            forms.add(form);
            byte[] ours = HexFormat.of().parseHex(parts[3]);
            try {
                byte[] theirs = through(parts[0], parts[1], Short.parseShort(parts[2]), ByteBuffer.wrap(ours));
                if (!Arrays.equals(ours, theirs)) {
                    throw new Exception("Kafka writes " + HexFormat.of().formatHex(theirs));
                }
                passed++;
            } catch (Exception failure) {
                failed++;
                failures.putIfAbsent(form, failure + " for " + parts[3]);
            }
        }
        failures.forEach((form, failure) -> System.out.println(form + ": " + failure));
        System.out.println(forms.size() + " forms: " + passed + " passed, " + failed + " failed");
        System.exit(failed == 0 && passed > 0 ? 0 : 1);
    }

    static byte[] through(String kind, String name, short version, ByteBuffer bytes) throws Exception {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBufferAccessor reader = new ByteBufferAccessor(bytes);
        ByteBuffer out;
        if (kind.equals("record")) {
            MetadataRecordSerde serde = new MetadataRecordSerde();
            var record = serde.read(reader, bytes.remaining());
            out = ByteBuffer.allocate(serde.recordSize(record, cache));
            serde.write(record, cache, new ByteBufferAccessor(out));
        } else {
            Message message = switch (kind) {
                case "request" -> ApiMessageType.fromApiKey(Short.parseShort(name)).newRequest();
                case "response" -> ApiMessageType.fromApiKey(Short.parseShort(name)).newResponse();
                default -> (Message) Class.forName("org.apache.kafka.common.message." + name)
                    .getDeclaredConstructor().newInstance();
            };
            message.read(reader, version);
            out = ByteBuffer.allocate(message.size(cache, version));
            message.write(new ByteBufferAccessor(out), cache, version);
        }
        if (bytes.hasRemaining()) {
            throw new Exception(bytes.remaining() + " bytes not understood");
        }
        return out.array();
    }
}
