//! A tree as JSON, as `/api/v1/parse_query` answers it and the UI's tree view reads it.
//!
//! *Invariants:* shapes are those of Prometheus' `translate_ast.go`, keys sorted. Written as text with a stack of its
//! own: a `serde_json::Value` as deep as a query may be could not even be dropped.
//!
//! *Not here:* the answer around it (`api`).

use serde_json::json;

use super::ast::{Ast, At, Binary, Expr, ExprId, Shift, VectorSelector};
use super::printer::{Piece, duration_op_text};
use crate::model::number::format_f;

/// The pieces of one object in the making.
struct Object(Vec<Piece>);

impl Object {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn key(&mut self, name: &str) {
        let separator = if self.0.is_empty() { '{' } else { ',' };
        self.0.push(Piece::Text(format!("{separator}\"{name}\":")));
    }

    fn field(&mut self, name: &str, value: impl Into<serde_json::Value>) -> &mut Self {
        self.key(name);
        self.0.push(Piece::Text(value.into().to_string()));
        self
    }

    fn node(&mut self, name: &str, node: Option<ExprId>) -> &mut Self {
        self.key(name);
        self.0.push(node.map_or(Piece::Fixed("null"), Piece::Node));
        self
    }

    fn nodes(&mut self, name: &str, nodes: &[ExprId]) -> &mut Self {
        self.key(name);
        self.0.push(Piece::Fixed("["));
        for (at, node) in nodes.iter().enumerate() {
            if at > 0 {
                self.0.push(Piece::Fixed(","));
            }
            self.0.push(Piece::Node(*node));
        }
        self.0.push(Piece::Fixed("]"));
        self
    }
}

impl Ast {
    /// The tree as JSON text.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        let mut stack = vec![Piece::Node(self.root)];
        while let Some(piece) = stack.pop() {
            match piece {
                Piece::Text(text) => out.push_str(&text),
                Piece::Fixed(text) => out.push_str(text),
                Piece::Node(id) => {
                    let mut object = Object::new();
                    self.describe(id, &mut object);
                    object.0.push(Piece::Fixed("}"));
                    stack.extend(object.0.into_iter().rev());
                }
            }
        }
        out
    }

    fn describe(&self, id: ExprId, object: &mut Object) {
        match self.expr(id) {
            Expr::Number { value, .. } => {
                object.field("type", "numberLiteral").field("val", format_f(*value));
            }
            Expr::String(bytes) => {
                object.field("type", "stringLiteral").field("val", String::from_utf8_lossy(bytes));
            }
            Expr::Vector(selector) => self.describe_selector(selector, None, object),
            Expr::Matrix(matrix) => {
                if let Some(selector) = self.selector(matrix.vector) {
                    self.describe_selector(selector, Some((matrix.range_ms, matrix.range_expr)), object);
                }
            }
            Expr::Subquery(subquery) => {
                object.node("expr", Some(subquery.expr));
                self.describe_shift(&subquery.shift, object);
                object.field("range", subquery.range_ms).field("rangeExpr", self.duration_json(subquery.range_expr));
                object.field("startOrEnd", start_or_end(&subquery.shift));
                object.field("step", subquery.step_ms).field("stepExpr", self.duration_json(subquery.step_expr));
                object.field("timestamp", timestamp(&subquery.shift)).field("type", "subquery");
            }
            Expr::Unary { negative, expr } => {
                object.node("expr", Some(*expr)).field("op", if *negative { "-" } else { "+" });
                object.field("type", "unaryExpr");
            }
            Expr::Binary(binary) => {
                object.field("bool", binary.return_bool).node("lhs", Some(binary.lhs));
                object.field("matching", matching_json(binary)).field("op", binary.op.as_str());
                object.node("rhs", Some(binary.rhs)).field("type", "binaryExpr");
            }
            Expr::Aggregate(aggregate) => {
                object.node("expr", Some(aggregate.expr)).field("grouping", json!(aggregate.grouping));
                object.field("op", aggregate.op.as_str()).node("param", aggregate.param);
                object.field("type", "aggregation").field("without", aggregate.without);
            }
            Expr::Call(call) => {
                let function = call.function;
                let types: Vec<_> = function.args.iter().map(|t| t.raw_name()).collect();
                let (name, variadic, returns) = (function.name, function.variadic, function.returns.raw_name());
                object.nodes("args", &call.args);
                let signature = json!({"argTypes": types, "name": name, "returnType": returns, "variadic": variadic});
                object.field("func", signature).field("type", "call");
            }
            Expr::Paren(inner) => {
                object.node("expr", Some(*inner)).field("type", "parenExpr");
            }
            // Reached only through the fields of selectors and subqueries.
            Expr::Duration(_) => {
                object.field("type", "durationExpr");
            }
        }
    }

    fn describe_selector(&self, selector: &VectorSelector, range: Option<(i64, Option<ExprId>)>, object: &mut Object) {
        let matchers: Vec<_> = selector
            .matchers
            .iter()
            .map(|m| json!({"name": *m.name, "type": m.op.as_str(), "value": *m.value}))
            .collect();
        object.field("anchored", selector.anchored).field("matchers", matchers);
        object.field("name", selector.name.as_deref().unwrap_or_default());
        self.describe_shift(&selector.shift, object);
        if let Some((ms, expr)) = range {
            object.field("range", ms).field("rangeExpr", self.duration_json(expr));
        }
        object.field("smoothed", selector.smoothed).field("startOrEnd", start_or_end(&selector.shift));
        object.field("timestamp", timestamp(&selector.shift));
        object.field("type", if range.is_some() { "matrixSelector" } else { "vectorSelector" });
    }

    fn describe_shift(&self, shift: &Shift, object: &mut Object) {
        object.field("offset", shift.offset_ms).field("offsetExpr", self.duration_json(shift.offset_expr));
    }

    /// A duration expression: the parser keeps them small enough to recurse.
    fn duration_json(&self, id: Option<ExprId>) -> serde_json::Value {
        match id.map(|id| self.expr(id)) {
            Some(Expr::Duration(expr)) => json!({
                "lhs": self.duration_json(expr.lhs),
                "op": duration_op_text(expr.op),
                "rhs": self.duration_json(expr.rhs),
                "type": "durationExpr",
                "wrapped": expr.wrapped,
            }),
            Some(Expr::Number { value, duration }) => {
                json!({"duration": duration, "type": "numberLiteral", "val": format_f(*value)})
            }
            _ => json!(null),
        }
    }
}

