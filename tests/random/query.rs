//! Random queries, as text, that are well typed most of the time.
//!
//! *Invariants:* alternatives are ordered from simple to complex, because failing cases are shrunk towards the first. The
//! parser refuses what the few rules here do not keep apart; such a query counts as no pair.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

/// A query as text.
type Text = BoxedStrategy<String>;

/// Any query: mostly an instant vector.
pub fn query() -> Text {
    let vector = vector(3);
    prop_oneof![
        16 => vector.clone(),
        1 => scalar(2),
        1 => range(1),
        1 => sorted(vector),
    ]
    .boxed()
}

/// An instant vector with at most so many operations on top of each other.
fn vector(depth: u32) -> Text {
    if depth == 0 {
        return selector();
    }
    let inner = vector(depth - 1);
    prop_oneof![
        3 => inner.clone(),
        2 => range_call(depth - 1),
        2 => aggregation(inner.clone(), depth),
        2 => function(inner.clone(), depth),
        2 => vector_and_scalar(inner.clone(), depth),
        3 => vectors(inner.clone()),
        1 => inner.prop_map(|v| format!("-({v})")),
        1 => scalar(depth - 1).prop_map(|s| format!("vector({s})")),
    ]
    .boxed()
}

fn matcher() -> Text {
    prop_oneof![
        (select(&["a", "b", "job"][..]), select(&["=", "!="][..]), select(&["x", "y", "1", ""][..]))
            .prop_map(|(name, op, value)| format!("{name}{op}\"{value}\"")),
        (select(&["a", "b"][..]), select(&["=~", "!~"][..]), select(&["x|y", ".+", "[xz]?", "1.*"][..]))
            .prop_map(|(name, op, value)| format!("{name}{op}\"{value}\"")),
    ]
    .boxed()
}

fn plain_selector() -> Text {
    let name = prop_oneof![
        4 => select(&["m", "c_total", "h", "b_bucket"][..]).prop_map(str::to_owned),
        1 => select(&["{__name__=~\"m|c_total\"", "{__name__!=\"\"", "{__name__=~\".*l|h\"", "{a=\"x\""][..])
            .prop_map(str::to_owned),
    ];
    (name, vec(matcher(), 0..2))
        .prop_map(|(name, matchers)| match (name.starts_with('{'), matchers.is_empty()) {
            (true, true) => format!("{name}}}"),
            (true, false) => format!("{name}, {}}}", matchers.join(", ")),
            (false, true) => name,
            (false, false) => format!("{name}{{{}}}", matchers.join(", ")),
        })
        .boxed()
}

/// `offset` and `@`.
fn shift() -> Text {
    let offset = select(&["30s", "-30s", "1m", "7s", "(step() * 2)", "-5m"][..]).prop_map(|o| format!(" offset {o}"));
    let at = select(&["120", "300.5", "start()", "end()", "-100"][..]).prop_map(|t| format!(" @ {t}"));
    prop_oneof![
        10 => Just(String::new()),
        2 => offset.clone(),
        2 => at.clone(),
        1 => (offset, at).prop_map(|(o, at)| format!("{o}{at}")),
    ]
    .boxed()
}

fn selector() -> Text {
    let smoothed = prop_oneof![12 => Just(""), 1 => Just(" smoothed")];
    (plain_selector(), smoothed, shift()).prop_map(|(s, smoothed, shift)| format!("{s}{smoothed}{shift}")).boxed()
}

fn duration() -> Text {
    prop_oneof![
        8 => select(&["1m", "15s", "31s", "90s", "5m", "10m", "1s"][..]).prop_map(str::to_owned),
        1 => select(&["step()", "max_of(step(), 45s)", "range() + 30", "1m * 2"][..]).prop_map(str::to_owned),
    ]
    .boxed()
}

/// A range vector.
fn range(depth: u32) -> Text {
    let stored = (plain_selector(), duration(), shift()).prop_map(|(s, d, shift)| format!("{s}[{d}]{shift}"));
    let step = prop_oneof![3 => select(&["30s", "15s", "1m", "7s"][..]), 1 => Just("")];
    let subquery =
        (vector(depth), duration(), step, shift()).prop_map(|(v, d, step, shift)| format!("({v})[{d}:{step}]{shift}"));
    prop_oneof![4 => stored, 1 => subquery].boxed()
}

