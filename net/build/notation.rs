//! The reader of the message notation of `messages/README.md`.
//!
//! Turns one `.msg` file into plain data and rejects what the notation does not allow, always with file and line.
//! It knows nothing of Rust code: that is `emit.rs`.

use std::fmt;

/// An inclusive range of message versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub low: i16,
    pub high: i16,
}

impl Versions {
    pub const ALL: Versions = Versions {
        low: 0,
        high: i16::MAX,
    };

    pub fn contains(self, version: i16) -> bool {
        self.low <= version && version <= self.high
    }

    /// `3-12`, `3+` or `3`.
    fn parse(text: &str) -> Option<Versions> {
        let number = |text: &str| text.parse::<i16>().ok().filter(|number| *number >= 0);
        let versions = if let Some(low) = text.strip_suffix('+') {
            Versions {
                low: number(low)?,
                high: i16::MAX,
            }
        } else if let Some((low, high)) = text.split_once('-') {
            Versions {
                low: number(low)?,
                high: number(high)?,
            }
        } else {
            let only = number(text)?;
            Versions {
                low: only,
                high: only,
            }
        };
        (versions.low <= versions.high).then_some(versions)
    }
}

/// What a field holds, leaving aside whether it may be null.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Bool,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    F64,
    Uuid,
    Error,
    Str,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Kind>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub docs: Vec<String>,
    pub name: String,
    pub kind: Kind,
    pub versions: Versions,
    pub nullable: Option<Versions>,
    /// As written after `=`; absent means the natural one of the kind, null for what may be null.
    pub default: Option<String>,
    pub tag: Option<u32>,
    pub ignorable: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Struct {
    pub docs: Vec<String>,
    pub name: String,
    pub fields: Vec<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Request,
    Response,
    /// A record of the cluster metadata log, with its key.
    Record(u32),
    /// A structure that is found in record keys and values, without a key of its own.
    Data,
}

/// A request, a response, a record, or a stored structure.
#[derive(Debug)]
pub struct Message {
    pub role: Role,
    pub name: String,
    pub versions: Versions,
    pub flexible: Option<i16>,
    /// The nested structures first, the message itself last.
    pub structs: Vec<Struct>,
}

#[derive(Debug)]
pub struct Api {
    pub name: String,
    pub key: i16,
    pub advertised: Option<Versions>,
}

/// What one `.msg` file says.
#[derive(Debug)]
pub struct File {
    pub stem: String,
    pub docs: Vec<String>,
    pub api: Option<Api>,
    pub messages: Vec<Message>,
}

#[derive(Debug)]
pub struct NotationError {
    stem: String,
    line: usize,
    problem: String,
}

impl fmt::Display for NotationError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.msg:{}: {}", self.stem, self.line, self.problem)
    }
}

/// An open `{`: the struct being read, and for nested ones the field that holds it.
struct Open {
    structure: Struct,
    holder: Option<Field>,
}

/// Reads a whole file.
pub fn parse(stem: &str, text: &str) -> Result<File, NotationError> {
    let mut file = File {
        stem: stem.to_owned(),
        docs: Vec::new(),
        api: None,
        messages: Vec::new(),
    };
    let mut docs: Vec<String> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let fail = |problem: String| NotationError {
            stem: stem.to_owned(),
            line: index + 1,
            problem,
        };
        let line = line.trim();
        if let Some(doc) = line.strip_prefix("##") {
            docs.push(doc.trim().to_owned());
            continue;
        }
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if line == "}" {
            let closed = open.pop().ok_or_else(|| fail("a `}` too many".into()))?;
            close(closed, &mut open, &mut file).map_err(fail)?;
            continue;
        }
        if open.is_empty() {
            if line.starts_with("api ") {
                file.api = Some(api(line).map_err(fail)?);
                file.docs = std::mem::take(&mut docs);
            } else {
                let name = file.api.as_ref().map(|api| api.name.as_str());
                let (message, structure) =
                    message(line, name, std::mem::take(&mut docs)).map_err(fail)?;
                file.messages.push(message);
                open.push(Open {
                    structure,
                    holder: None,
                });
            }
            continue;
        }
        if let Some(rest) = line.strip_prefix("struct ") {
            let name = rest.trim_end_matches('{').trim();
            open.push(Open {
                structure: Struct {
                    docs: std::mem::take(&mut docs),
                    name: name.to_owned(),
                    fields: Vec::new(),
                },
                holder: None,
            });
            continue;
        }
        let nested = line.ends_with('{');
        let field =
            field(line.trim_end_matches('{').trim(), std::mem::take(&mut docs)).map_err(fail)?;
        if nested {
            let name = struct_name(&field.kind)
                .ok_or_else(|| fail("only a struct or an array of structs opens a `{`".into()))?;
            open.push(Open {
                structure: Struct {
                    docs: Vec::new(),
                    name: name.to_owned(),
                    fields: Vec::new(),
                },
                holder: Some(field),
            });
        } else if let Some(parent) = open.last_mut() {
            parent.structure.fields.push(field);
        }
    }
    if let Some(left) = open.first() {
        return Err(NotationError {
            stem: stem.to_owned(),
            line: text.lines().count(),
            problem: format!("`{}` is never closed", left.structure.name),
        });
    }
    Ok(file)
}

