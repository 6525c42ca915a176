//! Where in an object something is: a chain of steps on the stack, turned into text only when something is wrong.

use std::fmt;

/// One step down into a tree.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// A property of a structure: `.image`.
    Field(&'a str),
    /// A key of a free map: `[app]`.
    Key(&'a str),
    /// An element of a list: `[0]`.
    Index(usize),
}

/// A path that borrows its parent, so that walking costs no allocation.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Option<Step<'a>>,
}

impl<'a> Path<'a> {
    /// The object itself.
    pub const ROOT: Path<'static> = Path { parent: None, step: None };

    /// The path of a child.
    pub fn child(&'a self, step: Step<'a>) -> Path<'a> {
        Path { parent: Some(self), step: Some(step) }
    }

    /// Whether this is the object itself.
    pub fn is_root(&self) -> bool {
        self.step.is_none()
    }

    /// The names of the fields on the way, without list indexes and map keys: `spec.template.spec.containers.image`.
    pub fn field_names(&self) -> String {
        let mut text = self.parent.map(Path::field_names).unwrap_or_default();
        if let Some(Step::Field(name) | Step::Key(name)) = self.step {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(name);
        }
        text
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_first = self.parent.is_none_or(|p| p.step.is_none());
        if let Some(parent) = self.parent {
            parent.fmt(out)?;
        }
        match self.step {
            None => Ok(()),
            Some(Step::Field(name)) if is_first => out.write_str(name),
            Some(Step::Field(name)) => write!(out, ".{name}"),
            Some(Step::Key(key)) => write!(out, "[{key}]"),
            Some(Step::Index(index)) => write!(out, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_should_read_as_upstream_writes_them() {
        let spec = Path::ROOT.child(Step::Field("spec"));
        let containers = spec.child(Step::Field("containers"));
        let first = containers.child(Step::Index(0));
        let limits = first.child(Step::Field("limits"));
        let cpu = limits.child(Step::Key("cpu"));
        assert_eq!(cpu.to_string(), "spec.containers[0].limits[cpu]");
        assert_eq!(cpu.field_names(), "spec.containers.limits.cpu");
        assert_eq!(Path::ROOT.to_string(), "");
    }
}
