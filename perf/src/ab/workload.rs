//! The workloads of a comparison: short ones that are shipped inside the program, or files.

use std::fs;
use std::path::{Path, PathBuf};

/// The shipped workloads, by name: a latency at a rate, producing at the limit, consuming at the limit.
const SHIPPED: [(&str, &str); 3] = [
    (
        "ab-latency",
        include_str!("../../workloads/ab-latency.toml"),
    ),
    (
        "ab-produce",
        include_str!("../../workloads/ab-produce.toml"),
    ),
    ("ab-fetch", include_str!("../../workloads/ab-fetch.toml")),
];

/// A workload and where its file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The name by which `--only` knows it.
    pub name: String,
    /// The file.
    pub file: PathBuf,
}

/// Why there is no workload.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// A file.
    #[error("workload {file}: {source}")]
    File {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// `--only` names what is not there.
    #[error("there is no workload {name:?}; there are: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that are there.
        known: String,
    },
    /// Two of one name could not be told apart.
    #[error("two workloads are called {0:?}: figures could not be told apart")]
    Twice(String),
}

/// The workloads of `files`, or the shipped ones (written to `folder`), of which `only` are kept if any are named. What is in a file is the generator's
/// to judge.
pub fn select(
    files: &[PathBuf],
    only: &[String],
    folder: &Path,
) -> Result<Vec<Selected>, WorkloadError> {
    let failed = |file: &Path, source| WorkloadError::File {
        file: file.display().to_string(),
        source,
    };
    let mut all = Vec::new();
    for file in files {
        let found = file.canonicalize().map_err(|error| failed(file, error))?;
        let name = file
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        all.push(Selected { name, file: found });
    }
    if files.is_empty() {
        for (name, text) in SHIPPED {
            let file = folder.join(format!("{name}.toml"));
            fs::write(&file, text).map_err(|error| failed(&file, error))?;
            all.push(Selected {
                name: name.into(),
                file,
            });
        }
    }
    for (at, one) in all.iter().enumerate() {
        if all[..at].iter().any(|other| other.name == one.name) {
            return Err(WorkloadError::Twice(one.name.clone()));
        }
    }
    if let Some(name) = only
        .iter()
        .find(|name| !all.iter().any(|one| one.name == **name))
    {
        let known: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        return Err(WorkloadError::Unknown {
            name: name.clone(),
            known: known.join(", "),
        });
    }
    Ok(all
        .into_iter()
        .filter(|one| only.is_empty() || only.contains(&one.name))
        .collect())
}

#[cfg(test)]
mod tests {
    //! Names choose, unknown and ambiguous ones are refused.
    use super::*;

    #[test]
    fn names_choose() {
        let folder = tempfile::tempdir().unwrap();
        let all = select(&[], &[], folder.path()).unwrap();
        assert_eq!(all.len(), SHIPPED.len());
        assert!(all.iter().all(|one| one.file.is_file()));
        let one = select(&[], &["ab-fetch".into()], folder.path()).unwrap();
        assert_eq!(
            one.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
            ["ab-fetch"]
        );
        let error = select(&[], &["nothing".into()], folder.path())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("\"nothing\"") && error.contains("ab-latency, ab-produce"),
            "{error}"
        );
        let file = all[0].file.clone();
        assert!(matches!(
            select(&[file.clone(), file], &[], folder.path()),
            Err(WorkloadError::Twice(_))
        ));
        assert!(matches!(
            select(&["gone.toml".into()], &[], folder.path()),
            Err(WorkloadError::File { .. })
        ));
    }
}
