//! Finds names that look like what somebody typed, as Prometheus' search API scores them.
//!
//! *Invariants:* scores lie between 0 and 1; 1 is a name that begins with the term (or is it). Several terms are
//! alternatives: the best score counts.
//!
//! *Not here:* where the names come from (`query::lookup`), the lines of an answer (`api::http::search`).
//!
//! Source: Prometheus `web/api/v1/search_filters.go`, `util/strutil`.

use std::collections::BTreeSet;

use super::budget::QueryBudget;
use crate::error::Error;

/// How a name is compared with a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// All characters of the term occur in order; runs of them score high, gaps cost.
    Subsequence,
    /// Substrings, and names that are similar by the measure of Jaro and Winkler.
    JaroWinkler,
}

/// Order of what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By name.
    Ascending,
    /// By name, last first.
    Descending,
    /// Best score first, then by name.
    Score,
}

/// What is searched for.
#[derive(Debug, Clone)]
pub struct Search {
    /// Alternatives; none accepts everything.
    pub terms: Vec<String>,
    /// How they are compared.
    pub algorithm: Algorithm,
    /// Least score of a name that is only similar.
    pub threshold: f64,
    /// Whether upper and lower case differ.
    pub case_sensitive: bool,
}

/// A name that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The name.
    pub name: String,
    /// How well it fits.
    pub score: f64,
}

impl Search {
    /// The first `limit` of the names that fit, and whether there are more; `budget` may stop it between names.
    pub fn pick(
        &self,
        names: BTreeSet<String>,
        order: Order,
        limit: usize,
        budget: &QueryBudget,
    ) -> Result<(Vec<Hit>, bool), Error> {
        let terms: Vec<Vec<char>> = self.terms.iter().map(|term| self.characters(term)).collect();
        let mut hits = Vec::new();
        for name in names {
            budget.charge(0)?;
            hits.extend(self.score(&terms, &name).map(|score| Hit { name, score }));
        }
        match order {
            Order::Ascending => {}
            Order::Descending => hits.reverse(),
            // They came by name, and a stable sort leaves equal ones so.
            Order::Score => hits.sort_by(|a, b| b.score.total_cmp(&a.score)),
        }
        let more = hits.len() > limit;
        hits.truncate(limit);
        Ok((hits, more))
    }

    fn characters(&self, text: &str) -> Vec<char> {
        if self.case_sensitive { text.chars().collect() } else { text.to_lowercase().chars().collect() }
    }

    /// The best score of all terms, if any accepts the name.
    fn score(&self, terms: &[Vec<char>], name: &str) -> Option<f64> {
        if terms.is_empty() {
            return Some(1.0);
        }
        let name = self.characters(name);
        let accepted = terms.iter().filter_map(|term| self.score_of(term, &name));
        accepted.reduce(f64::max)
    }

    fn score_of(&self, term: &[char], name: &[char]) -> Option<f64> {
        if name.starts_with(term) {
            return Some(1.0);
        }
        match self.algorithm {
            Algorithm::Subsequence => Some(subsequence(term, name)).filter(|s| *s > 0.0 && *s >= self.threshold),
            Algorithm::JaroWinkler if name.windows(term.len()).any(|part| part == term) => Some(0.9),
            Algorithm::JaroWinkler if self.threshold > 0.0 => {
                Some(jaro_winkler(term, name)).filter(|s| *s >= self.threshold)
            }
            Algorithm::JaroWinkler => None,
        }
    }
}

/// 0 if the term's characters do not occur in order. From each place where it may begin it is followed greedily: squares
/// of the runs' lengths, less a share of the text for what lies before and between them, and half of one for the rest.
fn subsequence(term: &[char], text: &[char]) -> f64 {
    let (Some(first), Some(last_start)) = (term.first(), text.len().checked_sub(term.len())) else { return 0.0 };
    let share = 1.0 / text.len() as f64;
    let mut best: Option<f64> = None;
    for start in (0..=last_start).filter(|i| text[*i] == *first) {
        let (mut score, mut at, mut matched, mut end) = (0.0, start, 0, 0);
        while matched < term.len() {
            let Some(gap) = text[at..].iter().position(|c| *c == term[matched]) else { break };
            at += gap;
            let run = text[at..].iter().zip(&term[matched..]).take_while(|(a, b)| a == b).count();
            let skipped = at - end;
            score += (run * run) as f64 - skipped as f64 * share;
            (at, matched, end) = (at + run, matched + run, at + run);
        }
        if matched < term.len() {
            // What cannot be completed from here cannot be from further on.
            break;
        }
        score -= (text.len() - end) as f64 * share * 0.5;
        best = Some(best.map_or(score, |b| b.max(score)));
    }
    best.map_or(0.0, |score| score.max(0.0) / (term.len() * term.len()) as f64)
}

