//! HTTP on the control thread: `/metrics`, `/health/live`, `/health/ready`, and `/`, which lists them.
//!
//! It reads counters that shards have written; a scrape asks each shard to bring its gauges up to date, then for the high watermarks that groups' lag is counted from, and
//! never waits for one that does not answer.

mod bounded;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use tokio::sync::oneshot;

use bounded::Bounded;

use crate::lag;
use crate::metrics::ShardMetrics;
use crate::shard::Common;
use crate::shard::exchange::{Content, Envelope};
use crate::shard::message::Request;

/// How long a scrape waits for shards to update their gauges.
const SNAPSHOT_WITHIN: Duration = Duration::from_millis(500);

/// What `/` answers, for whoever finds the port.
const PAGES: &str = concat!(
    "ringlog ",
    env!("CARGO_PKG_VERSION"),
    ", a Kafka-compatible broker; Kafka clients connect to another port, its `listeners`\n\n",
    "/metrics       metrics as Prometheus reads them\n",
    "/health/live   200 while the process runs\n",
    "/health/ready  200 while clients are served, else 503\n",
);

/// What the pages read.
#[derive(Clone)]
pub struct Pages {
    /// What the shards share.
    pub common: Arc<Common>,
    /// Whether requests are answered.
    pub ready: Arc<AtomicBool>,
}

/// Serves until the listener is dropped with its task.
///
/// # Errors
/// When the socket cannot be listened on any longer.
pub async fn serve(listener: tokio::net::TcpListener, pages: Pages) -> std::io::Result<()> {
    let router = Router::new()
        .route("/", get(|| async { PAGES }))
        .route("/metrics", get(metrics))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                "no such page; / lists what there is\n",
            )
        })
        .layer(map_response(last_of_its_connection))
        .with_state(pages);
    axum::serve(Bounded::new(listener), router).await
}

/// A connection is there for one request: no peer keeps one that others could have.
async fn last_of_its_connection(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

async fn ready(State(pages): State<Pages>) -> Response {
    match pages.ready.load(Ordering::Acquire) {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n").into_response(),
    }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    ask_shards(&pages, Request::Snapshot).await;
    let wanted = lag::wanted(pages.common.metrics.iter().map(|shard| &shard.lag));
    if !wanted.is_empty() {
        ask_shards(&pages, |done| Request::HighWatermarks(wanted.clone(), done)).await;
    }
    let text = ShardMetrics::render(&pages.common.metrics);
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

/// Asks every shard for something, and waits a while for them to say that it is done.
async fn ask_shards(pages: &Pages, request: impl Fn(oneshot::Sender<()>) -> Request) {
    let mut answers = Vec::new();
    for mailbox in pages.common.mailboxes.iter() {
        let (done, answer) = oneshot::channel();
        let content = Content::Request {
            call: None,
            request: request(done),
        };
        // A full mailbox means old gauges this time.
        if mailbox.push(Envelope { from: 0, content }).is_ok() {
            answers.push(answer);
        }
    }
    let all = async {
        for answer in answers {
            let _ = answer.await;
        }
    };
    let _ = tokio::time::timeout(SNAPSHOT_WITHIN, all).await;
}
