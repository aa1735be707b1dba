//! The Prometheus API as a client sees it.

use std::time::Duration;

use serde_json::Value;

/// Why a server did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the reply.
    pub status: u16,
    /// Its `errorType`.
    pub kind: String,
    /// Its `error`.
    pub text: String,
}

/// A server that speaks it.
#[derive(Clone)]
pub struct Api {
    /// Address without a path.
    pub url: String,
    client: reqwest::Client,
}

impl Api {
    /// The server at `url`.
    pub fn new(url: &str) -> Self {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().build().unwrap();
        Self { url: url.to_owned(), client }
    }

    /// Asks at one moment; the `result`, or the error as the server said it.
    pub async fn instant(&self, query: &str, time_ms: i64) -> Result<Value, String> {
        Self::result(self.data_at(query, time_ms).await?)
    }

    /// Asks for a range; the `result`, or the error as the server said it.
    pub async fn range(&self, query: &str, start_ms: i64, end_ms: i64, step_ms: i64) -> Result<Value, String> {
        Self::result(self.data_over(query, start_ms, end_ms, step_ms).await?)
    }

    fn result(answer: Result<Value, Refusal>) -> Result<Value, String> {
        match answer {
            Ok(mut data) => Ok(data["result"].take()),
            Err(Refusal { status, kind, text }) => Err(format!("{status}: {kind}: {text}")),
        }
    }

    /// Asks at one moment; the `data`, or what the server refused it with. An error is one of the connection.
    pub async fn data_at(&self, query: &str, time_ms: i64) -> Result<Result<Value, Refusal>, String> {
        self.ask("query", &[("query", query), ("time", &seconds(time_ms))]).await
    }

    /// The same for a range.
    pub async fn data_over(
        &self,
        query: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<Result<Value, Refusal>, String> {
        let (start, end, step) = (seconds(start_ms), seconds(end_ms), seconds(step_ms));
        self.ask("query_range", &[("query", query), ("start", &start), ("end", &end), ("step", &step)]).await
    }

    async fn ask(&self, path: &str, form: &[(&str, &str)]) -> Result<Result<Value, Refusal>, String> {
        let answer = self.client.post(format!("{}/api/v1/{path}", self.url)).form(form).send().await;
        let answer = answer.map_err(|e| format!("{path}: {e:?}"))?;
        let (status, body) = (answer.status(), answer.text().await.map_err(|e| e.to_string())?);
        let mut reply: Value = serde_json::from_str(&body).map_err(|e| format!("{path}: {status}: {e}: {body}"))?;
        let text = |field: &str| reply[field].as_str().unwrap_or_default().to_owned();
        Ok(match reply["status"].as_str() {
            Some("success") => Ok(reply["data"].take()),
            _ => Err(Refusal { status: status.as_u16(), kind: text("errorType"), text: text("error") }),
        })
    }

    /// Sends a body; status and answer.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<(u16, String), String> {
        let mut post = self.client.post(format!("{}{path}", self.url)).body(body);
        for (name, value) in headers {
            post = post.header(*name, *value);
        }
        let answer = post.send().await.map_err(|e| format!("{path}: {e:?}"))?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(|e| e.to_string())?))
    }

    /// Fetches a page; status and answer.
    pub async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let answer =
            self.client.get(format!("{}{path}", self.url)).send().await.map_err(|e| format!("{path}: {e:?}"))?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(|e| e.to_string())?))
    }

    /// Compacts every day; how many blocks were merged.
    pub async fn compact(&self) -> u64 {
        let (status, text) = self.post("/api/v1/admin/compact", &[], Vec::new()).await.unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("compact said {status} {text}: {e}"));
        assert_eq!((status, &answer["data"]["failed"]), (200, &Value::from(0)), "{text}");
        answer["data"]["blocks"].as_u64().unwrap()
    }

    /// Closes all windows and waits until they are in the bucket.
    pub async fn flush(&self) {
        let (status, text) = self.post("/api/v1/admin/flush", &[], Vec::new()).await.unwrap();
        assert!((200..300).contains(&status), "flush answered {status}: {text}");
    }
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// Rows of a vector or matrix in an order that does not depend on the server.
pub fn sorted(result: &Value) -> Vec<Value> {
    let mut rows = result.as_array().cloned().unwrap_or_else(|| vec![result.clone()]);
    rows.sort_by_key(|row| {
        let mut labels: Vec<String> =
            row["metric"].as_object().into_iter().flatten().map(|(name, value)| format!("{name}={value}")).collect();
        labels.sort();
        labels.join(",")
    });
    rows
}
