//! From described structs to Rust: the type, its default, its decoder and its encoder.
//!
//! What is emitted is meant to be read: `cargo doc` shows it, and it is formatted well enough to follow in a debugger.

use std::fmt::Write;

use crate::notation::{Field, Kind, Message, Struct, Versions};

/// The message a struct is being emitted for.
pub struct Context<'a> {
    pub message: &'a Message,
}

impl Context<'_> {
    /// The Rust expression that tells whether `version` is flexible.
    fn flexible(&self) -> String {
        match self.message.flexible {
            None => "false".into(),
            Some(from) if from <= self.message.versions.low => "true".into(),
            Some(from) => format!("version >= {from}"),
        }
    }

    fn is_flexible(&self, version: i16) -> bool {
        self.message.flexible.is_some_and(|from| version >= from)
    }

    fn versions(&self) -> impl Iterator<Item = i16> {
        self.message.versions.low..=self.message.versions.high
    }

    /// The Rust expression that tells whether `version` is within `versions`, given that the message has it at all.
    /// `None`: always. `Some("false")`: never.
    pub fn within(&self, versions: Versions) -> Option<String> {
        let all = self.message.versions;
        let low = (versions.low > all.low).then_some(versions.low);
        let high = (versions.high < all.high).then_some(versions.high);
        match (low, high) {
            (None, None) => None,
            (Some(low), None) => Some(format!("version >= {low}")),
            (None, Some(high)) => Some(format!("version <= {high}")),
            (Some(low), Some(high)) if low == high => Some(format!("version == {low}")),
            (Some(low), Some(high)) => Some(format!("({low}..={high}).contains(&version)")),
        }
    }
}

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

/// The local variable a decoder reads a field into; it must not hide the decoder's own.
fn local_name(name: &str) -> String {
    match name {
        "version" | "reader" | "flexible" | "tag" => format!("{name}_field"),
        _ => rust_name(name),
    }
}

