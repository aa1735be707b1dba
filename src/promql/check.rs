//! Checks of a parsed tree: types of operands and arguments, selectors that would select everything.
//!
//! *Invariants:* the mistake reported is the first in the order in which Prometheus checks: a call's arity before its
//! arguments, operands from left to right before their operator. Walks with a stack of its own.
//!
//! *Not here:* syntax (`parser`).

use super::ast::{Ast, Call, Cardinality, Expr, ExprId, VectorSelector};
use super::error::Mistake;
use super::operator::AggregateOp;
use super::position::Span;
use super::signature::FunctionName;
use super::value_type::ValueType;
use crate::model::METRIC_NAME;
use crate::model::labels::Quoted;

/// What is still to be checked.
enum Task {
    /// A node: what comes before its children, then the children.
    Enter(ExprId),
    /// A node whose children are checked.
    Leave(ExprId),
    /// The type of an operand whose own check is done.
    Expect { operand: ExprId, wanted: ValueType, place: Place },
}

#[derive(Clone, Copy)]
enum Place {
    Aggregation,
    Parameter,
    Call(&'static str),
}

/// Checks the tree and completes the matching of its binary operations.
pub(super) fn check(ast: &mut Ast) -> Result<(), Mistake> {
    let mut tasks = vec![Task::Enter(ast.root)];
    while let Some(task) = tasks.pop() {
        match task {
            Task::Enter(id) => enter(ast, id, &mut tasks)?,
            Task::Leave(id) => leave(ast, id)?,
            Task::Expect { operand, wanted, place } => expect(ast, operand, wanted, place)?,
        }
    }
    Ok(())
}

fn enter(ast: &Ast, id: ExprId, tasks: &mut Vec<Task>) -> Result<(), Mistake> {
    let first = tasks.len();
    match ast.expr(id) {
        Expr::Number { .. } | Expr::String(_) | Expr::Duration(_) => {}
        Expr::Vector(selector) => check_selector(selector, ast.span(id))?,
        Expr::Aggregate(aggregate) => {
            let wanted = ValueType::Vector;
            tasks.push(Task::Enter(aggregate.expr));
            tasks.push(Task::Expect { operand: aggregate.expr, wanted, place: Place::Aggregation });
            if let Some(operand) = aggregate.param {
                let counts = aggregate.op == AggregateOp::CountValues;
                let wanted = if counts { ValueType::String } else { ValueType::Scalar };
                tasks.push(Task::Enter(operand));
                tasks.push(Task::Expect { operand, wanted, place: Place::Parameter });
            }
        }
        Expr::Call(call) => {
            check_arity(call, ast.span(id))?;
            check_info(ast, call)?;
            push_arguments(call, tasks);
        }
        Expr::Binary(_) | Expr::Unary { .. } | Expr::Paren(_) | Expr::Subquery(_) | Expr::Matrix(_) => {
            tasks.extend(ast.children(id).into_iter().map(Task::Enter));
            tasks.push(Task::Leave(id));
        }
    }
    // The stack hands out the last first.
    tasks[first..].reverse();
    Ok(())
}

fn leave(ast: &mut Ast, id: ExprId) -> Result<(), Mistake> {
    let span = ast.span(id);
    match ast.expr(id) {
        Expr::Binary(_) => check_binary(ast, id),
        Expr::Unary { expr, .. } => match ast.value_type(*expr) {
            ValueType::Scalar | ValueType::Vector => Ok(()),
            other => {
                let wanted = "unary expression only allowed on expressions of type scalar or instant vector";
                Err(Mistake::new(span, format!("{wanted}, got \"{other}\"")))
            }
        },
        Expr::Subquery(subquery) => match ast.value_type(subquery.expr) {
            ValueType::Vector => Ok(()),
            other => {
                let got = other.raw_name();
                Err(Mistake::new(span, format!("subquery is only allowed on instant vector, got {got} instead")))
            }
        },
        _ => Ok(()),
    }
}

fn expect(ast: &Ast, operand: ExprId, wanted: ValueType, place: Place) -> Result<(), Mistake> {
    let got = ast.value_type(operand);
    if got == wanted {
        return Ok(());
    }
    let place = match place {
        Place::Aggregation => "aggregation expression".to_owned(),
        Place::Parameter => "aggregation parameter".to_owned(),
        Place::Call(name) => format!("call to function \"{name}\""),
    };
    Err(Mistake::new(ast.span(operand), format!("expected type {wanted} in {place}, got {got}")))
}

fn check_selector(selector: &VectorSelector, span: Span) -> Result<(), Mistake> {
    if let Some(name) = &selector.name {
        let inside = &selector.matchers[..selector.matchers.len().saturating_sub(1)];
        return match inside.iter().find(|m| *m.name == *METRIC_NAME) {
            None => Ok(()),
            Some(again) => {
                let names = format!("{} or {}", Quoted(name), Quoted(&again.value));
                Err(Mistake::new(span, format!("metric name must not be set twice: {names}")))
            }
        };
    }
    if selector.matchers.iter().all(|m| m.matches_empty()) {
        return Err(Mistake::new(span, "vector selector must contain at least one non-empty matcher"));
    }
    Ok(())
}

fn check_arity(call: &Call, span: Span) -> Result<(), Mistake> {
    let function = call.function;
    let (declared, got) = (function.args.len(), call.args.len());
    let required = declared.saturating_sub(1);
    let most = required + usize::try_from(function.variadic).unwrap_or(0);
    let wanted = match function.variadic {
        0 if declared != got => declared.to_string(),
        0 => return Ok(()),
        _ if required > got => format!("at least {required}"),
        1.. if most < got => format!("at most {most}"),
        _ => return Ok(()),
    };
    let name = function.name;
    Err(Mistake::new(span, format!("expected {wanted} argument(s) in call to \"{name}\", got {got}")))
}

/// The second argument of `info` is a selector without a name: it selects labels, not series.
fn check_info(ast: &Ast, call: &Call) -> Result<(), Mistake> {
    let (FunctionName::Info, Some(selector)) = (call.function.id, call.args.get(1)) else { return Ok(()) };
    expect(ast, *selector, ValueType::Vector, Place::Call(call.function.name))?;
    match ast.expr(*selector) {
        Expr::Vector(vs) if vs.name.is_none() => Ok(()),
        Expr::Vector(_) => {
            Err(Mistake::new(ast.span(*selector), "expected label selectors only, got vector selector instead"))
        }
        _ => Err(Mistake::new(ast.span(*selector), "expected label selectors only")),
    }
}

fn push_arguments(call: &Call, tasks: &mut Vec<Task>) {
    let types = call.function.args;
    for (at, operand) in call.args.iter().copied().enumerate() {
        let Some(wanted) = types.get(at).or(types.last()).copied() else { return };
        // The second argument of `info` may match everything; it is checked already.
        if call.function.id != FunctionName::Info || at != 1 {
            tasks.push(Task::Enter(operand));
        }
        tasks.push(Task::Expect { operand, wanted, place: Place::Call(call.function.name) });
    }
}

fn check_binary(ast: &mut Ast, id: ExprId) -> Result<(), Mistake> {
    let Expr::Binary(binary) = ast.expr(id) else { return Ok(()) };
    let span = ast.span(id);
    let op = binary.op;
    let (left, right) = (ast.value_type(binary.lhs), ast.value_type(binary.rhs));
    let operator = || operator_span(&ast.text, ast.span(binary.lhs), ast.span(binary.rhs));
    if binary.return_bool && !op.is_comparison() {
        return Err(Mistake::new(operator(), "bool modifier can only be used on comparison operators"));
    }
    let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
    if op.is_comparison() && !binary.return_bool && scalars {
        return Err(Mistake::new(operator(), "comparisons between scalars must use BOOL modifier"));
    }
    let Some(matching) = &binary.matching else { return Ok(()) };
    if let Some(label) = matching.labels.iter().find(|label| matching.on && matching.include.contains(label)) {
        let message = format!("label {} must not occur in ON and GROUP clause at once", Quoted(label));
        return Err(Mistake::new(operator(), message));
    }
    for (operand, value_type) in [(binary.lhs, left), (binary.rhs, right)] {
        if !matches!(value_type, ValueType::Scalar | ValueType::Vector) {
            let message = "binary expression must contain only scalar and instant vector types";
            return Err(Mistake::new(ast.span(operand), message));
        }
    }
    let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
    let vectors = left == ValueType::Vector && right == ValueType::Vector;
    let mistake = match vectors {
        false if !matching.labels.is_empty() => "vector matching only allowed between instant vectors".to_owned(),
        false if fills => "filling in missing series only allowed between instant vectors".to_owned(),
        false if op.is_set() => format!("set operator \"{op}\" not allowed in binary scalar expression"),
        true if op.is_set() && matching.cardinality != Cardinality::OneToOne => {
            format!("no grouping allowed for \"{op}\" operation")
        }
        true if op.is_set() && fills => "filling in missing series not allowed for set operators".to_owned(),
        _ => return complete_matching(ast, id, vectors),
    };
    Err(Mistake::new(span, mistake))
}

/// Only vectors are matched, and set operators match many to many.
fn complete_matching(ast: &mut Ast, id: ExprId, vectors: bool) -> Result<(), Mistake> {
    if let Expr::Binary(binary) = ast.expr_mut(id) {
        match &mut binary.matching {
            Some(matching) if vectors && binary.op.is_set() => matching.cardinality = Cardinality::ManyToMany,
            Some(_) if vectors => {}
            matching => *matching = None,
        }
    }
    Ok(())
}

/// From the operator to the last of its modifiers.
fn operator_span(text: &str, lhs: Span, rhs: Span) -> Span {
    let between = text.get(lhs.end as usize..rhs.start as usize).unwrap_or_default();
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
    let start = lhs.end as usize + (between.len() - between.trim_start_matches(is_space).len());
    let end = lhs.end as usize + between.trim_end_matches(is_space).len();
    // Prometheus points at the last character, not behind it.
    Span::new(start, end.saturating_sub(1).max(start))
}
