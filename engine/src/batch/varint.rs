//! Zigzag variable-length integers as record fields use them: 7 bits a byte, lowest first, at most 10 bytes.
//!
//! Readers take a slice and a position and never look past the slice. Encodings longer than needed are accepted, as Kafka does.

/// Reads a zigzag i64 at `*at` and moves it on; `None` where the bytes end or the number does not (then `*at` stays).
#[inline]
pub fn read_i64(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag(u64::from(first)));
    }
    let mut position = *at;
    let value = read_with(|| {
        let byte = bytes.get(position).copied();
        position += 1;
        byte
    })?;
    *at = position;
    Some(value)
}

/// Reads a zigzag i32 at `*at` and moves it on; `None` also where the number is wider than 32 bits.
#[inline]
pub fn read_i32(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let mut position = *at;
    let value = i32::try_from(read_i64(bytes, &mut position)?).ok()?;
    *at = position;
    Some(value)
}

/// Reads a zigzag i64 from bytes handed out one at a time.
#[inline]
pub fn read_with(mut next: impl FnMut() -> Option<u8>) -> Option<i64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = next()?;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(unzigzag(value));
        }
    }
    None
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
