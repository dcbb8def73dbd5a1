//! Zigzag variable-length integers as record fields use them: 7 bits a byte, lowest first, at most 5 bytes for 32 bits and 10 for 64.
//!
//! Readers take a slice and a position and never look past the slice. Encodings longer than needed are accepted, as Kafka does.

/// Reads a zigzag i64 at `*at` and moves it on; `None` where the bytes end or the number does not.
#[inline]
pub fn read_i64(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag(u64::from(first)));
    }
    let mut value = u64::from(first & 0x7f);
    let mut shift = 7;
    for (index, &byte) in bytes.get(*at + 1..)?.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            if shift == 63 && byte > 1 {
                return None;
            }
            *at += index + 2;
            return Some(unzigzag(value));
        }
        shift += 7;
    }
    None
}

/// Reads a zigzag i32 at `*at` and moves it on; `None` where the bytes end or the number is wider than 32 bits.
#[inline]
pub fn read_i32(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let mut position = *at;
    let value = i32::try_from(read_i64(bytes, &mut position)?).ok()?;
    if position - *at > 5 {
        return None;
    }
    *at = position;
    Some(value)
}

/// Appends `value` to `out`.
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
