//! Checking objects: a cursor that knows a value, where in the object it stands, and whom to tell what is wrong with it.
//!
//! What is absent reads as null, and so as empty text, as zero and as a list without elements; the schema has checked
//! types before. Moving the cursor allocates nothing: a path becomes text only when something is wrong.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    ops::{Deref, RangeBounds},
};

use serde_json::Value;

use crate::{
    FieldError,
    field::{Errors, Path, PathExt, same_meaning},
    names,
};

/// What is wrong with a text, as the functions of [`names`] tell it.
pub type Form = fn(&str) -> Vec<String>;

static ABSENT: Value = Value::Null;

/// A place in an object that is being checked. It reads like the value that is there.
#[derive(Clone, Copy)]
pub struct At<'p, 'v> {
    value: &'v Value,
    path: Path<'p>,
    errors: &'p RefCell<Errors>,
}

impl Deref for At<'_, '_> {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.value
    }
}

/// Everything that a check says of an object.
pub fn check(object: &Value, check: impl FnOnce(&At)) -> Vec<FieldError> {
    check_at(&Path::ROOT, object, check)
}

/// Everything that a check says of what stands at a place.
pub fn check_at(path: &Path, value: &Value, check: impl FnOnce(&At)) -> Vec<FieldError> {
    let errors = RefCell::default();
    check(&At { value, path: *path, errors: &errors });
    errors.into_inner().into_vec()
}

/// Ways from one place to another.
impl<'p, 'v> At<'p, 'v> {
    /// What is here, for longer than the cursor.
    pub fn value(&self) -> &'v Value {
        self.value
    }

    /// Where this is.
    pub fn path(&self) -> &Path<'p> {
        &self.path
    }

    /// The same place with another value in it.
    pub fn with<'w>(&self, value: &'w Value) -> At<'p, 'w> {
        At { value, path: self.path, errors: self.errors }
    }

    /// A field; dots in the name lead down several.
    pub fn field<'s>(&'s self, name: &'s str) -> At<'s, 'v> {
        let value = name.split('.').try_fold(self.value, |value, step| value.get(step));
        At { value: value.unwrap_or(&ABSENT), path: self.path.field(name), errors: self.errors }
    }

    /// A field that is there.
    pub fn given<'s>(&'s self, name: &'s str) -> Option<At<'s, 'v>> {
        Some(self.field(name)).filter(At::is_given)
    }

    /// Checks a field if it is there.
    pub fn optional(&self, name: &str, check: impl FnOnce(&At<'_, 'v>)) {
        if let Some(field) = self.given(name) {
            check(&field);
        }
    }

    /// The value of a key of a map.
    pub fn key<'s>(&'s self, key: &'s str) -> At<'s, 'v> {
        At { value: self.value.get(key).unwrap_or(&ABSENT), path: self.path.key(key), errors: self.errors }
    }

    /// What the keys of a map lead to.
    pub fn members(&self) -> impl Iterator<Item = (&'v str, At<'_, 'v>)> {
        let fields = self.value.as_object().into_iter().flatten();
        fields.map(|(key, value)| (key.as_str(), At { value, path: self.path.key(key), errors: self.errors }))
    }

    /// An element of a list.
    pub fn index(&self, index: usize) -> At<'_, 'v> {
        let value = self.value.get(index).unwrap_or(&ABSENT);
        At { value, path: self.path.index(index), errors: self.errors }
    }

    /// The elements of a list.
    pub fn elements(&self) -> impl Iterator<Item = At<'_, 'v>> {
        (0..self.list().len()).map(|index| self.index(index))
    }

    /// Checks every element of a field that is a list.
    pub fn each(&self, list: &str, check: impl FnMut(&At<'_, 'v>)) {
        let mut check = check;
        self.field(list).elements().for_each(|element| check(&element));
    }
}

/// Looking at what is here.
impl<'v> At<'_, 'v> {
    /// Whether there is anything, be it empty.
    pub fn is_given(&self) -> bool {
        !self.value.is_null()
    }

    /// The text.
    pub fn str(&self) -> &'v str {
        self.value.as_str().unwrap_or_default()
    }

    /// The number.
    pub fn number(&self) -> i64 {
        self.value.as_i64().unwrap_or_default()
    }

    /// The elements.
    pub fn list(&self) -> &'v [Value] {
        self.value.as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the text, list or map holds nothing.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => self.str().is_empty(),
        }
    }
}

/// Telling what is wrong.
impl At<'_, '_> {
    fn tell(&self, tell: impl FnOnce(&mut Errors, &Path)) {
        tell(&mut self.errors.borrow_mut(), &self.path);
    }

    /// How much has been found so far.
    pub fn count_of_errors(&self) -> usize {
        self.errors.borrow().len()
    }

    /// Something has to be here.
    pub fn required(&self, detail: &str) {
        self.tell(|errors, path| errors.required(path, detail));
    }

    /// What is here is malformed or out of bounds.
    pub fn invalid(&self, detail: impl AsRef<str>) {
        self.invalid_value(self.value.clone(), detail);
    }

    /// Likewise, with the value as it is to be told.
    pub fn invalid_value(&self, value: impl Into<Value>, detail: impl AsRef<str>) {
        self.tell(|errors, path| errors.invalid(path, value, detail));
    }

    /// Likewise of a text, of which none is the empty one.
    pub fn invalid_text(&self, detail: impl AsRef<str>) {
        self.invalid_value(self.str(), detail);
    }

    /// Likewise, with no value told.
    pub fn invalid_unnamed(&self, detail: impl AsRef<str>) {
        self.tell(|errors, path| errors.invalid_unnamed(path, detail));
    }

