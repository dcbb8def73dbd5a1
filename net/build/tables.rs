//! Emits what spans all messages: the API keys and their table, the request and response enums, the metadata records.

use std::fmt::Write;

use crate::notation::{File, Message, Role, Versions};

fn range(versions: Versions) -> String {
    format!(
        "VersionRange {{ low: {}, high: {} }}",
        versions.low, versions.high
    )
}

fn option(version: Option<i16>) -> String {
    version.map_or("None".into(), |version| format!("Some({version})"))
}

/// Emits the facts of one message: its name and versions.
pub fn top_level(out: &mut String, message: &Message) {
    let _ = writeln!(
        out,
        "impl TopLevel for {name} {{\n    const NAME: &'static str = \"{name}\";\n    const VERSIONS: VersionRange = {};\n    const FLEXIBLE_FROM: Option<i16> = {};\n}}\n",
        range(message.versions),
        option(message.flexible),
        name = message.name
    );
}

/// Each described API: its name, key and module, and its request.
fn each(apis: &[File]) -> impl Iterator<Item = (&str, i16, &str, &File, &Message)> {
    apis.iter().map(|file| {
        let Some(api) = &file.api else {
            panic!("{}.msg does not begin with an `api` line", file.stem);
        };
        let find = |role| {
            file.messages
                .iter()
                .find(|message| message.role == role)
                .unwrap_or_else(|| panic!("{}.msg lacks its {role:?}", file.stem))
        };
        let (request, response) = (find(Role::Request), find(Role::Response));
        assert!(
            request.versions == response.versions && request.flexible == response.flexible,
            "{}.msg: request and response have different versions",
            file.stem
        );
        (
            api.name.as_str(),
            api.key,
            file.stem.as_str(),
            file,
            request,
        )
    })
}

/// `api.rs`: the enum of API keys and the table of what is described.
pub fn api(apis: &[File]) -> String {
    let mut out = String::from(
        "/// The APIs that are described here, by Kafka's names.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]\n#[repr(i16)]\npub enum ApiKey {\n",
    );
    for (name, key, stem, ..) in each(apis) {
        let _ = writeln!(
            out,
            "    /// [`crate::messages::{stem}`]\n    {name} = {key},"
        );
    }
    out.push_str("}\n\nimpl ApiKey {\n    /// The API with this number on the wire, if it is described here.\n    pub const fn from_i16(key: i16) -> Option<ApiKey> {\n        Some(match key {\n");
    for (name, key, ..) in each(apis) {
        let _ = writeln!(out, "            {key} => ApiKey::{name},");
    }
    out.push_str("            _ => return None,\n        })\n    }\n\n    /// The API's row of [`TABLE`].\n    pub fn spec(self) -> &'static ApiSpec {\n        match self {\n");
    for (index, (name, ..)) in each(apis).enumerate() {
        let _ = writeln!(out, "            ApiKey::{name} => &TABLE[{index}],");
    }
    out.push_str("        }\n    }\n}\n\n/// Every API that is described here, by ascending key.\npub static TABLE: &[ApiSpec] = &[\n");
    for (name, _, _, file, request) in each(apis) {
        let advertised = file
            .api
            .as_ref()
            .and_then(|api| api.advertised)
            .unwrap_or(request.versions);
        let _ = writeln!(
            out,
            "    ApiSpec {{ key: ApiKey::{name}, name: \"{name}\", advertised: {}, accepted: {}, flexible_from: {} }},",
            range(advertised),
            range(request.versions),
            option(request.flexible)
        );
    }
    out.push_str("];\n");
    out
}

