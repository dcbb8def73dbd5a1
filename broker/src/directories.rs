//! Takes possession of the data directories before anything is opened: makes them, locks them against a second broker, and reads or
//! writes `meta.properties`, which says whose they are.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use ringlog_net::Uuid;

use crate::config::{BrokerConfig, properties};
use crate::shard::LogDir;

const META: &str = "meta.properties";

/// Why the data directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process has them.
    #[error("{0} is in use by another broker: stop that one, or give this one another log.dirs")]
    InUse(PathBuf),
    /// They belong to another broker or cluster.
    #[error(
        "{path}: {key} is `{found}` but this broker's is `{expected}`: point log.dirs at this broker's own directories, or set {key} to match"
    )]
    Foreign {
        /// The file that says so.
        path: PathBuf,
        /// Which property.
        key: &'static str,
        /// What it says.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// It is empty although others are not: perhaps its disk is not mounted.
    #[error(
        "{missing} has no meta.properties, but {formatted} has: if a disk is not mounted there, mount it; if the directory is new in log.dirs, run `ringlog format` once with the same configuration, and start again"
    )]
    Unformatted {
        /// The directory.
        missing: PathBuf,
        /// One that is formatted.
        formatted: PathBuf,
    },
    /// The file cannot be understood.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Its words.
        error: io::Error,
    },
}

/// Directories that are ours until this is dropped.
pub struct Possession {
    /// The cluster's id.
    pub cluster_id: String,
    /// The data directories.
    pub log_dirs: Vec<LogDir>,
    _locks: Vec<Flock<File>>,
}

/// What to do with a directory that is not formatted, when others are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unformatted {
    /// Refuse, as Kafka does: the records on a disk that is not mounted must not be forgotten.
    Refuse,
    /// Format it, as `kafka-storage format --ignore-formatted` does: somebody said that it is new.
    Format,
}

/// Locks the data directories, and formats them when all are new.
///
/// # Errors
/// [`DirectoryError`]; nothing was changed in a directory that is not ours.
pub fn take(config: &BrokerConfig, unformatted: Unformatted) -> Result<Possession, DirectoryError> {
    let mut locks = Vec::new();
    let mut locked = Vec::new();
    for directory in config.log_dirs.iter().chain(&config.journal_dir) {
        fs::create_dir_all(directory).map_err(failed("make the directory", directory))?;
        let resolved = directory
            .canonicalize()
            .map_err(failed("resolve", directory))?;
        // The journal may live in a data directory.
        if Some(directory) == config.journal_dir.as_ref() && locked.contains(&resolved) {
            continue;
        }
        locks.push(lock(directory)?);
        locked.push(resolved);
    }
    let mut known = Vec::new();
    for directory in &config.log_dirs {
        known.push(read_meta(directory, config.node_id)?);
    }
    let of = |formatted: bool| {
        let mut pairs = config.log_dirs.iter().zip(&known);
        pairs.find(|(_, meta)| meta.is_some() == formatted)
    };
    if let (Unformatted::Refuse, Some((missing, _)), Some((formatted, _))) =
        (unformatted, of(false), of(true))
    {
        return Err(DirectoryError::Unformatted {
            missing: missing.clone(),
            formatted: formatted.clone(),
        });
    }
    let configured = Some(config.get("cluster.id").to_string()).filter(|id| !id.is_empty());
    let first_known = known
        .iter()
        .flatten()
        .map(|(cluster_id, _)| cluster_id.clone())
        .next();
    let cluster_id = first_known
        .or(configured.clone())
        .unwrap_or_else(|| random_id().to_string());
    let mut log_dirs = Vec::new();
    for (path, meta) in config.log_dirs.iter().zip(known) {
        let directory_id = match meta {
            Some((found, directory_id)) => {
                let expected = configured.as_ref().unwrap_or(&cluster_id);
                if found != *expected {
                    let (path, expected) = (path.join(META), expected.clone());
                    return Err(DirectoryError::Foreign {
                        path,
                        key: "cluster.id",
                        found,
                        expected,
                    });
                }
                directory_id
            }
            None => format(path, &cluster_id, config.node_id)?,
        };
        let path = path.canonicalize().map_err(failed("resolve", path))?;
        log_dirs.push(LogDir { path, directory_id });
    }
    Ok(Possession {
        cluster_id,
        log_dirs,
        _locks: locks,
    })
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> DirectoryError + 'a {
    move |error| DirectoryError::Io {
        action,
        path: path.to_path_buf(),
        error,
    }
}

