//! `format.dns1123Label().validate(name)`

use api::names;
use base64::Engine;

use crate::functions::cost::{self, ONE};
use crate::functions::{As, Row, row, take, time};
use crate::meter::Outcome;
use crate::value::{Opaque, Value};

/// A format: what it is called, how long its pattern is taken to be, and what it has against a text.
struct Format {
    name: &'static str,
    pattern_length: u64,
    faults: fn(&str) -> Vec<String>,
}

static FORMATS: [Format; 13] = [
    Format { name: "dns1123Label", pattern_length: 30, faults: names::dns1123_label },
    Format { name: "dns1123Subdomain", pattern_length: 60, faults: names::dns1123_subdomain },
    Format { name: "dns1035Label", pattern_length: 30, faults: names::dns1035_label },
    Format { name: "qualifiedName", pattern_length: 60, faults: names::qualified_name },
    Format {
        name: "dns1123LabelPrefix",
        pattern_length: 30,
        faults: |text| names::dns1123_label(&prefix(text)),
    },
    Format {
        name: "dns1123SubdomainPrefix",
        pattern_length: 60,
        faults: |text| names::dns1123_subdomain(&prefix(text)),
    },
    Format {
        name: "dns1035LabelPrefix",
        pattern_length: 30,
        faults: |text| names::dns1035_label(&prefix(text)),
    },
    Format { name: "labelValue", pattern_length: 40, faults: names::label_value },
    Format {
        name: "uri",
        pattern_length: 1103,
        faults: |text| {
            super::url::check(text).err().map(|why| format!("parse {text:?}: {why}")).into_iter().collect()
        },
    },
    Format {
        name: "uuid",
        pattern_length: 79,
        faults: |text| unless(is_uuid(text), "does not match the UUID format"),
    },
    Format {
        name: "byte",
        pattern_length: 80,
        faults: |text| {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text);
            unless(decoded.is_ok(), "invalid base64")
        },
    },
    Format { name: "date", pattern_length: 142, faults: |text| unless(is_date(text), "invalid date") },
    Format {
        name: "datetime",
        pattern_length: 142,
        faults: |text| unless(time::parse_timestamp(text).is_some(), "invalid datetime"),
    },
];

/// A format as a value.
#[derive(Debug)]
struct Named(&'static str);

impl Named {
    fn format(&self) -> Option<&'static Format> {
        FORMATS.iter().find(|format| format.name == self.0)
    }
}

impl Opaque for Named {
    fn type_name(&self) -> &'static str {
        "kubernetes.NamedFormat"
    }

    fn is(&self, other: &dyn Opaque) -> bool {
        (other as &dyn std::any::Any).downcast_ref::<Self>().is_some_and(|other| other.0 == self.0)
    }

    fn size(&self) -> u64 {
        self.format().map_or(1, |format| format.pattern_length)
    }
}

pub(crate) const ROWS: &[Row] = &[
    row("format.named", "(string) -> optional(kubernetes.NamedFormat)", &ONE, |_, args| {
        let [name] = take(args)?;
        let name = name.string()?;
        let known = FORMATS.iter().find(|format| format.name == &**name);
        Ok(known.map_or_else(Value::none, |format| Value::some(Value::opaque(Named(format.name)))))
    }),
    row(
        "validate",
        "kubernetes.NamedFormat.(string) -> optional(list(string))",
        &cost::VALIDATES,
        |_, args| {
            let [format, text] = take(args)?;
            let text = text.string()?;
            let faults =
                format.downcast::<Named>()?.format().map(|format| (format.faults)(text)).unwrap_or_default();
            if faults.is_empty() {
                return Ok(Value::none());
            }
            Ok(Value::some(Value::list(faults.into_iter().map(Value::text).collect())))
        },
    ),
    row("format.dns1123Label", GIVES, &ONE, |_, _| named("dns1123Label")),
    row("format.dns1123Subdomain", GIVES, &ONE, |_, _| named("dns1123Subdomain")),
    row("format.dns1035Label", GIVES, &ONE, |_, _| named("dns1035Label")),
    row("format.qualifiedName", GIVES, &ONE, |_, _| named("qualifiedName")),
    row("format.dns1123LabelPrefix", GIVES, &ONE, |_, _| named("dns1123LabelPrefix")),
    row("format.dns1123SubdomainPrefix", GIVES, &ONE, |_, _| named("dns1123SubdomainPrefix")),
    row("format.dns1035LabelPrefix", GIVES, &ONE, |_, _| named("dns1035LabelPrefix")),
    row("format.labelValue", GIVES, &ONE, |_, _| named("labelValue")),
    row("format.uri", GIVES, &ONE, |_, _| named("uri")),
    row("format.uuid", GIVES, &ONE, |_, _| named("uuid")),
    row("format.byte", GIVES, &ONE, |_, _| named("byte")),
    row("format.date", GIVES, &ONE, |_, _| named("date")),
    row("format.datetime", GIVES, &ONE, |_, _| named("datetime")),
];

const GIVES: &str = "() -> kubernetes.NamedFormat";

fn named<'v>(name: &'static str) -> Outcome<'v> {
    Ok(Value::opaque(Named(name)))
}

fn unless(holds: bool, fault: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![fault.to_string()] }
}

/// What comes before a generated name may end with a dash that the name goes on from.
fn prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(start) if text.len() > 1 => format!("{start}a"),
        _ => text.to_string(),
    }
}

fn is_uuid(text: &str) -> bool {
    let digits = text.bytes().filter(|byte| *byte != b'-');
    digits.clone().count() == 32 && digits.clone().all(|byte| byte.is_ascii_hexdigit())
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}
