//! The benchmark's workload files.
//!
//! A text is taken or refused with a reason; one that is taken reads the same after a change that changes nothing, and any other
//! change on the command line is taken or refused, too.

use std::path::Path;

use crate::programs::workload::Workload;

/// See the module.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    // An override may stand before the file, behind a zero byte.
    let (change, text) = text.split_once('\0').unwrap_or(("", text));
    match Workload::parse(text, "fuzz", &[]) {
        Ok(workload) => {
            let same = format!("about={}", toml::Value::from(workload.about.as_str()));
            let again = Workload::parse(text, "fuzz", &[same]).expect("a file that was taken");
            assert_eq!(format!("{again:?}"), format!("{workload:?}"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Err(error) = Workload::parse(text, "fuzz", &[change.to_owned()]) {
        assert!(!error.to_string().is_empty());
    }
}

/// The repository's own workloads, alone and with overrides.
pub fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/workloads");
    let files = std::fs::read_dir(folder).expect("the repository's workloads");
    let mut seeds = Vec::new();
    for file in files.flatten() {
        let text = std::fs::read(file.path()).expect("a workload");
        for change in [
            "run.duration_s=5\0",
            "producer.rate=2000\0",
            "topic.configs.a=\"b\"\0",
        ] {
            seeds.push([change.as_bytes(), &text].concat());
        }
        seeds.push(text);
    }
    seeds
}
