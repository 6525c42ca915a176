//! Address leases: one file per leased address, named after it.
//!
//! Guarantees: an address is leased to one sandbox at a time, also between processes (the agent and the CNI plugin), because
//! a lease appears by linking a complete file to the address's name, which succeeds once; asking again for a sandbox gives the
//! same address; leases outlive the processes. Released addresses are reused as late as possible.
//!
//! Leases are not synced to the disk: after a crash of the machine there are no sandboxes either, and a lease whose device
//! is missing is void (see [`Leases::void`]).

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use netlink::Cidr;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::request::PortMapping;

/// The first addresses of a node's range: its own on the overlay, and one that people take for a gateway.
const RESERVED: u32 = 2;

/// An address and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The sandbox.
    pub id: String,
    /// Namespace and name of the pod, for people.
    pub pod: String,
    /// Ports of the host that lead to the pod.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// The leases of a directory.
#[derive(Debug)]
pub struct Leases {
    directory: PathBuf,
    lock: File,
    cache: Mutex<Cache>,
}

/// What the files say, as of `generation`.
#[derive(Debug, Default)]
struct Cache {
    generation: Option<u64>,
    by_address: BTreeMap<Ipv4Addr, Lease>,
    by_id: HashMap<String, Ipv4Addr>,
}

/// The lock file's content: raised before every change, so that other processes notice; and the address leased last.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    generation: u64,
    last: u32,
}

impl Leases {
    /// Opens or makes the directory.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(Error::file(directory))?;
        let path = directory.join("lock");
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(Error::file(&path))?;
        Ok(Self { directory: directory.to_owned(), lock, cache: Mutex::default() })
    }

    /// Leases an address of `pool`, or finds the one that the sandbox has. The address in `wanted` is ignored.
    /// The flag says whether the lease is new.
    pub fn reserve(&self, pool: Cidr, wanted: Lease) -> Result<(Lease, bool), Error> {
        self.locked(|cache, stamp| {
            if let Some(lease) = cache.by_id.get(&wanted.id).and_then(|address| cache.by_address.get(address))
            {
                return Ok((lease.clone(), false));
            }
            let address = next_free(pool, stamp.last, &cache.by_address).ok_or(Error::Exhausted(pool))?;
            let lease = Lease { address, created_ms: now_ms(), ..wanted };
            self.write_stamp(Stamp { generation: stamp.generation + 1, last: address.to_bits() })?;
            self.write(&lease)?;
            cache.generation = Some(stamp.generation + 1);
            cache.insert(lease.clone());
            Ok((lease, true))
        })
    }

    /// Ends the lease of a sandbox; without one, nothing happens.
    pub fn release(&self, id: &str) -> Result<Option<Lease>, Error> {
        self.locked(|cache, stamp| {
            let Some(address) = cache.by_id.get(id).copied() else { return Ok(None) };
            self.write_stamp(Stamp { generation: stamp.generation + 1, ..stamp })?;
            remove_if_present(&self.path(address))?;
            cache.generation = Some(stamp.generation + 1);
            cache.by_id.remove(id);
            Ok(cache.by_address.remove(&address))
        })
    }

    /// The lease of a sandbox.
    pub fn of(&self, id: &str) -> Result<Option<Lease>, Error> {
        self.locked(|cache, _| {
            Ok(cache.by_id.get(id).and_then(|address| cache.by_address.get(address)).cloned())
        })
    }

    /// All leases, by address.
    pub fn all(&self) -> Result<Vec<Lease>, Error> {
        self.locked(|cache, _| Ok(cache.by_address.values().cloned().collect()))
    }

    /// The leases made before `as_of` that `is_live` denies: leaks to be released.
    pub fn void(&self, as_of: SystemTime, is_live: impl Fn(&Lease) -> bool) -> Result<Vec<Lease>, Error> {
        let before =
            as_of.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        Ok(self.all()?.into_iter().filter(|lease| lease.created_ms < before && !is_live(lease)).collect())
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Cache, Stamp) -> Result<T, Error>) -> Result<T, Error> {
        let mut cache = self.cache.lock();
        let lock_path = self.directory.join("lock");
        self.lock.lock().map_err(Error::file(&lock_path))?;
        let result = self.read_stamp().and_then(|stamp| {
            if cache.generation != Some(stamp.generation) {
                *cache = self.load(stamp.generation)?;
            }
            work(&mut cache, stamp)
        });
        if result.is_err() {
            // Whatever was half done: look at the files again next time.
            cache.generation = None;
        }
        self.lock.unlock().map_err(Error::file(&lock_path))?;
        result
    }

    fn load(&self, generation: u64) -> Result<Cache, Error> {
        let mut cache = Cache { generation: Some(generation), ..Cache::default() };
        for entry in fs::read_dir(&self.directory).map_err(Error::file(&self.directory))? {
            let entry = entry.map_err(Error::file(&self.directory))?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse::<Ipv4Addr>().ok())
            else {
                continue;
            };
            let bytes = fs::read(entry.path()).map_err(Error::file(entry.path()))?;
            match serde_json::from_slice::<Lease>(&bytes) {
                Ok(lease) if lease.address == address => cache.insert(lease),
                // Only a crash of the machine leaves such a file, and then its sandbox is gone too.
                _ => {
                    tracing::warn!(path = %entry.path().display(), "removing an unreadable address lease");
                    remove_if_present(&entry.path())?;
                }
            }
        }
        Ok(cache)
    }

    fn write(&self, lease: &Lease) -> Result<(), Error> {
        let temporary = self.directory.join(".new");
        let path = self.path(lease.address);
        let json = serde_json::to_vec(lease).map_err(|e| Error::Invalid(e.to_string()))?;
        fs::write(&temporary, json).map_err(Error::file(&temporary))?;
        fs::hard_link(&temporary, &path).map_err(Error::file(&path))?;
        remove_if_present(&temporary)
    }

    fn path(&self, address: Ipv4Addr) -> PathBuf {
        self.directory.join(address.to_string())
    }

    fn read_stamp(&self) -> Result<Stamp, Error> {
        let mut bytes = [0_u8; 12];
        let read = self.lock.read_at(&mut bytes, 0).map_err(Error::file(self.directory.join("lock")))?;
        let (generation, last) = bytes.split_at(8);
        Ok(match (read, generation.try_into(), last.try_into()) {
            (12, Ok(generation), Ok(last)) => {
                Stamp { generation: u64::from_be_bytes(generation), last: u32::from_be_bytes(last) }
            }
            _ => Stamp { generation: 0, last: 0 },
        })
    }

    fn write_stamp(&self, stamp: Stamp) -> Result<(), Error> {
        let bytes = [&stamp.generation.to_be_bytes()[..], &stamp.last.to_be_bytes()[..]].concat();
        self.lock.write_all_at(&bytes, 0).map_err(Error::file(self.directory.join("lock")))
    }
}

