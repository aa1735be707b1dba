//! Judges what was read against what was sent. Pure.
//!
//! *Invariants:* every judgement names the series and the timestamp. What was acknowledged before a read began must be in
//! it; what was never sent until it ended must not.
//!
//! *Not here:* asking (`api`), when to ask (`load`, `run`).

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::history::{Outcome, Shape};

/// One series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its batch, as labelled.
    pub batch: usize,
    /// Its number in the batch.
    pub series: usize,
    /// Timestamps and values, as answered.
    pub points: Vec<(i64, f64)>,
}

/// What is wrong with a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// Acknowledged before the read, and not there.
    Lost,
    /// There, and never sent.
    Phantom,
    /// There with another value.
    Value,
    /// There twice, or before one that is older.
    Twice,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// What is wrong.
    pub wrong: Wrong,
    /// Batch and number of the series.
    pub series: (usize, usize),
    /// Timestamp of the sample.
    pub t: i64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.wrong {
            Wrong::Lost => "acknowledged and not there",
            Wrong::Phantom => "there and never sent",
            Wrong::Value => "there with another value",
            Wrong::Twice => "there twice or out of order",
        };
        write!(f, "batch {} series {} at {}: {word}", self.series.0, self.series.1, self.t)
    }
}

/// What a read asked for, and what was known before it began and after it ended.
#[derive(Debug)]
pub struct Asked<'a> {
    /// What is written.
    pub shape: Shape,
    /// Which batch.
    pub batch: usize,
    /// First step; the last follows from the number of outcomes.
    pub from: usize,
    /// Outcomes when the read began.
    pub before: &'a [Outcome],
    /// Outcomes after it ended.
    pub after: &'a [Outcome],
}

/// Everything that is wrong with an answer.
pub fn read(asked: &Asked<'_>, rows: &[Row]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut by_series: BTreeMap<usize, &Row> = BTreeMap::new();
    for row in rows {
        let foreign = row.batch != asked.batch || row.series >= asked.shape.series;
        let twice = by_series.insert(row.series, row).is_some();
        if foreign || twice {
            let wrong = if foreign { Wrong::Phantom } else { Wrong::Twice };
            let t = row.points.first().map_or(0, |p| p.0);
            found.push(Violation { wrong, series: (row.batch, row.series), t });
        }
    }
    for series in 0..asked.shape.series {
        let points = by_series.get(&series).map_or(&[][..], |row| &row.points);
        one_series(asked, series, points, &mut found);
    }
    found
}

fn one_series(asked: &Asked<'_>, series: usize, points: &[(i64, f64)], found: &mut Vec<Violation>) {
    let mut note = |wrong, t| found.push(Violation { wrong, series: (asked.batch, series), t });
    let mut there = vec![false; asked.before.len()];
    let mut last = i64::MIN;
    for (t, value) in points {
        if *t <= last {
            note(Wrong::Twice, *t);
        }
        last = last.max(*t);
        let at = asked.shape.step(*t).and_then(|step| step.checked_sub(asked.from));
        match at.and_then(|at| Some((at, asked.after.get(at)?))) {
            Some((at, Outcome::Ok | Outcome::Info)) => there[at] = true,
            _ => note(Wrong::Phantom, *t),
        }
        if *value != asked.shape.value(asked.batch, series, *t) {
            note(Wrong::Value, *t);
        }
    }
    for (at, there) in there.iter().enumerate() {
        if !there && asked.before[at] == Outcome::Ok {
            note(Wrong::Lost, asked.shape.time(asked.from + at));
        }
    }
}

