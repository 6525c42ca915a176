//! `gantry store`: copies of the data, checks, and the move to another store. See docs/store.md.

use std::collections::BTreeMap;
use std::path::Path;

use store::Contents;
use store::care::{self, Place};

use crate::cli::{CommonOptions, SnapshotAction, StoreAction};
use crate::settings::Settings;
use crate::store_place;

/// How many kinds `status` names.
const KINDS_SHOWN: usize = 10;

pub fn run(action: StoreAction) -> anyhow::Result<()> {
    let workers = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    workers.block_on(async {
        match action {
            StoreAction::Snapshot { action: SnapshotAction::Save { file, from, common } } => {
                save(&file, &place(&common, from.as_deref())?).await
            }
            StoreAction::Snapshot { action: SnapshotAction::Status { file } } => status(&file).await,
            StoreAction::Snapshot { action: SnapshotAction::Restore { file, to, bump_revision, common } } => {
                restore(&file, &place(&common, to.as_deref())?, bump_revision).await
            }
            StoreAction::Verify { common } => verify(&place(&common, None)?).await,
            StoreAction::Migrate { from, to, common } => {
                let (from, to) = (place(&common, from.as_deref())?, place(&common, Some(&to))?);
                migrate(&from, &to).await
            }
        }
    })
}

fn place(common: &CommonOptions, text: Option<&str>) -> anyhow::Result<Place> {
    let settings = Settings::resolve(common)?;
    text.map_or_else(|| Ok(store_place::configured(&settings)), |text| store_place::parse(&settings, text))
}

async fn save(file: &Path, from: &Place) -> anyhow::Result<()> {
    let contents = care::read(from).await?;
    let summary = summary(&contents);
    let bytes = care::save(contents, file).await?;
    println!("saved {summary} from {from}\nto {} ({})", file.display(), size(bytes));
    Ok(())
}

async fn status(file: &Path) -> anyhow::Result<()> {
    let contents = care::load(file).await?;
    println!("{} is whole: {}", file.display(), summary(&contents));
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for entry in contents.entries.values() {
        let (count, bytes) = kinds.entry(kind_of(&entry.key)).or_default();
        *count += 1;
        *bytes += entry.value.len();
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    for (kind, (count, bytes)) in kinds.iter().take(KINDS_SHOWN) {
        println!("{count:>8}  {:>10}  {kind}", size(*bytes as u64));
    }
    if kinds.len() > KINDS_SHOWN {
        println!("          and {} kinds more", kinds.len() - KINDS_SHOWN);
    }
    Ok(())
}

async fn restore(file: &Path, to: &Place, bump: u64) -> anyhow::Result<()> {
    let contents = care::load(file).await?;
    let (summary, floor) = (summary(&contents), contents.revision.saturating_add(bump));
    let revision = care::restore(contents, to, floor).await?;
    println!("restored {summary}\nto {to}, which goes on at revision {revision}");
    Ok(())
}

async fn verify(place: &Place) -> anyhow::Result<()> {
    let Place::Directory(directory) = place else {
        anyhow::bail!("etcd checks its data itself: etcdctl check, etcdctl endpoint hashkv");
    };
    let contents = care::verify(directory).await?;
    println!("{} is sound: {}", directory.display(), summary(&contents));
    Ok(())
}

async fn migrate(from: &Place, to: &Place) -> anyhow::Result<()> {
    let moved = care::migrate(from, to).await?;
    println!("moved {} keys from {from}, which was at revision {}", moved.keys, moved.from);
    println!("to {to}, which goes on at revision {}", moved.to);
    println!("What is at the old place stays there: start no server on it any more.");
    Ok(())
}

fn summary(contents: &Contents) -> String {
    let (keys, bytes) = (contents.entries.len(), contents.bytes() as u64);
    format!("{keys} keys ({}) at revision {}", size(bytes), contents.revision)
}

/// `core/pods` of `/registry/core/pods/default/web`.
fn kind_of(key: &str) -> &str {
    let rest = key.strip_prefix("/registry/").unwrap_or(key);
    rest.match_indices('/').nth(1).and_then(|(end, _)| rest.get(..end)).unwrap_or(rest)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_by_kind() {
        assert_eq!(kind_of("/registry/core/pods/default/web"), "core/pods");
        assert_eq!(kind_of("/registry/core/nodes/n1"), "core/nodes");
        assert_eq!(kind_of("/other"), "/other");
        assert_eq!((size(5), size(2048), size(3 << 20)), ("5 B".into(), "2.0 KiB".into(), "3.0 MiB".into()));
    }
}
