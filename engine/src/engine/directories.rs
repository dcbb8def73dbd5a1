//! The directories of a data set before any shard opens: the format, the journal's identity, the clean-stop marker, and a change of the number of
//! shards.

use std::io;
use std::path::{Path, PathBuf};

use super::{Engine, EngineError};
use crate::config::EngineConfig;
use crate::disk::Disk;
use crate::environment::Environment;
use crate::journal::entry::Identity;

/// The newest format of the directory layout.
const FORMAT: u32 = 1;
/// Names a journal directory's identity file.
const IDENTITY_FILE: &str = "journal.properties";
/// Left by a clean stop, removed before the first append.
const CLEAN_FILE: &str = "clean-shutdown";

/// What preparing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The number of shards of the last start, when it was another one: its journals have been emptied into the segments.
    pub shards_before: Option<u32>,
}

/// A journal directory's identity, as its file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JournalProperties {
    pub identity: Identity,
    pub shards: u32,
}

/// Prepares the directories; to be called once per process, before the shards open.
///
/// When the last start ran another number of shards, every journal is recovered into the segments and put away, so that the new shards start clean.
///
/// # Errors
/// When a directory cannot be made or read, or was written by a newer version.
pub async fn prepare_directories<E: Environment>(
    env: &E,
    config: &EngineConfig,
) -> Result<Prepared, EngineError> {
    let disk = env.disk();
    for directory in config.log_dirs.iter().chain(config.journal_dir.iter()) {
        create_directory(env, directory).await?;
    }
    let root = config.journal_root();
    refuse_left_journals(env, config, &root).await?;
    create_directory(env, &root).await?;
    let mut found: Vec<(u32, JournalProperties)> = Vec::new();
    for entry in disk.list(&root).await? {
        let Some(shard) = entry
            .is_dir
            .then(|| entry.name.parse::<u32>().ok())
            .flatten()
        else {
            continue;
        };
        if let Some(properties) = read_properties(env, &root.join(&entry.name)).await? {
            found.push((shard, properties));
        }
    }
    let before = found
        .iter()
        .map(|(_, properties)| properties.shards)
        .find(|shards| *shards != config.shards);
    let Some(before) = before else {
        return Ok(Prepared {
            shards_before: None,
        });
    };
    tracing::info!(
        before,
        now = config.shards,
        "the number of shards has changed: emptying the journals"
    );
    // Each old shard settles everything in its journal; then its recovery points are handed over, then its journal goes.
    for (shard, properties) in &found {
        if properties.shards == config.shards {
            continue;
        }
        let old = EngineConfig {
            shard: *shard,
            shards: properties.shards,
            ..config.clone()
        };
        let (engine, _) = Engine::open(env.clone(), old.clone()).await?;
        engine.shutdown_clean().await?;
        if read_clean_marker(env, &old).await?.is_none() {
            return Err(EngineError::Damaged {
                path: old.journal_path().display().to_string(),
                reason: format!(
                    "it holds acknowledged records that could not be put into their segments: start with {} shards and repair the logs that are offline before changing the number",
                    old.shards
                ),
            });
        }
    }
    super::maintain::merge_checkpoints(env, config, before).await?;
    for (shard, properties) in &found {
        if properties.shards != config.shards {
            remove_journal(env, &root.join(shard.to_string())).await?;
        }
    }
    disk.sync_dir(&root).await?;
    for shard in 0..config.shards {
        let new = EngineConfig {
            shard,
            ..config.clone()
        };
        if read_properties(env, &new.journal_path()).await?.is_none() {
            journal_identity(env, &new).await?;
            write_clean_marker(env, &new, 0).await?;
        }
    }
    Ok(Prepared {
        shards_before: Some(before),
    })
}

/// Makes a directory and those above it, durably with their names.
///
/// The names are synced even when the directory is there: whoever made it may have been killed before it got to that.
pub(super) async fn create_directory<E: Environment>(env: &E, directory: &Path) -> io::Result<()> {
    let disk = env.disk();
    disk.create_dir_all(directory).await?;
    for above in directory.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() {
            Path::new(".")
        } else {
            above
        };
        match disk.sync_dir(above).await {
            // Not ours to sync, hence not made by us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            other => other?,
        }
    }
    Ok(())
}

/// Refuses to go on beside journals in another log directory that were not emptied: `log.dirs` was reordered or `journal.dir` changed.
async fn refuse_left_journals<E: Environment>(
    env: &E,
    config: &EngineConfig,
    root: &Path,
) -> Result<(), EngineError> {
    let disk = env.disk();
    for directory in &config.log_dirs {
        let other = directory.join("journal");
        if other == root || !disk.exists(&other).await? {
            continue;
        }
        for entry in disk.list(&other).await? {
            let path = other.join(&entry.name);
            if entry.is_dir
                && read_properties(env, &path).await?.is_some()
                && read_values(env, &path.join(CLEAN_FILE)).await?.is_none()
            {
                return Err(EngineError::Damaged {
                    path: path.display().to_string(),
                    reason: "it is a journal that was not emptied, and not the configured one: put log.dirs and journal.dir back as they were, stop the broker cleanly, then change them".into(),
                });
            }
        }
    }
    Ok(())
}

