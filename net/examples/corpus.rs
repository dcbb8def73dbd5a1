//! Prints made-up messages of every kind and version, one a line: kind, key or name, version, and the bytes in hexadecimal.
//!
//! `net/kafka_agreement/run` pipes them into Apache Kafka's own classes. The optional argument is the number of rounds.

use std::io::{BufWriter, Write};

use ringlog_net::Bytes;
use ringlog_net::arbitrary::{ArbitraryMessage, Form, Numbers, Source};
use ringlog_net::codec::{EncodeError, TopLevel, Writer};
use ringlog_net::metadata::{
    KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord,
    VotersRecord,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 20,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut numbers = Numbers::new(1);
    for _ in 0..rounds {
        for form in Form::all() {
            let length = numbers.below(700);
            let Some(body) = form.make_up(&numbers.bytes(length)) else {
                continue;
            };
            let bytes = form.encode(&body)?;
            match form {
                Form::Request(key, version) => {
                    line(
                        &mut out,
                        "request",
                        &(key as i16).to_string(),
                        version,
                        &bytes,
                    )?;
                }
                Form::Response(key, version) => {
                    line(
                        &mut out,
                        "response",
                        &(key as i16).to_string(),
                        version,
                        &bytes,
                    )?;
                }
                Form::Record(key, version) => {
                    line(&mut out, "record", &key.to_string(), version, &bytes)?;
                }
            }
        }
        data::<LeaderChangeMessage>(&mut out, &mut numbers)?;
        data::<SnapshotHeaderRecord>(&mut out, &mut numbers)?;
        data::<SnapshotFooterRecord>(&mut out, &mut numbers)?;
        data::<KRaftVersionRecord>(&mut out, &mut numbers)?;
        data::<VotersRecord>(&mut out, &mut numbers)?;
    }
    out.flush()?;
    Ok(())
}

fn data<M: TopLevel + ArbitraryMessage>(
    out: &mut impl Write,
    numbers: &mut Numbers,
) -> Result<(), Box<dyn std::error::Error>> {
    for version in M::VERSIONS.iter() {
        let length = numbers.below(300);
        let message = M::arbitrary(&mut Source::new(&numbers.bytes(length)), version);
        let bytes = encoded(&message, version)?;
        line(out, "data", M::NAME, version, &bytes)?;
    }
    Ok(())
}

fn encoded<M: TopLevel>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version)?;
    Ok(writer.into_bytes())
}

fn line(
    out: &mut impl Write,
    kind: &str,
    name: &str,
    version: i16,
    bytes: &[u8],
) -> std::io::Result<()> {
    let hexadecimal: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(out, "{kind} {name} {version} {hexadecimal}")
}