fn range_call(depth: u32) -> Text {
    let names = [
        "rate",
        "increase",
        "delta",
        "irate",
        "idelta",
        "resets",
        "changes",
        "deriv",
        "sum_over_time",
        "avg_over_time",
        "min_over_time",
        "max_over_time",
        "count_over_time",
        "stddev_over_time",
        "stdvar_over_time",
        "last_over_time",
        "first_over_time",
        "present_over_time",
        "absent_over_time",
        "mad_over_time",
        "ts_of_first_over_time",
        "ts_of_last_over_time",
        "ts_of_max_over_time",
        "ts_of_min_over_time",
    ];
    let simple = (select(names.to_vec()), range(depth)).prop_map(|(f, r)| format!("{f}({r})"));
    let extended = (
        select(&["rate", "increase", "delta", "resets", "changes"][..]),
        plain_selector(),
        duration(),
        select(&["anchored", "smoothed"][..]),
        shift(),
    )
        .prop_map(|(f, s, d, how, shift)| format!("{f}({s}[{d}] {how}{shift})"));
    let number = scalar(1);
    prop_oneof![
        8 => simple,
        1 => extended,
        1 => (number.clone(), range(depth)).prop_map(|(q, r)| format!("quantile_over_time({q}, {r})")),
        1 => (range(depth), number).prop_map(|(r, s)| format!("predict_linear({r}, {s})")),
        1 => (range(depth), select(&["0.3", "0.5", "0.9", "1"][..]), select(&["0.2", "0.7"][..]))
            .prop_map(|(r, a, b)| format!("double_exponential_smoothing({r}, {a}, {b})")),
    ]
    .boxed()
}

/// A scalar.
fn scalar(depth: u32) -> Text {
    let number =
        select(&["1", "0.5", "2", "0", "-1", "3", "0.9", "NaN", "Inf", "1e300", "10"][..]).prop_map(str::to_owned);
    let of_query = select(&["time()", "pi()", "start()", "end()", "step()", "range()"][..]).prop_map(str::to_owned);
    if depth == 0 {
        return prop_oneof![8 => number, 1 => of_query].boxed();
    }
    let inner = scalar(depth - 1);
    let op = select(&["+", "-", "*", "/", "%", "^", "atan2", "== bool", "< bool"][..]);
    prop_oneof![
        6 => inner.clone(),
        2 => vector(depth - 1).prop_map(|v| format!("scalar({v})")),
        1 => (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("max_of({a}, {b})")),
        1 => inner.prop_map(|s| format!("-({s})")),
    ]
    .boxed()
}

fn label_list() -> Text {
    vec(select(&["a", "b", "__name__", "le", "job", "none"][..]), 0..3).prop_map(|names| names.join(", ")).boxed()
}

fn aggregation(inner: Text, depth: u32) -> Text {
    let grouping = prop_oneof![
        2 => Just(String::new()),
        3 => label_list().prop_map(|l| format!(" by ({l})")),
        2 => label_list().prop_map(|l| format!(" without ({l})")),
    ];
    let plain =
        select(&["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"][..]).prop_map(|op| (op, None));
    let ranked = (
        select(&["topk", "bottomk", "limitk", "quantile", "limit_ratio"][..]),
        prop_oneof![4 => select(&["1", "2", "0.5", "3"][..]).prop_map(str::to_owned), 1 => scalar(depth - 1)],
    )
        .prop_map(|(op, param)| (op, Some(param)));
    let counted = Just(("count_values", Some("\"v\"".to_owned())));
    (prop_oneof![6 => plain, 3 => ranked, 1 => counted], grouping, inner)
        .prop_map(|((op, param), grouping, v)| match param {
            None => format!("{op}{grouping}({v})"),
            Some(param) => format!("{op}{grouping}({param}, {v})"),
        })
        .boxed()
}

