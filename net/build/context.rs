//! What emitting any struct needs to know: how versions, names, types and defaults are said in Rust.

use crate::notation::{Field, Kind, Message, Struct, Versions};

/// A condition on `version`, and its contrary, as Rust expressions.
pub struct Condition {
    pub holds: String,
    pub fails: String,
}

/// The message a struct is being emitted for.
pub struct Context<'a> {
    pub message: &'a Message,
}

impl Context<'_> {
    /// The Rust expression that tells whether `version` is flexible.
    pub fn flexible(&self) -> String {
        match self.message.flexible {
            None => "false".into(),
            Some(from) if from <= self.message.versions.low => "true".into(),
            Some(from) => format!("version >= {from}"),
        }
    }

    pub fn is_flexible(&self, version: i16) -> bool {
        self.message.flexible.is_some_and(|from| version >= from)
    }

    pub fn versions(&self) -> impl Iterator<Item = i16> {
        self.message.versions.low..=self.message.versions.high
    }

    /// The condition that `version` is within `versions`, given that the message has it at all; `None` if that is
    /// always so.
    pub fn within(&self, versions: Versions) -> Option<Condition> {
        let all = self.message.versions;
        let low = (versions.low > all.low).then_some(versions.low);
        let high = (versions.high < all.high).then_some(versions.high);
        let condition = |holds: String, fails: String| Some(Condition { holds, fails });
        match (low, high) {
            (None, None) => None,
            (Some(low), None) => condition(format!("version >= {low}"), format!("version < {low}")),
            (None, Some(high)) => {
                condition(format!("version <= {high}"), format!("version > {high}"))
            }
            (Some(low), Some(high)) if low == high => {
                condition(format!("version == {low}"), format!("version != {low}"))
            }
            (Some(low), Some(high)) => condition(
                format!("({low}..={high}).contains(&version)"),
                format!("!({low}..={high}).contains(&version)"),
            ),
        }
    }
}

/// A field's name in Rust.
pub fn rust_name(name: &str) -> String {
    match name {
        "type" | "match" | "ref" | "move" | "self" | "where" => format!("r#{name}"),
        _ => name.to_owned(),
    }
}

/// Whether code mentions a variable: the name as a whole word that is neither a field's nor in quotes.
pub fn mentions(code: &str, variable: &str) -> bool {
    let inside = |character: char| character.is_alphanumeric() || character == '_';
    code.match_indices(variable).any(|(start, _)| {
        let before = code[..start].chars().next_back().unwrap_or(' ');
        let after = code[start + variable.len()..].chars().next().unwrap_or(' ');
        !inside(before) && before != '.' && before != '"' && !inside(after) && after != ':'
    })
}

/// A parameter's name, with an underscore unless the code mentions it.
pub fn parameter(code: &str, name: &str) -> String {
    if mentions(code, name) {
        name.to_owned()
    } else {
        format!("_{name}")
    }
}

/// The line that binds `flexible`, if the code mentions it.
pub fn bind_flexible(code: &str, context: &Context) -> String {
    if mentions(code, "flexible") {
        format!("        let flexible = {};\n", context.flexible())
    } else {
        String::new()
    }
}

/// The line that refuses versions which the message does not have; only the message itself does, not its parts.
pub fn check(structure: &Struct, context: &Context) -> &'static str {
    if structure.name == context.message.name {
        "        Self::check(version)?;\n"
    } else {
        ""
    }
}

/// The tagged fields of a struct, by ascending tag.
pub fn tagged(structure: &Struct) -> Vec<&Field> {
    let mut tagged: Vec<&Field> = structure
        .fields
        .iter()
        .filter(|field| field.tag.is_some())
        .collect();
    tagged.sort_by_key(|field| field.tag);
    tagged
}

/// The local variable a decoder reads a field into; it must not hide the decoder's own.
pub fn local_name(name: &str) -> String {
    match name {
        "version" | "reader" | "flexible" | "tag" => format!("{name}_field"),
        _ => rust_name(name),
    }
}