fn timestamp(shift: &Shift) -> Option<i64> {
    match shift.at {
        Some(At::Time(ms)) => Some(ms),
        _ => None,
    }
}

fn start_or_end(shift: &Shift) -> Option<&'static str> {
    match shift.at {
        Some(At::Start) => Some("start"),
        Some(At::End) => Some("end"),
        _ => None,
    }
}

fn matching_json(binary: &Binary) -> serde_json::Value {
    let Some(matching) = &binary.matching else { return json!(null) };
    json!({
        "card": matching.cardinality.as_str(),
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
        "include": matching.include,
        "labels": matching.labels,
        "on": matching.on,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::{ParseOptions, parse};

    fn json_of(text: &str) -> serde_json::Value {
        serde_json::from_str(&parse(text, ParseOptions::all()).unwrap().to_json()).unwrap()
    }

    #[test]
    fn shapes_are_those_of_prometheus() {
        let all = json_of(r#"topk by (a) (2, rate(m{b!="c"}[5m] @ end() offset -1m)) + -(1 + 2)"#);
        assert_eq!(all["type"], "binaryExpr");
        assert_eq!(all["matching"], json!(null), "only vectors are matched");
        let aggregation = &all["lhs"];
        assert_eq!(aggregation["param"], json!({"type": "numberLiteral", "val": "2"}));
        assert_eq!(
            aggregation["expr"],
            json!({
                "args": [{
                    "anchored": false,
                    "matchers": [
                        {"name": "b", "type": "!=", "value": "c"},
                        {"name": "__name__", "type": "=", "value": "m"},
                    ],
                    "name": "m", "offset": -60_000, "offsetExpr": null, "range": 300_000, "rangeExpr": null,
                    "smoothed": false, "startOrEnd": "end", "timestamp": null, "type": "matrixSelector",
                }],
                "func": {"argTypes": ["matrix"], "name": "rate", "returnType": "vector", "variadic": 0},
                "type": "call",
            })
        );
        assert_eq!(all["rhs"]["type"], "unaryExpr");
        let matching = &json_of("a * on (x) group_left (y) fill_left (3) b")["matching"];
        assert_eq!(
            *matching,
            json!({"card": "many-to-one", "fillValues": {"lhs": 3.0, "rhs": null}, "include": ["y"],
                   "labels": ["x"], "on": true})
        );
        let subquery = json_of(r#"a[1h:(step())] @ 1.5"#);
        assert_eq!(subquery["timestamp"], 1500);
        assert_eq!(
            subquery["stepExpr"],
            json!({"lhs": null, "op": "step", "rhs": null, "type": "durationExpr", "wrapped": true})
        );
    }
}