fn lock(directory: &Path) -> Result<Flock<File>, DirectoryError> {
    let path = directory.join(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(failed("open", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            Err(DirectoryError::InUse(directory.to_path_buf()))
        }
        Err((_, error)) => Err(failed("lock", &path)(error.into())),
    }
}

/// The cluster's and the directory's id, if the directory is formatted.
fn read_meta(directory: &Path, node_id: i32) -> Result<Option<(String, Uuid)>, DirectoryError> {
    let path = directory.join(META);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", &path)(error)),
    };
    let pairs = properties::parse(&text);
    let find = |name: &str| {
        pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    let unreadable = |reason: String| DirectoryError::Unreadable {
        path: path.clone(),
        reason,
    };
    match find("version").as_deref() {
        Some("1") => {}
        other => {
            return Err(unreadable(format!(
                "version {} is not one that this broker reads",
                other.unwrap_or("(none)")
            )));
        }
    }
    let found = find("node.id").unwrap_or_default();
    if found != node_id.to_string() {
        let expected = node_id.to_string();
        return Err(DirectoryError::Foreign {
            path,
            key: "node.id",
            found,
            expected,
        });
    }
    let cluster_id =
        find("cluster.id").ok_or_else(|| unreadable("cluster.id is missing".into()))?;
    let id = find("directory.id").ok_or_else(|| unreadable("directory.id is missing".into()))?;
    let directory_id = id
        .parse()
        .map_err(|error| unreadable(format!("directory.id: {error}")))?;
    Ok(Some((cluster_id, directory_id)))
}

fn format(directory: &Path, cluster_id: &str, node_id: i32) -> Result<Uuid, DirectoryError> {
    let directory_id = random_id();
    let path = directory.join(META);
    let text = format!(
        "#\nversion=1\ncluster.id={cluster_id}\nnode.id={node_id}\ndirectory.id={directory_id}\n"
    );
    let temporary = directory.join("meta.properties.tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(failed("write", &path))?;
    Ok(directory_id)
}

/// 128 random bits from the operating system, in the form of a version 4 UUID that does not start with `-` when printed.
fn random_id() -> Uuid {
    use std::hash::{BuildHasher, RandomState};
    loop {
        let word = || {
            RandomState::new()
                .hash_one(std::process::id())
                .to_be_bytes()
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&word());
        bytes[8..].copy_from_slice(&word());
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let id = Uuid(bytes);
        if !id.to_string().starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    //! A directory is formatted once, kept, refused to a second broker and to a broker with another id.
    use super::*;

    fn config(directory: &Path, node_id: &str) -> BrokerConfig {
        let pairs = [
            ("log.dirs", directory.to_str().unwrap()),
            ("node.id", node_id),
        ];
        BrokerConfig::from_pairs(pairs.map(|(k, v)| (k.to_string(), v.to_string()))).unwrap()
    }

    #[test]
    fn formatted_once_and_guarded() {
        let directory = tempfile::tempdir().unwrap();
        let first = take(&config(directory.path(), "1"), Unformatted::Refuse).unwrap();
        assert!(matches!(
            take(&config(directory.path(), "1"), Unformatted::Refuse),
            Err(DirectoryError::InUse(_))
        ));
        let (cluster_id, log_dirs) = (first.cluster_id.clone(), first.log_dirs.clone());
        drop(first);
        let again = take(&config(directory.path(), "1"), Unformatted::Refuse).unwrap();
        assert_eq!(
            (&again.cluster_id, &again.log_dirs),
            (&cluster_id, &log_dirs)
        );
        drop(again);
        let foreign = take(&config(directory.path(), "2"), Unformatted::Refuse);
        assert!(matches!(
            foreign,
            Err(DirectoryError::Foreign { key: "node.id", .. })
        ));
    }

    #[test]
    fn a_new_directory_beside_formatted_ones_wants_to_be_told_of() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = take(&config(old.path(), "1"), Unformatted::Refuse).unwrap();
        let cluster_id = first.cluster_id.clone();
        drop(first);
        for order in [[&new, &old], [&old, &new]] {
            let both = order.map(|directory| directory.path().to_str().unwrap());
            let both = config(Path::new(&both.join(",")), "1");
            let refused = take(&both, Unformatted::Refuse);
            assert!(matches!(refused, Err(DirectoryError::Unformatted { .. })));
            assert!(!new.path().join(META).exists());
        }
        let both = [&old, &new].map(|directory| directory.path().to_str().unwrap());
        let both = config(Path::new(&both.join(",")), "1");
        assert_eq!(
            take(&both, Unformatted::Format).unwrap().cluster_id,
            cluster_id
        );
        let again = take(&both, Unformatted::Refuse).unwrap();
        assert_eq!(again.log_dirs.len(), 2);
    }

    #[test]
    fn the_journal_may_live_in_a_data_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let pairs = [("log.dirs", path), ("journal.dir", path)];
        let pairs = pairs.map(|(k, v)| (k.to_string(), v.to_string()));
        let config = BrokerConfig::from_pairs(pairs).unwrap();
        assert!(take(&config, Unformatted::Refuse).is_ok());
    }
}
