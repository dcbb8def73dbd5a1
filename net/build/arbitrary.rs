//! Emits, for the feature `arbitrary`, how to make up values of a struct that a given version can carry.

use std::fmt::Write;

use crate::context::{Context, default_of, parameter, rust_name};
use crate::notation::{Field, Kind, Struct};

/// Emits the implementation of `ArbitraryMessage` for one struct.
pub fn structure(out: &mut String, structure: &Struct, context: &Context) {
    let mut body = String::new();
    for field in &structure.fields {
        let value = value(field, context);
        let value = match context.within(field.versions) {
            None => value,
            Some(within) => format!(
                "if {} {{ {value} }} else {{ {} }}",
                within.holds,
                default_of(field)
            ),
        };
        let _ = writeln!(body, "            {}: {value},", rust_name(&field.name));
    }
    let source = parameter(&body, "source");
    let version = parameter(&body, "version");
    let _ = writeln!(
        out,
        "#[cfg(feature = \"arbitrary\")]\nimpl crate::arbitrary::ArbitraryMessage for {name} {{\n    fn arbitrary({source}: &mut crate::arbitrary::Source<'_>, {version}: i16) -> Self {{\n        {name} {{\n{body}        }}\n    }}\n}}\n",
        name = structure.name
    );
}

fn value(field: &Field, context: &Context) -> String {
    let inner = of_kind(&field.kind);
    match field.nullable {
        None => inner,
        Some(nullable) => match context.within(nullable) {
            None => format!("if source.is_null() {{ None }} else {{ Some({inner}) }}"),
            Some(may) => format!(
                "if {} && source.is_null() {{ None }} else {{ Some({inner}) }}",
                may.holds
            ),
        },
    }
}

fn of_kind(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "source.bool()".into(),
        Kind::I8 => "source.i8()".into(),
        Kind::I16 => "source.i16()".into(),
        Kind::U16 => "source.u16()".into(),
        Kind::I32 => "source.i32()".into(),
        Kind::U32 => "source.u32()".into(),
        Kind::I64 => "source.i64()".into(),
        Kind::F64 => "source.f64()".into(),
        Kind::Uuid => "source.uuid()".into(),
        Kind::Error => "source.error_code()".into(),
        Kind::Str => "source.string()".into(),
        Kind::Bytes => "source.bytes()".into(),
        Kind::Records => "source.records()".into(),
        Kind::Struct(name) => {
            format!("<{name} as crate::arbitrary::ArbitraryMessage>::arbitrary(source, version)")
        }
        Kind::Array(element) => format!("source.array(|source| {})", of_kind(element)),
    }
}
