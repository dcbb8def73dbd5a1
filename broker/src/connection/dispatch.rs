//! Starts a connection's requests in the order they arrived.
//!
//! Produce requests follow each other as soon as the order of the one before is fixed in every log it writes to. Any other request
//! waits until what came before it is answered, and is answered before the next begins: a client that pipelines sees exactly what it would see if it
//! did not.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use ringlog_net::codec::Reader;
use ringlog_net::header::{RequestHeader, decode_request_header};
use ringlog_net::request::{Request, Response};
use ringlog_net::{ApiKey, ErrorCode};

use super::budget::Permit;
use super::reader::SMALL_FRAME_BYTES;
use super::to_its_end::ToItsEnd;
use super::{Answer, Closing, Frame, Pipe, Slot};
use crate::handlers::{self, RequestContext, SERVED, api_versions, produce};
use crate::shard::runtime::{contained, spawn};

/// Finished responses may wait for the socket up to this many bytes before further requests are started.
const UNSENT_BYTES_MAX: usize = 1 << 20;

pub(super) async fn run(pipe: &Pipe) -> Result<(), Closing> {
    loop {
        let next = pipe
            .changed
            .until(|| match pipe.inbox.borrow_mut().pop_front() {
                Some(frame) => {
                    pipe.unanswered.set(pipe.unanswered.get() + 1);
                    Some(Some(frame))
                }
                None => pipe.read_ended.get().then_some(None),
            })
            .await;
        let Some(frame) = next else {
            pipe.dispatch_ended.set(true);
            pipe.changed.notify();
            return Ok(());
        };
        let (answer, permits) = match start(pipe, frame).await {
            Ok(started) => started,
            Err(closing) => {
                // What came before it is answered first; the request itself never is.
                pipe.context.closed.raise();
                pipe.changed
                    .until(|| (pipe.unanswered.get() <= 1).then_some(()))
                    .await;
                return Err(closing);
            }
        };
        if let Answer::Ready(response) = &answer {
            let bytes: usize = response.iter().map(Bytes::len).sum();
            pipe.unsent_bytes.set(pipe.unsent_bytes.get() + bytes);
        }
        pipe.slots.borrow_mut().push_back(Slot {
            answer,
            _permits: permits,
        });
        pipe.changed.notify();
    }
}

async fn start(pipe: &Pipe, frame: Frame) -> Result<(Answer, Vec<Permit>), Closing> {
    let Frame { content, permit } = frame;
    let arrived = Instant::now();
    let is_large = content.len() > SMALL_FRAME_BYTES;
    let mut reader = Reader::new(content);
    let header =
        decode_request_header(&mut reader).map_err(|error| Closing::Protocol(error.to_string()))?;
    let RequestHeader {
        api_key,
        api_version,
        correlation_id,
        client_id,
    } = header;
    pipe.shard.metrics.request(api_key);
    if !SERVED.accepts(api_key, api_version) {
        if api_key == ApiKey::ApiVersions {
            let response = api_versions::unsupported_version();
            return Ok((
                Answer::Ready(encode(&response, 0, correlation_id)?),
                vec![permit],
            ));
        }
        return Err(Closing::Protocol(format!(
            "the client asked for {api_key} in version {api_version}, which is not served; use a client that asks ApiVersions first"
        )));
    }
    let request = Request::decode(api_key, api_version, &mut reader).map_err(|error| {
        Closing::Protocol(format!(
            "a request for {api_key} in version {api_version} cannot be read: {error}"
        ))
    })?;
    drop(reader);
    let context = RequestContext {
        shard: pipe.shard.clone(),
        connection: pipe.context.clone(),
        api_key,
        version: api_version,
        client_id,
        held: Rc::default(),
    };
    let held = context.held.clone();
    let throttle = pipe.shard.quotas.throttle(&context);
    if !throttle.is_zero() {
        compio::time::sleep(throttle).await;
    }
    pipe.changed
        .until(|| (pipe.unsent_bytes.get() < UNSENT_BYTES_MAX).then_some(()))
        .await;
    let answer = match request {
        Request::Produce(mut request) => {
            let acknowledged = request.acks != 0;
            if is_large {
                // The response names the topics: that must not keep the batches in memory.
                for topic in &mut request.topic_data {
                    topic.name = topic.name.detached();
                }
            }
            let in_flight = produce::begin(&context, *request).await;
            let is_free = is_large && !in_flight.is_elsewhere();
            let mut permit = Some(permit).filter(|_| !is_free);
            let shard = context.shard.clone();
            let finish = async move {
                let response = in_flight.finish().await;
                shard.metrics.produce_latency.observe(arrived.elapsed());
                if is_large {
                    permit = None;
                }
                // Names in the response hold a small frame until here.
                let _held = permit;
                if acknowledged {
                    return encode(
                        &Response::Produce(Box::new(response)),
                        api_version,
                        correlation_id,
                    )
                    .map(Some);
                }
                match produce::first_error(&response) {
                    None => Ok(None),
                    Some(error) => Err(Closing::Unacknowledged(error)),
                }
            };
            return Ok((Answer::Coming(finish.boxed_local()), held.take()));
        }
        request => {
            // This request itself is the one that is not answered.
            pipe.changed
                .until(|| (pipe.unanswered.get() <= 1).then_some(()))
                .await;
            let response = handle(context, request).await?;
            if api_key == ApiKey::Fetch {
                pipe.shard.metrics.fetch_latency.observe(arrived.elapsed());
            }
            Answer::Ready(encode(&response, api_version, correlation_id)?)
        }
    };
    let mut permits = held.take();
    permits.push(permit);
    Ok((answer, permits))
}

/// Runs a handler. Only reads are dropped with their connection; anything else runs to its end.
async fn handle(context: RequestContext, request: Request) -> Result<Response, Closing> {
    if matches!(
        context.api_key,
        ApiKey::Fetch | ApiKey::ApiVersions | ApiKey::ListOffsets
    ) {
        return Ok(handlers::handle(&context, request).await);
    }
    let (api_key, shard) = (context.api_key, context.shard.clone());
    let work = async move { handlers::handle(&context, request).await };
    let work = contained("request", work).boxed_local();
    let response = ToItsEnd::new(work, move |rest| {
        // A shard that has closed its engine, or lost a task that it needs, runs nothing any more.
        if !shard.close.is_raised() && !shard.broken.is_raised() {
            spawn("request", rest.map(drop));
        }
    });
    let response = response.await;
    response.ok_or_else(|| {
        Closing::Protocol(format!(
            "the handler of {api_key} failed; the log above says how"
        ))
    })
}

fn encode(response: &Response, version: i16, correlation_id: i32) -> Result<Vec<Bytes>, Closing> {
    response.encode(version, correlation_id).map_err(|error| {
        let api_key = response.api_key();
        tracing::error!(%api_key, version, %error, "a response cannot be encoded: this is a defect, please report it");
        Closing::Protocol(format!("{}: the response to {api_key} cannot be encoded", ErrorCode::UNKNOWN_SERVER_ERROR))
    })
}
