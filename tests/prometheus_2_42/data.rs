//! The made-up part of the data: what scrapes of a quiet machine do not have.
//!
//! *Invariants:* every value follows from the series and the number of the scrape, so every run asks the same. Samples lie
//! [`PHASE`] after whole intervals, where no window of the questions begins or ends; only `aligned` lies on the edges.

use crate::support::writer::{Point, Row};

/// The moment of the instant questions, and the middle of the data: 2024-02-29T23:58:30Z, milliseconds.
pub const NOW: i64 = 1_709_251_110_000;
/// First step of the range questions.
pub const START: i64 = NOW - 1_500_000;
/// Last step of the range questions: past the newest sample, and in March.
pub const END: i64 = NOW + 480_000;
/// Between two steps.
pub const STEP: i64 = 60_000;

const INTERVAL: i64 = 15_000;
const PHASE: i64 = 7_250;
/// Scrapes before and after [`NOW`].
const SCRAPES: std::ops::Range<i64> = -160..9;
/// A stale marker.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// All series.
pub fn series() -> Vec<Row<'static>> {
    let mut all = Made(Vec::new());
    all.counters();
    all.gauges();
    all.interrupted();
    all.peculiar();
    all.labels();
    all.histograms();
    all.times();
    all.0
}

struct Made(Vec<Row<'static>>);

impl Made {
    /// Adds a series; `value` gives the value of a scrape, counted from 0, if there is one.
    fn add(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: impl Fn(i64) -> Option<f64>) {
        let points = SCRAPES.enumerate().filter_map(|(k, at)| Some((NOW + at * INTERVAL + PHASE, value(k as i64)?)));
        let points = points.collect();
        self.add_points(name, labels, points);
    }

    fn add_points(&mut self, name: &'static str, labels: &[(&'static str, &str)], points: Vec<Point>) {
        let mut labels: Vec<_> = labels.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        labels.push(("__name__", name.to_owned()));
        labels.sort();
        self.0.push((labels, points));
    }

    fn constant(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        self.add(name, labels, |_| Some(value));
    }

    /// Counters that grow unevenly, two that restart, one that starts near zero, one too large for exact steps.
    fn counters(&mut self) {
        for (j, job) in ["api", "web"].into_iter().enumerate() {
            for (i, instance) in ["one:80", "two:80"].into_iter().enumerate() {
                for (c, code) in ["200", "404", "500"].into_iter().enumerate() {
                    let (j, i, c) = (j as i64, i as i64, c as i64);
                    let restarts =
                        move |k: i64| if i == 1 { [0, 61, 140].into_iter().rfind(|r| *r <= k) } else { Some(0) };
                    let labels = [("job", job), ("instance", instance), ("code", code)];
                    self.add("req_total", &labels, move |k| {
                        let since = k - restarts(k)?;
                        Some((1000 * (1 - i) + since * (7 + 3 * j - 2 * c) + (since * since * (c + 1)) % 11) as f64)
                    });
                }
            }
        }
        self.add("slow_total", &[], |k| Some((k / 40) as f64));
        self.add("young_total", &[], |k| (k >= 155).then(|| (k - 154) as f64 * 3.0));
        self.add("huge_total", &[], |k| Some(9e15 + (k * 3) as f64));
        self.add("decimal_total", &[], |k| Some(k as f64 * 0.1));
    }

    fn gauges(&mut self) {
        for (r, room) in ["attic", "cellar", "hall", "kitchen"].into_iter().enumerate() {
            for (f, floor) in ["0", "1"].into_iter().enumerate() {
                let (r, f) = (r as i64, f as i64);
                self.add("temp", &[("room", room), ("floor", floor)], move |k| {
                    Some(((k * 7 + r * 13 + f * 5) % 31) as f64 / 4.0 - 3.0 + r as f64 * 2.1)
                });
            }
            let limit = [20.0, 8.5, -1.0, 4.0][r];
            self.constant("temp_limit", &[("room", room), ("unit", "celsius")], limit);
        }
        self.add("load", &[], |k| Some((k as f64 / 9.0).sin() * 1.5 + 2.0));
        self.add("flag", &[("side", "left")], |k| Some((k / 10 % 2) as f64));
        self.add("flag", &[("side", "right")], |k| Some((k / 15 % 2) as f64));
        for (job, weight) in [("api", 2.0), ("web", 5.0)] {
            self.constant("weight", &[("job", job)], weight);
        }
        for (job, instance, version) in [("api", "one:80", "1.2"), ("api", "two:80", "1.3"), ("web", "one:80", "2.0")] {
            let labels = [("job", job), ("instance", instance), ("version", version), ("code", "")];
            self.constant("build_info", &labels[..3], 1.0);
        }
        // On the very edges of windows.
        let edges = (-40..1).map(|at| (NOW + at * INTERVAL, at as f64)).collect();
        self.add_points("aligned", &[], edges);
    }

    /// Holes, ends, returns, single samples, odd intervals.
    fn interrupted(&mut self) {
        self.add("gap", &[("kind", "none")], |k| Some(k as f64));
        self.add("gap", &[("kind", "hole")], |k| (!(60..115).contains(&k)).then_some(k as f64));
        let marked = |from: i64, to: i64| {
            move |k: i64| match k {
                k if k == from => Some(f64::from_bits(STALE)),
                k if (from..to).contains(&k) => None,
                k => Some(k as f64),
            }
        };
        self.add("gap", &[("kind", "marked")], marked(80, 110));
        self.add("gap", &[("kind", "blinking")], |k| Some(if k % 6 == 3 { f64::from_bits(STALE) } else { k as f64 }));
        self.add("gap", &[("kind", "ended")], marked(157, 1000));
        self.add("gap", &[("kind", "quiet")], |k| (k < 145).then_some(k as f64));
        self.add_points("once", &[], vec![(NOW - 100_123, 42.0)]);
        self.add_points("twice", &[], vec![(NOW - 222_333, 10.0), (NOW - 44_444, 30.0)]);
        let uneven = (0..120_i64).map(|k| (NOW - 1_200_321 + k * 9_973 + (k * k * 37) % 4_000, (k * 5 % 17) as f64));
        self.add_points("uneven", &[], uneven.collect());
    }

    /// Numbers at the ends of what a double can hold.
    fn peculiar(&mut self) {
        for (v, value) in [
            ("nan", f64::NAN),
            ("inf", f64::INFINITY),
            ("neg_inf", f64::NEG_INFINITY),
            ("zero", 0.0),
            ("neg_zero", -0.0),
            ("max", f64::MAX),
            ("lowest", f64::MIN),
            ("tiny", f64::MIN_POSITIVE),
            ("smallest", 5e-324),
            ("third", 1.0 / 3.0),
            ("neg_half", -0.5),
            ("e20", 1e20),
            ("e21", 1e21),
            ("e_minus_6", 1e-6),
            ("e_minus_7", 1.25e-7),
        ] {
            self.constant("odd", &[("v", v)], value);
        }
        let at = |k: i64, every: i64, value: f64| Some(if k % every == 0 { value } else { k as f64 });
        self.add("odd_mix", &[("v", "nan")], move |k| at(k, 4, f64::NAN));
        self.add("odd_mix", &[("v", "inf")], move |k| at(k, 7, f64::INFINITY));
        self.add("odd_mix", &[("v", "both")], move |k| {
            at(k, 9, if k % 2 == 0 { f64::INFINITY } else { f64::NEG_INFINITY })
        });
        for (part, value) in [("a", 1e100), ("b", 1.0), ("c", -1e100)] {
            self.constant("cancelling", &[("part", part)], value);
        }
    }

    /// Values of labels that expressions stumble over.
    fn labels(&mut self) {
        let paths = [
            "/",
            "/a.b",
            "/a\nb",
            "/axb",
            "/ü/ß",
            "a|b",
            "(x)",
            "quote\"d",
            "back\\slash",
            "UPPER",
            "upper",
            "$1",
            "  ",
        ];
        for (at, path) in paths.into_iter().enumerate() {
            self.constant("page", &[("path", path), ("n", ["odd", "even"][at % 2])], at as f64 + 1.0);
        }
        self.constant("page", &[("n", "none")], 100.0);
        self.constant("owner", &[("src", "alpha-7"), ("zone", "eu-1")], 1.0);
        self.constant("owner", &[("src", "beta-12"), ("zone", "us-2")], 2.0);
        self.constant("owner", &[("src", "gamma"), ("zone", "")][..1], 3.0);
    }

    /// Classic histograms: healthy ones, and each way in which one can be unhealthy.
    fn histograms(&mut self) {
        const BOUNDS: [&str; 6] = ["0.1", "0.25", "0.5", "1", "2.5", "+Inf"];
        for (s, svc) in ["pay", "ship"].into_iter().enumerate() {
            for (z, zone) in ["a", "b"].into_iter().enumerate() {
                let (s, z) = (s as i64, z as i64);
                for (b, le) in BOUNDS.into_iter().enumerate() {
                    let b = b as i64 + 1;
                    let labels = [("svc", svc), ("zone", zone), ("le", le)];
                    self.add("lat_seconds_bucket", &labels, move |k| Some((k * b * (2 + s + z) + b * b) as f64));
                }
                let labels = [("svc", svc), ("zone", zone)];
                self.add("lat_seconds_count", &labels, move |k| Some((k * 6 * (2 + s + z) + 36) as f64));
                self.add("lat_seconds_sum", &labels, move |k| Some((k * (3 + s)) as f64 * 1.7));
            }
        }
        let mut odd = |kind: &'static str, buckets: &[(&'static str, f64)]| {
            for (le, value) in buckets {
                self.constant("odd_bucket", &[("kind", kind), ("le", le)], *value);
            }
        };
        odd("bent", &[("1", 10.0), ("2", 8.0), ("3", 20.0), ("+Inf", 20.0)]);
        odd("open", &[("1", 10.0), ("2", 20.0)]);
        odd("negative", &[("-5", 3.0), ("-1", 9.0), ("0", 12.0), ("4", 30.0), ("+Inf", 30.0)]);
        odd("idle", &[("1", 0.0), ("2", 0.0), ("+Inf", 0.0)]);
        odd("only_inf", &[("+Inf", 7.0)]);
        odd("nan", &[("1", f64::NAN), ("2", 5.0), ("+Inf", 9.0)]);
        odd("beyond", &[("1", 1.0), ("2", 2.0), ("+Inf", 100.0)]);
        odd("unreadable", &[("1", 1.0), ("two", 2.0), ("+Inf", 3.0)]);
        odd("fraction", &[("0.5", 0.25), ("1.5", 0.75), ("+Inf", 1.0)]);
    }

    /// Seconds since 1970 of days that calendars get wrong.
    fn times(&mut self) {
        for (day, seconds) in [
            ("epoch", 0.0),
            ("before", -1.0),
            ("leap_2000", 951_782_400.0),
            ("no_leap_2100", 4_107_542_400.0),
            ("new_year", 1_704_067_199.999),
            ("far", 32_503_680_000.0),
            ("fraction", 1_136_239_445.75),
        ] {
            self.constant("when", &[("day", day)], seconds);
        }
    }
}
