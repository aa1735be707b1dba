//! A tree as text, in one line, as Prometheus prints it.
//!
//! *Invariants:* what is printed parses to the same tree (spans aside). Walks with a stack of its own; only duration
//! expressions, which the parser limits, recurse.
//!
//! *Not here:* line breaks (`pretty`), JSON (`json`).

use std::fmt::{self, Write};

use smallvec::SmallVec;

use super::ast::{Aggregate, Ast, At, Binary, Cardinality, DurationOp, Expr, ExprId, Shift, Subquery, VectorSelector};
use super::literal::seconds_to_ms;
use crate::model::labels::{Quoted, is_legacy_label_name};
use crate::model::number::{format_f, format_g};
use crate::model::time::format_duration_ms;
use crate::model::{METRIC_NAME, MatchOp, Matcher};

/// A part of a printed expression.
pub(super) enum Piece {
    Text(String),
    Fixed(&'static str),
    Node(ExprId),
}

pub(super) type Pieces = SmallVec<[Piece; 6]>;

impl fmt::Display for Ast {
    /// The query in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut stack = vec![Piece::Node(self.root)];
        while let Some(piece) = stack.pop() {
            match piece {
                Piece::Text(text) => f.write_str(&text)?,
                Piece::Fixed(text) => f.write_str(text)?,
                Piece::Node(id) => stack.extend(pieces(self, id).into_iter().rev()),
            }
        }
        Ok(())
    }
}

/// What a node is printed as: its own text around its children.
pub(super) fn pieces(ast: &Ast, id: ExprId) -> Pieces {
    let mut out = Pieces::new();
    match ast.expr(id) {
        Expr::Number { .. } | Expr::Duration(_) => out.push(Piece::Text(duration_text(ast, id))),
        Expr::String(bytes) => out.push(Piece::Text(quote_bytes(bytes))),
        Expr::Vector(selector) => {
            let extended = extended_text(selector);
            let (at, offset) = (at_text(&selector.shift), offset_text(ast, &selector.shift));
            out.push(Piece::Text(selector_text(selector) + &at + extended + &offset));
        }
        Expr::Matrix(matrix) => {
            if let Some(selector) = ast.selector(matrix.vector) {
                let range = range_text(ast, matrix.range_ms, matrix.range_expr);
                let extended = extended_text(selector);
                let (at, offset) = (at_text(&selector.shift), offset_text(ast, &selector.shift));
                out.push(Piece::Text(format!("{}[{range}]{extended}{at}{offset}", selector_text(selector))));
            }
        }
        Expr::Subquery(subquery) => {
            out.push(Piece::Node(subquery.expr));
            out.push(Piece::Text(subquery_suffix(ast, subquery)));
        }
        Expr::Unary { negative, expr } => {
            out.push(Piece::Fixed(if *negative { "-" } else { "+" }));
            out.push(Piece::Node(*expr));
        }
        Expr::Binary(binary) => {
            out.push(Piece::Node(binary.lhs));
            out.push(Piece::Text(format!(" {} ", binary_text(binary))));
            out.push(Piece::Node(binary.rhs));
        }
        Expr::Aggregate(aggregate) => {
            out.push(Piece::Text(aggregate_text(aggregate) + "("));
            if let Some(param) = aggregate.param {
                out.push(Piece::Node(param));
                out.push(Piece::Fixed(", "));
            }
            out.push(Piece::Node(aggregate.expr));
            out.push(Piece::Fixed(")"));
        }
        Expr::Call(call) => {
            out.push(Piece::Fixed(call.function.name));
            out.push(Piece::Fixed("("));
            for (at, arg) in call.args.iter().enumerate() {
                if at > 0 {
                    out.push(Piece::Fixed(", "));
                }
                out.push(Piece::Node(*arg));
            }
            out.push(Piece::Fixed(")"));
        }
        Expr::Paren(inner) => {
            out.extend([Piece::Fixed("("), Piece::Node(*inner), Piece::Fixed(")")]);
        }
    }
    out
}

/// Name and matchers, these sorted by their text.
fn selector_text(selector: &VectorSelector) -> String {
    let name = selector.name.as_deref().unwrap_or_default();
    let mut matchers: Vec<String> =
        selector.matchers.iter().filter(|m| !is_name_matcher(m, name)).map(Matcher::to_string).collect();
    matchers.sort_unstable();
    if matchers.is_empty() && !name.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", matchers.join(",")) }
}

fn is_name_matcher(matcher: &Matcher, name: &str) -> bool {
    !name.is_empty() && *matcher.name == *METRIC_NAME && matcher.op == MatchOp::Equal && *matcher.value == *name
}

fn extended_text(selector: &VectorSelector) -> &'static str {
    match (selector.anchored, selector.smoothed) {
        (true, _) => " anchored",
        (_, true) => " smoothed",
        _ => "",
    }
}

fn at_text(shift: &Shift) -> String {
    match shift.at {
        Some(At::Time(ms)) => format!(" @ {:.3}", ms as f64 / 1000.),
        Some(At::Start) => " @ start()".to_owned(),
        Some(At::End) => " @ end()".to_owned(),
        None => String::new(),
    }
}

fn offset_text(ast: &Ast, shift: &Shift) -> String {
    match (shift.offset_expr, shift.offset_ms) {
        (Some(expr), _) => format!(" offset {}", duration_text(ast, expr)),
        (None, 0) => String::new(),
        (None, ms) => format!(" offset {}", format_duration_ms(ms)),
    }
}

