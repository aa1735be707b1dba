//! Which steps of a query come from which extent, and which have to be evaluated.
//!
//! *Invariants:* runs follow each other without gaps and cover all steps asked for. What is evaluated has at least two
//! steps: a query of one step is an instant one to the engine, which may order and annotate it differently.
//!
//! *Not here:* which extents may be used at all (`answer`).

use super::extent::Steps;

/// Most runs that are evaluated apart: each selects its series and reads its windows anew.
const MOST_GAPS: usize = 3;

/// Steps in a row with the same origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Which steps.
    pub steps: Steps,
    /// Which extent they come from; `None` to evaluate them.
    pub from: Option<usize>,
}

/// Steps of an extent that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usable {
    /// Which of the extents.
    pub extent: usize,
    /// Which steps.
    pub steps: Steps,
    /// All of them or none.
    pub whole: bool,
}

/// Divides `asked`, at least two steps, into runs.
pub fn cover(asked: Steps, usable: &[Usable]) -> Vec<Run> {
    let mut runs = sweep(asked, usable);
    widen(&mut runs, usable);
    if runs.iter().filter(|run| run.from.is_none()).count() > MOST_GAPS {
        let longest = runs.iter().filter(|run| run.from.is_some()).map(|run| run.steps.count()).max();
        let mut kept = false;
        for run in &mut runs {
            let keep = !kept && run.from.is_some() && Some(run.steps.count()) == longest;
            kept |= keep;
            run.from = run.from.filter(|_| keep);
        }
        widen(&mut runs, usable);
    }
    runs
}

/// From the first step on, as far as the extent that reaches farthest.
fn sweep(asked: Steps, usable: &[Usable]) -> Vec<Run> {
    let (mut runs, mut next) = (Vec::new(), asked.first);
    let offers = |u: &&Usable, step: i64| {
        let steps = u.steps.clip(asked);
        steps.first <= step && step <= steps.last && (!u.whole || u.steps.first == step && u.steps == steps)
    };
    while next <= asked.last {
        let best = usable.iter().filter(|u| offers(u, next)).max_by_key(|u| u.steps.last);
        let (last, from) = match best {
            Some(best) => (best.steps.last.min(asked.last), Some(best.extent)),
            None => {
                let later = usable.iter().map(|u| u.steps).filter(|s| s.first > next && !s.clip(asked).is_empty());
                let last = later.map(|s| s.first - 1).min().unwrap_or(asked.last);
                (last.min(asked.last), None)
            }
        };
        runs.push(Run { steps: Steps { first: next, last }, from });
        next = last + 1;
    }
    runs
}

/// Gives every gap of one step a second one of a neighbour's.
fn widen(runs: &mut Vec<Run>, usable: &[Usable]) {
    join_gaps(runs);
    let whole = |run: &Run| usable.iter().any(|u| run.from == Some(u.extent) && u.whole);
    for i in 0..runs.len() {
        if runs[i].from.is_some() || runs[i].steps.count() != 1 {
            continue;
        }
        let neighbour = if i > 0 { i - 1 } else { 1 };
        let Some(given) = runs.get(neighbour).copied() else { continue };
        if whole(&given) || given.steps.count() == 1 {
            runs[neighbour].from = None;
        } else if neighbour < i {
            runs[neighbour].steps.last -= 1;
            runs[i].steps.first -= 1;
        } else {
            runs[neighbour].steps.first += 1;
            runs[i].steps.last += 1;
        }
    }
    join_gaps(runs);
}