pub fn rust_type(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "bool".into(),
        Kind::I8 => "i8".into(),
        Kind::I16 => "i16".into(),
        Kind::U16 => "u16".into(),
        Kind::I32 => "i32".into(),
        Kind::U32 => "u32".into(),
        Kind::I64 => "i64".into(),
        Kind::F64 => "f64".into(),
        Kind::Uuid => "Uuid".into(),
        Kind::Error => "ErrorCode".into(),
        Kind::Str => "Str".into(),
        Kind::Bytes => "Bytes".into(),
        Kind::Records => "Records".into(),
        Kind::Struct(name) => name.clone(),
        Kind::Array(element) => format!("Vec<{}>", rust_type(element)),
    }
}

pub fn field_type(field: &Field) -> String {
    let inner = rust_type(&field.kind);
    if field.nullable.is_some() {
        format!("Option<{inner}>")
    } else {
        inner
    }
}

/// The value of a field that is absent, as a Rust expression.
pub fn default_of(field: &Field) -> String {
    let natural = match &field.kind {
        _ if field.nullable.is_some() => "None",
        Kind::Bool => "false",
        Kind::I8 | Kind::I16 | Kind::U16 | Kind::I32 | Kind::U32 | Kind::I64 => "0",
        Kind::F64 => "0.0",
        Kind::Uuid => "Uuid::ZERO",
        Kind::Error => "ErrorCode::NONE",
        Kind::Str => "Str::default()",
        Kind::Bytes => "Bytes::new()",
        Kind::Records => "Records::default()",
        Kind::Struct(name) => return format!("{name}::default()"),
        Kind::Array(_) => "Vec::new()",
    };
    let Some(written) = &field.default else {
        return natural.into();
    };
    let value = match &field.kind {
        Kind::Array(_) => "Vec::new()".to_owned(),
        Kind::Str => format!("Str::from_static({written})"),
        Kind::I64 if written == "9223372036854775807" => "i64::MAX".into(),
        Kind::I32 if written == "2147483647" => "i32::MAX".into(),
        Kind::I32 if written == "-2147483648" => "i32::MIN".into(),
        _ => written.clone(),
    };
    if field.nullable.is_some() {
        format!("Some({value})")
    } else {
        value
    }
}

/// A Rust condition: the field is not at its default.
pub fn is_set(field: &Field) -> String {
    let place = format!("self.{}", rust_name(&field.name));
    match (&field.kind, &field.default) {
        (_, None) if field.nullable.is_some() => format!("{place}.is_some()"),
        (Kind::Array(_), _) if field.nullable.is_some() => {
            format!("{place}.as_ref().is_none_or(|items| !items.is_empty())")
        }
        (Kind::Array(_) | Kind::Str | Kind::Bytes | Kind::Records, None) => {
            format!("!{place}.is_empty()")
        }
        (Kind::Array(_), Some(_)) => format!("!{place}.is_empty()"),
        (Kind::Bool, None) => place,
        (Kind::Bool, Some(written)) if written == "true" => format!("!{place}"),
        _ => format!("{place} != {}", default_of(field)),
    }
}

/// The fewest bytes a value of the kind takes on the wire in a version.
pub fn least_bytes(kind: &Kind, nullable: bool, version: i16, context: &Context) -> usize {
    let flexible = context.is_flexible(version);
    match kind {
        Kind::Bool | Kind::I8 => 1,
        Kind::I16 | Kind::U16 | Kind::Error => 2,
        Kind::I32 | Kind::U32 => 4,
        Kind::I64 | Kind::F64 => 8,
        Kind::Uuid => 16,
        Kind::Str => {
            if flexible {
                1
            } else {
                2
            }
        }
        Kind::Bytes | Kind::Records | Kind::Array(_) => {
            if flexible {
                1
            } else {
                4
            }
        }
        Kind::Struct(_) if nullable => 1,
        Kind::Struct(name) => context
            .message
            .structs
            .iter()
            .find(|candidate| candidate.name == *name)
            .map_or(0, |nested| least_bytes_of(nested, version, context)),
    }
}

pub fn least_bytes_of(structure: &Struct, version: i16, context: &Context) -> usize {
    let fields: usize = structure
        .fields
        .iter()
        .filter(|field| field.tag.is_none() && field.versions.contains(version))
        .map(|field| least_bytes(&field.kind, field.nullable.is_some(), version, context))
        .sum();
    fields + usize::from(context.is_flexible(version))
}

/// The fewest bytes an array element takes in any version.
pub fn least_element_bytes(kind: &Kind, context: &Context) -> usize {
    context
        .versions()
        .map(|version| least_bytes(kind, false, version, context))
        .min()
        .unwrap_or(0)
}