fn range_text(ast: &Ast, ms: i64, expr: Option<ExprId>) -> String {
    expr.map_or_else(|| format_duration_ms(ms), |expr| duration_text(ast, expr))
}

/// `[range:step] @ … offset …`
pub(super) fn subquery_suffix(ast: &Ast, subquery: &Subquery) -> String {
    let range = range_text(ast, subquery.range_ms, subquery.range_expr);
    let step = match (subquery.step_expr, subquery.step_ms) {
        (None, 0) => String::new(),
        (expr, ms) => range_text(ast, ms, expr),
    };
    format!("[{range}:{step}]{}{}", at_text(&subquery.shift), offset_text(ast, &subquery.shift))
}

/// The operator with its modifiers.
pub(super) fn binary_text(binary: &Binary) -> String {
    let mut out = binary.op.as_str().to_owned();
    if binary.return_bool {
        out.push_str(" bool");
    }
    let Some(matching) = &binary.matching else { return out };
    let group = match matching.cardinality {
        Cardinality::ManyToOne => Some("left"),
        Cardinality::OneToMany => Some("right"),
        _ => None,
    };
    if !matching.labels.is_empty() || matching.on || group.is_some() {
        out.push_str(if matching.on { " on (" } else { " ignoring (" });
        push_labels(&mut out, &matching.labels);
        out.push(')');
    }
    if let Some(side) = group {
        let _ = write!(out, " group_{side} (");
        push_labels(&mut out, &matching.include);
        out.push(')');
    }
    let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if same(left, right) => {
            let _ = write!(out, " fill ({})", format_g(left));
        }
        (left, right) => {
            for (side, value) in [("left", left), ("right", right)] {
                if let Some(value) = value {
                    let _ = write!(out, " fill_{side} ({})", format_g(value));
                }
            }
        }
    }
    out
}

/// The operator with its grouping and, behind a grouping, a space.
pub(super) fn aggregate_text(aggregate: &Aggregate) -> String {
    let mut out = aggregate.op.as_str().to_owned();
    if aggregate.without || !aggregate.grouping.is_empty() {
        out.push_str(if aggregate.without { " without (" } else { " by (" });
        push_labels(&mut out, &aggregate.grouping);
        out.push_str(") ");
    }
    out
}

fn push_labels(out: &mut String, labels: &[std::sync::Arc<str>]) {
    for (at, label) in labels.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        if is_legacy_label_name(label) {
            out.push_str(label);
        } else {
            let _ = write!(out, "{}", Quoted(label));
        }
    }
}

/// A number literal or a duration expression.
fn duration_text(ast: &Ast, id: ExprId) -> String {
    let expr = match ast.expr(id) {
        Expr::Number { value, duration: false } => return format_f(*value),
        // Prometheus drops this sign, and with it the one of what is divided by it.
        Expr::Number { value, duration: true } if *value == 0.0 && value.is_sign_negative() => return "-0s".into(),
        Expr::Number { value, duration: true } => return format_duration_ms(seconds_to_ms(*value)),
        Expr::Duration(expr) => expr,
        _ => return String::new(),
    };
    let side = |side: Option<ExprId>| side.map_or_else(String::new, |operand| duration_text(ast, operand));
    let (lhs, rhs) = (side(expr.lhs), side(expr.rhs));
    let text = match (expr.op, expr.lhs) {
        (DurationOp::Step | DurationOp::Range, _) => format!("{}()", duration_op_text(expr.op)),
        (DurationOp::Min | DurationOp::Max, _) => format!("{}({lhs}, {rhs})", duration_op_text(expr.op)),
        (DurationOp::Add, None) => rhs,
        (op, None) => format!("{}{rhs}", duration_op_text(op)),
        (op, Some(_)) => format!("{lhs} {} {rhs}", duration_op_text(op)),
    };
    if expr.wrapped { format!("({text})") } else { text }
}

/// An operation of a duration expression as written.
pub(super) fn duration_op_text(op: DurationOp) -> &'static str {
    match op {
        DurationOp::Add => "+",
        DurationOp::Sub => "-",
        DurationOp::Mul => "*",
        DurationOp::Div => "/",
        DurationOp::Mod => "%",
        DurationOp::Pow => "^",
        DurationOp::Step => "step",
        DurationOp::Range => "range",
        DurationOp::Min => "min_of",
        DurationOp::Max => "max_of",
    }
}

/// A string literal; bytes that are not UTF-8 as `\xff`.
fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let quoted = Quoted(chunk.valid()).to_string();
        out.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use crate::promql::{ParseOptions, parse};
    use crate::testkit::shared;

    #[test]
    fn prints_as_prometheus_does() {
        let Some(dir) = shared() else { return };
        let text = std::fs::read_to_string(dir.join("promql/testdata/printer_test.json")).unwrap();
        let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(cases.len(), 85);
        for case in cases {
            let input = case["input"].as_str().unwrap();
            let printed = parse(input, ParseOptions::all()).unwrap().to_string();
            assert_eq!(printed, case["out"].as_str().unwrap(), "{input}");
        }
    }

    #[test]
    fn strings_that_are_not_text_are_escaped() {
        let printed = parse(r#"label_replace(a, "b", "\xffü\n\"", "", "")"#, ParseOptions::all()).unwrap().to_string();
        assert_eq!(printed, r#"label_replace(a, "b", "\xffü\n\"", "", "")"#);
    }
}
