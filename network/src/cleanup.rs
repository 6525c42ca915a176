//! Taking everything of an instance off the host.

use netlink::nft::{Batch, Family, apply, table_exists};
use netlink::route::RouteSocket;

use crate::names::{Names, PEER_ROUTE_PROTOCOL, POD_ROUTE_PROTOCOL};
use crate::{Error, forward};

/// Removes every device, route, address, table and rule of `instance` from the calling thread's network namespace. Files stay. What is
/// already gone is fine; the first real failure is reported after everything was tried.
///
/// Kernel parameters stay as they are: others may rely on them by now.
pub fn cleanup(instance: &str) -> Result<(), Error> {
    let names = Names::new(instance);
    let results = [
        ("devices", devices(&names)),
        ("addresses and routes", addresses_and_routes(&names)),
        ("table", table(&names)),
        ("rules in chains of others", forward::restore(&names)),
    ];
    let mut first = Ok(());
    for (what, result) in results {
        if let Err(error) = result {
            tracing::warn!(what, %error, "cannot clean up");
            first = first.and(Err(error));
        }
    }
    first
}

/// Names of what is left of `instance` in the calling thread's network namespace; empty after [`cleanup`].
pub fn leftovers(instance: &str) -> Result<Vec<String>, Error> {
    let names = Names::new(instance);
    let mut socket = RouteSocket::open()?;
    let prefix = names.alias_prefix();
    let mut left: Vec<String> = socket
        .links()?
        .into_iter()
        .filter(|l| l.alias.starts_with(&prefix))
        .map(|l| format!("device {}", l.name))
        .collect();
    let label = names.loopback_label();
    left.extend(
        socket
            .addresses()?
            .into_iter()
            .filter(|a| a.label == label)
            .map(|a| format!("address {}", a.address)),
    );
    if table_exists(Family::Ipv4, &names.table())? {
        left.push(format!("table {}", names.table()));
    }
    left.extend(
        forward::touched(&names)?.into_iter().map(|c| format!("rules in chain {} {}", c.table, c.chain)),
    );
    Ok(left)
}

fn devices(names: &Names) -> Result<(), Error> {
    let mut socket = RouteSocket::open()?;
    let prefix = names.alias_prefix();
    for link in socket.links()?.into_iter().filter(|link| link.alias.starts_with(&prefix)) {
        match socket.delete_link(&link.name) {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn addresses_and_routes(names: &Names) -> Result<(), Error> {
    let mut socket = RouteSocket::open()?;
    let label = names.loopback_label();
    for address in socket.addresses()?.iter().filter(|a| a.label == label) {
        socket.delete_address(address)?;
    }
    for protocol in [POD_ROUTE_PROTOCOL, PEER_ROUTE_PROTOCOL] {
        for route in socket.routes(protocol)? {
            socket.delete_route(&route)?;
        }
    }
    Ok(())
}

fn table(names: &Names) -> Result<(), Error> {
    Ok(apply(Batch::removal(Family::Ipv4, &names.table()))?)
}