/// `request.rs`: the enums over all requests and all responses.
pub fn request(apis: &[File]) -> String {
    let mut out = String::new();
    for kind in ["Request", "Response"] {
        let lower = kind.to_lowercase();
        let _ = writeln!(
            out,
            "/// A {lower} of any API that is described here.\n#[derive(Clone, Debug, PartialEq)]\npub enum {kind} {{"
        );
        for (name, _, stem, ..) in each(apis) {
            let _ = writeln!(
                out,
                "    /// [`{stem}`]\n    {name}(Box<{stem}::{name}{kind}>),"
            );
        }
        let _ = writeln!(
            out,
            "}}\n\nimpl {kind} {{\n    /// Decodes the body that follows the header. What may follow the body is left unread.\n    pub fn decode(api_key: ApiKey, version: i16, reader: &mut Reader) -> Result<{kind}, DecodeError> {{\n        Ok(match api_key {{"
        );
        for (name, _, stem, ..) in each(apis) {
            let _ = writeln!(
                out,
                "            ApiKey::{name} => {kind}::{name}(Box::new({stem}::{name}{kind}::decode(reader, version)?)),"
            );
        }
        let _ = writeln!(
            out,
            "        }})\n    }}\n\n    /// The API this {lower} belongs to.\n    pub fn api_key(&self) -> ApiKey {{\n        match self {{"
        );
        for (name, ..) in each(apis) {
            let _ = writeln!(out, "            {kind}::{name}(_) => ApiKey::{name},");
        }
        out.push_str("        }\n    }\n\n    /// Writes the body alone.\n    pub fn encode_body(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {\n        match self {\n");
        for (name, ..) in each(apis) {
            let _ = writeln!(
                out,
                "            {kind}::{name}(body) => body.encode(writer, version),"
            );
        }
        out.push_str("        }\n    }\n}\n\n");
        for (name, _, stem, ..) in each(apis) {
            let _ = writeln!(
                out,
                "impl From<{stem}::{name}{kind}> for {kind} {{\n    fn from(body: {stem}::{name}{kind}) -> {kind} {{\n        {kind}::{name}(Box::new(body))\n    }}\n}}"
            );
        }
        let _ = writeln!(
            out,
            "\n#[cfg(feature = \"arbitrary\")]\nimpl {kind} {{\n    /// Makes up a {lower} that the version can carry.\n    pub fn arbitrary(api_key: ApiKey, source: &mut crate::arbitrary::Source<'_>, version: i16) -> {kind} {{\n        use crate::arbitrary::ArbitraryMessage;\n        match api_key {{"
        );
        for (name, _, stem, ..) in each(apis) {
            let _ = writeln!(
                out,
                "            ApiKey::{name} => {stem}::{name}{kind}::arbitrary(source, version).into(),"
            );
        }
        out.push_str("        }\n    }\n}\n\n");
    }
    out
}

/// The enum over all records of the metadata log.
pub fn metadata_record(files: &[File]) -> String {
    let records: Vec<(&Message, u32)> = files
        .iter()
        .flat_map(|file| &file.messages)
        .filter_map(|message| match message.role {
            Role::Record(key) => Some((message, key)),
            _ => None,
        })
        .collect();
    let mut out = String::from(
        "/// A record of the cluster metadata log.\n#[derive(Clone, Debug, PartialEq)]\npub enum MetadataRecord {\n",
    );
    for (record, key) in &records {
        let _ = writeln!(
            out,
            "    /// [`{name}`], key {key}.\n    {short}({name}),",
            name = record.name,
            short = short(record)
        );
    }
    out.push_str("}\n\nimpl MetadataRecord {\n    /// The record's name, key, and highest version.\n    pub fn facts(&self) -> (&'static str, u32, i16) {\n        match self {\n");
    for (record, key) in &records {
        let _ = writeln!(
            out,
            "            MetadataRecord::{}(_) => (\"{}\", {key}, {}),",
            short(record),
            record.name,
            record.versions.high
        );
    }
    out.push_str("        }\n    }\n\n    fn encode_body(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {\n        match self {\n");
    for (record, _) in &records {
        let _ = writeln!(
            out,
            "            MetadataRecord::{}(record) => record.encode(writer, version),",
            short(record)
        );
    }
    out.push_str("        }\n    }\n\n    fn decode_body(key: u32, version: i16, reader: &mut Reader) -> Result<Option<MetadataRecord>, DecodeError> {\n        Ok(Some(match key {\n");
    for (record, key) in &records {
        let _ = writeln!(
            out,
            "            {key} => MetadataRecord::{}({}::decode(reader, version)?),",
            short(record),
            record.name
        );
    }
    out.push_str("            _ => return Ok(None),\n        }))\n    }\n\n    /// Every record's key and versions.\n    pub const KEYS: &'static [(u32, VersionRange)] = &[\n");
    for (record, key) in &records {
        let _ = writeln!(out, "        ({key}, {}),", range(record.versions));
    }
    out.push_str("    ];\n}\n\n");
    for (record, _) in &records {
        let _ = writeln!(
            out,
            "impl From<{name}> for MetadataRecord {{\n    fn from(record: {name}) -> MetadataRecord {{\n        MetadataRecord::{}(record)\n    }}\n}}\n",
            short(record),
            name = record.name
        );
    }
    out.push_str("#[cfg(feature = \"arbitrary\")]\nimpl MetadataRecord {\n    /// Makes up a record that the version can carry.\n    pub fn arbitrary(key: u32, source: &mut crate::arbitrary::Source<'_>, version: i16) -> Option<MetadataRecord> {\n        use crate::arbitrary::ArbitraryMessage;\n        Some(match key {\n");
    for (record, key) in &records {
        let _ = writeln!(
            out,
            "            {key} => {}::arbitrary(source, version).into(),",
            record.name
        );
    }
    out.push_str("            _ => return None,\n        })\n    }\n}\n");
    out
}

fn short(record: &Message) -> &str {
    record.name.strip_suffix("Record").unwrap_or(&record.name)
}
