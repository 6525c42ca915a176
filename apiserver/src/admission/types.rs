//! The types of what expressions look at that is the same for all of them: the request and its namespace.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use cel::shape::{Field, Kind, Merge, Shape};

/// `request`
pub(super) fn request_shape() -> &'static Arc<Shape> {
    static SHAPE: OnceLock<Arc<Shape>> = OnceLock::new();
    SHAPE.get_or_init(|| {
        let kind = object(&[("group", text()), ("version", text()), ("kind", text())]);
        let resource = object(&[("group", text()), ("version", text()), ("resource", text())]);
        let user = object(&[
            ("username", text()),
            ("uid", text()),
            ("groups", list(&text())),
            ("extra", map(&list(&text()))),
        ]);
        object(&[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", of(Kind::Bool)),
            ("options", Shape::any().clone()),
        ])
    })
}

/// `namespaceObject`
pub(super) fn namespace_shape() -> &'static Arc<Shape> {
    static SHAPE: OnceLock<Arc<Shape>> = OnceLock::new();
    SHAPE.get_or_init(|| {
        let metadata = object(&[
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", map(&text())),
            ("annotations", map(&text())),
            ("uid", text()),
            ("creationTimestamp", of(Kind::Timestamp)),
            ("deletionGracePeriodSeconds", of(Kind::Int)),
            ("deletionTimestamp", of(Kind::Timestamp)),
            ("generation", of(Kind::Int)),
            ("resourceVersion", text()),
            ("finalizers", list(&text())),
        ]);
        let condition = object(&[
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", of(Kind::Timestamp)),
            ("message", text()),
            ("reason", text()),
        ]);
        let status = object(&[("conditions", list(&condition)), ("phase", text())]);
        object(&[
            ("metadata", metadata),
            ("spec", object(&[("finalizers", list(&text()))])),
            ("status", status),
        ])
    })
}

fn of(kind: Kind) -> Arc<Shape> {
    Shape::new(kind, u64::MAX, 1)
}

fn text() -> Arc<Shape> {
    of(Kind::String)
}

fn list(items: &Arc<Shape>) -> Arc<Shape> {
    of(Kind::List { items: items.clone(), merge: Merge::Atomic })
}

fn map(values: &Arc<Shape>) -> Arc<Shape> {
    of(Kind::Map { values: values.clone() })
}

fn object(fields: &[(&str, Arc<Shape>)]) -> Arc<Shape> {
    let field = |(name, shape): &(&str, Arc<Shape>)| {
        ((*name).into(), Field { name: (*name).into(), shape: shape.clone() })
    };
    of(Kind::Object { fields: fields.iter().map(field).collect::<BTreeMap<_, _>>() })
}
