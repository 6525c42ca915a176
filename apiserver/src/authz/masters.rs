//! The group that may do everything, so that a cluster can be repaired whatever its roles say.

use async_trait::async_trait;

use super::{Attributes, Authorizer, Decision};
use crate::auth::MASTERS;

/// Allows everything to `system:masters`.
#[derive(Debug, Default)]
pub struct Masters;

#[async_trait]
impl Authorizer for Masters {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(MASTERS) {
            return Decision::Allow("member of system:masters".to_string());
        }
        Decision::NoOpinion(String::new())
    }
}
