//! Which partition of a coordinator's topic an id belongs to: Java's hash of the string, as Kafka takes it, for every client and tool reckons with it.

/// The partition, of `partitions`, that holds a group's or a transactional id's state.
///
/// `partitions` below 1 count as 1.
pub fn partition_for(id: &str, partitions: i32) -> i32 {
    // Kafka's `Utils.abs`: the one number without a positive counterpart becomes 0.
    java_hash(id).checked_abs().unwrap_or(0) % partitions.max(1)
}

/// `String.hashCode` of Java: over UTF-16 units, in wrapping 32-bit arithmetic.
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_javas() {
        for (text, hash) in [
            ("", 0),
            ("a", 97),
            ("abc", 96_354),
            ("hello world", 1_794_106_052),
            // Two strings that Java is known to confuse.
            ("Aa", 2112),
            ("BB", 2112),
            // Wraps to the smallest number.
            ("polygenelubricants", i32::MIN),
            ("ä", 228),
            // Outside the basic plane: two units, d83d and de00.
            ("😀", 0xd83d * 31 + 0xde00),
        ] {
            assert_eq!(java_hash(text), hash, "{text}");
        }
    }

    #[test]
    fn a_group_is_where_kafka_puts_it() {
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        assert_eq!(partition_for("abc", 50), 4);
        assert_eq!(partition_for("a", 50), 47);
        assert_eq!(partition_for("hello world", 50), 2);
        // A negative hash counts by its absolute value.
        let negative = "consumer-group-of-billing";
        let hash = java_hash(negative);
        assert_eq!(
            i64::from(partition_for(negative, 50)),
            i64::from(hash).abs() % 50
        );
        assert_eq!(partition_for("abc", 0), 0);
    }
}
