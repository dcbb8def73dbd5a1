//! Everything that can be encoded, enumerated: for tests that go over all messages and versions.

use super::Source;
use crate::api::TABLE;
use crate::codec::{DecodeError, EncodeError, Reader, Writer};
use crate::metadata::MetadataRecord;
use crate::request::{Request, Response};
use crate::{ApiKey, Bytes};

/// A kind of message in one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The body of a request.
    Request(ApiKey, i16),
    /// The body of a response.
    Response(ApiKey, i16),
    /// The value of a record of the metadata log, by its key.
    Record(u32, i16),
}

/// A value of some [`Form`].
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The body of a request.
    Request(Request),
    /// The body of a response.
    Response(Response),
    /// A record of the metadata log.
    Record(MetadataRecord),
}

impl Form {
    /// Every form there is.
    pub fn all() -> Vec<Form> {
        let mut forms = Vec::new();
        for spec in TABLE {
            for version in spec.accepted.iter() {
                forms.push(Form::Request(spec.key, version));
                forms.push(Form::Response(spec.key, version));
            }
        }
        for (key, versions) in MetadataRecord::KEYS {
            forms.extend(versions.iter().map(|version| Form::Record(*key, version)));
        }
        forms
    }

    /// A value that is made of `seed`; `None` only for a record key that does not exist.
    pub fn make_up(self, seed: &[u8]) -> Option<Body> {
        let mut source = Source::new(seed);
        Some(match self {
            Form::Request(key, version) => {
                Body::Request(Request::arbitrary(key, &mut source, version))
            }
            Form::Response(key, version) => {
                Body::Response(Response::arbitrary(key, &mut source, version))
            }
            Form::Record(key, version) => {
                Body::Record(MetadataRecord::arbitrary(key, &mut source, version)?)
            }
        })
    }

    /// The bytes of a value in this form's version.
    ///
    /// # Errors
    /// [`EncodeError`] when the version cannot carry the value.
    pub fn encode(self, body: &Body) -> Result<Bytes, EncodeError> {
        let (Form::Request(_, version) | Form::Response(_, version) | Form::Record(_, version)) =
            self;
        let mut writer = Writer::new();
        match body {
            Body::Request(request) => request.encode_body(&mut writer, version)?,
            Body::Response(response) => response.encode_body(&mut writer, version)?,
            Body::Record(record) => return record.encode_version(version),
        }
        Ok(writer.into_bytes())
    }

    /// The value in `bytes`, all of which must belong to it.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not a value of this form.
    pub fn decode(self, bytes: Bytes) -> Result<Body, DecodeError> {
        let mut reader = Reader::new(bytes.clone());
        let body = match self {
            Form::Request(key, version) => {
                Body::Request(Request::decode(key, version, &mut reader)?)
            }
            Form::Response(key, version) => {
                Body::Response(Response::decode(key, version, &mut reader)?)
            }
            Form::Record(..) => return MetadataRecord::decode(bytes).map(Body::Record),
        };
        reader.finish()?;
        Ok(body)
    }
}
