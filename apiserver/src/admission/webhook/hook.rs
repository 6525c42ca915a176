//! What a webhook configuration says, read once.

use std::time::Duration;

use api::field::Look;
use cel::Type;
use serde_json::Value;

use crate::admission::conditions::Conditions;
use crate::admission::expressions::Offered;
use crate::admission::matching::Matching;
use crate::http::webhook_client::WebhookClient;

/// One webhook.
#[derive(Debug)]
pub(super) struct Hook {
    pub name: String,
    /// The name of the object that it stands in.
    pub configuration: String,
    pub matching: Matching,
    pub conditions: Conditions,
    /// Whether a request goes on when the webhook cannot be asked.
    pub is_optional: bool,
    /// Whether it wants to see again what others change after it.
    pub is_reinvoked: bool,
    /// Whether it can be asked without consequences.
    pub is_harmless: bool,
    pub timeout: Duration,
    /// The version of `AdmissionReview` that it reads; `None` when it is none that there is.
    pub review_version: Option<&'static str>,
    pub client: WebhookClient,
}

impl Hook {
    /// The webhooks of a configuration, in their order.
    pub fn read_all(configuration: &Value) -> Vec<Self> {
        let name = api::object::name(configuration);
        configuration.items("webhooks").iter().map(|hook| Self::read(hook, name)).collect()
    }

    fn read(hook: &Value, configuration: &str) -> Self {
        let client = hook.get("clientConfig").unwrap_or(&Value::Null);
        let reviews = hook.items("admissionReviewVersions").iter().filter_map(Value::as_str);
        let seconds =
            hook.int("timeoutSeconds").and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(10);
        Self {
            name: hook.text("name").to_string(),
            configuration: configuration.to_string(),
            matching: Matching::of_webhook(hook),
            conditions: Conditions::read(hook, "", &Offered::new(Type::Dyn, None).with_authorizer()),
            is_optional: hook.text("failurePolicy") == "Ignore",
            is_reinvoked: hook.text("reinvocationPolicy") == "IfNeeded",
            is_harmless: ["None", "NoneOnDryRun"].contains(&hook.text("sideEffects")),
            timeout: Duration::from_secs(seconds.clamp(1, 30)),
            review_version: reviews
                .filter_map(|v| ["v1", "v1beta1"].into_iter().find(|known| *known == v))
                .next(),
            client: WebhookClient::read(client),
        }
    }
}
