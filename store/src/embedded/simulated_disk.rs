//! A file system in memory that fails on request and loses power as badly as the rules in [`super::disk`] allow.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

/// The file system. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub(super) struct SimulatedDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    random: SmallRng,
    files: Vec<FileState>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// What happened to names since the last sync of their directory.
    pending_names: Vec<NameChange>,
    /// How many operations that change something were asked for.
    operations: usize,
    faults: HashMap<usize, io::ErrorKind>,
    /// From this operation on, everything fails, and how.
    halts_at: usize,
    halts_with: io::ErrorKind,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, written) => {
                bytes.resize(bytes.len().max(offset + written.len()), 0);
                bytes[*offset..offset + written.len()].copy_from_slice(written);
            }
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }

    /// Leaves on disk what happened to get there.
    fn apply_some(&self, bytes: &mut Vec<u8>, random: &mut SmallRng) {
        let Self::Write(offset, written) = self else {
            return if random.random() {
                self.apply(bytes)
            };
        };
        let likely = random.random_range(0.0..=1.0);
        let (mut start, end) = (*offset, offset + written.len());
        while start < end {
            let sector_end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            if random.random_bool(likely) {
                Self::Write(start, written[start - offset..sector_end - offset].to_vec()).apply(bytes);
            }
            start = sector_end;
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, file) => drop(names.insert(path.clone(), *file)),
            Self::Unlink(path) => drop(names.remove(path)),
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            random: SmallRng::seed_from_u64(seed),
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            operations: 0,
            faults: HashMap::new(),
            halts_at: usize::MAX,
            halts_with: io::ErrorKind::Other,
        })))
    }

    /// From that many operations from now on, everything fails, as if the process were gone.
    pub(super) fn halt_after(&self, operations: usize) {
        let mut inner = self.0.lock();
        inner.halts_at = inner.operations + operations;
        inner.halts_with = io::ErrorKind::Other;
    }

    /// From now on nothing can be changed.
    pub(super) fn protect(&self) {
        self.halt_after(0);
        self.0.lock().halts_with = io::ErrorKind::ReadOnlyFilesystem;
    }

    /// The operation that many from now fails, once.
    pub(super) fn fail_after(&self, operations: usize, kind: io::ErrorKind) {
        let mut inner = self.0.lock();
        let at = inner.operations + operations;
        inner.faults.insert(at, kind);
    }

    /// Nothing fails any more.
    pub(super) fn heal(&self) {
        let mut inner = self.0.lock();
        inner.faults.clear();
        inner.halts_at = usize::MAX;
    }

    /// Loses everything that was not synced, or not quite everything.
    pub(super) fn cut_power(&self) {
        let inner = &mut *self.0.lock();
        for change in inner.pending_names.drain(..) {
            if inner.random.random() {
                change.apply(&mut inner.durable_names);
            }
        }
        inner.names = inner.durable_names.clone();
        for file in &mut inner.files {
            for change in file.pending.drain(..) {
                change.apply_some(&mut file.durable, &mut inner.random);
            }
            file.bytes = file.durable.clone();
        }
    }

    /// All files with what is in them.
    pub(super) fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let inner = self.0.lock();
        inner.names.iter().map(|(path, file)| (path.clone(), inner.files[*file].bytes.clone())).collect()
    }

    /// A disk that holds these files, durably.
    pub(super) fn holding(contents: &BTreeMap<PathBuf, Vec<u8>>) -> Self {
        let disk = Self::new(0);
        {
            let inner = &mut *disk.0.lock();
            for (index, (path, bytes)) in contents.iter().enumerate() {
                inner.names.insert(path.clone(), index);
                let (bytes, durable) = (bytes.clone(), bytes.clone());
                inner.files.push(FileState { bytes, durable, pending: Vec::new() });
            }
            inner.durable_names = inner.names.clone();
        }
        disk
    }
}

impl Inner {
    fn operation(&mut self) -> io::Result<()> {
        let at = self.operations;
        self.operations += 1;
        match self.faults.remove(&at) {
            _ if at >= self.halts_at => Err(self.halts_with.into()),
            Some(kind) => Err(io::Error::new(kind, "a simulated fault")),
            None => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, file: usize, change: Change) {
        change.apply(&mut self.files[file].bytes);
        self.files[file].pending.push(change);
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }
}

impl Disk for SimulatedDisk {
    fn make_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.0.lock();
        let names = inner.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        let inner = self.0.lock();
        let file = inner.find(path)?;
        Ok(Box::new(Cursor::new(inner.files[file].bytes.clone())))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.0.lock();
        inner.operation()?;
        let file = match inner.find(path) {
            Ok(file) => file,
            Err(_) => {
                inner.files.push(FileState::default());
                let file = inner.files.len() - 1;
                inner.change_name(NameChange::Link(path.to_owned(), file));
                file
            }
        };
        inner.change(file, Change::Length(0));
        Ok(Box::new(SimulatedFile { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.0.lock().find(path)?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.operation()?;
        let file = inner.find(from)?;
        inner.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.operation()?;
        inner.find(path)?;
        inner.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        let inner = &mut *self.0.lock();
        inner.operation()?;
        inner.pending_names.clear();
        inner.durable_names = inner.names.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    file: usize,
}

impl DiskFile for SimulatedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        let offset = usize::try_from(offset).unwrap();
        if let Err(error) = inner.operation() {
            // A failed write may have got anywhere short of its end, by sectors.
            let end = offset + inner.random.random_range(0..=bytes.len().saturating_sub(1));
            let part = (end / SECTOR_BYTES * SECTOR_BYTES).saturating_sub(offset);
            inner.change(self.file, Change::Write(offset, bytes[..part].to_vec()));
            return Err(error);
        }
        inner.change(self.file, Change::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.operation()?;
        inner.change(self.file, Change::Length(usize::try_from(length).unwrap()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let inner = &mut *self.disk.0.lock();
        let result = inner.operation();
        let file = &mut inner.files[self.file];
        for change in file.pending.drain(..) {
            match result {
                Ok(()) => change.apply(&mut file.durable),
                // What did not get there is forgotten: it stays readable, and no later sync writes it.
                Err(_) => change.apply_some(&mut file.durable, &mut inner.random),
            }
        }
        result
    }
}