fn rust_type(kind: &Kind) -> String {
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

fn field_type(field: &Field) -> String {
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
fn is_set(field: &Field) -> String {
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
fn least_bytes(kind: &Kind, nullable: bool, version: i16, context: &Context) -> usize {
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

fn least_bytes_of(structure: &Struct, version: i16, context: &Context) -> usize {
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

/// Emits one struct with everything that belongs to it.
pub fn structure(out: &mut String, structure: &Struct, context: &Context) {
    definition(out, structure, context);
    default(out, structure);
    let name = &structure.name;
    let _ = writeln!(out, "impl Message for {name} {{");
    decode(out, structure, context);
    encode(out, structure, context);
    out.push_str("}\n\n");
}

fn range_words(versions: Versions, all: Versions) -> String {
    let low = versions.low.max(all.low);
    let high = versions.high.min(all.high);
    if low == high {
        format!("version {low}")
    } else {
        format!("versions {low} to {high}")
    }
}

fn definition(out: &mut String, structure: &Struct, context: &Context) {
    let name = &structure.name;
    for doc in &structure.docs {
        let _ = writeln!(out, "/// {doc}");
    }
    if structure.docs.is_empty() {
        let of = &context.message.name;
        if name == of {
            let versions = range_words(context.message.versions, context.message.versions);
            let _ = writeln!(out, "/// The message `{name}`, {versions}.");
        } else {
            let _ = writeln!(out, "/// Part of [`{of}`].");
        }
    }
    let derives = if structure.fields.iter().any(|field| field.default.is_some()) {
        "Clone, Debug, PartialEq"
    } else {
        "Clone, Debug, Default, PartialEq"
    };
    let _ = writeln!(out, "#[derive({derives})]\npub struct {name} {{");
    for field in &structure.fields {
        for doc in &field.docs {
            let _ = writeln!(out, "    /// {doc}");
        }
        let mut facts = range_words(field.versions, context.message.versions);
        facts[..1].make_ascii_uppercase();
        if let Some(tag) = field.tag {
            let _ = write!(facts, ", tagged field {tag}");
        }
        if let Some(written) = &field.default {
            let _ = write!(facts, ", default {written}");
        }
        if !field.docs.is_empty() {
            out.push_str("    ///\n");
        }
        let _ = writeln!(out, "    /// {facts}.");
        let _ = writeln!(
            out,
            "    pub {}: {},",
            rust_name(&field.name),
            field_type(field)
        );
    }
    out.push_str("}\n\n");
}

fn default(out: &mut String, structure: &Struct) {
    if structure.fields.iter().all(|field| field.default.is_none()) {
        return;
    }
    let name = &structure.name;
    let _ = writeln!(
        out,
        "impl Default for {name} {{\n    fn default() -> Self {{\n        {name} {{"
    );
    for field in &structure.fields {
        let _ = writeln!(
            out,
            "            {}: {},",
            rust_name(&field.name),
            default_of(field)
        );
    }
    out.push_str("        }\n    }\n}\n\n");
}

/// The expression that reads one value, `?` included.
fn read(kind: &Kind, reader: &str, flexible: &str, context: &Context) -> String {
    match kind {
        Kind::Bool => format!("{reader}.bool()?"),
        Kind::I8 => format!("{reader}.i8()?"),
        Kind::I16 => format!("{reader}.i16()?"),
        Kind::U16 => format!("{reader}.u16()?"),
        Kind::I32 => format!("{reader}.i32()?"),
        Kind::U32 => format!("{reader}.u32()?"),
        Kind::I64 => format!("{reader}.i64()?"),
        Kind::F64 => format!("{reader}.f64()?"),
        Kind::Uuid => format!("{reader}.uuid()?"),
        Kind::Error => format!("{reader}.error_code()?"),
        Kind::Str => format!("{reader}.string({flexible})?"),
        Kind::Bytes => format!("{reader}.bytes({flexible})?"),
        Kind::Records => format!("{reader}.records({flexible})?"),
        Kind::Struct(name) => format!("{name}::decode({reader}, version)?"),
        Kind::Array(element) => format!(
            "{reader}.array({flexible}, {}, {})?",
            least_element_bytes(element, context),
            element_reader(element, flexible)
        ),
    }
}

fn element_reader(element: &Kind, flexible: &str) -> String {
    match element {
        Kind::Struct(name) => format!("|reader| {name}::decode(reader, version)"),
        Kind::Str => format!("|reader| reader.string({flexible})"),
        Kind::Bytes => format!("|reader| reader.bytes({flexible})"),
        Kind::Error => "Reader::error_code".into(),
        Kind::Array(_) | Kind::Records => panic!("arrays of {element:?} are not in the notation"),
        simple => format!("Reader::{}", rust_type(simple).to_lowercase()),
    }
}

fn read_field(field: &Field, reader: &str, flexible: &str, context: &Context) -> String {
    let Some(nullable) = field.nullable else {
        return read(&field.kind, reader, flexible, context);
    };
    let nullable = context.within(nullable).unwrap_or("true".into());
    match &field.kind {
        Kind::Str => format!("{reader}.nullable_string({flexible}, {nullable})?"),
        Kind::Bytes => format!("{reader}.nullable_bytes({flexible}, {nullable})?"),
        Kind::Records => format!("{reader}.nullable_records({flexible}, {nullable})?"),
        Kind::Struct(name) => format!(
            "{reader}.nullable_struct({nullable}, |reader| {name}::decode(reader, version))?"
        ),
        Kind::Array(element) => format!(
            "{reader}.nullable_array({flexible}, {nullable}, {}, {})?",
            least_element_bytes(element, context),
            element_reader(element, flexible)
        ),
        other => panic!("{other:?} cannot be null: {}", field.name),
    }
}

fn decode(out: &mut String, structure: &Struct, context: &Context) {
    let flexible = context.flexible();
    let mut body = String::new();
    for field in structure.fields.iter().filter(|field| field.tag.is_none()) {
        let name = local_name(&field.name);
        let value = read_field(field, "reader", "flexible", context);
        match context.within(field.versions) {
            None => {
                let _ = writeln!(body, "        let {name} = {value};");
            }
            Some(within) => {
                let absent = default_of(field);
                let _ = writeln!(
                    body,
                    "        let {name} = if {within} {{ {value} }} else {{ {absent} }};"
                );
            }
        }
    }
    if context.message.flexible.is_some() {
        let tagged: Vec<&Field> = structure
            .fields
            .iter()
            .filter(|field| field.tag.is_some())
            .collect();
        for field in &tagged {
            let _ = writeln!(
                body,
                "        let mut {} = {};",
                local_name(&field.name),
                default_of(field)
            );
        }
        let mut section = String::new();
        if tagged.is_empty() {
            section.push_str("reader.skip_tagged_fields()?;");
        } else {
            section.push_str("reader.tagged_fields(|tag, reader| {\n            match tag {\n");
            for field in tagged {
                let tag = field.tag.unwrap_or_default();
                let guard = context
                    .within(field.versions)
                    .filter(|within| *within != flexible)
                    .map(|within| format!(" if {within}"))
                    .unwrap_or_default();
                let _ = writeln!(
                    section,
                    "                {tag}{guard} => {} = {},",
                    local_name(&field.name),
                    read_field(field, "reader", "flexible", context)
                );
            }
            section.push_str("                _ => return Ok(false),\n            }\n            Ok(true)\n        })?;");
        }
        if flexible == "true" {
            let _ = writeln!(body, "        {section}");
        } else {
            let _ = writeln!(
                body,
                "        if flexible {{\n        {section}\n        }}"
            );
        }
    }
    let reader = if mentions(&body, "reader") {
        "reader"
    } else {
        "_reader"
    };
    let bind = if mentions(&body, "flexible") {
        format!("        let flexible = {flexible};\n")
    } else {
        String::new()
    };
    let check = if structure.name == context.message.name {
        "        Self::check(version)?;\n"
    } else {
        ""
    };
    let version = if mentions(&(bind.clone() + &body + check), "version") {
        "version"
    } else {
        "_version"
    };
    let _ = writeln!(
        out,
        "    fn decode({reader}: &mut Reader, {version}: i16) -> Result<Self, DecodeError> {{\n{check}{bind}{body}        Ok({} {{",
        structure.name
    );
    for field in &structure.fields {
        let (name, local) = (rust_name(&field.name), local_name(&field.name));
        if name == local {
            let _ = writeln!(out, "            {name},");
        } else {
            let _ = writeln!(out, "            {name}: {local},");
        }
    }
    out.push_str("        })\n    }\n\n");
}

/// The statement that writes one value found at `place`; `by_reference` when the place already is a reference.
fn write_value(kind: &Kind, place: &str, by_reference: bool) -> String {
    let (value, reference) = if by_reference {
        (format!("*{place}"), place.to_owned())
    } else {
        (place.to_owned(), format!("&{place}"))
    };
    match kind {
        Kind::Bool => format!("writer.bool({value});"),
        Kind::I8 => format!("writer.i8({value});"),
        Kind::I16 => format!("writer.i16({value});"),
        Kind::U16 => format!("writer.u16({value});"),
        Kind::I32 => format!("writer.i32({value});"),
        Kind::U32 => format!("writer.u32({value});"),
        Kind::I64 => format!("writer.i64({value});"),
        Kind::F64 => format!("writer.f64({value});"),
        Kind::Uuid => format!("writer.uuid({value});"),
        Kind::Error => format!("writer.error_code({value});"),
        Kind::Str => format!("writer.string(flexible, {reference})?;"),
        Kind::Bytes => format!("writer.bytes(flexible, {reference})?;"),
        Kind::Records => format!("writer.records(flexible, {reference})?;"),
        Kind::Struct(_) => format!("{place}.encode(writer, version)?;"),
        Kind::Array(element) => format!(
            "writer.array(flexible, {reference}, {})?;",
            element_writer(element)
        ),
    }
}

fn element_writer(element: &Kind) -> String {
    match element {
        Kind::Struct(_) => "|writer, item| item.encode(writer, version)".into(),
        Kind::Str => "|writer, item| writer.string(flexible, item)".into(),
        Kind::Bytes => "|writer, item| writer.bytes(flexible, item)".into(),
        simple => format!(
            "|writer, item| {{ {} Ok(()) }}",
            write_value(simple, "item", true)
        ),
    }
}

fn write_field(field: &Field) -> String {
    let place = format!("self.{}", rust_name(&field.name));
    if field.nullable.is_none() {
        return write_value(&field.kind, &place, false);
    }
    match &field.kind {
        Kind::Str => format!("writer.nullable_string(flexible, {place}.as_ref())?;"),
        Kind::Bytes => format!("writer.nullable_bytes(flexible, {place}.as_ref())?;"),
        Kind::Records => format!("writer.nullable_records(flexible, {place}.as_ref())?;"),
        Kind::Struct(_) => format!(
            "writer.nullable_struct({place}.as_ref(), |writer, item| item.encode(writer, version))?;"
        ),
        Kind::Array(element) => format!(
            "writer.nullable_array(flexible, {place}.as_deref(), {})?;",
            element_writer(element)
        ),
        other => panic!("{other:?} cannot be null: {}", field.name),
    }
}

fn encode(out: &mut String, structure: &Struct, context: &Context) {
    let flexible = context.flexible();
    let name = &structure.name;
    let refuse = |field: &Field| {
        format!(
            "return Err(EncodeError::NotRepresentable {{ message: \"{name}\", field: \"{}\", version }});",
            field.name
        )
    };
    let mut body = String::new();
    for field in &structure.fields {
        // Null where only other versions allow it.
        let place = format!("self.{}", rust_name(&field.name));
        if let Some(may) = field.nullable.and_then(|nullable| context.within(nullable)) {
            let present = context
                .within(field.versions)
                .map(|within| format!(" && {within}"))
                .unwrap_or_default();
            let _ = writeln!(
                body,
                "        if {place}.is_none(){present} && !({may}) {{ {} }}",
                refuse(field)
            );
        }
        let within = context.within(field.versions);
        let write = write_field(field);
        let absent = if field.ignorable {
            None
        } else {
            Some(format!("if {} {{ {} }}", is_set(field), refuse(field)))
        };
        match (field.tag.is_some(), within, absent) {
            (true, None, _) | (true, _, None) => {}
            (true, Some(within), Some(absent)) => {
                let _ = writeln!(body, "        if !({within}) {{ {absent} }}");
            }
            (false, None, _) => {
                let _ = writeln!(body, "        {write}");
            }
            (false, Some(within), None) => {
                let _ = writeln!(body, "        if {within} {{ {write} }}");
            }
            (false, Some(within), Some(absent)) => {
                let absent = absent.trim_start();
                let _ = writeln!(body, "        if {within} {{ {write} }} else {absent}");
            }
        }
    }
    encode_tagged(&mut body, structure, context);
    let bind = if mentions(&body, "flexible") {
        format!("        let flexible = {flexible};\n")
    } else {
        String::new()
    };
    let check = if structure.name == context.message.name {
        "        Self::check(version)?;\n"
    } else {
        ""
    };
    let all = bind + check + &body;
    let version = if mentions(&all, "version") {
        "version"
    } else {
        "_version"
    };
    let writer = if mentions(&all, "writer") {
        "writer"
    } else {
        "_writer"
    };
    let _ = writeln!(
        out,
        "    fn encode(&self, {writer}: &mut Writer, {version}: i16) -> Result<(), EncodeError> {{\n{all}        Ok(())\n    }}"
    );
}

fn encode_tagged(body: &mut String, structure: &Struct, context: &Context) {
    if context.message.flexible.is_none() {
        return;
    }
    let flexible = context.flexible();
    let mut tagged: Vec<&Field> = structure
        .fields
        .iter()
        .filter(|field| field.tag.is_some())
        .collect();
    tagged.sort_by_key(|field| field.tag);
    let mut section = String::new();
    if tagged.is_empty() {
        section.push_str("        writer.uvarint(0);\n");
    } else {
        let mut count = Vec::new();
        for field in &tagged {
            let set = match context.within(field.versions) {
                Some(within) if within != flexible => format!("{within} && {}", is_set(field)),
                _ => is_set(field),
            };
            let _ = writeln!(section, "        let has_{} = {set};", field.name);
            count.push(format!("u32::from(has_{})", field.name));
        }
        let _ = writeln!(section, "        writer.uvarint({});", count.join(" + "));
        for field in tagged {
            let _ = writeln!(
                section,
                "        if has_{} {{\n            let field = writer.begin_tagged_field({});\n            {}\n            writer.end_tagged_field(field)?;\n        }}",
                field.name,
                field.tag.unwrap_or_default(),
                write_field(field)
            );
        }
    }
    if flexible == "true" {
        body.push_str(&section);
    } else {
        let _ = writeln!(body, "        if flexible {{\n{section}        }}");
    }
}
