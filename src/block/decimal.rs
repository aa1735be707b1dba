//! Values as exact decimals: integers after a power of ten and a common divisor.
//!
//! *Invariants:* [`split`] succeeds only if [`Decimal::value`] gives every value back with the same 64 bits.
//!
//! *Not here:* stale markers, which are no values (`samples`).

/// Highest power of ten used; 10²² is the last one a double holds exactly.
const MAX_SCALE: usize = 18;

/// Largest scaled integer a double holds exactly.
const MAX_SCALED: f64 = 9_007_199_254_740_992.0;

/// Largest unscaled integer taken: its product with the divisor never overflows.
const MAX_WHOLE: i64 = 1 << 62;

/// Adding and subtracting it rounds a double below 2⁵¹ to an integer, without a call into libm.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

const POW10: [f64; MAX_SCALE + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];

/// How integers become values again: `integer × mul ÷ 10^scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// Power of ten, 0..=18.
    pub scale: u8,
    /// Common divisor taken out, at least 1.
    pub mul: i64,
}

impl Decimal {
    /// Takes what was stored; `None` when no writer stores it.
    pub fn from_stored(scale: i64, mul: i64) -> Option<Self> {
        let scale = u8::try_from(scale).ok().filter(|s| usize::from(*s) <= MAX_SCALE)?;
        (mul >= 1).then_some(Self { scale, mul })
    }

    /// The value of a stored integer.
    #[inline]
    pub fn value(self, integer: i64) -> f64 {
        integer.wrapping_mul(self.mul) as f64 / POW10[usize::from(self.scale)]
    }
}

/// Writes the integers of `values` behind `out`; `None` (and `out` as before) when one has no exact form.
pub fn split(values: &[f64], out: &mut Vec<i64>) -> Option<Decimal> {
    let from = out.len();
    let scale = if whole(values, out) { Some(0) } else { scaled(values, out, from) };
    let Some(scale) = scale else {
        out.truncate(from);
        return None;
    };
    let mul = divide_out(&mut out[from..]);
    Some(Decimal { scale: scale as u8, mul })
}

/// The common case: all values are integers.
fn whole(values: &[f64], out: &mut Vec<i64>) -> bool {
    for &v in values {
        let n = v as i64;
        if (n as f64).to_bits() != v.to_bits() || n.unsigned_abs() > MAX_WHOLE as u64 {
            return false;
        }
        out.push(n);
    }
    true
}

/// Finds the smallest scale that fits all values, then scales all of them with it.
fn scaled(values: &[f64], out: &mut Vec<i64>, from: usize) -> Option<usize> {
    let mut scale = 1;
    for &v in values {
        while at_scale(v, scale).is_none() {
            scale += 1;
            if scale > MAX_SCALE || (v * POW10[scale]).abs() > MAX_SCALED || !v.is_finite() {
                return None;
            }
        }
    }
    out.truncate(from);
    for &v in values {
        out.push(at_scale(v, scale)?);
    }
    Some(scale)
}

#[inline]
fn at_scale(v: f64, scale: usize) -> Option<i64> {
    let x = v * POW10[scale];
    let n = if x.abs() < ROUNDER / 4.0 { ((x + ROUNDER) - ROUNDER) as i64 } else { x.round() as i64 };
    let exact = (n as f64 / POW10[scale]).to_bits() == v.to_bits() && x.abs() <= MAX_SCALED;
    exact.then_some(n)
}

/// Divides all by their greatest common divisor and returns it.
fn divide_out(integers: &mut [i64]) -> i64 {
    let mut common = 0u64;
    for n in integers.iter() {
        common = gcd(n.unsigned_abs(), common);
        if common == 1 {
            return 1;
        }
    }
    if common == 0 {
        return 1;
    }
    let common = common as i64;
    for n in integers {
        *n /= common;
    }
    common
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[f64]) -> Option<(Decimal, Vec<i64>)> {
        let mut out = vec![7];
        let found = split(values, &mut out);
        assert_eq!(out[0], 7);
        let Some(decimal) = found else {
            assert_eq!(out.len(), 1);
            return None;
        };
        let back: Vec<u64> = out[1..].iter().map(|n| decimal.value(*n).to_bits()).collect();
        assert_eq!(back, values.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        Some((decimal, out[1..].to_vec()))
    }

    #[test]
    fn takes_out_scale_and_divisor() {
        let of = |scale, mul, n: &[i64]| Some((Decimal { scale, mul }, n.to_vec()));
        assert_eq!(round_trip(&[4096.0, 8192.0, -4096.0]), of(0, 4096, &[1, 2, -1]));
        assert_eq!(round_trip(&[0.25, 1.5]), of(2, 25, &[1, 6]));
        assert_eq!(round_trip(&[0.0, 0.0]), of(0, 1, &[0, 0]));
        assert_eq!(round_trip(&[1.7e18]), of(0, 1_700_000_000_000_000_000, &[1]));
        assert_eq!(round_trip(&[]), of(0, 1, &[]));
    }

    #[test]
    fn leaves_what_is_no_decimal() {
        for v in [f64::NAN, f64::INFINITY, -0.0, 1e300, 5e-324, 9.3e18, 1e-19] {
            assert_eq!(round_trip(&[1.5, v]), None, "{v}");
            assert_eq!(round_trip(&[v]), None, "{v}");
        }
        // Each is a decimal alone; together they would need more digits than a double has.
        assert_eq!(round_trip(&[1.0 / 3.0, 1.5]), None);
    }

    proptest! {
        #[test]
        fn gives_back_the_same_bits_or_nothing(bits in proptest::collection::vec(any::<u64>(), 0..20)) {
            round_trip(&bits.into_iter().map(f64::from_bits).collect::<Vec<_>>());
        }

        #[test]
        fn finds_short_decimals(n in proptest::collection::vec(-1_000_000i64..1_000_000, 1..20), s in 0i32..6) {
            let values: Vec<f64> = n.iter().map(|n| *n as f64 / 10f64.powi(s)).collect();
            prop_assert!(round_trip(&values).is_some());
        }
    }
}
