//! Text to tree.
//!
//! *Invariants:* the first mistake in the text is the one reported, worded and placed as Prometheus does. Expressions are
//! parsed with a stack of our own, so that no nesting can overflow the thread's; duration expressions recurse, but only
//! [`DURATION_LIMIT`] deep.
//!
//! *Not here:* types (`check`), tokens (`lexer`), series descriptions of test scripts (`testkit`).

use std::sync::Arc;

use super::ast::{Ast, Expr, ExprId, Node};
use super::check;
use super::error::{Mistake, ParseError};
use super::lexer::Lexer;
use super::operator::BinaryOp;
use super::position::Span;
use super::token::{Kind, Token};
use crate::model::{Labels, Matcher};

mod duration;
mod expression;
mod modifiers;
mod range;
mod selector;

/// Most operands, signs and parentheses of one duration expression.
const DURATION_LIMIT: usize = 200;

/// Most bytes that the compiled regular expressions of one text may take.
pub const PATTERN_BYTES: usize = 64 << 20;

/// Parts of the language that Prometheus hides behind feature flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ParseOptions {
    /// Functions and aggregations marked as experimental.
    pub experimental_functions: bool,
    /// `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left`, `fill_right`.
    pub fill_modifiers: bool,
}

impl ParseOptions {
    /// The whole language.
    pub fn all() -> Self {
        Self { experimental_functions: true, extended_range_selectors: true, fill_modifiers: true }
    }
}

/// Reads and checks a query.
pub fn parse(text: &str, options: ParseOptions) -> Result<Ast, ParseError> {
    parse_within(text, options, usize::MAX)
}

/// As [`parse`]; refuses a query whose tree takes more than `most` bytes while it is made.
pub fn parse_within(text: &str, options: ParseOptions, most: usize) -> Result<Ast, ParseError> {
    let mut parser = Parser::new(text, options);
    parser.most_bytes = most;
    let parsed = parser.whole_expression().and_then(|root| {
        parser.ast.root = root;
        check::check(&mut parser.ast)
    });
    match parsed {
        Ok(()) => Ok(parser.ast),
        Err(mistake) => Err(ParseError::new(mistake, text)),
    }
}

/// Reads a metric selector (`match[]`): its matchers, that of the name last. They may all match nothing: who needs a
/// non-empty matcher asks [`Matcher::matches_empty`].
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let mut parser = Parser::new(text, ParseOptions::all());
    parser.whole_selector().map_err(|mistake| ParseError::new(mistake, text))
}

/// Reads the metric at the start of a series description (`metric{a="b"} …`); returns its labels and where it ends.
pub fn parse_metric(text: &str) -> Result<(Labels, usize), ParseError> {
    let mut parser = Parser::new(text, ParseOptions::all());
    parser.metric().map_err(|mistake| ParseError::new(mistake, text))
}

/// What a syntax error says about where it happened and what would have been right.
#[derive(Clone, Copy)]
struct Context {
    place: &'static str,
    expected: &'static str,
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    peeked: Option<Token>,
    /// End of the last token that can end an expression.
    last_closing: u32,
    options: ParseOptions,
    ast: Ast,
    stack: Vec<expression::Frame>,
    duration_budget: usize,
    /// Bytes of compiled regular expressions.
    pattern_bytes: usize,
    /// Bytes of what nodes hold.
    node_bytes: usize,
    most_bytes: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, options: ParseOptions) -> Self {
        Self {
            text,
            lexer: Lexer::new(text),
            peeked: None,
            last_closing: 0,
            options,
            ast: Ast { nodes: Vec::new(), root: ExprId(0), text: Arc::from(text) },
            stack: Vec::new(),
            duration_budget: 0,
            pattern_bytes: 0,
            node_bytes: 0,
            most_bytes: usize::MAX,
        }
    }

    fn peek(&mut self) -> Result<Token, Mistake> {
        match self.peeked {
            Some(token) => Ok(token),
            None => Ok(*self.peeked.insert(self.lexer.next()?)),
        }
    }

    fn take(&mut self) -> Result<Token, Mistake> {
        let token = self.peek()?;
        if self.held_bytes() > self.most_bytes {
            let message = format!("query is too large: so far it takes more than {} bytes", self.most_bytes);
            return Err(Mistake::new(token.span, message));
        }
        self.peeked = None;
        if matches!(
            token.kind,
            Kind::RightBrace | Kind::RightParen | Kind::RightBracket | Kind::Duration | Kind::Number
        ) {
            self.last_closing = token.span.end;
        }
        Ok(token)
    }

    fn take_if(&mut self, kind: Kind) -> Result<Option<Token>, Mistake> {
        if self.peek()?.kind == kind { self.take().map(Some) } else { Ok(None) }
    }

    /// Takes a token of a kind, or says that the one that is there was not expected.
    fn expect(&mut self, kind: Kind, context: Context) -> Result<Token, Mistake> {
        let token = self.peek()?;
        if token.kind == kind { self.take() } else { Err(self.unexpected(token, context)) }
    }

    fn unexpected(&self, token: Token, context: Context) -> Mistake {
        let mut message = format!("unexpected {}", token.describe(self.text));
        if !context.place.is_empty() {
            message = format!("{message} in {}", context.place);
        }
        if !context.expected.is_empty() {
            message = format!("{message}, expected {}", context.expected);
        }
        Mistake::new(token.span, message)
    }

    /// `+` (false) or `-` (true).
    fn sign(&mut self) -> Result<Option<(bool, Span)>, Mistake> {
        let token = self.peek()?;
        Ok(match token.kind {
            Kind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                self.take()?;
                Some((op == BinaryOp::Sub, token.span))
            }
            _ => None,
        })
    }

    /// The value of a number or duration token, and whether it is a duration; `None` for other tokens.
    fn literal(&mut self) -> Result<Option<(f64, bool, Span)>, Mistake> {
        let token = self.peek()?;
        let (value, duration) = match token.kind {
            Kind::Number => (super::literal::number(token.text(self.text)), false),
            Kind::Duration => (super::literal::duration_seconds(token.text(self.text)), true),
            _ => return Ok(None),
        };
        self.take()?;
        value.map(|v| Some((v, duration, token.span))).map_err(|message| Mistake::new(token.span, message))
    }

    /// The text of a string token, which must be UTF-8 here because it names a label or is a label's value.
    fn utf8_string(&self, token: Token) -> Result<String, Mistake> {
        String::from_utf8(super::literal::unquote(token.text(self.text)))
            .map_err(|_| Mistake::new(token.span, "label names and values must be valid UTF-8"))
    }

    fn push(&mut self, expr: Expr, span: Span) -> ExprId {
        self.node_bytes += expr.heap_bytes();
        self.ast.push(expr, span)
    }

    /// Bytes of the tree, and of what is open. A list that grows is there twice for a moment.
    fn held_bytes(&self) -> usize {
        let lists = size_of::<Node>() * self.ast.nodes.len() + size_of::<expression::Frame>() * self.stack.len();
        self.node_bytes + 3 * lists
    }
}

#[cfg(test)]
mod tests;
