//! Storage classes, and what CSI drivers and the parts around them say of themselves.

use std::collections::BTreeSet;

use serde_json::Value;

use super::common::spec;
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{IMMUTABLE, Look, Touch, same_meaning},
    names,
    quantity::Quantity,
    selector,
};

const DRIVER_NAME_MAX: usize = 63;
const NODE_ID_MAX: usize = 192;
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const PERIOD_SECONDS_MIN: i64 = 10;

/// What is special about storage classes.
pub struct StorageClass;

impl Strategy for StorageClass {
    fn set_defaults(&self, object: &mut Value) {
        object.default_text("reclaimPolicy", "Delete");
        object.default_text("volumeBindingMode", "Immediate");
    }

    fn check(&self, object: &At) {
        provisioner(&object.field("provisioner"));
        parameters(&object.field("parameters"));
        object.field("reclaimPolicy").one_of(&["Delete", "Retain"]);
        object.field("volumeBindingMode").one_of(&["Immediate", "WaitForFirstConsumer"]);
        topologies(&object.field("allowedTopologies"));
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        new.fixed(old, &["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"]);
    }
}

/// What is special about classes of volume attributes.
pub struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn check(&self, object: &At) {
        provisioner(&object.field("driverName"));
        parameters(&object.field("parameters"));
        object.field("parameters").filled("must contain at least one key/value pair");
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        for name in ["driverName", "parameters"] {
            if !same_meaning(new.get(name), old.get(name)) {
                new.field(name).forbidden(&format!("updates to {name} are forbidden."));
            }
        }
    }
}

/// What is special about volume attachments.
pub struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn check(&self, object: &At) {
        const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        let spec = object.field("spec");
        driver_name(&spec.field("attacher"));
        let source = spec.field("source");
        match (source.given("inlineVolumeSpec"), source.given("persistentVolumeName")) {
            (None, None) => source.required(ONE),
            (Some(_), Some(_)) => source.forbidden(ONE),
            (None, Some(name)) => {
                name.filled("must specify non empty persistentVolumeName");
                name.form(names::dns1123_subdomain);
            }
            (Some(_), None) => {}
        }
        spec.field("nodeName").form(names::dns1123_subdomain);
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource.is_none() {
            new.fixed(old, &["spec"]);
        }
    }
}

/// What is special about CSI drivers.
pub struct CsiDriver;

impl Strategy for CsiDriver {
    fn check(&self, object: &At) {
        let spec = object.field("spec");
        spec.field("fsGroupPolicy").one_of(&["File", "None", "ReadWriteOnceWithFSType"]);
        let mut audiences = BTreeSet::new();
        spec.each("tokenRequests", |token| {
            let audience = token.field("audience");
            if !audiences.insert(audience.str()) {
                return audience.duplicate_value(audience.str());
            }
            token_seconds(&token.field("expirationSeconds"));
        });
        let modes = spec.field("volumeLifecycleModes");
        for mode in modes.list() {
            modes.with(mode).among(&["Ephemeral", "Persistent"]);
        }
        let detail = "must be greater than or equal to 10 seconds";
        spec.field("nodeAllocatableUpdatePeriodSeconds").within(PERIOD_SECONDS_MIN.., detail);
        spec.optional("serviceAccountTokenInSecrets", |flag| {
            if spec.items("tokenRequests").is_empty() {
                flag.invalid("serviceAccountTokenInSecrets is set but no tokenRequests are specified");
            }
        });
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        let (new, old) = (new.field("spec"), spec(old));
        // Upstream's path of the first says `attachedRequired`.
        for (name, said) in
            [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            if !same_meaning(new.get(name), old.get(name)) {
                new.field(said).invalid_value(new.field(name).value().clone(), IMMUTABLE);
            }
        }
    }
}

/// What is special about nodes as CSI drivers know them.
pub struct CsiNode;

impl Strategy for CsiNode {
    fn check(&self, object: &At) {
        let mut seen = BTreeSet::new();
        object.field("spec.drivers").elements().for_each(|driver| {
            driver_name(&driver.field("name"));
            let id = driver.field("nodeID");
            id.filled("");
            if id.str().len() > NODE_ID_MAX {
                id.invalid(format!("must be {NODE_ID_MAX} characters or less"));
            }
            driver.non_negative(&["allocatable.count"]);
            driver.field("name").unique(&mut seen);
            let mut keys = BTreeSet::new();
            for key in driver.items("topologyKeys") {
                let key = driver.with(key);
                key.unique(&mut keys);
                key.form(names::qualified_name);
            }
        });
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        // What is left of a driver when the number of its volumes, which may change, is set aside.
        let identity = |driver: &Value| {
            let mut driver = driver.clone();
            driver.drop_field("allocatable");
            driver
        };
        let drivers = new.field("spec.drivers");
        for before in spec(old).items("drivers") {
            for now in drivers.list().iter().filter(|d| d.text("name") == before.text("name")) {
                if !same_meaning(Some(&identity(now)), Some(&identity(before))) {
                    drivers.with(&identity(now)).immutable();
                }
            }
        }
    }
}

/// What is special about the storage that is left.
pub struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn check(&self, object: &At) {
        object.optional("nodeTopology", selector::check);
        object.field("storageClassName").form(names::dns1123_subdomain);
        if let Some(capacity) = object.at("capacity").and_then(|c| Quantity::from_json(c).ok())
            && capacity.is_negative()
        {
            let detail = "must be greater than or equal to 0";
            object.field("capacity").invalid_value(capacity.to_string(), detail);
        }
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        new.fixed(old, &["nodeTopology", "storageClassName"]);
    }
}

/// The name of a CSI driver.
pub(super) fn driver_name(name: &At) {
    name.filled("");
    name.at_most_bytes(DRIVER_NAME_MAX);
    if !name.is_empty() {
        name.invalid_each(name.str(), names::dns1123_subdomain(&name.str().to_lowercase()));
    }
}

/// How long a service account's token is to live.
pub(super) fn token_seconds(seconds: &At) {
    seconds.within(TOKEN_SECONDS_MIN.., "may not specify a duration less than 10 minutes");
    seconds.within(..=TOKEN_SECONDS_MAX, "may not specify a duration larger than 2^32 seconds");
}

fn provisioner(name: &At) {
    name.name(|name| names::qualified_name(&name.to_lowercase()));
}

fn parameters(parameters: &At) {
    let count = parameters.as_object().map_or(0, serde_json::Map::len);
    if count > PARAMETERS_MAX {
        return parameters.too_long(PARAMETERS_MAX);
    }
    let mut bytes = 0;
    for (key, value) in parameters.members() {
        if key.is_empty() {
            parameters.invalid_value(key, "field can not be empty.");
        }
        bytes += key.len() + value.str().len();
    }
    if bytes > PARAMETERS_BYTES_MAX {
        parameters.too_long(PARAMETERS_BYTES_MAX);
    }
}

fn topologies(terms: &At) {
    for (at, term) in terms.elements().enumerate() {
        let expressions = term.field("matchLabelExpressions");
        let mut keys = BTreeSet::new();
        for expression in expressions.elements() {
            let values = expression.field("values");
            values.filled("");
            let mut seen = BTreeSet::new();
            values.elements().for_each(|value| value.unique(&mut seen));
            let key = expression.field("key");
            key.form(names::qualified_name);
            key.unique(&mut keys);
        }
        if terms.list().iter().take(at).any(|before| same_meaning(Some(before), Some(term.value()))) {
            expressions.duplicate_value("");
        }
    }
}