impl Cache {
    fn insert(&mut self, lease: Lease) {
        self.by_id.insert(lease.id.clone(), lease.address);
        self.by_address.insert(lease.address, lease);
    }
}

/// The first free address after `last`, around the pool once.
fn next_free(pool: Cidr, last: u32, taken: &BTreeMap<Ipv4Addr, Lease>) -> Option<Ipv4Addr> {
    let first = pool.first().to_bits().checked_add(RESERVED)?;
    let end = pool.last().to_bits().checked_sub(1)?;
    let start = if (first..end).contains(&last) { last + 1 } else { first };
    (start..=end).chain(first..start).map(Ipv4Addr::from_bits).find(|address| !taken.contains_key(address))
}

fn remove_if_present(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(()),
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn wanted(id: &str) -> Lease {
        Lease {
            address: Ipv4Addr::UNSPECIFIED,
            id: id.to_owned(),
            pod: "default/web".to_owned(),
            port_mappings: Vec::new(),
            created_ms: 0,
        }
    }

    #[test]
    fn a_sandbox_should_keep_its_address_and_a_released_one_should_come_back_last() {
        let directory = tempfile::tempdir().unwrap();
        let pool: Cidr = "10.1.0.0/29".parse().unwrap();
        let leases = Leases::open(directory.path()).unwrap();
        let (first, new) = leases.reserve(pool, wanted("a")).unwrap();
        assert_eq!((first.address, new), (Ipv4Addr::new(10, 1, 0, 2), true));
        assert_eq!(leases.reserve(pool, wanted("a")).unwrap(), (first, false));
        leases.release("a").unwrap();
        let order = (0..5).map(|n| {
            let (lease, _) = leases.reserve(pool, wanted(&n.to_string())).unwrap();
            lease.address.octets()[3]
        });
        assert_eq!(order.collect::<Vec<_>>(), [3, 4, 5, 6, 2]);
        assert!(matches!(leases.reserve(pool, wanted("x")), Err(Error::Exhausted(_))));
        assert!(leases.release("unknown").unwrap().is_none());
    }

    #[test]
    fn leases_should_survive_a_restart_and_an_unfinished_write_should_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let pool: Cidr = "10.1.0.0/24".parse().unwrap();
        let address = Leases::open(directory.path()).unwrap().reserve(pool, wanted("a")).unwrap().0.address;
        fs::write(directory.path().join(".new"), "{").unwrap();
        fs::write(directory.path().join("10.1.0.77"), "").unwrap();
        let leases = Leases::open(directory.path()).unwrap();
        assert_eq!(leases.of("a").unwrap().unwrap().address, address);
        assert_eq!(leases.all().unwrap().len(), 1);
        assert_eq!(leases.reserve(pool, wanted("b")).unwrap().0.address, Ipv4Addr::new(10, 1, 0, 3));
    }

    #[test]
    fn processes_and_threads_should_never_get_the_same_address() {
        let directory = tempfile::tempdir().unwrap();
        let pool: Cidr = "10.1.0.0/24".parse().unwrap();
        let addresses = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            // Every handle has its own lock and cache, as another process would.
            for process in 0..4 {
                let (directory, addresses) = (directory.path(), &addresses);
                scope.spawn(move || {
                    let leases = Leases::open(directory).unwrap();
                    std::thread::scope(|scope| {
                        for thread in 0..4 {
                            let leases = &leases;
                            scope.spawn(move || {
                                for n in 0..12 {
                                    let id = format!("{process}-{thread}-{n}");
                                    let (lease, _) = leases.reserve(pool, wanted(&id)).unwrap();
                                    addresses.lock().push(lease.address);
                                }
                            });
                        }
                    });
                });
            }
        });
        let addresses = addresses.into_inner();
        assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 192);
        assert_eq!(Leases::open(directory.path()).unwrap().all().unwrap().len(), addresses.len());
    }

    #[test]
    fn only_leases_older_than_the_census_should_count_as_leaked() {
        let directory = tempfile::tempdir().unwrap();
        let pool: Cidr = "10.1.0.0/24".parse().unwrap();
        let leases = Leases::open(directory.path()).unwrap();
        let before = SystemTime::now();
        for id in ["live", "dead"] {
            leases.reserve(pool, wanted(id)).unwrap();
        }
        assert!(leases.void(before, |_| false).unwrap().is_empty());
        let later = before + std::time::Duration::from_secs(60);
        let void = leases.void(later, |lease| lease.id == "live").unwrap();
        assert_eq!(void.iter().map(|l| l.id.as_str()).collect::<Vec<_>>(), ["dead"]);
    }
}