fn jaro_winkler(a: &[char], b: &[char]) -> f64 {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    if short.is_empty() {
        return if long.is_empty() { 1.0 } else { 0.0 };
    }
    let distance = (long.len() / 2).saturating_sub(1);
    let mut taken = vec![false; long.len()];
    let mut of_short = Vec::new();
    for (i, c) in short.iter().enumerate() {
        let near = i.saturating_sub(distance)..(i + distance + 1).min(long.len());
        if let Some(j) = near.into_iter().find(|j| !taken[*j] && long[*j] == *c) {
            taken[j] = true;
            of_short.push(*c);
        }
    }
    if of_short.is_empty() {
        return 0.0;
    }
    let of_long = long.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(c, _)| *c);
    let transposed = of_short.iter().zip(of_long).filter(|(a, b)| **a != *b).count() as f64;
    let matches = of_short.len() as f64;
    let jaro =
        (matches / short.len() as f64 + matches / long.len() as f64 + (matches - transposed / 2.0) / matches) / 3.0;
    let prefix = short.iter().zip(long).take(4).take_while(|(a, b)| a == b).count();
    jaro + prefix as f64 * 0.1 * (1.0 - jaro)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::exec::control::CancelToken;
    use crate::query::budget::NodeBudget;

    fn chars(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    fn search(terms: &[&str], algorithm: Algorithm, threshold: f64, case_sensitive: bool) -> Search {
        Search { terms: terms.iter().map(|t| (*t).to_owned()).collect(), algorithm, threshold, case_sensitive }
    }

    fn names(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn runs_score_and_gaps_cost() {
        let score = |term: &str, text: &str| subsequence(&chars(term), &chars(text));
        // One gap of one in five, and two trailing at half: (1 + 1 − 1/5 − 2/10) / 4.
        assert!((score("ac", "abcde") - 0.4).abs() < 1e-12);
        assert!((score("bc", "abcde") - (4.0 - 0.2 - 0.2) / 4.0).abs() < 1e-12);
        assert_eq!((score("ca", "abc"), score("abcd", "abc"), score("é", "e")), (0.0, 0.0, 0.0));
        // The later start is the better one.
        assert!((score("ab", "axab") - (4.0 - 0.5) / 4.0).abs() < 1e-12);
    }

    #[test]
    fn similar_words_are_measured_as_jaro_and_winkler_did() {
        let score = |a: &str, b: &str| jaro_winkler(&chars(a), &chars(b));
        assert!((score("MARTHA", "MARHTA") - 0.961_111_111).abs() < 1e-8);
        assert!((score("DIXON", "DICKSONX") - 0.813_333_333).abs() < 1e-8);
        assert_eq!((score("abc", "xyz"), score("", ""), score("", "a")), (0.0, 1.0, 0.0));
    }

    #[test]
    fn the_best_of_several_terms_counts_and_the_rest_is_said_to_exist() {
        let all = names(&["Up", "go_up_total", "node_load", "unrelated_thing", "up"]);
        let found = |s: &Search, order, limit| {
            let budget = QueryBudget::new(NodeBudget::new(0), 0, CancelToken::default());
            let (hits, more) = s.pick(all.clone(), order, limit, &budget).unwrap();
            (hits.into_iter().map(|h| h.name).collect::<Vec<_>>(), more)
        };
        let s = search(&["up", "node"], Algorithm::Subsequence, 0.5, true);
        assert_eq!(
            found(&s, Order::Ascending, 9),
            (vec!["go_up_total".into(), "node_load".into(), "up".into()], false)
        );
        assert_eq!(found(&s, Order::Descending, 2), (vec!["up".into(), "node_load".into()], true));
        let s = search(&["up"], Algorithm::JaroWinkler, 0.0, false);
        assert_eq!(found(&s, Order::Score, 9), (vec!["Up".into(), "up".into(), "go_up_total".into()], false));
        let s = search(&["nodeload"], Algorithm::JaroWinkler, 0.9, true);
        assert_eq!(found(&s, Order::Score, 9), (vec!["node_load".into()], false));
        assert_eq!(
            found(&search(&[], Algorithm::Subsequence, 0.9, true), Order::Ascending, 1),
            (vec!["Up".into()], true)
        );
    }
}
