//! Tokens of PromQL.
//!
//! *Invariants:* [`Token::describe`] words a token as Prometheus does in `unexpected …`.
//!
//! *Not here:* how text is cut into tokens (`lexer`).

use super::operator::{AggregateOp, BinaryOp};
use super::position::Span;
use crate::model::labels::Quoted;

/// A token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub span: Span,
}

/// Kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Eof,
    Comma,
    Colon,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Assign,
    EqualRegex,
    NotEqualRegex,
    At,
    Identifier,
    /// An identifier with a colon.
    MetricIdentifier,
    Number,
    Duration,
    String,
    Op(BinaryOp),
    Aggregate(AggregateOp),
    Word(Keyword),
}

/// Words with a meaning of their own that are neither operators nor aggregations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Bool,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Offset,
    Anchored,
    Smoothed,
    Start,
    End,
    Step,
    Range,
    MinOf,
    MaxOf,
}

impl Keyword {
    /// Whether the word may be called like a function.
    pub fn is_function(self) -> bool {
        matches!(self, Self::Start | Self::End | Self::Step | Self::Range | Self::MinOf | Self::MaxOf)
    }

    /// Whether the word may be a metric's name.
    pub fn is_metric_name(self) -> bool {
        self.is_function() || matches!(self, Self::By | Self::Without | Self::Offset | Self::Anchored | Self::Smoothed)
    }
}

impl Kind {
    /// The kind of a word, in lower case; `None` for an ordinary identifier.
    pub fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "and" => Self::Op(BinaryOp::And),
            "or" => Self::Op(BinaryOp::Or),
            "unless" => Self::Op(BinaryOp::Unless),
            "atan2" => Self::Op(BinaryOp::Atan2),
            "inf" | "nan" => Self::Number,
            "bool" => Self::Word(Keyword::Bool),
            "by" => Self::Word(Keyword::By),
            "without" => Self::Word(Keyword::Without),
            "on" => Self::Word(Keyword::On),
            "ignoring" => Self::Word(Keyword::Ignoring),
            "group_left" => Self::Word(Keyword::GroupLeft),
            "group_right" => Self::Word(Keyword::GroupRight),
            "fill" => Self::Word(Keyword::Fill),
            "fill_left" => Self::Word(Keyword::FillLeft),
            "fill_right" => Self::Word(Keyword::FillRight),
            "offset" => Self::Word(Keyword::Offset),
            "anchored" => Self::Word(Keyword::Anchored),
            "smoothed" => Self::Word(Keyword::Smoothed),
            "start" => Self::Word(Keyword::Start),
            "end" => Self::Word(Keyword::End),
            "step" => Self::Word(Keyword::Step),
            "range" => Self::Word(Keyword::Range),
            "min_of" => Self::Word(Keyword::MinOf),
            "max_of" => Self::Word(Keyword::MaxOf),
            _ => Self::Aggregate(AggregateOp::ALL.into_iter().find(|op| op.as_str() == word)?),
        })
    }

    /// Whether the token may be a metric's name outside of braces.
    pub fn is_metric_name(self) -> bool {
        match self {
            Self::Identifier | Self::MetricIdentifier | Self::Aggregate(_) => true,
            Self::Op(op) => op.is_set(),
            Self::Word(word) => word.is_metric_name(),
            _ => false,
        }
    }

    /// Whether the token may be a label in a list of labels.
    pub fn is_label(self) -> bool {
        match self {
            Self::Op(op) => op.is_set() || op == BinaryOp::Atan2,
            Self::Word(_) => true,
            _ => self.is_metric_name(),
        }
    }

    /// Whether an expression may begin with the token.
    pub fn starts_expression(self) -> bool {
        self.is_metric_name()
            || matches!(
                self,
                Self::Number
                    | Self::Duration
                    | Self::String
                    | Self::LeftParen
                    | Self::LeftBrace
                    | Self::Op(BinaryOp::Add | BinaryOp::Sub)
            )
    }
}

impl Token {
    /// The token's text.
    pub fn text(self, query: &str) -> &str {
        query.get(self.span.start as usize..self.span.end as usize).unwrap_or_default()
    }

    /// The token in an error message.
    pub fn describe(self, query: &str) -> String {
        let text = self.text(query);
        match self.kind {
            Kind::Eof => "end of input".to_owned(),
            Kind::Identifier => format!("identifier {}", Quoted(text)),
            Kind::MetricIdentifier => format!("metric identifier {}", Quoted(text)),
            Kind::String => format!("string {}", shortened(text)),
            Kind::Number => format!("number {}", shortened(text)),
            Kind::Duration => format!("duration {}", shortened(text)),
            Kind::Op(_) | Kind::EqualRegex | Kind::NotEqualRegex | Kind::At => format!("<op:{text}>"),
            Kind::Aggregate(_) => format!("<aggr:{text}>"),
            Kind::Word(word) if !word.is_function() => format!("<{text}>"),
            _ => Quoted(text).to_string(),
        }
    }
}

/// Quoted, cut to ten characters when longer than ten bytes.
fn shortened(text: &str) -> String {
    if text.len() <= 10 {
        return Quoted(text).to_string();
    }
    let cut = text.char_indices().nth(10).map_or(text.len(), |(at, _)| at);
    format!("{}...", Quoted(&text[..cut]))
}
