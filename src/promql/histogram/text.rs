//! A native histogram as text: the value of a `count_values` label.

use std::fmt::Write;

use crate::model::Histogram;
use crate::model::buckets::buckets;
use crate::model::number::format_g;

/// `{count:3, sum:4, [-1,-0.5):1, (1,2]:2}`: the buckets that hold something, ascending.
pub fn text(h: &Histogram) -> String {
    let mut out = format!("{{count:{}, sum:{}", format_g(h.count), format_g(h.sum));
    for b in buckets(h).iter().filter(|b| b.count != 0.0) {
        let open = if b.lower_inclusive { '[' } else { '(' };
        let close = if b.upper_inclusive { ']' } else { ')' };
        let (lower, upper, count) = (format_g(b.lower), format_g(b.upper), format_g(b.count));
        // Writing to a string cannot fail.
        let _ = write!(out, ", {open}{lower},{upper}{close}:{count}");
    }
    out.push('}');
    out
}
