//! `make bench`: what the API server does in a second, and what it costs, over both stores; docs/benchmarks.md explains it.
//!
//! With `REFERENCE_KUBECONFIG` and `REFERENCE_PIDS=1,2` another server is measured in the same run. Its processes are then
//! only read, and what the load made is deleted again. The loads are bounded, and go over TLS on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod load;
mod server;

use load::Rate;
use server::Server;

#[tokio::main]
async fn main() {
    let etcd = tempfile::tempdir().unwrap();
    let servers = [Server::embedded, Server::over_etcd]
        .into_iter()
        .map(|start| start(etcd.path()))
        .chain(Server::reference());
    let mut columns: Vec<(String, Vec<(&'static str, Rate)>)> = Vec::new();
    for server in servers {
        eprintln!("measuring {}", server.name);
        server.answers().await;
        let resident_idle = server.resident_mb();
        let rates = load::run(&server).await;
        eprintln!(
            "{}: {resident_idle} MB resident at rest, {} MB after the load",
            server.name,
            server.resident_mb()
        );
        columns.push((server.name.clone(), rates));
    }
    print(&columns);
}

/// A row for each kind of work, a column for each server.
fn print(columns: &[(String, Vec<(&'static str, Rate)>)]) {
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    println!("| work | {} |\n| --- |{}", names.join(" | "), " --- |".repeat(names.len()));
    for (index, (work, _)) in columns[0].1.iter().enumerate() {
        let cells: Vec<String> = columns.iter().map(|(_, rates)| rates[index].1.to_string()).collect();
        println!("| {work} | {} |", cells.join(" | "));
    }
}