/// The struct a kind refers to, directly or as an array's element.
pub fn struct_name(kind: &Kind) -> Option<&str> {
    match kind {
        Kind::Struct(name) => Some(name),
        Kind::Array(element) => struct_name(element),
        _ => None,
    }
}

fn close(closed: Open, open: &mut [Open], file: &mut File) -> Result<(), String> {
    if let Some(parent) = open.last_mut() {
        parent.structure.fields.extend(closed.holder);
    }
    let message = file
        .messages
        .last_mut()
        .ok_or("a struct outside of a message")?;
    // The same struct written twice in one message is one struct.
    if let Some(same) = message
        .structs
        .iter()
        .find(|known| known.name == closed.structure.name)
    {
        return if same.fields == closed.structure.fields {
            Ok(())
        } else {
            Err(format!(
                "`{}` is described twice, differently",
                closed.structure.name
            ))
        };
    }
    message.structs.push(closed.structure);
    Ok(())
}

fn api(line: &str) -> Result<Api, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, key, advertised) = match words[..] {
        ["api", name, "key", key] => (name, key, None),
        ["api", name, "key", key, "advertise", versions] => (name, key, Some(versions)),
        _ => return Err("expected `api NAME key NUMBER [advertise VERSIONS]`".into()),
    };
    Ok(Api {
        name: name.to_owned(),
        key: key.parse().map_err(|_| format!("bad key `{key}`"))?,
        advertised: advertised
            .map(|text| Versions::parse(text).ok_or(format!("bad versions `{text}`")))
            .transpose()?,
    })
}

fn message(line: &str, api: Option<&str>, docs: Vec<String>) -> Result<(Message, Struct), String> {
    let words: Vec<&str> = line
        .strip_suffix('{')
        .ok_or("expected a message that opens with `{`")?
        .split_whitespace()
        .collect();
    let api = api.unwrap_or_default();
    let (role, name, rest) = match &words[..] {
        ["request", rest @ ..] => (Role::Request, format!("{api}Request"), rest),
        ["response", rest @ ..] => (Role::Response, format!("{api}Response"), rest),
        ["record", name, "key", key, rest @ ..] => (
            Role::Record(key.parse().map_err(|_| format!("bad key `{key}`"))?),
            (*name).to_owned(),
            rest,
        ),
        ["data", name, rest @ ..] => (Role::Data, (*name).to_owned(), rest),
        _ => return Err("expected `request`, `response`, `record` or `data`".into()),
    };
    let (versions, flexible) = match rest {
        [versions] => (versions, None),
        [versions, "flexible", from] => (versions, Some(from)),
        _ => return Err("expected `VERSIONS [flexible VERSION+]`".into()),
    };
    let versions = Versions::parse(versions).ok_or(format!("bad versions `{versions}`"))?;
    let flexible = match flexible {
        None => None,
        Some(text) => Some(
            Versions::parse(text)
                .ok_or(format!("bad versions `{text}`"))?
                .low,
        ),
    };
    let structure = Struct {
        docs,
        name: name.clone(),
        fields: Vec::new(),
    };
    Ok((
        Message {
            role,
            name,
            versions,
            flexible,
            structs: Vec::new(),
        },
        structure,
    ))
}

fn field(line: &str, docs: Vec<String>) -> Result<Field, String> {
    let (name, rest) = line
        .split_once(':')
        .ok_or_else(|| format!("expected `name: type …`, found `{line}`"))?;
    let mut words = rest.split_whitespace().peekable();
    let written = words.next().ok_or("a field needs a type")?;
    let (kind, nullable) = match written.split_once('?') {
        None => (written, None),
        Some((kind, "")) => (kind, Some(Versions::ALL)),
        Some((kind, versions)) => (
            kind,
            Some(Versions::parse(versions).ok_or(format!("bad versions `{versions}`"))?),
        ),
    };
    let mut field = Field {
        docs,
        name: name.trim().to_owned(),
        kind: kind_of(kind),
        versions: Versions::ALL,
        nullable,
        default: None,
        tag: None,
        ignorable: false,
    };
    if let Some(versions) = words.peek().and_then(|word| Versions::parse(word)) {
        field.versions = versions;
        words.next();
    }
    while let Some(word) = words.next() {
        match word {
            "=" => field.default = Some(words.next().ok_or("`=` without a value")?.to_owned()),
            "tag" => {
                field.tag = Some(
                    words
                        .next()
                        .and_then(|tag| tag.parse().ok())
                        .ok_or("`tag` without a number")?,
                );
            }
            "ignorable" => field.ignorable = true,
            other => return Err(format!("`{other}` means nothing here")),
        }
    }
    Ok(field)
}

fn kind_of(text: &str) -> Kind {
    if let Some(element) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        return Kind::Array(Box::new(kind_of(element)));
    }
    match text {
        "bool" => Kind::Bool,
        "i8" => Kind::I8,
        "i16" => Kind::I16,
        "u16" => Kind::U16,
        "i32" => Kind::I32,
        "u32" => Kind::U32,
        "i64" => Kind::I64,
        "f64" => Kind::F64,
        "uuid" => Kind::Uuid,
        "error" => Kind::Error,
        "string" => Kind::Str,
        "bytes" => Kind::Bytes,
        "records" => Kind::Records,
        name => Kind::Struct(name.to_owned()),
    }
}
