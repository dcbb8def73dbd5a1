//! Emits the types: each struct with its documentation and default, and the implementation that decodes and encodes it.

use std::fmt::Write;

use crate::context::{Context, default_of, field_type, rust_name};
use crate::notation::{Struct, Versions};
use crate::{decode, encode};

/// Emits one struct with everything that belongs to it.
pub fn structure(out: &mut String, structure: &Struct, context: &Context) {
    definition(out, structure, context);
    default(out, structure);
    let name = &structure.name;
    let _ = writeln!(out, "impl Message for {name} {{");
    decode::function(out, structure, context);
    encode::function(out, structure, context);
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