/// The rows of an answer to a range selector.
pub fn rows(answer: &[u8]) -> Result<Vec<Row>> {
    let answer: Value = serde_json::from_slice(answer).context("reading an answer")?;
    if answer["data"]["resultType"] != "matrix" {
        bail!("not a matrix: {}", answer["data"]["resultType"]);
    }
    let number = |label: &Value| label.as_str().and_then(|text| text.parse().ok());
    let row = |row: &Value| -> Option<Row> {
        let points = row["values"].as_array()?.iter().map(|point| {
            let t = (point[0].as_f64()? * 1000.0).round() as i64;
            Some((t, point[1].as_str()?.parse().ok()?))
        });
        let labels = &row["metric"];
        let points = points.collect::<Option<Vec<_>>>()?;
        Some(Row { batch: number(&labels["batch"])?, series: number(&labels["series"])?, points })
    };
    let rows = answer["data"]["result"].as_array().context("no result")?;
    rows.iter().map(|r| row(r).with_context(|| format!("not a series of ours: {r}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Fail, Info, Never, Ok as Acked};

    const SHAPE: Shape = Shape { seed: 7, base: 1_000, step_ms: 100, batches: 2, series: 2 };

    /// An answer with the samples of these steps in both series of batch 1.
    fn answer(steps: &[usize]) -> Vec<Row> {
        let points = |series| steps.iter().map(move |s| (SHAPE.time(*s), SHAPE.value(1, series, SHAPE.time(*s))));
        (0..2).map(|series| Row { batch: 1, series, points: points(series).collect() }).collect()
    }

    fn judge(before: &[Outcome], after: &[Outcome], rows: &[Row]) -> Vec<(Wrong, i64)> {
        let asked = Asked { shape: SHAPE, batch: 1, from: 0, before, after };
        read(&asked, rows).into_iter().map(|v| (v.wrong, v.t)).collect()
    }

    #[test]
    fn what_was_acknowledged_and_is_there_is_right() {
        let known = [Acked, Never, Acked, Fail];
        assert_eq!(judge(&known, &known, &answer(&[0, 2])), []);
    }

    #[test]
    fn an_acknowledged_sample_that_is_not_there_is_lost() {
        let known = [Acked, Acked];
        assert_eq!(judge(&known, &known, &answer(&[0])), [(Wrong::Lost, 1_100); 2]);
    }

    #[test]
    fn a_series_that_is_not_there_lost_all_its_samples() {
        let known = [Acked, Acked];
        assert_eq!(judge(&known, &known, &answer(&[0, 1])[..1]), [(Wrong::Lost, 1_000), (Wrong::Lost, 1_100)]);
    }

    #[test]
    fn a_sample_of_unknown_outcome_may_be_there_or_not() {
        let known = [Info, Acked];
        assert_eq!(judge(&known, &known, &answer(&[0, 1])), []);
        assert_eq!(judge(&known, &known, &answer(&[1])), []);
    }

    #[test]
    fn what_is_acknowledged_during_a_read_may_be_missing_from_it() {
        assert_eq!(judge(&[Never], &[Acked], &answer(&[])), []);
        assert_eq!(judge(&[Never], &[Acked], &answer(&[0])), []);
    }

    #[test]
    fn a_sample_that_was_refused_or_never_sent_is_a_phantom() {
        let known = [Fail, Never];
        assert_eq!(judge(&known, &known, &answer(&[0, 1]))[..2], [(Wrong::Phantom, 1_000), (Wrong::Phantom, 1_100)]);
    }

    #[test]
    fn a_sample_beside_the_steps_or_after_the_last_is_a_phantom() {
        let known = [Acked];
        let mut rows = answer(&[0]);
        rows[0].points.push((1_050, SHAPE.value(1, 0, 1_050)));
        rows[0].points.push((1_100, SHAPE.value(1, 0, 1_100)));
        assert_eq!(judge(&known, &known, &rows), [(Wrong::Phantom, 1_050), (Wrong::Phantom, 1_100)]);
    }

    #[test]
    fn a_sample_with_the_value_of_another_is_found() {
        let known = [Acked, Acked];
        let mut rows = answer(&[0, 1]);
        rows[1].points[0].1 = rows[0].points[0].1;
        assert_eq!(judge(&known, &known, &rows), [(Wrong::Value, 1_000)]);
    }

    #[test]
    fn a_sample_that_is_there_twice_is_found() {
        let known = [Acked, Acked];
        assert_eq!(judge(&known, &known, &answer(&[0, 0, 1])), [(Wrong::Twice, 1_000); 2]);
        let rows = [answer(&[0, 1]), answer(&[0])].concat();
        assert!(judge(&known, &known, &rows).contains(&(Wrong::Twice, 1_000)));
    }

    #[test]
    fn a_series_of_another_batch_is_a_phantom() {
        let known = [Acked];
        let mut rows = answer(&[0]);
        rows.push(Row { batch: 1, series: 2, points: vec![(1_000, 1.0)] });
        assert_eq!(judge(&known, &known, &rows), [(Wrong::Phantom, 1_000)]);
    }

    #[test]
    fn rows_are_read_from_the_answer_of_a_server() {
        let text = br#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"__name__":"c","batch":"1","series":"0"},"values":[[1.1,"5"],[1690000000.123,"6"]]}]}}"#;
        let points = vec![(1_100, 5.0), (1_690_000_000_123, 6.0)];
        assert_eq!(rows(text).unwrap(), [Row { batch: 1, series: 0, points }]);
        assert!(rows(br#"{"data":{"resultType":"vector","result":[]}}"#).is_err());
    }
}
