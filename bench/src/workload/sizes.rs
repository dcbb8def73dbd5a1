//! Sizes of records that vary: weighted ranges, and the values a producer takes turns with so that their sizes follow them.
//!
//! Sizes are quantiles at even distances and not drawn: a run of one pool's length has just the stated mix, and two runs have the same one.

use serde::{Deserialize, Serialize};

use super::PAYLOADS;

/// Values whose sizes vary are this many, so that a rare size is there at all,
const VARIED_PAYLOADS: usize = 1024;
/// as long as they take no more memory than this; never fewer than [`PAYLOADS`].
const VARIED_PAYLOAD_BYTES_MAX: f64 = 64e6;

/// One part of a mix of sizes: every size from `bytes` to `to` is equally likely.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SizeRange {
    /// Smallest value, bytes.
    pub bytes: usize,
    /// Largest value, bytes; absent: all have `bytes`.
    pub to: Option<usize>,
    /// How many of all records this part has, in proportion to the other parts' weights.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

impl SizeRange {
    /// Largest value, bytes.
    pub fn largest(&self) -> usize {
        self.to.unwrap_or(self.bytes)
    }

    fn mean(&self) -> f64 {
        (self.bytes + self.largest()) as f64 / 2.0
    }
}

/// What is wrong with a mix, if anything; `max` is the largest size allowed, bytes.
pub fn problem(sizes: &[SizeRange], max: usize) -> Option<String> {
    if sizes.is_empty() || sizes.len() > 100 {
        return Some("1 to 100 sizes are needed".into());
    }
    sizes.iter().find_map(|size| {
        if size.largest() < size.bytes {
            Some(format!(
                "to = {} is below bytes = {}",
                size.largest(),
                size.bytes
            ))
        } else if size.largest() > max {
            Some(format!("{} is more than {max} bytes", size.largest()))
        } else if !(size.weight > 0.0 && size.weight <= 1e9) {
            Some(format!(
                "a weight of {} is outside 0 to 1000000000",
                size.weight
            ))
        } else {
            None
        }
    })
}

/// Mean size, bytes.
pub fn mean(sizes: &[SizeRange]) -> f64 {
    let weight: f64 = sizes.iter().map(|size| size.weight).sum();
    sizes
        .iter()
        .map(|size| size.weight * size.mean())
        .sum::<f64>()
        / weight
}

/// The sizes of the values that take turns, in order of size.
pub fn pool(sizes: &[SizeRange]) -> Vec<usize> {
    let affordable = (VARIED_PAYLOAD_BYTES_MAX / mean(sizes).max(1.0)) as usize;
    let count = affordable.clamp(PAYLOADS, VARIED_PAYLOADS);
    (0..count)
        .map(|number| quantile(sizes, (number as f64 + 0.5) / count as f64))
        .collect()
}

/// The size that a share `at` of all records does not exceed.
fn quantile(sizes: &[SizeRange], at: f64) -> usize {
    let mut ordered = sizes.to_vec();
    ordered.sort_by_key(|size| (size.bytes, size.largest()));
    let weight: f64 = ordered.iter().map(|size| size.weight).sum();
    let mut left = at * weight;
    for size in &ordered {
        if left < size.weight {
            let width = (size.largest() - size.bytes + 1) as f64;
            return size.bytes
                + ((left / size.weight * width) as usize).min(size.largest() - size.bytes);
        }
        left -= size.weight;
    }
    ordered.last().map_or(0, SizeRange::largest)
}

#[cfg(test)]
mod tests {
    //! A pool has the mix it was asked for, and every refusal says why.
    use super::*;

    fn part(bytes: usize, to: usize, weight: f64) -> SizeRange {
        SizeRange {
            bytes,
            to: Some(to),
            weight,
        }
    }

    #[test]
    fn a_pool_has_the_mix() {
        let mix = [part(10_000, 20_000, 1.0), part(100, 100, 9.0)];
        let pool = pool(&mix);
        assert_eq!(pool.len(), VARIED_PAYLOADS);
        let small = pool.iter().filter(|&&size| size == 100).count();
        assert!(
            (small as f64 / pool.len() as f64 - 0.9).abs() < 0.002,
            "{small}"
        );
        let measured = pool.iter().sum::<usize>() as f64 / pool.len() as f64;
        assert!((measured / mean(&mix) - 1.0).abs() < 0.01, "{measured}");
        assert!(pool.iter().any(|&size| size < 10_300) && pool.iter().any(|&size| size > 19_700));
        assert_eq!(mean(&mix), 1590.0);
    }

    #[test]
    fn a_pool_of_large_values_stays_small() {
        assert_eq!(pool(&[part(10_000_000, 10_000_000, 1.0)]).len(), PAYLOADS);
        assert!(pool(&[part(0, 1, 1.0)]).contains(&0));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            vec![],
            vec![part(5, 4, 1.0)],
            vec![part(0, 1001, 1.0)],
            vec![part(1, 2, 0.0)],
            vec![part(1, 2, f64::NAN)],
        ] {
            assert!(problem(&wrong, 1000).is_some(), "{wrong:?}");
        }
        assert_eq!(problem(&[part(0, 1000, 0.5)], 1000), None);
    }
}
