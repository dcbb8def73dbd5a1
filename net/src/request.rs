//! Requests and responses of any API, and whole frames of them.

use crate::api::ApiKey;
use crate::codec::{DecodeError, EncodeError, Message, Reader, Writer};
use crate::header::{
    RequestHeader, decode_response_header, encode_request_header, encode_response_header,
};
use crate::messages::*;
use crate::{Bytes, Str};

include!(concat!(env!("OUT_DIR"), "/request.rs"));

impl Request {
    /// The pieces of a whole frame: size, header and body. Payloads are not copied.
    ///
    /// # Errors
    /// [`EncodeError`] when the version cannot carry what the request says.
    pub fn encode(
        &self,
        version: i16,
        correlation_id: i32,
        client_id: Option<&Str>,
    ) -> Result<Vec<Bytes>, EncodeError> {
        let mut writer = Writer::frame();
        let header = RequestHeader {
            api_key: self.api_key(),
            api_version: version,
            correlation_id,
            client_id: client_id.cloned(),
        };
        encode_request_header(&mut writer, &header)?;
        self.encode_body(&mut writer, version)?;
        writer.finish_frame()
    }
}

impl Response {
    /// The pieces of a whole frame: size, header and body. Payloads are not copied.
    ///
    /// # Errors
    /// [`EncodeError`] when the version cannot carry what the response says.
    pub fn encode(&self, version: i16, correlation_id: i32) -> Result<Vec<Bytes>, EncodeError> {
        let mut writer = Writer::frame();
        encode_response_header(&mut writer, self.api_key().spec(), version, correlation_id);
        self.encode_body(&mut writer, version)?;
        writer.finish_frame()
    }

    /// Decodes a frame's content, header included: the correlation id and the response.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not such a response.
    pub fn decode_frame(
        api_key: ApiKey,
        version: i16,
        frame: Bytes,
    ) -> Result<(i32, Response), DecodeError> {
        let mut reader = Reader::new(frame);
        let correlation_id = decode_response_header(&mut reader, api_key.spec(), version)?;
        let response = Response::decode(api_key, version, &mut reader)?;
        Ok((correlation_id, response))
    }
}