async fn remove_journal<E: Environment>(env: &E, directory: &Path) -> io::Result<()> {
    let disk = env.disk();
    for entry in disk.list(directory).await? {
        disk.remove_file(&directory.join(&entry.name)).await?;
    }
    disk.remove_dir(directory).await
}

async fn read_properties<E: Environment>(
    env: &E,
    directory: &Path,
) -> Result<Option<JournalProperties>, EngineError> {
    let path = directory.join(IDENTITY_FILE);
    let Some(values) = read_values(env, &path).await? else {
        return Ok(None);
    };
    let number = |key: &str| {
        let found = values
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| *value);
        found.ok_or_else(|| EngineError::Damaged {
            path: path.display().to_string(),
            reason: format!("{key} is missing"),
        })
    };
    let format = number("format")? as u32;
    if format > FORMAT {
        return Err(EngineError::Format {
            path: path.display().to_string(),
            found: format,
            known: FORMAT,
        });
    }
    let identity = Identity {
        journal: number("journal")?,
        shard: number("shard")? as u32,
    };
    Ok(Some(JournalProperties {
        identity,
        shards: number("shards")? as u32,
    }))
}

/// Reads lines of `name=number`; `None` when there is no such file.
async fn read_values<E: Environment>(
    env: &E,
    path: &Path,
) -> Result<Option<Vec<(String, u64)>>, EngineError> {
    let bytes = match env.disk().read_small(path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let damaged = |reason: &str| EngineError::Damaged {
        path: path.display().to_string(),
        reason: reason.to_owned(),
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("not text"))?;
    let mut values = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| damaged("a line is not name=number"))?;
        values.push((
            name.to_owned(),
            value.parse().map_err(|_| damaged("a value is no number"))?,
        ));
    }
    Ok(Some(values))
}

/// Reads, or makes, the identity of this shard's journal directory.
pub(super) async fn journal_identity<E: Environment>(
    env: &E,
    config: &EngineConfig,
) -> Result<Identity, EngineError> {
    let directory = config.journal_path();
    create_directory(env, &directory).await?;
    if let Some(properties) = read_properties(env, &directory).await? {
        if properties.shards != config.shards || properties.identity.shard != config.shard {
            return Err(EngineError::Shards {
                path: directory.display().to_string(),
                found: properties.shards,
                configured: config.shards,
            });
        }
        // Whoever made it may have been killed before the names were durable.
        sync_names(env, config).await?;
        return Ok(properties.identity);
    }
    let identity = Identity {
        journal: env.random(),
        shard: config.shard,
    };
    let text = format!(
        "format={FORMAT}\njournal={}\nshard={}\nshards={}\n",
        identity.journal, identity.shard, config.shards
    );
    env.disk()
        .write_atomic(&directory.join(IDENTITY_FILE), text.as_bytes())
        .await?;
    sync_names(env, config).await?;
    Ok(identity)
}

/// Makes the names of the journal's files, of its directories and of the logs in the log directories durable.
async fn sync_names<E: Environment>(env: &E, config: &EngineConfig) -> io::Result<()> {
    let disk = env.disk();
    disk.sync_dir(&config.journal_path()).await?;
    disk.sync_dir(&config.journal_root()).await?;
    if let Some(above) = config.journal_root().parent() {
        disk.sync_dir(above).await?;
    }
    for directory in &config.log_dirs {
        if disk.exists(directory).await? {
            disk.sync_dir(directory).await?;
        }
    }
    Ok(())
}

fn clean_path(config: &EngineConfig) -> PathBuf {
    config.journal_path().join(CLEAN_FILE)
}

/// The last sequence of the journal, if the last stop was a clean one.
pub(super) async fn read_clean_marker<E: Environment>(
    env: &E,
    config: &EngineConfig,
) -> Result<Option<u64>, EngineError> {
    let values = match read_values(env, &clean_path(config)).await {
        Ok(values) => values,
        // A marker that makes no sense marks nothing.
        Err(EngineError::Damaged { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(values.and_then(|values| {
        values
            .iter()
            .find(|(name, _)| name == "sequence")
            .map(|(_, value)| *value)
    }))
}

/// Leaves the marker of a clean stop.
pub(super) async fn write_clean_marker<E: Environment>(
    env: &E,
    config: &EngineConfig,
    sequence: u64,
) -> io::Result<()> {
    env.disk()
        .write_atomic(
            &clean_path(config),
            format!("sequence={sequence}\n").as_bytes(),
        )
        .await
}

/// Removes it, durably.
pub(super) async fn remove_clean_marker<E: Environment>(
    env: &E,
    config: &EngineConfig,
) -> io::Result<()> {
    crate::log::ignore_missing(env.disk().remove_file(&clean_path(config)).await)?;
    env.disk().sync_dir(&config.journal_path()).await
}
