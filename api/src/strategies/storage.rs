//! Storage classes, and what CSI drivers and the parts around them say of themselves.

use std::collections::BTreeSet;

use serde_json::Value;

use super::common::{Seen, immutable, one_of, spec};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, IMMUTABLE, Look, Path, PathExt, Touch, same_meaning},
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

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        provisioner(&mut errors, &Path::ROOT.field("provisioner"), object.text("provisioner"));
        parameters(&mut errors, object);
        one_of(&mut errors, &Path::ROOT.field("reclaimPolicy"), object, &["Delete", "Retain"]);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        one_of(&mut errors, &Path::ROOT.field("volumeBindingMode"), object, &modes);
        topologies(&mut errors, object.items("allowedTopologies"));
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let fixed = ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"];
        immutable(&mut errors, &Path::ROOT, new, old, &fixed);
        errors.into_vec()
    }
}

/// What is special about classes of volume attributes.
pub struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        provisioner(&mut errors, &Path::ROOT.field("driverName"), object.text("driverName"));
        parameters(&mut errors, object);
        if object.entries("parameters").next().is_none() {
            errors.required(&Path::ROOT.field("parameters"), "must contain at least one key/value pair");
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for name in ["driverName", "parameters"] {
            if !same_meaning(new.get(name), old.get(name)) {
                errors.forbidden(&Path::ROOT.field(name), &format!("updates to {name} are forbidden."));
            }
        }
        errors.into_vec()
    }
}

/// What is special about volume attachments.
pub struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", serde_json::json!({"attached": false}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        driver_name(&mut errors, &path.field("attacher"), spec.text("attacher"));
        let source = spec.get("source").unwrap_or(&Value::Null);
        let source_path = path.field("source");
        const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (source.at("inlineVolumeSpec"), source.at("persistentVolumeName")) {
            (None, None) => errors.required(&source_path, ONE),
            (Some(_), Some(_)) => errors.forbidden(&source_path, ONE),
            (None, Some(name)) => {
                let name = name.as_str().unwrap_or_default();
                let path = source_path.field("persistentVolumeName");
                if name.is_empty() {
                    errors.required(&path, "must specify non empty persistentVolumeName");
                }
                errors.invalid_each(&path, name, names::dns1123_subdomain(name));
            }
            (Some(_), None) => {}
        }
        let node = spec.text("nodeName");
        errors.invalid_each(&path.field("nodeName"), node, names::dns1123_subdomain(node));
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource.is_none() {
            immutable(&mut errors, &Path::ROOT, new, old, &["spec"]);
        }
        errors.into_vec()
    }
}

/// What is special about CSI drivers.
pub struct CsiDriver;

impl Strategy for CsiDriver {
    fn tracks_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        let words = ["File", "None", "ReadWriteOnceWithFSType"];
        one_of(&mut errors, &path.field("fsGroupPolicy"), spec, &words);
        let tokens = path.field("tokenRequests");
        let mut audiences = Seen::default();
        for (index, token) in spec.items("tokenRequests").iter().enumerate() {
            let path = tokens.index(index);
            if !audiences.is_new(token.text("audience")) {
                errors.duplicate(&path.field("audience"), token.text("audience"));
                continue;
            }
            let lifetime = path.field("expirationSeconds");
            match token.int("expirationSeconds") {
                Some(seconds) if seconds < TOKEN_SECONDS_MIN => {
                    errors.invalid(&lifetime, seconds, "may not specify a duration less than 10 minutes");
                }
                Some(seconds) if seconds > TOKEN_SECONDS_MAX => {
                    errors.invalid(&lifetime, seconds, "may not specify a duration larger than 2^32 seconds");
                }
                _ => {}
            }
        }
        let modes = ["Ephemeral", "Persistent"];
        for mode in spec.items("volumeLifecycleModes").iter().filter_map(Value::as_str) {
            if !modes.contains(&mode) {
                errors.not_supported(&path.field("volumeLifecycleModes"), mode, &modes);
            }
        }
        if let Some(seconds) =
            spec.int("nodeAllocatableUpdatePeriodSeconds").filter(|s| *s < PERIOD_SECONDS_MIN)
        {
            let detail = "must be greater than or equal to 10 seconds";
            errors.invalid(&path.field("nodeAllocatableUpdatePeriodSeconds"), seconds, detail);
        }
        if let Some(flag) = spec.at("serviceAccountTokenInSecrets")
            && spec.items("tokenRequests").is_empty()
        {
            let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            errors.invalid(&path.field("serviceAccountTokenInSecrets"), flag.clone(), detail);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (new, old) = (spec(new), spec(old));
        // Upstream's path of the first says `attachedRequired`.
        for (name, said) in
            [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            if !same_meaning(new.get(name), old.get(name)) {
                let value = new.get(name).cloned().unwrap_or_default();
                errors.invalid(&Path::ROOT.field("spec").field(said), value, IMMUTABLE);
            }
        }
        errors.into_vec()
    }
}

/// What is special about nodes as CSI drivers know them.
pub struct CsiNode;

