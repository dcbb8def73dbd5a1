//! The decision held against simulated comparisons: how often it cries wolf, what it finds, and when it admits that it cannot tell.
//!
//! A simulated comparison goes as a real one does: runs follow each other in time, a coin orders every round, several figures are judged
//! together. Noise is on the logarithm, as ratios are. Seeds are fixed: the rates below are exact.

use super::*;
use crate::ab::figure::Kind;
use crate::ab::random::Random;
use crate::ab::{ROUNDS, recorded};
use proptest::prelude::*;

const FIGURES: usize = 11;
const COMPARISONS: usize = 2000;
const PLAIN: Limits = Limits {
    threshold: 0.0,
    resolution: 10.0,
};

fn unit(random: &mut Random) -> f64 {
    ((random.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

fn normal(random: &mut Random) -> f64 {
    (-2.0 * unit(random).ln()).sqrt() * (std::f64::consts::TAU * unit(random)).cos()
}

/// Noise of consecutive runs.
#[derive(Clone, Copy, Debug)]
enum Noise {
    /// Independent, normal on the logarithm.
    LogNormal,
    /// Student's t with two degrees of freedom, which has no variance, and now and then a run that took ten times as long.
    HeavyTailed,
    /// Each run is much like the one before (autoregressive, 0.8).
    Autocorrelated,
    /// The machine gets slower all the time, and in the middle of everything at once.
    Drifting,
}

const ALL: [Noise; 4] = [
    Noise::LogNormal,
    Noise::HeavyTailed,
    Noise::Autocorrelated,
    Noise::Drifting,
];

impl Noise {
    fn series(self, runs: usize, spread: f64, random: &mut Random) -> Vec<f64> {
        let mut last = normal(random);
        let one = |at: usize| match self {
            Noise::LogNormal => spread * normal(random),
            Noise::HeavyTailed => {
                let scale = (-unit(random).ln()).sqrt();
                let outlier = if unit(random) < 0.05 { 10f64.ln() } else { 0.0 };
                spread * normal(random) / scale + outlier
            }
            Noise::Autocorrelated => {
                last = 0.8 * last + 0.6 * normal(random);
                spread * last
            }
            Noise::Drifting => {
                let step = if at * 2 > runs { 5.0 } else { 0.0 };
                spread * (0.3 * normal(random) + 0.2 * at as f64 + step)
            }
        };
        (0..runs).map(one).collect()
    }
}

/// How a round is ordered.
#[derive(Clone, Copy)]
enum Order {
    Coin,
    AlwaysAFirst,
}

/// One comparison's verdicts; `slower` is what B costs more, in parts.
fn compare(
    noise: Noise,
    spread: f64,
    rounds: usize,
    slower: f64,
    limits: Limits,
    order: Order,
    random: &mut Random,
) -> Vec<Judged> {
    let figures = pairs(noise, spread, rounds, slower, order, random);
    judged(&figures, rounds, limits)
}

/// The verdicts after so many rounds.
fn judged(figures: &[Vec<(f64, f64)>], rounds: usize, limits: Limits) -> Vec<Judged> {
    let one = |pairs: &Vec<_>| judge(&pairs[..rounds], Better::Lower, limits, FIGURES);
    figures.iter().map(one).collect()
}

/// Every figure's pairs.
fn pairs(
    noise: Noise,
    spread: f64,
    rounds: usize,
    slower: f64,
    order: Order,
    random: &mut Random,
) -> Vec<Vec<(f64, f64)>> {
    // Runs of a round share what happens to the machine: half of the noise is the same for all figures.
    let shared = noise.series(2 * rounds, spread / 2.0, random);
    let b_first: Vec<bool> = (0..rounds)
        .map(|_| random.coin() && matches!(order, Order::Coin))
        .collect();
    let figure = |_| {
        let own = noise.series(2 * rounds, spread / 2.0, random);
        (0..rounds)
            .map(|round| {
                let at = |second: bool| {
                    shared[2 * round + usize::from(second)] + own[2 * round + usize::from(second)]
                };
                let swapped = b_first[round];
                (at(swapped).exp(), at(!swapped).exp() * (1.0 + slower))
            })
            .collect()
    };
    (0..FIGURES).map(figure).collect()
}

/// The share of comparisons of which `holds`.
fn share(comparisons: usize, mut holds: impl FnMut(&mut Random) -> bool) -> f64 {
    let mut random = Random::new(0xab);
    let held = (0..comparisons).filter(|_| holds(&mut random)).count();
    held as f64 / comparisons as f64
}

fn changed(judged: &[Judged]) -> bool {
    judged
        .iter()
        .any(|one| matches!(one.verdict, Verdict::Worse | Verdict::Better))
}

#[test]
fn a_revision_against_itself_is_called_changed_in_one_of_twenty_at_most() {
    for noise in ALL {
        for (rounds, comparisons) in [(10, COMPARISONS), (25, COMPARISONS / 4)] {
            // Without a threshold: the interval alone must hold the rate. One look may use its share of it, all looks together the whole, even if all were always made.
            let (mut first, mut any) = (0, 0);
            let mut random = Random::new(0xab);
            for _ in 0..comparisons {
                let of = pairs(noise, 0.3, LOOKS * rounds, 0.0, Order::Coin, &mut random);
                let looks: Vec<bool> = (1..=LOOKS)
                    .map(|look| changed(&judged(&of, look * rounds, PLAIN)))
                    .collect();
                first += usize::from(looks[0]);
                any += usize::from(looks.contains(&true));
            }
            let rate = |wrong: usize| wrong as f64 / comparisons as f64;
            let share = ERROR_MAX / LOOKS as f64;
            // A few hundred are not enough to tell a share from a little more.
            let enough = comparisons == COMPARISONS;
            assert!(
                !enough || rate(first) <= share,
                "{noise:?} {rounds}: {first}"
            );
            assert!(rate(any) <= ERROR_MAX, "{noise:?} {rounds}: {any}");
        }
    }
    // And it is not that nothing is ever called changed: the rate is used up to a good part.
    let wrong = share(COMPARISONS, |random| {
        changed(&compare(
            Noise::LogNormal,
            0.3,
            20,
            0.0,
            PLAIN,
            Order::Coin,
            random,
        ))
    });
    assert!((0.005..=0.05).contains(&wrong), "{wrong}");
}

#[test]
fn without_the_coin_a_drift_would_be_taken_for_a_change() {
    let fooled = |order| {
        share(200, |random| {
            changed(&compare(
                Noise::Drifting,
                0.3,
                20,
                0.0,
                PLAIN,
                order,
                random,
            ))
        })
    };
    assert!(fooled(Order::AlwaysAFirst) > 0.5);
    assert!(fooled(Order::Coin) <= 0.05);
}

#[test]
fn noise_that_hides_a_quarter_is_admitted() {
    let limits = Kind::Cpu.limits();
    for noise in [Noise::LogNormal, Noise::HeavyTailed, Noise::Autocorrelated] {
        let said = |slower: f64, verdict: Verdict| {
            share(300, |random| {
                let judged = compare(noise, 0.6, ROUNDS, slower, limits, Order::Coin, random);
                answer(judged.iter().map(|one| one.verdict)) == verdict
            })
        };
        assert!(
            said(0.0, Verdict::CannotTell) > 0.9,
            "{noise:?} {}",
            said(0.0, Verdict::CannotTell)
        );
        // What is there and cannot be seen is not called absent either.
        assert!(said(0.25, Verdict::NoChange) < 0.02, "{noise:?}");
    }
}

#[test]
fn a_small_change_for_certain_is_no_change_that_matters() {
    let limits = Limits {
        threshold: 0.10,
        resolution: 0.25,
    };
    let calm = share(200, |random| {
        let judged = compare(
            Noise::LogNormal,
            0.01,
            ROUNDS,
            0.04,
            limits,
            Order::Coin,
            random,
        );
        answer(judged.iter().map(|one| one.verdict)) == Verdict::NoChange
    });
    assert_eq!(calm, 1.0);
}

/// The figures of the shipped workloads.
const SHIPPED: [Kind; 10] = [
    Kind::P50,
    Kind::P99,
    Kind::Cpu,
    Kind::Memory,
    Kind::Throughput,
    Kind::Cpu,
    Kind::Memory,
    Kind::Throughput,
    Kind::Cpu,
    Kind::Memory,
];

/// A comparison by the shipped workloads, with the logarithm of a round's ratio from `noise`, its sign by coin; B's speed is worse by `slower`.
fn shipped(
    mut noise: impl FnMut(Kind, &mut Random) -> f64,
    slower: f64,
    random: &mut Random,
) -> Verdict {
    let judged = SHIPPED.map(|kind| {
        // Memory is no matter of speed.
        let slower = if kind == Kind::Memory { 0.0 } else { slower };
        let cost = |sign: f64, noise: f64| (sign * noise).exp() * (1.0 + slower);
        let pairs: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let sign = if random.coin() { 1.0 } else { -1.0 };
                let cost = cost(sign, noise(kind, random));
                match kind.better() {
                    Better::Lower => (1.0, cost),
                    Better::Higher => (cost, 1.0),
                }
            })
            .collect();
        judge(&pairs, kind.better(), kind.limits(), SHIPPED.len()).verdict
    });
    answer(judged)
}

fn recorded_noise() -> impl FnMut(Kind, &mut Random) -> f64 {
    let differences = recorded::differences();
    move |kind, random| {
        let of_kind = &differences[&kind];
        of_kind[(random.bits() % of_kind.len() as u64) as usize]
    }
}

#[test]
fn a_quarter_slower_is_found_in_measured_noise() {
    let mut noise = recorded_noise();
    let found = share(500, |random| {
        shipped(&mut noise, 0.25, random) == Verdict::Worse
    });
    assert!(found >= 0.9, "{found}");
}

#[test]
fn in_measured_noise_a_revision_against_itself_is_not_called_changed() {
    let mut noise = recorded_noise();
    let wrong = share(500, |random| {
        matches!(
            shipped(&mut noise, 0.0, random),
            Verdict::Worse | Verdict::Better
        )
    });
    assert!(wrong <= 0.05, "{wrong}");
}

#[test]
fn on_a_calm_machine_a_revision_against_itself_is_no_change() {
    // Spreads of single runs on a machine left alone: a few percent, a fifth for the 99th percentile.
    let calm = |kind: Kind, random: &mut Random| {
        let spread = match kind {
            Kind::P50 => 0.06,
            Kind::P99 => 0.2,
            Kind::Throughput | Kind::Cpu => 0.05,
            Kind::Memory => 0.03,
        };
        spread * (normal(random) - normal(random))
    };
    let same = share(500, |random| {
        shipped(calm, 0.0, random) == Verdict::NoChange
    });
    assert!(same >= 0.95, "{same}");
    let slower = share(500, |random| shipped(calm, 0.25, random) == Verdict::Worse);
    assert!(slower >= 0.99, "{slower}");
}

#[test]
fn what_is_missing_is_not_judged() {
    let good = (1.0, 2.0);
    let few = vec![good; rounds_needed(FIGURES) - 1];
    assert_eq!(
        judge(&few, Better::Lower, PLAIN, FIGURES).verdict,
        Verdict::CannotTell
    );
    let mut pairs = vec![good; rounds_needed(FIGURES)];
    assert_eq!(
        judge(&pairs, Better::Lower, PLAIN, FIGURES).verdict,
        Verdict::Worse
    );
    pairs[0] = (0.0, 1.0);
    let judged = judge(&pairs, Better::Lower, PLAIN, FIGURES);
    assert_eq!(
        (judged.verdict, judged.pairs, judged.ratio),
        (Verdict::CannotTell, pairs.len() - 1, None)
    );
    assert_eq!(answer([]), Verdict::CannotTell);
}

#[test]
fn the_gravest_verdict_is_the_answer() {
    use Verdict::*;
    assert_eq!(answer([NoChange, Better, CannotTell, Worse]), Worse);
    assert_eq!(answer([NoChange, Better, CannotTell]), CannotTell);
    assert_eq!(answer([NoChange, Better]), Better);
    assert_eq!(answer([NoChange]), NoChange);
}

proptest! {
    #[test]
    fn turning_the_sides_turns_the_verdict(pairs in prop::collection::vec((0.5f64..2.0, 0.5f64..2.0), 12..30), better in prop::bool::ANY) {
        let better = if better { Better::Lower } else { Better::Higher };
        let limits = Limits { threshold: 0.05, resolution: 100.0 };
        let forth = judge(&pairs, better, limits, 3);
        let back: Vec<(f64, f64)> = pairs.iter().map(|&(a, b)| (b, a)).collect();
        let back = judge(&back, better, limits, 3);
        let turned = match forth.verdict {
            Verdict::Worse => Verdict::Better,
            Verdict::Better => Verdict::Worse,
            same => same,
        };
        prop_assert_eq!(back.verdict, turned);
        prop_assert!((forth.ratio.unwrap() * back.ratio.unwrap() - 1.0).abs() < 1e-9);
        prop_assert!((forth.low.unwrap() * back.high.unwrap() - 1.0).abs() < 1e-9);
        // Units are no matter.
        let scaled: Vec<(f64, f64)> = pairs.iter().map(|&(a, b)| (a * 1e6, b * 1e6)).collect();
        let scaled = judge(&scaled, better, limits, 3);
        prop_assert!((scaled.ratio.unwrap() / forth.ratio.unwrap() - 1.0).abs() < 1e-9);
    }
}
