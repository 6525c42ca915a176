//! `make bench`: what the API server does in a second, and what it costs, over both stores; docs/benchmarks.md explains it.
//!
//! With `REFERENCE_KUBECONFIG` and `REFERENCE_PIDS=1,2` another server is measured in the same run. Its processes are then
//! only read, and what the load made is deleted again. The loads are bounded, and go over TLS on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod load;
mod server;

use load::Rate;
use server::Server;

/// What a server takes, in bytes.
struct Memory {
    at_rest: usize,
    after_the_load: usize,
    /// The objects that it holds then, as JSON.
    held: usize,
    /// Of that, and beside it, what it remembers of changes.
    history: usize,
}

impl Memory {
    /// How many bytes it takes for each byte that it holds.
    fn ratio(&self) -> f64 {
        self.after_the_load.saturating_sub(self.at_rest) as f64 / self.held as f64
    }
}

/// What was measured of a server.
struct Column {
    name: String,
    rates: Vec<(&'static str, Rate)>,
    memory: Memory,
}

#[tokio::main]
async fn main() {
    let etcd = tempfile::tempdir().unwrap();
    let servers = [Server::embedded, Server::over_etcd]
        .into_iter()
        .map(|start| start(etcd.path()))
        .chain(Server::reference());
    let mut columns = Vec::new();
    for server in servers {
        eprintln!("measuring {}", server.name);
        server.answers().await;
        let at_rest = server.resident_bytes();
        let rates = load::run(&server).await;
        let after_the_load = server.resident_bytes();
        let (held, history) = (load::held_bytes(&server).await, load::history_bytes(&server).await);
        load::clean_up(&server).await;
        let memory = Memory { at_rest, after_the_load, held, history };
        columns.push(Column { name: server.name.clone(), rates, memory });
    }
    print(&columns);
}

/// A row for each kind of work and of memory, a column for each server.
fn print(columns: &[Column]) {
    let row = |name: &str, cell: &dyn Fn(&Column) -> String| {
        println!("| {name} | {} |", columns.iter().map(cell).collect::<Vec<_>>().join(" | "));
    };
    row("work", &|column| column.name.clone());
    row("---", &|_| "---".to_string());
    for (index, (work, _)) in columns[0].rates.iter().enumerate() {
        row(work, &|column| column.rates[index].1.to_string());
    }
    let megabytes = |bytes: usize| format!("{:.1} MB", bytes as f64 / 1e6);
    row("resident at rest", &|column| megabytes(column.memory.at_rest));
    row("resident after the load", &|column| megabytes(column.memory.after_the_load));
    row("objects held then, as JSON", &|column| megabytes(column.memory.held));
    row("changes remembered then", &|column| megabytes(column.memory.history));
    row("what was added by the load / objects held", &|column| format!("{:.1}", column.memory.ratio()));
}
