//! What is wrong with one field of an object, and with a schema.

/// What is wrong with one field, in the words of `metav1.StatusCause`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, `FieldValueDuplicate`,
    /// `FieldValueForbidden`, `FieldValueTooLong`, `FieldValueTooMany`, `FieldValueTypeInvalid`.
    pub reason: &'static str,
    /// The path as upstream writes it: `spec.containers[0].image`.
    pub field: String,
    /// The full message, without the path.
    pub message: String,
}

/// A schema that cannot be used. A retry does not help: the author of the schema has to change it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A keyword holds a value of the wrong type.
    #[error("{at}: {keyword} is not valid here")]
    Keyword {
        /// Where in the schema.
        at: String,
        /// Which keyword.
        keyword: String,
    },
    /// A pattern does not compile.
    #[error("{at}: pattern {pattern:?} does not compile: {why}")]
    Pattern {
        /// Where in the schema.
        at: String,
        /// The pattern.
        pattern: String,
        /// The compiler's words.
        why: String,
    },
    /// A `$ref` leads nowhere.
    #[error("{at}: there is no definition {name}")]
    Reference {
        /// Where in the schema.
        at: String,
        /// The name it refers to.
        name: String,
    },
}
