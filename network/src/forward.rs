//! Other people's firewalls that drop what is forwarded.
//!
//! Docker and ufw set the policy of the FORWARD chain to DROP. A table of ours cannot overrule that, as every chain at a hook
//! has to accept; so two rules are put first in theirs, found again by their comment. Rules of the old (not nf_tables)
//! iptables cannot be seen from here; if that is in use, it is said.

use std::fs;

use netlink::Cidr;
use netlink::nft::{
    Compare, Expression, ForwardDrop, PayloadBase, Reg, Rule, Verdict, comments_in_chain,
    delete_rules_commented, forward_drops, insert_rule,
};

use crate::Error;
use crate::names::Names;

/// Lets packets from and to pods through chains that drop by policy.
pub(crate) fn allow(names: &Names, cluster: Cidr) -> Result<(), Error> {
    warn_of_legacy_iptables();
    let comment = names.foreign_rule_comment();
    for chain in forward_drops()? {
        if comments_in_chain(&chain)?.iter().any(|(_, c)| *c == comment) {
            continue;
        }
        tracing::info!(
            table = chain.table,
            chain = chain.chain,
            "this host drops forwarded packets by policy (Docker and ufw do that); adding rules that let the pods' through"
        );
        for offset in [12, 16] {
            insert_rule(&chain, &accept(offset, cluster, &comment))?;
        }
    }
    Ok(())
}

/// Takes the rules away again.
pub(crate) fn restore(names: &Names) -> Result<(), Error> {
    for chain in forward_drops()? {
        delete_rules_commented(&chain, &names.foreign_rule_comment())?;
    }
    Ok(())
}

/// Chains of others that have our rules; for leak checks.
pub(crate) fn touched(names: &Names) -> Result<Vec<ForwardDrop>, Error> {
    let comment = names.foreign_rule_comment();
    let mut touched = Vec::new();
    for chain in forward_drops()? {
        if comments_in_chain(&chain)?.iter().any(|(_, c)| *c == comment) {
            touched.push(chain);
        }
    }
    Ok(touched)
}

fn accept(offset: u32, cluster: Cidr, comment: &str) -> Rule {
    // The chain may see IPv6 too (family inet); there these bytes are part of an address and match by accident at most.
    Rule::new(vec![
        Expression::Payload { base: PayloadBase::Network, offset, len: 4, to: Reg(0) },
        Expression::Bits { reg: Reg(0), mask: cluster.mask().to_vec(), flip: vec![0; 4] },
        Expression::Compare { reg: Reg(0), how: Compare::Equal, with: cluster.first().octets().to_vec() },
        Expression::Verdict(Verdict::Accept),
    ])
    .comment(comment)
}

fn warn_of_legacy_iptables() {
    if fs::read_to_string("/proc/thread-self/net/ip_tables_names")
        .is_ok_and(|names| names.lines().any(|l| l == "filter"))
    {
        tracing::warn!(
            "legacy iptables rules are in use on this host; if their FORWARD policy is DROP, pods cannot reach each other \
             across nodes until you allow it: iptables-legacy -P FORWARD ACCEPT"
        );
    }
}
