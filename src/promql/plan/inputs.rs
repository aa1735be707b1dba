//! Which nodes an operation takes values from.
//!
//! *Invariants:* written down once, for reading and for changing. A new operation does not compile without its inputs.
//!
//! *Not here:* what operations do with them (`exec`).

use super::{NodeId, Op, RangeInput, RangeVector};

/// Calls `$each` with every input of `$op`, and whether it is the inner expression of a subquery.
macro_rules! each_input {
    ($op:expr, $iter:ident, $each:ident) => {
        match $op {
            Op::Number(_) | Op::String(_) | Op::Time | Op::Select { .. } => {}
            Op::Matrix(RangeVector { input: RangeInput::Stored(_), .. }) => {}
            Op::Matrix(RangeVector { input: RangeInput::Subquery(inner), .. }) => $each(inner, true),
            Op::RangeCall { range, params, function: _ } => {
                if let RangeVector { input: RangeInput::Subquery(inner), .. } = range {
                    $each(inner, true);
                }
                params.$iter().for_each(|param| $each(param, false));
            }
            Op::Repeat(input) | Op::Same(input) | Op::Negate(input) | Op::Absent { input, .. } => $each(input, false),
            Op::ScalarBinary { lhs, rhs, .. } | Op::VectorBinary { lhs, rhs, .. } => {
                $each(lhs, false);
                $each(rhs, false);
            }
            Op::VectorScalar { vector, scalar, .. } => {
                $each(vector, false);
                $each(scalar, false);
            }
            Op::Aggregate { input, param, .. } => {
                $each(input, false);
                param.$iter().for_each(|param| $each(param, false));
            }
            Op::Info { input, info, .. } => {
                $each(input, false);
                $each(info, false);
            }
            Op::Call { args, .. } => args.$iter().for_each(|arg| $each(arg, false)),
        }
    };
}

impl Op {
    /// Calls `each` with every input, and whether it is the inner expression of a subquery.
    pub fn inputs(&self, mut each: impl FnMut(NodeId, bool)) {
        let mut each = |input: &NodeId, subquery: bool| each(*input, subquery);
        each_input!(self, iter, each);
    }

    /// Calls `each` with every input, which may be changed.
    pub(super) fn inputs_mut(&mut self, mut each: impl FnMut(&mut NodeId)) {
        let mut each = |input: &mut NodeId, _: bool| each(input);
        each_input!(self, iter_mut, each);
    }

    /// The request whose series the operation reads.
    pub fn request(&self) -> Option<usize> {
        match self {
            Self::Select { request, .. } => Some(*request),
            Self::RangeCall { range, .. } | Self::Matrix(range) => match range.input {
                RangeInput::Stored(request) => Some(request),
                RangeInput::Subquery(_) => None,
            },
            _ => None,
        }
    }
}