impl Strategy for CsiNode {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec.drivers");
        let mut seen = Seen::default();
        for (index, driver) in spec(object).items("drivers").iter().enumerate() {
            let path = path.index(index);
            driver_name(&mut errors, &path.field("name"), driver.text("name"));
            let id = driver.text("nodeID");
            if id.is_empty() {
                errors.required(&path.field("nodeID"), "");
            } else if id.len() > NODE_ID_MAX {
                let detail = format!("must be {NODE_ID_MAX} characters or less");
                errors.invalid(&path.field("nodeID"), id, detail);
            }
            if let Some(count) =
                driver.dig(&["allocatable", "count"]).and_then(Value::as_i64).filter(|c| *c < 0)
            {
                let detail = "must be greater than or equal to 0";
                errors.invalid(&path.field("allocatable.count"), count, detail);
            }
            if !seen.is_new(driver.text("name")) {
                errors.duplicate(&path.field("name"), driver.text("name"));
            }
            let mut keys = Seen::default();
            for key in driver.items("topologyKeys").iter().filter_map(Value::as_str) {
                if !keys.is_new(key) {
                    errors.duplicate(&path, key);
                }
                errors.invalid_each(&path, key, names::qualified_name(key));
            }
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        // What is left of a driver when the number of its volumes, which may change, is set aside.
        let identity = |driver: &Value| {
            let mut driver = driver.clone();
            driver.drop_field("allocatable");
            driver
        };
        for before in spec(old).items("drivers") {
            for now in spec(new).items("drivers").iter().filter(|d| d.text("name") == before.text("name")) {
                if !same_meaning(Some(&identity(now)), Some(&identity(before))) {
                    errors.immutable(&Path::ROOT.field("spec.drivers"), &identity(now));
                }
            }
        }
        errors.into_vec()
    }
}

/// What is special about the storage that is left.
pub struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if let Some(topology) = object.at("nodeTopology") {
            selector::validate_object(&mut errors, &Path::ROOT.field("nodeTopology"), topology);
        }
        let class = object.text("storageClassName");
        errors.invalid_each(&Path::ROOT.field("storageClassName"), class, names::dns1123_subdomain(class));
        if let Some(capacity) = object.at("capacity").and_then(|c| Quantity::from_json(c).ok())
            && capacity.is_negative()
        {
            let detail = "must be greater than or equal to 0";
            errors.invalid(&Path::ROOT.field("capacity"), capacity.to_string(), detail);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        immutable(&mut errors, &Path::ROOT, new, old, &["nodeTopology", "storageClassName"]);
        errors.into_vec()
    }
}

/// The name of a CSI driver.
pub(super) fn driver_name(errors: &mut Errors, path: &Path, name: &str) {
    if name.is_empty() {
        errors.required(path, "");
    }
    if name.len() > DRIVER_NAME_MAX {
        errors.too_long(path, DRIVER_NAME_MAX);
    }
    let lower = name.to_lowercase();
    if !name.is_empty() {
        errors.invalid_each(path, name, names::dns1123_subdomain(&lower));
    }
}

fn provisioner(errors: &mut Errors, path: &Path, name: &str) {
    if name.is_empty() {
        errors.required(path, "");
    } else {
        errors.invalid_each(path, name, names::qualified_name(&name.to_lowercase()));
    }
}

fn parameters(errors: &mut Errors, object: &Value) {
    let path = Path::ROOT.field("parameters");
    if object.entries("parameters").count() > PARAMETERS_MAX {
        return errors.too_long(&path, PARAMETERS_MAX);
    }
    let mut bytes = 0;
    for (key, value) in object.entries("parameters") {
        if key.is_empty() {
            errors.invalid(&path, key.as_str(), "field can not be empty.");
        }
        bytes += key.len() + value.as_str().unwrap_or_default().len();
    }
    if bytes > PARAMETERS_BYTES_MAX {
        errors.too_long(&path, PARAMETERS_BYTES_MAX);
    }
}

fn topologies(errors: &mut Errors, terms: &[Value]) {
    let path = Path::ROOT.field("allowedTopologies");
    for (at, term) in terms.iter().enumerate() {
        let path = path.index(at);
        let path = path.field("matchLabelExpressions");
        let mut keys = Seen::default();
        for (index, expression) in term.items("matchLabelExpressions").iter().enumerate() {
            let path = path.index(index);
            let values = path.field("values");
            if expression.items("values").is_empty() {
                errors.required(&values, "");
            }
            let mut seen = BTreeSet::new();
            for (index, value) in expression.items("values").iter().filter_map(Value::as_str).enumerate() {
                if !seen.insert(value) {
                    errors.duplicate(&values.index(index), value);
                }
            }
            let key = expression.text("key");
            errors.invalid_each(&path.field("key"), key, names::qualified_name(key));
            if !keys.is_new(key) {
                errors.duplicate(&path.field("key"), key);
            }
        }
        if terms.iter().take(at).any(|before| same_meaning(Some(before), Some(term))) {
            errors.duplicate(&path, "");
        }
    }
}
