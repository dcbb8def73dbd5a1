//! What a message must satisfy beyond its form on paper, lest the code made from it be wrong on the wire.

use crate::notation::{Field, Message, Struct, struct_name};

/// Checks one message with all its structs.
pub fn message(message: &Message) -> Result<(), String> {
    if message.versions.high == i16::MAX {
        return Err("the versions of a message need an end".into());
    }
    for structure in &message.structs {
        let problem = |problem: String| format!("`{}`: {problem}", structure.name);
        unique(structure).map_err(problem)?;
        for field in &structure.fields {
            self::field(field, message)
                .map_err(|problem| format!("`{}.{}`: {problem}", structure.name, field.name))?;
        }
    }
    Ok(())
}

/// No two fields share a name or a tag, and tags leave no gap that another field could be meant for.
fn unique(structure: &Struct) -> Result<(), String> {
    let mut tags: Vec<u32> = structure
        .fields
        .iter()
        .filter_map(|field| field.tag)
        .collect();
    tags.sort_unstable();
    if !tags.iter().copied().eq(0..tags.len() as u32) {
        return Err(format!("the tags are {tags:?}, not 0, 1, …"));
    }
    for (index, field) in structure.fields.iter().enumerate() {
        if structure.fields[..index]
            .iter()
            .any(|other| other.name == field.name)
        {
            return Err(format!("`{}` is there twice", field.name));
        }
    }
    Ok(())
}

fn field(field: &Field, message: &Message) -> Result<(), String> {
    let all = message.versions;
    if field.versions.high < all.low || field.versions.low > all.high {
        return Err("it is in no version of the message".into());
    }
    if let Some(name) = struct_name(&field.kind)
        && !message
            .structs
            .iter()
            .any(|structure| structure.name == name)
    {
        return Err(format!("`{name}` is not described"));
    }
    if field.tag.is_some() {
        let first = field.versions.low.max(all.low);
        if message.flexible.is_none_or(|from| first < from) {
            return Err("it is tagged in versions that are not flexible".into());
        }
    }
    if let Some(nullable) = field.nullable
        && (nullable.high < field.versions.low || nullable.low > field.versions.high)
    {
        return Err("it is null only where it is absent".into());
    }
    Ok(())
}
