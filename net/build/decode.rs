//! Emits decoders.

use std::fmt::Write;

use crate::context::{
    Context, bind_flexible, check, default_of, least_element_bytes, local_name, parameter,
    rust_name, rust_type, tagged,
};
use crate::notation::{Field, Kind, Struct};

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
    let nullable = context
        .within(nullable)
        .map_or("true".into(), |within| within.holds);
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

/// Emits the method that decodes a struct.
pub fn function(out: &mut String, structure: &Struct, context: &Context) {
    let mut body = String::new();
    for field in structure.fields.iter().filter(|field| field.tag.is_none()) {
        let name = local_name(&field.name);
        let value = read_field(field, "reader", "flexible", context);
        let _ = match context.within(field.versions) {
            None => writeln!(body, "        let {name} = {value};"),
            Some(within) => writeln!(
                body,
                "        let {name} = if {} {{\n            {value}\n        }} else {{\n            {}\n        }};",
                within.holds,
                default_of(field)
            ),
        };
    }
    if context.message.flexible.is_some() {
        body.push_str(&tagged_section(structure, context));
    }
    let body = check(structure, context).to_owned() + &bind_flexible(&body, context) + &body;
    let _ = writeln!(
        out,
        "    fn decode({}: &mut Reader, {}: i16) -> Result<Self, DecodeError> {{\n{body}        Ok({} {{",
        parameter(&body, "reader"),
        parameter(&body, "version"),
        structure.name
    );
    for field in &structure.fields {
        let (name, local) = (rust_name(&field.name), local_name(&field.name));
        let _ = if name == local {
            writeln!(out, "            {name},")
        } else {
            writeln!(out, "            {name}: {local},")
        };
    }
    out.push_str("        })\n    }\n\n");
}

fn tagged_section(structure: &Struct, context: &Context) -> String {
    let flexible = context.flexible();
    let tagged = tagged(structure);
    let mut variables = String::new();
    let mut arms = String::new();
    for field in &tagged {
        let name = local_name(&field.name);
        let _ = writeln!(variables, "        let mut {name} = {};", default_of(field));
        let guard = context
            .within(field.versions)
            .filter(|within| within.holds != flexible)
            .map(|within| format!(" if {}", within.holds))
            .unwrap_or_default();
        let _ = writeln!(
            arms,
            "                    {}{guard} => {name} = {},",
            field.tag.unwrap_or_default(),
            read_field(field, "reader", "flexible", context)
        );
    }
    let section = if tagged.is_empty() {
        "reader.skip_tagged_fields()?;".to_owned()
    } else {
        format!(
            "reader.tagged_fields(|tag, reader| {{\n                match tag {{\n{arms}                    _ => return Ok(false),\n                }}\n                Ok(true)\n            }})?;"
        )
    };
    if flexible == "true" {
        format!("{variables}        {section}\n")
    } else {
        format!("{variables}        if flexible {{\n            {section}\n        }}\n")
    }
}
