//! The wire: requests as they arrive, responses as they leave.

use bytes::{Bytes, BytesMut};
use ringlog_engine::batch::Compression;
use ringlog_net::codec::Reader;
use ringlog_net::frame::FrameSplitter;
use ringlog_net::header::decode_request_header;
use ringlog_net::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopicResponse, PartitionData,
};
use ringlog_net::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData, TopicProduceResponse,
};
use ringlog_net::request::{Request, Response};
use ringlog_net::{Records, Str};

use crate::records::batch;

/// Cuts a frame out of what a socket gave and decodes the request in it.
pub struct Decode {
    stream: Bytes,
}

impl Decode {
    /// A produce request (version 12) of one 1 KiB record for each of `partitions` partitions.
    pub fn produce(partitions: i32) -> Self {
        let records = batch(1, 1024, Compression::None);
        let partition = |index| PartitionProduceData {
            index,
            records: Some(Records::from(records.clone())),
        };
        let topic = TopicProduceData {
            name: Str::from("measured"),
            partition_data: (0..partitions).map(partition).collect(),
            ..TopicProduceData::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![topic],
            ..ProduceRequest::default()
        };
        Self::of(&Request::Produce(Box::new(request)), 12)
    }

    /// A fetch (version 11, by name) of `partitions` partitions.
    pub fn fetch(partitions: i32) -> Self {
        let partition = |partition| FetchPartition {
            partition,
            partition_max_bytes: 1 << 20,
            ..FetchPartition::default()
        };
        let topic = FetchTopic {
            topic: Str::from("measured"),
            partitions: (0..partitions).map(partition).collect(),
            ..FetchTopic::default()
        };
        let request = FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 50 << 20,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        Self::of(&Request::Fetch(Box::new(request)), 11)
    }

    fn of(request: &Request, version: i16) -> Self {
        let frame = request
            .encode(version, 7, Some(&Str::from("perf")))
            .expect("what the version can carry");
        Self {
            stream: Bytes::from(frame.concat()),
        }
    }

    /// Decodes it, from bytes that have just been read.
    pub fn run(&self) -> Request {
        let mut splitter = FrameSplitter::new(100 << 20);
        splitter.replace_buffer(BytesMut::from(&self.stream[..]));
        let frame = splitter
            .next_frame()
            .expect("a frame")
            .expect("a whole frame");
        let mut reader = Reader::new(frame);
        let header = decode_request_header(&mut reader).expect("a header");
        Request::decode(header.api_key, header.api_version, &mut reader).expect("a request")
    }
}

/// Encodes a response.
pub struct Encode {
    response: Response,
    version: i16,
}

impl Encode {
    /// The answer to a produce request for `partitions` partitions.
    pub fn produce(partitions: i32) -> Self {
        let partition = |index| PartitionProduceResponse {
            index,
            base_offset: 12_345,
            ..PartitionProduceResponse::default()
        };
        let topic = TopicProduceResponse {
            name: Str::from("measured"),
            partition_responses: (0..partitions).map(partition).collect(),
            ..TopicProduceResponse::default()
        };
        let response = ProduceResponse {
            responses: vec![topic],
            ..ProduceResponse::default()
        };
        Self {
            response: Response::Produce(Box::new(response)),
            version: 12,
        }
    }

    /// The answer to a fetch of `partitions` partitions with a batch of 16 KiB each: payloads are handed on, not copied.
    pub fn fetch(partitions: i32) -> Self {
        let records = batch(16, 1024, Compression::None);
        let partition = |partition_index| PartitionData {
            partition_index,
            high_watermark: 99,
            records: Records::from(vec![records.clone()]),
            ..PartitionData::default()
        };
        let topic = FetchableTopicResponse {
            topic: Str::from("measured"),
            partitions: (0..partitions).map(partition).collect(),
            ..FetchableTopicResponse::default()
        };
        let response = FetchResponse {
            responses: vec![topic],
            ..FetchResponse::default()
        };
        Self {
            response: Response::Fetch(Box::new(response)),
            version: 11,
        }
    }

    /// The pieces of its frame.
    pub fn run(&self) -> Vec<Bytes> {
        self.response
            .encode(self.version, 7)
            .expect("what the version can carry")
    }
}
