//! Generates the message types from `messages/`, in the notation of `messages/README.md`.
//!
//! Emits five files that `src/` includes: `messages.rs` (one module per API), `api.rs` (the API keys and the table),
//! `request.rs` (the enums over all requests and responses), `metadata.rs` (the records of the metadata log) and `coordinators.rs` (keys and values
//! of what the coordinators store).

mod arbitrary;
mod context;
mod decode;
mod definition;
mod encode;
mod notation;
mod tables;
mod validate;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use notation::{File, Message, Struct};

/// What every module of messages uses.
const USES: &str = "use crate::VersionRange;\n\
    use crate::codec::{DecodeError, EncodeError, Message, Reader, TopLevel, Writer};\n";
/// What a module uses if its fields are of such a type.
const VALUES: [&str; 5] = ["Bytes", "ErrorCode", "Records", "Str", "Uuid"];

fn main() {
    let messages = PathBuf::from(var("CARGO_MANIFEST_DIR")).join("messages");
    let out = PathBuf::from(var("OUT_DIR"));
    println!("cargo::rerun-if-changed=messages");
    println!("cargo::rerun-if-changed=build");

    let mut apis = files(&messages);
    apis.sort_by_key(|file| file.api.as_ref().map(|api| api.key));
    write(&out.join("messages.rs"), &api_modules(&apis));
    write(&out.join("api.rs"), &tables::api(&apis));
    write(&out.join("request.rs"), &tables::request(&apis));

    let records = files(&messages.join("metadata"));
    let mut metadata = uses(&records) + &structs(&records);
    metadata.push_str(&tables::metadata_record(&records));
    write(&out.join("metadata.rs"), &metadata);

    let stored = files(&messages.join("coordinators"));
    write(
        &out.join("coordinators.rs"),
        &(uses(&stored) + &structs(&stored)),
    );
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The described files of a folder, by name.
fn files(folder: &Path) -> Vec<File> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap_or_else(|error| panic!("{error}")).path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "msg"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let text = fs::read_to_string(path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let file = notation::parse(&stem, &text).unwrap_or_else(|error| panic!("{error}"));
            for message in &file.messages {
                validate::message(message)
                    .unwrap_or_else(|problem| panic!("{stem}.msg: {}: {problem}", message.name));
            }
            file
        })
        .collect()
}

fn api_modules(apis: &[File]) -> String {
    let mut out = String::new();
    for file in apis {
        let name = file.api.as_ref().map_or("", |api| api.name.as_str());
        if file.docs.is_empty() {
            let _ = writeln!(out, "/// The messages of the API `{name}`.");
        }
        for doc in &file.docs {
            let _ = writeln!(out, "/// {doc}");
        }
        let file = std::slice::from_ref(file);
        let _ = writeln!(out, "pub mod {} {{\n{}", file[0].stem, uses(file));
        out.push_str(&structs(file));
        out.push_str("}\n\n");
    }
    out
}

/// The `use` lines of the module that holds these files' structs.
fn uses(files: &[File]) -> String {
    let types: Vec<String> = files
        .iter()
        .flat_map(|file| &file.messages)
        .flat_map(|message| &message.structs)
        .flat_map(|structure| &structure.fields)
        .map(|field| context::rust_type(&field.kind))
        .collect();
    let mut uses = USES.to_owned();
    for value in VALUES {
        let vector = format!("Vec<{value}>");
        if types.iter().any(|kind| kind == value || *kind == vector) {
            let _ = writeln!(uses, "use crate::{value};");
        }
    }
    uses
}

/// All structs of some files, which share one Rust module. What a request and a response both describe, and alike,
/// becomes one type.
fn structs(files: &[File]) -> String {
    let mut out = String::new();
    let mut seen: Vec<(&Struct, &Message)> = Vec::new();
    for message in files.iter().flat_map(|file| &file.messages) {
        let context = context::Context { message };
        for structure in &message.structs {
            let known = seen.iter().find(|(known, _)| known.name == structure.name);
            if let Some((known, first)) = known {
                assert!(
                    known.fields == structure.fields
                        && first.versions == message.versions
                        && first.flexible == message.flexible,
                    "{}: `{}` is described twice, differently",
                    message.name,
                    structure.name
                );
                continue;
            }
            seen.push((structure, message));
            definition::structure(&mut out, structure, &context);
            arbitrary::structure(&mut out, structure, &context);
        }
        tables::top_level(&mut out, message);
    }
    out
}