fn function(inner: Text, depth: u32) -> Text {
    let one = select(
        &[
            "abs",
            "ceil",
            "floor",
            "exp",
            "sqrt",
            "ln",
            "log2",
            "log10",
            "sgn",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "tanh",
            "asinh",
            "acosh",
            "atanh",
            "deg",
            "rad",
            "round",
            "timestamp",
            "absent",
            "day_of_month",
            "day_of_week",
            "day_of_year",
            "days_in_month",
            "hour",
            "minute",
            "month",
            "year",
            "histogram_count",
            "histogram_sum",
            "histogram_avg",
            "histogram_stddev",
            "histogram_stdvar",
        ][..],
    );
    let number = scalar(depth - 1);
    let relabel = select(
        &[
            "\"a\", \"$1\", \"b\", \"(.*)\"",
            "\"__name__\", \"n_$1\", \"a\", \"(.+)\"",
            "\"c\", \"${1}q\", \"__name__\", \"(.).*\"",
            "\"a\", \"\", \"\", \"\"",
            "\"b\", \"1\", \"a\", \"x|y\"",
        ][..],
    );
    let join = select(
        &["\"a\", \"-\", \"b\", \"a\"", "\"__name__\", \"_\", \"a\"", "\"c\", \"\", \"a\", \"b\"", "\"b\", \"\""][..],
    );
    let histogram = prop_oneof![
        inner.clone(),
        select(&["b_bucket", "h", "rate(b_bucket[1m])", "rate(h[1m])"][..]).prop_map(str::to_owned)
    ];
    let selector =
        prop_oneof![Just(""), Just(", {version=~\".+\"}"), Just(", {__name__=\"target_info\"}"), Just(", {b=\"1\"}")];
    prop_oneof![
        6 => (one, inner.clone()).prop_map(|(f, v)| format!("{f}({v})")),
        1 => (inner.clone(), number.clone()).prop_map(|(v, s)| format!("round({v}, {s})")),
        1 => (inner.clone(), number.clone(), number.clone()).prop_map(|(v, a, b)| format!("clamp({v}, {a}, {b})")),
        1 => (select(&["clamp_min", "clamp_max"][..]), inner.clone(), number.clone()).prop_map(|(f, v, s)| format!("{f}({v}, {s})")),
        2 => (inner.clone(), relabel).prop_map(|(v, args)| format!("label_replace({v}, {args})")),
        1 => (inner.clone(), join).prop_map(|(v, args)| format!("label_join({v}, {args})")),
        2 => (number.clone(), histogram.clone()).prop_map(|(q, v)| format!("histogram_quantile({q}, {v})")),
        1 => (number.clone(), histogram.clone()).prop_map(|(q, v)| format!("histogram_quantiles({v}, \"q\", 0.25, {q})")),
        1 => (number.clone(), number, histogram).prop_map(|(a, b, v)| format!("histogram_fraction({a}, {b}, {v})")),
        1 => selector_text(),
        1 => (self::selector(), selector).prop_map(|(v, s)| format!("info({v}{s})")),
        1 => inner.prop_map(|v| format!("sum_over_time(({v})[1m:15s])")),
    ]
    .boxed()
}

/// Functions of selectors alone, and of nothing.
fn selector_text() -> Text {
    prop_oneof![
        selector().prop_map(|s| format!("timestamp({s})")),
        (plain_selector(), shift()).prop_map(|(s, shift)| format!("start_timestamp({s}{shift})")),
        select(&["hour()", "day_of_week()", "minute()", "month()"][..]).prop_map(str::to_owned),
    ]
    .boxed()
}

fn vector_and_scalar(inner: Text, depth: u32) -> Text {
    let op = select(
        &[
            "+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<=", "== bool", "> bool", "< bool",
            "</", ">/",
        ][..],
    );
    let number = scalar(depth - 1);
    (inner, op, number, any::<bool>())
        .prop_map(|(v, op, s, swap)| if swap { format!("({s} {op} {v})") } else { format!("({v} {op} {s})") })
        .boxed()
}

fn vectors(inner: Text) -> Text {
    let matching = prop_oneof![
        2 => Just(String::new()),
        3 => label_list().prop_map(|l| format!(" on ({l})")),
        2 => label_list().prop_map(|l| format!(" ignoring ({l})")),
    ];
    let op = select(&["+", "-", "*", "/", "%", "==", "!=", ">", "<=", "== bool", "> bool", "^", "atan2"][..]);
    let group = prop_oneof![
        4 => Just(""),
        1 => select(&[" group_left ()", " group_right ()", " group_left (a)", " group_right (b)", " group_left (none)"][..]),
    ];
    let fill =
        weighted(0.15, select(&["fill (0)", "fill_left (1)", "fill_right (2)", "fill_left (1) fill_right (NaN)"][..]));
    let arithmetic =
        (inner.clone(), op, matching.clone(), group, fill, inner.clone()).prop_map(|(l, op, on, group, fill, r)| {
            // Grouping needs a matching in front of it.
            let group = if on.is_empty() { "" } else { group };
            format!("({l} {op}{on}{group} {} {r})", fill.unwrap_or(""))
        });
    let sets = (inner.clone(), select(&["and", "or", "unless"][..]), matching, inner)
        .prop_map(|(l, op, on, r)| format!("({l} {op}{on} {r})"));
    prop_oneof![3 => arithmetic, 2 => sets].boxed()
}

fn sorted(inner: Text) -> Text {
    prop_oneof![
        (select(&["sort", "sort_desc"][..]), inner.clone()).prop_map(|(f, v)| format!("{f}({v})")),
        (select(&["sort_by_label", "sort_by_label_desc"][..]), inner)
            .prop_map(|(f, v)| format!("{f}({v}, \"a\", \"b\")")),
    ]
    .boxed()
}