/// Makes one of gaps that follow each other.
fn join_gaps(runs: &mut Vec<Run>) {
    runs.dedup_by(|next, kept| {
        let both = next.from.is_none() && kept.from.is_none();
        if both {
            kept.steps.last = next.steps.last;
        }
        both
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn steps(first: i64, last: i64) -> Steps {
        Steps { first, last }
    }

    fn part(extent: usize, first: i64, last: i64) -> Usable {
        Usable { extent, steps: steps(first, last), whole: false }
    }

    fn covered(asked: (i64, i64), usable: &[Usable]) -> Vec<(i64, i64, Option<usize>)> {
        let runs = cover(steps(asked.0, asked.1), usable);
        runs.into_iter().map(|run| (run.steps.first, run.steps.last, run.from)).collect()
    }

    #[test]
    fn what_is_there_is_taken_and_the_rest_evaluated() {
        assert_eq!(covered((0, 9), &[]), [(0, 9, None)]);
        assert_eq!(covered((0, 9), &[part(0, -5, 20)]), [(0, 9, Some(0))]);
        assert_eq!(covered((0, 9), &[part(0, -5, 4)]), [(0, 4, Some(0)), (5, 9, None)]);
        assert_eq!(covered((0, 9), &[part(0, 3, 6)]), [(0, 2, None), (3, 6, Some(0)), (7, 9, None)]);
        assert_eq!(covered((0, 9), &[part(0, 20, 30), part(1, -9, -1)]), [(0, 9, None)]);
        assert_eq!(covered((0, 9), &[part(0, 0, 4), part(1, 0, 6), part(2, 5, 9)]), [(0, 6, Some(1)), (7, 9, Some(2))]);
    }

    #[test]
    fn no_single_step_is_evaluated() {
        assert_eq!(covered((0, 9), &[part(0, 0, 8)]), [(0, 7, Some(0)), (8, 9, None)]);
        assert_eq!(covered((0, 9), &[part(0, 1, 9)]), [(0, 1, None), (2, 9, Some(0))]);
        assert_eq!(covered((0, 9), &[part(0, 0, 0), part(1, 2, 9)]), [(0, 1, None), (2, 9, Some(1))]);
        assert_eq!(covered((0, 1), &[part(0, 0, 0)]), [(0, 1, None)]);
    }

    #[test]
    fn annotated_extents_are_taken_whole_or_not_at_all() {
        let whole = |first, last| Usable { whole: true, ..part(0, first, last) };
        assert_eq!(covered((0, 9), &[whole(0, 5)]), [(0, 5, Some(0)), (6, 9, None)]);
        assert_eq!(covered((0, 9), &[whole(-1, 5)]), [(0, 9, None)]);
        assert_eq!(covered((0, 9), &[whole(0, 8)]), [(0, 9, None)], "its last step would have to be given away");
        assert_eq!(covered((0, 9), &[whole(3, 9), part(1, 0, 4)]), [(0, 4, Some(1)), (5, 9, None)]);
    }

    #[test]
    fn of_many_pieces_only_the_longest_is_worth_it() {
        let pieces = [part(0, 2, 3), part(1, 6, 9), part(2, 12, 13), part(3, 16, 17)];
        assert_eq!(covered((0, 19), &pieces), [(0, 5, None), (6, 9, Some(1)), (10, 19, None)]);
    }

    proptest! {
        #[test]
        fn runs_cover_what_is_asked_and_lie_in_their_extents(
            ranges in prop::collection::vec((-5i64..40, 0i64..20, any::<bool>()), 0..8),
            (first, count) in (0i64..10, 2i64..30),
        ) {
            let asked = steps(first, first + count - 1);
            let of = |(extent, (first, len, whole)): (usize, (i64, i64, bool))| Usable {
                extent,
                steps: steps(first, first + len),
                whole,
            };
            let usable: Vec<Usable> = ranges.into_iter().enumerate().map(of).collect();
            let runs = cover(asked, &usable);
            let mut next = asked.first;
            for run in &runs {
                prop_assert_eq!(run.steps.first, next);
                prop_assert!(!run.steps.is_empty());
                match run.from {
                    None => prop_assert!(run.steps.count() >= 2),
                    Some(from) => {
                        prop_assert!(usable[from].steps.contains(run.steps));
                        prop_assert!(!usable[from].whole || usable[from].steps == run.steps);
                    }
                }
                next = run.steps.last + 1;
            }
            prop_assert_eq!(next, asked.last + 1);
            prop_assert!(runs.iter().filter(|run| run.from.is_none()).count() <= MOST_GAPS);
            prop_assert!(runs.windows(2).all(|two| two[0].from.is_some() || two[1].from.is_some()));
        }
    }
}
