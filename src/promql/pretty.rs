//! A tree as text over several lines, as Prometheus formats it.
//!
//! *Invariants:* a node whose one-line form fits stays in one line; lengths are known for all nodes beforehand, so the
//! work is linear in the output. The output is bounded by [`OUTPUT_LIMIT`]: indentation grows with depth, and a deep
//! tree is printed in one line instead.
//!
//! *Not here:* the one-line form (`printer`).

use super::ast::{Ast, Expr, ExprId};
use super::printer::{Piece, aggregate_text, binary_text, pieces, subquery_suffix};

/// Longest line that is not broken, in bytes.
pub const LINE_WIDTH: usize = 100;

/// Most bytes of a formatted query.
const OUTPUT_LIMIT: usize = 16 << 20;

enum Task {
    Pretty(ExprId, usize),
    OneLine(Piece),
    Indent(usize),
    /// What follows stands behind a sign: its first indentation is left out.
    Unindent,
}

impl Ast {
    /// The query over several lines, each level indented by two spaces.
    pub fn pretty(&self) -> String {
        self.pretty_within(LINE_WIDTH)
    }

    /// As [`Ast::pretty`], breaking what is longer than `width` bytes.
    fn pretty_within(&self, width: usize) -> String {
        let lengths = self.one_line_lengths();
        let mut out = String::new();
        let mut tasks = vec![Task::Pretty(self.root, 0)];
        let mut unindent = false;
        while let Some(task) = tasks.pop() {
            let first = tasks.len();
            match task {
                Task::Pretty(id, level) => {
                    self.push_tasks(id, level, lengths[id.0 as usize] <= width, &mut tasks);
                    tasks[first..].reverse();
                }
                Task::OneLine(Piece::Node(id)) => {
                    tasks.extend(pieces(self, id).into_iter().rev().map(Task::OneLine));
                }
                Task::OneLine(Piece::Text(text)) => {
                    unindent = false;
                    out.push_str(&text);
                }
                Task::OneLine(Piece::Fixed(text)) => {
                    unindent = false;
                    out.push_str(text);
                }
                Task::Indent(_) if unindent => {}
                Task::Indent(level) => push_indent(&mut out, level),
                Task::Unindent => unindent = true,
            }
            if out.len() > OUTPUT_LIMIT {
                return self.to_string();
            }
        }
        out
    }

    /// Appends, in order, what a node is made of.
    fn push_tasks(&self, id: ExprId, level: usize, fits: bool, tasks: &mut Vec<Task>) {
        let fixed = |text| Task::OneLine(Piece::Fixed(text));
        let text = |text| Task::OneLine(Piece::Text(text));
        match self.expr(id) {
            Expr::Unary { negative, expr } => {
                let sign = fixed(if *negative { "-" } else { "+" });
                tasks.extend([Task::Indent(level), sign, Task::Unindent, Task::Pretty(*expr, level)]);
            }
            // In one line a subquery is not indented, whatever it stands in.
            Expr::Subquery(_) if fits => tasks.push(Task::OneLine(Piece::Node(id))),
            Expr::Subquery(subquery) => {
                tasks.extend([Task::Pretty(subquery.expr, level), text(subquery_suffix(self, subquery))]);
            }
            Expr::Binary(binary) if !fits => {
                tasks.extend([Task::Pretty(binary.lhs, level + 1), fixed("\n"), Task::Indent(level)]);
                tasks.extend([text(binary_text(binary)), fixed("\n"), Task::Pretty(binary.rhs, level + 1)]);
            }
            Expr::Aggregate(aggregate) if !fits => {
                tasks.extend([Task::Indent(level), text(aggregate_text(aggregate))]);
                self.push_arguments(aggregate.param.iter().chain([&aggregate.expr]), level, tasks);
            }
            Expr::Call(call) if !fits && !call.args.is_empty() => {
                tasks.extend([Task::Indent(level), fixed(call.function.name)]);
                self.push_arguments(call.args.iter(), level, tasks);
            }
            Expr::Paren(inner) if !fits => {
                tasks.push(Task::Indent(level));
                self.push_arguments([inner].into_iter(), level, tasks);
            }
            _ => tasks.extend([Task::Indent(level), Task::OneLine(Piece::Node(id))]),
        }
    }

    /// Appends expressions in parentheses, each in lines of its own.
    fn push_arguments<'a>(&self, args: impl Iterator<Item = &'a ExprId>, level: usize, tasks: &mut Vec<Task>) {
        for (at, arg) in args.enumerate() {
            tasks.push(Task::OneLine(Piece::Fixed(if at == 0 { "(\n" } else { ",\n" })));
            tasks.push(Task::Pretty(*arg, level + 1));
        }
        tasks.extend([Task::OneLine(Piece::Fixed("\n")), Task::Indent(level), Task::OneLine(Piece::Fixed(")"))]);
    }

    fn one_line_lengths(&self) -> Vec<usize> {
        let mut lengths = vec![0; self.nodes.len()];
        for at in 0..self.nodes.len() {
            lengths[at] = pieces(self, ExprId(at as u32))
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => text.len(),
                    Piece::Fixed(text) => text.len(),
                    Piece::Node(child) => lengths[child.0 as usize],
                })
                .sum();
        }
        lengths
    }
}

fn push_indent(out: &mut String, level: usize) {
    const SPACES: &str = "                                                                ";
    let mut left = 2 * level;
    while left > 0 {
        let part = left.min(SPACES.len());
        out.push_str(&SPACES[..part]);
        left -= part;
    }
}

#[cfg(test)]
mod tests {
    use crate::promql::{ParseOptions, parse};
    use crate::testkit::shared;

    #[test]
    fn breaks_lines_as_prometheus_does() {
        let Some(dir) = shared() else { return };
        let text = std::fs::read_to_string(dir.join("promql/testdata/prettier_test.json")).unwrap();
        let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(cases.len(), 62);
        for case in cases {
            let input = case["input"].as_str().unwrap();
            let ast = parse(input, ParseOptions::all()).unwrap();
            // Upstream tests with a width of ten.
            assert_eq!(ast.pretty_within(10), case["out"].as_str().unwrap(), "{input}");
        }
    }

    #[test]
    fn indentation_of_a_deep_query_cannot_grow_without_bound() {
        let ast = parse(&format!("{}foo{}", "(".repeat(20_000), ")".repeat(20_000)), ParseOptions::all()).unwrap();
        assert_eq!(ast.pretty(), ast.to_string());
    }
}