    /// One error for each complaint about the same text.
    pub fn invalid_each(&self, text: &str, details: impl IntoIterator<Item = String>) {
        self.tell(|errors, path| errors.invalid_each(path, text, details));
    }

    /// The text is none of those known.
    pub fn not_supported(&self, words: &[&str]) {
        self.not_supported_value(self.str(), words);
    }

    /// Likewise, with the value as it is to be told.
    pub fn not_supported_value(&self, value: impl Into<Value>, words: &[&str]) {
        self.tell(|errors, path| errors.not_supported(path, value, words));
    }

    /// What is here may not be here.
    pub fn forbidden(&self, detail: &str) {
        self.tell(|errors, path| errors.forbidden(path, detail));
    }

    /// What is here was there before.
    pub fn duplicate(&self) {
        self.duplicate_value(self.value.clone());
    }

    /// Likewise, with the value as it is to be told.
    pub fn duplicate_value(&self, value: impl Into<Value>) {
        self.tell(|errors, path| errors.duplicate(path, value));
    }

    /// Likewise, with the reason.
    pub fn duplicate_because(&self, detail: &str) {
        self.tell(|errors, path| errors.duplicate_because(path, self.value.clone(), detail));
    }

    /// What the text refers to is not there.
    pub fn not_found(&self) {
        self.tell(|errors, path| errors.not_found(path, self.str()));
    }

    /// More bytes than may be.
    pub fn too_long(&self, bytes_max: usize) {
        self.tell(|errors, path| errors.too_long(path, bytes_max));
    }

    /// More elements than may be.
    pub fn too_many(&self, count: usize, count_max: usize) {
        self.tell(|errors, path| errors.too_many(path, count, count_max));
    }

    /// What another check has found of what is here.
    pub fn found(&self, faults: Vec<FieldError>) {
        let below = |field: &str| match field {
            "<nil>" => self.path.to_string(),
            field => self.path.field(field).to_string(),
        };
        let faults = faults.into_iter().map(|fault| FieldError { field: below(&fault.field), ..fault });
        self.errors.borrow_mut().extend(faults);
    }

    /// What is here may not change.
    pub fn immutable(&self) {
        self.tell(|errors, path| errors.immutable(path, self.value));
    }
}

/// Rules that many fields share.
impl<'v> At<'_, 'v> {
    /// A text, list or map that holds something.
    pub fn filled(&self, detail: &str) {
        if self.is_empty() {
            self.required(detail);
        }
    }

    /// Fields of which each holds something.
    pub fn all_filled(&self, names: &[&str]) {
        names.iter().for_each(|name| self.field(name).filled(""));
    }

    /// A text of that form, the empty one not excepted.
    pub fn form(&self, form: Form) {
        self.invalid_each(self.str(), form(self.str()));
    }

    /// A text of that form, which has to be there.
    pub fn name(&self, form: Form) {
        if self.is_empty() { self.required("") } else { self.form(form) }
    }

    /// A text of that form, or none.
    pub fn name_or_none(&self, form: Form) {
        if !self.is_empty() {
            self.form(form);
        }
    }

    /// One of some words, which has to be there.
    pub fn one_of(&self, words: &[&str]) {
        if self.is_empty() { self.required("") } else { self.among(words) }
    }

    /// One of some words; the empty text is another one.
    pub fn among(&self, words: &[&str]) {
        if !words.contains(&self.str()) {
            self.not_supported(words);
        }
    }

    /// One of some words, or none.
    pub fn among_or_none(&self, words: &[&str]) {
        if !self.is_empty() {
            self.among(words);
        }
    }

    /// A number in a range, if there is one.
    pub fn within(&self, range: impl RangeBounds<i64>, detail: &str) {
        if self.value.as_i64().is_some_and(|number| !range.contains(&number)) {
            self.invalid(detail);
        }
    }

    /// A number in a range; without one it is zero.
    pub fn number_within(&self, range: impl RangeBounds<i64>, detail: &str) {
        if !range.contains(&self.number()) {
            self.invalid_value(self.number(), detail);
        }
    }

    /// Number fields that must not be below zero.
    pub fn non_negative(&self, names: &[&str]) {
        for name in names {
            self.field(name).within(0.., "must be greater than or equal to 0");
        }
    }

    /// The number of a port.
    pub fn port_number(&self) {
        if let Some(fault) = names::port_number(self.number()) {
            self.invalid_value(self.number(), fault);
        }
    }

    /// A text of at most so many bytes.
    pub fn at_most_bytes(&self, bytes_max: usize) {
        if self.str().len() > bytes_max {
            self.too_long(bytes_max);
        }
    }

    /// A list of at most so many elements.
    pub fn at_most(&self, count_max: usize) {
        let count = self.list().len();
        if count > count_max {
            self.too_many(count, count_max);
        }
    }

    /// A text that did not come up before.
    pub fn unique(&self, seen: &mut BTreeSet<&'v str>) {
        if !seen.insert(self.str()) {
            self.duplicate_value(self.str());
        }
    }

    /// A map of labels.
    pub fn labels(&self) {
        for (key, value) in self.members() {
            self.invalid_each(key, names::qualified_name(key));
            self.invalid_each(value.str(), names::label_value(value.str()));
        }
    }

    /// Fields that must mean what they meant before.
    pub fn fixed(&self, old: &Value, names: &[&str]) {
        for name in names.iter().filter(|name| !same_meaning(self.get(name), old.get(name))) {
            self.field(name).immutable();
        }
    }
}
