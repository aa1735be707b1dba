//! The same samples, asked of Prometheus and of Metrolith: the same answers.
//!
//! Once Debian's Prometheus scrapes itself and the node exporter each second and sends all of it by remote write; then it
//! is stopped and started again without anything to scrape, so that both hold the same samples for good. Once both are
//! sent made-up samples. Both are asked the questions of `prometheus_2_42/*.txt` at the same moments.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code, helpers included")]

mod prometheus_2_42;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use prometheus_2_42::compare::{Way, judge};
use prometheus_2_42::data;
use prometheus_2_42::questions::{self, Mark, Question};
use support::http::Api;
use support::node::Setup;
use support::prometheus::RemoteWrite;
use support::{missing, now_ms, prometheus, until, writer};

/// When both are asked, milliseconds.
struct Moment {
    start: i64,
    end: i64,
    step: i64,
    /// Of the questions at an instant.
    at: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_what_prometheus_answers() {
    answers_alike(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_what_prometheus_answers_when_sent_by_remote_write_2() {
    match prometheus::newest_remote_write() {
        Some(2) => answers_alike(2).await,
        Some(_) => println!("skipped, this Prometheus is too old to send remote write 2.0"),
        None => {}
    }
}

async fn answers_alike(version: u32) {
    let dir = tempfile::tempdir().unwrap();
    let Some((_exporter, target)) = prometheus::node_exporter(dir.path()).await else { return };
    let node = Setup::new(dir.path()).start().await;
    let write = RemoteWrite { url: format!("{}/api/v1/write", node.api.url), version };
    let Some(mut scraper) = prometheus::start(dir.path(), std::slice::from_ref(&target), Some(&write)).await else {
        return;
    };
    until("ten scrapes of both targets", Duration::from_secs(90), || async {
        let counts = node.api.instant("count_over_time(up[5m]) >= 10", now_ms()).await.ok()?;
        (counts.as_array()?.len() == 2).then_some(())
    })
    .await;
    scraper.program.terminate(Duration::from_secs(60)).await;
    let Some(reference) = prometheus::start(dir.path(), &[], None).await else { return };
    let moment = settle(&node.api).await;
    ask_both(&node.api, &reference.api, &questions::read("scrapes.txt"), &moment).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_every_question_of_the_dialect_of_2_42_as_it_does_or_differs_as_declared() {
    match prometheus::version() {
        Some((2, 42)) => {}
        Some(_) => return missing("prometheus 2.42"),
        None => return,
    }
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start().await;
    let Some(reference) = prometheus::start_receiver(dir.path()).await else { return };
    let body = writer::encode(&data::series());
    for api in [&node.api, &reference.api] {
        let (status, text) = writer::send(api, body.clone()).await.unwrap();
        assert!((200..300).contains(&status), "{} answered {status}: {text}", api.url);
    }
    let moment = Moment { start: data::START, end: data::END, step: data::STEP, at: data::NOW };
    ask_both(&node.api, &reference.api, &questions::read("synthetic.txt"), &moment).await;
    node.stop().await;
}

async fn ask_both(ours: &Api, theirs: &Api, questions: &[Question], moment: &Moment) {
    let Moment { start, end, step, at } = *moment;
    let mut wrong = Vec::new();
    for Question { query, mark } in questions {
        let answers = (ours.data_at(query, at).await.unwrap(), theirs.data_at(query, at).await.unwrap());
        if let Some(what) = judge(mark, Way::Instant, &answers.0, &answers.1) {
            wrong.push(format!("{query}\n    at {at}: {what}"));
        }
        let answers = (
            ours.data_over(query, start, end, step).await.unwrap(),
            theirs.data_over(query, start, end, step).await.unwrap(),
        );
        if let Some(what) = judge(mark, Way::Range, &answers.0, &answers.1) {
            wrong.push(format!("{query}\n    from {start} to {end}: {what}"));
        }
    }
    assert!(wrong.is_empty(), "{} answers are not as declared:\n{}", wrong.len(), wrong.join("\n"));
    let differ = questions.iter().filter(|q| matches!(q.mark, Mark::Differs(..))).count();
    println!(
        "{} queries, each at an instant and over a range, answered as declared, {differ} differently",
        questions.len()
    );
}

/// The newest moment up to which Metrolith has every scrape. Prometheus writes `up` after all else of a scrape and sends
/// in order, so what is older than the newest `up` of both targets has arrived.
///
/// Sample times keep their milliseconds, and Debian's Prometheus includes the left end of a range where today's does
/// not: the moment is one at which no whole number of seconds leads back to a scrape.
async fn settle(api: &Api) -> Moment {
    let found = api.instant("timestamp(up)", now_ms()).await.unwrap();
    let newest: Vec<i64> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["value"][1].as_str().unwrap().parse::<f64>().unwrap() * 1000.0).round() as i64)
        .collect();
    let last = *newest.iter().min().unwrap();
    let off_beat = |t: &i64| newest.iter().all(|n| (t - n).rem_euclid(1000) > 20 && (n - t).rem_euclid(1000) > 20);
    let end = (last - 1000..last).rev().find(off_beat).unwrap();
    Moment { start: end - 6000, end, step: 1000, at: end }
}

/// What 2.42 has.
const FUNCTIONS: &str = "abs absent absent_over_time acos acosh asin asinh atan atanh avg_over_time ceil changes clamp \
    clamp_max clamp_min cos cosh count_over_time day_of_month day_of_week day_of_year days_in_month deg delta deriv exp \
    floor histogram_count histogram_fraction histogram_quantile histogram_sum holt_winters hour idelta increase irate \
    label_join label_replace last_over_time ln log10 log2 max_over_time min_over_time minute month pi predict_linear \
    present_over_time quantile_over_time rad rate resets round scalar sgn sin sinh sort sort_desc sqrt stddev_over_time \
    stdvar_over_time sum_over_time tan tanh time timestamp vector year";
const AGGREGATIONS: &str = "sum avg min max count group stddev stdvar topk bottomk quantile count_values";
const OPERATORS: &str =
    "+ - * / % ^ == != > < >= <= and or unless atan2 bool on ignoring group_left group_right offset @";

#[test]
fn the_questions_cover_the_language() {
    let questions = questions::read("synthetic.txt");
    assert!(questions.len() >= 300, "{} questions", questions.len());
    let text = questions.iter().map(|q| format!(" {} ", q.query)).collect::<String>();
    let called = |name: &&str| !text.contains(&format!("{name}("));
    assert_eq!(FUNCTIONS.split_whitespace().filter(called).collect::<Vec<_>>(), [""; 0], "functions");
    let grouped = |name: &&str| !["by", "without"].iter().all(|how| text.contains(&format!("{name} {how} (")));
    assert_eq!(AGGREGATIONS.split_whitespace().filter(grouped).collect::<Vec<_>>(), [""; 0], "by and without");
    let used = |name: &&str| !text.contains(&format!(" {name} "));
    assert_eq!(OPERATORS.split_whitespace().filter(used).collect::<Vec<_>>(), [""; 0], "operators");
}

#[test]
fn every_difference_is_explained_and_every_explanation_has_a_question() {
    let questions = [questions::read("synthetic.txt"), questions::read("scrapes.txt")].concat();
    let names: BTreeSet<String> = questions
        .iter()
        .filter_map(|q| match &q.mark {
            Mark::Differs(name, _) => Some(name.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(names, questions::explained(), "names in the questions, headings of docs/prometheus.md");
}
