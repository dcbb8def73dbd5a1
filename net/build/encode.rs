//! Emits encoders.

use std::fmt::Write;

use crate::context::{Context, bind_flexible, check, is_set, parameter, rust_name, tagged};
use crate::notation::{Field, Kind, Struct, Versions};

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

/// Emits the method that encodes a struct.
pub fn function(out: &mut String, structure: &Struct, context: &Context) {
    let mut body = String::new();
    for field in &structure.fields {
        body.push_str(&refusals(field, &structure.name, context));
        if field.tag.is_some() {
            continue;
        }
        let write = write_field(field);
        let _ = match context.within(field.versions) {
            None => writeln!(body, "        {write}"),
            Some(within) => writeln!(
                body,
                "        if {} {{\n            {write}\n        }}",
                within.holds
            ),
        };
    }
    if context.message.flexible.is_some() {
        body.push_str(&tagged_section(structure, context));
    }
    let body = check(structure, context).to_owned() + &bind_flexible(&body, context) + &body;
    let _ = writeln!(
        out,
        "    fn encode(&self, {}: &mut Writer, {}: i16) -> Result<(), EncodeError> {{\n{body}        Ok(())\n    }}",
        parameter(&body, "writer"),
        parameter(&body, "version"),
    );
}

/// The statements that refuse what a version cannot carry: a value in a version without the field, unless it may be
/// ignored, and null in a version where the field must not be null.
fn refusals(field: &Field, structure: &str, context: &Context) -> String {
    let refuse = |condition: String| {
        format!(
            "        if {condition} {{\n            return Err(EncodeError::NotRepresentable {{\n                message: \"{structure}\",\n                field: \"{}\",\n                version,\n            }});\n        }}\n",
            field.name
        )
    };
    let mut refusals = String::new();
    let within = context.within(field.versions);
    if let Some(within) = &within
        && !field.ignorable
    {
        refusals += &refuse(format!("{} && {}", within.fails, is_set(field)));
    }
    for versions in present_but_not_nullable(field, context) {
        let present = context
            .within(versions)
            .map_or(String::new(), |within| format!("{} && ", within.holds));
        let place = rust_name(&field.name);
        refusals += &refuse(format!("{present}self.{place}.is_none()"));
    }
    refusals
}

fn present_but_not_nullable(field: &Field, context: &Context) -> Vec<Versions> {
    let Some(nullable) = field.nullable else {
        return Vec::new();
    };
    let present = Versions {
        low: field.versions.low.max(context.message.versions.low),
        high: field.versions.high.min(context.message.versions.high),
    };
    let before = Versions {
        low: present.low,
        high: present.high.min(nullable.low - 1),
    };
    let after = Versions {
        low: present.low.max(nullable.high.saturating_add(1)),
        high: present.high,
    };
    [before, after]
        .into_iter()
        .filter(|versions| versions.low <= versions.high)
        .collect()
}

fn tagged_section(structure: &Struct, context: &Context) -> String {
    let flexible = context.flexible();
    let mut section = String::new();
    let mut count = Vec::new();
    let mut fields = String::new();
    for field in tagged(structure) {
        let set = match context.within(field.versions) {
            Some(within) if within.holds != flexible => {
                format!("{} && {}", within.holds, is_set(field))
            }
            _ => is_set(field),
        };
        let _ = writeln!(section, "            let has_{} = {set};", field.name);
        count.push(format!("u32::from(has_{})", field.name));
        let _ = writeln!(
            fields,
            "            if has_{} {{\n                let field = writer.begin_tagged_field({});\n                {}\n                writer.end_tagged_field(field)?;\n            }}",
            field.name,
            field.tag.unwrap_or_default(),
            write_field(field)
        );
    }
    let count = if count.is_empty() {
        "0".to_owned()
    } else {
        count.join(" + ")
    };
    let _ = writeln!(section, "            writer.uvarint({count});");
    section.push_str(&fields);
    if flexible == "true" {
        section
    } else {
        format!("        if flexible {{\n{section}        }}\n")
    }
}
